# The state of a market as plain C structs, and accessors of their packed fields. No rule of the
# market is here.
#
# A slot is an index into a table: orders, sessions and ladders have slots; a position is named by
# the index of its record. Prices are in ticks, quantities in lots, money in micro-dollars, time in
# nanoseconds, unless a field says otherwise; a side is 0 (buy) or 1 (sell) and is often an index.
#
# Words that the whole engine uses:
#   plain     an order without special features in a book that nothing watches; see plain.pxd
#   special   an order that is FEATURED (it has an Extra) or a book that is watched
#   watched   of an instrument: its bits by Watch, the work that its orders and trades cause
#   live      of an order: not yet finished, whether in the book or waiting beside it
#
# Invariants (see check.pyx): an order's slot never moves; slot 0, position 0 and session slot 0
# stand for "none"; both sides of a book share one array of levels because it is never crossed; no
# position record is of an instrument that has expired (see positions.pyx).

from exchange.engine.vocabulary cimport (
    LIMIT_CREDITS, LIMIT_LEGS, LIMIT_LEG_SPREADS, MODE_NORMAL, TRADING_STATE_CONTINUOUS,
)
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

ctypedef uint8_t u8
ctypedef uint16_t u16
ctypedef uint32_t u32
ctypedef uint64_t u64
ctypedef int32_t i32
ctypedef int64_t i64

cdef extern from *:
    """
    #define HB_LIKELY(x) __builtin_expect(!!(x), 1)
    #define HB_UNLIKELY(x) __builtin_expect(!!(x), 0)
    #define HB_ASSUME(x) do { if (!(x)) __builtin_unreachable(); } while (0)
    #ifdef __x86_64__  /* calls of a function that only does __builtin_prefetch are removed */
    #define HB_PREFETCH(p) __asm__ volatile("prefetcht0 %0" : : "m"(*(const char*)(p)))
    #else
    #define HB_PREFETCH(p) __builtin_prefetch((p), 1)
    #endif
    #define HB_FORGET() __asm__ volatile("" ::: "memory")
    #ifdef HOURBOOK_CHECKED
    #define HB_ENSURE(m, holds) ((holds) ? (void)0 : (void)((m)->broken = 5))
    #else
    #define HB_ENSURE(m, holds) ((void)0)
    #endif
    typedef __int128 hb_i128;
    #include <string.h>
    static inline uint64_t hb_word(const void* at) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        return word;
    }
    static inline uint64_t hb_whole(uint64_t word) {
        __asm__("" : "+r"(word));
        return word;
    }
    static inline void hb_pair(void* at, uint32_t first, uint32_t second) {
        uint64_t word = (uint64_t)second << 32 | first;
        memcpy(at, &word, sizeof word);
    }
    static inline void hb_halves(uint64_t* at, uint32_t high, uint32_t low) {
        memcpy(at, &low, sizeof low);
        memcpy((char*)at + sizeof low, &high, sizeof high);
    }
    static inline uint32_t hb_high(const uint64_t* at) {
        uint32_t high;
        memcpy(&high, (const char*)at + sizeof high, sizeof high);
        return high;
    }
    """
    u64 word_at "hb_word"(const void*) noexcept nogil  # load two adjacent u32 fields as one word
    u64 whole "hb_whole"(u64) noexcept nogil  # keep a widened value: it is not widened again
    void put_pair "hb_pair"(void*, u32, u32) noexcept nogil  # store two adjacent u32 fields at once
    void put_halves "hb_halves"(u64*, u32, u32) noexcept nogil  # store a word's high and low halves
    u32 high_of "hb_high"(const u64*) noexcept nogil
    bint likely "HB_LIKELY"(bint) noexcept nogil
    bint unlikely "HB_UNLIKELY"(bint) noexcept nogil
    void assume "HB_ASSUME"(bint) noexcept nogil  # tell the compiler that this holds
    void prefetch "HB_PREFETCH"(const void*) noexcept nogil
    # A compiler barrier: values are loaded again after it instead of being spilled to the stack.
    void read_again "HB_FORGET"() noexcept nogil
    ctypedef long long i128 "hb_i128"
    int ctz "__builtin_ctzll"(u64) noexcept nogil
    int clz "__builtin_clzll"(u64) noexcept nogil


