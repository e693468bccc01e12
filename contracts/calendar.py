"""Months and days: delivery period, hours of a month, business days, sessions.

A contract month is a calendar month in UTC. It has 672, 696, 720 or 744 hours: leap seconds and
daylight saving time are ignored. Business days and sessions come from ``data/calendars.toml``: a
table of dated holidays, and local times that are converted to UTC with the tz database.
"""

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib import resources
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from contracts.rules import (
    DATE,
    TEXT,
    Fault,
    FilesRefused,
    Rule,
    key,
    number,
    read_table,
    read_toml,
    readable,
    shown,
)

FILE_NAME: Final = "calendars.toml"
DEFAULT: Final = "US"
_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_SATURDAY: Final = 5
_DAY: Final = timedelta(days=1)
_YEAR_LOW: Final = 2000
_YEAR_HIGH: Final = 2099
_MINUTES_HIGH: Final = 720


class Month(msgspec.Struct, frozen=True, order=True):
    """One calendar month; ``str(month)`` is ``"2026-12"``, and months compare in order of time."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @classmethod
    def parse(cls, text: str) -> "Month":
        """Return the month of ``"2026-12"``; raise ValueError for any other text."""
        match = _MONTH.fullmatch(text)
        if match is None or match[1] == "0000":
            raise ValueError(f"not a month of the form 2026-12: {text[:16]!a}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, day: date) -> "Month":
        """Return the month of a day."""
        return cls(day.year, day.month)

    def plus(self, months: int) -> "Month":
        """Return the month so many months later; earlier if ``months`` is negative."""
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
    """Return the first instant of the month and the first instant after it, in UTC."""
    after = month.plus(1)
    return (
        datetime(month.year, month.month, 1, tzinfo=UTC),
        datetime(after.year, after.month, 1, tzinfo=UTC),
    )


class CalendarError(LookupError):
    """The day is outside the years of the calendar, or it has no session."""


class BeyondCalendar(CalendarError):
    """The day is outside the years of the calendar."""


class Session(msgspec.Struct, frozen=True):
    """The trading session of one business day: times in UTC; ``closes`` is not part of it."""

    day: date
    pre_opens: datetime
    opening_auction: datetime
    opens: datetime
    settlement_from: datetime
    settlement_to: datetime
    closing_auction: datetime
    closes: datetime


class Calendar(msgspec.Struct, frozen=True, omit_defaults=True):
    """Business days and sessions of one place.

    Times are local; ``opens`` is on the calendar day before the business day. Every method raises
    CalendarError for a day outside ``first_year`` to ``last_year``, because the holidays of other
    years are not known.
    """

    code: str
    name: str
    time_zone: str
    opens: time
    closes: time
    settlement_from: time  # nobody acts on this window: exchange.clearing.prices has its own
    settlement_to: time
    pre_open_minutes: int  # before ``opens``: orders are collected
    opening_auction_minutes: int  # before ``opens``, within the pre-open
    closing_auction_minutes: int  # before ``closes``
    indicate_seconds: int  # between two indicative prices while orders are collected
    first_year: int
    last_year: int
    holidays: dict[date, str]
    announced: dict[date, date] = {}  # of holidays that came late: when they were announced

    def known_on(self, day: date) -> "Calendar":
        """Return the calendar without the holidays that were announced after a day."""
        later = {holiday for holiday, when in self.announced.items() if when > day}
        if not later:
            return self
        known = {holiday: name for holiday, name in self.holidays.items() if holiday not in later}
        return msgspec.structs.replace(self, holidays=known)

    def is_business_day(self, day: date) -> bool:
        """Whether the day is a weekday and no holiday."""
        if not self.first_year <= day.year <= self.last_year:
            raise BeyondCalendar(
                f"calendar {self.code} knows {self.first_year} to {self.last_year}, not {day};"
                f" add that year's holidays to contracts/data/{FILE_NAME}, and the year to its"
                " first_year or last_year"
            )
        return day.weekday() < _SATURDAY and day not in self.holidays

    def at_or_before(self, day: date) -> date:
        """Return the last business day that is not after ``day``."""
        while not self.is_business_day(day):
            day -= _DAY
        return day

    def at_or_after(self, day: date) -> date:
        """Return the first business day that is not before ``day``."""
        while not self.is_business_day(day):
            day += _DAY
        return day

    def before(self, day: date, count: int) -> date:
        """Return the ``count``-th business day before ``day``; for 0, ``day`` itself."""
        for _ in range(count):
            day = self.at_or_before(day - _DAY)
        return day

    def after(self, day: date, count: int) -> date:
        """Return the ``count``-th business day after ``day``; for 0, ``day`` itself."""
        for _ in range(count):
            day = self.at_or_after(day + _DAY)
        return day

    def business_days(self, first: date, last: date) -> list[date]:
        """Return the business days from ``first`` to ``last``, both included."""
        count = (last - first).days + 1
        days = (first + n * _DAY for n in range(count))
        return [day for day in days if self.is_business_day(day)]

    def session(self, day: date) -> Session:
        """Return the session of a business day; raise CalendarError if the day is not a business
        day."""
        if not self.is_business_day(day):
            why = self.holidays.get(day, "a weekend")
            raise CalendarError(f"{day} has no session: {why}")
        opens = self._moment(day - _DAY, self.opens)
        closes = self._moment(day, self.closes)
        return Session(
            day=day,
            pre_opens=opens - timedelta(minutes=self.pre_open_minutes),
            opening_auction=opens - timedelta(minutes=self.opening_auction_minutes),
            opens=opens,
            settlement_from=self._moment(day, self.settlement_from),
            settlement_to=self._moment(day, self.settlement_to),
            closing_auction=closes - timedelta(minutes=self.closing_auction_minutes),
            closes=closes,
        )

    def begun(self, now: datetime) -> Session:
        """Return the last session whose pre-open has begun at a time; it may have closed since."""
        # East of UTC, a session may open two UTC days before its date
        day = self.at_or_before(now.date() + 2 * _DAY)
        while (session := self.session(day)).pre_opens > now:
            day = self.before(day, 1)
        return session

    def date_on(self, now: datetime) -> date:
        """Return the business date of the current session at a time; between two sessions, the
        next."""
        session = self.begun(now)
        return session.day if now < session.closes else self.after(session.day, 1)

    def _moment(self, day: date, clock: time) -> datetime:
        return datetime.combine(day, clock, ZoneInfo(self.time_zone)).astimezone(UTC)


def load(code: str = DEFAULT) -> Calendar:
    """Return a calendar that ships with this package; raise KeyError for an unknown code."""
    return _shipped()[code]


@cache
def _shipped() -> dict[str, Calendar]:
    content = (resources.files("contracts") / "data" / FILE_NAME).read_bytes()
    calendars, faults = read_calendars(FILE_NAME, content)
    if faults:
        raise FilesRefused(faults)
    return calendars


# The file


def clock_time(text: str) -> time:
    """Return the time of day of ``"18:00"``; raise ValueError for any other text."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time of day such as 18:00: {text[:16]!a}")
    return time(int(match[1]), int(match[2]))


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"no time zone {text[:40]!a}") from error


