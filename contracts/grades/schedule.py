"""When a factor table is measured, published, open to dispute and frozen: business days, UTC."""

from datetime import UTC, date, datetime, time, timedelta

import msgspec

from contracts.calendar import Month, is_business_day
from contracts.grades import Rules

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
    """The schedule of an expiry under the rules it was listed with."""
    first = expiry.first_day
    published = business_days_before(first, rules.publish_days)
    return Schedule(
        expiry=str(expiry),
        window_first=published - timedelta(days=rules.window_days),
        window_last=published - timedelta(days=1),
        published=published,
        dispute_last=business_days_after(published, rules.dispute_days),
        frozen=business_days_before(first, rules.freeze_days),
        delivery_first=first,
    )


def business_days_before(day: date, count: int) -> date:
    """The ``count``-th business day before a day."""
    return _walk(day, count, -1)


def business_days_after(day: date, count: int) -> date:
    """The ``count``-th business day after a day."""
    return _walk(day, count, 1)


def _walk(day: date, count: int, direction: int) -> date:
    while count:
        day += timedelta(days=direction)
        count -= is_business_day(day)
    return day


def _start_ns(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * _NANO
