"""The gateway's cost of public market data per event of the released stream.

    hourbook bench feed [--json] [--commands N] [--rounds N]

The events of one seeded market with two hundred resting orders are processed, batch by batch, by
feeds that take turns: one with depth alone, one with all the state that late joiners need (orders
in their queues, the day's statistics), and one per kind of channel that is joined, where each
message is made and encoded once. Figures are CPU time.
"""

import gc
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from statistics import median
from typing import Final

from msgspec.structs import astuple

from benches.rows import Row, bench_parser, publish, row, whole
from exchange.engine import Engine
from exchange.marketdata.depth import Depth
from exchange.marketdata.feed import Feed
from exchange.marketdata.stream import Row as Event
from exchange.messages import (
    COMMAND,
    EVENT,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    TradingState,
)
from exchange.messages.wire import encode_json
from exchange.messages.wire_market import QUEUE_ORDERS

SEED: Final = 7
COMMANDS: Final = 40_000
BATCH: Final = 16
ROUNDS: Final = 5
ACCOUNTS: Final = 16
RESTING: Final = 200
LOW, MIDDLE, HIGH = 2_000, 2_650, 3_300  # ticks
DEEP: Final = 200  # levels of the longest queue, each side
CODE: Final = "I0"  # a listing without a text is named by its number
CHANNELS: Final = ("top", "depth", "queue", "trades", "statistics", "depth.top10")

Batches = list[list[Event]]


def opening() -> Iterator[Command]:
    """Yield the commands for one instrument and funded accounts."""
    yield Command(
        kind=CommandKind.LIST, price=MIDDLE * 1_000, quantity=720, session=1_000, account=1,
        operator=1, target_lo=LOW, target_hi=HIGH,
    )  # fmt: skip
    yield Command(kind=CommandKind.SET_RISK, price=1, quantity=1 << 20, session=1_000)
    for account in range(1, ACCOUNTS + 1):
        yield Command(
            kind=CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account,
            tif=1, quantity=10_000, target_hi=1,
        )  # fmt: skip
        yield Command(kind=CommandKind.DEPOSIT, account=account, price=1 << 55, key_lo=account)
    yield Command(kind=CommandKind.OPEN_DAY, quantity=20261120)
    yield Command(kind=CommandKind.SET_STATE, tif=TradingState.CONTINUOUS)


def orders(commands: int) -> Iterator[Command]:
    """Yield orders around the middle; beyond ``RESTING`` of them the oldest is cancelled."""
    chance = Random(SEED)
    entered: list[tuple[int, int]] = []  # account, key
    for key in range(100, 100 + commands):
        if len(entered) > RESTING:
            account, target = entered.pop(0)
            yield Command(
                kind=CommandKind.CANCEL, side=2, flags=CommandFlag.BY_CLIENT_ID, account=account,
                target_lo=target, key_lo=key,
            )  # fmt: skip
            continue
        account, side = chance.randint(1, ACCOUNTS), chance.randint(0, 1)
        beside = round(chance.gauss(4, 4))
        entered.append((account, key))
        yield Command(
            kind=CommandKind.ENTER, side=side, account=account, quantity=chance.randint(1, 9),
            price=MIDDLE + (beside if side else -beside), key_lo=key,
        )  # fmt: skip


def released(commands: int) -> Batches:
    """Return all events, batch by batch."""
    engine, sequence, batches = Engine(), 1, []
    wishes = [*opening(), *orders(commands)]
    for at in range(0, len(wishes), BATCH):
        some = wishes[at : at + BATCH]
        data = b"".join(COMMAND.pack(*astuple(one)) for one in some)
        batches.append(list(EVENT.iter_unpack(engine.apply(data, sequence, sequence))))
        sequence += len(some)
    return batches


def depth_alone(batches: Batches) -> float:
    """Return the CPU seconds of the depth of the one book."""
    depth, begun = Depth(), time.process_time()
    for batch in batches[1:]:
        for event in batch:
            depth.apply(event)
        depth.changes()
    return time.process_time() - begun


