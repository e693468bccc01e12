"""Depth from events alone equals the engine's book; deltas, checksums and gaps."""

import random
import struct
from zlib import crc32

import pytest
import venue as market
from msgspec.structs import astuple
from venue import CODE, OTHER, RICH, THIRD, flow

from exchange.engine import Engine
from exchange.marketdata import depth as depth_room
from exchange.marketdata.depth import Depth
from exchange.marketdata.feed import Feed
from exchange.marketdata.instruments import Instrument, decimal_text, micros_text
from exchange.marketdata.stream import Row
from exchange.messages import (
    COMMAND,
    EVENT,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Side,
    wire,
)

CHANNELS = frozenset(f"{kind}.{code}" for kind in ("depth", "trades") for code in (CODE, OTHER))


class Stream:
    """An engine and the feed on its events."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.feed = Feed()
        self.sequence = 0
        self.apply([command for command, _ in market.opening()], named=True)

    def apply(self, commands: list[Command], *, named: bool = False) -> list[wire.Response]:
        texts = {}
        if named:
            texts = {n + 1: text for n, (_, text) in enumerate(market.opening()) if text}
        records = b"".join(COMMAND.pack(*astuple(command)) for command in commands)
        events = self.engine.apply(records, self.sequence + 1, self.sequence + 1)
        self.sequence += len(commands)
        rows: list[Row] = list(EVENT.iter_unpack(events))
        return [message for _, message in self.feed.apply(rows, 1, texts, CHANNELS)]


class Book:
    """A subscriber's own depth, which trusts nothing but the messages."""

    def __init__(self, snapshot: wire.Response) -> None:
        assert isinstance(snapshot, wire.DepthSnapshot)
        self.sides = (dict(snapshot.bids), dict(snapshot.asks))
        self.sequence = snapshot.sequence
        assert self.checksum() == snapshot.checksum

    def apply(self, delta: wire.DepthDelta) -> None:
        assert delta.previous_sequence == self.sequence
        assert delta.bids or delta.asks
        self.sequence = delta.sequence
        for side, levels in zip(self.sides, (delta.bids, delta.asks), strict=True):
            for price, quantity in levels:
                side[price] = quantity
                if quantity == "0":
                    del side[price]
        assert self.checksum() == delta.checksum

    def best(self, side: int) -> list[tuple[int, int]]:
        levels = [(int(p.replace(".", "")), int(q)) for p, q in self.sides[side].items()]
        return sorted(levels, reverse=side == 0)

    def checksum(self) -> int:
        best = self.best(0)[:10] + self.best(1)[:10]
        return crc32(b"".join(struct.pack("<qq", *level) for level in best))


@pytest.mark.parametrize("seed", range(4))
def test_depth_from_events_equals_the_engines_book(seed: int) -> None:
    stream = Stream()
    chance = random.Random(seed)
    books: dict[str, Book] = {}
    trades = 0
    commands = list(flow(seed, 1_500))
    while commands:
        size = chance.randrange(1, 25)
        batch, commands = commands[:size], commands[size:]
        for message in stream.apply(batch):
            if isinstance(message, wire.DepthDelta) and message.instrument in books:
                books[message.instrument].apply(message)
            trades += isinstance(message, wire.PublicTrade)
        for number, code in enumerate((CODE, OTHER)):
            bids, asks = stream.engine.book(number)
            depth = stream.feed.depths[number]
            assert depth.bids() == [level[:2] for level in bids]
            assert depth.asks() == [level[:2] for level in asks]
            if code in books:
                assert books[code].best(0) == depth.bids()
                assert books[code].best(1) == depth.asks()
            elif chance.random() < 0.2:  # subscribe in mid-stream
                books[code] = Book(subscribe(stream, f"depth.{code}"))
    assert trades > 100


def subscribe(stream: Stream, channel: str) -> wire.Response:
    (snapshot,) = stream.feed.snapshot(channel, stream.sequence)
    return snapshot


def order(key: int, side: Side, price: int, lots: int, account: int = RICH) -> Command:
    return Command(
        kind=CommandKind.ENTER, side=side, instrument=0, account=account, price=price,
        quantity=lots, key_lo=key,
    )  # fmt: skip


def test_a_lost_delta_is_seen_as_a_gap_and_a_snapshot_repairs_it() -> None:
    stream = Stream()
    book = Book(subscribe(stream, f"depth.{CODE}"))
    stream.apply([order(1, Side.BUY, 2_650, 5)])  # its delta is lost
    (delta,) = stream.apply([order(2, Side.BUY, 2_649, 5)])
    assert isinstance(delta, wire.DepthDelta)
    assert delta.previous_sequence != book.sequence
    book = Book(subscribe(stream, f"depth.{CODE}"))
    (delta,) = stream.apply([order(3, Side.SELL, 2_660, 1)])
    assert isinstance(delta, wire.DepthDelta)
    book.apply(delta)


