"""The contracts room: calendar, codes, decimal text, the listing. Files: test_contract_files.py."""

import json
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import registry, symbol
from contracts.calendar import Month, delivery_period, is_business_day, last_trading_day
from contracts.decimal_text import (
    DecimalTextError,
    OffTickError,
    format_price,
    parse_price,
    parse_quantity,
)
from contracts.registry import UnknownContractError
from contracts.spec import Instrument

PRODUCTS = ("A100", "B200", "H100", "H200")
TODAY = date(2026, 11, 21)

months = st.builds(Month, st.integers(2000, 2099), st.integers(1, 12))


# Calendar


@pytest.mark.parametrize(
    ("month", "hours"),
    [("2026-02", 672), ("2028-02", 696), ("2100-02", 672), ("2026-11", 720), ("2026-12", 744)],
)
def test_hours_of_a_month(month: str, hours: int) -> None:
    assert Month.parse(month).hours == hours


@given(months)
def test_delivery_period_has_the_hours_of_the_month(month: Month) -> None:
    start, end = delivery_period(month)
    assert end - start == timedelta(hours=month.hours)
    assert month.hours == monthrange(month.year, month.month)[1] * 24
    assert start.tzinfo is end.tzinfo is UTC


@given(months, st.integers(-240, 240))
def test_months_count_both_ways(month: Month, count: int) -> None:
    assert month.plus(count).plus(-count) == month
    assert Month.parse(str(month)) == month
    assert (month.plus(count) > month) == (count > 0)


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-1", "26-01", "2026-01 ", "0000-01", "\uff12026-01"]
)
def test_what_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match="not a month"):
        Month.parse(text)


def test_federal_reserve_holidays_of_2027() -> None:
    # Juneteenth and Christmas fall on Saturdays and are not moved; 4 July is a Sunday and is.
    expected = ["01-01", "01-18", "02-15", "05-31", "07-05", "09-06", "10-11", "11-11", "11-25"]
    days = (date(2027, 1, 1) + timedelta(days=n) for n in range(365))
    closed = [day for day in days if day.weekday() < 5 and not is_business_day(day)]
    assert closed == [date.fromisoformat(f"2027-{day}") for day in expected]


@pytest.mark.parametrize(
    ("month", "day"),
    [
        ("2026-11", "2026-11-30"),
        ("2027-01", "2027-01-29"),  # the 30th and 31st are a weekend
        ("2027-05", "2027-05-28"),  # the 31st is Memorial Day
        ("2027-12", "2027-12-31"),
        ("2028-02", "2028-02-29"),
    ],
)
def test_last_trading_day(month: str, day: str) -> None:
    assert last_trading_day(Month.parse(month)) == date.fromisoformat(day)


# Codes


@pytest.mark.parametrize(
    ("text", "first", "legs"),
    [
        ("H100Z26", "H100Z26", 1),
        ("H100PZ26", "H100PZ26", 1),
        ("GB200F27", "GB200F27", 1),
        ("H100Z26-H100F27", "H100Z26", 2),
        ("H100-1Q27", "H100F27", 3),
        ("B200P-4Q27", "B200PV27", 3),
        ("H100-CAL27", "H100F27", 12),
    ],
)
def test_codes(text: str, first: str, legs: int) -> None:
    parsed = symbol.parse(text)
    assert str(parsed) == text
    assert (str(parsed.legs[0]), len(parsed.legs)) == (first, legs)
    assert all(near.expiry < far.expiry for near, far in pairwise(parsed.legs))


outrights = st.builds(symbol.Outright, st.sampled_from(symbol.ROOTS), st.booleans(), months)
strips = st.builds(
    lambda root, physical, year, start: symbol.Strip(
        root, physical, Month(year, start[0]), start[1]
    ),
    st.sampled_from(symbol.ROOTS),
    st.booleans(),
    st.integers(2000, 2099),
    st.sampled_from([(1, 3), (4, 3), (7, 3), (10, 3), (1, 12)]),
)
spreads = st.builds(
    lambda near, months: symbol.Spread(near, msgspec.structs.replace(near, expiry=months)),
    outrights,
    months,
).filter(lambda spread: spread.near.expiry < spread.far.expiry)


