"""The files of the contracts room: bad ones refused whole, versions, figures, pages.

Budget: 25 seconds.
"""

import json
import re
from datetime import date
from importlib import resources
from pathlib import Path

import figures
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import calendar, pages, prices, references, registry, sheet, symbol
from contracts.registry import RegistryError

CLASSES = ("A100", "B200", "GB200", "H100", "H200", "MI300")
PRODUCTS = tuple(f"{root}{end}" for root in CLASSES for end in ("", "P"))
PRICED = ("A100", "B200", "H100", "H200", "MI300")
TODAY = date(2026, 11, 21)
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "contracts.md"
PAGES = PAGE.parent / "products"
PAGES_DAY = date(2026, 12, 1)


SHIPPED = registry.shipped()


def spec_files() -> dict[str, str]:
    folder = resources.files("contracts") / "data"
    return {
        f"{product.lower()}.toml": (folder / f"{product.lower()}.toml").read_text("ascii")
        for product in PRODUCTS
    }


def read(files: dict[str, str]) -> registry.Registry:
    return registry.read({name: text.encode() for name, text in files.items()})


def edited(field: str, value: str, file: str = "h100.toml") -> str:
    """A file with one field set to another TOML value."""
    text, count = re.subn(
        rf"(?m)^{field} = .*$", lambda _: f"{field} = {value}", spec_files()[file]
    )
    assert count == 1, field
    return text


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
    ("opened_months", "25"),
    ("combinations", '["butterfly"]'),
    ("combinations", '["spread", "spread"]'),
    ("combinations", "[1]"),
    ("calendar", '"EU"'),
    ("hardware", '"H100-PCIE"'),
    ("index", '"OCPI"'),
    ("methodology", '"0.9"'),
    ("methodology", "1.0"),
    ("grades", '["H100-NODE", "H100-NODE"]'),
    ("grades", '["H100-GOLD"]'),
    ("grades", '["A100-NODE"]'),
    ("node_gpus", "64"),
    ("cluster_high", "7"),
    ("band_percent", "11"),
    ("spot_month_limit", "20_001"),
    ("all_months_limit", "19_999"),
    ("spot_supply_percent", "101"),
    ("spot_margin_percent", "7"),
    ("maintenance_percent", "0"),
    ("final_fee", "-1"),
    ("fabric", '"a line\\nand another"'),
    ("fabric", '""'),
    ("gpu", '"caf\\u00e9"'),
]


@pytest.mark.parametrize(
    ("field", "value"), BAD_VALUES, ids=[f"{field}-{value[:16]}" for field, value in BAD_VALUES]
)
def test_one_bad_value_refuses_all_files(field: str, value: str) -> None:
    fault, *more = refusal({**spec_files(), "h100.toml": edited(field, value)})
    assert fault.startswith("h100.toml: version 1, ")
    assert field in fault
    assert "must" in fault or "has" in fault
    assert len(fault) < 220
    # A factor's bounds are the grades' too: a readable one may break both rules.
    assert len(more) == (field.startswith("factor") and value in ('"1.0001"', '"0.99"'))


def test_the_largest_position_at_the_largest_price_fits_in_an_amount() -> None:
    read({**spec_files(), "h100.toml": edited("contract_size", "77")})
    (fault,) = refusal({**spec_files(), "h100.toml": edited("contract_size", "78")})
    assert "contract_size = 78 must keep a position of position_limit" in fault
    assert 77 * 20_000 * 744 * 10**9 <= 2**60 < 78 * 20_000 * 744 * 10**9


BAD_DELIVERIES = [
    ("grades", "[]", "must name a grade that can be delivered"),
    ("factors_published", "5", "must be fewer days than factors_published"),
    ("factors_frozen", "4", "must be fewer days than factors_frozen"),
    ("last_trading", "5", "must not be more days than first_notice"),
    ("last_notice", "4", "must not be more days than last_trading"),
    ("last_notice", "0", "must be a whole number from 1 to 20"),
    ("notice_cutoff", '"25:00"', "must be a time of day"),
    ("notice_cutoff", '"16.00"', "must be a time of day"),
    ("delivery_step", "12", "must be whole nodes of node_gpus"),
    ("contract_size", "8", "must be 1: what is delivered is counted a GPU a lot"),
    ("delivery_step", "16", "must be 8, delivery_unit_lots of the par grade in grades.toml"),
    ("cluster_high", "511", "must be 63, gpus_most of the par grade in grades.toml"),
    ("grades", '["H100-C64", "H100-NODE"]', "must be 64, gpus_least of the par grade"),
    ("true_up_tolerance", '"0.0100"', "must be '0.0050', true_up_tolerance of the rules in"),
    ("true_up_tolerance", '"0.2000"', "must be a factor from"),
    ("goodput_floor", '"0.9000"', "must be '0.8500', failure_floor of the rules in"),
    ("factors_published", "11", "must be 10, publish_days of the rules in"),
    ("listed_months", "25", "must be at most 24: later months may get other rules"),
    ("settlement", '"cash"', "must be physical for H100P"),
    ("failure_percent", "-1", "must be a whole number from 0 to 100"),
]


