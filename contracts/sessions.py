"""The schedule of a business day: the state of a product's instruments from each time on.

It depends on the calendar alone. A market journals each step as a command when its time comes
(exchange.app.schedule); docs/howto/run-sessions.md says what each phase is for.

An auction has no random end: it ends at the time in the calendar. A replayed log must give the same
result, and the end would be predictable from a seed that everybody can read.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import Enum

import msgspec

from contracts.calendar import Calendar
from contracts.spec import Combination, Terms


class Phase(Enum):
    """A part of a session. INDICATE changes no state: it publishes an indicative price."""

    PRE_OPEN = "pre-open"
    OPENING_AUCTION = "opening auction"
    CONTINUOUS = "continuous"
    CLOSING_AUCTION = "closing auction"
    CLOSED = "closed"
    INDICATE = "indicate"


class Step(msgspec.Struct, frozen=True):
    """What happens to a product at a time, in UTC."""

    at: datetime
    product: str
    phase: Phase


def steps(spec: Terms | Combination, days: Calendar, day: date) -> list[Step]:
    """Return every step of a business day in order of time; raise CalendarError for any other day.

    ``days`` is the calendar that ``spec`` names. A combination has no auction: it trades from the
    open until the closing auction of its legs begins.
    """
    session = days.session(day)
    if isinstance(spec, Combination):
        return [
            Step(session.pre_opens, spec.product, Phase.CLOSED),
            Step(session.opens, spec.product, Phase.CONTINUOUS),
            Step(session.closing_auction, spec.product, Phase.CLOSED),
        ]
    states = [
        (session.pre_opens, Phase.PRE_OPEN),
        (session.opening_auction, Phase.OPENING_AUCTION),
        (session.opens, Phase.CONTINUOUS),
        (session.closing_auction, Phase.CLOSING_AUCTION),
        (session.closes, Phase.CLOSED),
    ]
    interval = timedelta(seconds=days.indicate_seconds)
    ticks = [
        *_ticks(session.pre_opens, session.opens, interval),
        *_ticks(session.closing_auction, session.closes, interval),
    ]
    found = [*states, *((at, Phase.INDICATE) for at in ticks)]
    # Stable: a change of state precedes an indication at the same time
    found.sort(key=lambda one: one[0])
    return [Step(at, spec.product, phase) for at, phase in found]


def _ticks(first: datetime, last: datetime, interval: timedelta) -> Iterator[datetime]:
    """Yield the times at each interval between ``first`` and ``last``, both excluded."""
    at = first + interval
    while at < last:
        yield at
        at += interval


def in_force(steps: list[Step], now: datetime) -> Step | None:
    """Return the step that determines the state at a time; None before the first."""
    begun = [step for step in steps if step.at <= now and step.phase is not Phase.INDICATE]
    return begun[-1] if begun else None
