# Ids: the hash from (account, 128-bit key) to a slot, the slab of slots with its free list, and
# each account's window of remembered ids. A live order keeps its slot, and so does a finished one
# while its id is in the window; a quote's side has no id and is not in the hash. Once its
# instrument has expired a finished order is PAST: it knows its account and instrument without a
# position.
#
# The hash is an array of buckets, a cache line of eight places each, at most three eighths full. A
# key belongs into one bucket, at any free place; if that is full, into the next that is not. Ids do
# not move, so a window knows the place of its ids and forgets them without a search. A search
# compares the tags of a bucket at once, without a branch for each, and rarely touches the slab.

from exchange.engine.combinations cimport charge_legs
from exchange.engine.expiry cimport stop_expiry
from exchange.engine.extras cimport forget_extra
from exchange.engine.vocabulary cimport LIMIT_IDEMPOTENCY_WINDOW
from exchange.engine.state cimport (
    AGED, Account, Bucket, COMBINED, Command, EXPIRES, FEATURED, FREE, Known, Market, Order,
    RECEIPT, UNPRICED, account_of, assume, ensure, instrument_of, is_aged, is_live, is_marked,
    is_past, likely, prefetch, read_again, state_of, u16, u32, u64, u8, unlikely,
)

cdef extern from *:
    """
    #if defined(__x86_64__) && !defined(HOURBOOK_CHECKED)  /* the checks use the other code */
    #include <emmintrin.h>
    static inline uint64_t hb_first(uint64_t found) {  /* the builtin's result is an int: widened */
        __asm__("rep bsfq %1, %0" : "=r"(found) : "r"(found) : "cc");
        return found;
    }
    static inline uint64_t hb_tagged(const uint16_t* tags, uint64_t hash) {
        __m128i tag = _mm_shufflelo_epi16(_mm_cvtsi64_si128((long long)hash), 0xAA);
        tag = _mm_unpacklo_epi64(tag, tag);
        tag = _mm_cmpeq_epi16(tag, _mm_load_si128((const __m128i*)tags));
        return (uint32_t)_mm_movemask_epi8(tag);
    }
    static inline uint64_t hb_free_beside(const uint16_t* tags, uint64_t hash, uint32_t passed) {
        __m128i all = _mm_load_si128((const __m128i*)tags);
        __m128i tag = _mm_shufflelo_epi16(_mm_cvtsi64_si128((long long)hash), 0xAA);
        __m128i same = _mm_cmpeq_epi16(_mm_unpacklo_epi64(tag, tag), all);
        if (__builtin_expect(((uint32_t)_mm_movemask_epi8(same) | passed) != 0, 0))
            return 0;
        return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi16(same, all));  /* `same` is all zeros */
    }
    static inline uint64_t hb_untagged(const uint16_t* tags) {
        __m128i none = _mm_cmpeq_epi16(_mm_setzero_si128(), _mm_load_si128((const __m128i*)tags));
        return (uint32_t)_mm_movemask_epi8(none);
    }
    #else
    static inline uint64_t hb_first(uint64_t found) {
        return (uint64_t)__builtin_ctzll(found);
    }
    static inline uint64_t hb_tagged(const uint16_t* tags, uint64_t hash) {
        uint64_t found = 0;
        for (int k = 0; k < 8; k++)
            found |= (uint64_t)(tags[k] == (uint16_t)(hash >> 32)) * 3 << 2 * k;
        return found;
    }
    static inline uint64_t hb_untagged(const uint16_t* tags) {
        return hb_tagged(tags, 0);
    }
    static inline uint64_t hb_free_beside(const uint16_t* tags, uint64_t hash, uint32_t passed) {
        return hb_tagged(tags, hash) | passed ? 0 : hb_untagged(tags);
    }
    #endif
    """
    # Places of a bucket: two bits for each, the lowest first.
    u64 tagged "hb_tagged"(const u16* tags, u64 hash) noexcept nogil  # that have the hash's tag
    u64 untagged "hb_untagged"(const u16* tags) noexcept nogil  # that are free
    # that are free, but 0 if one has the hash's tag or the bucket was passed
    u64 free_beside "hb_free_beside"(const u16* tags, u64 hash, u32 passed) noexcept nogil
    u64 first_of "hb_first"(u64 found) noexcept nogil  # offset of the first place's tag, in bytes

cdef enum:
    NOWHERE = 1 << 18  # stands for no place: where its slot would be is 0
    FRESH = 8  # how many slots ahead slots that were never used are prefetched

cdef void reserve_ids(Market* m, u64 commands) noexcept nogil
cdef u32 find_further(Market* m, u32 account, u64 hash, u64 key_lo, u64 key_hi) noexcept nogil
cdef u64 home_of(Market* m, u32 slot) noexcept nogil
cdef u64 find_place(Market* m, u64 hash) noexcept nogil
cdef void erase_further(Market* m, u64 hash, u32 slot) noexcept nogil


