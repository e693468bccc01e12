"""Monthly goodput from a year of real faults, and the true-ups that would have resulted.

Trace: stepfun-ai/InfiniteHBD-Trace, Apache-2.0: 400 servers, 349 days, eight GPUs a server assumed.
A server without faults counts as always available; overlapping faults of one server are merged. A
month is 30 days. The trace has outages only: restarts and lost steps would come on top.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benches.rows import Row, row
from contracts import grades
from contracts.calendar import Month
from contracts.grades.delivery import invoice_cents, true_up

FILE: Final = "infinitehbd_fault_intervals.csv"
SERVERS: Final = 400
DAYS: Final = 348.98
MONTH_DAYS: Final = 30
_DAY_NS: Final = 86_400 * 10**9
_PRICE_MICROS: Final = 2_650_000
UNITS: Final = {"node of 8 GPUs": 1, "cluster of 64": 8, "cluster of 512": 64}
DRAWS: Final = 200  # clusters drawn per month for the larger units

Array = NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """True-ups of one delivery unit over all months: shares of deliveries, and their mean."""

    unit: str
    deliveries: int
    charged: float
    failed: float
    mean_true_up: float  # share of the invoice, over deliveries that did not fail
    lost: float  # mean share of hours lost


def node_months(folder: Path) -> Array:
    """Return the available share of each 30-day month for each server: servers x months."""
    down: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with (folder / FILE).open(newline="") as file:
        for fault in csv.DictReader(file):
            span = (float(fault["start_day"]), min(float(fault["end_day"]), DAYS))
            down[fault["node"]].append(span)
    months = int(DAYS // MONTH_DAYS)
    there = np.ones((SERVERS, months))
    for place, name in enumerate(sorted(down)):
        for start, end in union(down[name]):
            for month in range(months):
                first = month * MONTH_DAYS
                inside = min(end, first + MONTH_DAYS) - max(start, first)
                there[place, month] -= max(inside, 0.0) / MONTH_DAYS
    return there


def union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the spans merged so that none overlap."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def deliveries(there: Array, nodes: int) -> Array:
    """Return the delivered share of units of so many servers, by month: all servers, or seeded
    draws."""
    if nodes == 1:
        return np.asarray(there.ravel())
    rng = np.random.default_rng(20240330)
    drawn = [
        there[rng.choice(SERVERS, nodes, replace=False), month].mean()
        for month in range(there.shape[1])
        for _ in range(DRAWS)
    ]
    return np.array(drawn)


def outcome(unit: str, shares: Array) -> Outcome:
    """Return the result of these deliveries under the H100 node grade's rules, each fixed at
    par."""
    loaded = grades.load()
    rules, par = loaded.rules[-1], loaded.grade("H100-NODE").par_delivered_e4
    month = Month(2026, 11)
    elapsed = month.days * _DAY_NS
    invoice = invoice_cents(price_micros=_PRICE_MICROS, hours=month.hours, lots=8)
    found = [
        true_up(
            price_micros=_PRICE_MICROS, hours=month.hours, lots=8, factor_e4=10_000, fixed_e4=par,
            lost_ns=round((1 - float(share)) * elapsed), elapsed_ns=elapsed, rules=rules,
        )
        for share in shares
    ]  # fmt: skip
    charged = [one.cents / invoice for one in found if not one.failed]
    return Outcome(
        unit=unit,
        deliveries=len(found),
        charged=sum(one > 0 for one in charged) / len(found),
        failed=sum(one.failed for one in found) / len(found),
        mean_true_up=float(np.mean(charged)),
        lost=float(1 - shares.mean()),
    )


def outcomes(there: Array) -> list[Outcome]:
    return [outcome(unit, deliveries(there, nodes)) for unit, nodes in UNITS.items()]


def rows(there: Array) -> Iterator[Row]:
    """Yield the rows of the trace."""
    fleet = there.mean(axis=0)
    yield row("faults.fleet_month_mean", 100 * float(fleet.mean()), "% of hours")
    yield row("faults.fleet_month_least", 100 * float(np.min(fleet)), "% of hours")
    yield row("faults.fleet_month_sd", 100 * float(fleet.std(ddof=1)), "% of hours")
    yield row("faults.node_month_sd", 100 * float(there.std()), "% of hours")
    yield row("faults.node_months_without_loss", 100 * float((there == 1).mean()), "% of months")
    for one in outcomes(there):
        name = one.unit.replace(" ", "_")
        yield row(f"faults.{name}.charged", 100 * one.charged, "% of deliveries")
        yield row(f"faults.{name}.failed", 100 * one.failed, "% of deliveries")
        yield row(f"faults.{name}.true_up", 100 * one.mean_true_up, "% of invoice")
