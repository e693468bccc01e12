"""When a factor table is measured, published, open to dispute and frozen: business days, UTC."""

from datetime import UTC, date, datetime, time, timedelta

import msgspec

from contracts import calendar
from contracts.calendar import CalendarError, Month
from contracts.grades import Rules
from contracts.refusals import Refusal, Refused

_NANO = 10**9


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The days of one expiry's table; it may change up to, not on, ``frozen``."""

    expiry: str
    window_first: date  # measured from the start of this day
    window_last: date  # to the end of this one, the day before publication
    published: date
    dispute_last: date
    frozen: date
    delivery_first: date

    @property
    def window_ns(self) -> tuple[int, int]:
        """First instant of the window and first instant after it."""
        return _start_ns(self.window_first), _start_ns(self.published)


def schedule(expiry: Month, rules: Rules) -> Schedule:
    """The schedule of an expiry under the rules it was listed with.

    Refused RULES_CHANGED for a month that the calendar does not cover.
    """
    first, days = expiry.first_day, calendar.load()
    try:
        published = days.before(first, rules.publish_days)
        return Schedule(
            expiry=str(expiry),
            window_first=published - timedelta(days=rules.window_days),
            window_last=published - timedelta(days=1),
            published=published,
            dispute_last=days.after(published, rules.dispute_days),
            frozen=days.before(first, rules.freeze_days),
            delivery_first=first,
        )
    except CalendarError as error:
        raise Refused(Refusal.RULES_CHANGED, f"{error}", seen=expiry) from error


def _start_ns(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * _NANO
