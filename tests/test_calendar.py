"""The calendar: every day of its table against independent libraries, and what it refuses.

The oracles are exchange_calendars (XNYS for the markets, CMES for a session's opening, both with
their own time-zone data) and pandas' holiday rules (the dollar). Budget: 10 seconds.
"""

import warnings
from datetime import UTC, date, datetime, time, timedelta
from importlib import resources
from itertools import pairwise
from typing import Any

import pytest

from contracts import calendar, registry
from contracts.calendar import CalendarError, Month, read_calendars

FIRST, LAST = 2026, 2032
FILE = (resources.files("contracts") / "data" / "calendars.toml").read_text("ascii")
US = calendar.load("US")
MOURNED = date(2026, 11, 12)


def every_day(first: int = FIRST, last: int = LAST) -> list[date]:
    start = date(first, 1, 1)
    return [start + timedelta(days=n) for n in range((date(last, 12, 31) - start).days + 1)]


def months() -> list[Month]:
    return [Month(FIRST, 1).plus(n) for n in range(12 * (LAST - FIRST + 1))]


@pytest.fixture(scope="module")
def oracles() -> dict[str, Any]:
    """The New York Stock Exchange's and Globex's calendars; they warn of their own future."""
    pytest.importorskip("exchange_calendars", reason="the dev extra is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import exchange_calendars  # noqa: PLC0415

        bounds = {"start": "2025-01-01", "end": "2040-12-31"}
        return {code: exchange_calendars.get_calendar(code, **bounds) for code in ("XNYS", "CMES")}


@pytest.fixture(scope="module")
def market_days(oracles: dict[str, Any]) -> set[date]:
    return {stamp.date() for stamp in oracles["XNYS"].sessions}


@pytest.fixture(scope="module")
def bank_days(oracles: dict[str, Any]) -> set[date]:
    """The days of the Federal Reserve, by pandas' rules: a Sunday's holiday is kept on Monday."""
    assert oracles
    from pandas.tseries import holiday  # noqa: PLC0415

    def fixed(month: int, day: int) -> Any:
        return holiday.Holiday("", month=month, day=day, observance=holiday.sunday_to_monday)

    rules = [
        *(fixed(1, 1), fixed(6, 19), fixed(7, 4), fixed(11, 11), fixed(12, 25)),
        *(holiday.USMartinLutherKingJr, holiday.USPresidentsDay, holiday.USMemorialDay),
        *(holiday.USLaborDay, holiday.USColumbusDay, holiday.USThanksgivingDay),
    ]
    closed = holiday.AbstractHolidayCalendar("", rules=rules).holidays("2025-01-01", "2040-12-31")
    return {day for day in every_day(2025, 2040) if day.weekday() < 5} - {
        stamp.date() for stamp in closed
    }


@pytest.fixture(scope="module")
def open_days(market_days: set[date], bank_days: set[date]) -> list[date]:
    return sorted(market_days & bank_days)


def test_every_business_day_of_the_table(open_days: list[date]) -> None:
    known = every_day(US.first_year, US.last_year)
    assert [day for day in known if US.is_business_day(day)] == open_days
    assert US.business_days(known[0], known[-1]) == open_days


def test_holidays_say_what_they_close(market_days: set[date], bank_days: set[date]) -> None:
    for day, name in US.holidays.items():
        assert day not in market_days & bank_days, name
    alone = {name for day, name in US.holidays.items() if day in market_days}
    assert alone == {"Columbus Day", "Veterans Day"}


def test_last_trading_days(open_days: list[date]) -> None:
    specs = registry.load()
    for month in months():
        end = month.plus(1).first_day
        inside = [day for day in open_days if month.first_day <= day < end]
        cash = specs.instrument(symbol_of("H100", month), date(2026, 1, 1))
        assert cash.last_trading_day == inside[-1], month
        after = [day for day in open_days if day >= end]
        assert cash.final_settlement_day == after[0], month


def test_notice_days(open_days: list[date]) -> None:
    specs = registry.load()
    for month in months():
        before = [day for day in open_days if day < month.first_day]
        physical = specs.instrument(symbol_of("H100P", month), date(2026, 1, 1))
        assert (
            physical.factors_published, physical.factors_frozen, physical.first_notice_day,
            physical.last_trading_day, physical.last_notice_day,
        ) == (before[-10], before[-5], before[-4], before[-3], before[-2]), month  # fmt: skip


def test_listing_days(open_days: list[date]) -> None:
    """An expiry is in the cycle from its day on, and not on the business day before."""
    specs = registry.load()
    for product in ("H100", "H100P"):
        for month in months()[36::5]:
            code = symbol_of(product, month)
            day = specs.instrument(code, date(2026, 1, 1)).listed_on
            assert day in open_days
            eve = open_days[open_days.index(day) - 1]
            assert code in {one.code for one in specs.listing(day)}
            assert code not in {one.code for one in specs.listing(eve)}


def symbol_of(product: str, month: Month) -> str:
    from contracts import symbol  # noqa: PLC0415

    return symbol.code(product, month)


def moments(oracle: Any, column: str) -> dict[date, datetime]:
    return {s.date(): moment.to_pydatetime() for s, moment in oracle.schedule[column].items()}


def test_sessions_open_as_the_oracle_says(oracles: dict[str, Any]) -> None:
    """18:00 in New York the day before is 17:00 in Chicago: daylight saving by two libraries."""
    opens = moments(oracles["CMES"], "open")
    days = [day for day in every_day() if US.is_business_day(day)]
    assert len(days) > 1700
    for day in days:
        session = US.session(day)
        assert session.opens == opens[day]
        assert session.opens < session.settlement_from < session.settlement_to < session.closes
        assert session.opens.tzinfo is session.closes.tzinfo is UTC


def test_the_settlement_window_ends_with_the_market(oracles: dict[str, Any]) -> None:
    """16:00 in New York is where the stock exchange closes on a whole day."""
    early = {stamp.date() for stamp in oracles["XNYS"].early_closes}
    closes = moments(oracles["XNYS"], "close")
    days = [day for day in every_day() if US.is_business_day(day) and day not in early]
    assert all(US.session(day).settlement_to == closes[day] for day in days)


@pytest.mark.parametrize(
    ("day", "opens", "hours"),
    [
        ("2026-11-20", "2026-11-19T23:00", 23),
        ("2026-07-06", "2026-07-05T22:00", 23),
        ("2026-11-02", "2026-11-01T23:00", 23),  # clocks went back that Sunday morning
        ("2026-03-09", "2026-03-08T22:00", 23),  # and forward on this one
    ],
)
def test_a_session_in_utc(day: str, opens: str, hours: int) -> None:
    session = US.session(date.fromisoformat(day))
    assert session.opens == datetime.fromisoformat(f"{opens}+00:00")
    assert session.closes - session.opens == timedelta(hours=hours)


def test_counting_business_days() -> None:
    thanksgiving = date(2026, 11, 26)
    assert US.before(date(2026, 12, 1), 3) == date(2026, 11, 25)
    assert US.after(date(2026, 11, 25), 1) == date(2026, 11, 27)
    assert (US.at_or_before(thanksgiving), US.at_or_after(thanksgiving)) == (
        date(2026, 11, 25),
        date(2026, 11, 27),
    )
    assert US.before(thanksgiving, 0) == US.after(thanksgiving, 0) == thanksgiving
    for count in range(1, 30):
        assert US.after(US.before(date(2026, 12, 1), count), count) == date(2026, 12, 1)


def test_what_the_table_does_not_know_is_refused() -> None:
    for day in (date(2024, 12, 31), date(2041, 1, 2)):
        with pytest.raises(CalendarError, match=r"knows 2025 to 2040.*add that year's holidays"):
            US.is_business_day(day)
    with pytest.raises(CalendarError, match="2026-11-26 has no session: Thanksgiving"):
        US.session(date(2026, 11, 26))
    with pytest.raises(CalendarError, match="a weekend"):
        US.session(date(2026, 11, 21))
    with pytest.raises(KeyError):
        calendar.load("MARS")


def test_what_is_no_calendar_file() -> None:
    def faults(old: str, new: str) -> list[str]:
        assert old in FILE
        calendars, found = read_calendars("calendars.toml", FILE.replace(old, new, 1).encode())
        assert found and not calendars
        return [str(fault) for fault in found]

    place = "calendars.toml: US"
    assert faults('"America/New_York"', '"America/Newark"') == [
        f"{place}.time_zone = 'America/Newark' must be a time zone such as \"America/New_York\""
    ]
    assert faults('"America/New_York"', '"../etc/passwd"')[0].startswith(f"{place}.time_zone")
    assert faults('"18:00"', '"24:00"') == [
        f"{place}.opens = '24:00' must be a time of day such as \"18:00\""
    ]
    assert faults('settlement_to = "16:00"', 'settlement_to = "17:01"') == [
        f"{place}.settlement_to = 17:01:00 must be after settlement_from and not after closes"
    ]
    assert faults("opening_auction_minutes = 5", "opening_auction_minutes = 30") == [
        f"{place}.opening_auction_minutes = 30 must be below pre_open_minutes: it is the"
        " pre-open's last part"
    ]
    assert faults("closing_auction_minutes = 5", "closing_auction_minutes = 61") == [
        f"{place}.closing_auction_minutes = 61 must begin no sooner than settlement_to"
    ]
    assert faults("pre_open_minutes = 30", "pre_open_minutes = 61") == [
        f"{place}.pre_open_minutes = 61 must begin no sooner than closes"
    ]
    assert faults("first_year = 2025 ", "first_year = 2026 ")[0] == (
        f"{place}.holiday = 2025-01-01 must lie within 2026 to 2040"
    )
    assert faults('closed = ["dollar", "market"]', 'closed = ["bank"]') == [
        f'{place}.holiday 1, closed = [\'bank\'] must be a list of "dollar", "market" or both'
    ]
    for late in ("2025-01-01", '"in time"'):
        edit = f'name = "New Year\'s Day"\nannounced = {late}'
        (said,) = faults('name = "New Year\'s Day"', edit)
        assert said.startswith(f"{place}.holiday 1, announced = ") and " must be " in said
    assert faults("2026-01-01,", "2026-01-03,")[0].endswith(
        "must be a list of different weekdays in order"
    )
    assert faults("[[US.holiday]]", "[US.extra]\n[[US.holiday]]")[0] == (
        f"{place}.extra = {{}} is not a known field"
    )
    _, found = read_calendars("calendars.toml", f"EU = 1\n{FILE}".encode())
    assert [str(fault) for fault in found] == ["calendars.toml: EU = 1 must be a table"]
    assert faults("[US]", "[US")[0].startswith("calendars.toml must be a TOML file")


def test_a_holiday_that_came_late_was_not_known_before() -> None:
    row = f'[[US.holiday]]\nname = "Mourning"\nclosed = ["market"]\nannounced = {MOURNED}\n'
    late = read_calendars("calendars.toml", f"{FILE}\n{row}dates = [2026-11-20]\n".encode())
    us, day = late[0]["US"], date(2026, 11, 20)
    assert not late[1] and not us.is_business_day(day)
    assert us.known_on(MOURNED) is us and us.before(date(2026, 12, 1), 7) == date(2026, 11, 18)
    before = us.known_on(MOURNED - timedelta(days=1))
    assert before.is_business_day(day) and before.holidays == US.holidays


def test_local_times_are_read_as_written() -> None:
    assert (US.opens, US.closes) == (time(18), time(17))


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Asia/Tokyo", "Pacific/Pago_Pago"])
def test_a_session_has_begun_from_its_pre_open_on_wherever_it_is(zone: str) -> None:
    """East of UTC a session begins two dates before its own, by UTC."""
    text = FILE.replace("America/New_York", zone).replace('opens = "18:00"', 'opens = "06:10"')
    for clock, early in (("17:00", "05:00"), ("15:30", "03:30"), ("16:00", "04:00")):
        text = text.replace(f'= "{clock}"', f'= "{early}"')
    calendars, found = read_calendars("calendars.toml", text.encode())
    assert not found
    days = calendars["US"]
    for before, session in pairwise(
        days.session(day) for day in days.business_days(date(2026, 11, 16), date(2026, 11, 30))
    ):
        assert days.begun(session.pre_opens) == session
        assert days.begun(session.pre_opens - timedelta(microseconds=1)) == before
        assert days.date_on(before.closes) == days.date_on(session.opens) == session.day
