"""Delivery: intents, assignment, slices and buy-ins; what is paid is what was agreed."""

import json
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from contracts import grades
from contracts.calendar import Month
from contracts.grades.delivery import invoice_cents
from exchange.clearing.delivery.assignment import Long, aged, assign, denied
from exchange.clearing.delivery.slices import (
    DAY_S,
    BuyIn,
    Slice,
    buy_in,
    quality,
    settle_day,
    sliced,
    week_days,
    week_of,
)
from exchange.clearing.refusals import Denial

RULES = grades.load().rules_of(Month(2026, 12))
RESULTS = {
    None: "accept",
    Denial.EXCEEDS_SHORT: "reject_exceeds_short",
    Denial.LATE: "reject_late",
    Denial.FACTOR_VERSION: "reject_factor_version",
}


def cases(shared: Path, kind: str) -> list[dict[str, Any]]:
    read = json.loads((shared / "vectors" / "delivery.json").read_text())["cases"]
    found = [case for case in read if case["kind"] == kind]
    assert found
    return found


def test_the_assignments_of_the_vectors(shared: Path) -> None:
    for case in cases(shared, "assignment"):
        longs = [Long(one["account"], one["qty"], one["day"]) for one in case["inputs"]["longs"]]
        found = assign(longs, case["inputs"]["tenders"])
        rounds = [
            {"assigned": [list(pair) for pair in one.assigned], "unassigned": one.unassigned}
            for one in found.rounds
        ]
        expected = case["expected"]
        assert rounds == expected["rounds"], case["id"]
        assert sum(found.left.values()) == expected["open_long"]


def test_the_intents_of_the_vectors(shared: Path) -> None:
    for case in cases(shared, "intent"):
        given_ = case["inputs"]
        short, results = given_["open_short"], []
        for intent in given_["intents"]:
            found = denied(
                intent["qty"], intent["time"], intent["factor_version"], open_short=short,
                cutoff=given_["cutoff"], published_version=given_["factor_version"],
            )  # fmt: skip
            results.append(RESULTS[found[0] if found else None])
            short -= 0 if found else intent["qty"]
        assert results == case["expected"]["results"], case["id"]


def test_every_vector_of_delivery_is_read(shared: Path) -> None:
    """Invoices and the bonds' factors are read in test_delivery_terms.py."""
    read = json.loads((shared / "vectors" / "delivery.json").read_text())["cases"]
    elsewhere = {"conversion_factor", "bond_invoice", "invoice"}
    assert {case["kind"] for case in read} - elsewhere == {"assignment", "intent"}


def test_a_unit_takes_an_accounts_oldest_lots_and_its_youngest_are_odd() -> None:
    longs = [Long(1, 5, 10), Long(2, 8, 11), Long(1, 12, 12)]
    found = assign(longs, [8, 16], unit=8)
    # 1's first unit is as old as its first lot; of its 17 lots one is odd, and 2's unit is older
    # than 1's second.
    assert [one.assigned for one in found.rounds] == [[(1, 8)], [(2, 8), (1, 8)]]
    assert found.left == {1: 1}


def test_a_tender_of_clusters_goes_whole_to_who_has_that_many() -> None:
    """The older long has too few for a cluster; its lots are still the first of the next tender."""
    longs = [Long(1, 56, 1), Long(2, 70, 2), Long(3, 8, 3), Long(4, 130, 4)]
    found = assign(longs, [192, 16, 8, 64], unit=8, units=[64, 8, 8, 64])
    assert found.rounds == [([(2, 64), (4, 128)], 0), ([(1, 16)], 0), ([(1, 8)], 0), ([], 64)]
    assert found.left == {1: 32, 2: 6, 3: 8, 4: 2}


