"""The client's book against the exchange's own depth, over a wire that loses, doubles and swaps."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import errors
from clients.book import Book, BookState, Step, TopBook
from clients.decimals import PriceScale
from exchange.marketdata.depth import Depth
from exchange.messages import EventKind, wire
from exchange.messages.wire_market import proven

CODE = "H100Z26"


class Exchange:
    """Depth messages of one instrument as the exchange makes them."""

    def __init__(self) -> None:
        self.scale = PriceScale("0.001", 3)
        self.depth = Depth()
        self.sequence = 0
        self.sent = 0

    def enter(self, side: int, price: int, lots: int) -> wire.DepthDelta:
        """An order that rests, or with negative lots one that leaves."""
        self.sequence += 1
        kind = EventKind.ORDER_ACCEPTED if lots > 0 else EventKind.ORDER_CANCELLED
        flags = (2 if side else 0) | (8 if lots < 0 else 0)
        self.depth.apply(
            (self.sequence, 0, kind, flags, 0, 0, 1, 1, price, abs(lots), max(0, lots), 0, 0, 0, 0)
        )
        bids, asks = self.depth.changes()
        previous, self.sent = self.sent, self.sequence
        return wire.DepthDelta(
            instrument=CODE,
            sequence=self.sequence,
            previous_sequence=previous,
            time=0,
            checksum=self.depth.checksum(),
            bids=[(self.scale.text(p), str(q)) for p, q in bids],
            asks=[(self.scale.text(p), str(q)) for p, q in asks],
        )

    def beat(self) -> wire.DepthDelta:
        return wire.DepthDelta(
            instrument=CODE,
            sequence=self.sent,
            previous_sequence=self.sent,
            time=0,
            checksum=self.depth.checksum(),
        )

    def snapshot(self) -> wire.DepthSnapshot:
        return wire.DepthSnapshot(
            instrument=CODE,
            sequence=self.sent,
            time=0,
            bids=[(self.scale.text(p), str(q)) for p, q in self.depth.bids()],
            asks=[(self.scale.text(p), str(q)) for p, q in self.depth.asks()],
            checksum=self.depth.checksum(),
        )


def same(book: Book, exchange: Exchange) -> bool:
    return (book.bids(), book.asks()) == (exchange.depth.bids(), exchange.depth.asks())


def test_a_book_follows_every_delta() -> None:
    exchange = Exchange()
    book = Book(CODE, exchange.scale)
    assert book.apply(exchange.snapshot()) is Step.APPLIED
    for lots in (5, 7, -12):
        assert book.apply(exchange.enter(0, 2640, lots)) is Step.APPLIED
        assert same(book, exchange)
    assert book.best_bid is None and book.best_ask is None


def test_a_missing_delta_makes_the_book_stale_and_a_snapshot_repairs_it() -> None:
    exchange = Exchange()
    book = Book(CODE, exchange.scale)
    book.apply(exchange.snapshot())
    exchange.enter(0, 2640, 5)
    late = exchange.enter(1, 2660, 5)
    assert book.apply(late) is Step.REPAIR
    assert book.state is BookState.STALE and isinstance(book.fault, errors.Gap)
    assert book.bids() == [] == book.asks()
    assert book.apply(exchange.beat()) is Step.IGNORED
    assert book.apply(exchange.snapshot()) is Step.APPLIED
    assert same(book, exchange) and book.repairs == 1


def test_a_heartbeat_shows_what_silence_hid() -> None:
    exchange = Exchange()
    book = Book(CODE, exchange.scale)
    book.apply(exchange.snapshot())
    assert book.apply(exchange.beat()) is Step.APPLIED
    exchange.enter(0, 2640, 5)
    assert book.apply(exchange.beat()) is Step.REPAIR


def test_a_bad_checksum_makes_the_book_stale() -> None:
    exchange = Exchange()
    book = Book(CODE, exchange.scale)
    book.apply(exchange.snapshot())
    delta = exchange.enter(0, 2640, 5)
    forged = wire.DepthDelta(
        instrument=CODE,
        sequence=delta.sequence,
        previous_sequence=delta.previous_sequence,
        time=0,
        checksum=delta.checksum,
        bids=[("2.640", "6")],
    )
    assert book.apply(forged) is Step.REPAIR
    assert isinstance(book.fault, errors.BadChecksum)


def test_the_top_of_another_gateway_may_be_of_an_earlier_sequence() -> None:
    """A gateway counts a channel's messages from its first subscriber on."""
    top = TopBook(CODE, PriceScale("0.001", 3), f"top.{CODE}.1s")

    def told(sequence: int) -> wire.TopOfBook:
        return proven(
            wire.TopOfBook(
                channel=top.channel,
                instrument=CODE,
                sequence=sequence,
                previous_sequence=sequence,
                time=0,
                checksum=0,
                bid=("2.650", "5", 1),
            )
        )

    assert top.apply(told(100)) is Step.APPLIED
    assert top.apply(told(50)) is Step.IGNORED and top.sequence == 100
    top.pause()
    assert top.apply(told(50)) is Step.APPLIED
    assert top.is_live and top.bid == (2650, 5, 1)


FATES = st.sampled_from(["arrives"] * 12 + ["is lost", "comes twice", "comes late", "is forged"])


@settings(max_examples=300)
@given(st.integers(0, 1 << 30), st.lists(FATES, min_size=1, max_size=60), st.integers(0, 3))
def test_whatever_the_wire_does_a_live_book_is_true(
    seed: int, fates: list[str], repair_delay: int
) -> None:
    """At every step the book is the exchange's of that sequence, or it has noticed."""
    exchange, chance = Exchange(), random.Random(seed)
    book = Book(CODE, exchange.scale)
    book.apply(exchange.snapshot())
    truth = {0: (exchange.depth.bids(), exchange.depth.asks())}
    late: list[wire.DepthDelta] = []
    wait = -1  # changes until the snapshot asked for comes
    for fate in fates:
        delta = changed(exchange, chance)
        truth[exchange.sequence] = (exchange.depth.bids(), exchange.depth.asks())
        arriving = {"is lost": [], "comes twice": [delta, delta], "comes late": []}.get(
            fate, [forged(delta) if fate == "is forged" else delta]
        )
        for message in [*arriving, *late]:
            if book.apply(message) is Step.REPAIR:
                wait = repair_delay
            assert not book.is_live or (book.bids(), book.asks()) == truth[book.sequence]
        late = [delta] if fate == "comes late" else []
        if wait == 0:
            assert book.apply(exchange.snapshot()) is Step.APPLIED
        wait -= 1
    book.apply(exchange.beat())
    if not book.is_live:
        book.apply(exchange.snapshot())
    assert same(book, exchange)


def forged(delta: wire.DepthDelta) -> wire.DepthDelta:
    """The delta with one more lot on its first level: only the checksum can tell."""
    bids, asks = list(delta.bids), list(delta.asks)
    levels = bids or asks
    levels[0] = (levels[0][0], str(int(levels[0][1]) + 1))
    return msgspec.structs.replace(delta, bids=bids, asks=asks)


def changed(exchange: Exchange, chance: random.Random) -> wire.DepthDelta:
    """The delta of a random order that comes or leaves."""
    side = chance.randint(0, 1)
    levels = exchange.depth.asks() if side else exchange.depth.bids()
    if levels and chance.random() < 0.4:
        price, lots = chance.choice(levels)
        return exchange.enter(side, price, -chance.randint(1, lots))
    price = 2650 + (1 if side else -1) * chance.randint(1, 9)
    return exchange.enter(side, price, chance.randint(1, 9))
