"""Final settlement prices from the fixings that the log holds."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import pytest
from clearing_house import House

from contracts.calendar import Month, delivery_period
from contracts.index import methodology
from contracts.index.settlement import MonthIncomplete, Step
from exchange.clearing import Clearing
from exchange.clearing.delivery.terms import SECOND_NS, since_epoch
from exchange.clearing.expiry import FixingRecorded, Fixings

INDEX: Final = "HBX-H100"
MONTH: Final = Month(2026, 11)
RULES: Final = methodology.load().index(INDEX).settlement
DAY_NS: Final = 86_400 * SECOND_NS
DAYS: Final = [MONTH.first_day + timedelta(days=n) for n in range(MONTH.days)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(Clearing.open(tmp_path / "clearing.db"))
    yield made
    made.clearing.close()


def fix(house: House, day: date, price: str, revision: int = 0) -> str:
    record = FixingRecorded(
        index=INDEX, date=day.year * 10_000 + day.month * 100 + day.day, revision=revision,
        state="PUBLISHED" if price else "WITHHELD", price=price, inputs_hash="ab",
    )  # fmt: skip
    return house.record(record)[0]


def fixings(house: House) -> Fixings:
    return house.clearing._state.matters.get(Fixings)


def test_a_whole_month_settles_at_its_mean_rounded_once(house: House) -> None:
    for n, day in enumerate(DAYS):
        assert fix(house, day, f"2.50000{n % 10}") == "accepted"
    house.reopen()
    found = fixings(house).final(INDEX, str(MONTH), ())
    assert (found.step, found.published_days) == (Step.MEAN, 30)
    assert found.price_micros == 2_500_004  # 2,500,004.5: half to even


def test_withheld_fixings_follow_the_ladder(house: House) -> None:
    for n, day in enumerate(DAYS):
        fix(house, day, "2.600000" if n < RULES.short_days else "")
    short = fixings(house).final(INDEX, str(MONTH), ())
    assert (short.step, short.price_micros) == (Step.SHORT_MEAN, 2_600_000)
    fix(house, DAYS[0], "", revision=1)  # one day less
    market = [2_400_000] * RULES.market_days
    last = fixings(house).final(INDEX, str(MONTH), market)
    assert (last.step, last.price_micros) == (Step.MARKET_MEAN, 2_400_000)
    none = fixings(house).final(INDEX, str(MONTH), market[1:])
    assert (none.step, none.price_micros) == (Step.UNDETERMINED, None)


def test_a_revision_after_the_cut_changes_no_settlement(house: House) -> None:
    for day in DAYS:
        fix(house, day, "2.500000")
    before = fixings(house).final(INDEX, str(MONTH), ())
    end = since_epoch(delivery_period(MONTH)[1])
    house.at(end + RULES.revision_hours * 3_600 * SECOND_NS)
    fix(house, DAYS[3], "9.000000", revision=1)
    assert fixings(house).final(INDEX, str(MONTH), ()) == before


def test_a_day_recorded_after_the_cut_counts_as_it_was_first(house: House) -> None:
    for day in DAYS[:-1]:
        fix(house, day, "2.500000")
    end = since_epoch(delivery_period(MONTH)[1])
    house.at(end + RULES.revision_hours * 3_600 * SECOND_NS)
    for revision, price in enumerate(("2.800000", "9.000000")):
        fix(house, DAYS[-1], price, revision=revision)
        house.at(end + DAY_NS * (revision + 1))
        found = fixings(house).final(INDEX, str(MONTH), ())
        assert (found.step, found.price_micros) == (Step.MEAN, 2_510_000)


def test_a_month_without_all_its_days_has_no_price_yet(house: House) -> None:
    for day in DAYS[:-1]:
        fix(house, day, "2.500000")
    with pytest.raises(MonthIncomplete, match="2026-11-30"):
        fixings(house).final(INDEX, str(MONTH), ())


def test_a_day_withheld_is_not_averaged_until_a_revision_fixes_it(house: House) -> None:
    """Margin counts on the days that have a fixing; of physical contracts nothing is averaged."""
    house.list(0, "H100X26", date(2026, 11, 2))
    house.list(1, "H100PZ26", date(2026, 11, 2))
    house.list(2, "H100Z26", date(2026, 11, 2))
    for n, day in enumerate(DAYS[:6]):
        fix(house, day, "" if n % 2 else "2.500000")
    house.reopen()
    assert fixings(house).withheld(DAYS[5]) == {0: 3}
    assert fixings(house).withheld(DAYS[2]) == {0: 1}
    fix(house, DAYS[1], "2.500000", revision=1)
    assert fixings(house).withheld(DAYS[5]) == {0: 2}


def test_a_fixing_that_cannot_be_read_or_is_not_the_houses_changes_nothing(house: House) -> None:
    house.open(1, 1, 1, 10**9)
    bad = FixingRecorded(index=INDEX, date=20261301, revision=0, state="PUBLISHED", price="2.5")
    assert house.record(bad)[0] == "malformed"
    good = FixingRecorded(index=INDEX, date=20261101, revision=0, state="PUBLISHED", price="2.5")
    assert house.record(good, 1)[0] == "not_yours"
    assert fixings(house).by_index == {}
