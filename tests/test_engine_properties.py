"""What must hold whatever the commands are: consequences that docs/reference/engine.md promises."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from differences import decoded
from generator import MIXED, Generator

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    OrderFeature,
)

BOOK_KINDS = (
    EventKind.ORDER_ACCEPTED,
    EventKind.ORDER_REPLACED,
    EventKind.ORDER_RETURNED,
    EventKind.ORDER_ELECTED,
    EventKind.ORDER_REFILLED,
)
LOTS = (1 << 32) - 1  # of a replaced order's `b`: those shown; the hidden ones are above
WHOLE = (  # they say how many lots there are
    EventKind.ORDER_RETURNED,
    EventKind.ORDER_WAITING,
    EventKind.ORDER_ELECTED,
    EventKind.ORDER_REFILLED,
    EventKind.ORDER_DORMANT,
)
TAKEN = (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED)
NEVER_MORE = (CommandKind.CANCEL, CommandKind.REDUCE)

seeds = pytest.mark.parametrize("seed", range(6))


def run(
    engine: Engine, seed: int, commands: int, size: int
) -> Iterator[tuple[bytes, bytes, list[Event]]]:
    """Yields each batch, its events as bytes, and decoded."""
    generator, sequence = Generator(seed, {**MIXED, "churn": 0}), 1
    batch = generator.opening()
    while sequence <= commands:
        events = engine.apply(batch, sequence, generator.stamp)
        yield batch, events, decoded(events)
        generator.learn(events)
        sequence += len(batch) // COMMAND_BYTES
        batch = generator.batch(size)


class Depth:
    """The books, kept from events alone, as a reader of the released stream would."""

    def __init__(self) -> None:
        self.lots: dict[tuple[int, int, int], int] = defaultdict(int)  # instrument, side, price

    def see(self, event: Event) -> None:
        if event.flags & EventFlag.DUPLICATE:
            return  # the first answer again: nothing new happened
        side = 1 if event.flags & EventFlag.SELL else 0
        resting = event.flags & EventFlag.RESTING
        here = event.instrument, side
        if event.kind == EventKind.ORDER_REPLACED and resting:
            self.lots[*here, event.a] -= event.b & LOTS
        if event.kind in BOOK_KINDS:
            self.lots[*here, event.price] += event.leaves
        elif event.kind == EventKind.LEVEL_TAKEN:
            self.lots[*here, event.price] -= event.a
        elif event.kind == EventKind.TRADE and not event.flags & EventFlag.AUCTION:
            self.lots[event.instrument, 1 - side, event.price] -= event.quantity
        elif event.kind in TAKEN and resting:
            self.lots[*here, event.price] -= event.quantity - event.b
        elif event.kind == EventKind.ORDER_EXECUTED and resting:
            self.lots[*here, event.price] -= event.quantity
        elif event.kind == EventKind.ORDER_DORMANT:
            self.lots[*here, event.price] -= event.leaves

    def levels(self, instrument: int, side: int) -> list[tuple[int, int]]:
        found = [
            (price, lots)
            for (number, where, price), lots in self.lots.items()
            if lots and (number, where) == (instrument, side)
        ]
        return sorted(found, reverse=side == 0)


@seeds
def test_depth_follows_from_events_alone(seed: int) -> None:
    engine, depth = Engine(), Depth()
    for _, _, events in run(engine, seed, 6_000, 16):
        for event in events:
            depth.see(event)
        for instrument in range(engine.counts()["instruments"]):
            for side, levels in enumerate(engine.book(instrument)):
                seen = depth.levels(instrument, side)
                assert seen == [(price, lots) for price, lots, _ in levels]


@seeds
def test_every_lot_of_an_order_is_accounted_for(seed: int) -> None:
    """Leaves + executed + taken off = the quantity asked for, at each event of each order."""
    leaves: dict[int, int] = {}
    executed: dict[int, int] = defaultdict(int)
    for _, _, events in run(Engine(), seed, 9_000, 16):
        for event in events:
            order = event.order_id
            if event.flags & EventFlag.DUPLICATE:
                continue
            if event.kind == EventKind.ORDER_ACCEPTED:
                leaves[order] = event.quantity
            elif event.kind == EventKind.ORDER_REPLACED:
                assert leaves[order] == (event.b & LOTS) + (event.b >> 32)
                leaves[order] = event.quantity - executed[order]
            elif event.kind in WHOLE:
                assert leaves[order] == event.quantity
            elif event.kind == EventKind.TRADE:
                for side, left in ((order, event.leaves), (event.key_lo, event.key_hi >> 32)):
                    leaves[side] -= event.quantity
                    executed[side] += event.quantity
                    assert leaves[side] == left
            elif event.kind == EventKind.ORDER_EXECUTED:
                leaves[order] -= event.quantity
                executed[order] += event.quantity
                assert leaves[order] == event.leaves
            elif event.kind in TAKEN:
                leaves[order] -= event.quantity
                assert leaves[order] == event.leaves
    assert len(executed) > 50


def received(events: list[Event], account: int) -> int:
    """Micro-dollars that residuals of combinations' trades gave an account."""
    posted = [event for event in events if event.kind == EventKind.RESIDUAL_POSTED]
    owed = [event.a for event in posted if event.account == account]
    return max(0, sum(owed + [event.b for event in posted if event.key_hi == account]))