cdef struct Command:  # 64 bytes, COMMAND_FIELDS of exchange/messages
    u8 kind, side, tif, flags
    u32 instrument, account, session
    i64 price
    u32 quantity
    u16 operator
    u8 stp, spare
    u64 target_lo, target_hi, key_lo, key_hi

cdef struct Event:  # 80 bytes, EVENT_FIELDS; in a TRADE the key holds the resting side
    u64 sequence
    u32 index
    u32 what  # kind, flags, reason
    u64 who  # instrument, account
    u64 order_id
    i64 price
    u32 quantity, leaves
    u64 key_lo, key_hi
    i64 a, b

cdef enum OrderState:
    FREE = 0
    WORKING = 1  # in the book
    DORMANT = 2  # outside the day's limits, in the instrument's dormant list
    WAITING = 3  # a stop, in one of the instrument's two lists of them
    COLLECTED = 4  # a sell order in the second ladder of an instrument that collects for an auction
    UNPRICED = 5  # a market order that waits for an auction; its price is the day's far limit
    FILLED = 6  # finished, its id still remembered
    CANCELLED = 7  # likewise
    RECEIPT = 8  # not an order: an accepted request, kept so that a repeat gets the same answer
    PAST_FILLED = 9  # FILLED, and its instrument has expired: it has no position record any more
    PAST_CANCELLED = 10  # likewise CANCELLED

cdef enum OrderFlag:
    AGED = 1  # its id left the account's window of remembered ids while it was still live
    EXPIRES = 2  # in the heap of expiries
    FEATURED = 4  # it has features, which are in its Extra
    COMBINED = 8  # an order in a combination: its lots also work in the legs
    CREDITED = 16  # an order in a leg of a spread that has a credit

cdef struct Order:  # 64 bytes: one cache line
    u32 prev, next  # FIFO of the level or of the dormant list; next: free list
    u32 leaves, executed
    u32 position
    u32 generation
    u64 key_lo, key_hi
    i64 price
    u64 fingerprint  # of the command that made it
    u32 session
    u32 traits  # two bytes: side | conditions << 1; a byte of state; a byte of flags
# A RECEIPT keeps its account in prev, and of the event that was its answer: the order id in next
# (low) and executed (high), the instrument in position, quantity in leaves, price in price, and
# kind and flags in the first two bytes of traits. An order that is PAST_FILLED or PAST_CANCELLED
# keeps its account in prev, too, and its instrument in position.
#
# Small fields are packed into one word because a byte store may alias anything: after each, the
# compiler would have to reload everything.

cdef enum ExtraFlag:  # above the bits of OrderFeature, which are below 256
    AT_MARKET = 256  # a stop that becomes a MARKET order; its price is the worst it may trade at
    PROTECTED_BY = 512  # a stop AT_MARKET that is protected by `ticks`
    ELECTED = 1024  # a stop whose trigger a trade has reached

cdef struct Extra:  # 64 bytes; by slot, used while the order is live and FEATURED
    i64 trigger, ticks
    u64 age  # of a waiting stop: the lower, the older
    u32 features  # OrderFeature, ExtraFlag
    u32 partner  # GROUPED: the slot of the other order; 0 once the group is dissolved
    u32 prev, next  # REDUCE_ONLY: links in the position's list of such orders, oldest first
    u32 counted  # 0 except while lots are counted: see reach.pyx, groups.pyx
    u32 display  # of an iceberg: the most lots it shows
    u32 hidden  # of an iceberg: lots that are not in its leaves
    u32 child, sibling, before  # links in the heap of triggers: see triggers.pyx

cdef struct Level:
    u32 head, tail
    u64 quantity

cdef struct Stops:  # by instrument: its stops, and counts of its special orders
    u32 root[2]  # by side, a heap of the stops in `waiting`: the next to be elected, 0 if none
    Level waiting  # stops not elected yet, oldest first; their state is WAITING
    Level elected  # stops elected, in the order of election; their state is WAITING
    i64 due  # the stamp from which elected stops may come in, 0 if there are none
    u16 icebergs  # live orders that have a display
    u16 across  # orders that are grouped with one in another instrument
    u32 followed  # live orders that are REDUCE_ONLY, GROUPED or quotes

cdef struct Bucket:  # 64 bytes of the id hash: what up to eight keys name; see ids.pxd
    u16[8] tags  # of a key's hash; 0: the place is free
    u32[8] slots
    u32 passed  # 1 if a key that belongs here or before is behind, for this was full; or was
    u32[3] spare  # 0