@pytest.mark.parametrize(
    ("field", "value", "rule"), BAD_DELIVERIES, ids=[f"{f}-{v}" for f, v, _ in BAD_DELIVERIES]
)
def test_a_bad_delivery_refuses_all_files(field: str, value: str, rule: str) -> None:
    text = edited(field, value, "h100p.toml")
    faults = refusal({**spec_files(), "h100p.toml": text})
    assert any(rule in fault for fault in faults)
    assert all(fault.startswith("h100p.toml: ") for fault in faults)


def test_a_cash_product_has_no_delivery() -> None:
    text = spec_files()["h100.toml"] + "\n[version.delivery]\ndelivery_step = 8\n"
    assert refusal({"h100.toml": text}) == [
        "h100.toml: version 1, delivery = {'delivery_step': 8} is not a known field"
    ]
    assert refusal({"h100.toml": edited("settlement", '"physical"')})[0] == (
        "h100.toml: settlement = 'physical' must be cash for H100"
    )


def test_a_part_that_is_no_table() -> None:
    text = re.sub(r"(?m)^\[version.margin\](\n.+)*", "", spec_files()["h100.toml"])
    text = text.replace("[version.listing]", "margin = 8\n\n[version.listing]")
    faults = refusal({"h100.toml": text})
    assert faults[0] == "h100.toml: version 1, margin = 8 must be a table"
    assert [fault.split()[3] for fault in faults[1:]] == [
        "margin.margin_percent", "margin.spot_margin_percent", "margin.maintenance_percent",
        "margin.spread_percent",
    ]  # fmt: skip


def test_codes_are_looked_up_in_the_files_given() -> None:
    files = spec_files()
    without = {"hardware.toml": b"[other]", "indices.toml": b"[indices.HBX]", "grades.toml": b""}
    with pytest.raises(RegistryError) as caught:
        registry.read({"h100p.toml": files["h100p.toml"].encode(), **without})
    assert [fault.field.split(".")[1] for fault in caught.value.faults] == [
        "hardware", "grades", "grades", "grades", "index",
    ]  # fmt: skip
    with pytest.raises(RegistryError, match=r"grades.toml must be a TOML file"):
        registry.read({"h100.toml": files["h100.toml"].encode(), "grades.toml": b"["})
    with pytest.raises(RegistryError, match=r"calendar = 'US' must be a code of calendars.toml"):
        registry.read({"h100.toml": files["h100.toml"].encode(), "calendars.toml": b""})


def test_a_raised_methodology_is_for_expiries_not_listed_yet() -> None:
    raised = SHIPPED["indices.toml"].replace(
        b'methodology_version = "1.0"', b'methodology_version = "2.0"'
    )

    def read_with(text: str) -> registry.Registry:
        return registry.read({"h100.toml": text.encode(), "indices.toml": raised})

    text = later_version("2027-03-01", "2029-03")
    head, old, new = text.split("\n[[version]]")
    found = read_with(
        "\n[[version]]".join([head, old, new.replace('methodology = "1.0"', 'methodology = "2.0"')])
    )
    on = date(2027, 3, 1)
    listed = [found.instrument(code, on).methodology for code in ("H100G29", "H100H29")]
    assert listed == ["1.0", "2.0"]
    with pytest.raises(RegistryError) as caught:
        read_with(text)
    assert str(caught.value) == (
        "h100.toml: version 2, index.methodology = '1.0' must be '2.0', the version of HBX-H100 in"
        " indices.toml"
    )


@pytest.mark.parametrize("effective", ["2024-12-31", "2041-01-01"])
def test_a_version_that_begins_where_no_calendar_is(effective: str) -> None:
    text = edited("effective", effective).replace('"2026-01"', '"2045-01"')
    (fault,) = refusal({"h100.toml": text})
    assert f"effective = {effective} must have days: calendar US knows 2025 to 2040" in fault


@pytest.mark.parametrize("month", ["0001-01", "1999-12", "2100-01", "9999-12"])
def test_a_version_that_begins_where_no_code_is(month: str) -> None:
    text = edited("first_expiry", f'"{month}"').replace("= 2026-01-01", "= 0001-01-01")
    (fault,) = refusal({"h100.toml": text})
    assert f"version 1, first_expiry = '{month}' must be a month of 2000 to 2099" in fault


