"""Follows the calendar: has every instrument in the state that its session says, from the moment
that it says.

What is to be done is read off the log each time, never remembered: a step is done for an
instrument once its state has changed at or after the step's moment, whoever changed it. So a crash
between two steps, or within one, leaves just the rest to do, an operator's own change holds until
the next step, and a step that nobody was there for is not made up for: the one in force counts,
of what has had its last session that session's close.
What an operator or a breaker without an end has halted stays halted until an operator resumes it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from contracts import calendar
from contracts.calendar import CalendarError, Session
from contracts.sessions import Phase, Step, in_force, steps
from contracts.spec import Combination
from contracts.spec import Instrument as Terms
from exchange.app import requests, wishes, wishes_market
from exchange.app.desk import Desk, WishRejected
from exchange.app.operations import Operations
from exchange.app.wishes import RequestRefused
from exchange.marketdata.instruments import Instrument
from exchange.messages import HaltCause, TradingState
from exchange.sequencer import QueueFull

LOOK_SECONDS: Final = 30.0  # at the latest: clocks are set, days are settled late
RETRY_SECONDS: Final = 1.0  # after a look that was refused or came too late
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
STATES: Final = {
    Phase.PRE_OPEN: (TradingState.PRE_OPEN, HaltCause.OPENING),
    Phase.OPENING_AUCTION: (TradingState.AUCTION, HaltCause.OPENING),
    Phase.CONTINUOUS: (TradingState.CONTINUOUS, HaltCause.NONE),
    Phase.CLOSING_AUCTION: (TradingState.AUCTION, HaltCause.CLOSING),
    Phase.CLOSED: (TradingState.CLOSED, HaltCause.NONE),
}
_log = logging.getLogger(__name__)


def moment(stamp: int) -> datetime:
    """The time of a stamp, in whole microseconds."""
    return _EPOCH + timedelta(microseconds=stamp // 1_000)


def stamp_of(at: datetime) -> int:
    """Nanoseconds since the epoch."""
    return (at - _EPOCH) // _MICROSECOND * 1_000


class _Stand(NamedTuple):
    """Where a calendar stands: its last session begun, the step in force, the last tick due."""

    session: Session
    step: Step | None
    tick: datetime | None


Stands: TypeAlias = dict[tuple[str, bool], _Stand]  # by calendar, and whether of combinations


class Schedule:
    """The sessions of everything listed on a desk. Call ``run`` in a task of its own.

    ``settles``: a day is also settled once its session has closed; otherwise an operator does
    that, and the next day opens when it is done.
    """

    def __init__(
        self, desk: Desk, operations: Operations, clock: Callable[[], int], *, settles: bool
    ) -> None:
        self._desk = desk
        self._operations = operations
        self._clock = clock
        self._settles = settles
        self.looked = asyncio.Event()  # set once the first look is over
        self._settled = 0  # a business date known to need no settlement
        self._complained = 0  # a business date that somebody was told to settle

    async def run(self) -> None:
        """Do what is due, again and again. What holds it up is logged once, not with every try."""
        held_up = ""
        while True:
            try:
                await self.look()
                pause, held_up = self._until_next(), ""
            except (RequestRefused, QueueFull, TimeoutError, CalendarError) as error:
                by = str(getattr(error, "reason", error))
                if by != held_up:
                    _log.warning("the schedule is held up, trying again: %s", error)
                pause, held_up = RETRY_SECONDS, by
            self.looked.set()
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Do what is due now. RequestRefused, QueueFull, TimeoutError: another look goes on."""
        now = moment(self._clock())
        stands = self._read_calendars(now)
        async with self._operations.one_at_a_time:
            await self._move(self._over(stands, now))  # before the date that it belongs to settles
        await self._open_day(now, stands)
        async with self._operations.one_at_a_time:
            stands = self._read_calendars(now)  # of what was listed meanwhile, too
            await self._move(self._due(stands))
            await self._indicate(stands)
        if self._is_over(now, stands):
            await self._settle()

    # The calendar

    def _spec(self, code: str) -> Terms | Combination | None:
        return self._desk.terms.get(code) or self._desk.combinations.get(code)

    def _read_calendars(self, now: datetime) -> Stands:
        """Where every calendar stands that something listed is traded by."""
        specs = (self._spec(code) for code in self._desk.instruments.by_code)
        kinds = {(spec.calendar, isinstance(spec, Combination)): spec for spec in specs if spec}
        return {kind: self._read(spec, now) for kind, spec in kinds.items()}

    def _read(self, spec: Terms | Combination, now: datetime) -> _Stand:
        days = calendar.load(spec.calendar)
        session = days.begun(now)
        every = steps(spec, days, session.day)
        ticks = [s.at for s in every if s.phase is Phase.INDICATE and s.at <= now]
        return _Stand(session, in_force(every, now), ticks[-1] if ticks else None)

    def _until_next(self) -> float:
        """Seconds until something may be due."""
        now = moment(self._clock())
        found = [now + timedelta(seconds=LOOK_SECONDS)]
        for spec in {terms.calendar: terms for terms in self._desk.terms.values()}.values():
            days = calendar.load(spec.calendar)
            day = days.begun(now).day
            every = [*steps(spec, days, day), *steps(spec, days, days.after(day, 1))]
            found += [step.at for step in every if step.at > now]
        return (min(found) - now) / timedelta(seconds=1)

    # The day

    async def _open_day(self, now: datetime, stands: Stands) -> None:
        """Open the business date of the session that is on, once the one before is settled."""
        desk = self._desk
        on = [stand.session.day for stand in stands.values() if now < stand.session.closes]
        number = wishes.as_number(max(on)) if on else 0
        if number <= desk.business_date:
            return
        if self._settles:
            await self._settle()
        elif desk.day_open or await self._operations.unsettled():
            if self._complained != desk.business_date:
                _log.error("%d waits: settle business date %d", number, desk.business_date)
            self._complained = desk.business_date
            return
        await self._operations.perform(requests.OpenDay(date=number))

    def _is_over(self, now: datetime, stands: Stands) -> bool:
        """Whether the session of the business date has closed for all that is listed."""
        sessions = [stand.session for stand in stands.values()]
        if not self._settles or not sessions or any(now < one.closes for one in sessions):
            return False
        return self._desk.business_date <= wishes.as_number(max(one.day for one in sessions))

    async def _settle(self) -> None:
        """Settle the business date, if it is not settled; a refusal says that it is."""
        business_date = self._desk.business_date
        if self._settled == business_date:
            return
        try:
            await self._operations.perform(requests.Settle())
        except WishRejected:
            raise
        except RequestRefused as refused:
            _log.info("nothing to settle: %s", refused)
        self._settled = business_date

    # States

    async def _move(self, due: Iterable[tuple[Instrument, Step]]) -> None:
        """Have each instrument where its step has it."""
        await self._desk.perform(
            [
                wishes.set_state(listed.code, listed.id, *STATES[step.phase], session=step.at)
                for listed, step in due
            ]
        )

    def _living(self, stands: Stands) -> Iterator[tuple[Instrument, Terms | Combination, _Stand]]:
        """What has not expired, with its terms, and where its calendar stands."""
        for listed in self._desk.instruments.by_id.values():
            spec = self._spec(listed.code)
            if spec is not None and listed.state != TradingState.EXPIRED:
                stand = stands.get((spec.calendar, isinstance(spec, Combination)))
                if stand is not None:
                    yield listed, spec, stand

    def _listed(self, stands: Stands) -> Iterator[tuple[Instrument, _Stand]]:
        """What may trade in the last session begun, and where that stands."""
        for listed, spec, stand in self._living(stands):
            if stand.session.day <= spec.last_trading_day:
                yield listed, stand

    def _over(self, stands: Stands, now: datetime) -> Iterator[tuple[Instrument, Step]]:
        """What had its last session before the one begun and was not closed with it, since nobody
        was there."""
        for listed, spec, stand in self._living(stands):
            if listed.state == TradingState.CLOSED or stand.session.day <= spec.last_trading_day:
                continue
            days = calendar.load(spec.calendar)
            last = in_force(steps(spec, days, days.at_or_before(spec.last_trading_day)), now)
            if last is not None and self._is_due(listed, last):
                yield listed, last

    def _due(self, stands: Stands) -> Iterator[tuple[Instrument, Step]]:
        """Each instrument that is not yet where its session has it, and the step that says so."""
        for listed, stand in self._listed(stands):
            if stand.step is None or (
                stand.step.phase is not Phase.CLOSED and not self._is_open(stand.session)
            ):
                continue
            if self._is_due(listed, stand.step):
                yield listed, stand.step

    def _is_open(self, session: Session) -> bool:
        """Whether the business date of a session is open: one before it may wait to be settled."""
        desk = self._desk
        return desk.day_open and desk.business_date >= wishes.as_number(session.day)

    def _is_due(self, listed: Instrument, step: Step) -> bool:
        state, cause = STATES[step.phase]
        if listed.state == state and cause in (listed.cause, HaltCause.NONE):
            return False
        if listed.state == TradingState.HALTED:
            if listed.cause == HaltCause.RECOVERY:
                return True  # its state before the restart is gone
            if not listed.resumes:
                return False  # an operator's to resume
        return self._desk.changed.get(listed.id, 0) < stamp_of(step.at)

    async def _indicate(self, stands: Stands) -> None:
        """Publish the indicative prices of a tick that came since the last one."""
        todo = [
            wishes_market.indicate(listed.code, listed.id)
            for listed, stand in self._listed(stands)
            if listed.state in (TradingState.PRE_OPEN, TradingState.AUCTION)
            and stand.tick is not None
            and self._desk.indicated < stamp_of(stand.tick)
        ]
        await self._desk.perform(todo)
