"""Intraday cycles: variation margin at scheduled times of the day, each exactly once.

A record sets the times. When log time passes one of them while a business date is open, a cycle is
due. The inputs of its prices are stored as of that moment, so it is settled at the same prices
however often its execution is interrupted. Each of its instruments is settled by one SETTLE command
under the cycle number stored for it, which the engine accepts once; with the last one the cycle is
done. A cycle that is not done is overtaken by a later one, or by the close of the date.
"""

from datetime import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from exchange.clearing.matters import ACCEPTED, MALFORMED, At, Matter, Ruling, refused
from exchange.clearing.prices import Traded, is_spread
from exchange.clearing.pricing import Prices
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind

if TYPE_CHECKING:
    from exchange.clearing.state import State

TIMES_MAX: Final = 24  # of a day
SECOND: Final = 1_000_000_000
DAY_SECONDS: Final = 86_400


class ScheduleCycles(Record, frozen=True, kw_only=True, tag="schedule_cycles"):
    """The times of the day, in UTC as HH:MM, at which variation is paid; no times: no cycles."""

    times: tuple[str, ...]


class Cycle(msgspec.Struct):
    """A cycle that is due, and the inputs of its prices when it fell due."""

    stamp: int  # the scheduled time
    number: int  # of the first event after that time
    business_date: int
    left: dict[int, int]  # instrument -> number of its settlement
    prior: dict[int, int]  # instrument -> its price when the date began
    last: dict[int, int]  # instrument -> price ticks of the date's last trade
    spreads: dict[str, Traded]  # by code
    settled: int = 0  # instruments


class Cycles(Matter):
    """The schedule, its next time, and the cycle that is due."""

    name: ClassVar[str] = "cycles"
    records: ClassVar[tuple[type[Record], ...]] = (ScheduleCycles,)
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DAY_CLOSED,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.INSTRUMENT_EXPIRED,
    )
    times: list[int] = msgspec.field(default_factory=list)  # seconds of the day, in order
    deadline: int = 0  # stamp of the next one; 0: none
    due: Cycle | None = None

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Set the schedule; it applies from the next of its times on."""
        operation = "schedule_cycles"
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        if len(record.times) > TIMES_MAX:
            return refused(operation, Denial.FULL, TIMES_MAX, len(record.times))
        try:
            clocks = [time.fromisoformat(text) for text in record.times]
        except ValueError as error:
            return Ruling(operation, MALFORMED, {"why": str(error)})
        if [f"{clock:%H:%M}" for clock in clocks] != list(record.times):
            return Ruling(operation, MALFORMED, {"why": "a time is HH:MM, and UTC"})
        self.times = sorted({clock.hour * 3_600 + clock.minute * 60 for clock in clocks})
        self.deadline = self._after(at.stamp)
        return Ruling(operation, ACCEPTED, {"times": len(self.times), "next": self.deadline})

    def passed(self, at: At, state: "State") -> list[Ruling]:
        """Begin a cycle if a scheduled time has passed; of several, only the last counts."""
        if not self.deadline or at.stamp < self.deadline:
            return []
        stamp = self.deadline
        while 0 < (later := self._after(stamp)) <= at.stamp:
            stamp = later
        self.deadline = self._after(at.stamp)
        state.matters.touch(Cycles)  # the deadline at least
        rulings = self._overtaken()
        prices = state.matters.get(Prices)
        if not state.business_date or prices.closed:
            return rulings
        held = {
            number
            for number in state.positions.instruments()
            if any(p.net or p.cost for p in state.positions.of_instrument(number).values())
        }
        prior = prices.prior(state)
        left = {number: prices.cycles.get(number, 0) + 1 for number in prior if number in held}
        facts = {"stamp": stamp, "instruments": len(left)}
        if not left:
            return [*rulings, Ruling("intraday_cycle", "empty", facts)]
        self.due = Cycle(
            stamp, at.number, state.business_date, left, prior, last_prices(state),
            spreads_traded(state),
        )  # fmt: skip
        return [*rulings, Ruling("intraday_cycle", "due", facts)]

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling]:
        """Note an instrument that was settled; at the close of the date end the cycle."""
        cycle = self.due
        if cycle is None:
            return []
        if event.kind == EventKind.DAY_CLOSED:
            return self._overtaken()
        if cycle.left.pop(event.instrument, None) is None:
            return []
        cycle.settled += 1
        if cycle.left:
            return []
        self.due = None
        facts = {"stamp": cycle.stamp, "instruments": cycle.settled}
        return [Ruling("intraday_cycle", "done", facts)]

    def _overtaken(self) -> list[Ruling]:
        cycle, self.due = self.due, None
        if cycle is None:
            return []
        facts = {"stamp": cycle.stamp, "instruments": cycle.settled, "left": len(cycle.left)}
        return [Ruling("intraday_cycle", "overtaken", facts)]

    def _after(self, stamp: int) -> int:
        """Return the first scheduled stamp after ``stamp``; 0 without a schedule."""
        if not self.times:
            return 0
        day, now = divmod(stamp // SECOND, DAY_SECONDS)
        later = next((second for second in self.times if second > now), None)
        if later is None:
            day, later = day + 1, self.times[0]
        return (day * DAY_SECONDS + later) * SECOND


def last_prices(state: "State") -> dict[int, int]:
    """Return the price ticks of the date's last trade, by instrument."""
    return {n: day.last_price for n, day in sorted(state.trading.items()) if day.trades}


def spreads_traded(state: "State") -> dict[str, Traded]:
    """Return the date's trades in calendar spreads, by code."""
    codes = ((state.instruments[n].code, day) for n, day in sorted(state.trading.items()))
    return {c: Traded(day.trades, day.volume, day.value) for c, day in codes if is_spread(c)}
