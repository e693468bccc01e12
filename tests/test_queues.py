"""Every order at its place, against the oracle's own queues; levels, tops and figures of the same.

The budget: fifteen seconds.
"""

from collections import Counter
from typing import Any

import pytest
from generator import MIXED, Generator
from oracle import Oracle
from oracle_state import Order

from exchange.marketdata.feed import Feed
from exchange.marketdata.stream import Row
from exchange.messages import COMMAND_BYTES, EVENT, EventKind, Side

WEIGHTS = {**MIXED, "combine": 8, "call": 12, "uncross": 14, "imply": 6, "day": 3, "mode": 1}


class Market:
    """An oracle, and the feed on its events."""

    def __init__(self, seed: int) -> None:
        self.generator, self.oracle, self.feed = Generator(seed, WEIGHTS), Oracle(), Feed()
        self.generator.tick_scale, self.generator.multiplier = 1000, 744
        self.generator.wealth = 1 << 44
        self.sequence = 0
        self.happened: Counter[EventKind] = Counter()
        self.apply(self.generator.opening())

    def step(self, count: int = 8) -> None:
        self.apply(self.generator.batch(count))

    def apply(self, data: bytes) -> None:
        events = self.oracle.apply(data, self.sequence + 1, self.generator.stamp)
        self.generator.learn(events)
        self.sequence += len(data) // COMMAND_BYTES
        rows: list[Row] = list(EVENT.iter_unpack(events))
        self.happened.update(EventKind(row[2]) for row in rows)
        self.take(rows)

    def take(self, rows: list[Row]) -> None:
        self.feed.apply(rows, self.generator.stamp, {}, ())

    def queue(self, number: int, side: int) -> list[tuple[int, int, int]]:
        """The oracle's orders of a side as (order id, price, lots shown), first to last."""
        instrument = self.oracle.market.instruments[number]
        market = [order for order in instrument.market if order.side == side]

        def best_first(order: Order) -> int:  # stable: the market's orders stay in front
            return -order.price if side == Side.BUY else order.price

        orders = sorted([*market, *instrument.side(side)], key=best_first)
        return [(order.order_id, order.price, order.shown) for order in orders]


def queue_of(feed: Feed, number: int, side: int) -> list[tuple[int, int, int]]:
    """The same of the feed."""
    queues = feed.queues[number]
    names = {rank: order for order, (rank, at, _) in queues.stands.items() if at == side}
    return [(names[rank], price, lots) for rank, price, lots in queues.entries(side)]


@pytest.mark.parametrize("seed", range(8))
def test_every_order_stands_where_the_engine_has_it(seed: int) -> None:
    market = Market(seed)
    for _ in range(120):
        market.step()
        for number in market.feed.instruments.by_id:
            for side in (Side.BUY, Side.SELL):
                assert queue_of(market.feed, number, side) == market.queue(number, side)
