"""The prior price is the one that the date began with, whatever has been settled of it since."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from clearing_house import House
from msgspec.structs import replace

from exchange.clearing import Clearing
from exchange.clearing.cycles import SECOND, ScheduleCycles
from exchange.clearing.matters import At
from exchange.clearing.pricing import Prices
from exchange.clearing.records import SetPrice
from exchange.clearing.state import State
from exchange.messages import EVENT_FIELDS, Event, EventKind, Side

BEFORE, DAY = 20261118, 20261119
CODES = ("H100X26", "H100Z26", "H100F27")
DEPOSIT = 60_000_000_000


def at(hour: int, minute: int = 0) -> int:
    return int(datetime(2026, 11, 19, hour, minute, tzinfo=UTC).timestamp()) * SECOND


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Three months settled at 2.500; account 1 is long ten lots of the second against account 2,
    and the next date is open."""
    opened = House(Clearing.open(tmp_path / "clearing.db"))
    opened.market.stamp = at(9)
    for account in (1, 2):
        opened.open(account, account, 1, DEPOSIT)
    for number, code in enumerate(CODES):
        opened.list(number, code, date(2026, 11, 2))
    opened.day(BEFORE)
    opened.trade(1, 2, 10, 2_500, 1)
    for number in range(len(CODES)):
        opened.send(opened.market.settle(number, 2_500_000))
    opened.close(BEFORE)
    opened.day(DAY)
    yield opened
    opened.agree()
    opened.clearing.close()


def found(house: House) -> dict[str, int]:
    return {p.code: p.price for p in house.clearing.settlement_prices()}


def settle(house: House, number: int, price: int) -> None:
    house.send(house.market.settle(number, price, house.clearing.next_cycle(number)))


def cycle(house: House, hour: int) -> None:
    """Carry out the cycle of an hour."""
    house.at(at(hour, 1))
    for priced in house.clearing.cycle_prices():
        settle(house, priced.instrument, priced.price)


@pytest.mark.parametrize("hours", [(), (12,), (12, 14), (12, 14, 16)])
def test_a_change_counts_once_however_many_cycles_come(
    house: House, hours: tuple[int, ...]
) -> None:
    """The first month prints 2.900 and nobody holds it; the second has not traded."""
    house.record(ScheduleCycles(times=tuple(f"{hour}:00" for hour in hours)))
    house.trade(1, 2, 1, 2_900, 0)
    house.trade(2, 1, 1, 2_900, 0)
    for hour in hours:
        cycle(house, hour)
        house.reopen()
    house.at(at(18))
    house.close(DAY)
    assert found(house) == dict.fromkeys(CODES, 2_900_000)
    for number in range(len(CODES)):
        settle(house, number, 2_900_000)
    paid = house.clearing.statement(1, DAY).variation
    assert paid == 10 * 400_000 * house.clearing._state.instruments[1].multiplier


def test_months_that_nobody_holds_follow_after_a_cycle_too(house: House) -> None:
    house.record(ScheduleCycles(times=("12:00",)))
    house.trade(1, 2, 10, 2_900, 0)
    cycle(house, 12)
    house.at(at(16))
    house.close(DAY)
    assert found(house) == dict.fromkeys(CODES, 2_900_000)


def test_trades_of_the_stamp_at_which_a_cycle_fell_due_are_after_it(house: House) -> None:
    """Whoever carries it out later finds the price as it was."""
    house.record(ScheduleCycles(times=("12:00",)))
    house.trade(1, 2, 1, 2_600, 1)
    for price in (2_900, 3_100):
        house.market.stamp = at(12) - 1_000_000
        offered, taken = (house.market.enter(account, side, price, 9, instrument=1)
                          for account, side in ((2, Side.SELL), (1, Side.BUY)))  # fmt: skip
        house.send(offered, taken)
        (priced,) = house.clearing.cycle_prices()
        assert (house.market.stamp, priced.price) == (at(12), 2_600_000)


