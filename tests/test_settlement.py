"""The day's prices: the rules as tables, a market's own months, and what two persons may say."""

import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clearing_house import House
from clearing_market import (
    ACCOUNTS,
    DAY,
    INSTRUMENTS,
    MULTIPLIER,
    open_market,
    random_day,
    signed,
)

from exchange.clearing import Clearing
from exchange.clearing.calls import Required, margin_call
from exchange.clearing.ledger import EntryKind
from exchange.clearing.novation import Positions
from exchange.clearing.prices import Month, Traded, settle_day
from exchange.clearing.pricing import Prices
from exchange.clearing.profit import AverageCost
from exchange.clearing.records import SetPrice, write
from exchange.clearing.settlement import (
    SpreadPrice,
    daily_price,
    nearest_tick,
    spread_blend,
)
from exchange.messages import EVENT, INDEX_BITS, Command, CommandKind, EventKind, Reason, Side

TABLE = Path(__file__).parent / "tables" / "settlement.json"


def cases(kind: str) -> list[Any]:
    found = json.loads(TABLE.read_text())["cases"]
    return [
        pytest.param(c["inputs"], c["expected"], id=c["id"]) for c in found if c["kind"] == kind
    ]


@pytest.mark.parametrize(("inputs", "expected"), cases("daily_price"))
def test_daily_price_vectors(inputs: dict[str, Any], expected: dict[str, int]) -> None:
    trades = inputs["window_trades"]
    rest = {k: v for k, v in inputs.items() if k not in ("prior", "window_trades")}
    value, quantity = sum(p * q for p, q in trades), sum(q for _, q in trades)
    assert daily_price(inputs["prior"], value, quantity, **rest)._asdict() == expected


@pytest.mark.parametrize(
    ("prior", "value", "quantity", "tick", "price"),
    [
        (424, 426 * 50 + 427 * 50, 100, 1, 426),  # a half, prior below
        (430, 426 * 50 + 427 * 50, 100, 1, 427),  # a half, prior above
        (2_500_499, 2_500 * 1_000 + 2_501 * 1_000, 2, 1_000, 2_500_000),  # prior off the tick
        (2_500_501, 2_500 * 1_000 + 2_501 * 1_000, 2, 1_000, 2_501_000),
        (2_500_500, 2_500 * 1_000 + 2_501 * 1_000, 2, 1_000, 2_500_000),  # as near: the lower
        (0, -7, 2, 1, -3),  # prices may be negative: -3.5, prior above
        (-9, -7, 2, 1, -4),
        (0, -10, 3, 1, -3),
        (0, 10, 3, 5, 5),
    ],
)
def test_average_price_goes_to_the_nearest_tick(
    prior: int, value: int, quantity: int, tick: int, price: int
) -> None:
    assert daily_price(prior, value, quantity, tick=tick) == (1, price)


