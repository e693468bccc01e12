"""Follows the calendar: moves every instrument to the state of its session when that begins.

What is to be done is derived from the log each time, never remembered: a step counts as done for an
instrument once its state has changed at or after the step's time, whoever changed it. So after a
crash between or within steps only the rest is done, an operator's own change holds until the next
step, and missed steps are not made up for: only the step in force counts, and for an instrument
whose last session is over, or when that of the business date is, that session's close.

What an operator, or a breaker without an end, has halted stays halted until an operator resumes it.
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
from exchange.messages.dates import number_of
from exchange.sequencer import QueueFull

LOOK_SECONDS: Final = 30.0  # longest sleep: clocks may be set and days settled at any time
RETRY_SECONDS: Final = 1.0  # after a refusal or a timeout
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
    """Return the time of a stamp, in whole microseconds."""
    return _EPOCH + timedelta(microseconds=stamp // 1_000)


def stamp_of(at: datetime) -> int:
    """Return a time in ns since 1970."""
    return (at - _EPOCH) // _MICROSECOND * 1_000


class _Stand(NamedTuple):
    """A calendar's state: its last session begun, the step in force, the last indicative tick
    due."""

    session: Session
    step: Step | None
    tick: datetime | None


Stands: TypeAlias = dict[tuple[str, bool], _Stand]  # by calendar, and whether for combinations


class Schedule:
    """The sessions of everything listed on a desk. Run ``run`` in a task of its own.

    ``settles``: each day is settled once its session has closed; otherwise an operator settles, and
    the next day opens after that.
    """

    def __init__(
        self, desk: Desk, operations: Operations, clock: Callable[[], int], *, settles: bool
    ) -> None:
        self._desk = desk
        self._operations = operations
        self._clock = clock
        self._settles = settles
        self.looked = asyncio.Event()  # set after the first look
        self._settled = 0  # a business date known to need no settlement
        self._complained = 0  # a business date whose missing settlement was logged

    async def run(self) -> None:
        """Do what is due, forever. An obstacle is logged once, not at every retry."""
        held_up = ""
        while True:
            try:
                looked = await self.look()
                pause, held_up = self._until_next(looked), ""
            except (RequestRefused, QueueFull, TimeoutError, CalendarError) as error:
                by = str(getattr(error, "reason", error))
                if by != held_up:
                    _log.warning("the schedule is held up, trying again: %s", error)
                pause, held_up = RETRY_SECONDS, by
            self.looked.set()
            await asyncio.sleep(pause)

    async def look(self) -> datetime:
        """Do what is due now, and return that time. After RequestRefused, QueueFull or TimeoutError
        the next look continues."""
        now = moment(self._clock())
        stands = self._read_calendars(now)
        async with self._operations.one_at_a_time:
            await self._move(self._over(stands, now))  # before their business date is settled
        await self._open_day(now, stands)
        async with self._operations.one_at_a_time:
            stands = self._read_calendars(now)  # including what was listed meanwhile
            await self._move(self._due(stands))
            await self._indicate(stands)
        if self._is_over(now, stands):
            await self._settle()
        return now

    # The calendar

    def _spec(self, code: str) -> Terms | Combination | None:
        return self._desk.terms.get(code) or self._desk.combinations.get(code)

    def _read_calendars(self, now: datetime) -> Stands:
        """Return the state of every calendar of a listed instrument."""
        specs = (self._spec(code) for code in self._desk.instruments.by_code)
        kinds = {(spec.calendar, isinstance(spec, Combination)): spec for spec in specs if spec}
        return {kind: self._read(spec, now) for kind, spec in kinds.items()}

    def _read(self, spec: Terms | Combination, now: datetime) -> _Stand:
        days = calendar.load(spec.calendar)
        session = days.begun(now)
        every = steps(spec, days, session.day)
        ticks = [s.at for s in every if s.phase is Phase.INDICATE and s.at <= now]
        return _Stand(session, in_force(every, now), ticks[-1] if ticks else None)

    def _until_next(self, looked: datetime) -> float:
        """Return the seconds until something may be due, 0 if that began after ``looked``, while
        the look waited for others."""
        now = moment(self._clock())
        found = [now + timedelta(seconds=LOOK_SECONDS)]
        for spec in {terms.calendar: terms for terms in self._desk.terms.values()}.values():
            days = calendar.load(spec.calendar)
            day = days.begun(looked).day
            every = [*steps(spec, days, day), *steps(spec, days, days.after(day, 1))]
            found += [step.at for step in every if step.at > looked]
        return max(0.0, (min(found) - now) / timedelta(seconds=1))

    # The day

    async def _open_day(self, now: datetime, stands: Stands) -> None:
        """Open the business date of the current session, once the previous one is settled."""
        desk = self._desk
        on = [stand.session.day for stand in stands.values() if now < stand.session.closes]
        number = number_of(max(on)) if on else 0
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
        """Whether the session of the business date has closed for everything listed."""
        sessions = [stand.session for stand in stands.values()]
        if not self._settles or not sessions or any(now < one.closes for one in sessions):
            return False
        return self._desk.business_date <= number_of(max(one.day for one in sessions))

    async def _settle(self) -> None:
        """Settle the business date, if it is not settled; a refusal means that it is. A corrected
        price that was approved since is settled as well."""
        business_date = self._desk.business_date
        if self._settled == business_date and not await self._operations.unsettled():
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
        """Move each instrument to the state of its step."""
        await self._desk.perform(
            [
                wishes.set_state(listed.code, listed.id, *STATES[step.phase], session=step.at)
                for listed, step in due
            ]
        )

    def _living(self, stands: Stands) -> Iterator[tuple[Instrument, Terms | Combination, _Stand]]:
        """Yield what has not expired, with its terms and its calendar's state."""
        for listed in self._desk.instruments.by_id.values():
            spec = self._spec(listed.code)
            if spec is not None and listed.state != TradingState.EXPIRED:
                stand = stands.get((spec.calendar, isinstance(spec, Combination)))
                if stand is not None:
                    yield listed, spec, stand

    def _listed(self, stands: Stands) -> Iterator[tuple[Instrument, _Stand]]:
        """Yield what may trade in the last session begun, with its calendar's state."""
        for listed, spec, stand in self._living(stands):
            if stand.session.day <= spec.last_trading_day:
                yield listed, stand

    def _over(self, stands: Stands, now: datetime) -> Iterator[tuple[Instrument, Step]]:
        """Yield what is not closed although its last session, or that of the business date, was
        before the present one: it was not followed to its end, or an operator moved something
        afterwards, which no later step of that date ends."""
        number = self._desk.business_date  # 0: a crash left listings and no date yet
        for listed, spec, stand in self._living(stands):
            last_day = spec.last_trading_day
            end = min(wishes.as_date(number), last_day) if number else last_day
            if listed.state == TradingState.CLOSED or stand.session.day <= end:
                continue
            days = calendar.load(spec.calendar)
            last = in_force(steps(spec, days, days.at_or_before(end)), now)
            halted = listed.state == TradingState.HALTED
            if last is not None and (not halted or self._is_due(listed, last)):
                yield listed, last

    def _due(self, stands: Stands) -> Iterator[tuple[Instrument, Step]]:
        """Yield each instrument that is not in the state of its session, with the step in force."""
        for listed, stand in self._listed(stands):
            if stand.step is None or (
                stand.step.phase is not Phase.CLOSED and not self._is_open(stand.session)
            ):
                continue
            if self._is_due(listed, stand.step):
                yield listed, stand.step

    def _is_open(self, session: Session) -> bool:
        """Whether the business date of a session is open: an earlier one may still have to be
        settled."""
        desk = self._desk
        return desk.day_open and desk.business_date >= number_of(session.day)

    def _is_due(self, listed: Instrument, step: Step) -> bool:
        state, _ = STATES[step.phase]
        if listed.state == state:
            return False  # an operator's auction goes on as the calendar's, whatever its cause
        if listed.state == TradingState.HALTED:
            if listed.cause == HaltCause.RECOVERY:
                return True  # its state before the restart is lost
            if not listed.resumes:
                return False  # an operator must resume it
        # A late settlement closes what trades after the next session's steps have begun
        if self._desk.closed_before(listed):
            return True
        return self._desk.changed.get(listed.id, 0) < stamp_of(step.at)

    async def _indicate(self, stands: Stands) -> None:
        """Publish the indicative prices of a tick that became due since the last ones."""
        todo = [
            wishes_market.indicate(listed.code, listed.id)
            for listed, stand in self._listed(stands)
            if listed.state in (TradingState.PRE_OPEN, TradingState.AUCTION)
            and stand.tick is not None
            and self._desk.indicated < stamp_of(stand.tick)
        ]
        await self._desk.perform(todo)
