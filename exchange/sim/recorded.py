"""Replays a recorded day as the participants of a sandbox: its books and its trades.

One account holds the orders of each level, another takes what was taken, both in the real market,
so that a bot there meets real books, margins and rejects. Lots that the bot takes are missing until
the level's next change on the recording. Lots added to a level queue behind the bot's, and lots
removed are the last that were added: a resting bot never gets a better place than it would have
had. Only continuous trading is replayed; an instrument in another state is halted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from clients.bots import recorder
from clients.decimals import read_quantity
from clients.errors import ValueRefused
from exchange.app import requests
from exchange.messages.wire import (
    DepthDelta,
    DepthSnapshot,
    InstrumentData,
    Instruments,
    InstrumentState,
    PublicTrade,
    Rejected,
    SideText,
)
from exchange.sim.crowd import MAKER, TAKER, Connect, Perform
from exchange.sim.loop import NS

USD: Final = "1000000000"
LEAD_NS: Final = 10 * NS  # before the first message, for all participants to connect
LEVEL_LOTS_MAX: Final = 100_000  # largest addition to a level
POSITION_LOTS_MAX: Final = 10_000_000  # largest position of the replaying accounts
OPEN: Final = "CONTINUOUS"
Place = tuple[str, SideText, str]  # instrument, side, price


class TapeRefused(ValueRefused):
    """The market of the replay refuses something that the recorded market accepted."""

    def __init__(self, what: str, refused: Rejected) -> None:
        super().__init__(f"{what}: {refused.name}, limit {refused.limit}, got {refused.observed}")


class Tape(msgspec.Struct, frozen=True):
    """A recording, read on demand: ``rows`` begins at the first row each time."""

    rows: Callable[[], Iterator[recorder.Recorded]]
    first_ns: int
    last_ns: int

    @classmethod
    def load(cls, path: Path) -> "Tape":
        """Open a recording of ``clients.bots.recorder``. ValueRefused if it is none, or empty."""
        tape = cls(lambda: recorder.read(path), *recorder.span(path))
        if not any(tape.first_states()):
            raise ValueRefused(f"{path} has no instrument's state")
        return tape

    @property
    def start_ns(self) -> int:
        """When a replay begins: early enough for all participants to connect."""
        return self.first_ns - LEAD_NS

    @property
    def seconds(self) -> float:
        """Duration of a replay, with a second at its end."""
        return (self.last_ns - self.start_ns) / NS + 1

    def listed(self) -> list[InstrumentData]:
        """Return the instruments on the recording."""
        for row in self.rows():
            if isinstance(row.message, Instruments):
                return row.message.instruments
        return []

    def first_states(self) -> Iterator[InstrumentState]:
        """Yield each instrument's first state."""
        missing = {data.code for data in self.listed()}
        for row in self.rows() if missing else ():
            if isinstance(row.message, InstrumentState) and row.message.instrument in missing:
                missing.remove(row.message.instrument)
                yield row.message
            if not missing:
                return


