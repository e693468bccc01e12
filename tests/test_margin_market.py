"""Margin in a market: parameters by the log, requirements of its positions, and how far a
requirement may pass what the engine held (docs/reference/margin.md states and proves it).
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from clearing_house import House
from clearing_market import TestMarket, signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import history, registry, symbol
from exchange.clearing import Clearing
from exchange.clearing.calling import CallMargin, Pledge, ValueAsset
from exchange.clearing.margin import book, calibrate, model, rules
from exchange.clearing.margin.matter import AdoptMargin
from exchange.clearing.margin.parameters import (
    Band,
    MarginFault,
    MarginParameters,
    Offset,
    ProductMargin,
    fault,
    lot_rates,
)
from exchange.clearing.members.registry import Registry
from exchange.clearing.records import write
from exchange.messages import HOUSE_ACCOUNT, Command, CommandKind, Side, TradingState

DAY = date(2026, 12, 10)
DATE = 20261210
ACCOUNTS = range(1, 5)
LIMIT_PERCENT = 10
CODES = ("H100Z26", "H100F27", "H100G27", "H100PF27", "B200Z26", "B200F27")


def product(name: str, **changed: Any) -> ProductMargin:
    terms: dict[str, Any] = {
        "product": name, "bands": (Band(0, 1_250), Band(2, 1_100)), "floor_bp": 1_000,
        "spread_bp": 400, "delivery_bp": 400, "delivery_spread_bp": 150, "liquidity_bp": 50,
        "daily_volume": 400, "participation_percent": 25, "maintenance_percent": 90,
    }  # fmt: skip
    return ProductMargin(**(terms | changed))


def version(number: int = 1, effective: int = DATE, **changed: Any) -> MarginParameters:
    terms: dict[str, Any] = {
        "inputs_hash": "ab" * 32,
        "products": (
            product("H100", averaged=True), product("H100P", notice_days=30), product("B200"),
        ),
    }  # fmt: skip
    return MarginParameters(version=number, effective=effective, **(terms | changed))


@dataclass
class Listed:
    """An expiry of the test market."""

    number: int
    code: str
    multiplier: int
    mark: int


class MarginMarket(TestMarket):
    """Expiries with real codes, held at the rates that the parameters ask for."""

    def open(self, terms: MarginParameters, deposit: int) -> list[Listed]:
        listed = []
        for number, code in enumerate(CODES):
            hours = symbol.parse_outright(code).expiry.hours
            mark = 2_500_000 if code.startswith("H100") else 6_500_000
            listed.append(Listed(number, code, hours, mark))
            self.list_code(listed[-1], terms)
        for account in ACCOUNTS:
            self.open_account(account, deposit)
        self.apply(self.open_day(DATE))
        return listed

    def list_code(self, one: Listed, terms: MarginParameters) -> None:
        reach = one.mark * LIMIT_PERCENT // 100_000
        low, high = signed(one.mark // 1_000 - reach), signed(one.mark // 1_000 + reach)
        rate = lot_rates(terms, one.code, one.multiplier, one.mark, DAY).hold
        self.apply(
            Command(
                kind=CommandKind.LIST, instrument=one.number, price=one.mark,
                quantity=one.multiplier, session=1_000, account=1, operator=1,
                target_lo=low, target_hi=high,
            ),
            Command(
                kind=CommandKind.SET_RISK, instrument=one.number, price=rate, quantity=1 << 20,
                session=1_000,
            ),
            Command(
                kind=CommandKind.SET_STATE, instrument=one.number, tif=TradingState.CONTINUOUS
            ),
            texts=[(0, f'{{"code": "{one.code}"}}')],
        )  # fmt: skip

    def credit_spreads(self, listed: Sequence[Listed], terms: MarginParameters) -> None:
        """Give H100's calendar spreads the largest credits under which the bound is stated."""
        months = [one for one in listed if symbol.parse_outright(one.code).root == "H100"]
        lots = [lot_rates(terms, one.code, one.multiplier, one.mark, DAY) for one in months]
        charge = max(lot.spread for lot in lots)
        pairs = [(near, far) for near in range(len(months)) for far in range(near + 1, len(months))]
        for number, (near, far) in enumerate(pairs, len(listed)):
            legs = months[near], months[far]
            spared = min(lots[near].scan_whole, lots[far].scan_whole) - charge
            self.apply(
                Command(
                    kind=CommandKind.LIST_COMBINATION, instrument=number, quantity=0xF1,
                    key_lo=legs[0].number | legs[1].number << 16, target_lo=signed(-500),
                    target_hi=500,
                ),
                Command(kind=CommandKind.SET_RISK, instrument=number, key_lo=max(0, spared)),
                texts=[(0, f'{{"code": "{legs[0].code}-{legs[1].code}"}}')],
            )  # fmt: skip

    def adopt(self, terms: MarginParameters, account: int = HOUSE_ACCOUNT) -> None:
        """The record of a version, whatever clearing makes of it."""
        command = Command(kind=CommandKind.RECORD, account=account, key_lo=self.key())
        self.apply(command, texts=[(0, write(AdoptMargin(parameters=terms)))])

    def trade(self, one: Listed, buyer: int, seller: int, lots: int, ticks: int) -> None:
        self.apply(
            self.enter(seller, Side.SELL, ticks, lots, instrument=one.number),
            self.enter(buyer, Side.BUY, ticks, lots, instrument=one.number),
        )


