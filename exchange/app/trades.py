"""A trade of the open day, found on the tape by its match number, and what was traded before it."""

from typing import Final, NamedTuple

from exchange.journal.tape import Position, Tape
from exchange.messages import (
    EVENT_BYTES,
    INDEX_BITS,
    TRADE,
    TRADE_FIELDS,
    EventKind,
    Trade,
)

_KIND: Final = 12  # offset of the kind byte in an event
_TRADE: Final = int(EventKind.TRADE)


class Found(NamedTuple):
    """A trade, and the price in ticks of the one before it in its instrument; None if the first."""

    trade: Trade
    before: int | None


def find_trade(tape: Tape, opening: Position, match_number: int) -> Found | None:
    """Look for a trade after the day's ``opening``; None if there is none of that number."""
    wanted = match_number >> INDEX_BITS, match_number & (1 << INDEX_BITS) - 1
    last: dict[int, int] = {}  # price by instrument
    for released in tape.read(*opening):
        if released.first_sequence > wanted[0]:
            return None
        kinds = released.events[_KIND::EVENT_BYTES]
        at = kinds.find(_TRADE)
        while at >= 0:
            fields = TRADE.unpack_from(released.events, at * EVENT_BYTES)
            if fields[:2] == wanted:
                trade = Trade(**dict(zip(TRADE_FIELDS, fields, strict=True)))
                return Found(trade, last.get(trade.instrument))
            last[fields[5]] = fields[8]
            at = kinds.find(_TRADE, at + 1)
    return None