def test_a_version_after_the_calendar_of_the_one_before() -> None:
    short = SHIPPED["calendars.toml"].decode()
    longer = short.replace("US", "EU").replace("last_year = 2040", "last_year = 2060")
    text = later_version("2041-03-01", "2050-03")
    first, old, new = text.split("\n[[version]]")
    new = new.replace('calendar = "US"', 'calendar = "EU"')
    (fault,) = refusal(
        {
            "h100.toml": "\n[[version]]".join([first, old, new]),
            "calendars.toml": f"{short}\n{longer}",
        }
    )
    assert "must lie in the calendar of the version before" in fault


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
    products = ", ".join(symbol.PRODUCTS)
    assert refusal({"a100.toml": "version = 3", "b200.toml": "tick = ", "h100.toml": text}) == [
        f"a100.toml: product is missing: it must be one of {products}",
        "a100.toml: name is missing: it must be a line of 1 to 200 printable ASCII characters",
        "a100.toml: settlement is missing: it must be one of cash, physical",
        "a100.toml: version must be one or more [[version]] tables",
        "b200.toml must be a TOML file: Invalid value (at end of document)",
        f"h100.toml: product = 'H900' must be one of {products}",
        "h100.toml: version 1, lot.price_steps = 1 is not a known field",
        'h100.toml: version 1, lot.tick = \'0\' must be a power of ten from "0.000001" to "0.1"',
        "h100.toml: version 1, lot.price_step is missing: it must be a whole number from 1 to 1000",
        "h100.toml: version 1, grade.fabric is missing: it must be a line of 1 to 200 printable"
        " ASCII characters",
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


VALUES = st.one_of(
    st.integers(), st.booleans(), st.floats(), st.text(max_size=8), st.dates().map(str),
    st.just([]), st.just({}), st.sampled_from(["H100-NODE", "US", "0.001", "2026-01", "0.8000"]),
)  # fmt: skip


def toml(value: object) -> str:
    return (
        "{}" if value == {} else json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_file_is_taken_whole_or_refused_whole(data: st.DataObject) -> None:
    """Whatever stands in any file: a registry, or named faults; never another exception."""
    names = ["h100p.toml", *references.FILES]
    files = {name: SHIPPED[name] for name in names}
    name = data.draw(st.sampled_from(names))
    text = files[name].decode()
    lines = [line for line in text.splitlines() if re.match(r"\w+ = [^\[]*$", line)]
    for line in data.draw(st.lists(st.sampled_from(lines), min_size=1, max_size=3)):
        field = line.split(" = ")[0]
        text = text.replace(line, f"{field} = {toml(data.draw(VALUES))}", 1)
    try:
        found = registry.read({**files, name: text.encode()})
    except RegistryError as error:
        assert error.faults
        assert all(len(str(fault)) < 1000 and str(fault).isascii() for fault in error.faults)
        return
    assert found.products
    found.listing(TODAY)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["h100.toml", *references.FILES]), st.binary(max_size=8), st.data())
def test_bytes_anywhere_are_refused_by_name(name: str, noise: bytes, data: st.DataObject) -> None:
    content = SHIPPED[name]
    place = data.draw(st.integers(0, len(content)))
    files = {
        "h100.toml": SHIPPED["h100.toml"],
        name: content[:place] + noise + content[place + 2 :],
    }
    try:
        registry.read(files)
    except RegistryError as error:
        assert error.faults


def test_no_files_at_all() -> None:
    assert refusal({}) == ["at least one contract file is needed"]


# Versions


def test_a_later_version_governs_expiries_not_yet_listed() -> None:
    found = read({"h100.toml": later_version("2027-03-01", "2029-03")})
    before, after = date(2027, 2, 26), date(2028, 1, 3)
    assert {i.taker_fee for i in found.listing(before)} == {400_000}
    fees = {i.code: i.taker_fee for i in found.listing(after)}
    assert (fees["H100G29"], fees["H100H29"], fees["H100Z29"]) == (400_000, 500_000, 500_000)
    assert found.instrument("H100H29", before).taker_fee == 400_000
    assert found.instrument("H100H29", after).version == date(2027, 3, 1)
    # A strip of months under both versions has one price grid, and each leg its own terms.
    assert found.find("H100-1Q29", after).version == date(2027, 3, 1)


def test_months_of_different_grids_are_not_combined() -> None:
    text = later_version("2027-03-01", "2029-03")
    head, old, new = text.split("\n[[version]]")
    found = read({"h100.toml": "\n[[version]]".join([head, old, new.replace('"0.001"', '"0.01"')])})
    on = date(2028, 1, 3)
    codes = {one.code for one in found.combinations(on)}
    assert "H100F29-H100G29" in codes and "H100H29-H100J29" in codes
    assert "H100G29-H100H29" not in codes and "H100-1Q29" not in codes
    with pytest.raises(registry.UnknownContractError, match="different price grids"):
        found.find("H100G29-H100H29", on)


