"""The contracts room: calendar, codes, decimal text, the listing. Files: test_contract_files.py."""

import json
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import gcd
from pathlib import Path

import msgspec
import pytest
from command import hourbook
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from contracts import compare, owners, registry, sheet, symbol
from contracts.calendar import Month, delivery_period
from contracts.decimal_text import (
    DecimalTextError,
    OffTickError,
    format_price,
    parse_price,
    parse_quantity,
)
from contracts.registry import CalendarError, UnknownContractError
from contracts.spec import Instrument
from exchange.clearing.prices import WINDOW_NS
from exchange.cli.root import app

CLASSES = ("A100", "B200", "GB200", "H100", "H200", "MI300")
PRODUCTS = tuple(f"{root}{end}" for root in CLASSES for end in ("", "P"))
OPENED = ("A100", "B200", "H100", "H200")
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
        ("GB200PX26-GB200PZ26-GB200PF27", "GB200PX26", 3),
        ("2H100Z26-1B200Z26", "H100Z26", 2),
        ("1H100Z26-3H100F27", "H100Z26", 2),
    ],
)
def test_codes(text: str, first: str, legs: int) -> None:
    parsed = symbol.parse(text)
    assert str(parsed) == text
    assert (str(parsed.legs[0]), len(parsed.legs)) == (first, legs)
    if not isinstance(parsed, symbol.Ratio):
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

ratios = st.builds(symbol.Ratio, outrights, st.integers(1, 7), outrights, st.integers(1, 7)).filter(
    lambda one: one.bought != one.sold and gcd(one.bought_lots, one.sold_lots) == 1
)


@given(st.one_of(outrights, spreads, strips, ratios))
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
     "H100-5Q27", "H100-CAL2027", "H100Z26-", "H100Z26-H100F27-H100F27", "__proto__",
     "H100Z26-H100F27-H200G27", "H100Z26-H100F27-H100G27-H100H27", "H100Z26-2H100F27",
     "2H100Z26-2B200Z26", "1H100Z26-1H100Z26", "8H100Z26-1B200Z26", "0H100Z26-1B200Z26",
     "'; DROP TABLE"],
)  # fmt: skip
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(symbol.CodeError) as caught:
        symbol.parse(text)
    assert len(str(caught.value)) < 120


def test_codes_of_products() -> None:
    assert symbol.code("H100P", Month(2026, 12)) == "H100PZ26"
    assert symbol.outright("GB200P", Month(2027, 1)).root == "GB200P"
    assert str(symbol.spread(symbol.outright("H100P", Month(2026, 12)))) == "H100PZ26-H100PF27"
    first = symbol.outright("H100", Month(2027, 1))
    assert [str(symbol.strip(first, n)) for n in (3, 12)] == ["H100-1Q27", "H100-CAL27"]
    for month, count in ((2, 3), (4, 12), (1, 6)):
        with pytest.raises(symbol.CodeError, match="no strip"):
            symbol.strip(symbol.outright("H100", Month(2027, month)), count)
    with pytest.raises(symbol.CodeError, match="not a product"):
        symbol.code("H100PP", Month(2026, 12))


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
    assert registry.load().products == PRODUCTS
    assert len(listed) == 24 * len(PRODUCTS)
    assert [(i.product, i.expiry) for i in listed] == sorted((i.product, i.expiry) for i in listed)
    months = [i.expiry for i in listed if i.product == "H100"]
    assert months == [str(Month(2026, 11).plus(n)) for n in range(24)]
    assert [i.code for i in listed if i.product == "H100P"][:2] == ["H100PZ26", "H100PF27"]


def test_what_a_market_opens_by_itself() -> None:
    opened = registry.load().opening(TODAY)
    assert {i.product for i in opened} == set(OPENED)
    assert [i.code for i in opened if i.product == "H100"] == [
        "H100X26", "H100Z26", "H100F27", "H100G27", "H100H27", "H100J27",
        "H100K27", "H100M27", "H100N27", "H100Q27", "H100U27", "H100V27",
    ]  # fmt: skip
    assert len(opened) == 48


def test_combinations_are_of_what_is_listed() -> None:
    found = registry.load()
    on = date(2026, 12, 1)
    listed = {i.code: i for i in found.listing(on)}
    combined = found.combinations(on)
    assert len({c.code for c in combined}) == len(combined)
    for one in combined:
        assert [leg.code for leg in one.legs] == [str(leg) for leg in symbol.parse(one.code).legs]
        assert all(leg.multiplier == listed[leg.code].multiplier for leg in one.legs)
        assert one.last_trading_day == listed[one.legs[0].code].last_trading_day
        assert found.find(one.code, on) == one
        assert type(one).from_json(one.to_json()) == one
    kinds = [c.kind for c in combined if c.product == "H100"]
    assert [kinds.count(kind) for kind in ("spread", "quarter", "year")] == [23, 7, 1]
    # The physical December has gone by then: both calendar years are whole.
    years = [c.code for c in combined if c.kind == "year" and c.product == "H100P"]
    assert years == ["H100P-CAL27", "H100P-CAL28"]


