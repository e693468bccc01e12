"""Other engines behind one interface: the oracle, two from PyPI, and any external program.

``order-matching`` and ``lightmatchingengine`` come with the ``bench`` extra. Neither can reduce an
order or cancel the rest of one, so the adapters do that in the engine's own objects; neither has
owners, risk or reports. The number of trades of each must be the expected one.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from benches.workloads import IOC, MARKET, NEW, RAW, REDUCE, REPLACE, Books
from exchange.sim.flow import Core

Record = tuple[int, int, int, int, int, int, int]
FAR: Final = 1 << 40  # beyond every price of a workload


class Rival(Protocol):
    """An engine that gets one raw record at a time."""

    trades: int

    def apply(self, record: Record) -> None: ...


class LightMatchingEngine:
    """lightmatchingengine: dictionaries of lists, the best price by ``min`` over the keys."""

    def __init__(self) -> None:
        from lightmatchingengine import lightmatchingengine as package  # noqa: PLC0415

        self.engine: Any = package.LightMatchingEngine()
        self.resting: dict[int, Any] = {}
        self.trades = 0

    def apply(self, record: Record) -> None:
        kind, side, symbol, quantity, price, order_id, arg = record
        if kind in (NEW, IOC, MARKET):
            self.enter(kind, side, symbol, quantity, price, order_id)
            return
        order = self.resting.get(order_id)
        if order is None or order.leaves_qty == 0:
            return  # the package's cancel fails for a filled order
        if kind == REDUCE and quantity < order.leaves_qty:
            order.leaves_qty -= quantity
            return
        self.engine.cancel_order(order.order_id, symbol)
        if kind == REPLACE:
            self.enter(NEW, side, symbol, quantity, price, arg)

    def enter(
        self, kind: int, side: int, symbol: int, quantity: int, price: int, order_id: int
    ) -> None:
        limit = (0 if side else FAR) if kind == MARKET else price
        order, trades = self.engine.add_order(symbol, limit or 1, quantity, side + 1)
        self.trades += sum(trade.order_id != order.order_id for trade in trades)
        if kind == NEW:
            self.resting[order_id] = order
        elif order.leaves_qty:
            self.engine.cancel_order(order.order_id, symbol)


class OrderMatching:
    """order-matching: dataclasses, found by scanning."""

    def __init__(self) -> None:
        from loguru import logger  # noqa: PLC0415
        from order_matching import matching_engine, order, orders  # noqa: PLC0415
        from order_matching.enums import Side  # noqa: PLC0415

        logger.disable("order_matching")
        self.engine: Any = matching_engine.MatchingEngine(seed=1)
        self.limit_order: Any = order.LimitOrder
        self.orders: Any = orders.Orders
        self.sides: Any = (Side.BUY, Side.SELL)
        self.now = datetime(2026, 1, 1)
        self.trades = 0

    def apply(self, record: Record) -> None:
        kind, side, _, quantity, price, order_id, arg = record
        if kind in (NEW, IOC, MARKET):
            self.enter(kind, side, quantity, price, order_id)
            return
        order = self.engine.unprocessed_orders.find_order_by_id(str(order_id))
        if order is None:
            return
        if kind == REDUCE and quantity < order.size:
            order.size -= quantity
            return
        self.engine.cancel_order(str(order_id))
        if kind == REPLACE:
            self.enter(NEW, side, quantity, price, arg)

    def enter(self, kind: int, side: int, quantity: int, price: int, order_id: int) -> None:
        self.now += timedelta(microseconds=1)
        order = self.limit_order(
            side=self.sides[side],
            price=float((1 if side else FAR) if kind == MARKET else price),
            size=float(quantity),
            timestamp=self.now,
            order_id=str(order_id),
            trader_id="trader",
        )
        self.engine.place(self.orders([order]))
        self.trades += len(self.engine.match(self.now).trades)
        if kind != NEW and order.size:
            self.engine.cancel_order(str(order_id))


# Commands that each can do in a second
PACKAGES: Final[dict[str, tuple[Callable[[], Rival], int]]] = {
    "lightmatchingengine": (LightMatchingEngine, 20_000),
    "order-matching": (OrderMatching, 300),
}


def time_package(name: str, raw: bytes, prefill: int) -> float:
    """Return nanoseconds per command of a package on the commands after ``prefill``.

    Raises ImportError without the ``bench`` extra and RuntimeError if its trades are wrong.
    """
    make, commands = PACKAGES[name]
    records = list(RAW.iter_unpack(raw[: (prefill + commands) * RAW.size]))
    books = Books()
    _feed(books, records)
    rival = make()
    _feed(rival, records[:prefill])
    started = time.perf_counter_ns()
    _feed(rival, records[prefill:])
    spent = time.perf_counter_ns() - started
    if rival.trades != books.trades:
        raise RuntimeError(f"{name} made {rival.trades} trades, {books.trades} are right")
    return spent / (len(records) - prefill)


def new_oracle() -> Core:
    """Return the simple reference engine of the tests, whose folder lies beside the benches."""
    tests = str(Path(__file__).parents[1] / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    oracle: Core = importlib.import_module("oracle").Oracle()
    return oracle


def _feed(engine: Rival, records: Iterable[Record]) -> None:
    for record in records:
        engine.apply(record)


@dataclass(frozen=True, slots=True)
class ExternalRun:
    """What an external engine printed: its timing, and its totals by name."""

    ns_per_command: float
    cpu_ns_per_command: float | None
    totals: dict[str, object]


def run_external(program: Path, flow: Path, skip: int) -> ExternalRun:
    """Run ``program FLOW 1 --skip N``, which prints one JSON line with its times and totals.

    Raises RuntimeError if it fails or prints anything else.
    """
    command = [str(program), str(flow), "1", "--skip", str(skip)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program.name} failed: {done.stderr.strip()}")
    try:
        facts = json.loads(done.stdout)
        cpu = facts.get("cpu_ns_per_command")
        return ExternalRun(float(facts["ns_per_command"]), cpu and float(cpu), facts)
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"{program.name} printed no result: {done.stdout!r}") from error