def follow(batches: Batches, channel: str) -> float:
    """Return the CPU seconds of a feed with one channel joined; ``all``: with none."""
    feed, wanted = Feed(), set[str]()
    feed.apply(batches[0], 0, {}, ())
    if channel != "all":
        kind, _, cut = channel.partition(".")
        wanted = {".".join(filter(None, (kind, CODE, cut)))}
        feed.join(*wanted)
    begun = time.process_time()
    for batch in batches[1:]:
        for _, message in feed.apply(batch, 0, {}, wanted):
            encode_json(message)
    return time.process_time() - begun


def feed_rows(commands: int, rounds: int) -> Iterator[Row]:
    """Yield the rows of this bench."""
    batches = released(commands)
    yield from channel_rows(batches, rounds)
    yield from snapshot_rows(batches[0], rounds)


def channel_rows(batches: Batches, rounds: int) -> Iterator[Row]:
    """Yield the cost of an event, by the channel joined."""
    events = sum(map(len, batches[1:]))
    ways = ("bare", "all", *CHANNELS)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            spent = depth_alone(batches) if way == "bare" else follow(batches, way)
            if number:  # the first is discarded
                found[way].append(spent)
    for way in ways:
        to = "" if way == "bare" else "bare" if way == "all" else "all"
        value = 1e6 * median(found[way]) / events
        if not to:
            yield row("feed.bare", value, "us CPU/event")
            continue
        ratio = median(one / base for one, base in zip(found[way], found[to], strict=True))
        value, ratio = float(f"{value:.4g}"), round(ratio, 3)
        yield Row(f"feed.{way}", value, "us CPU/event", ratio, f"feed.{to}")


def crowd(count: int) -> Iterator[Event]:
    """Yield ``count`` resting orders, on both sides of the middle."""
    chance = Random(SEED)
    for number in range(count):
        side, lots = chance.randint(0, 1), chance.randint(1, 9)
        price = MIDDLE + (1 + chance.randrange(DEEP)) * (1 if side else -1)
        flags = EventFlag.LAST_IN_COMMAND | (EventFlag.SELL if side else 0)
        yield (
            1 << 20 | number, 0, EventKind.ORDER_ACCEPTED, flags, 0, 0, 1, number, price, lots,
            lots, 0, 0, 0, 0,
        )  # fmt: skip


def snapshot_turns(feed: Feed, channel: str) -> list[int]:
    """Return the CPU nanoseconds until the first message can be made, then those of each
    message."""
    looks = [time.thread_time_ns()]
    feed.join(channel)
    parts = feed.snapshot(channel, 0)
    looks.append(time.thread_time_ns())
    for message in parts:
        encode_json(message)
        looks.append(time.thread_time_ns())
    feed.leave(channel)
    return [after - before for before, after in pairwise(looks)]


def snapshot_rows(opened: list[Event], rounds: int) -> Iterator[Row]:
    """Yield the cost of one turn of the longest queue's snapshot, compared with the whole
    snapshot."""
    feed, channel = Feed(), f"queue.{CODE}"
    feed.apply([*opened, *crowd(QUEUE_ORDERS)], 0, {}, ())
    gc.collect()
    gc.disable()  # a server collects rarely: see exchange/app/collector.py
    try:
        turns = [snapshot_turns(feed, channel) for _ in range(rounds)]
    finally:
        gc.enable()
    begin = median(spent for spent, *_ in turns) / 1e6
    part = median(max(spent) for _, *spent in turns) / 1e6
    whole = median(map(sum, turns)) / 1e6
    yield row("feed.snapshot.whole", whole, "ms CPU")
    yield row("feed.snapshot.begin", begin, "ms CPU", whole, "feed.snapshot.whole")
    yield row("feed.snapshot.part", part, "ms CPU", whole, "feed.snapshot.whole")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("feed", "Time public data.", ROUNDS)
    parser.add_argument(
        "--commands", type=whole, default=COMMANDS, help="that make the events (%(default)s)"
    )
    options = parser.parse_args(arguments)
    rows = feed_rows(options.commands, options.rounds)
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
