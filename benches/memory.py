"""Bytes per resting order over all structures, measured in two ways that should agree.

One is the growth of the process (resident set, in a process of its own, with its inputs made
beforehand), the other what the engine reports. The market is the one with the most overhead per
order: many instruments with wide limits, ``ORDERS`` resting orders of 128 accounts.
"""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benches.rows import Row, row
from benches.workloads import LOTS, MIDDLE, NEW, RAW
from exchange.engine import Engine
from exchange.sim.flow import fill_books, prepare

ORDERS: Final = 1_000_000
INSTRUMENTS: Final = 1_000
LEVELS: Final = 900  # price levels of each side; limits are twice as many


def resting_flow(orders: int, instruments: int) -> bytes:
    """Return orders that all rest, spread evenly at random, and one record more that is not
    used."""
    draw = random.Random(17)
    records = []
    for order_id in range(1, orders + 2):
        side = draw.randrange(2)
        price = MIDDLE + (1 + draw.randrange(LEVELS)) * (1 if side else -1)
        symbol, lots = draw.randrange(instruments), 1 + draw.randrange(LOTS)
        records.append(RAW.pack(NEW, side, symbol, lots, price, order_id, 0))
    return b"".join(records)


def resident_bytes() -> int:
    """Return this process's resident set in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def measure(orders: int, instruments: int) -> dict[str, float]:
    """Fill an engine in this process; return bytes per resting order, resident and as reported."""
    flow = prepare(resting_flow(orders, instruments), skip=orders)
    before = resident_bytes()
    engine = Engine()
    fill_books(flow, engine)
    grown = resident_bytes() - before
    resting = engine.counts()["orders"]
    return {"resident": grown / resting, "accounted": sum(engine.memory().values()) / resting}


def memory_rows(orders: int = ORDERS, instruments: int = INSTRUMENTS) -> Iterator[Row]:
    """Yield the rows of this bench, measured in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benches.memory", str(orders), str(instruments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    for name, value in json.loads(done.stdout).items():
        yield row(f"memory.{name}", value, "bytes/resting order")


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:]))))