def through_implied(events: list[Event]) -> set[int]:
    """Accounts whose orders in a combination traded at an implied price."""
    return {event.account for event in events if event.kind == EventKind.ORDER_EXECUTED}


@seeds
def test_no_trade_cancel_or_reduce_raises_what_is_required(seed: int) -> None:
    """Only the sender of an order may come to need more, and then no more than it had.

    An account that was in deficit already may still send what closes its position, even at a bad
    price; a taker's fee is not part of what its margin was judged on.
    """
    engine = Engine()
    before: dict[int, tuple[int, int]] = {}  # required and cash by account
    looked_at = 0
    for batch, _, events in run(engine, seed, 6_000, 1):
        kind, sender = batch[0], int.from_bytes(batch[8:12], "little")
        alone = len(batch) == COMMAND_BYTES  # some acts are of several commands
        if alone and kind <= CommandKind.REPLACE and events[-1].kind != EventKind.REJECTED:
            looked_at += 1
            for number, (required, cash) in before.items():
                # the cash of a residual stands for what the prices of the legs lack
                now = engine.account(number)["required"] - received(events, number)
                # an implied trade may ask more of who entered the combination, if it has that
                lent = number == sender or number in through_implied(events)
                assert now <= required or (kind not in NEVER_MORE and lent)
                assert now <= max(required, cash) or required > cash
        opened = {e.account for e in events if e.kind == EventKind.ACCOUNT_OPENED}
        figures = {number: engine.account(number) for number in {0, *before, *opened}}
        before = {n: (account["required"], account["cash"]) for n, account in figures.items()}
    assert looked_at > 300


@dataclass
class Seen:
    """An order, as its events tell of it."""

    account: int
    instrument: int
    side: int
    price: int
    features: int
    rank: int  # the lower, the older among those at its price
    lots: int
    executed: int = 0
    aside: EventKind | None = None  # the event that took it aside, while it waits beside the book

    def is_behind(self, other: "Seen") -> bool:
        """Whether of two on one side of a book the other one trades first."""
        if self.price == other.price:
            return self.rank > other.rank
        return (self.price > other.price) == (self.side == 1)


