# Margin arithmetic in whole micro-dollars: what a position holds, what an account must have. Rules:
# Risk in docs/reference/engine.md.
#
# Invariants: a position's hold equals its formula after every command; an account's hold is the sum
# over its positions less the credit of its spreads (credits.pyx), its unrealized the sum over its
# positions; a member's cash and requirement are the sums over its accounts.
#
# A function named `…_plainly` does not bring credits in line: it is for instruments that are no leg
# of a spread with a credit, or for callers that call `recredit` themselves. A sum that overflows
# sets `broken`, and the engine stops at the end of the batch.

from exchange.engine.credits cimport recredit
from exchange.engine.state cimport (
    Account, Instrument, Market, Member, Position, WATCH_CREDIT, ensure, i64, likely, u32, u64, u8,
    unlikely, working_of,
)

cdef extern from *:
    """
    #define HB_ADD(a, b, r) __builtin_add_overflow((a), (b), (r))
    #define HB_SUBTRACT(a, b, r) __builtin_sub_overflow((a), (b), (r))
    #define HB_MULTIPLY(a, b, r) __builtin_mul_overflow((a), (b), (r))
    """
    bint add_overflows "HB_ADD"(i64, i64, i64*) noexcept nogil
    bint subtract_overflows "HB_SUBTRACT"(i64, i64, i64*) noexcept nogil
    bint product_overflows "HB_MULTIPLY"(i64, i64, i64*) noexcept nogil


cdef inline u32 position_of(Account* account, u32 instrument) noexcept nogil:
    """The account's record in the instrument; 0, which is all zeros, if it has none."""
    return account.positions[instrument] if instrument < account.positions_length else 0


cdef inline i64 absolute(i64 x) noexcept nogil:
    return -x if x < 0 else x


cdef inline i64 loss_of(i64 unrealized) noexcept nogil:
    return -unrealized if unrealized < 0 else 0


cdef inline i64 required_of(Account* account) noexcept nogil:
    # wraps only after an overflow: then the engine stops at the end of the batch
    return <i64>(<u64>account.cash - <u64>account.excess)


cdef inline i64 hold_of(Account* account) noexcept nogil:
    """The sum of the account's positions' holds, less its credit."""
    return required_of(account) - loss_of(account.unrealized)


cdef inline void set_mark(Instrument* i, i64 mark) noexcept nogil:
    """Set an instrument's mark and what follows from it; its positions are still to follow."""
    cdef i64 whole = mark / i.tick_scale
    cdef i64 part = mark % i.tick_scale
    i.mark = mark
    i.worth = mark * i.multiplier
    i.fair[0] = whole - (part < 0)
    i.fair[1] = whole + (part > 0)


cdef inline bint is_adverse(Instrument* i, u8 side, i64 price) noexcept nogil:
    """Whether a lot executed at `price` would at once lose against the mark."""
    return price < i.fair[1] if side else price > i.fair[0]


cdef inline i64 loss_per_lot(Instrument* i, u8 side, i64 price) noexcept nogil:
    """Micro-dollars a lot executed at `price` at once loses against the mark; a gain is < 0."""
    cdef i64 loss = price * i.tick_value - i.worth
    return -loss if side else loss


cdef inline i64 adverse_per_lot(Instrument* i, u8 side, i64 price) noexcept nogil:
    """`loss_per_lot` if it is a loss, else 0."""
    cdef i64 loss = loss_per_lot(i, side, price)
    return loss if loss > 0 else 0


cdef inline i64 hold_for(Instrument* i, Position* p) noexcept nogil:
    """The hold of a position without its adverse amount.

    The larger of |net + buys| and |net - sells| is that of net + buys and sells - net, since
    neither buys nor sells are negative (docs/concepts/margin.md, (1)).
    """
    cdef i64 longest = p.exposure[0]
    cdef i64 shortest = p.exposure[1]
    return i.rate * (longest if longest > shortest else shortest)