class Replay:
    """Plays a recording: ``open``, then ``run``."""

    def __init__(
        self, tape: Tape, perform: Perform, connect: Connect, clock_ns: Callable[[], int]
    ) -> None:
        self._tape = tape
        self._perform, self._connect, self._clock_ns = perform, connect, clock_ns
        self._ids: dict[Place, list[str]] = {}  # orders at each level, oldest first
        self._state: dict[str, InstrumentState] = {}
        # Whether trades since the last query may have changed the maker's orders
        self._traded = False

    async def open(self) -> None:
        """List the recorded instruments with their limits, and connect."""
        self._maker = await self._connect(MAKER, USD)
        self._taker = await self._connect(TAKER, USD)
        data = {one.code: one for one in self._tape.listed()}
        for state in self._tape.first_states():
            code = state.instrument
            if code not in self._maker.instruments:
                price = "" if data[code].legs else state.mark
                await self._perform(requests.ListContract(code=code, price=price))
            await self._perform(
                requests.SetLimits(
                    code=code,
                    low=state.low_limit,
                    high=state.high_limit,
                    position_limit=POSITION_LOTS_MAX,
                    max_order=LEVEL_LOTS_MAX,
                )
            )
            self._state[code] = msgspec.structs.replace(state, state=OPEN)
        await self._perform(requests.Protect(on=False))
        await self._maker.refresh()
        await self._taker.refresh()

    async def run(self, stop: asyncio.Event) -> None:
        """Play to the recording's end, then wait for ``stop``; or until ``stop`` is set. Raises
        TapeRefused; ValueRefused for a message of an instrument without a state."""
        for row in self._tape.rows():
            wait = row.received_ns - self._clock_ns()
            if wait > 0:
                await asyncio.sleep(wait / NS)
            if stop.is_set():
                return
            code = getattr(row.message, "instrument", None)
            if code is not None and code not in self._state:
                raise ValueRefused(f"the tape has messages of {code}, and no state of it")
            match row.message:
                case PublicTrade():
                    await self._trade(row.message)
                case DepthSnapshot() | DepthDelta():
                    await self._change(row.message)
                case InstrumentState():
                    await self._move(row.message)
        await stop.wait()

    async def _trade(self, trade: PublicTrade) -> None:
        """Take what was taken; an auction's trades have no aggressor and are left out."""
        if trade.aggressor is None:
            return
        self._traded = True
        outcome = await self._taker.enter(
            trade.instrument, trade.aggressor, trade.quantity, trade.price, time_in_force="IOC"
        )
        if isinstance(outcome, Rejected):
            raise TapeRefused(f"trade {trade.match_number}", outcome)

    async def _change(self, message: DepthSnapshot | DepthDelta) -> None:
        """Bring the levels to the recorded quantities."""
        if self._state[message.instrument].state != OPEN:
            return
        if self._traded:  # the answer comes after all reports of earlier trades
            await self._maker.query_account()
            self._traded = False
        wanted: dict[Place, int] = {}
        if isinstance(message, DepthSnapshot):
            wanted = {place: 0 for place in self._ids if place[0] == message.instrument}
        sides: tuple[tuple[SideText, list[tuple[str, str]]], ...] = (
            ("buy", message.bids),
            ("sell", message.asks),
        )
        for side, levels in sides:
            for price, quantity in levels:
                wanted[message.instrument, side, price] = read_quantity(quantity)
        missing = {place: lots - self._held(place) for place, lots in wanted.items()}
        # Removals first: an addition could otherwise trade with what is still to be removed.
        await _all(self._shrink(place, -lots) for place, lots in missing.items() if lots < 0)
        await _all(self._grow(place, lots) for place, lots in missing.items() if lots > 0)

    def _held(self, place: Place) -> int:
        """Return the lots that the level's orders still have; drop finished orders."""
        orders = self._maker.orders
        living = [name for name in self._ids.get(place, ()) if name in orders]
        self._ids[place] = living
        if not living:
            del self._ids[place]
        return sum(orders[name].leaves_quantity for name in living)

    async def _shrink(self, place: Place, lots: int) -> None:
        for name in reversed(self._ids[place][:]):
            leaves = self._maker.orders[name].leaves_quantity
            gone = min(lots, leaves)
            lots -= gone
            whole = gone == leaves
            outcome = await (
                self._maker.cancel(name) if whole else self._maker.reduce(name, quantity=gone)
            )
            # It may just have traded
            if isinstance(outcome, Rejected) and outcome.name != "NOT_FOUND":
                raise TapeRefused(f"{gone} lots less at {place}", outcome)
            if not lots:
                return

    async def _grow(self, place: Place, lots: int) -> None:
        instrument, side, price = place
        name = self._maker.next_id()
        self._ids.setdefault(place, []).append(name)
        outcome = await self._maker.enter(instrument, side, lots, price, client_order_id=name)
        if isinstance(outcome, Rejected):
            raise TapeRefused(f"{lots} lots more at {place}", outcome)

    async def _move(self, state: InstrumentState) -> None:
        """Follow an instrument's trading state and its price limits."""
        before = self._state[state.instrument]
        if (state.low_limit, state.high_limit) != (before.low_limit, before.high_limit):
            await self._perform(
                requests.SetLimits(
                    code=state.instrument, low=state.low_limit, high=state.high_limit
                )
            )
        if (state.state == OPEN) != (before.state == OPEN):
            kind = requests.Resume if state.state == OPEN else requests.Halt
            await self._perform(kind(code=state.instrument))
        self._state[state.instrument] = state


async def _all(work: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*work)