class Queue:
    """Every live order, with its price and age, from events alone. Asserts who may trade."""

    def __init__(self) -> None:
        self.orders: dict[int, Seen] = {}
        self.groups, self.nets = {0: 0}, dict[tuple[int, int], int]()
        self.ranks = self.trades = 0

    def see(self, event: Event) -> None:
        kind, side = event.kind, 1 if event.flags & EventFlag.SELL else 0
        order = self.orders.get(event.order_id)
        if event.flags & EventFlag.DUPLICATE:
            return
        if kind == EventKind.ACCOUNT_OPENED:
            self.groups[event.account] = event.leaves
        elif kind == EventKind.ORDER_ACCEPTED:
            self.orders[event.order_id] = order = Seen(
                event.account, event.instrument, side, event.price, event.b >> 16 & 0xFF, 0,
                event.quantity,
            )  # fmt: skip
            self.queue(order)
        elif kind in (EventKind.TRADE, EventKind.LEG_TRADE):
            self.trade(event, side)
        elif kind in (EventKind.TRADE_BUSTED, EventKind.LEG_BUSTED):
            self.move(event, 1 - side)
        elif kind == EventKind.LOTS_TRANSFERRED:
            self.shift(event.account, event.order_id, event.instrument, side, event.quantity)
        elif kind == EventKind.INSTRUMENT_EXPIRED:
            self.nets = {at: net for at, net in self.nets.items() if at[1] != event.instrument}
        elif order is not None:
            self.change(order, event)

    def queue(self, order: Seen) -> None:
        self.ranks += 1
        order.rank, order.aside = self.ranks, None

    def change(self, order: Seen, event: Event) -> None:
        if event.kind in (EventKind.ORDER_WAITING, EventKind.ORDER_DORMANT):
            order.aside = EventKind(event.kind)
        elif event.kind == EventKind.ORDER_REPLACED:
            order.price, order.lots = event.price, event.quantity - order.executed
            if event.reason != 1 and order.aside != EventKind.ORDER_WAITING:
                self.queue(order)
        elif event.kind in BOOK_KINDS:
            order.price = event.price
            self.queue(order)
        elif event.kind in (*TAKEN, EventKind.ORDER_EXECUTED):
            self.take(event.order_id, event.quantity, event.kind == EventKind.ORDER_EXECUTED)

    def take(self, order_id: int, lots: int, executed: bool) -> None:
        order = self.orders[order_id]
        order.lots -= lots
        order.executed += lots * executed
        if order.lots == 0:
            del self.orders[order_id]

    def shift(self, account: int, other: int, instrument: int, side: int, lots: int) -> None:
        for number, change in ((account, lots), (other, -lots)):
            at = number, instrument
            self.nets[at] = self.nets.get(at, 0) + (-change if side else change)

    def move(self, event: Event, side: int) -> None:
        """Move the lots of a trade, or of a leg, but not of a whole combination."""
        if event.kind in (EventKind.LEG_TRADE, EventKind.LEG_BUSTED) or not event.reason:
            other = event.key_hi & 0xFFFFFFFF
            self.shift(event.account, other, event.instrument, side, event.quantity)

    def trade(self, event: Event, side: int) -> None:
        other = event.key_hi & 0xFFFFFFFF
        assert self.groups[event.account] != self.groups[other]
        before = {n: self.nets.get((n, event.instrument), 0) for n in (event.account, other)}
        self.move(event, side)
        if event.kind == EventKind.LEG_TRADE:
            return
        self.trades += 1
        maker = self.orders[event.key_lo]
        if not event.flags & EventFlag.AUCTION:
            assert (maker.aside, maker.price) == (None, event.price)
            assert not [
                order for order in self.orders.values()
                if order.instrument == event.instrument and order.side == maker.side
                and order.aside is None and maker.is_behind(order)
            ]  # fmt: skip
        for order_id in (event.order_id, event.key_lo):
            order = self.orders[order_id]
            if order.features & OrderFeature.REDUCE_ONLY:
                net = self.nets[order.account, event.instrument]
                assert abs(net) < abs(before[order.account])
                assert net * before[order.account] >= 0
            self.take(order_id, event.quantity, True)


@seeds
def test_trades_go_by_price_then_age_and_never_within_a_group(seed: int) -> None:
    """And an order that only reduces never adds to a position."""
    queue = Queue()
    for _, _, events in run(Engine(), seed, 9_000, 16):
        for event in events:
            queue.see(event)
    assert queue.trades > 20