# Parameters: what may be adopted, and what a lot costs under them.


@pytest.mark.parametrize(
    ("changed", "right"),
    [
        ({"number": 3}, (MarginFault.VERSION, 1, 3)),
        ({"effective": 20261209}, (MarginFault.EFFECTIVE, DATE, 20261209)),
        ({"products": (product("H100"), product("X"))}, (MarginFault.PRODUCT_UNKNOWN, 0, 1)),
        ({"products": (product("H100"), product("H100"))}, (MarginFault.PRODUCT_TWICE, 1, 2)),
        ({"products": (product("B200"),)}, (MarginFault.PRODUCT_MISSING, 1, 0)),
        (
            {"products": (product("H100", bands=(Band(2, 1_250), Band(2, 1_250))),)},
            (MarginFault.BANDS_ORDER, 3, 2),
        ),
        (
            {"products": (product("H100", bands=(Band(0, 1_250), Band(3, 999))),)},
            (MarginFault.BELOW_LIMIT_MOVE, 1_000, 999),
        ),
        (
            {"products": (product("H100", spread_bp=1_101),)},
            (MarginFault.SPREAD_RANGE, 1_100, 1_101),
        ),
        (
            {"products": (product("H100", delivery_spread_bp=401),)},
            (MarginFault.DELIVERY_RANGE, 400, 401),
        ),
        (
            {"offsets": (Offset(a="H100", b="H100", percent=1),)},
            (MarginFault.OFFSET_PRODUCTS, 2, 1),
        ),
        (
            {"offsets": (Offset(a="H100", b="A100", percent=1),)},
            (MarginFault.OFFSET_PRODUCTS, 2, 2),
        ),
    ],
    ids=lambda given: given[0].name if isinstance(given, tuple) else "",
)
def test_every_fault_has_a_name_a_limit_and_what_was_seen(
    changed: dict[str, Any], right: tuple[MarginFault, int, int]
) -> None:
    found = fault(version(**changed), 0, DATE, {"H100"})
    assert found is not None
    assert (found.fault, found.limit, found.observed) == right


def test_of_several_faults_the_lowest_number_is_named() -> None:
    wrong = version(number=9, effective=20200101, products=(product("H100", spread_bp=20_000),))
    found = fault(wrong, 0, DATE, {"H100", "B200"})
    assert found is not None and found.fault == MarginFault.VERSION
    assert fault(version(), 0, DATE, {"H100", "B200"}) is None


@pytest.mark.parametrize("wrong", [{"scan_bp": -1}, {"scan_bp": 20_001}, {"months": 121}])
def test_figures_out_of_range_are_not_read(wrong: dict[str, int]) -> None:
    good = msgspec.json.decode(version().to_json())
    good["products"][0]["bands"][0] |= wrong
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(good, MarginParameters)


