# The state of a market as plain C structs. Nothing here decides anything.
#
# Invariants (see check.pyx): an order's slot never moves; slot 0, position 0 and session slot 0
# stand for "none"; both sides of a book share one array of levels because it is never crossed.

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
    #ifdef __x86_64__  /* of the compiler's own, a function that only fetches ahead does nothing */
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
    u64 word_at "hb_word"(const void*) noexcept nogil  # two neighbouring fields of four bytes
    u64 whole "hb_whole"(u64) noexcept nogil  # what was widened once is not widened again
    void put_pair "hb_pair"(void*, u32, u32) noexcept nogil  # both at once
    void put_halves "hb_halves"(u64*, u32, u32) noexcept nogil  # of a word: high, low
    u32 high_of "hb_high"(const u64*) noexcept nogil
    bint likely "HB_LIKELY"(bint) noexcept nogil
    bint unlikely "HB_UNLIKELY"(bint) noexcept nogil
    void assume "HB_ASSUME"(bint) noexcept nogil  # that it is so
    void prefetch "HB_PREFETCH"(const void*) noexcept nogil
    # What was read is read again from here on: it need not be kept on the stack until then.
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

cdef struct Event:  # 80 bytes, EVENT_FIELDS; of a TRADE, key holds the resting side
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
    CANCELLED = 7
    RECEIPT = 8  # no order: an accepted request, remembered for its id

cdef enum OrderFlag:
    AGED = 1  # left the account's window while it still worked
    EXPIRES = 2  # in the heap of expiries
    FEATURED = 4  # its Extra says more
    COMBINED = 8  # of a combination: it works in its legs too
    CREDITED = 16  # it works in a leg of a spread that has a credit

cdef struct Order:  # 64 bytes: one cache line
    u32 prev, next  # FIFO of the level or of the dormant list; next: free list
    u32 leaves, executed
    u32 position
    u32 generation
    u64 key_lo, key_hi
    i64 price
    u64 fingerprint  # of the command that made it
    u32 session
    u32 traits  # side | conditions << 1, in two bytes; state; flags: a byte each
# A RECEIPT keeps its account in prev, the answer's order id in next (low) and executed (high), its
# instrument in position, quantity in leaves, price in price, and in the first two bytes of traits
# the event's kind and flags.
#
# Neighbouring small fields are one word: a byte store may alias anything, and after each the
# compiler would have to load everything again.

cdef enum ExtraFlag:  # beside the bits of OrderFeature, which are below 256
    AT_MARKET = 256  # of a stop: it is a MARKET order once elected; its price is its worst
    PROTECTED_BY = 512  # of a stop AT_MARKET: by `ticks`
    ELECTED = 1024  # of a stop: a trade has reached its trigger

cdef struct Extra:  # 64 bytes; what only special orders have, by slot: of a live FEATURED one
    i64 trigger, ticks
    u64 age  # of a stop that waits: the lower is the older
    u32 features  # OrderFeature, ExtraFlag
    u32 partner  # GROUPED: the slot of the other order; 0 once that one has ended
    u32 prev, next  # REDUCE_ONLY: the position's others, oldest first
    u32 counted  # 0, but while lots are counted: see `reachable`
    u32 display  # of an iceberg: most lots it shows
    u32 hidden  # of an iceberg: lots that are not in its leaves
    u32 child, sibling, before  # in the heap of triggers: see triggers.pyx

cdef struct Level:
    u32 head, tail
    u64 quantity

cdef struct Stops:  # of an instrument, what its special orders need
    u32 root[2]  # heaps of those in `waiting`: the next to be elected, 0 if none
    Level waiting  # oldest first; its orders are WAITING
    Level elected  # first elected first; its orders are WAITING
    i64 due  # when the next of the elected come in, 0 if there are none
    u16 icebergs  # live orders that have a display
    u16 across  # orders that are grouped with one of another instrument
    u32 followed  # live orders that only reduce, are grouped or quotes

cdef struct Cell:  # of the id hash
    u32 tag, slot

cdef struct Member:
    i64 cash, excess  # of cash over the sum of what its accounts require