cdef struct Known:  # a remembered id
    u32 place, slot  # place: where its tag is, in bytes from the first bucket; slot 0: none

cdef struct Member:
    i64 cash, excess  # excess: cash less what its accounts require together

cdef struct Account:  # 128 bytes
    i64 cash, unrealized
    i64 excess  # cash less what is required, which is its holds - credit + unrealized loss
    i64 tat, interval, tolerance, burst  # throttle: theoretical arrival, ns a token, ns, tokens
    Member* member
    u32* positions  # by instrument, 0 = none
    Known* ring  # the window of the last accepted ids
    u32 positions_length
    u32 group, member_id
    u32 open_orders, max_open_orders, max_order
    u32 ring_head
    u8 is_open, killed, kind, currency
    u8 in_deficit
    u32 most  # max_order, or 0 while any bit of `killed` is set: one test on an order's way
    i64 credit  # of its spreads: how much less than its holds it has to have

cdef enum KillBit:  # why an account may not trade
    KILLED_BY_SETTING = 1  # SET_ACCOUNT
    KILLED_ACCOUNT = 2
    KILLED_MEMBER = 4
    KILLED_EXCHANGE = 8
    LOSS_REACHED = 128  # only orders that reduce a position may come in

cdef struct Stand:  # by position: what only special orders need of it
    u32 reducing_head, reducing_tail  # its REDUCE_ONLY orders
    u32 reducing, spare  # how many they are
    u64 looked_at  # the last round of `follow` that looked at this position
    u32 quotes[2]  # by side, the slot of its quote, 0 = none

cdef struct Protection:  # of an account's quotes in a product
    u32 account, product
    u32 next  # the account's next one, 0 = none
    u32 lots  # that its quotes may trade within the window; 0 = any number
    u32 blocked, spare
    i64 traded  # in the window that began at `start`
    i64 window, start

cdef struct Allowance:  # by position: exposure it may reach on a side before months are summed
    i64[2] most
    u64[2] given  # when, as a count of givings; see months.pyx

cdef enum:
    VACANT = 0xFFFFFFFF  # for the account of a position record that is free

cdef struct Position:  # 64 bytes; of a free one all is 0 but `who`
    u64 who  # instrument, account, as in an event; of a free one: the next free one, VACANT
    Account* owner
    i64 net
    i64 exposure[2]  # net + working buys, working sells - net: lots it could be long, short
    i64 adverse, cost, hold

cdef enum:
    NO_BID = -1
    NO_ASK = 0x7FFFFFFF  # both are beyond every slot, so that an empty side is never reached

cdef struct Instrument:  # 256 bytes
    u64* bits  # one per level: it has an order
    Level* levels
    i64 low, price_step
    u64 range  # high limit - low limit
    u64 step_inverse  # of the odd part of price_step, modulo 2**64
    u32 step_shift, slots
    i32 best[2]  # slot of the best bid and ask, or NO_BID, NO_ASK
    u32 max_order, lot_step
    u32 working_orders, top_words
    i64 mark, rate, position_limit
    i64 multiplier, tick_scale, tick_value
    i64 maker_fee, taker_fee
    u64* summary  # one per word of bits: it is not zero
    u64* top  # one per word of summary: it is not zero
    i64 bound  # largest position limit, max_order or exposure after a bust or transfer; at least 1
    u64 last_settled  # business date x 100 + cycle
    Level dormant
    i64 high
    u32 state, halt_cause
    u32 trades  # CONTINUOUS, collecting for no auction, and the market's mode is NORMAL
    u32 watched  # Watch
    u32 product, spare  # the product's number
    i64 fair[2]  # the highest price of a buy, the lowest of a sell, that is not adverse
    u64 units  # as range, but 0 if the price step is more than 1
    i64 worth  # of a lot at the mark: micro-dollars

cdef enum Watch:  # what an instrument's orders have to heed, or what follows from its trades
    WATCH_STOPS = 1  # stops wait, or elected ones are still to come in
    WATCH_QUOTES = 2  # orders that are REDUCE_ONLY, GROUPED or quotes
    WATCH_BREAKER = 4  # a price band, a circuit breaker or an accountability level
    WATCH_IMPLIED = 8  # implied prices: of a combination, and of each of its legs
    WATCH_AUCTION = 16  # orders are collected: no continuous matching now
    WATCH_HIDDEN = 32  # icebergs
    WATCH_LEGS = 1024  # it is a combination
    WATCH_LIMITS = 2048  # a limit of an order's value, or a limit over all months
    WATCH_STEPS = 4096  # its lot step is more than one
    WATCH_CREDIT = 8192  # it is a leg of a spread that has a credit