def test_a_version_may_not_touch_what_is_listed() -> None:
    assert refusal({"h100.toml": later_version("2027-03-01", "2029-02")}) == [
        "H100: first_expiry = 2029-02 must be after 2029-02, which is listed already"
        " under 2026-01-01"
    ]
    assert refusal({"h100.toml": later_version("2026-01-01", "2029-02")}) == [
        "H100: effective = 2026-01-01 must differ from every other version's"
    ]


def test_what_an_older_version_listed_stays_listed() -> None:
    """A version that lists less in between does not free the months of the one before."""
    text = later_version("2027-03-01", "2029-03").replace("_months = 24", "_months = 12")
    first, second, third = text.split("\n[[version]]")
    second = second.replace("listed_months = 12", "listed_months = 24")
    last = third.replace("2027-03-01", "2027-05-03").replace('"2029-03"', '"2029-01"')
    assert refusal({"h100.toml": "\n[[version]]".join([first, second, third, last])}) == [
        "H100: first_expiry = 2029-01 must be after 2029-02, which is listed already"
        " under 2027-03-01"
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
    assert {p: level.series for p, level in table.levels.products.items()} == figures.LEVEL_SERIES
    assert {p: path.series for p, path in table.paths.products.items()} == figures.PATH_SERIES
    for level in table.levels.products.values():
        found = figures.level(data / figures.LEVEL_PANEL, level.series)
        assert (level.level_ticks, level.providers) == found
    for path in table.paths.products.values():
        assert list(path.ratios) == figures.path(data / figures.PATH_PANEL, path.series)
    # One provider's price is no level: that is why GB200 has none.
    assert len(figures.provider_medians(data / figures.LEVEL_PANEL, "gb200")) == 1


def test_every_product_has_its_figures() -> None:
    assert set(prices.table().levels.products) == set(PRICED)
    opened = registry.load().opening(TODAY)
    assert {listed.product for listed in opened} <= prices.table().paths.products.keys()
    for listed in (one for one in opened if one.expiry == "2026-11"):
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
        prices.forward_curve("GB200", 1)


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


# Sheets and pages


def test_the_pages_of_the_products_are_current() -> None:
    found = registry.load()
    shown = {f"{product.lower()}.md": pages.page(found, product, PAGES_DAY) for product in PRODUCTS}
    written = {path.name: path.read_text() for path in PAGES.glob("*.md")}
    assert shown == written, (
        "run `hourbook contracts pages docs/reference/products --on 2026-12-01`"
    )


def test_the_page_shows_the_figures_as_they_are() -> None:
    page = PAGE.read_text()
    for product in PRICED:
        level = prices.table().levels.products[product]
        change = prices.table().curve.monthly_change_bp[product] / 100
        row = (
            f"| {product} | {level.series} | {level.providers} | ${level.level_ticks / 1000:.3f} |"
        )
        assert f"{row} {change:+.1f} % |" in page, row


def test_the_page_explains_every_field() -> None:
    page = PAGE.read_text()
    fields = re.findall(r"(?m)^(\w+) = ", spec_files()["h100p.toml"])
    assert len(fields) > 45
    assert [field for field in fields if f"`{field}`" not in page] == []


def test_a_sheet_with_other_numbers() -> None:
    text = edited("maker_fee", "-1")
    text = re.sub(r"(?m)^lot_step = 1 ", "lot_step = 5 ", text)
    text = re.sub(r"(?m)^contract_size = 1 ", "contract_size = 8 ", text)
    found = read({"h100.toml": text})
    shown = sheet(found.instrument("H100G27", TODAY), calendar.load())
    assert "8 GPUs x 672 hours = 5376 GPU-hours" in shown
    assert "-$0.000001 to rest, $0.40 to take" in shown
    assert "in steps of 5 lots, at most 1,000 an order" in shown


def test_a_sheet_says_how_a_contract_ends() -> None:
    found, days = registry.load(), calendar.load()
    cash = sheet(found.find("H100Z26", TODAY), days)
    assert "mean of the month's daily HBX-H100 fixings" in cash
    assert "last trading day  Thursday 2026-12-31" in cash
    assert "notice" not in cash
    physical = sheet(found.find("H100PZ26", TODAY), days)
    assert "last notice day   Friday 2026-11-27, until 16:00" in physical
    assert "deliverable       H100-NODE" in physical
    spread = sheet(found.find("H100X26-H100Z26", TODAY), days)
    assert "leg 2             sell 1 H100Z26, 744 GPU-hours" in spread
    assert "-24 GPU-hours net" in spread
    product = pages.product_sheet(found, "H100", TODAY)
    for field in ("administrator", "data sufficiency", "transition", "measures"):
        assert field in product
    for text in (cash, physical, spread, product):
        assert max(map(len, text.splitlines())) <= 100
