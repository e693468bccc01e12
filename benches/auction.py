"""An auction of 100,000 crossed orders at one price, compared with sorting their prices.

    hourbook bench auction [--instructions] [--cache] [--json] [--record]

Each round collects the orders in a fresh engine, times the command that uncrosses them, and times
NumPy's sort of the same prices, both in CPU time of the thread. Figures are medians over the
rounds; both sides of a ratio come from the same round. Owners, holds, fees and all events are
included. Then callgrind counts the instructions of the same command per trade; ``--instructions``
only counts, ``--cache`` adds the cache misses in callgrind's model.
"""

import shutil
import time
from collections.abc import Iterator
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benches.instructions import count, count_rows
from benches.rows import Row, bench_parser, publish, row
from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_FIELDS,
    EVENT,
    CommandKind,
    EventKind,
    TradingState,
)

ORDERS: Final = 100_000
ACCOUNTS: Final = 64  # of each side
ROUNDS: Final = 15
CENTRE: Final = 3_000
SEED: Final = 20261121
BATCH: Final = 4_000
SPREADS: Final = (20.0, 400.0)  # standard deviations of the prices, in ticks


def record(kind: int, **fields: int) -> bytes:
    return COMMAND.pack(kind, *(fields.get(name, 0) for name in COMMAND_FIELDS[1:]))


def opening() -> bytes:
    """Return the commands for one instrument that collects orders, and for funded accounts."""
    out = [
        record(CommandKind.LIST, price=CENTRE, quantity=1, session=1, account=1, operator=1,
               target_hi=2 * CENTRE),
        record(CommandKind.SET_RISK, price=10, quantity=1 << 30, session=1 << 20, target_hi=2),
    ]  # fmt: skip
    for account in range(1, 2 * ACCOUNTS + 1):
        out.append(
            record(CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account,
                   quantity=1 << 20, target_hi=1)
        )  # fmt: skip
        out.append(record(CommandKind.DEPOSIT, account=account, price=1 << 45))
    out.append(record(CommandKind.SET_STATE, tif=TradingState.AUCTION))
    return b"".join(out)


def ending() -> bytes:
    """Return the command that uncrosses."""
    return record(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS)


def crossed(count: int, spread: float) -> tuple[bytes, NDArray[np.int64]]:
    """Return orders around one price, buys a little above it and sells below, and their prices."""
    draw = np.random.default_rng(SEED)
    sells = draw.integers(0, 2, count)
    drift = np.where(sells == 1, -spread / 4, spread / 4)
    prices = np.clip(np.rint(CENTRE + drift + draw.normal(0, spread, count)), 0, 2 * CENTRE)
    lots = draw.integers(1, 20, count)
    owner = draw.integers(1, ACCOUNTS + 1, count)
    out = [
        record(CommandKind.ENTER, side=int(sell), account=int(who) + (ACCOUNTS if sell else 0),
               price=int(price), quantity=int(size), key_lo=key)
        for key, (sell, who, price, size) in enumerate(
            zip(sells, owner, prices, lots, strict=True), start=1)
    ]  # fmt: skip
    return b"".join(out), prices.astype(np.int64)


def batched(orders: bytes) -> list[bytes]:
    """Return the batches that collect the orders."""
    size = BATCH * COMMAND.size
    return [opening(), *(orders[at : at + size] for at in range(0, len(orders), size))]


def collected(orders: bytes) -> tuple[Engine, int]:
    """Return an engine that has collected the orders, and its next sequence."""
    engine, sequence = Engine(), 1
    for batch in batched(orders):
        engine.apply(batch, sequence, 1)
        sequence += len(batch) // COMMAND.size
    return engine, sequence


def trades_in(events: bytes) -> int:
    """Return the number of trades among the events."""
    return sum(event[2] == EventKind.TRADE for event in EVENT.iter_unpack(events))


def uncrossed(orders: bytes, prices: NDArray[np.int64]) -> tuple[float, float, int]:
    """Return the seconds of the uncross and of the sort, and the number of trades.

    The events are released, as in a market, so the next round reuses their memory.
    """
    engine, sequence = collected(orders)
    if engine.counts()["orders"] != len(prices):
        raise RuntimeError("not every order was collected")
    begin = time.thread_time()
    events = engine.apply(ending(), sequence, 2)
    traded = time.thread_time() - begin
    begin = time.thread_time()
    np.sort(prices)
    return traded, time.thread_time() - begin, trades_in(events)


def timed_rows(name: str, orders: bytes, prices: NDArray[np.int64]) -> Iterator[Row]:
    rounds = [uncrossed(orders, prices) for _ in range(ROUNDS)]
    ratio = median(traded / sort for traded, sort, _ in rounds)
    value = median(traded for traded, _, _ in rounds) / ORDERS * 1e9
    yield Row(f"{name}.uncross", float(f"{value:.4g}"), "ns an order",
              float(f"{ratio:.4g}"), "numpy.sort of the prices")  # fmt: skip
    yield row(f"{name}.trades", rounds[0][2], "trades")


def counted_rows(name: str, orders: bytes, *, cache: bool) -> Iterator[Row]:
    engine, sequence = collected(orders)
    trades = trades_in(engine.apply(ending(), sequence, 2))
    found = count(batched(orders), [ending()], cache=cache)
    yield from count_rows(name, found, trades, "trade", cache=cache)


def rows(*, only_count: bool = False, cache: bool = False) -> Iterator[Row]:
    """Yield all rows; ``only_count``: without timing. Without valgrind, instructions are not
    counted."""
    for spread in SPREADS:
        orders, prices = crossed(ORDERS, spread)
        name = f"auction.{len(set(prices.tolist()))}_prices"
        if not only_count:
            yield from timed_rows(name, orders, prices)
        if shutil.which("valgrind") is not None:
            yield from counted_rows(name, orders, cache=cache)


def main() -> None:
    parser = bench_parser("auction", __doc__.partition("\n")[0])
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions, time nothing; needs valgrind",
    )
    parser.add_argument(
        "--cache", action="store_true", help="count misses of the processor's caches as well"
    )
    options = parser.parse_args()
    found = rows(only_count=options.instructions, cache=options.cache)
    publish(found, as_json=options.json, record=options.record)


if __name__ == "__main__":
    main()