cdef struct Composite:  # by instrument: its legs, and the combinations it is a leg of
    u32 legs, rule  # no legs: an outright
    u32 implied  # implied prices are on: its orders imply prices in its legs, and theirs in it
    u32 spreads  # how many combinations with implied prices it is a leg of
    u32[LIMIT_LEGS] leg
    i32[LIMIT_LEGS] ratio
    u32[LIMIT_LEG_SPREADS] spread  # the numbers of those combinations, ascending
    i64 anchor  # the last settlement price, or before that the first mark
    i64 credit  # micro-dollars that a pair of its legs is spared; the legs' rates may allow less

cdef struct Credit:  # of a spread: follows from its composite and the rates of its legs
    i64 amount  # micro-dollars a pair
    u32[2] place  # of its two legs in `leg` of Credits

cdef struct Credits:  # all spreads that have a credit
    u32 count, legs
    Credit[LIMIT_CREDITS] spread  # the largest first, of equal ones the lower number
    u32[2 * LIMIT_CREDITS] leg  # numbers of the instruments that are their legs

cdef struct LegTerms:  # 56 bytes: what a leg of a combination traded by before `sequence`
    u64 sequence
    u32 instrument, spare
    i64 anchor, low, high, maker_fee, taker_fee

cdef struct Stated:  # one leg of a trade with an implied price, as stated by a correction
    u32 account, other, side, lots
    i64 price, now  # ticks: the price it had, the price it is to have
    i64 cash, other_cash  # of a bust: the cash that each side got by the trade (less than 0: fees)

cdef struct Correction:  # of a trade with an implied price, while its last leg is not stated yet
    u64 match
    u32 combination, kind, lots
    u32 count  # of legs stated; 0 = no correction is begun
    Stated[LIMIT_LEGS] legs

cdef struct Charged:  # by position in a combination: lots that its legs count as working
    i64[2] lots

cdef struct Auction:  # of an instrument that collects: buys are on its own ladder, sells on `asks`
    Instrument asks  # only the fields that a ladder needs are used
    Level[2] market  # UNPRICED orders by side, oldest first
    u32 good_for, spare  # there may be GFA orders

cdef struct Window:  # of trade prices over the last `span`, in LIMIT_WINDOW_PARTS parts
    i64 variation  # ticks; a trade further from the window's low or high trips it; 0 = off
    i64 span, halt  # ns; halt 0 = until an operator resumes
    i64 part  # number of the latest part, counted from the epoch
    i64 low[16]  # by part, the lowest trade; above `high` if there was none
    i64 high[16]
    u32 whole_product, spare

cdef struct Safety:  # by instrument: its protections
    i64 band  # ticks; 0 = none
    i64 order_value  # micro-dollars; 0 = no limit
    i64 all_months  # lots of an account over all outrights of the product; 0 = no limit
    i64 last  # price of the last trade since the last settlement, if `traded`
    i64 resume_at  # stamp at which a halt ends by itself; 0 = it does not
    u32 accountability  # lots; 0 = no level
    u32 traded
    Window windows[2]  # by Breaker

cdef struct Losses:  # by account
    i64 limit  # micro-dollars a day; 0 = none
    i64 base  # cash + unrealized from which the loss is counted
    u32 reached, spare

cdef enum SessionState:
    SESSION_FREE = 0
    SESSION_ONLINE = 1
    SESSION_GRACE = 2  # its connection is lost, its timer runs

cdef struct Session:  # 32 bytes
    u64 entitled  # a command's word of account and session if it may act in it now, else 0
    u32 account
    u32 standing  # generation << 16 | state
    u32 grace_ms, next
    u32 cancel_on_disconnect, killed

cdef struct Timer:
    i64 due
    u32 session

cdef struct Expiry:  # 16 bytes
    i64 due
    u32 slot, spare