@pytest.mark.parametrize("approved", [0, 3_000_000])
def test_a_settlement_asked_again_finds_the_rest_as_it_was(house: House, approved: int) -> None:
    """Stopped after any month, the next ones still follow what the near month settled at."""
    house.trade(1, 2, 1, 2_600, 0)
    house.close(DAY)
    if approved:
        house.record(SetPrice(instrument=0, business_date=DAY, price=approved, reason="a test",
                              proposed_by="ann", approved_by="bob"))  # fmt: skip
    whole = found(house)
    assert whole == dict.fromkeys(CODES, approved or 2_600_000)
    for number, code in enumerate(CODES):
        settle(house, number, whole[code])
        house.reopen()
        assert found(house) == whole
        assert house.clearing.settled() == set(range(number + 1))


def test_a_correction_leaves_the_months_behind_it_alone(house: House) -> None:
    house.close(DAY)
    for number in range(len(CODES)):
        settle(house, number, 2_500_000)
    house.record(SetPrice(instrument=0, business_date=DAY, price=2_700_000, reason="a test",
                          correction=True, proposed_by="ann", approved_by="bob"))  # fmt: skip
    assert found(house) == {"H100X26": 2_700_000, "H100Z26": 2_500_000, "H100F27": 2_500_000}
    assert house.clearing.settled() == {1, 2}
    settle(house, 0, 2_700_000)


def test_no_rule_gives_less_than_a_step(house: House) -> None:
    """The near month falls by more than the others are worth."""
    house.send(house.market.settle(0, 5_000_000))
    house.close(DAY)
    house.day(DAY + 1)
    house.close(DAY + 1)
    house.record(SetPrice(instrument=0, business_date=DAY + 1, price=100, reason="a test",
                          proposed_by="ann", approved_by="bob"))  # fmt: skip
    assert found(house) == {"H100X26": 100, "H100Z26": 1_000, "H100F27": 1_000}


def test_what_is_listed_during_a_date_begins_at_its_first_mark(house: House) -> None:
    """It is settled at noon, and the month before it rises afterwards."""
    house.list(3, "H100G27", date(2026, 11, 2))
    house.trade(1, 2, 1, 2_600, 3)
    settle(house, 3, 2_600_000)
    house.trade(1, 2, 1, 2_800, 2)
    house.reopen()
    house.close(DAY)
    (last,) = [p for p in house.clearing.settlement_prices() if p.code == "H100G27"]
    assert (last.prior, last.preceding_change) == (2_500_000, 300_000)


def test_what_trades_no_more_stays_at_its_price(house: House) -> None:
    """A quote that nobody can touch moves neither the month, at noon nor at the end of the date,
    nor the months behind it; two persons do."""
    house.trade(1, 2, 5, 2_500, 0)
    house.close(DAY)
    for number in range(len(CODES)):
        settle(house, number, 2_560_000)
    house.record(ScheduleCycles(times=("12:00",)))
    begun = int(datetime(2026, 12, 1, 9, tzinfo=UTC).timestamp()) * SECOND
    house.at(begun)
    house.day(20261201)  # the first month's last trading day was 30 November
    house.at(begun + 4 * 3_600 * SECOND)
    (first, second) = house.clearing.cycle_prices()
    assert (first.code, first.tier, first.price) == ("H100X26", 5, 2_560_000)
    assert (second.tier, second.price) == (3, 2_560_000)
    house.close(20261201)
    house.reopen()
    found = house.clearing.settlement_prices({0: (2_400, 2_450), 1: (2_400, 2_450)})
    assert [(p.tier, p.price) for p in found] == [(5, 2_560_000), (2, 2_450_000), (3, 2_450_000)]
    house.record(SetPrice(instrument=0, business_date=20261201, price=2_600_000, reason="a test",
                          proposed_by="ann", approved_by="bob"))  # fmt: skip
    assert house.clearing.settlement_prices()[0].price == 2_600_000


def test_what_is_settled_is_stored_alike_wherever_the_house_was_stopped() -> None:
    """Numbers that a set would have in another order once it was read back."""
    settled = [291, 32, 130, 60, 253, 230, 241, 194, 107, 48]
    whole, stopped = Prices(closed=1), Prices(closed=1)
    plain = Event(**dict.fromkeys(EVENT_FIELDS, 0))
    for place, number in enumerate(settled):
        event = replace(plain, kind=EventKind.INSTRUMENT_SETTLED, instrument=number, quantity=1)
        for prices in (whole, stopped):
            prices.saw(event, At(place, place, DAY), State())
        stopped = msgspec.json.decode(msgspec.json.encode(stopped), type=Prices)
    assert msgspec.json.encode(stopped) == msgspec.json.encode(whole)
