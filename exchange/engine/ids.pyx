"""What is seldom needed of the id hash: keys behind the bucket where they belong, and its growth.
Everything else about it is inline in ids.pxd."""

from exchange.engine.state cimport (
    Account, Bucket, FREE, Known, Market, Order, is_aged, release_pages, state_of, take_pages, u32,
    u64,
)
from exchange.engine.vocabulary cimport LIMIT_IDEMPOTENCY_WINDOW


cdef inline u64 after(Market* m, u64 at) noexcept nogil:
    """The offset of the bucket behind one."""
    return (at + sizeof(Bucket)) & m.bucket_mask


cdef inline u64 before(Market* m, u64 at) noexcept nogil:
    return (at - sizeof(Bucket)) & m.bucket_mask


cdef u32 find_further(Market* m, u32 account, u64 hash, u64 key_lo, u64 key_hi) noexcept nogil:
    """The slot that (account, key) names in a bucket behind the one where it belongs, 0 if none.
    Then the buckets that were searched no longer count as passed for keys that are gone."""
    cdef u64 home = hash & m.bucket_mask
    cdef u64 at = home
    cdef u64 passed = 0
    cdef u32 slot
    while bucket_of(m, at).passed:
        at = after(m, at)
        if at == home:  # all of them: the last keys may have passed the first buckets
            passed = go_back(m, home, home, 0, False)
            break
        slot = find_in(m, bucket_of(m, at), account, hash, key_lo, key_hi)
        if slot:
            return slot
    go_back(m, at, home, passed, True)
    return 0


cdef u64 go_back(Market* m, u64 at, u64 home, u64 passed, bint note) noexcept nogil:
    """Go back from bucket `at` to `home` and, if asked, note whether each was passed by a key that
    is still there. `passed`, and the result: how many buckets before this one are known to be."""
    passed = farthest(m, at, passed)
    while True:
        at = before(m, at)
        if note:
            bucket_of(m, at).passed = passed != 0
        passed = farthest(m, at, passed - 1 if passed else 0)
        if at == home:
            return passed


cdef u64 farthest(Market* m, u64 at, u64 passed) noexcept nogil:
    """The most buckets that a key in this one has passed, or `passed` if that is more."""
    cdef Bucket* bucket = bucket_of(m, at)
    cdef u64 distance
    cdef u32 k
    for k in range(8):
        if bucket.tags[k]:
            distance = ((at - home_of(m, bucket.slots[k])) & m.bucket_mask) / sizeof(Bucket)
            passed = distance if distance > passed else passed
    return passed


cdef u64 home_of(Market* m, u32 slot) noexcept nogil:
    """The bucket where the key of a slot belongs, as an offset in bytes."""
    cdef Order* o = &m.orders[slot]
    return hash_of(owner_of(m, o), o.key_lo) & m.bucket_mask


cdef u64 find_place(Market* m, u64 hash) noexcept nogil:
    """The first free place for a key that is not known."""
    cdef u64 at = hash & m.bucket_mask
    cdef u64 found = untagged(bucket_of(m, at).tags)
    while found == 0:
        bucket_of(m, at).passed = True
        at = after(m, at)
        found = untagged(bucket_of(m, at).tags)
    return at + first_of(found)


cdef void erase_further(Market* m, u64 hash, u32 slot) noexcept nogil:
    """`erase_key` where another key of the bucket has its tag, or of a key that is behind it."""
    cdef u64 home = hash & m.bucket_mask
    cdef u64 at = home
    cdef Bucket* bucket
    cdef u64 found
    while True:
        bucket = bucket_of(m, at)
        found = tagged(bucket.tags, hash)
        while found:
            if slot_in(bucket, found) == slot:
                bucket.tags[first_of(found) >> 1] = 0
                return
            found &= found - 1
            found &= found - 1
        at = after(m, at)
        if at == home:
            m.broken = 5
            return


cdef void reserve_ids(Market* m, u64 commands) noexcept nogil:
    """Make room for the ids of a batch, at most one a command, so that no command has to check."""
    cdef u64 most = m.order_top + commands
    if most > m.order_capacity:
        most = m.order_capacity
    while m.id_room < most and not m.broken:
        grow_buckets(m)


cdef void grow_buckets(Market* m) noexcept nogil:
    """Double the buckets, and put every id into its new place: those in a window, and of orders
    that have outlived theirs."""
    cdef u64 size = m.bucket_mask + sizeof(Bucket)
    cdef Bucket* buckets = <Bucket*>take_pages(2 * size, True)
    cdef Account* account
    cdef Known* known
    cdef Order* o
    cdef u32 i, k
    if buckets == NULL:
        m.broken = 1
        return
    release_pages(m.buckets)
    m.buckets = buckets
    m.bucket_mask = 2 * size - sizeof(Bucket)
    m.id_room *= 2
    for i in range(m.account_top):
        account = &m.accounts[i]
        if account.is_open:
            for k in range(LIMIT_IDEMPOTENCY_WINDOW):
                known = &account.ring[k]
                if known.slot:
                    known.place = <u32>place_key(m, i, known.slot)
    for i in range(1, m.order_top):
        o = &m.orders[i]
        if is_aged(o) and state_of(o) != FREE:
            place_key(m, owner_of(m, o), i)


cdef u64 place_key(Market* m, u32 account, u32 slot) noexcept nogil:
    """Put the key of a slot into a free place."""
    cdef u64 hash = marked(hash_of(account, m.orders[slot].key_lo))
    cdef u64 place = find_place(m, hash)
    fill_place(m, place, hash, slot)
    return place