@given(seed=st.integers(0, 2**32))
def test_every_delivery_is_of_whole_units_of_its_grade(seed: int) -> None:
    """By hand: of those that have as many units left, who has the oldest one."""
    draw = random.Random(seed)
    longs = [Long(a, draw.randint(1, 60), draw.randint(1, 3)) for a in draw.choices(range(5), k=8)]
    units = [draw.choice((2, 4, 6, 12)) for _ in range(4)]
    tenders = [one * draw.randint(0, 5) for one in units]
    found = assign(longs, tenders, unit=2, units=units)
    dated: dict[int | str, list[tuple[int, int]]] = {}
    for place, long in sorted(enumerate(longs), key=lambda one: (one[1].day, one[0])):
        dated.setdefault(long.account, []).extend([(long.day, place)] * long.lots)
    for tendered, unit, one in zip(tenders, units, found.rounds, strict=True):
        taken: list[tuple[int | str, int]] = []
        for _ in range(tendered // unit):
            able = [account for account, lots in dated.items() if len(lots) // 2 * 2 >= unit]
            if not able:
                break
            oldest = min(able, key=lambda account: dated[account][0])
            del dated[oldest][:unit]
            if taken and taken[-1][0] == oldest:
                taken[-1] = oldest, taken[-1][1] + unit
            else:
                taken.append((oldest, unit))
        assert one == (taken, tendered - sum(lots for _, lots in taken))
    assert found.left == {account: len(lots) for account, lots in dated.items() if lots}


def test_one_that_may_not_receive_is_passed_over_and_left_for_cash() -> None:
    found = assign([Long(1, 8, 1), Long(2, 8, 2)], [16], unit=8, ineligible={1})
    assert found.rounds == [([(2, 8)], 8)]
    assert found.left == {1: 8}


@given(seed=st.integers(0, 2**32))
def test_assigned_and_left_are_the_longs_and_the_oldest_go_first(seed: int) -> None:
    draw = random.Random(seed)
    unit = draw.choice((1, 2, 8))
    longs = [
        Long(draw.randint(1, 5), draw.randint(1, 30), draw.randint(1, 6))
        for _ in range(draw.randint(0, 12))
    ]
    barred = {account for account in range(1, 6) if draw.random() < 0.2}
    tenders = [unit * draw.randint(1, 6) for _ in range(draw.randint(0, 5))]
    found = assign(longs, tenders, unit=unit, ineligible=barred)
    held, got = Counter[int | str](), Counter[int | str]()
    for long in longs:
        held[long.account] += long.lots
    for tendered, one in zip(tenders, found.rounds, strict=True):
        assert sum(lots for _, lots in one.assigned) + one.unassigned == tendered
        for account, lots in one.assigned:
            assert lots % unit == 0
            assert account not in barred
            got[account] += lots
    assert {who: n for who in held if (n := held[who] - got[who])} == found.left
    short = sum(one.unassigned for one in found.rounds)
    whole = sum(held[who] // unit * unit for who in held if who not in barred)
    assert sum(got.values()) == min(sum(tenders), whole)
    assert short == max(0, sum(tenders) - whole)
    first = {who: min(long.day for long in longs if long.account == who) for who in held}
    late = [first[who] for who in got]
    never = [
        first[who] for who in held if who not in got and who not in barred and held[who] >= unit
    ]
    assert not late or not never or min(never) >= min(late)


def test_a_long_keeps_its_days_and_sells_its_oldest_lots_first() -> None:
    days = aged([], 5, 1)
    days = aged(days, 8, 2)
    assert days == [(1, 5), (2, 3)]
    assert aged(days, 8, 3) == days
    assert aged(days, 2, 3) == [(2, 2)]
    assert aged(days, -4, 3) == []
    assert aged(aged(days, -4, 3), 1, 4) == [(4, 1)]


# Slices


@given(
    cents=st.integers(0, 10**11),
    lots=st.integers(1, 10_000),
    days=st.sampled_from((28, 29, 30, 31)),
    seed=st.integers(0, 2**32),
)
def test_what_is_paid_and_what_goes_back_are_the_invoice(
    cents: int, lots: int, days: int, seed: int
) -> None:
    draw = random.Random(seed)
    parts = sliced(cents, days)
    assert sum(parts) == cents
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, reverse=True)  # the earlier day has the cent more
    whole = lots * DAY_S
    found = [
        settle_day(n + 1, part, draw.choice((0, whole, draw.randint(0, whole))), lots)
        for n, part in enumerate(parts)
    ]
    assert sum(one.payable + one.returned for one in found) == cents
    exact = sum(part * one.attested_s for part, one in zip(parts, found, strict=True))
    paid = sum(one.payable for one in found)
    assert exact - days * whole < paid * whole <= exact
    weeks = [day for week in range(week_of(days) + 1) for day in week_days(week, days)]
    assert weeks == list(range(1, days + 1))


def test_a_month_of_full_hours_pays_the_invoice_and_owes_no_true_up() -> None:
    invoice = invoice_cents(price_micros=2_650_000, hours=720, lots=8, factor_e4=9_620)
    found = [settle_day(n + 1, c, 8 * DAY_S, 8) for n, c in enumerate(sliced(invoice, 30))]
    assert sum(one.payable for one in found) == invoice == 1_468_397
    terms = {"price_micros": 2_650_000, "factor_e4": 9_620, "fixed_e4": 9_750, "rules": RULES}
    assert quality(found, 0, **terms).cents == 0  # type: ignore[arg-type]
    lost = 8 * 30 * DAY_S * 8 // 100
    short = quality(found, lost, **terms)  # type: ignore[arg-type]
    exact = 1 - Fraction(92, 100) / Fraction(975, 1000) - Fraction(5, 1000)
    owed = round(Fraction(2_650_000 * 720 * 8 * 9_620, 10_000) * exact / 10_000)
    assert (short.failed, short.cents) == (False, owed)
    assert quality(found, lost * 3, **terms).failed  # type: ignore[arg-type]
    nothing = [Slice(1, 0, 0, 5)]
    assert quality(nothing, 0, **terms).failed  # type: ignore[arg-type]


def test_a_buy_in_charges_what_is_dearer_and_a_penalty() -> None:
    terms = {"price_micros": 2_500_000, "hours": 48, "lots": 8, "factor_e4": 9_600}
    value = invoice_cents(**terms)
    assert buy_in(fixing_micros=3_000_000, penalty_percent=10, **terms) == BuyIn(
        round(value * 0.2), value // 10
    )
    assert buy_in(fixing_micros=2_000_000, penalty_percent=0, **terms) == BuyIn(0, 0)
