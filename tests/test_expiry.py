"""Final settlement prices from the fixings that the log holds."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import pytest
import test_deliveries
from clearing_house import House
from test_deliveries import SHORT, assigned, attest, cut_off, deliveries, expire, noticed, tender

from contracts.calendar import Month, delivery_period
from contracts.index import methodology
from contracts.index.settlement import MonthIncomplete, Step
from exchange.clearing import Clearing
from exchange.clearing.delivery.terms import SECOND_NS, since_epoch
from exchange.clearing.expiry import FixingRecorded, Fixings
from exchange.messages import Command, CommandKind, TradingState

INDEX: Final = "HBX-H100"
MONTH: Final = Month(2026, 11)
RULES: Final = methodology.load().index(INDEX).settlement
DAY_NS: Final = 86_400 * SECOND_NS
DAYS: Final = [MONTH.first_day + timedelta(days=n) for n in range(MONTH.days)]


delivering = test_deliveries.house  # a fixture


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


def test_the_mean_of_the_market_does_not_depend_on_when_the_contract_expires(house: House) -> None:
    """Dates after its last trading day repeat a price, and an open date has none yet."""
    house.list(0, "H100X26", date(2026, 11, 2))
    for day in DAYS:
        fix(house, day, "")

    def final() -> tuple[Step, int | None]:
        found = house.clearing.final_price(0, INDEX, str(MONTH))
        return found.step, found.price_micros

    for number, price in (
        (20261123, 2_000_000), (20261124, 2_100_000), (20261125, 2_200_000), (20261127, 2_300_000),
        (20261130, 3_000_000),
    ):  # fmt: skip
        house.day(number)
        house.send(house.market.settle(0, 2_900_000))  # an intraday cycle
        assert final() == (Step.UNDETERMINED, None)
        house.close(number)
        house.send(house.market.settle(0, price, cycle=2))
    for number in (20261201, 20261202):
        assert final() == (Step.MARKET_MEAN, 2_320_000)
        house.day(number)
        house.close(number)
        (priced,) = house.clearing.settlement_prices()
        house.send(house.market.settle(0, priced.price))
    house.day(20261203)
    house.send(house.market.settle(0, 2_400_000))
    assert final() == (Step.MARKET_MEAN, 2_320_000)
    house.reopen()
    assert final() == (Step.MARKET_MEAN, 2_320_000)


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


def test_a_buy_in_is_at_the_last_revision_of_the_first_day_with_a_price(house: House) -> None:
    first, second, third, fourth, *_ = DAYS
    assert fixings(house).since(INDEX, first) is None
    for day, price, revision in (
        (first, "1.000000", 0), (second, "", 0), (fourth, "4.000000", 0), (third, "3.000000", 0),
        (third, "3.100000", 1),
    ):  # fmt: skip
        assert fix(house, day, price, revision) == "accepted"
    found = [fixings(house).since(INDEX, day) for day in (first, second, third, fourth)]
    assert [one and one.price_micros for one in found] == [
        1_000_000, 3_100_000, 3_100_000, 4_000_000,
    ]  # fmt: skip
    assert fixings(house).since(INDEX, DAYS[4]) is None
    assert fix(house, third, "", revision=2) == "accepted"  # the price is withdrawn
    found = [fixings(house).since(INDEX, day) for day in (second, third)]
    assert [one and one.price_micros for one in found] == [4_000_000, 4_000_000]


def test_a_fixing_that_cannot_be_read_or_is_not_the_houses_changes_nothing(house: House) -> None:
    house.open(1, 1, 1, 10**9)
    bad = FixingRecorded(index=INDEX, date=20261301, revision=0, state="PUBLISHED", price="2.5")
    assert house.record(bad)[0] == "malformed"
    assert {fix(house, DAYS[0], price) for price in ("0", "-2.5", "140737489")} == {"malformed"}
    assert fix(house, DAYS[0], "2.5", revision=-1) == "malformed"
    good = FixingRecorded(index=INDEX, date=20261101, revision=0, state="PUBLISHED", price="2.5")
    assert house.record(good, 1)[0] == "not_yours"
    assert fixings(house).by_index == {}


def test_a_revision_of_a_day_is_recorded_once_however_many_requests_ago(house: House) -> None:
    """The engine remembers the last 256 of the house's requests; fixings are asked for later."""
    assert fix(house, DAYS[0], "2.500000") == fix(house, DAYS[0], "2.600000", 1) == "accepted"
    house.reopen()
    assert fix(house, DAYS[0], "2.600000", 1) == "accepted"
    assert house.rulings("record_fixing")[-1][2]["before"]
    assert [fix(house, DAYS[0], price, 1) for price in ("9.000000", "")] == ["duplicate"] * 2
    found = house.rulings("record_fixing")[-2][2]
    assert (found["limit"], found["observed"]) == ("2600000 ab", "9000000 ab")
    assert [one.price_micros for one in fixings(house).by_index[INDEX]] == [2_500_000, 2_600_000]
    assert fixings(house).latest(INDEX) == 2_600_000