@given(st.one_of(outrights, spreads, strips))
def test_codes_round_trip(named: symbol.Code) -> None:
    assert symbol.parse(str(named)) == named


@given(st.text(alphabet="ABGHIMLCPQZFX0123456789-", max_size=26))
def test_a_text_is_its_own_code_or_none(text: str) -> None:
    try:
        parsed = symbol.parse(text)
    except symbol.CodeError:
        return
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    ["", "h100z26", "H100Z2026", "H100A26", "H100Z\uff126", "H100Z26\n", " H100Z26", "H100",
     "X100Z26", "H100F27-H100Z26", "H100Z26-H100Z26", "H100Z26-H200F27", "H100Z26-H100PF27",
     "H100-5Q27", "H100-CAL2027", "H100Z26-", "H100Z26-H100F27-H100G27", "__proto__",
     "'; DROP TABLE"],
)  # fmt: skip
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(symbol.CodeError) as caught:
        symbol.parse(text)
    assert len(str(caught.value)) < 120


def test_code_outside_its_century() -> None:
    with pytest.raises(symbol.CodeError, match="year 2100"):
        symbol.code("H100", Month(2100, 1))
    with pytest.raises(symbol.CodeError, match="one delivery month"):
        symbol.parse_outright("H100-1Q27")


# Decimal text


@pytest.mark.parametrize(
    ("text", "ticks"),
    [("2.650", 2650), ("2.65", 2650), ("3", 3000), ("0", 0), ("0.001", 1), ("-0.5", -500),
     ("2.135", 2135), ("2.6500000", 2650)],
)  # fmt: skip
def test_price_text(text: str, ticks: int) -> None:
    assert parse_price(text, 3) == ticks


@given(st.integers(-(2**47), 2**47), st.integers(0, 6))
def test_price_text_round_trips(ticks: int, decimals: int) -> None:
    assert parse_price(format_price(ticks, decimals), decimals) == ticks


@pytest.mark.parametrize("text", ["2.6515", "0.30000000000000004", "0.0001", "-1.0001"])
def test_price_off_the_tick(text: str) -> None:
    with pytest.raises(OffTickError):
        parse_price(text, 3)


NO_NUMBERS = [
    "", " 1", "1 ", "1\n", "+1", "1e2", "1E2", "0x10", "1_000", "1,5", "\uff11", "\u0663", "01",
    "-", "--1", "-0", "NaN", "nan", "Infinity", "inf", "1e400", "1e-400", "true",
]  # fmt: skip


