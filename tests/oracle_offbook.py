"""The oracle's transfers: lots that change hands off the book, at a price agreed elsewhere."""

from oracle_corrections import furthest
from oracle_features import follow
from oracle_instruments import living, notional_fits, outright, price_fits
from oracle_orders import keep_receipt, need_slot, repeated
from oracle_protections import judge_all_months, tell_levels
from oracle_risk import (
    credit,
    hold,
    judge_position,
    judge_rise,
    member_figures,
    reduces,
    review,
    working,
)
from oracle_state import Instrument, Market, Position, Record, Rejected, signed

from exchange.messages import (
    HOUSE_ACCOUNT,
    EventFlag,
    EventKind,
    Limit,
    Reason,
    Side,
    TransferKind,
)

AGREED = (TransferKind.BLOCK, TransferKind.EFP)


def judge_side(m: Market, c: Record, instrument: Instrument, number: int, side: int) -> int:
    """One side as an order that trades at once; gives the rise of its requirement."""
    account, lots = m.accounts[number], c.quantity
    judge_all_months(m, account, instrument, side, lots)
    judge_position(m, account, instrument, side, lots, None)
    net = (account.positions.get(instrument.number) or Position()).net
    now = working(m, account, instrument.number)
    distance = c.price - instrument.mark
    adverse = max(0, distance if side == Side.BUY else -distance) * lots * instrument.multiplier
    rise = hold(m, instrument, net, [*now, (side, lots, None)]) + adverse
    rise -= hold(m, instrument, net, now)
    rise -= credit(m, account, [(instrument.number, side, lots)]) - credit(m, account)
    reducing = reduces(m, account, instrument, (side, lots, None), None)
    judge_rise(m, account, rise, reducing)
    return rise


def judge_giver(m: Market, c: Record, instrument: Instrument, giver: int) -> None:
    """Who hands lots on must have them."""
    net = (m.accounts[giver].positions.get(instrument.number) or Position()).net
    held = net if c.side == Side.BUY else -net
    if held < c.quantity:
        raise Rejected(Reason.NOT_HELD, held, c.quantity)
    bound = max(instrument.bound, furthest(m, giver, instrument, 1 - c.side) + c.quantity)
    if (
        not notional_fits(instrument.low, instrument.high, instrument.tick_value, bound)
        or not price_fits(instrument.mark, instrument.multiplier, bound)
        or instrument.rate * bound > Limit.MONEY
    ):
        raise Rejected(Reason.PARAMETER_RANGE)


def judge_terms(c: Record, instrument: Instrument) -> None:
    lots = max(instrument.bound, c.quantity)
    if (
        c.side > Side.SELL
        or c.tif not in list(TransferKind)
        or c.target_lo == c.account
        or not 1 <= c.quantity <= Limit.QUANTITY
        or not price_fits(c.price, instrument.multiplier, lots)
        or not price_fits(instrument.mark, instrument.multiplier, c.quantity)
    ):
        raise Rejected(Reason.PARAMETER_RANGE)


def judge_both(m: Market, c: Record, instrument: Instrument, giver: int) -> None:
    rise = judge_side(m, c, instrument, c.account, c.side)
    if c.tif not in AGREED:
        return
    other = judge_side(m, c, instrument, giver, 1 - c.side)
    member = m.accounts[c.account].member
    if member == m.accounts[giver].member and min(rise, other) > 0:
        need, cash = member_figures(m, member)
        if need + rise + other > cash:
            raise Rejected(Reason.MEMBER_MARGIN, cash, need + rise + other)


def need_records(m: Market, number: int, *accounts: int) -> None:
    """Raises POSITIONS_FULL."""
    missing = sum(number not in m.accounts[account].positions for account in accounts)
    known = sum(len(account.positions) for account in m.accounts.values())
    if missing and known + missing > Limit.POSITIONS - 1:
        raise Rejected(Reason.POSITIONS_FULL, Limit.POSITIONS, Limit.POSITIONS)


def transfer(m: Market, c: Record) -> None:
    giver = c.target_lo
    if c.account not in m.accounts:
        raise Rejected(Reason.UNKNOWN_ACCOUNT)
    if repeated(m, c):
        return
    if giver not in m.accounts:
        raise Rejected(Reason.UNKNOWN_ACCOUNT, 0, signed(giver))
    if HOUSE_ACCOUNT in (c.account, giver):
        raise Rejected(Reason.HOUSE_ACCOUNT)
    instrument = living(m, c)
    outright(instrument)
    judge_terms(c, instrument)
    if c.tif not in AGREED:
        judge_giver(m, c, instrument, giver)
    judge_both(m, c, instrument, giver)
    need_slot(m, c)
    need_records(m, instrument.number, c.account, giver)
    instrument.bound = max(
        instrument.bound, furthest_or_none(m, giver, instrument, 1 - c.side) + c.quantity
    )
    lots = c.quantity if c.side == Side.BUY else -c.quantity
    for number, change in ((c.account, lots), (giver, -lots)):
        position = m.accounts[number].positions.setdefault(instrument.number, Position())
        position.net += change
        position.cost += change * c.price * instrument.multiplier
    nets = [m.accounts[n].positions[instrument.number].net for n in (c.account, giver)]
    first = len(m.rows)
    row = m.emit(
        EventKind.LOTS_TRANSFERRED,
        flags=EventFlag.SELL if c.side == Side.SELL else 0,
        reason=c.tif,
        instrument=instrument.number,
        account=c.account,
        order_id=giver,
        price=c.price,
        quantity=c.quantity,
        key=c.key,
        a=nets[0],
        b=nets[1],
    )
    review(m, [c.account])
    review(m, [giver])
    follow(m, first)
    tell_levels(m, instrument, c.account, giver)
    keep_receipt(m, c, row)


def furthest_or_none(m: Market, number: int, instrument: Instrument, side: int) -> int:
    """As ``furthest``, of an account that may have no record of the instrument yet."""
    m.accounts[number].positions.setdefault(instrument.number, Position())
    return furthest(m, number, instrument, side)