def test_a_lot_of_each_expiry() -> None:
    """Values are exact: 2.5 dollars x hours; a December contract on the tenth has 21 days left."""
    terms = version()
    far = lot_rates(terms, "H100G27", 672, 2_500_000, DAY)
    assert far.scan_range == far.scan_whole == 2_500_000 * 672 * 1_100 // 10_000
    assert (far.delivery, far.relief, far.spot) == (0, 0, False)
    spot = lot_rates(terms, "H100Z26", 744, 2_500_000, DAY)
    value = 2_500_000 * 744
    assert spot.scan_whole == value * 1_250 // 10_000
    assert spot.scan_range == -(-value * 1_250 * 21 // (10_000 * 31))
    assert (spot.delivery, spot.relief) == (value * 400 // 10_000, value * 250 // 10_000)
    assert spot.hold == spot.scan_whole + spot.delivery + value * 50 // 10_000
    last = lot_rates(terms, "H100Z26", 744, 2_500_000, date(2026, 12, 31))
    assert last.scan_range == 0 < last.scan_whole  # all of the month is averaged
    # of the ten days past four have no fixing: each that is left weighs one in twenty-seven
    thin = lot_rates(terms, "H100Z26", 744, 2_500_000, DAY, withheld=4)
    assert thin.scan_range == -(-value * 1_250 * 21 // (10_000 * 27)) > spot.scan_range
    never = lot_rates(terms, "H100Z26", 744, 2_500_000, DAY, withheld=10)
    assert never.scan_range == never.scan_whole
    over = lot_rates(terms, "H100Z26", 744, 2_500_000, date(2026, 12, 31), withheld=31)
    assert over.scan_range == over.scan_whole  # the ladder's last steps may still move
    physical = lot_rates(terms, "H100PF27", 744, 2_500_000, DAY)
    assert physical.spot and physical.scan_range == physical.scan_whole  # nothing is averaged


def test_no_scan_range_is_below_a_daily_limit_move() -> None:
    """Of what can still move: every proposed product, every expiry of a year, on every day."""
    found = registry.load()
    specs = {name: found.spec(name, DAY) for name in found.products}
    proposed = calibrate.calibrate(
        specs, history.load(), history.shipped(), effective=DATE
    ).parameters
    assert fault(proposed, 0, DATE, found.products) is None
    for listed in found.listing(DAY):
        price = 2_500_000
        lot = lot_rates(proposed, listed.code, listed.multiplier, price, DAY)
        move = listed.limits(settlement_micros=price)[1] * listed.tick_scale - price
        assert lot.scan_whole >= move * listed.multiplier
        left = (
            (31 - DAY.day) / 31
            if listed.code.endswith("Z26") and not listed.first_notice_day
            else 1
        )
        assert lot.scan_range >= move * listed.multiplier * left


# Parameters by the log.


@pytest.fixture
def clearing(tmp_path: Path) -> Any:
    opened = Clearing.open(tmp_path / "clearing.db")
    yield opened
    opened.close()


def test_versions_come_by_the_log_and_into_force_on_their_date(
    clearing: Clearing, tmp_path: Path
) -> None:
    market = MarginMarket()
    market.open(version(), 10**12)
    market.adopt(version())
    market.adopt(version(2, DATE + 2))
    market.adopt(version(2, DATE + 3))  # number 2 is taken
    market.adopt(version(3, DATE + 4), account=1)  # not an operator
    market.adopt(version(3, DATE - 1))  # a date gone by
    market.adopt(version(3, DATE + 1, products=(product("H100"),)))  # two are not covered
    clearing.apply(market.frames)
    assert [one.version for one in clearing.margin_versions()] == [1, 2]
    rulings = [one for frame in market.frames for one in clearing.rulings(frame.first_sequence)]
    assert [(r["outcome"], r["facts"].get("number")) for r in rulings] == [
        ("accepted", None),
        ("accepted", None),
        ("version", 2301),
        ("not_yours", 2201),
        ("effective", 2302),
        ("product_missing", 2305),
    ]
    in_force = [clearing.margin_parameters(DATE + n) for n in range(4)]
    assert [one.version if one else 0 for one in in_force] == [1, 1, 2, 2]
    assert clearing.margin_parameters(DATE - 1) is None
    before = len(market.frames)
    market.apply(Command(kind=CommandKind.CLOSE_DAY, quantity=DATE), market.open_day(DATE + 3))
    market.adopt(version(3, DATE + 3))
    clearing.apply(market.frames[before:])
    assert [one.version for one in clearing.margin_versions()] == [2, 3]
    clearing.close()
    again = Clearing.open(tmp_path / "clearing.db")
    assert [one.version for one in again.margin_versions()] == [2, 3]
    again.rebuild(market.frames)
    assert [one.version for one in again.margin_versions()] == [2, 3]
    again.close()


def test_without_parameters_there_is_no_margin_and_it_says_so(clearing: Clearing) -> None:
    market = MarginMarket()
    market.open(version(), 10**12)
    clearing.apply(market.frames)
    with pytest.raises(LookupError, match="no margin parameters"):
        clearing.margins()


def test_what_is_no_expiry_has_no_margin_and_no_guess(clearing: Clearing) -> None:
    """Instruments of odd codes: flat they ask for nothing, held they are named."""
    market = MarginMarket()
    odd = Listed(0, "H100-0", 744, 2_500_000)
    for account in ACCOUNTS:
        market.open_account(account, 10**12)
    market.list_instrument(0, (0, 0))
    market.apply(market.open_day(DATE))
    market.adopt(version())
    clearing.apply(market.frames)
    assert clearing.margins() == []
    before = len(market.frames)
    market.trade(odd, 1, 2, 1, 2_500)
    clearing.apply(market.frames[before:])
    assert clearing.margins() == []
    before = len(market.frames)
    market.list_code(f27 := Listed(1, "H100F27", 744, 2_500_000), version())
    market.trade(f27, 3, 1, 2, 2_500)
    clearing.apply(market.frames[before:])
    assert [r.account for r in clearing.margins()] == [3]
    assert clearing.uncovered() == {1: ["H100-0"], 2: ["H100-0"]}


def test_requirements_of_a_small_market(clearing: Clearing) -> None:
    """Two spreads and an outright, computed by hand: averaged, spot, relieved and concentrated."""
    market = MarginMarket()
    z26, f27, g27, *_ = market.open(version(), 10**12)
    market.adopt(version())
    market.trade(f27, 1, 2, 10, 2_500)
    market.trade(g27, 2, 1, 10, 2_500)
    market.trade(z26, 3, 4, 300, 2_500)
    clearing.apply(market.frames)
    spread, _, outright, _ = clearing.margins()
    terms = version()
    f, g, z = (lot_rates(terms, x.code, x.multiplier, x.mark, DAY) for x in (f27, g27, z26))
    (part,) = spread.parts
    assert (part.product, part.worst_scenario) == ("H100", 13)
    assert part.scan == 10 * (f.scan_range - g.scan_range)
    assert part.calendar == 10 * max(f.spread, g.spread, z.spread)
    assert (part.delivery, part.concentration) == (0, 0)
    assert spread.requirement == part.scan + part.calendar + 10 * (f.liquidity + g.liquidity)
    assert spread.hold == 10 * (f.hold + g.hold)
    assert (spread.cash, spread.loss) == (10**12, 0)
    (part,) = outright.parts
    assert part.delivery == 300 * z.delivery
    base = part.scan + part.delivery
    whole = base + part.concentration
    # 300 lots are three days of a quarter of 400: the root of three, rounded up
    assert (whole - 1) ** 2 < 3 * base**2 <= whole**2
    assert outright.excess == 10**12 - outright.requirement
    owing = replace(outright, cash=70, collateral=9, loss=4)
    assert (owing.balance, owing.excess) == (75, 75 - outright.requirement)
    assert outright.maintenance == -(-outright.requirement * 90 // 100)
    for cash, call in (
        (outright.maintenance, 0),
        (outright.maintenance - 1, outright.requirement - outright.maintenance + 1),
    ):
        assert replace(outright, cash=cash).call == call


def test_a_call_comes_below_maintenance_and_asks_for_all(tmp_path: Path) -> None:
    """`clear margin` and `call_margin` agree at every balance, collateral and the loss since the
    last settlement counted in both."""
    market = MarginMarket()
    _, f27, *_ = market.open(version(), 10**12)
    market.adopt(version())
    market.trade(f27, 1, 2, 50, 2_500)
    house = House(Clearing.open(tmp_path / "clearing.db"), market)
    house.clearing.apply(market.frames)

    def one() -> book.Requirement:
        return next(r for r in house.clearing.margins() if r.account == 1)

    def called() -> int:
        """What a look calls, which is what was said before it."""
        said = one().call
        assert house.record(CallMargin())[1]["calls"].get("1", 0) == said
        return said

    need, kept = one().requirement, one().maintenance
    assert 0 < kept < need
    house.send(market.money(CommandKind.FEE, 1, one().cash - kept))
    assert called() == 0  # at maintenance is not below it
    house.send(market.money(CommandKind.FEE, 1, 1))
    assert called() == need - kept + 1
    house.send(market.money(CommandKind.DEPOSIT, 1, 2))
    assert one().cash > kept and called() == need - kept - 1  # once called, to the requirement
    house.record(ValueAsset(asset="BILL", price=need - kept, haircut_bp=0))
    assert house.record(Pledge(id="p", account=1, asset="BILL", units=1))[1]["met"]
    assert (one().collateral, one().excess, called()) == (need - kept, 1, 0)
    house.send(Command(kind=CommandKind.MARK, instrument=f27.number, price=2_400_000))
    loss = 50 * f27.multiplier * 100_000
    assert [r.loss for r in house.clearing.margins()] == [loss, 0]  # the other's gain is none yet
    assert (one().excess, called()) == (1 - loss, loss - 1)
    house.agree()
    house.clearing.close()


def test_the_filtered_weeks_of_a_book_are_their_sum(clearing: Clearing) -> None:
    """A spread loses nothing, an outright its value's 99 % week, a chip without history the worst
    of the others' on either side; and no requirement is below it today."""
    market = MarginMarket()
    z26, f27, _, _, b26, _ = market.open(version(), 10**12)
    market.adopt(version())
    market.trade(z26, 1, 2, 10, 2_500)
    market.trade(f27, 2, 1, 10, 2_500)  # as many hours: no value is left
    market.trade(b26, 3, 4, 10, 6_500)
    clearing.apply(market.frames)
    panel = history.load().daily
    losses = clearing.historical_losses(panel, 7, 9_900)
    moves = model.filtered(model.changes(panel.products["B200"].levels), 7)
    value = 10 * b26.multiplier * b26.mark
    worst = {3: 1 - math.exp(np.min(moves)), 4: math.exp(np.max(moves)) - 1}
    assert (losses[1], losses[2]) == (0, 0)
    for account, share in worst.items():
        assert losses[account] == pytest.approx(value * share, rel=1e-9)
    assert all(losses[r.account] <= r.requirement for r in clearing.margins())
    unknown = {name: s for name, s in panel.products.items() if name != "B200"}
    losses = clearing.historical_losses(msgspec.structs.replace(panel, products=unknown), 7, 9_900)
    assert losses[3] == losses[4] > 0


# The engine's hold and the requirement.


def play(market: MarginMarket, listed: Sequence[Listed], draw: random.Random) -> None:
    """Trades and resting orders inside the day's limits; some that the hold refuses."""
    for _ in range(30):
        one = draw.choice(listed)
        ticks = one.mark // 1_000
        price = draw.randint(ticks - ticks // 11, ticks + ticks // 11)
        buyer, seller = draw.sample(ACCOUNTS, 2)
        market.trade(one, buyer, seller, draw.randint(1, 900), price)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_a_requirement_passes_the_hold_by_no_more_than_is_stated(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw = random.Random(seed)
    terms = version(
        products=tuple(
            product(name, averaged=name != "H100P", notice_days=30 * (name == "H100P"),
                    daily_volume=draw.choice((100, 400, 10_000)),
                    spread_bp=draw.choice((0, 400, 1_100)))
            for name in ("H100", "H100P", "B200")
        )
    )  # fmt: skip
    market = MarginMarket()
    listed = market.open(terms, draw.choice((10**12, 10**14)))
    market.adopt(terms)
    if draw.random() < 0.7:
        market.credit_spreads(listed, terms)
    play(market, listed, draw)
    held: dict[tuple[int, str], int] = defaultdict(int)  # by the engine, account and product
    lots: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for account in ACCOUNTS:
        for one in listed:
            position = market.engine.position(account, one.number)
            key = account, symbol.parse_outright(one.code).root
            held[key] += position["hold"]
            lots[key][position["net"] < 0] += abs(position["net"])
        held[account, "H100"] -= market.engine.account(account)["credit"]
    for one in listed:  # anywhere inside the limits of the day
        reach = one.mark * LIMIT_PERCENT // 100
        market.apply(market.settle(one.number, one.mark + draw.choice((-1, 0, 1)) * reach))
    clearing = Clearing.open(tmp_path_factory.mktemp("bound") / "clearing.db")
    try:
        clearing.apply(market.frames)
        requirements = clearing.margins()
    finally:
        clearing.close()
    assert requirements
    for one_account in requirements:
        for part in one_account.parts:
            key = one_account.account, part.product
            more = book.bound(terms, part.product, max(lots[key]), LIMIT_PERCENT)
            rounding = 4 * sum(lots[key]) * 10_000
            assert part.total * 10_000 <= held[key] * (10_000 + more) + rounding


@pytest.mark.parametrize("seed", range(6))
def test_a_members_margin_is_what_the_engine_holds_credits_included(
    seed: int, tmp_path: Path
) -> None:
    """The fund is sized for losses beyond it, and a lender sees it of its box."""
    draw, terms, market = random.Random(seed), version(), MarginMarket()
    listed = market.open(terms, 10**14)
    market.adopt(terms)
    if draw.random() < 0.8:
        market.credit_spreads(listed, terms)
    play(market, listed, draw)
    sweep = [Command(kind=CommandKind.MASS_CANCEL, account=a, side=2) for a in ACCOUNTS]
    market.apply(*sweep)
    house = House(Clearing.open(tmp_path / "clearing.db"), market)
    house.clearing.apply(market.frames)

    def agree() -> int:
        given = 0
        for account in ACCOUNTS:
            credit = market.engine.account(account)["credit"]
            held = sum(market.engine.position(account, one.number)["hold"] for one in listed)
            state = house.clearing._state
            assert state.matters.get(Registry).margin(account, state) == held - credit
            given += credit
        return given

    first = agree()
    state = house.clearing._state
    assert {r.account: r.hold for r in house.clearing.margins()} == {  # at the rates of that day
        account: state.matters.get(Registry).margin(account, state)
        for account in ACCOUNTS
        if any(market.engine.position(account, one.number)["net"] for one in listed)
    }
    assert (first > 0) == (len(house.clearing._state.instruments) > len(listed))
    if first:  # a lower rate of one leg caps the credits of its spreads
        cheap = Command(
            kind=CommandKind.SET_RISK, instrument=0, price=10**7, quantity=1 << 20, session=1_000
        )
        house.send(cheap)
        assert agree() < first
        house.reopen()
        agree()
    margin = house.clearing.sizing().margin
    assert sum(margin.values()) == sum(
        market.engine.position(a, one.number)["hold"] for a in ACCOUNTS for one in listed
    ) - sum(market.engine.account(a)["credit"] for a in ACCOUNTS)
    house.clearing.close()


def test_the_bound_is_reached() -> None:
    """A lone position at the limit of the day comes within a twentieth of the stated bound."""
    terms = version(products=(product("H100", liquidity_bp=0),))
    lots, mark, up = 400, 2_500_000, 2_750_000
    held = lots * lot_rates(terms, "H100F27", 744, mark, DAY).hold
    base = lots * lot_rates(terms, "H100F27", 744, up, DAY).scan_range
    asked = base + concentrated(base, lots)
    stated = book.bound(terms, "H100", lots, LIMIT_PERCENT)
    assert stated == 12_000  # 1.1 x the root of 400 / (400 x 25 %), less 1
    assert 0.95 * stated <= (asked - held) * 10_000 / held <= stated


def concentrated(margin: int, lots: int) -> int:
    return rules.concentration(margin, lots, 400, 25)