@pytest.mark.parametrize("text", [*NO_NUMBERS, ".5", "5.", "1.2.3", "-0.000"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(DecimalTextError) as caught:
        parse_price(text, 3)
    assert not isinstance(caught.value, OffTickError)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1.5", "1.0"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(DecimalTextError) as caught:
        parse_quantity(text)
    assert len(str(caught.value)) < 120


def test_long_texts_are_refused_before_they_are_read() -> None:
    for text in ("9" * 10**7, "0." + "0" * 10**7, "H" * 10**7):
        for refuse in (lambda text: parse_price(text, 3), parse_quantity, symbol.parse):
            with pytest.raises(ValueError, match=r"\.\.\.") as caught:
                refuse(text)
            assert len(str(caught.value)) < 120


@pytest.mark.parametrize("number", [0, 1, -1, 2**31, 2**53 + 1, 2**63, 2**64, 2**128])
def test_a_quantity_is_never_wrapped(number: int) -> None:
    assert parse_quantity(str(number)) == number


# Registry


def test_the_listing_is_in_order_and_consecutive() -> None:
    listed = registry.load().listing(TODAY)
    assert len(listed) == 48
    assert [(i.product, i.expiry) for i in listed] == sorted((i.product, i.expiry) for i in listed)
    assert [i.code for i in listed if i.product == "H100"] == [
        "H100X26", "H100Z26", "H100F27", "H100G27", "H100H27", "H100J27",
        "H100K27", "H100M27", "H100N27", "H100Q27", "H100U27", "H100V27",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("on", "front", "count"),
    [
        ("2026-11-30", "X26", 12),  # its last trading day
        ("2026-12-01", "Z26", 12),
        ("2027-01-29", "F27", 12),
        ("2027-01-30", "G27", 12),  # a Saturday: January traded last on the 29th
        ("2027-05-31", "M27", 12),  # Memorial Day
        ("2028-02-29", "G28", 3),  # a leap day
        ("2025-12-31", "", 0),  # before the specs are effective
    ],
)
def test_the_front_month(on: str, front: str, count: int) -> None:
    months = None if count == 12 else count
    listed = registry.load().listing(date.fromisoformat(on), months)
    codes = [i.code for i in listed if i.product == "A100"]
    assert len(codes) == count
    assert codes[:1] == ([f"A100{front}"] if count else [])


def test_multipliers_over_a_leap_year() -> None:
    listed = registry.load().listing(date(2027, 12, 1))
    hours = {i.expiry: i.multiplier for i in listed if i.product == "H100"}
    assert (hours["2028-02"], hours["2028-01"], hours["2028-04"]) == (696, 744, 720)
    assert sum(hours.values()) == 366 * 24


def test_what_an_instrument_says() -> None:
    december = registry.load().instrument("H100Z26", TODAY)
    assert (december.expiry, december.multiplier, december.tick_scale) == ("2026-12", 744, 1000)
    assert (december.tick, december.decimals, december.tick_value) == ("0.001", 3, 744_000)
    assert december.delivery_end == datetime(2027, 1, 1, tzinfo=UTC)
    assert december in registry.load().listing(TODAY)
    assert Instrument.from_json(december.to_json()) == december
    shown = json.loads(december.to_json())
    assert (shown["code"], shown["tick"], shown["expiry"]) == ("H100Z26", "0.001", "2026-12")


def test_limits_and_margin_round_against_the_trader() -> None:
    december = registry.load().instrument("H100Z26", TODAY)
    assert december.limits(settlement_micros=3_250_000) == (2925, 3575)
    assert december.limits(settlement_micros=3_250_001) == (2926, 3575)
    assert december.margin_rate(price_micros=3_250_000) == 193_440_000
    assert december.margin_rate(price_micros=1) == 60  # 59.52
    assert december.margin_rate(price_micros=-1) == 60


@pytest.mark.parametrize("settlement_micros", [1_500, 0, -3_250_000])
def test_a_settlement_price_that_leaves_no_price(settlement_micros: int) -> None:
    with pytest.raises(ValueError, match="H100Z26: no price within limits"):
        registry.load().instrument("H100Z26", TODAY).limits(settlement_micros=settlement_micros)


@given(st.integers(10_000, 10**9), st.sampled_from(PRODUCTS), st.integers(1, 50))
def test_limits_lie_inside_their_percentage(price: int, product: str, step: int) -> None:
    listed = registry.load().instrument(f"{product}Z26", TODAY)
    instrument = msgspec.structs.replace(listed, price_step=step)
    try:
        low, high = instrument.limits(settlement_micros=price)
    except ValueError:  # a step wider than the limits leaves no price
        assert price * instrument.limit_percent < 100 * step * instrument.tick_scale
        return
    assert 0 < low <= high and low % step == 0 and high % step == 0
    for limit in (low, high):
        distance = abs(limit * instrument.tick_scale - price)
        assert distance * 100 <= price * instrument.limit_percent


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("H100PZ26", UnknownContractError),
        ("GB200Z26", UnknownContractError),
        ("H100Z25", UnknownContractError),
        ("H100-1Q27", symbol.CodeError),
        ("h100z26", symbol.CodeError),
    ],
)
def test_codes_without_a_contract(code: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        registry.load().instrument(code, TODAY)
