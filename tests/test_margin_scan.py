"""The integer scan: the acceptance vectors, a slow oracle, and what must hold of any book."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import margin_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches import margin as bench
from exchange.clearing.margin import rules, scan
from exchange.clearing.margin.scan import Credit, Margins, Rates

TABLE = Path(__file__).parent / "tables" / "margin.json"
NOT_OURS = {"option_floor"}  # no options are listed


def rates(
    lots: Sequence[oracle.Lot],
    products: Sequence[oracle.Product],
    offered: Sequence[Sequence[int]] = (),
) -> Rates:
    return Rates(
        product=np.array([lot.product for lot in lots]),
        scan_range=np.array([lot.scan_range for lot in lots]),
        liquidity=np.array([lot.liquidity for lot in lots]),
        spot=np.array([int(lot.spot) for lot in lots]),
        delivery=np.array([lot.delivery for lot in lots]),
        spread=np.array([p.spread for p in products]),
        relief=np.array([p.relief for p in products]),
        daily_volume=np.array([p.daily_volume for p in products]),
        participation=np.array([p.participation for p in products]),
        credits=tuple(Credit(*one) for one in offered),
    )


def margins(
    rows: Sequence[tuple[int, int, int]],
    table: Rates,
    advance: Callable[[int], object] = lambda done: None,
) -> Margins:
    """The margins of (account, instrument, net) rows."""
    account, instrument, net = np.array(rows).T
    return scan.margins(account, instrument, net, table, advance)


def of_one(book: Mapping[int, int], table: Rates) -> Margins:
    """The margins of one account."""
    keys, net = np.array(list(book)), np.array(list(book.values()))
    return scan.margins(np.zeros(len(book), dtype=np.int64), keys, net, table)


DEEP = oracle.Product(0, 0, 1 << 40, 100)


# The vectors, kind by kind.


def scan_case(net: int, psr: int, list_losses: bool = False) -> dict[str, Any]:
    found = of_one({0: net}, rates([oracle.Lot(0, psr, 0, False)], [DEEP])).parts
    answer: dict[str, Any] = {
        "scan_risk": int(found.scan[0]),
        "worst_scenario": int(found.worst[0]),
    }
    if list_losses:
        answer["losses"] = [net * loss for loss in scan.risk_array(psr)]
    return answer


def calendar_case(legs: list[dict[str, int]], per_spread: int) -> dict[str, int]:
    lots = [oracle.Lot(0, leg["psr"], 0, False) for leg in legs]
    book = {number: leg["net"] for number, leg in enumerate(legs)}
    found = of_one(book, rates(lots, [replace(DEEP, spread=per_spread)]))
    charge = int(found.parts.calendar[0])
    return {
        "scan_risk": int(found.parts.scan[0]),
        "spreads": charge // per_spread,
        "spread_charge": charge,
        "requirement": int(found.total[0]),
    }


def delivery_case(
    outright: int, per_outright: int, in_spreads: int, per_spread_lot: int
) -> dict[str, int]:
    """The spot month's lots outright and in spreads, as a book that has exactly these."""
    lots = [oracle.Lot(0, 0, 0, True, per_outright), oracle.Lot(0, 0, 0, False)]
    product = replace(DEEP, relief=per_outright - per_spread_lot)
    found = of_one({0: outright + in_spreads, 1: -in_spreads}, rates(lots, [product]))
    return {"charge": int(found.parts.delivery[0])}