cdef struct Account:  # 128 bytes
    i64 cash, unrealized
    i64 excess  # of cash over what is required: its holds less credit, its unrealized loss
    i64 tat, interval, tolerance, burst  # throttle: theoretical arrival, ns a token, ns, tokens
    Member* member
    u32* positions  # by instrument, 0 = none
    Cell* ring  # the window: the last accepted ids, as they stand in the hash
    u32 positions_length
    u32 group, member_id
    u32 open_orders, max_open_orders, max_order
    u32 ring_head
    u8 is_open, killed, kind, currency
    u8 in_deficit
    u32 most  # max_order, or 0 if it is killed
    i64 credit  # of its spreads: what its holds are more than it has to have

cdef enum KillBit:  # why an account may not trade
    KILLED_BY_SETTING = 1  # SET_ACCOUNT
    KILLED_ACCOUNT = 2
    KILLED_MEMBER = 4
    KILLED_EXCHANGE = 8
    LOSS_REACHED = 128  # only what reduces may come in

cdef struct Stand:  # what only special orders need of a position, by position
    u32 reducing_head, reducing_tail  # its REDUCE_ONLY orders
    u32 reducing, spare  # how many
    u64 looked_at  # the last round of `follow` that did
    u32 quotes[2]  # the slots of its quote, 0 = none

cdef struct Protection:  # of an account's quotes in a product
    u32 account, product
    u32 next  # of the account
    u32 lots  # that its quotes may trade within the window; 0 = any
    u32 blocked, spare
    i64 traded  # in the window that began at `start`
    i64 window, start

cdef struct Allowance:  # of a position: what it may become on a side before the months are summed
    i64[2] most
    u64[2] given  # when, by the count of givings; see months.pyx

cdef struct Position:  # 64 bytes
    u64 who  # instrument, account, as in an event
    Account* owner
    i64 net
    i64 exposure[2]  # net + working buys, working sells - net: what it could become
    i64 adverse, cost, hold

cdef enum:
    NO_BID = -1
    NO_ASK = 0x7FFFFFFF  # so that an empty side is never reached

cdef struct Instrument:  # 256 bytes
    u64* bits  # a level is occupied
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
    u64* summary  # a word of bits is not zero
    u64* top  # a word of summary is not zero
    i64 bound  # the largest position limit or max_order it has had, at least 1
    u64 last_settled  # business date x 100 + cycle
    Level dormant
    i64 high
    u32 state, halt_cause
    u32 trades  # CONTINUOUS, no auction waits, and the market's mode is NORMAL
    u32 watched  # Watch: what has to be looked at after its orders traded
    u32 product, spare  # its number
    i64 fair[2]  # the highest price of a buy, the lowest of a sell, that is not adverse
    u64 units  # as range, but 0 if the price step is more than 1
    i64 worth  # of a lot at the mark: micro-dollars

cdef enum Watch:
    WATCH_STOPS = 1  # orders wait for a price
    WATCH_QUOTES = 2  # groups or protected quotes
    WATCH_BREAKER = 4  # a moving band or a circuit breaker
    WATCH_IMPLIED = 8  # combinations with implied prices
    WATCH_AUCTION = 16  # no continuous matching now
    WATCH_HIDDEN = 32  # icebergs
    WATCH_LEGS = 1024  # a combination
    WATCH_LIMITS = 2048  # a most value of an order, a limit over all months
    WATCH_STEPS = 4096  # lots in steps of more than one
    WATCH_CREDIT = 8192  # a leg of a spread that has a credit

cdef struct Composite:  # of an instrument: what it is made of, and what is made of it
    u32 legs, rule  # no legs: an outright
    u32 implied  # its prices imply others, and others its own
    u32 spreads  # combinations with implied prices in which it is a leg
    u32[LIMIT_LEGS] leg
    i32[LIMIT_LEGS] ratio
    u32[LIMIT_LEG_SPREADS] spread  # their numbers, rising
    i64 anchor  # the last settlement price, or the first mark
    i64 credit  # micro-dollars that a pair of its legs need not hold, if the rates allow

cdef struct Credit:  # of a spread: what follows from its composite and the rates of its legs
    i64 amount  # micro-dollars a pair
    u32[2] place  # of its legs, in `leg`

cdef struct Credits:
    u32 count, legs
    Credit[LIMIT_CREDITS] spread  # the largest first
    u32[2 * LIMIT_CREDITS] leg  # numbers of their legs

cdef struct LegTerms:  # 56 bytes: what a leg of a combination trades by, before `sequence`
    u64 sequence
    u32 instrument, spare
    i64 anchor, low, high, maker_fee, taker_fee

