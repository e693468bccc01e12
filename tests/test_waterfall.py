"""Losses shared to the unit: the waterfall, loss sharing, the fund's size, the auction."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.clearing.default.auction import Bid, award, juniors
from exchange.clearing.default.fund import (
    SCENARIOS,
    Exposure,
    Scenario,
    fund_size,
    size_by_stress,
    stress_loss,
)
from exchange.clearing.default.waterfall import waterfall
from exchange.clearing.sharing import share

AMOUNTS = st.dictionaries(st.integers(1, 30), st.integers(0, 10**12), max_size=6)


def cases(shared: Path, kind: str) -> list[dict[str, Any]]:
    read = json.loads((shared / "vectors" / "default.json").read_text())["cases"]
    found = [case for case in read if case["kind"] == kind]
    assert found
    return found


def test_the_waterfalls_of_the_vectors(shared: Path) -> None:
    for case in cases(shared, "waterfall"):
        found = waterfall(**case["inputs"])
        expected = case["expected"]
        assert {name: getattr(found, name) for name in expected} == expected, case["id"]
        assert sum(taken for _, taken in found.layers()) == case["inputs"]["loss"]


def test_the_shared_losses_of_the_vectors(shared: Path) -> None:
    """A pot that is too small goes to the winners as every share does."""
    for case in cases(shared, "loss_sharing"):
        given_ = case["inputs"]
        gains, losers = given_["gains"], given_["losers"].values()
        collected = sum(min(loser["owed"], loser["available"]) for loser in losers)
        used = min(given_["insurance"], sum(gains.values()) - collected)
        payouts = share(collected + used, gains)
        found = {
            "collected": collected, "insurance_used": used, "payouts": payouts,
            "haircuts": {who: gains[who] - paid for who, paid in payouts.items()},
        }  # fmt: skip
        assert found == case["expected"], case["id"]


def test_the_fund_sizes_of_the_vectors(shared: Path) -> None:
    for case in cases(shared, "fund_size"):
        given_ = case["inputs"]
        found = fund_size(given_["scenarios"], given_["margin"], given_["cover"])
        assert found == case["expected"]["minimum_fund"], case["id"]


def test_every_vector_of_a_default_is_read(shared: Path) -> None:
    read = json.loads((shared / "vectors" / "default.json").read_text())["cases"]
    assert {case["kind"] for case in read} == {"waterfall", "loss_sharing", "fund_size"}


@given(total=st.integers(0, 10**15), weights=AMOUNTS)
def test_a_share_is_within_a_unit_of_exact_and_nothing_is_lost(
    total: int, weights: dict[int, int]
) -> None:
    whole = sum(weights.values())
    if not whole:
        with pytest.raises(AssertionError):
            share(total + 1, weights)
        return
    found = share(total, weights)
    assert sum(found.values()) == total
    assert all(abs(found[who] * whole - total * weights[who]) < whole for who in weights)
    if total <= whole:
        assert all(found[who] <= weights[who] for who in weights)
    assert found == share(total, dict(reversed(weights.items())))  # the order says nothing


def test_equal_remainders_go_to_the_smaller_id() -> None:
    assert share(1, {10: 1, 9: 1}) == {9: 1, 10: 0}  # numbers as numbers
    assert share(1, {"10": 1, "9": 1}) == {"10": 1, "9": 0}  # text as text


@given(
    loss=st.integers(0, 10**13),
    own=st.tuples(*[st.integers(0, 10**12)] * 3),
    fund=AMOUNTS,
    gains=AMOUNTS,
    junior=st.sets(st.integers(1, 30)),
    cap=st.integers(0, 600),
)
def test_the_layers_are_the_loss_and_each_is_emptied_before_the_next(
    loss: int, own: tuple[int, int, int], fund: dict[int, int], gains: dict[int, int],
    junior: set[int], cap: int,
) -> None:  # fmt: skip
    found = waterfall(
        loss, defaulter_margin=own[0], defaulter_fund=own[1], own_capital=own[2],
        survivors_fund=fund, assessment_cap_pct=cap, junior=junior, gains=gains,
    )  # fmt: skip
    caps = {member: there * cap // 100 for member, there in fund.items()}
    there = [*own, sum(fund.values()), sum(caps.values()), sum(gains.values())]
    taken = [amount for _, amount in found.layers()]
    assert sum(taken) == loss
    for place, most in enumerate(there):
        assert taken[place] == most or not any(taken[place + 1 :])
    poor = sum(amount for member, amount in fund.items() if member in junior)
    used = sum(amount for member, amount in found.survivors_fund.items() if member in junior)
    others = sum(found.survivors_fund.values()) - used
    assert used == poor or not others  # the poor bidders' fund goes first


# The fund


def test_stress_moves_every_product_and_rounds_a_loss_up() -> None:
    book = [Exposure("H100", 3, 1, 1), Exposure("B200P", -2, 1, 1)]
    assert stress_loss(book, Scenario("x", {"H100": -1})) == 1
    assert stress_loss(book, Scenario("x", {"H100": -1, "B200": -1})) == 1  # -3 + 2: 1e-4 of one
    assert stress_loss(book, Scenario("x", {"B200": 10_000})) == 2
    assert stress_loss(book, Scenario("x", {"H100": 10_000})) == 0


def test_the_scenarios_hold_a_fall_of_forty_percent_and_generations_apart() -> None:
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    assert by_name["week_fall_40"].move("GB200P") == -4_000
    shock = by_name["generation_shock"]
    assert shock.move("A100") < shock.move("H100") < shock.move("B200") < shock.move("GB200")


def test_a_spread_between_generations_is_stressed_by_the_shock_alone() -> None:
    price, hours = 2_000_000, 720
    spread = [Exposure("H100", 100, price, hours), Exposure("B200", -100, price, hours)]
    outright = [Exposure("H100", 10, price, hours)]
    found = size_by_stress({1: spread, 2: outright, 3: []}, {1: 10**9, 2: 10**9, 3: 0})
    assert found.uncovered["week_fall_40"] == 10 * price * hours * 4 // 10 - 10**9
    shock = 100 * price * hours * 30 // 100 - 10**9 + 10 * price * hours * 45 // 100 - 10**9
    assert (found.scenario, found.size) == ("generation_shock", shock)
    assert sum(found.contributions.values()) == found.size
    assert found.contributions[3] == 0


# The auction


def test_the_best_price_wins_and_equal_prices_go_by_time() -> None:
    bids = [Bid(1, 7, 70, 5, 100), Bid(2, 8, 80, 5, 101), Bid(3, 9, 90, 5, 100)]
    awards, left = award(12, bids)
    assert [(a.account, a.lots, a.price) for a in awards] == [
        (80, 5, 101),
        (70, 5, 100),
        (90, 2, 100),
    ]
    assert left == 0
    awards, left = award(-12, bids)
    assert [(a.account, a.lots) for a in awards] == [(70, 5), (90, 5), (80, 2)]
    assert award(20, bids)[1] == 5


def test_who_bids_too_little_or_too_low_is_junior() -> None:
    fund = {7: 50, 8: 30, 9: 20}
    bids = [Bid(1, 7, 70, 25, 100), Bid(2, 8, 80, 30, 79), Bid(3, 9, 90, 9, 100)]
    assert juniors(100, 100, bids, fund) == {8, 9}  # 8 bid out of reach, 9 for 9 of its 20
    assert juniors(-100, 100, bids, fund) == {9}  # for a short book 79 is a good price
    assert juniors(0, 100, bids, fund) == frozenset()
    assert juniors(100, 100, [], fund) == {7, 8, 9}
