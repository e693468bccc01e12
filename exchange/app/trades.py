"""Finds a trade of the open day on the tape by its match number, and the price before it.

A trade at an implied price consists of the execution of the incoming order and the trades of its
legs.
"""

from typing import Final, NamedTuple

from exchange.journal.tape import Position, Released, Tape
from exchange.messages import (
    EVENT_BYTES,
    INDEX_BITS,
    TRADE,
    TRADE_FIELDS,
    EventKind,
    Trade,
)

_KIND: Final = 12  # offset of the kind byte in an event
_TRADE, _EXECUTED = int(EventKind.TRADE), int(EventKind.ORDER_EXECUTED)
_BUSTED, _ADJUSTED = int(EventKind.TRADE_BUSTED), int(EventKind.TRADE_ADJUSTED)
_LEG_TRADE: Final = int(EventKind.LEG_TRADE)
_OF_WHOLE: Final = frozenset(map(int, (EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED)))


class LegAlone(Exception):
    """The number is that of a leg; ``whole`` is the match number of the whole trade."""

    def __init__(self, whole: int) -> None:
        super().__init__(whole)
        self.whole = whole


class Found(NamedTuple):
    """A trade, and the price in ticks of the previous trade in its instrument; None if it is the
    first. A busted trade is none, and an adjusted one has its new price.

    For a trade at an implied price ``trade`` is the incoming order's execution and ``combination``
    the combination's number; the prices of its legs are clearing prices.
    """

    trade: Trade
    before: int | None
    legs: tuple[Trade, ...] = ()
    combination: int = 0


def find_trade(tape: Tape, opening: Position, match_number: int) -> Found | None:
    """Search for a trade after the day's ``opening``; None if there is none of that number.

    The cash of a combination's trade includes that of its legs and residual. Raises LegAlone.
    """
    wanted = match_number >> INDEX_BITS, match_number & (1 << INDEX_BITS) - 1
    corrected = _corrections(tape, opening)
    last: dict[int, int] = {}  # price by instrument
    for released in tape.read(*opening):
        if released.first_sequence > wanted[0]:
            return None
        kinds = released.events[_KIND::EVENT_BYTES]
        at = kinds.find(_TRADE)
        while at >= 0:
            fields = TRADE.unpack_from(released.events, at * EVENT_BYTES)
            if fields[:2] == wanted:
                return Found(_whole(released, at, fields), last.get(fields[5]))
            price = corrected.get(fields[0] << INDEX_BITS | fields[1], fields[8])
            if price is not None:
                last[fields[5]] = price
            at = kinds.find(_TRADE, at + 1)
        if released.first_sequence <= wanted[0] < released.first_sequence + released.count:
            return _chain(released, wanted, last)
    return None


def _corrections(tape: Tape, opening: Position) -> dict[int, int | None]:
    """Return the prices of the adjusted trades of the day, by match number; None of a busted
    one."""
    found: dict[int, int | None] = {}
    for released in tape.read(*opening):
        kinds = released.events[_KIND::EVENT_BYTES]
        if _BUSTED not in kinds and _ADJUSTED not in kinds:
            continue
        for at, kind in enumerate(kinds):
            if kind in (_BUSTED, _ADJUSTED):
                fields = TRADE.unpack_from(released.events, at * EVENT_BYTES)
                found[fields[7]] = None if kind == _BUSTED else fields[8]
    return found


def _whole(released: Released, at: int, fields: tuple[int, ...]) -> Trade:
    """Return the trade at an event, with the cash of its legs if it has any."""
    trade, cash = dict(zip(TRADE_FIELDS, fields, strict=True)), [fields[14], fields[15]]
    for place in range(1, fields[4] + 2 if fields[4] else 1):
        if (at + place) * EVENT_BYTES == len(released.events):
            break
        part = TRADE.unpack_from(released.events, (at + place) * EVENT_BYTES)
        if part[0] == fields[0] and part[2] in _OF_WHOLE and part[10] == fields[1]:
            cash = [cash[0] + part[14], cash[1] + part[15]]
    return Trade(**{**trade, "cash": cash[0], "maker_cash": cash[1]})


def _chain(released: Released, wanted: tuple[int, int], last: dict[int, int]) -> Found | None:
    """Return the trade at an implied price with that number, or None. Raises LegAlone."""
    legs, head = [], None
    for at, kind in enumerate(released.events[_KIND::EVENT_BYTES]):
        if kind != _EXECUTED and kind not in _OF_WHOLE:
            continue
        fields = TRADE.unpack_from(released.events, at * EVENT_BYTES)
        if fields[:2] == wanted and kind in _OF_WHOLE:
            raise LegAlone(wanted[0] << INDEX_BITS | fields[10])
        if fields[:2] == wanted and fields[4] == 0:
            head = Trade(**dict(zip(TRADE_FIELDS, fields, strict=True)))
        elif head and kind == _LEG_TRADE and (fields[0], fields[10]) == wanted:
            legs.append(Trade(**dict(zip(TRADE_FIELDS, fields, strict=True))))
    if head is None:
        return None
    return Found(head, last.get(head.instrument), tuple(legs), head.maker_cash)
