"""The files of the contracts room: bad ones refused whole, versions, figures, the page."""

import json
import re
from datetime import date
from importlib import resources
from pathlib import Path

import figures
import msgspec
import pytest

from contracts import prices, registry, sheet
from contracts.calendar import Month
from contracts.registry import RegistryError

PRODUCTS = ("A100", "B200", "H100", "H200")
TODAY = date(2026, 11, 21)
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "contracts.md"


def spec_files() -> dict[str, str]:
    folder = resources.files("contracts") / "data"
    return {
        f"{product.lower()}.toml": (folder / f"{product.lower()}.toml").read_text("ascii")
        for product in PRODUCTS
    }


def read(files: dict[str, str]) -> registry.Registry:
    return registry.read({name: text.encode() for name, text in files.items()})


def edited(field: str, value: str) -> str:
    """The H100 file with one field set to another TOML value."""
    line = f"{field} = {value}"
    return re.sub(rf"(?m)^{field} = .*$", lambda _: line, spec_files()["h100.toml"])


def later_version(effective: str, first_expiry: str) -> str:
    """The H100 file with a second version."""
    text = spec_files()["h100.toml"]
    version = text[text.index("\n[[version]]") :]
    version = version.replace("2026-01-01", effective).replace('"2026-01"', f'"{first_expiry}"')
    return f"{text}\n{version.replace('taker_fee = 400_000', 'taker_fee = 500_000')}"


def refusal(files: dict[str, str]) -> list[str]:
    """Every fault of files that must be refused, one line each."""
    with pytest.raises(RegistryError) as caught:
        read(files)
    assert [str(fault) for fault in caught.value.faults] == str(caught.value).split("\n")
    return str(caught.value).split("\n")


# Files


def test_the_shipped_files_are_one_per_product() -> None:
    assert registry.load() == read(spec_files())
    assert registry.load().products == PRODUCTS
    assert len(registry.load().specs) == len(PRODUCTS)


BAD_VALUES = [
    ("tick", '"0"'),
    ("tick", '"0.002"'),
    ("tick", "0.001"),
    ("tick", '"1"'),
    ("contract_size", "-1"),
    ("contract_size", "0"),
    ("contract_size", "1.0"),
    ("contract_size", "true"),
    ("contract_size", "9" * 4000),
    ("contract_size", "0x" + "f" * 5000),
    ("first_expiry", '"2025-12"'),
    ("first_expiry", '"2026-13"'),
    ("factor_low", '"0"'),
    ("factor_low", "nan"),
    ("factor_low", '"NaN"'),
    ("factor_low", '"1.0001"'),
    ("factor_high", '"10"'),
    ("factor_high", '"0.99"'),
    ("factor_high", '"1.00001"'),
    ("effective", '"2026-01-01"'),
    ("effective", "2026-01-01T00:00:00Z"),
    ("price_step", "0"),
    ("lot_step", "3"),
    ("limit_percent", "100"),
    ("margin_percent", "0"),
    ("max_order", "20_001"),
    ("max_order", "2147483648"),
    ("maker_fee", "-400_001"),
    ("listed_months", "0"),
    ("fabric", '"a line\\nand another"'),
    ("fabric", '""'),
    ("cluster", '"caf\\u00e9"'),
]


@pytest.mark.parametrize(
    ("field", "value"), BAD_VALUES, ids=[f"{field}-{value[:16]}" for field, value in BAD_VALUES]
)
def test_one_bad_value_refuses_all_files(field: str, value: str) -> None:
    (fault,) = refusal({**spec_files(), "h100.toml": edited(field, value)})
    assert fault.startswith("h100.toml: version 1, ")
    assert field in fault
    assert "must" in fault
    assert len(fault) < 200


