"""The margin scan of a whole book, sixteen scenarios a position, compared with a plain sum.

    hourbook bench margin [--json] [--accounts N] [--rounds N] [--record]

``margin.scan`` computes the margin of a seeded book of accounts x 100 instruments: every component,
every product, every account's total. ``margin.floor`` is the least that any scan must do: each
position's lots times its rate, summed by account, once per scenario. Both run in the same rounds,
in CPU time of all threads. ``margin.peak`` is the memory that the scan needs in addition to the
book. The run fails below a million positions of sixteen scenarios per second of CPU time.
"""

import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final

import numpy as np

from benches.rows import Row, bench_parser, publish, row, seconds, whole
from exchange.clearing.margin import scan
from exchange.clearing.margin.scan import Ints, Rates

ACCOUNTS: Final = 10_000
INSTRUMENTS: Final = 100
PRODUCTS: Final = 12
ROUNDS: Final = 5
SEED: Final = 20261121
LEAST: Final = 1_000_000  # positions of sixteen scenarios a second

Book = tuple[Ints, Ints, Ints]


def book(accounts: int) -> tuple[Book, Rates]:
    """Return a book in which every account holds every instrument, in random order, and its
    rates."""
    draw = np.random.default_rng(SEED)
    spot = (np.arange(INSTRUMENTS) < PRODUCTS).astype(np.int64)
    rates = Rates(
        product=np.arange(INSTRUMENTS) % PRODUCTS,
        scan_range=draw.integers(10**8, 10**9, INSTRUMENTS),
        liquidity=draw.integers(10**5, 10**6, INSTRUMENTS),
        spot=spot,
        delivery=spot * 10**8,
        spread=draw.integers(10**7, 10**8, PRODUCTS),
        relief=np.full(PRODUCTS, 10**7),
        daily_volume=np.full(PRODUCTS, 2_000),
        participation=np.full(PRODUCTS, 25),
    )
    order = draw.permutation(accounts * INSTRUMENTS)
    who = np.repeat(np.arange(accounts), INSTRUMENTS)[order]
    what = np.tile(np.arange(INSTRUMENTS), accounts)[order]
    return (who, what, draw.integers(-90, 91, len(order))), rates


def floor(held: Book, rates: Rates) -> Ints:
    """Return each position's lots times its rate, summed by account, sixteen times."""
    who, what, net = held
    order = np.argsort(who, kind="stable")
    what, net = what[order], net[order]
    starts = np.flatnonzero(np.diff(who[order], prepend=-1))
    total = np.zeros(len(starts), dtype=np.int64)
    for _ in scan.SCENARIOS:
        total = total + np.add.reduceat(net * rates.scan_range[what], starts)
    return total


def margin_rows(accounts: int = ACCOUNTS, rounds: int = ROUNDS) -> Iterator[Row]:
    """Yield the positions per second, as median of the rounds, with the ratio to the floor."""
    held, rates = book(accounts)
    works: dict[str, Callable[[], object]] = {
        "margin.floor": lambda: floor(held, rates),
        "margin.scan": lambda: scan.margins(*held, rates),
    }
    found = scan.margins(*held, rates)
    concentrated = accounts < ACCOUNTS or (found.parts.concentration > 0).any()
    if len(found.account) != accounts or not concentrated:
        raise RuntimeError("the book was not margined whole")
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    count = len(held[0])
    speed = {name: count / median(taken) for name, taken in times.items()}
    unit = "positions x 16 / s / core"
    yield row("margin.floor", speed["margin.floor"], unit)
    yield row("margin.scan", speed["margin.scan"], unit, speed["margin.floor"], "margin.floor")
    tracemalloc.start()
    scan.margins(*held, rates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bare = sum(column.nbytes for column in held)
    yield row("margin.peak", peak / count, "bytes / position", bare / count, "the book itself")
    if accounts == ACCOUNTS and speed["margin.scan"] < LEAST:
        raise SystemExit(f"margin.scan is below {LEAST:,} positions a second")


def main(arguments: Sequence[str]) -> None:
    parser = bench_parser("margin", __doc__, ROUNDS)
    parser.add_argument(
        "--accounts",
        type=whole,
        default=ACCOUNTS,
        help="with a hundred positions each (%(default)s)",
    )
    chosen = parser.parse_args(arguments)
    shown = margin_rows(chosen.accounts, chosen.rounds)
    publish(shown, as_json=chosen.json, record=chosen.record)


if __name__ == "__main__":
    main(sys.argv[1:])