cdef inline u64 hash_of(u32 account, u64 key_lo) noexcept nogil:
    """The hash of (account, key). Its low bits give the bucket, bits 32 to 47 are the tag, which
    hardly depends on the account. The factors spread keys that are digests, and keys that are
    counted up, in any number of accounts."""
    return key_lo * <u64>0x5851F42D + <u64>(account * <u32>0xCC9E2D51)


cdef inline u64 marked(u64 hash) noexcept nogil:
    """The hash as it is stored: 0 is the tag of a free place, so such a key's tag is 1. Without
    this, its search finds free places, whose old slots have other keys."""
    return hash if likely(hash & <u64>0xFFFF << 32 != 0) else hash | <u64>1 << 32


cdef inline Bucket* bucket_of(Market* m, u64 hash) noexcept nogil:
    """The bucket where a key belongs."""
    return <Bucket*>(<u8*>m.buckets + (hash & m.bucket_mask))


cdef inline u32 owner_of(Market* m, Order* o) noexcept nogil:
    """The account of an order or a receipt."""
    return o.prev if unlikely(state_of(o) >= RECEIPT) else account_of(&m.positions[o.position])


cdef inline u32 book_of(Market* m, Order* o) noexcept nogil:
    """The number of the instrument of an order."""
    return o.position if is_past(o) else instrument_of(&m.positions[o.position])


cdef inline u32 slot_in(Bucket* bucket, u64 found) noexcept nogil:
    """The slot at the first of the places that `tagged` found, 0 if it found none."""
    return (<u32*>(<u8*>bucket.slots + 2 * first_of(found | NOWHERE)))[0]


cdef inline u32 find_in(Market* m, Bucket* bucket, u32 account, u64 hash, u64 key_lo,
                        u64 key_hi) noexcept nogil:
    """The slot that a bucket has for (account, key), 0 if none."""
    cdef u64 found = tagged(bucket.tags, hash)
    cdef u32 slot
    cdef Order* o
    while found:
        slot = slot_in(bucket, found)
        o = &m.orders[slot]
        if likely(o.key_lo == key_lo and o.key_hi == key_hi and owner_of(m, o) == account):
            return slot
        found &= found - 1
        found &= found - 1
    return 0


cdef inline u32 find_key(Market* m, u32 account, u64 key_lo, u64 key_hi) noexcept nogil:
    """The slot that (account, key) names, 0 if none."""
    cdef u64 hash = marked(hash_of(account, key_lo))
    cdef Bucket* bucket = bucket_of(m, hash)
    cdef u32 slot = find_in(m, bucket, account, hash, key_lo, key_hi)
    if unlikely(slot == 0 and bucket.passed):
        return find_further(m, account, hash, key_lo, key_hi)
    return slot


cdef inline void fill_place(Market* m, u64 place, u64 hash, u32 slot) noexcept nogil:
    """Put a key into a free place."""
    cdef u8* at = <u8*>m.buckets + place
    (<u16*>at)[0] = <u16>(hash >> 32)
    (<u32*>(at + 16 + (place & 14)))[0] = slot


cdef inline void empty_place(Market* m, u64 place) noexcept nogil:
    """Forget the key of a place."""
    (<u16*>(<u8*>m.buckets + place))[0] = 0


cdef inline void erase_key(Market* m, u64 hash, u32 slot) noexcept nogil:
    """Forget a key whose place no window remembers. It is there."""
    cdef Bucket* bucket = bucket_of(m, hash)
    cdef u64 at = first_of(tagged(bucket.tags, hash) | NOWHERE)
    if likely((<u32*>(<u8*>bucket.slots + 2 * at))[0] == slot):
        (<u16*>(<u8*>bucket.tags + at))[0] = 0
    else:
        erase_further(m, hash, slot)


cdef inline bint slots_left(Market* m) noexcept nogil:
    return m.order_free != 0 or m.order_top < m.order_capacity


cdef inline bint gives_slot(Market* m, Account* account) noexcept nogil:
    """Whether the account's oldest remembered id names a request or a finished order, so that the
    account's next id takes its slot: see `take_known_slot`."""
    return state_of(&m.orders[account.ring[account.ring_head].slot]) > UNPRICED


cdef inline bint has_slot(Market* m, Account* account) noexcept nogil:
    """Whether there is a slot for one more id of the account."""
    return likely(slots_left(m)) or gives_slot(m, account)


cdef inline u32 find_slot(Market* m) noexcept nogil:
    """Take a slot; 0 if none is left. The caller raises its generation."""
    cdef u32 slot = m.order_free
    if likely(slot != 0):
        m.order_free = m.orders[slot].next
        return slot
    slot = m.order_top
    if slot >= m.order_capacity:
        return 0
    m.order_top = slot + 1
    prefetch(&m.orders[slot + FRESH])
    return slot


cdef inline u32 take_slot(Market* m) noexcept nogil:
    """Take a slot that no id names, and raise its generation; the caller knows that one is left."""
    cdef u32 slot = find_slot(m)
    m.orders[slot].generation += 1
    return slot