def test_the_contract_files_of_the_bad_inputs(shared: Path) -> None:
    cases = json.loads((shared / "vectors" / "bad_inputs.json").read_text())["cases"]
    (case,) = [case for case in cases if case["id"] == "B96"]
    assert case["expect"] == "the whole registry load fails"
    flaws = {
        "tick 0": edited("tick", '"0"'),
        "negative multiplier": edited("contract_size", "-1"),
        "expiry before listing": edited("first_expiry", '"2025-12"'),
        "factor 0": edited("factor_low", '"0"'),
        "NaN": edited("factor_low", "nan"),
        "or 10": edited("factor_high", '"10"'),
    }
    for flaw, text in flaws.items():
        assert flaw in case["input"]
        assert len(refusal({**spec_files(), "h100.toml": text})) == 1
    assert "a symbol twice" in case["input"]
    twice = refusal({**spec_files(), "copy.toml": spec_files()["h100.toml"]})
    assert twice == [
        "copy.toml: product = 'H100' must be in h100.toml",
        "H100: effective = 2026-01-01 must differ from every other version's",
    ]


def test_every_fault_of_every_file_is_named() -> None:
    text = edited("tick", '"0"').replace("price_step = 1 ", "price_steps = 1 ")
    text = re.sub(r"(?m)^fabric = .*$", "", text).replace('"H100"', '"H900"')
    assert refusal({"a100.toml": "version = 3", "b200.toml": "tick = ", "h100.toml": text}) == [
        "a100.toml: product is missing: it must be one of A100, B200, GB200, H100, H200, MI300",
        "a100.toml: name is missing: it must be a line of 1 to 200 printable ASCII characters",
        "a100.toml: version must be one or more [[version]] tables",
        "b200.toml must be a TOML file: Invalid value (at end of document)",
        "h100.toml: product = 'H900' must be one of A100, B200, GB200, H100, H200, MI300",
        "h100.toml: version 1, price_steps = 1 is not a known field",
        'h100.toml: version 1, tick = \'0\' must be a power of ten from "0.000001" to "0.1"',
        "h100.toml: version 1, price_step is missing: it must be a whole number from 1 to 1000",
        "h100.toml: version 1, fabric is missing: it must be a line of 1 to 200 printable ASCII"
        " characters",
    ]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"\xff", "must be a TOML file"),
        (b"a = 1\na = 2", "must be a TOML file"),
        (b"a = " + b"9" * 60_000, "must be a TOML file"),
        (b"a = " + b"[" * 60_000, "must be a TOML file"),
        (b"#" * 65_537, "must be at most 65536 bytes"),
        (b"version = [1]", "version 1 = 1 must be a table"),
        (b'"\\u202e" = 1', "'\\u202e' = 1 is not a known field"),
    ],
)
def test_what_is_no_contract_file(content: bytes, rule: str) -> None:
    with pytest.raises(RegistryError) as caught:
        registry.read({"h100.toml": content})
    assert rule in str(caught.value)


def test_no_files_at_all() -> None:
    assert refusal({}) == ["at least one contract file is needed"]


# Versions


def test_a_later_version_governs_expiries_not_yet_listed() -> None:
    found = read({"h100.toml": later_version("2027-03-01", "2028-03")})
    before, after = date(2027, 2, 26), date(2028, 1, 3)
    assert {i.taker_fee for i in found.listing(before)} == {400_000}
    fees = {i.code: i.taker_fee for i in found.listing(after)}
    assert (fees["H100G28"], fees["H100H28"], fees["H100Z28"]) == (400_000, 500_000, 500_000)
    assert found.instrument("H100H28", before).taker_fee == 400_000


def test_a_version_may_not_touch_what_is_listed() -> None:
    assert refusal({"h100.toml": later_version("2027-03-01", "2028-02")}) == [
        "H100: first_expiry = 2028-02 must be after 2028-02, which is listed already"
        " under 2026-01-01"
    ]
    assert refusal({"h100.toml": later_version("2026-01-01", "2028-02")}) == [
        "H100: effective = 2026-01-01 must differ from every other version's"
    ]


def test_the_hash_is_of_what_the_specs_say() -> None:
    shipped = registry.load().spec_hash
    assert len(shipped) == registry.SPEC_HASH_BYTES
    files = spec_files()
    assert read(dict(reversed(files.items()))).spec_hash == shipped
    assert read({**files, "h100.toml": "# a comment\n" + files["h100.toml"]}).spec_hash == shipped
    assert read({**files, "h100.toml": edited("fabric", '"another"')}).spec_hash != shipped
    assert read({"h100.toml": files["h100.toml"]}).spec_hash != shipped