cdef inline void charge(Market* m, Account* account, i64 hold, i64 unrealized,
                        i64 cash) noexcept nogil:
    """Add to an account's hold, unrealized and cash; excess and the member follow."""
    cdef Member* member = account.member
    cdef i64 change = loss_of(account.unrealized)
    if unlikely(add_overflows(account.unrealized, unrealized, &account.unrealized)):
        m.broken = 2
    change -= loss_of(account.unrealized)
    if unlikely(add_overflows(change, cash, &change) or subtract_overflows(change, hold, &change)
                or add_overflows(account.excess, change, &account.excess)
                or add_overflows(member.excess, change, &member.excess)
                or add_overflows(account.cash, cash, &account.cash)
                or add_overflows(member.cash, cash, &member.cash)):
        m.broken = 2


cdef inline void raise_hold(Market* m, Position* p, i64 change) noexcept nogil:
    """Add to a position's hold; the excess of its account and member follows."""
    cdef Account* account = p.owner
    p.hold += change
    if unlikely(subtract_overflows(account.excess, change, &account.excess)
                or subtract_overflows(account.member.excess, change, &account.member.excess)):
        m.broken = 2


cdef inline void rehold_plainly(Market* m, Instrument* i, Position* p) noexcept nogil:
    """Bring a position's hold in line after its working lots or adverse changed."""
    raise_hold(m, p, hold_for(i, p) + p.adverse - p.hold)


cdef inline void rehold(Market* m, Instrument* i, Position* p) noexcept nogil:
    """`rehold_plainly`, and bring the owner's credit in line."""
    rehold_plainly(m, i, p)
    if unlikely(i.watched & WATCH_CREDIT):
        recredit(m, p.owner)


cdef inline void put_back(Market* m, Instrument* i, Position* p, u8 side, i64 price,
                          i64 lots) noexcept nogil:
    """`lots` working at `price` are gone without a trade; the hold is still to follow."""
    p.exposure[side] -= lots
    if p.adverse:  # 0: no order of the position is adverse
        p.adverse -= lots * adverse_per_lot(i, side, price)
    ensure(m, working_of(p, side) >= 0 and p.adverse >= 0)


cdef inline void release(Market* m, Instrument* i, Position* p, u8 side, i64 price,
                         i64 lots) noexcept nogil:
    """`lots` working at `price` are gone without a trade."""
    put_back(m, i, p, side, price, lots)
    rehold(m, i, p)


cdef inline void execute_plainly(Market* m, Instrument* i, Position* p, u8 side, i64 lots,
                                 i64 value, i64 fee, bint resting) noexcept nogil:
    """Book `lots` traded for `value` micro-dollars in all, and their `fee`. The caller has taken
    them out of the working lots; also out of adverse, unless they are of an order `resting` at the
    trade's price: then its adverse amount is the loss, and is taken out here."""
    cdef i64 unrealized = lots * i.worth - value
    cdef i64 hold
    if side:
        lots = -lots
        value = -value
        unrealized = -unrealized
    if resting:  # the adverse amount has become this loss
        p.adverse += unrealized if unrealized < 0 else 0
    p.net += lots
    p.exposure[0] += lots
    p.exposure[1] -= lots
    p.cost += value
    hold = hold_for(i, p) + p.adverse
    charge(m, p.owner, hold - p.hold, unrealized, -fee)
    p.hold = hold


cdef inline void execute(Market* m, Instrument* i, Position* p, u8 side, i64 lots,
                         i64 value, i64 fee) noexcept nogil:
    """`execute_plainly` for lots that were not resting, and bring the owner's credit in line."""
    execute_plainly(m, i, p, side, lots, value, fee, False)
    if unlikely(i.watched & WATCH_CREDIT):
        recredit(m, p.owner)


cdef inline void pay_house(Market* m, Instrument* i, i64 lots) noexcept nogil:
    """Credit the house's account with the fees that both sides pay for traded lots."""
    cdef i64 fees = lots * (i.maker_fee + i.taker_fee)
    if fees:
        charge(m, m.accounts, 0, 0, fees)
