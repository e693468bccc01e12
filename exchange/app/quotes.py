"""The best bid and ask of every instrument, read from the released stream on demand.

This costs the market's orders nothing: the caller pays for reading, in a thread, what was released
since the last time. Only the stream is used, so a settlement has the same result with a gateway,
without one, and after a restart.
"""

import asyncio
import threading
from collections import defaultdict
from typing import Final

from exchange.journal.tape import START, Position, Released, Tape
from exchange.marketdata.depth import MOVING_KINDS, Depth
from exchange.messages import EVENT

Quote = tuple[int | None, int | None]  # best bid, best ask in ticks; None for a side without orders
NO_QUOTE: Final[Quote] = (None, None)


class Quotes:
    """Depth of every instrument as of the last call of ``read``."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._position: Position = START  # of the last event applied
        self._depths: defaultdict[int, Depth] = defaultdict(Depth)
        self._one_at_a_time = threading.Lock()

    def begin(self, position: Position, depths: dict[int, Depth]) -> None:
        """Continue from depths known at a position; call it before ``read``."""
        self._position = position
        self._depths.update(depths)

    async def read(self) -> dict[int, Quote]:
        """Return the quote of every instrument that has orders, as of all that is released now."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> dict[int, Quote]:
        with self._one_at_a_time:
            for released in self._tape.read(*self._position):
                self._take(released)
            return {number: _quote(depth) for number, depth in self._depths.items()}

    def _take(self, released: Released) -> None:
        depths = self._depths
        for row in EVENT.iter_unpack(released.events):
            if row[2] in MOVING_KINDS:
                depths[row[5]].apply(row)
        self._position = (released.epoch, row[0], row[1])


def _quote(depth: Depth) -> Quote:
    depth.changes()  # discarded: only the present levels are wanted
    bids, asks = depth.bids(1), depth.asks(1)
    if bids and asks and bids[0][0] >= asks[0][0]:
        return NO_QUOTE  # collected for an auction that was not held: nobody quotes such a market
    return (bids[0][0] if bids else None), (asks[0][0] if asks else None)