def credit_case(
    a: dict[str, int], b: dict[str, int], ratio_a: int, ratio_b: int, credit_pct: int
) -> dict[str, int]:
    offered = [Credit(0, 1, ratio_a, ratio_b, credit_pct)]
    deltas, scans = [a["delta"], b["delta"]], [a["scan"], b["scan"]]
    spreads = min(abs(a["delta"]) // ratio_a, abs(b["delta"]) // ratio_b)
    whole = scan.credits([0, 1], deltas, scans, offered)
    credit_a = rules.spread_credit(a["scan"], spreads * ratio_a, abs(a["delta"]), credit_pct)
    credit_b = rules.spread_credit(b["scan"], spreads * ratio_b, abs(b["delta"]), credit_pct)
    assert whole == credit_a + credit_b
    return {
        "spreads": spreads,
        "credit_a": credit_a,
        "credit_b": credit_b,
        "total": sum(scans) - whole,
    }


def concentration_case(
    position: int, adv: int, participation_pct: int, im_per_lot: int
) -> dict[str, int]:
    product = replace(DEEP, daily_volume=adv, participation=participation_pct)
    parts = of_one({0: position}, rates([oracle.Lot(0, im_per_lot, 0, False)], [product])).parts
    return {"base": int(parts.scan[0]), "add_on": int(parts.concentration[0])}


def limit_case(**given: int) -> dict[str, int]:
    if "open_interest" in given:
        return {"limit": rules.position_limit(given["open_interest"])}
    return {"limit": rules.spot_limit(given["deliverable_supply"])}


def requirement_case(
    scan: int, calendar_charge: int, delivery_charge: int, intercommodity_credit: int
) -> dict[str, int]:
    """A book with exactly these parts: ten lots of the spot month, six of them in spreads, and as
    many of a product without risk as its four net lots need for the credit."""
    relief = delivery_charge // 2 // 7
    lots = [
        oracle.Lot(0, scan // 4, 0, True, 2 * relief), oracle.Lot(0, scan // 4, 0, False),
        oracle.Lot(1, 0, 0, False),
    ]  # fmt: skip
    products = [replace(DEEP, spread=calendar_charge // 6, relief=relief), DEEP]
    percent = intercommodity_credit * 100 // scan
    found = of_one({0: 10, 1: -6, 2: -4}, rates(lots, products, [(0, 1, 1, 1, percent)]))
    columns = found.parts.scan, found.parts.calendar, found.parts.delivery
    parts = [int(column[0]) for column in columns]
    assert parts == [scan, calendar_charge, delivery_charge]
    assert found.credit.tolist() == [intercommodity_credit]
    return {"requirement": int(found.total[0])}


def buffer_case(model: list[int], buffer_bp: int, rebuild_bp: int) -> dict[str, list[int]]:
    charged: list[int] = []
    for figure in model:
        before = charged[-1] if charged else None
        charged.append(rules.buffered(figure, before, buffer_bp, rebuild_bp))
    return {"charged": charged}


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "scan": scan_case,
    "calendar": calendar_case,
    "delivery_charge": delivery_case,
    "intercommodity": credit_case,
    "concentration": concentration_case,
    "position_limit": limit_case,
    "requirement": requirement_case,
    "buffer": buffer_case,
    "stress_weight": lambda model, stressed, stress_pct: {
        "margin": rules.stressed(model, stressed, stress_pct)
    },
    "floor": lambda model, long_run: {"margin": rules.floored(model, long_run)},
    "hvar_rank": lambda count, confidence_bp: {"rank": rules.rank(count, confidence_bp)},
}
VECTORS = [c for c in json.loads(TABLE.read_text())["cases"] if c["kind"] not in NOT_OURS]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["id"])
def test_the_vectors(case: dict[str, Any]) -> None:
    assert CASES[case["kind"]](**case["inputs"]) == case["expected"]


def test_the_table_is_the_vectors(shared: Path) -> None:
    theirs = json.loads((shared / "vectors" / "margin.json").read_text())
    assert json.loads(TABLE.read_text()) == theirs


# The arrays against the oracle.


def drawn(draw: random.Random, size: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Instruments, products and credits of a market; sizes from cents to the 64-bit edge."""
    big = draw.choice((100, 10**6, 10**9, 2**40))
    products = [
        oracle.Product(
            draw.randrange(big), draw.randrange(big), draw.choice((1, 7, 1_000, 10**6)),
            draw.choice((10, 25, 100)),
        )
        for _ in range(draw.randint(1, 5))
    ]  # fmt: skip
    lots = [oracle.Lot(0, 0, 0, False)] * size
    for place in range(size):
        product, spot = draw.randrange(len(products)), draw.random() < 0.3
        charge = products[product].relief + draw.randrange(big) if spot else 0
        lots[place] = oracle.Lot(
            product, draw.randrange(big), draw.randrange(big // 10 + 1), spot, charge
        )
    pairs = [(a, b) for a in range(len(products)) for b in range(a)]
    offered = [
        (a, b, draw.randint(1, 3), draw.randint(1, 3), draw.randint(0, 100))
        for a, b in draw.sample(pairs, min(len(pairs), 3))
    ]
    return lots, products, offered


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_arrays_are_the_oracle(seed: int) -> None:
    draw = random.Random(seed)
    lots, products, offered = drawn(draw, draw.randint(1, 12))
    books = {
        account: {
            number: draw.choice((0, 1, -1, draw.randint(-60, 60)))
            for number in draw.sample(range(len(lots)), draw.randint(1, len(lots)))
        }
        for account in draw.sample(range(100), draw.randint(1, 8))
    }
    rows = [(a, number, net) for a, book in books.items() for number, net in book.items()]
    draw.shuffle(rows)  # the order of a book's rows says nothing
    found = margins(rows, rates(lots, products, offered))
    assert found.account.tolist() == sorted(books)
    place = 0
    for number, account in enumerate(found.account.tolist()):
        parts, spared, total = oracle.margin(books[account], lots, products, offered)
        for product, right in parts.items():
            row = [int(column[place]) for column in found.parts]
            assert row == [account, product, *right]
            place += 1
        assert (int(found.credit[number]), int(found.total[number])) == (spared, total)
    assert place == len(found.parts.account)


def test_beyond_64_bits_the_scan_stays_exact() -> None:
    """The largest position at the largest rate: no sum fits 64 bits, and none is cut."""
    lots = [oracle.Lot(0, 2**40, 2**30, True, 2**37), oracle.Lot(0, 2**40 - 1, 0, False)]
    products = [oracle.Product(2**38, 2**36, 1, 1)]
    found = of_one({0: 2**39, 1: 2**39}, rates(lots, products))
    whole = 2**39 * (2**40 + 2**40 - 1)
    assert int(found.parts.scan[0]) == whole > 2**63
    assert int(found.parts.liquidity[0]) == 2**69
    base = whole + 2**39 * 2**37
    assert (
        int(found.parts.concentration[0])
        == oracle.root_up(Fraction(base * base * 2**40 * 100)) - base
    )


@pytest.mark.parametrize("which", ["liquidity", "delivery", "calendar"])
def test_beyond_64_bits_every_rate_stays_exact(which: str) -> None:
    """One rate alone makes the sums too large; the others would fit."""
    rate = {"liquidity": 1, "delivery": 1, "calendar": 1} | {which: 2**40}
    lots = [
        oracle.Lot(0, 1, rate["liquidity"], True, rate["delivery"]),
        oracle.Lot(0, 1, rate["liquidity"], False),
    ]
    each = 2**39
    found = of_one({0: each, 1: -each}, rates(lots, [oracle.Product(rate["calendar"], 0, 1, 100)]))
    assert int(found.parts.liquidity[0]) == 2 * each * rate["liquidity"]
    assert int(found.parts.delivery[0]) == each * rate["delivery"]
    assert int(found.parts.calendar[0]) == each * rate["calendar"]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    lots, products, offered = drawn(draw, 12)
    rows = [(a, i, draw.randint(-9, 9)) for a in range(50) for i in range(12)]
    table, steps = rates(lots, products, offered), list[int]()
    whole = margins(rows, table)
    monkeypatch.setattr(scan, "CHUNK", 40)
    cut = margins(rows, table, steps.append)
    assert len(steps) > 10 and sum(steps) == len(rows)
    for ours, theirs in zip((*whole[:3], *whole.parts), (*cut[:3], *cut.parts), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_an_empty_book_asks_for_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    found = scan.margins(none, none, none, rates([oracle.Lot(0, 1, 1, True)], [DEEP]))
    assert not any(len(column) for column in (*found[:3], *found.parts))


# What must hold of any book, and of the rules.


@settings(max_examples=60, deadline=None)
@given(
    margin=st.integers(0, 2**60),
    lots=st.integers(0, 2**40),
    volume=st.integers(1, 2**40),
    share=st.integers(1, 100),
)
def test_concentration_is_the_least_integer_above(
    margin: int, lots: int, volume: int, share: int
) -> None:
    """k = margin + add-on is the least k with k² x volume x share >= margin² x lots x 100."""
    add = rules.concentration(margin, lots, volume, share)
    if lots * 100 <= volume * share:
        assert add == 0
    else:
        goal, whole = margin * margin * lots * 100, margin + add
        assert whole * whole * volume * share >= goal
        assert add == 0 or (whole - 1) ** 2 * volume * share < goal


@settings(max_examples=60, deadline=None)
@given(
    model=st.lists(st.integers(1, 10**6), min_size=1, max_size=30),
    buffer=st.integers(0, 10_000),
    rebuild=st.integers(0, 3_000),
)
def test_the_buffer_never_charges_less_than_the_model(
    model: list[int], buffer: int, rebuild: int
) -> None:
    charged = buffer_case(model, buffer, rebuild)["charged"]
    for place, (figure, paid) in enumerate(zip(model, charged, strict=True)):
        assert figure <= paid <= rules.up(figure * (10_000 + buffer), 10_000)
        if place and figure <= charged[place - 1]:
            # A model that the last charge still covers raises it by the rebuild alone.
            assert paid <= charged[place - 1] + figure * rebuild // 10_000


def test_after_a_large_shock_margin_does_not_jump_while_the_buffer_lasts() -> None:
    """A model that jumps by a fifth after a move of five sigma: inside the buffer nothing moves;
    without one the charge jumps with the model."""
    quiet, shocked = 1_000, 1_200
    with_buffer = rules.buffered(shocked, rules.buffered(quiet, None, 2_500), 2_500)
    without = rules.buffered(shocked, rules.buffered(quiet, None, 0), 0)
    assert (with_buffer, without) == (1_250, 1_200)
    assert with_buffer - rules.buffered(quiet, None, 2_500) == 0 < without - quiet


def test_the_largest_losses_in_order() -> None:
    assert rules.historical(range(500), 9_900) == 495
    assert rules.historical([-5, -9], 9_900) == 0
    assert rules.historical([7], 9_900) == 7
    with pytest.raises(ValueError, match="no losses"):
        rules.historical([], 9_900)


def test_the_bench_margins_its_whole_book() -> None:
    rows = list(bench.margin_rows(accounts=40, rounds=1))
    assert [row.name for row in rows] == ["margin.floor", "margin.scan", "margin.peak"]
    held, table = bench.book(40)
    lots = [oracle.Lot(*cells) for cells in zip(
        table.product.tolist(), table.scan_range.tolist(), table.liquidity.tolist(),
        table.spot.astype(bool).tolist(), table.delivery.tolist(), strict=True,
    )]  # fmt: skip
    products = [oracle.Product(*cells) for cells in zip(
        table.spread.tolist(), table.relief.tolist(), table.daily_volume.tolist(),
        table.participation.tolist(), strict=True,
    )]  # fmt: skip
    first = {int(i): int(n) for a, i, n in zip(*held, strict=True) if a == 7}
    total = scan.margins(*held, table).total
    assert int(total[7]) == oracle.margin(first, lots, products)[2]