def test_the_hours_of_combinations() -> None:
    found = registry.load()
    hours = {
        code: getattr(found.find(code, TODAY), "net_hours", None)
        for code in ("H100-1Q27", "H100-1Q28", "H100-CAL27", "H100-CAL28", "H100X26-H100Z26")
    }
    assert hours == {
        "H100-1Q27": 2160, "H100-1Q28": 2184, "H100-CAL27": 8760, "H100-CAL28": 8784,
        "H100X26-H100Z26": -24,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("on", "front", "count"),
    [
        ("2026-11-30", "X26", 24),  # its last trading day
        ("2026-12-01", "Z26", 24),
        ("2027-01-29", "F27", 24),
        ("2027-01-30", "G27", 24),  # a Saturday: January traded last on the 29th
        ("2027-05-31", "M27", 24),  # Memorial Day
        ("2028-02-29", "G28", 3),  # a leap day
        ("2025-12-31", "", 0),  # before the specs are effective
    ],
)
def test_the_front_month(on: str, front: str, count: int) -> None:
    listed = registry.load().listing(date.fromisoformat(on), count)
    codes = [i.code for i in listed if i.product == "A100"]
    assert len(codes) == count
    assert codes[:1] == ([f"A100{front}"] if count else [])


def test_multipliers_over_a_leap_year() -> None:
    listed = registry.load().listing(date(2027, 12, 1), 12)
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


def test_the_spot_month_asks_for_more_and_allows_less() -> None:
    cash = registry.load().instrument("H100Z26", TODAY)
    physical = registry.load().instrument("H100PZ26", TODAY)
    before, begins = date(2026, 11, 30), date(2026, 12, 1)
    assert [cash.in_spot_month(day) for day in (before, begins)] == [False, True]
    rates = [cash.margin_rate(price_micros=3_250_000, on=day) for day in (before, begins)]
    assert rates == [193_440_000, 290_160_000]
    assert [cash.position_limit_on(day) for day in (before, begins)] == [20_000, 5_000]
    # Notices begin before delivery does.
    assert physical.first_notice_day == date(2026, 11, 24)
    assert not physical.in_spot_month(date(2026, 11, 23))
    assert physical.in_spot_month(date(2026, 11, 24))