@pytest.mark.parametrize(("inputs", "expected"), cases("variation"))
def test_variation_vectors(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    names = {name for day in expected["days"] for name in day["cash"]}
    ids = {name: number for number, name in enumerate(sorted(names), 1)}
    positions, tick = Positions(), inputs["value_per_tick"]
    for name, net in inputs["opening"].items():
        positions.add(ids[name], 1, net, net * inputs["prior_settle"] * tick)
    for day, right in zip(inputs["days"], expected["days"], strict=True):
        for t in day["trades"]:
            value = t["qty"] * t["price"] * tick
            positions.trade(1, ids[t["buyer"]], ids[t["seller"]], t["qty"], value)
        held = {name: positions.get(ids[name], 1) for name in right["cash"]}
        paid = {name: p.variation(day["settle"], tick) for name, p in held.items()}
        assert paid == right["cash"]
        assert sum(paid.values()) == right["sum"]
        assert {name: p.net for name, p in held.items()} == right["positions"]
        positions.strike(1, day["settle"], tick)


def test_the_table_is_the_vectors(shared: Path) -> None:
    vectors = {
        c["id"]: c for c in json.loads((shared / "vectors/settlement.json").read_text())["cases"]
    }
    for case in json.loads(TABLE.read_text())["cases"]:
        assert case.items() <= vectors[case["id"]].items()


@pytest.mark.parametrize(("inputs", "expected"), cases("spread_blend"))
def test_spread_blend_vectors(inputs: dict[str, Any], expected: dict[str, int]) -> None:
    spreads = [
        SpreadPrice((inputs["settled"][s["near"]] - s["price"]) * s["volume"], s["volume"],
                    s["months_apart"])
        for s in inputs["spreads"]
        if s["far"] == inputs["month"] and s["near"] in inputs["settled"]
    ]  # fmt: skip
    assert spread_blend(spreads) == expected["price"]


@pytest.mark.parametrize(("inputs", "expected"), cases("weighted_85_15"))
def test_weighted_vectors(inputs: dict[str, Any], expected: dict[str, int]) -> None:
    """Another market's blend, by our rounding: no product here uses it."""
    implied = [(inputs["one_month"], 85), (inputs["two_month"], 15)]
    counted = [(i["implied"], w) for i, w in implied if i["volume"] >= inputs["min_volume"]]
    value, weight = sum(price * w for price, w in counted), sum(w for _, w in counted)
    assert nearest_tick(value, weight, 1, inputs["prior"]) == expected["price"]


@pytest.mark.parametrize(("inputs", "expected"), cases("margin_calls"))
def test_margin_call_vectors(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    lots, tick, before = inputs["position"], inputs["value_per_tick"], inputs["entry"]
    required = Required(inputs["initial_per_lot"] * lots, inputs["maintenance_per_lot"] * lots)
    balance = required.initial
    for settle, right in zip(inputs["settles"], expected["days"], strict=True):
        pnl = lots * (settle - before) * tick
        balance, before = balance + pnl, settle
        call = margin_call(balance, required, inputs["call_policy"])
        assert {"pnl": pnl, "balance": balance, "call": call} == right
        balance += call
    assert balance == expected["final_balance"]
    assert margin_call(required.maintenance, required) == 0  # at it is not below it


@pytest.mark.parametrize(("inputs", "expected"), cases("average_cost"))
def test_average_cost_vectors(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    held = AverageCost()
    for trade, right in zip(inputs["trades"], expected["rows"], strict=True):
        held.trade(trade["qty"], trade["price"])
        assert right == {
            "position": held.net,
            "realised": held.realized,
            "unrealised": held.unrealized(trade["price"]),
        }
    held.trade(-40, 1_010)  # through zero: the short begins at its own price
    assert (held.net, held.cost) == (-2, -2 * 1_010)


# A market's months.


def month(number: int, code: str, **known: Any) -> Month:
    return Month(number, code, 2_500_000, 1_000, 1_000, **known)


def test_every_month_says_its_tier_and_inputs() -> None:
    found = settle_day(
        [
            month(3, "H100G27", bid=2_400),
            month(1, "H100Z26", window=Traded(2, 30, 10 * 2_510 + 20 * 2_513), last=2_513),
            month(2, "H100F27"),
            month(4, "H100H27", last=2_470, bid=2_480, ask=2_490),
            month(5, "A100Z26", bid=2_505, ask=2_506),
            month(6, "no code"),
        ],
        {"H100Z26-H100F27": Traded(3, 8, 8 * -4), "H100F27-H100G27": Traded()},
        {4: 2_444_123},
    )
    assert [(p.code, p.tier, p.price) for p in found] == [
        ("A100Z26", 2, 2_505_000),
        ("H100Z26", 1, 2_512_000),
        ("H100F27", 4, 2_516_000),  # 2.512 and 0.004 more
        ("H100G27", 3, 2_516_000),  # prior and the 0.016 of the month before
        ("H100H27", 0, 2_444_123),
        ("no code", 3, 2_500_000),
    ]
    assert found[2].spreads == ["H100Z26-H100F27"]
    assert found[3].preceding_change == 16_000
    assert (found[4].proposed, found[4].rule) == (2_480_000, "approved by two")
    assert settle_day([]) == []


def test_a_quote_binds_what_spreads_imply_and_the_windows_trades_beat_them() -> None:
    near = month(1, "H100Z26", window=Traded(1, 1, 2_500))
    spreads = {"H100Z26-H100F27": Traded(1, 5, 5 * -10)}
    (_, far) = settle_day([near, month(2, "H100F27", ask=2_504)], spreads)
    assert (far.tier, far.price) == (4, 2_504_000)
    (_, far) = settle_day([near, month(2, "H100F27", window=Traded(1, 1, 2_600))], spreads)
    assert (far.tier, far.price, far.spreads) == (1, 2_600_000, [])


# What two persons may say, and what they may not.


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A market of three instruments and six accounts with positions, its day closed."""
    market = open_market()
    random_day(market, random.Random(3), batches=20)
    opened = House(Clearing.open(tmp_path / "clearing.db"), market)
    opened.clearing.apply(market.frames)
    opened.close(DAY + 1)
    yield opened
    opened.clearing.close()


def two(**other: Any) -> SetPrice:
    facts: dict[str, Any] = {"instrument": 1, "business_date": DAY + 1, "price": 2_512_345,
                             "reason": "a wrong print", "proposed_by": "ann",
                             "approved_by": "bob"}  # fmt: skip
    return SetPrice(**facts | other)


def test_a_price_needs_two_persons(house: House) -> None:
    for alone in ({"approved_by": "ann"}, {"approved_by": ""}, {"proposed_by": ""}):
        outcome, facts = house.record(two(**alone))
        assert (outcome, facts["number"], facts["limit"]) == ("four_eyes", 2219, 2)
    assert house.clearing.settlement_prices()[1].tier
    assert house.record(two())[0] == "accepted"
    house.reopen()
    by_number = {p.instrument: p for p in house.clearing.settlement_prices()}
    assert (by_number[1].tier, by_number[1].price) == (0, 2_512_345)
    before = house.clearing._state.matters.get(Prices).approved
    said = house.clearing.would(write(two(price=2_512_346, proposed_by="", approved_by="")))
    assert said.facts["replaces"] == 2_512_345  # and nothing has changed
    assert house.clearing._state.matters.get(Prices).approved == before == {1: 2_512_345}


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        ({"instrument": 77}, "unknown_instrument"),
        ({"business_date": DAY}, "settled"),
        ({"price": 0}, "price_range"),
        ({"price": 1 << 60}, "price_range"),
        ({"correction": True}, "settled"),
    ],
)
def test_a_senseless_price_is_refused(house: House, other: dict[str, Any], outcome: str) -> None:
    assert house.record(two(**other))[0] == house.clearing.would(write(two(**other))).outcome
    assert house.record(two(**other))[0] == outcome
    assert house.record(two(), account=3)[0] == "not_yours"


def test_a_settled_day_changes_by_a_correction_alone(house: House) -> None:
    for number in range(INSTRUMENTS):
        house.send(house.market.settle(number, 2_500_000))
    before = house.clearing.trial_balance()
    again = house.market.apply(house.market.settle(1, 2_512_345))  # of the cycle that was settled
    (refusal,) = EVENT.iter_unpack(again)
    assert (refusal[2], refusal[4]) == (EventKind.REJECTED, Reason.ALREADY_SETTLED)
    house.clearing.apply(house.market.frames[-1:])
    assert house.clearing.trial_balance().accounts == before.accounts
    assert house.record(two())[0] == "settled"  # not without saying that it corrects
    assert house.clearing.settled() == set(range(INSTRUMENTS))
    assert house.record(two(correction=True))[0] == "accepted"
    assert house.clearing.settled() == {0, 2}
    held = {a: house.clearing.net(a, 1) for a in ACCOUNTS}
    cash = {a: house.clearing.cash(a) for a in ACCOUNTS}
    house.send(house.market.settle(1, 2_512_345, cycle=2))
    assert house.clearing.settled() == set(range(INSTRUMENTS))
    for account, lots in held.items():
        assert house.clearing.cash(account) - cash[account] == lots * 12_345 * MULTIPLIER
    assert any(held.values())
    house.agree()


# Exactly once.


def settled_cash(house: House) -> dict[int, int]:
    return {account: house.clearing.cash(account) for account in ACCOUNTS}


@pytest.mark.parametrize("done", range(INSTRUMENTS + 1))
def test_a_cycle_that_stopped_anywhere_is_finished_once(house: House, done: int) -> None:
    """After ``done`` instruments everything is lost but the log and the store."""
    price = {number: 2_480_000 + number for number in range(INSTRUMENTS)}
    for number in range(done):
        house.send(house.market.settle(number, price[number]))
    house.reopen()
    due = sorted(set(range(INSTRUMENTS)) - house.clearing.settled())
    assert due == list(range(done, INSTRUMENTS))
    for number in due:
        house.send(house.market.settle(number, price[number]))
    query = f"select instrument, cycle from settlement_prices where business_date = {DAY + 1}"
    rows = list(house.clearing._store.rows(query))
    assert [(row["instrument"], row["cycle"]) for row in rows] == [(0, 1), (1, 1), (2, 1)]
    assert sum(settled_cash(house).values()) + house.clearing.cash(0) == sum(
        house.market.engine.account(a)["cash"] for a in (0, *ACCOUNTS)
    )
    house.agree()


def test_a_transaction_cut_anywhere_leaves_all_or_nothing(house: House) -> None:
    """The store is interrupted after ever more of its work, and settles once in the end."""
    house.market.apply(house.market.settle(1, 2_488_000))
    frames, connection = house.market.frames[-1:], house.clearing._store._connection
    before, point, cuts = house.clearing.trial_balance(), house.clearing.position, 0
    for steps in range(20, 40_000, 37):
        left = [steps]

        def cut(left: list[int] = left) -> int:
            left[0] -= 1
            return left[0] == 0

        connection.set_progress_handler(cut, 1)
        try:
            house.clearing.apply(frames)
        except sqlite3.OperationalError as error:
            connection.set_progress_handler(None, 1)
            assert "interrupted" in str(error)
            cuts += 1
            if house.clearing.position != point:  # in the commit's last step: it is all there
                break
            assert house.clearing.trial_balance() == before
        else:
            break
        finally:
            connection.set_progress_handler(None, 1)
    assert cuts > 10
    house.clearing.apply(frames)  # a repeat is passed over
    assert house.clearing.trial_balance().entries == before.entries + 1
    house.agree()


def test_the_intraday_cycle_pays_what_the_end_of_day_then_need_not(house: House) -> None:
    at_noon, at_night = 2_470_000, 2_520_000
    start, held = settled_cash(house), {a: house.clearing.net(a, 0) for a in ACCOUNTS}
    costs = {a: house.clearing._state.positions.get(a, 0).cost for a in ACCOUNTS}
    house.send(house.market.settle(0, at_noon, cycle=1))
    noon = settled_cash(house)
    house.send(house.market.settle(0, at_night, cycle=2))
    night = settled_cash(house)
    for a in ACCOUNTS:
        assert noon[a] - start[a] == held[a] * at_noon * MULTIPLIER - costs[a]
        assert night[a] - noon[a] == held[a] * (at_night - at_noon) * MULTIPLIER
    assert sum(night.values()) == sum(start.values())
    house.agree()


def busted_market(path: Path, *, with_trade: bool) -> House:
    """Three trades, the last far off; an intraday cycle; the last taken back; the date's end."""
    market = open_market()
    made = House(Clearing.open(path), market)
    made.clearing.apply(market.frames)
    sides = {"maker": 3, "taker": 4}

    def trade(ticks: int, lots: int) -> int:
        made.send(market.enter(sides["maker"], Side.SELL, ticks, lots))
        events = made.send(market.enter(sides["taker"], Side.BUY, ticks, lots))
        (match,) = [r for r in EVENT.iter_unpack(events) if r[2] == EventKind.TRADE]
        number: int = match[0] << INDEX_BITS | match[1]
        return number

    trade(2_500, 3)
    trade(2_510, 1)
    far = trade(2_900, 2) if with_trade else 0
    made.send(market.settle(0, 2_550_000))
    if with_trade:
        before = made.clearing.settlement_prices()[0]
        assert (before.window_lots, before.last) == (6, 2_900_000)
        bust = Command(
            kind=CommandKind.BUST, instrument=0, account=4, session=3, side=Side.BUY, price=2_900,
            quantity=2, target_lo=far, target_hi=signed(-2 * 700_000), key_lo=2 * 200_000,
        )  # fmt: skip
        made.send(bust)
    made.close(DAY)
    return made


def test_a_trade_busted_after_a_cycle_leaves_its_entries_and_nothing_else(tmp_path: Path) -> None:
    """Positions, cash, fees and the settlement price are those of a market without the trade."""
    with_bust = busted_market(tmp_path / "bust.db", with_trade=True)
    without = busted_market(tmp_path / "none.db", with_trade=False)
    found = [made.clearing.settlement_prices()[0] for made in (with_bust, without)]
    assert found[0] == found[1]
    assert (found[0].window_lots, found[0].last) == (4, 2_510_000)
    for made in (with_bust, without):
        made.send(made.market.settle(0, found[0].price, cycle=2))
        made.agree()
        made.clearing.audit()
    for account in (0, *ACCOUNTS):
        assert with_bust.clearing.cash(account) == without.clearing.cash(account)
        assert with_bust.clearing.net(account, 0) == without.clearing.net(account, 0)
    (rolled,), (right,) = (made.clearing.roll_forward(DAY) for made in (with_bust, without))
    assert rolled.after == right.after == with_bust.clearing.open_interest()[0].open_interest
    kinds = [row["kind"] for row in with_bust.clearing._store.rows("select kind from journal")]
    assert (kinds.count(EntryKind.TRADE), kinds.count(EntryKind.BUST)) == (3, 1)
    assert with_bust.clearing.ledger_hash != without.clearing.ledger_hash
    for made in (with_bust, without):
        made.clearing.close()
