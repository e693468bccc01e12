"""Trades with an implied price busted and adjusted leg by leg, on engine and oracle."""

import pytest
from differences import Machine
from generator import pack
from test_engine_combinations import BUY, FLY, SELL, SPREAD, STRIP, Desk, both, kinds, rejects
from test_engine_implied import implied_in
from test_engine_whole import figures

from exchange.engine import Engine
from exchange.messages import (
    INDEX_BITS,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
)
from exchange.messages import TradingState as State

U64, TICK = (1 << 64) - 1, 1000


def legwise(
    events: list[Event], shifts: tuple[int, ...] = (), **more: int
) -> list[bytes]:
    """BUST of each leg of the trade with an implied price that these are the events of; ADJUST by
    so many ticks with ``shifts``."""
    head = next(event for event in events if event.kind == EventKind.ORDER_EXECUTED)
    legs = [event for event in events if event.kind == EventKind.LEG_TRADE]
    out = []
    for place, leg in enumerate(legs, 1):
        price = leg.price // TICK
        fields = {
            "side": 1 if leg.flags & EventFlag.SELL else 0, "spare": place,
            "instrument": leg.instrument, "account": leg.account, "session": leg.key_hi,
            "price": price, "quantity": leg.quantity,
            "target_lo": head.sequence << INDEX_BITS | head.index,
            "target_hi": (price + shifts[place - 1] if shifts else leg.a) & U64,
            "key_lo": 0 if shifts else leg.b & U64, "key_hi": head.b,
        }  # fmt: skip
        kind = CommandKind.ADJUST if shifts else CommandKind.BUST
        out.append(pack(kind, **{**fields, **more}))
    return out


def traded(desk: Desk, number: int, own: int, side: int) -> list[Event]:
    """A trade of three or four accounts, account 1 coming in in the book ``own``."""
    ratios = {SPREAD: {0: 1, 1: -1}, FLY: {0: 1, 1: -2, 2: 1}, STRIP: {0: 1, 1: 1, 2: 1}}[number]
    prices = {0: 2640, 1: 2630, 2: 2660, SPREAD: 10, FLY: 40, STRIP: 2645}
    way = side if own == number else side ^ 1 ^ (ratios[own] < 0)
    resting = [book for book in (number, *ratios) if book != own]
    for account, book in enumerate(resting, 2):
        of = way if book == number else way ^ 1 ^ (ratios[book] < 0)
        desk.enter(account, book, of if own == number or book != number else way, 4, prices[book])
    return desk.enter(1, own, side, 4, prices[own] + (60 if side == BUY else -60))