cdef struct Stated:  # a leg of a trade with an implied price, as its correction says that it was
    u32 account, other, side, lots
    i64 price, now  # in ticks: what it was, what it is to be
    i64 cash, other_cash  # of a bust

cdef struct Correction:  # of such a trade, whose last leg has not been stated yet
    u64 match
    u32 combination, kind, lots
    u32 count  # of the legs stated; 0 = none is begun
    Stated[LIMIT_LEGS] legs

cdef struct Charged:  # of a position in a combination: lots that its legs count as working
    i64[2] lots

cdef struct Auction:  # of an instrument that collects: buys on its own ladder, sells on this one
    Instrument asks  # of it only what a ladder needs
    Level[2] market  # UNPRICED orders by side, oldest first
    u32 good_for, spare  # there may be GFA orders

cdef struct Window:  # of an instrument's trade prices over the last `span`, in parts of time
    i64 variation  # ticks between a trade and the window's other end that trip it; 0 = off
    i64 span, halt  # ns; 0 = until an operator resumes
    i64 part  # number of the latest part, counted from the epoch
    i64 low[16]  # of the trades of a part; above `high`: it has none
    i64 high[16]
    u32 whole_product, spare

cdef struct Safety:  # of an instrument: what its orders and trades are held against
    i64 band  # ticks; 0 = none, as of all of these
    i64 order_value  # micro-dollars
    i64 all_months  # lots of an account over all instruments of the product
    i64 last  # price of the last trade since settled, if `traded`
    i64 resume_at  # stamp at which a halt ends by itself; 0 = it does not
    u32 accountability  # lots
    u32 traded
    Window windows[2]  # by Breaker

cdef struct Losses:  # of an account
    i64 limit  # micro-dollars a day; 0 = none
    i64 base  # cash and unrealized amount that the loss is counted from
    u32 reached, spare

cdef enum SessionState:
    SESSION_FREE = 0
    SESSION_ONLINE = 1
    SESSION_GRACE = 2  # lost, its timer runs

cdef struct Session:  # 32 bytes
    u64 entitled  # account, session id as in a command's words while ONLINE, else 0
    u32 account
    u32 standing  # generation, state
    u32 grace_ms, next
    u32 cancel_on_disconnect, killed

cdef struct Timer:
    i64 due
    u32 session

cdef struct Expiry:  # 16 bytes
    i64 due
    u32 slot, spare

cdef struct Market:
    # what the current command writes
    Event* events  # in the bytes that the caller will be given, or in the caller's own memory
    Event* next_event
    Event* end_event  # behind it is room for `set_aside` of plain orders, which do not look
    void* lent  # those bytes; NULL between two batches, and while there are none
    u64 sequence
    u32 index, set_aside
    i64 stamp  # the clock of the log
    # orders of all books
    Order* orders
    Extra* extras
    u64 ages  # of stops, ever given
    u32 extra_count, elected_count  # orders that are FEATURED; that are in some list of elected
    u64 rounds  # of `follow`, so far
    u32 order_capacity, order_top, order_free
    Cell* cells
    u32 cell_mask, cell_room  # of a tag to its cell; three eighths of the cells
    # who and what
    Position* positions
    Stand* stands
    u32 position_capacity, position_top
    Instrument* instruments
    Stops* stops
    u32 instrument_capacity, instrument_count
    Composite* composites  # by instrument
    u32* combined  # the numbers of combinations, rising
    u32 combined_count
    Charged* charged  # by position
    Auction** auctions  # by instrument; NULL of one that does not collect
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
    u32* expiry_at  # of a slot: where in the heap
    u32 expiry_count
    # the day
    u32 business_date, rules_version
    u8 day_open, mode, killed
    u32* picked  # slots gathered for a mass cancel
    u32 picked_count, picked_capacity
    u32* due_of  # by position and side, while an auction trades: see pairing.pyx; else 0
    i64 deposits  # net of withdrawals: the sum of all cash
    Safety* safety  # by instrument
    Losses* losses  # by account
    u8* accountable  # by position: it is beyond the level, and that was told
    Allowance* allowances  # by position; not state: see months.pyx
    u64* withdrawn  # by account: none of its allowances given before is good
    u32 halt_count  # instruments with a stamp to resume at
    u32 features_off  # bits by Feature
    u64 day_first  # sequence of the command that opened the day
    u64* corrected  # match numbers of trades of the day that were busted or adjusted, ascending
    u32 corrected_count, leg_change_count
    LegTerms* leg_changes  # of the day, in order: see legterms.pyx
    u64 legs_known  # sequence since which none of them is forgotten
    Credits* credits
    Correction stated
    int broken  # a violated invariant: the engine has stopped


