"""The oracle's corrections of trades with an implied price: stated leg by leg, whole at the last.

Such a trade is one of several orders, so no command can say all of it. What was stated of it is
state, moves nothing, and is forgotten when another one is begun.
"""

import oracle_corrections
from oracle_combinations import terms_of
from oracle_corrections import (
    FEE_MAX,
    Leg,
    adjusted,
    combination_of,
    exposed,
    move_cost,
    say_leg,
    take_back,
    trade_of,
)
from oracle_features import follow
from oracle_risk import review
from oracle_state import Correction, Instrument, Market, Record, Rejected, signed

from exchange.messages import CommandKind, EventKind, Limit, Reason


def bust(m: Market, c: Record) -> None:
    if not c.spare:
        oracle_corrections.bust(m, c)
        return
    trade_of(m, c)
    most = min(c.quantity * FEE_MAX, Limit.MONEY)
    if max(abs(signed(c.target_hi)), abs(signed(c.key_lo))) > most:
        raise Rejected(Reason.PARAMETER_RANGE)
    state_leg(m, c)


def adjust(m: Market, c: Record) -> None:
    if not c.spare:
        oracle_corrections.adjust(m, c)
        return
    adjusted(m, c)
    state_leg(m, c)


def state_leg(m: Market, c: Record) -> None:
    """One leg more; with the last all are corrected. Raises PARAMETER_RANGE, TRADE_DIFFERENT."""
    combination = combination_of(m, c)
    ratio = abs(combination.legs[c.spare - 1][1])
    begun = m.stated if c.spare > 1 else None
    lots = begun.lots if begun else c.quantity // ratio
    if lots * ratio != c.quantity:
        raise Rejected(Reason.TRADE_DIFFERENT, lots * ratio, c.quantity)
    legs = [*(begun.legs if begun else ()), c]
    if c.spare == len(combination.legs):
        conclude(m, combination, legs)
        return
    m.stated = Correction(c.target_lo, c.kind, combination.number, lots, legs)
    say(m, c, EventKind.LEG_STATED, combination, len(m.rows))


def say(m: Market, c: Record, kind: EventKind, combination: Instrument, parent: int) -> None:
    """A leg in clearing units; of one that was busted what comes back of its fees."""
    leg = m.instruments[c.instrument]
    adjusts = c.kind == CommandKind.ADJUST
    price = signed(c.target_hi) if adjusts else c.price
    back = kind == EventKind.LEG_BUSTED
    say_leg(
        m, c, kind,
        Leg(leg, c.side, c.quantity, terms_of(m, leg), price * leg.tick_scale),
        c.spare, len(combination.legs), parent,
        replaced=c.price * leg.tick_scale if adjusts else 0,
        a=-signed(c.target_hi) if back else 0,
        b=-signed(c.key_lo) if back else 0,
    )  # fmt: skip


def conclude(m: Market, combination: Instrument, legs: list[Record]) -> None:
    """All legs are known: each is corrected between its own two accounts."""
    busts = legs[0].kind == CommandKind.BUST
    books = [m.instruments[c.instrument] for c in legs]
    if busts:
        bounds = [
            exposed(m, c, leg, c.side, c.quantity) for c, leg in zip(legs, books, strict=True)
        ]
        for leg, bound in zip(books, bounds, strict=True):
            leg.bound = bound
    m.corrected.add(legs[0].target_lo)
    m.stated = None
    first = len(m.rows)
    for c, leg in zip(legs, books, strict=True):
        if busts:
            take_back(m, c, leg, c.side, c.quantity, c.price * leg.tick_value)
            cash = signed(c.target_hi), signed(c.key_lo)
            for number, paid in zip((c.account, c.session, 0), (*cash, -sum(cash)), strict=True):
                m.accounts[number].pay(-paid)
        else:
            units = c.quantity * (signed(c.target_hi) - c.price) * leg.tick_scale
            move_cost(m, c, leg, c.side, units)
        say(m, c, EventKind.LEG_BUSTED if busts else EventKind.LEG_ADJUSTED, combination, first)
    for c in legs:
        review(m, [c.account])
        review(m, [c.session])
    if busts:
        follow(m, first)
