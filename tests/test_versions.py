"""The listing cycle while versions of a product follow one another."""

from datetime import date, timedelta

import pytest

from contracts import registry, symbol
from contracts.calendar import Month
from contracts.registry import Registry

FIRST, SECOND = date(2026, 1, 1), date(2027, 6, 15)


def file_of(first_expiry: str, product: str = "H100P", **changed: int) -> bytes:
    """A product's file with a second version from mid-June 2027 on."""
    text = registry.shipped()[f"{product.lower()}.toml"].decode()
    head, version = text.split("\n[[version]]")
    second = version.replace(f"{FIRST}", f"{SECOND}").replace('"2026-01"', f'"{first_expiry}"')
    for field, value in changed.items():
        (line,) = [line for line in second.splitlines() if line.startswith(f"{field} = ")]
        second = second.replace(line, f"{field} = {value}")
    return "\n[[version]]".join([head, version, second]).encode()


def versions(first_expiry: str, product: str = "H100P", **changed: int) -> Registry:
    return registry.read({f"{product.lower()}.toml": file_of(first_expiry, product, **changed)})


@pytest.mark.parametrize("last_trading", [2, 4])
def test_a_month_leaves_the_cycle_when_its_own_version_says(last_trading: int) -> None:
    """The newer version's last trading days are of the months that it governs alone."""
    found = versions("2029-07", last_trading=last_trading)
    last = found.instrument("H100PN27", SECOND).last_trading_day
    assert last == date(2027, 6, 28)
    assert found.listing(last)[0].code == "H100PN27"
    assert found.listing(last + timedelta(days=1))[0].code == "H100PQ27"
    governed = found.instrument("H100PN29", SECOND).last_trading_day
    assert governed == found.days(found.specs[1]).before(date(2029, 7, 1), last_trading)
    assert found.listing(governed)[0].code == "H100PN29"
    assert found.listing(governed + timedelta(days=1))[0].code == "H100PQ29"


@pytest.mark.parametrize(
    ("product", "first_expiry", "changed"),
    [
        ("H100P", "2029-07", {}),
        ("H100", "2029-07", {"listed_months": 36}),
        ("H100", "2030-01", {"listed_months": 36}),
        ("H100P", "2029-07", {"listed_months": 12}),
        ("H100P", "2029-07", {"last_trading": 4}),
    ],
)
def test_a_listing_says_the_first_day_in_the_cycle(
    product: str, first_expiry: str, changed: dict[str, int]
) -> None:
    """Of months that the older version governs, too, when the newer one lists them sooner."""
    found = versions(first_expiry, product, **changed)
    days = found.days(found.specs[0])
    for month in ("2029-05", "2029-06", "2029-07", "2029-12", "2030-01", "2030-06"):
        expiry = Month.parse(month)
        one = found.instrument(symbol.code(product, expiry), date(2030, 1, 2))
        assert one.listed_on is not None and days.is_business_day(one.listed_on)
        codes = [listed.code for listed in found.listing(one.listed_on)]
        assert one.code in codes
        before = days.before(one.listed_on, 1)
        assert one.code not in [listed.code for listed in found.listing(before)], one.listed_on


TEN = "schedule.factors_published = 10 must be 12, publish_days of the rules"


@pytest.mark.parametrize(
    ("first_expiry", "published", "fault"),
    [
        ("2029-07", 12, ""),
        (
            "2029-08",
            12,
            f"version 1, {TEN} from 2029-07 on in grades.toml: add a [[version]]",
        ),
        ("2029-07", 10, f"version 2, {TEN} in grades.toml"),
    ],
)
def test_no_month_has_other_days_than_the_rules_that_govern_it(
    first_expiry: str, published: int, fault: str
) -> None:
    """Rules that begin while a version is in force are for months that a newer one governs."""
    text = registry.shipped()["grades.toml"].decode()
    start, end = text.index("\n[[rules]]"), text.index("\n[[benchmarks]]")
    later = text[start:end].replace('"2026-01"', '"2029-07"').replace("version = 1", "version = 2")
    later = later.replace("publish_days = 10", "publish_days = 12")
    files = {
        "grades.toml": f"{text[:end]}{later}{text[end:]}".encode(),
        "h100p.toml": file_of(first_expiry, factors_published=published),
        "h100.toml": registry.shipped()["h100.toml"],
    }
    if not fault:
        assert len(registry.read(files).specs) == 3
        return
    with pytest.raises(registry.RegistryError) as caught:
        registry.read(files)
    assert [str(found) for found in caught.value.faults] == [f"h100p.toml: {fault}"]


def test_a_grade_is_deliverable_from_the_month_it_begins_with() -> None:
    text = registry.shipped()["grades.toml"].decode()
    place = text.index("[grades.H100-C512]")
    changed = text[place:].replace('"2026-01"', '"2029-07"', 1)
    files = {"grades.toml": (text[:place] + changed).encode(), "h100p.toml": file_of("2029-07")}
    with pytest.raises(registry.RegistryError) as caught:
        registry.read(files)
    (fault,) = caught.value.faults
    assert fault.field == "version 1, grade.grades"
    assert fault.rule == "has 'H100-C512', which begins with 2029-07"