cdef extern from *:
    # An invariant on the way, looked at in the checked build alone: a violation stops the engine.
    void ensure "HB_ENSURE"(Market* m, bint holds) noexcept nogil


cdef Market* market_new() except NULL
cdef void market_free(Market* m) noexcept
cdef void* take_pages(size_t bytes, bint scattered) noexcept nogil
cdef void release_pages(void* aligned) noexcept nogil
cdef bint legs_open(Market* m, u32 instrument) noexcept nogil
cdef void refresh_combined(Market* m) noexcept nogil


cdef inline void put_state(Market* m, Instrument* book, u32 state) noexcept nogil:
    """Give an instrument its state, and say whether orders may trade."""
    book.state = state
    book.trades = is_continuous(book) and m.mode == MODE_NORMAL
    if m.combined_count:
        refresh_combined(m)


cdef inline bint trades_plainly(Instrument* book) noexcept nogil:
    """Orders may come in, and nothing watches: `trades` and `watched` in one test."""
    return word_at(&book.trades) == 1


cdef inline bint is_continuous(Instrument* book) noexcept nogil:
    """CONTINUOUS, and no orders are kept for an auction."""
    return book.state == TRADING_STATE_CONTINUOUS and not book.watched & WATCH_AUCTION


cdef inline bint collects(Instrument* book) noexcept nogil:
    """Whether its orders are kept for an auction, on two ladders."""
    return (book.watched & WATCH_AUCTION) != 0


cdef inline void set_killed(Account* account, u8 killed) noexcept nogil:
    """Why it may not trade, if anything; or its `max_order` has changed."""
    account.killed = killed
    account.most = 0 if killed else account.max_order


cdef inline Auction* auction_of(Market* m, Instrument* book) noexcept nogil:
    return m.auctions[book - m.instruments]


cdef inline u32 standing(u32 session, u32 state) noexcept nogil:
    """`standing` of the session with this id in this state."""
    return (session & <u32>0xFFFF0000) | state


cdef inline i64 working_of(Position* p, u8 side) noexcept nogil:
    """Lots of a side that are in the book or dormant."""
    return p.exposure[side] + (p.net if side else -p.net)


cdef inline u64 pair(u32 instrument, u32 account) noexcept nogil:
    """`who` of an event or a position."""
    return <u64>account << 32 | instrument


cdef inline u32 account_of(Position* p) noexcept nogil:
    return high_of(&p.who)


cdef inline u32 instrument_of(Position* p) noexcept nogil:
    return <u32>p.who


cdef inline u32 conditions_of(u32 tif, u32 stp) noexcept nogil:
    """As ORDER_ACCEPTED says them."""
    return tif | stp << 8


cdef inline u32 traits_of(u8 side, u32 conditions, u8 state) noexcept nogil:
    """`traits` of an order without flags."""
    return side + conditions * 2 + (<u32>state << 16)


cdef inline bint is_garbled(Order* o) noexcept nogil:
    """No order has such traits."""
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


cdef inline bint is_seen(Order* o) noexcept nogil:
    """WORKING, COLLECTED or UNPRICED: the depth has it."""
    return state_of(o) == WORKING or state_of(o) >= COLLECTED


cdef inline bint is_aged(Order* o) noexcept nogil:
    return (o.traits >> 24) & AGED


cdef inline bint is_marked(Order* o) noexcept nogil:
    """It has a flag."""
    return (<u8*>&o.traits)[3] != 0


cdef inline bint is_featured(Order* o) noexcept nogil:
    return (o.traits >> 24) & FEATURED


cdef inline bint is_simple(Order* o) noexcept nogil:
    """WORKING and neither FEATURED, COMBINED nor CREDITED, in one test."""
    cdef u32 flags = <u32>(FEATURED | COMBINED | CREDITED) << 24
    return o.traits & (flags | <u32>0xFF0000) == <u32>WORKING << 16


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