def test_the_listing_of_an_old_log_is_read() -> None:
    december = registry.load().instrument("H100Z26", TODAY)
    first = {
        "product", "name", "gpu", "fabric", "contract_size", "tick", "price_step", "lot_step",
        "limit_percent", "margin_percent", "position_limit", "max_order", "maker_fee", "taker_fee",
        "factor_low", "factor_high", "code", "expiry", "version", "multiplier", "tick_scale",
        "decimals", "last_trading_day", "delivery_start", "delivery_end",
    }  # fmt: skip
    said = json.loads(december.to_json())
    old = {field: said[field] for field in first} | {"cluster": "64", "settlement": "Cash: mean"}
    listed = Instrument.from_json(json.dumps(old))
    assert listed.limits(settlement_micros=3_250_000) == (2925, 3575)
    assert listed.margin_rate(price_micros=1_000_000, on=date(2026, 12, 1)) == 59_520_000
    assert listed.position_limit_on(date(2026, 12, 1)) == 20_000


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
        ("H100PZ25", UnknownContractError),
        ("H100Z25", UnknownContractError),
        ("H100Z45", CalendarError),
        ("H100-1Q27", symbol.CodeError),
        ("h100z26", symbol.CodeError),
    ],
)
def test_codes_without_a_contract(code: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        registry.load().instrument(code, TODAY)


# The command line, and the files that others own


def test_what_is_asked_of_days_and_files_that_are_not_there(tmp_path: Path) -> None:
    early = ("contracts", "schedule", "H100Z28", "--date")
    assert "is listed from 2027-01-04 on" in hourbook(*early, "2026-01-05", code=1)
    assert "pre-open" in hourbook(*early, "2027-01-04")
    assert "closing auction" in hourbook("contracts", "schedule", "H100", "--date", "2026-11-27")
    pages = ("contracts", "pages", tmp_path / "pages", "--on", "2020-01-02")
    assert "no contract spec covers A100" in hourbook(*pages, code=1)
    assert not (tmp_path / "pages").exists()
    (tmp_path / "mine").mkdir()
    assert "holds no contract file" in hourbook("contracts", "check", tmp_path / "mine", code=1)
    mine = tmp_path / "mine" / "h100.toml"
    mine.write_bytes(registry.shipped()["h100.toml"])
    assert "no fault" in hourbook("contracts", "check", tmp_path / "mine")
    again = "check one at a time"
    assert again in hourbook("contracts", "check", tmp_path / "mine", mine, code=1)
    gone = tmp_path / "gone.toml"
    assert f"no file {gone}" in hourbook("contracts", "diff", mine, gone, code=3)
    for one, other in ((mine, "H100"), ("H100Z26", mine)):
        said = hourbook("contracts", "diff", one, other, code=1)
        assert f"{mine} is a file: name a second file" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "field"),
    [
        ("calendars.toml", "    2027-06-18, ", "    ", "US.holiday 7.dates 2027-06-18"),
        ("hardware.toml", "power_w = 400", "power_w = 401", "A100-SXM.power_w"),
        ("grades.toml", "window_days = 30", "window_days = 20", "rules 1.window_days"),
        ("indices.toml", "clip_bp = 300", "clip_bp = 200", "common.clip_bp"),
    ],
)
def test_two_folders_differ_in_every_file(
    name: str, old: str, new: str, field: str, tmp_path: Path
) -> None:
    """Not in the products' alone: what these refer to counts, with them or by itself."""
    files = {"h100p.toml": registry.shipped()["h100p.toml"], name: registry.shipped()[name]}
    edited = files[name].replace(old.encode(), new.encode(), 1)
    assert compare.files(files, files) == compare.files({name: edited}, {name: edited}) == []
    for left, right in ((files, files | {name: edited}), ({name: files[name]}, {name: edited})):
        (found,) = compare.files(left, right)
        assert (found.what, found.field) == (name, field)
    gone = compare.files(files, {"h100p.toml": files["h100p.toml"]})
    assert gone == [compare.Difference(name, "file", "present", "absent")]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("indices.toml", "enter = 60, keep = 50", "enter = 20, keep = 10", "must keep 50"),
        ("indices.toml", "clip_bp = 300", "clip_bp = 200", "HBX-H100, clip_bp must stay"),
        ("indices.toml", "executable = 100", "executable = 90", "HBX-A100, tier_weights must stay"),
        ("indices.toml", "[providers]", '[providers]\nnew = { venue = "neocloud", tier = '
         '"executable" }', "HBX-H200, providers must stay"),
        ("indices.toml", '"b300", "gb200"', '"b300", "b400", "gb200"', "HBX-H200, gpus must stay"),
        ("indices.toml", '"serverless", "spot"', '"serverless"', "HBX-A100, kinds must stay"),
        ("indices.toml", "[indices.HBX-GB200]", "[indices.HBX-GB300]", "HBX-GB200 must stay"),
        ("indices.toml", 'methodology_version = "1.0"', 'methodology_version = "2.0"', ""),
        ("grades.toml", "tokens_per_gpu = 32_768", "tokens_per_gpu = 0", "owner reads"),
        ("grades.toml", 'par_mfu = "0.4000"', 'par_mfu = "0.4100"', "grades.H100-NODE must stay"),
        ("grades.toml", "window_days = 30", "window_days = 20", "rules 1 must stay"),
        ("hardware.toml", "sparse = { bf16 = 624_000", "sparse = { bf16 = 3_000", "twice dense"),
        ("hardware.toml", "[H100-SXM]", "[H100-SXM6]", "UNKNOWN_GPU"),
        ("hardware.toml", "power_w = 400", "power_w = 401", "A100-SXM must stay"),
    ],
)  # fmt: skip
def test_a_file_that_another_owns_is_judged_by_its_owner(
    name: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    """And what is in force stays: grades, rules and methodologies as well as terms."""
    files = {file: registry.shipped()[file] for file in ("hardware.toml", "grades.toml", name)}
    assert owners.faults(files, date(2026, 12, 1)) == []
    text = files[name].decode()
    assert old in text
    found = owners.faults(files | {name: text.replace(old, new, 1).encode()}, date(2026, 12, 1))
    assert any(said in str(fault) for fault in found) == bool(said), found
    if said == "twice dense":
        (tmp_path / name).write_text(text.replace(old, new, 1))
        done = CliRunner().invoke(app, ["contracts", "check", str(tmp_path)])
        assert (done.exit_code, said in done.stdout) == (1, True)


def test_a_page_names_the_window_by_which_clearing_settles_a_day() -> None:
    specs = registry.load()
    listed = specs.instrument("H100Z26", date(2026, 11, 2))
    shown = " ".join(sheet(listed, specs.calendars[listed.calendar]).split())
    assert "daily settlement by the five minutes before the close" in shown
    assert timedelta(minutes=5) // timedelta(microseconds=1) * 1_000 == WINDOW_NS