cdef struct Market:
    # the events of the batch
    Event* events  # in the bytes object that the caller will be given, or in the engine's own `few`
    Event* next_event
    Event* end_event  # behind it is room for `set_aside` more: plain orders write without a check
    void* lent  # that bytes object; NULL between two batches and while `few` is used
    u64 sequence
    u32 index, set_aside
    i64 stamp  # the clock of the log
    # orders of all books
    Order* orders
    Extra* extras
    u64 ages  # the last age given to a stop
    u32 extra_count, elected_count  # FEATURED orders; stops in the lists `elected`
    u64 rounds  # of `follow`, so far
    u32 order_capacity, order_top, order_free  # order_top: the first slot never used; a free list
    Bucket* buckets
    u64 bucket_mask  # hash & mask is the offset of a key's bucket, in bytes
    u64 id_room  # ids that there is room for: three a bucket
    # who and what
    Position* positions
    Stand* stands
    u32 position_capacity, position_top  # position_top: the first record never used
    u32 position_free, vacant  # the first of the free records, 0 = none; how many they are
    Instrument* instruments
    Stops* stops
    u32 instrument_capacity, instrument_count
    Composite* composites  # by instrument
    u32* combined  # the numbers of combinations, ascending
    u32 combined_count
    Charged* charged  # by position
    Auction** auctions  # by instrument; NULL while it does not collect
    Account* accounts
    u32 account_capacity, account_top
    Member* members
    u8* members_killed
    u32* protection_heads  # by account, 0 = none
    Protection* protections
    u32 protection_capacity, protection_top
    # sessions and timers
    Session* sessions
    u32 session_capacity, session_top, session_free_head, session_free_tail
    Timer* timers
    u32 timer_count, timer_capacity
    Expiry* expiries  # a heap of the orders that work until a time
    u32* expiry_at  # by slot: its place in the heap
    u32 expiry_count
    # the day
    u32 business_date, rules_version
    u8 day_open, mode, killed
    u32* picked  # slots that one command gathers to work through
    u32 picked_count, picked_capacity
    u32* due_of  # by position and side, while an auction trades: see pairing.pyx; else 0
    i64 deposits  # less withdrawals: the sum of all cash
    Safety* safety  # by instrument
    Losses* losses  # by account
    u8* accountable  # by position: ACCOUNTABILITY_PASSED was told and it is still beyond the level
    Allowance* allowances  # by position; not state: see months.pyx
    u64* withdrawn  # by account: allowances given up to this count are void
    u32 halt_count  # instruments whose halt ends by itself
    u32 features_off  # bits by Feature
    u64 day_first  # sequence of the command that opened the day
    u64* corrected  # match numbers of the day's trades that were busted or adjusted, ascending
    u32 corrected_count, leg_change_count
    LegTerms* leg_changes  # of the day, in order: see legterms.pyx
    u64 legs_known  # sequence after which no such change has been forgotten
    Credits* credits
    Correction stated
    int broken  # why the engine has stopped, by BROKEN of core.pyx; 0 = it has not


cdef extern from *:
    # An invariant that the checked build alone checks; a violation stops the engine.
    void ensure "HB_ENSURE"(Market* m, bint holds) noexcept nogil


cdef Market* market_new() except NULL
cdef void market_free(Market* m) noexcept
cdef void* take_pages(size_t bytes, bint scattered) noexcept nogil
cdef void release_pages(void* aligned) noexcept nogil
cdef bint legs_open(Market* m, u32 instrument) noexcept nogil
cdef void refresh_combined(Market* m) noexcept nogil


cdef inline void put_state(Market* m, Instrument* book, u32 state) noexcept nogil:
    """Set an instrument's state, and `trades` of it and of all combinations to match."""
    book.state = state
    book.trades = is_continuous(book) and m.mode == MODE_NORMAL
    if m.combined_count:
        refresh_combined(m)


cdef inline bint trades_plainly(Instrument* book) noexcept nogil:
    """Whether it trades and is not watched: both fields in one test."""
    return word_at(&book.trades) == 1


cdef inline bint is_continuous(Instrument* book) noexcept nogil:
    """Whether it is CONTINUOUS and collects no orders for an auction."""
    return book.state == TRADING_STATE_CONTINUOUS and not book.watched & WATCH_AUCTION


cdef inline bint collects(Instrument* book) noexcept nogil:
    """Whether its orders are collected for an auction, on two ladders."""
    return (book.watched & WATCH_AUCTION) != 0


cdef inline void set_killed(Account* account, u8 killed) noexcept nogil:
    """Set why an account may not trade (KillBit); call it also after a change of `max_order`."""
    account.killed = killed
    account.most = 0 if killed else account.max_order


cdef inline Auction* auction_of(Market* m, Instrument* book) noexcept nogil:
    return m.auctions[book - m.instruments]


