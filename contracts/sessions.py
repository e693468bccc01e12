"""The schedule of a business day: which state a product's expiries are in from which moment on.

A function of the calendar alone. A market journals each step as a command when its moment comes
(exchange.app.schedule); docs/howto/run-sessions.md says what each phase is for.

There is no random end: an auction ends at the moment that the calendar says. Chance has no place
in a state machine over a log, and a seed that everybody can read would end nothing by surprise.
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
    """What happens to a product at a moment, UTC."""

    at: datetime
    product: str
    phase: Phase


def steps(spec: Terms | Combination, days: Calendar, day: date) -> list[Step]:
    """Every step of a business day in order of time; CalendarError for a day that is none.

    ``days`` is the calendar that ``spec`` names. A combination's orders are never collected: it
    trades from the open until the closing auction of its legs begins.
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
    found.sort(key=lambda one: one[0])  # a state goes before a tick of its moment
    return [Step(at, spec.product, phase) for at, phase in found]


def _ticks(first: datetime, last: datetime, interval: timedelta) -> Iterator[datetime]:
    """The moments between two, neither included."""
    at = first + interval
    while at < last:
        yield at
        at += interval


def in_force(steps: list[Step], now: datetime) -> Step | None:
    """The step of a state that holds at a moment; None before the first."""
    begun = [step for step in steps if step.at <= now and step.phase is not Phase.INDICATE]
    return begun[-1] if begun else None
