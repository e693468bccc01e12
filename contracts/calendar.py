"""Months and days: delivery period, hours of a month, business days, last trading day.

A contract month is a calendar month in UTC, so its hours are 672, 696, 720 or 744, leap seconds
and daylight saving playing no part. Business days are Monday to Friday without the holidays on
which the US Federal Reserve Banks are shut, because variation margin moves in dollars: a holiday
that falls on a Sunday is kept on the Monday, one on a Saturday is not moved.
"""

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_MONDAY: Final = 0
_THURSDAY: Final = 3
_SATURDAY: Final = 5


class Month(msgspec.Struct, frozen=True, order=True):
    """One calendar month; ``str(month)`` is ``"2026-12"`` and months compare in time."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @classmethod
    def parse(cls, text: str) -> "Month":
        """The month of ``"2026-12"``; ValueError for anything else."""
        match = _MONTH.fullmatch(text)
        if match is None or match[1] == "0000":
            raise ValueError(f"not a month of the form 2026-12: {text[:16]!a}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, day: date) -> "Month":
        """The month that a day lies in."""
        return cls(day.year, day.month)

    def plus(self, months: int) -> "Month":
        """The month so many months later, or earlier if negative."""
        year, index = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(year, index + 1)

    @property
    def days(self) -> int:
        return calendar.monthrange(self.year, self.month)[1]

    @property
    def hours(self) -> int:
        """Hours of the month in UTC: the multiplier of a contract on one GPU."""
        return self.days * 24

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    @property
    def last_day(self) -> date:
        return date(self.year, self.month, self.days)


def delivery_period(month: Month) -> tuple[datetime, datetime]:
    """First instant of the month and first instant after it, UTC."""
    after = month.plus(1)
    return (
        datetime(month.year, month.month, 1, tzinfo=UTC),
        datetime(after.year, after.month, 1, tzinfo=UTC),
    )


def last_trading_day(month: Month) -> date:
    """The last business day of the delivery month."""
    day = month.last_day
    while not is_business_day(day):
        day -= timedelta(days=1)
    return day


def is_business_day(day: date) -> bool:
    """Whether dollars move on that day: a weekday that is no Federal Reserve holiday."""
    return day.weekday() < _SATURDAY and day not in _holidays(day.year)


def _holidays(year: int) -> set[date]:
    fixed = [date(year, 1, 1), date(year, 6, 19), date(year, 7, 4), date(year, 11, 11),
             date(year, 12, 25)]  # fmt: skip
    return {_observed(day) for day in fixed} | {
        _weekday_of_month(year, 1, _MONDAY, 3),  # Martin Luther King Jr.
        _weekday_of_month(year, 2, _MONDAY, 3),  # Washington
        _weekday_of_month(year, 6, _MONDAY, 1) - timedelta(weeks=1),  # Memorial: last of May
        _weekday_of_month(year, 9, _MONDAY, 1),  # Labor
        _weekday_of_month(year, 10, _MONDAY, 2),  # Columbus
        _weekday_of_month(year, 11, _THURSDAY, 4),  # Thanksgiving
    }


def _observed(day: date) -> date:
    """A fixed holiday on a Sunday moves to the Monday."""
    return day + timedelta(days=1) if day.weekday() == _SATURDAY + 1 else day


def _weekday_of_month(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))