# What nobody can ask for any more


def test_the_fixings_of_a_month_that_is_settled_are_forgotten(house: House) -> None:
    """But for those of the month before, and of what is still to settle."""
    house.list(0, "H100X26", date(2026, 11, 2))
    house.list(1, "H100Z26", date(2026, 11, 2))
    house.day(20261102)
    for day in (date(2026, 9, 30), date(2026, 10, 1), *DAYS, date(2026, 12, 1)):
        fix(house, day, "2.500000")
    before = house.clearing.final_price(0, INDEX, str(MONTH))
    ended = Command(kind=CommandKind.EXPIRE, instrument=0, price=before.price_micros or 0)
    house.close(20261102)
    house.send(Command(kind=CommandKind.SET_STATE, instrument=0, tif=TradingState.CLOSED), ended)
    known = fixings(house).by_index[INDEX]
    assert (known[0].date, len(known)) == (date(2026, 10, 1), 32)
    assert list(fixings(house).averages) == [1]
    house.day(20270104)
    fix(house, date(2027, 1, 4), "2.500000")
    ended = Command(kind=CommandKind.EXPIRE, instrument=1, price=2_500_000)
    house.send(Command(kind=CommandKind.SET_STATE, instrument=1, tif=TradingState.CLOSED), ended)
    assert [one.date for one in fixings(house).by_index[INDEX]] == [
        date(2026, 12, 1), date(2027, 1, 4),
    ]  # fmt: skip
    held = house.clearing.matter("fixings")
    house.clearing.rebuild(house.market.frames)
    assert house.clearing.matter("fixings") == held


def test_a_delivery_that_has_ended_is_closed_and_told_ever_after(delivering: House) -> None:
    """A day later nothing of it is on its way, and the matter forgets it; who asks is answered as
    before, and so is who asks a ledger that was rebuilt."""
    house = delivering
    assigned(house)
    assert deliveries(house).factors == {}
    assert set(deliveries(house).expiries) == {0}
    (expiry,) = deliveries(house).expiries.values()
    assert (expiry.longs, expiry.notices, expiry.assigned) == ({}, [], True)
    house.pay(but=("delivery 1 escrow",))
    house.at(expiry.terms.begin_ns)
    house.pay()
    (ended,) = deliveries(house).deliveries
    assert ended.stage == "unpaid"
    clearing = house.clearing
    told, listed = clearing.delivery(1), clearing.deliveries()
    house.at(ended.known_until - 1)
    assert len(deliveries(house).deliveries) == 1
    assert clearing.deadline() == ended.known_until
    house.at(ended.known_until)
    house.at(ended.known_until + DAY_NS)
    assert (deliveries(house).deliveries, deliveries(house).begun) == ([], 1)
    assert len([f for *_, f in house.rulings("delivery") if "terms" in f]) == 1
    outcome, facts = house.record(attest(SHORT, 1))
    assert (outcome, facts["observed"]) == ("delivery_state", "closed")
    outcome, facts = house.record(test_deliveries._alternative(SHORT))
    assert (outcome, facts["observed"]) == ("delivery_state", "closed")
    held = clearing.matter("deliveries")
    for _ in range(2):
        assert clearing.delivery(1) == told is not None and clearing.deliveries() == listed
        assert clearing.delivery(0) is None is clearing.delivery(2)
        assert clearing.matter("deliveries") == held
        clearing.rebuild(house.market.frames)


def test_what_a_contract_is_assigned_by_is_known_until_it_expires(delivering: House) -> None:
    noticed(delivering)
    assert delivering.record(tender())[0] == "accepted"
    cut_off(delivering)
    assert deliveries(delivering).expiries[0].notices and deliveries(delivering).factors
    expire(delivering)
    assert not deliveries(delivering).expiries[0].notices
    assert delivering.record(tender())[0] == "late"
