"""The dates on which a factor table is measured, published, disputed and frozen; days in UTC."""

from datetime import UTC, date, datetime, time, timedelta

import msgspec

from contracts import calendar
from contracts.calendar import CalendarError, Month
from contracts.grades import Rules
from contracts.refusals import Refusal, Refused

_NANO = 10**9
_DAYS_EACH = 3  # more calendar days than several business days take each, holidays included


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The dates of one expiry's factor table.

    From ``frozen`` on it cannot change; new versions are accepted up to ``dispute_last``.
    """

    expiry: str
    window_first: date  # first day of measurement
    window_last: date  # last day of measurement, the day before publication
    published: date
    dispute_last: date
    frozen: date
    delivery_first: date

    @property
    def window_ns(self) -> tuple[int, int]:
        """First instant of the window and first instant after it, in ns since the epoch."""
        return _start_ns(self.window_first), _start_ns(self.published)


def schedule(expiry: Month, rules: Rules) -> Schedule:
    """Return the schedule of an expiry under the rules it was listed with.

    Days are counted by the calendar as it was known before the first of them: a holiday announced
    later neither draws other hours than those measured nor moves a published table's dates. Raises
    Refused RULES_CHANGED if the calendar does not cover the month.
    """
    first = expiry.first_day
    begins = timedelta(days=rules.window_days + _DAYS_EACH * rules.publish_days)
    try:
        days = calendar.load().known_on(first - begins)
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
    except (CalendarError, OverflowError) as error:
        raise Refused(Refusal.RULES_CHANGED, f"{error}", seen=expiry) from error


def _start_ns(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * _NANO