cdef inline u32 standing(u32 session, u32 state) noexcept nogil:
    """The field `standing` of the session with this id in this state."""
    return (session & <u32>0xFFFF0000) | state


cdef inline i64 working_of(Position* p, u8 side) noexcept nogil:
    """Lots of a position's live orders of a side; in a leg also those of its combinations."""
    return p.exposure[side] + (p.net if side else -p.net)


cdef inline u64 pair(u32 instrument, u32 account) noexcept nogil:
    """The field `who` of an event or a position."""
    return <u64>account << 32 | instrument


cdef inline u32 account_of(Position* p) noexcept nogil:
    return high_of(&p.who)


cdef inline u32 instrument_of(Position* p) noexcept nogil:
    return <u32>p.who


cdef inline bint is_vacant(Position* p) noexcept nogil:
    """Whether a position record is free: only walks over all records may meet such a one."""
    return account_of(p) == VACANT


cdef inline u32 conditions_of(u32 tif, u32 stp) noexcept nogil:
    """Conditions in the layout of ORDER_ACCEPTED's b."""
    return tif | stp << 8


cdef inline u32 traits_of(u8 side, u32 conditions, u8 state) noexcept nogil:
    """The field `traits` of an order without flags."""
    return side + conditions * 2 + (<u32>state << 16)


cdef inline bint is_garbled(Order* o) noexcept nogil:
    """Whether bits are set that no order's traits have: only in a damaged image."""
    return (o.traits & 0xF900) != 0


cdef inline u8 side_of(Order* o) noexcept nogil:
    return (<u8*>&o.traits)[0] & 1


cdef inline u8 tif_of(Order* o) noexcept nogil:
    return <u8>(o.traits >> 1 & 0x7F)


cdef inline u8 stp_of(Order* o) noexcept nogil:
    return <u8>(o.traits >> 9 & 3)


cdef inline u8 state_of(Order* o) noexcept nogil:
    return <u8>(o.traits >> 16)


cdef inline bint is_live(Order* o) noexcept nogil:
    """WORKING, DORMANT, WAITING, COLLECTED or UNPRICED."""
    return <u8>((o.traits >> 16) - 1) < UNPRICED


cdef inline bint is_past(Order* o) noexcept nogil:
    """PAST_FILLED or PAST_CANCELLED."""
    return state_of(o) > RECEIPT


cdef inline bint is_seen(Order* o) noexcept nogil:
    """WORKING, COLLECTED or UNPRICED: the order counts in the depth."""
    return state_of(o) == WORKING or state_of(o) >= COLLECTED


cdef inline bint is_aged(Order* o) noexcept nogil:
    return (o.traits >> 24) & AGED


cdef inline bint is_marked(Order* o) noexcept nogil:
    """Whether the order has any flag."""
    return (<u8*>&o.traits)[3] != 0


cdef inline bint is_featured(Order* o) noexcept nogil:
    return (o.traits >> 24) & FEATURED


cdef inline bint is_simple(Order* o) noexcept nogil:
    """WORKING and neither FEATURED, COMBINED nor CREDITED, in one test."""
    cdef u32 flags = <u32>(FEATURED | COMBINED | CREDITED) << 24
    return o.traits & (flags | <u32>0xFF0000) == <u32>WORKING << 16


cdef inline bint is_simple_on(Order* o, u32 side) noexcept nogil:
    """`is_simple`, and on that side, in one test; no order is on the side 2 or 3."""
    cdef u32 flags = <u32>(FEATURED | COMBINED | CREDITED) << 24
    return o.traits & (flags | <u32>0xFF0001) == (<u32>WORKING << 16) + side


cdef inline u32 lots_of(Market* m, u32 slot) noexcept nogil:
    """All lots of a live order, shown or not."""
    cdef Order* o = &m.orders[slot]
    return o.leaves + (m.extras[slot].hidden if is_featured(o) else 0)


cdef inline void set_order_state(Order* o, u8 state) noexcept nogil:
    o.traits = (o.traits & <u32>0xFF00FFFF) | <u32>state << 16


cdef inline void copy_key(u64* to, const u64* of) noexcept nogil:
    """Both halves of a key at once."""
    memcpy(to, of, 16)


cdef inline u64 order_id_of(Market* m, u32 slot) noexcept nogil:
    return <u64>m.orders[slot].generation << 32 | slot