def test_levels_that_come_and_go_within_a_batch_are_not_told() -> None:
    stream = Stream()
    cancel = Command(
        kind=CommandKind.CANCEL, side=Side.UNSTATED, flags=CommandFlag.BY_CLIENT_ID,
        account=RICH, target_lo=1, key_lo=2,
    )  # fmt: skip
    assert stream.apply([order(1, Side.BUY, 2_650, 5), cancel]) == []


def test_a_trade_names_the_aggressor_and_its_match() -> None:
    stream = Stream()
    stream.apply([order(1, Side.BUY, 2_650, 5)])
    trade, delta, mark = stream.apply([order(2, Side.SELL, 2_640, 3, THIRD)])
    assert isinstance(trade, wire.PublicTrade) and isinstance(delta, wire.DepthDelta)
    assert isinstance(mark, wire.ChannelMark)
    assert (mark.sequence, mark.previous_sequence, mark.count) == (trade.sequence, 0, 1)
    assert mark.checksum == crc32(f"{trade.sequence}:{trade.index}:2.650:3:".encode())
    assert (trade.aggressor, trade.price, trade.quantity) == ("sell", "2.650", "3")
    assert trade.match_number == str(trade.sequence << 20 | trade.index)
    assert delta.bids == [("2.650", "2")]


def test_the_checksum_of_the_documented_example() -> None:
    stream = Stream()
    stream.apply([order(1, Side.BUY, 2_650, 12), order(2, Side.BUY, 2_649, 30)])
    stream.apply([order(3, Side.SELL, 2_652, 7)])
    levels = bytes.fromhex(
        "5a0a0000000000000c00000000000000"
        "590a0000000000001e00000000000000"
        "5c0a0000000000000700000000000000"
    )
    snapshot = subscribe(stream, f"depth.{CODE}")
    assert isinstance(snapshot, wire.DepthSnapshot)
    assert snapshot.checksum == crc32(levels)


def test_no_message_is_built_that_nobody_wants() -> None:
    stream = Stream()
    commands = COMMAND.pack(*astuple(order(1, Side.BUY, 2_650, 5)))
    events = stream.engine.apply(commands, stream.sequence + 1, 9)
    rows: list[Row] = list(EVENT.iter_unpack(events))
    assert stream.feed.apply(rows, 9, {}, frozenset()) == []


@pytest.mark.parametrize(
    "channel",
    ["depth", "depth.NONE", "book.H100Z26", "", ".", "depth.", "depth.H100Z26.top7",
     "top.H100Z26.top5", "trades.H100Z26.1s", "depth.H100Z26.1s.top5", "settlements.H100Z26"],
)  # fmt: skip
def test_a_channel_that_does_not_exist(channel: str) -> None:
    with pytest.raises(KeyError):
        Stream().feed.snapshot(channel, 0)


@pytest.mark.parametrize(
    ("units", "digits", "text"),
    [(2650, 3, "2.650"), (-1, 3, "-0.001"), (0, 3, "0.000"), (7, 0, "7"), (-5, 0, "-5")],
)
def test_decimal_text(units: int, digits: int, text: str) -> None:
    assert decimal_text(units, digits) == text


def test_micros_text() -> None:
    assert micros_text(-1_860_000_000) == "-1860.000000"


def test_a_listing_without_text_is_named_by_its_number() -> None:
    row: Row = (1, 0, int(EventKind.INSTRUMENT_LISTED), 1, 1, 4, 0, 1, 2_650_000, 720, 1_000,
                0, 0, 0, 9_999)  # fmt: skip
    instrument = Instrument(row, None)
    assert (instrument.code, instrument.price_text(2_650)) == ("I4", "2.650000")


def test_prices_are_in_order_however_seldom_anybody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels that come, go and come back in batches, against a plain dict."""
    monkeypatch.setattr(depth_room, "UNSORTED_PRICES", 3)
    chance, depth, books = random.Random(11), Depth(), (dict[int, int](), dict[int, int]())
    for sequence in range(1, 2_000):
        side, lots = chance.randint(0, 1), chance.randint(1, 3)
        book, price = books[side], chance.randint(1, 40)
        leaves = book.get(price, 0) and chance.random() < 0.6
        lots = min(lots, book[price]) if leaves else lots
        kind = EventKind.ORDER_CANCELLED if leaves else EventKind.ORDER_ACCEPTED
        flags = (EventFlag.SELL if side else 0) | (EventFlag.RESTING if leaves else 0)
        shown = 0 if leaves else lots
        depth.apply((sequence, 0, kind, flags, 0, 0, 1, 1, price, lots, shown, 0, 0, 0, 0))
        book[price] = book.get(price, 0) + (-lots if leaves else lots)
        if not book[price]:
            del book[price]
        if chance.random() < 0.2:
            depth.changes()
            if chance.random() < 0.1:
                assert depth.bids() == sorted(books[0].items(), reverse=True)
                assert depth.asks() == sorted(books[1].items())