_CLOCK_RULE: Final = readable(str, 'must be a time of day such as "18:00"', clock_time)
_ZONE_RULE: Final = readable(str, 'must be a time zone such as "America/New_York"', _zone)
_RULES: Final = {
    "name": TEXT,
    "time_zone": _ZONE_RULE,
    "opens": _CLOCK_RULE,
    "closes": _CLOCK_RULE,
    "settlement_from": _CLOCK_RULE,
    "settlement_to": _CLOCK_RULE,
    "pre_open_minutes": number(2, _MINUTES_HIGH),
    "opening_auction_minutes": number(1, _MINUTES_HIGH),
    "closing_auction_minutes": number(1, _MINUTES_HIGH),
    "indicate_seconds": number(1, 60 * _MINUTES_HIGH),
    "first_year": number(_YEAR_LOW, _YEAR_HIGH),
    "last_year": number(_YEAR_LOW, _YEAR_HIGH),
}
_REASONS: Final = ("dollar", "market")


def _are_reasons(reasons: list[Any]) -> bool:
    known = all(reason in _REASONS for reason in reasons)
    return known and 0 < len(reasons) == len(set(reasons))


def _are_days(days: list[Any]) -> bool:
    plain = all(type(day) is date and day.weekday() < _SATURDAY for day in days)
    return bool(days) and plain and sorted(set(days)) == days