# Figures


def test_levels_and_paths_are_what_the_panels_give(shared: Path) -> None:
    data = shared / "data"
    table = prices.table()
    assert (table.levels.first_day, table.levels.last_day) == (figures.LEVEL_FROM, figures.LEVEL_TO)
    assert (table.paths.first_day, table.paths.last_day) == (figures.PATH_FROM, figures.PATH_TO)
    for product in PRODUCTS:
        level, path = table.levels.products[product], table.paths.products[product]
        assert level.series == figures.LEVEL_SERIES[product]
        assert path.series == figures.PATH_SERIES[product]
        found = figures.level(data / figures.LEVEL_PANEL, level.series)
        assert (level.level_ticks, level.providers) == found
        assert list(path.ratios) == figures.path(data / figures.PATH_PANEL, path.series)


def test_every_product_has_its_figures() -> None:
    assert set(prices.table().levels.products) == set(PRODUCTS)
    for listed in registry.load().listing(TODAY, 1):
        low, high = listed.limits(
            settlement_micros=prices.level(listed.product) * listed.tick_scale
        )
        for ratio in prices.path(listed.product):
            assert low <= prices.level(listed.product) * ratio // prices.RATIO_ONE <= high


def test_the_forward_curve() -> None:
    curve = prices.forward_curve("H100", 12)
    assert curve[:3] == [3250, 3224, 3198]  # 0.8 % less each month
    assert all(isinstance(price, int) for price in curve)
    assert prices.forward_curve("H100", 3) == curve[:3]
    assert prices.forward_curve("H100", 0) == []
    with pytest.raises(KeyError):
        prices.forward_curve("MI300", 1)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("H100 = -80\n", "", "the same products"),
        ("level_ticks = 3250", "level_ticks = 3.25", "Expected `int`"),
        ("level_ticks = 3250", "level_ticks = 0", ">= 1"),
        ("    9992, 9992,", "    9992,", "length >= 48"),
        ("H100 = -80\n", "H100 = -80\nH100_note = 1\n", "the same products"),
        ("assumption =", "observation =", "unknown field"),
    ],
)
def test_a_bad_table_of_figures(old: str, new: str, rule: str) -> None:
    text = (resources.files("contracts") / "data" / "prices_2026.toml").read_text("ascii")
    assert old in text
    with pytest.raises(msgspec.ValidationError, match=rule):
        msgspec.toml.decode(text.replace(old, new), type=prices.PriceTable)


def test_figures_say_where_they_come_from() -> None:
    table = prices.table()
    assert "CC BY 4.0" in table.levels.licence
    assert "gpurentalprices.com" in table.levels.source
    assert "MIT" in table.paths.licence
    text = (resources.files("contracts") / "data" / "prices_2026.toml").read_text("ascii")
    assert "Permission is hereby granted, free of charge" in text
    assert "ASSUMPTION" in text


# The sheet


def test_the_page_shows_the_sheets_as_they_are() -> None:
    page = PAGE.read_text()
    for product in PRODUCTS:
        text = sheet(registry.load().instrument(f"{product}Z26", TODAY))
        assert f"```\n{text}```" in page, text


def test_the_page_shows_the_figures_as_they_are() -> None:
    page = PAGE.read_text()
    for product in PRODUCTS:
        level = prices.table().levels.products[product]
        change = prices.table().curve.monthly_change_bp[product] / 100
        row = (
            f"| {product} | {level.series} | {level.providers} | ${level.level_ticks / 1000:.3f} |"
        )
        assert f"{row} {change:+.1f} % |" in page, row


def test_a_sheet_with_other_numbers() -> None:
    text = edited("maker_fee", "-1").replace("lot_step = 1 ", "lot_step = 5 ")
    text = text.replace("contract_size = 1 ", "contract_size = 8 ")
    shown = sheet(read({"h100.toml": text}).specs[0].instrument(Month(2027, 2)))
    assert "8 GPUs x 672 hours = 5376 GPU-hours" in shown
    assert "-$0.000001 to rest, $0.40 to take" in shown
    assert "5 lots, at most 1,000 an order" in shown
