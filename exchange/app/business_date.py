"""Which business date follows the last one, and how far ahead one may be."""

from datetime import date, datetime, timedelta
from typing import Final

from contracts import calendar
from contracts.calendar import CalendarError
from exchange.app import wishes
from exchange.app.wishes import RequestRefused
from exchange.messages.dates import number_of

DAYS_SKIPPED_MAX: Final = 31  # a mistyped year cannot be taken back: no earlier date opens again


def following(last: int, now: datetime, *, scheduled: bool) -> int:
    """Return today, or the next date after the last one (0: none); of business days if the market
    follows its calendar. RequestRefused beyond the calendar."""
    if not scheduled:
        return number_of(_earliest(last, now))
    days = calendar.load()
    try:
        today = days.date_on(now)
        after = days.after(wishes.as_date(last), 1) if last else today
    except CalendarError as error:
        raise RequestRefused(str(error)) from error
    return number_of(max(today, after))


def check(day: date, last: int, now: datetime) -> None:
    """RequestRefused if a date is too far ahead of today and the last one; any may be the first."""
    latest = _earliest(last, now) + timedelta(days=DAYS_SKIPPED_MAX)
    if last and day > latest:
        raise RequestRefused(
            f"{day} is too far ahead: after {wishes.as_date(last)} the latest date is {latest}"
        )


def _earliest(last: int, now: datetime) -> date:
    today = now.date()
    return max(today, wishes.as_date(last) + timedelta(days=1)) if last else today