_HOLIDAY_RULES: Final = {
    "name": TEXT,
    "closed": Rule(list, 'must be a list of "dollar", "market" or both', _are_reasons),
    "dates": Rule(list, "must be a list of different weekdays in order", _are_days),
}
_LATE_RULES: Final = _HOLIDAY_RULES | {"announced": DATE}


def read_calendars(file: str, content: bytes) -> tuple[dict[str, Calendar], list[Fault]]:
    """Return a file's calendars that have no fault, by code, and all faults."""
    tables, faults = read_toml(file, content)
    calendars: dict[str, Calendar] = {}
    for code, table in tables.items():
        found, wrong = _read_calendar(file, code, table)
        faults += wrong
        if found is not None:
            calendars[code] = found
    return calendars, faults


def _read_calendar(file: str, code: str, table: object) -> tuple[Calendar | None, list[Fault]]:
    place = key(code)
    if not isinstance(table, dict):
        return None, [Fault(file, place, shown(table), "must be a table")]
    rows = table.pop("holiday", None)
    values, faults = read_table(file, f"{place}.", table, _RULES)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        faults.append(Fault(file, f"{place}.holiday", shown(rows), "must be tables"))
        rows = []
    holidays: dict[date, str] = {}
    announced: dict[date, date] = {}
    for count, row in enumerate(rows, start=1):
        at = f"{place}.holiday {count}, "
        rules = _LATE_RULES if "announced" in row else _HOLIDAY_RULES
        holiday, wrong = read_table(file, at, row, rules)
        faults += wrong
        dates, told = holiday.get("dates", ()), holiday.get("announced")
        holidays |= dict.fromkeys(dates, holiday.get("name", ""))
        if told is not None:
            announced |= dict.fromkeys(dates, told)
            if dates and told >= dates[0]:
                faults.append(Fault(file, f"{at}announced", f"{told}", "must be before its dates"))
    if not faults:
        faults = _joint_faults(file, place, values, holidays)
    if faults:
        return None, faults
    return Calendar(code=code, holidays=holidays, announced=announced, **values), []


def _joint_faults(
    file: str, place: str, values: dict[str, Any], holidays: dict[date, str]
) -> list[Fault]:
    """Return the faults that concern several fields, each of which is valid by itself."""
    settled, closes = _minutes(values["settlement_to"]), _minutes(values["closes"])
    collected = values["pre_open_minutes"]
    rules = [
        ("settlement_to", values["settlement_from"] < values["settlement_to"] and settled <= closes,
         "must be after settlement_from and not after closes"),
        ("opening_auction_minutes", values["opening_auction_minutes"] < collected,
         "must be below pre_open_minutes: it is the pre-open's last part"),
        ("closing_auction_minutes",
         values["closing_auction_minutes"] <= max(closes - settled, 0) or settled > closes,
         "must begin no sooner than settlement_to"),
        ("pre_open_minutes", closes <= _minutes(values["opens"]) - collected,
         "must begin no sooner than closes"),
    ]  # fmt: skip
    faults = [
        Fault(file, f"{place}.{field}", f"{values[field]}", rule)
        for field, holds, rule in rules
        if not holds
    ]
    first, last = values["first_year"], values["last_year"]
    faults += [
        Fault(file, f"{place}.holiday", f"{day}", f"must lie within {first} to {last}")
        for day in holidays
        if not first <= day.year <= last
    ]
    return faults


def _minutes(clock: time) -> int:
    return clock.hour * 60 + clock.minute