cdef inline void free_slot(Market* m, u32 slot, u64 hash) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    ensure(m, not is_live(o) and state_of(o) != FREE)
    erase_key(m, hash, slot)
    o.traits = 0  # FREE
    o.next = m.order_free
    m.order_free = slot


cdef inline void free_quote(Market* m, u32 slot) noexcept nogil:
    """Free the slot of a quote's side, which no id names."""
    m.orders[slot].traits = 0  # FREE
    m.orders[slot].next = m.order_free
    m.order_free = slot


cdef inline void let_go(Market* m, u32 slot) noexcept nogil:
    """Take a finished order that has flags out of what these stand for: the heap of expiries, its
    Extra and lists, its legs; and free its slot if no id keeps it."""
    cdef Order* o = &m.orders[slot]
    if likely(o.traits >> 24 == AGED):  # first: of a million resting orders most are
        free_slot(m, slot, marked(hash_of(account_of(&m.positions[o.position]), o.key_lo)))
        return
    if (o.traits >> 24) & EXPIRES:
        stop_expiry(m, slot)
    if (o.traits >> 24) & FEATURED and forget_extra(m, slot):
        free_quote(m, slot)
        return
    if (o.traits >> 24) & COMBINED:
        charge_legs(m, &m.positions[o.position])
    if is_aged(o):
        free_slot(m, slot, marked(hash_of(owner_of(m, o), o.key_lo)))


cdef inline void retire_working(Market* m, Order* o, u32 slot, u8 state) noexcept nogil:
    """Finish the order of a slot as FILLED or CANCELLED; the slot stays taken while its id is
    remembered."""
    (<u8*>&o.traits)[2] = state  # a store of one byte, without a load
    o.leaves = 0
    o.prev = 0
    o.next = 0
    if unlikely(is_marked(o)):
        let_go(m, slot)


cdef inline void retire(Market* m, u32 slot, u8 state) noexcept nogil:
    """`retire_working` of an order by its slot."""
    retire_working(m, &m.orders[slot], slot, state)


cdef inline void prefetch_oldest(Market* m, Known* oldest) noexcept nogil:
    """Prefetch what the account's next id will touch to forget `oldest`: its order, its place, and
    the window a cache line further on."""
    prefetch(oldest + 8)
    prefetch(<u8*>m.buckets + oldest.place)
    prefetch(&m.orders[oldest.slot])


cdef inline u32 take_known_slot(Market* m, Account* account, u64 place, u64 hash) noexcept nogil:
    """Take a slot for an id, put it into a free `place` for its hash, and remember it; 0 if there
    is no slot, and then nothing has changed. The caller raises the generation.

    The oldest id leaves the account's window. If its order is finished, or it is a request, the new
    id takes over its slot; if the order is live, it is AGED and a free slot is taken.
    """
    cdef u64 head = account.ring_head
    cdef u64 next = (head + 1) & (LIMIT_IDEMPOTENCY_WINDOW - 1)
    cdef Known* ring = account.ring
    cdef u32 oldest = ring[head].slot
    cdef u32 slot = oldest
    prefetch_oldest(m, &ring[next])
    if likely(state_of(&m.orders[oldest]) > UNPRICED):  # in a window only 0, for none, is FREE
        assume(slot != 0)
        read_again()
        empty_place(m, ring[head].place)
        ring[head].place = <u32>place
        account.ring_head = <u32>next
        fill_place(m, place, hash, slot)
        return slot
    read_again()
    slot = find_slot(m)
    if unlikely(slot == 0):
        return 0
    ring[head].place = <u32>place
    ring[head].slot = slot
    account.ring_head = <u32>next
    fill_place(m, place, hash, slot)
    if oldest:
        m.orders[oldest].traits |= <u32>AGED << 24
    return slot


cdef inline u32 take_new_slot(Market* m, Account* account, u32 number, u64 key_lo) noexcept nogil:
    """`take_known_slot` for a key that is not known, of the account of that number."""
    cdef u64 hash = marked(hash_of(number, key_lo))
    return take_known_slot(m, account, find_place(m, hash), hash)


cdef inline u64 fingerprint_of(Command* c, bint targets) noexcept nogil:
    """`fingerprint`; `targets` False: the command's target is known to be zero."""
    cdef u64* words = <u64*>c
    cdef u64 h = ((words[0] & <u64>0xFFFFFFFFFBFFFFFF) + words[2] * <u64>0x6E789E6B
                  + (words[3] & <u64>0xFFFF0000FFFFFFFF) * <u64>0x5851F42D)
    if targets:
        h += words[4] * <u64>0x6659FD93 + words[5] * <u64>0x27D4EB4F
    return h


cdef inline u64 fingerprint(Command* c) noexcept nogil:
    """A hash, multilinear in the record's words, of all that a repeat must have equal: kind, side,
    tif, flags but MANUAL, instrument, price, quantity, self-trade mode, features, target."""
    return fingerprint_of(c, True)
