"""Every order at its place, against the oracle's own queues; pictures of books against the books.

Budget: 30 seconds.
"""

from collections import Counter
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, cast

import msgspec
import pytest
from differences import Machine
from followers import Follower
from generator import Generator, pack
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from oracle_state import Order
from test_engine_combinations import SPREAD, Desk

from clients.book import Book
from exchange.engine import Engine
from exchange.marketdata.feed import Feed, Told
from exchange.marketdata.levels import Window
from exchange.marketdata.picture import Picture
from exchange.marketdata.pictures import Figures, Top
from exchange.marketdata.stream import Row, signed
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    INDEX_BITS,
    CommandKind,
    EventFlag,
    EventKind,
    Side,
    TradingState,
    wire,
)
from exchange.messages.wire_market import DEPTH_GROUPS, DEPTH_TOPS, GROUP_LEVELS

# A market that trades much and refuses little, with auctions, combinations and moving limits.
WEIGHTS = {
    "enter": 800, "quote": 80, "cancel": 80, "reduce": 50, "replace": 120, "renew": 40, "again": 20,
    "session": 2, "clock": 10, "limits": 16, "state": 2, "mark": 6, "settle": 3, "day": 1,
    "correct": 10, "combine": 6, "call": 4, "uncross": 30, "indicate": 2, "imply": 6,
    "transfer": 8, "mass_cancel": 3,
}  # fmt: skip
KINDS = ("top", "depth", "queue", "trades", "state", "statistics")
Levels = list[tuple[int, int]]


class Market:
    """A machine, and the feed on its events."""

    def __init__(
        self, seed: int, machine: Callable[[], Engine | Oracle] = Engine, **weights: int
    ) -> None:
        self.generator = Generator(seed, WEIGHTS | weights)
        self.machine, self.feed = machine(), Feed()
        self.generator.stops, self.generator.icebergs = 0.05, 0.3
        self.sequence = self.traded = self.looks = self.ready = 0
        self.wanted: set[str] = set()
        self.happened: Counter[int] = Counter()
        self.apply(self.generator.opening())
        deposits = [
            pack(CommandKind.DEPOSIT, account=account, price=1 << 55, key_lo=account, key_hi=99)
            for account in self.generator.accounts
        ]
        self.apply(b"".join(deposits))

    def step(self, count: int = 10) -> Told:
        """The next batch; what was listed since the last one may trade in it."""
        opening = b""
        for number in range(self.ready, len(self.feed.instruments.by_id)):
            legs = self.feed.instruments.by_id[number].legs
            risk = {"price": 1, "quantity": 1 << 20, "session": 200}
            opening += pack(CommandKind.SET_RISK, instrument=number, **risk)
            opening += pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS)
            opening += pack(CommandKind.SET_IMPLIED, instrument=number, tif=1) if legs else b""
        self.ready = len(self.feed.instruments.by_id)
        return self.apply(opening + self.generator.batch(count))

    def apply(self, data: bytes) -> Told:
        events = self.machine.apply(data, self.sequence + 1, self.generator.stamp)
        self.generator.learn(events)
        self.sequence += len(data) // COMMAND_BYTES
        rows: list[Row] = list(EVENT.iter_unpack(events))
        self.rows = rows
        self.happened.update(row[2] for row in rows)
        self.traded += sum(row[2] in (EventKind.TRADE, EventKind.ORDER_EXECUTED) for row in rows)
        return self.feed.apply(rows, self.generator.stamp, {}, self.wanted)

    def tick(self) -> Told:
        self.looks += 1
        return self.feed.tick(self.looks)

    def follower(self, *channels: str) -> Follower:
        self.wanted.update(channels)
        return Follower(self.feed, channels)

    def channels(self) -> list[str]:
        return [f"{kind}.{code}" for kind in KINDS for code in self.feed.instruments.by_code]


def queue_of(oracle: Oracle, number: int, side: int) -> list[tuple[int, int, int]]:
    """The oracle's orders of a side as (order id, price, lots shown), first to last."""
    instrument = oracle.market.instruments[number]
    market = [order for order in instrument.market if order.side == side]

    def best_first(order: Order) -> int:  # stable: the market's orders stay in front
        return -order.price if side == Side.BUY else order.price

    orders = sorted([*market, *instrument.side(side)], key=best_first)
    return [(order.order_id, order.price, order.shown) for order in orders]


def placed(feed: Feed, number: int, side: int) -> list[tuple[int, int, int]]:
    """The same of the feed."""
    queues = feed.queues[number]
    names = {rank: order for order, at, _, rank, _ in queues.orders() if at == side}
    return [(names[rank], price, lots) for rank, price, lots in queues.entries(side)]


@pytest.mark.parametrize("seed", range(6))
def test_every_order_stands_where_the_engine_has_it(seed: int) -> None:
    market = Market(seed, Oracle)
    assert isinstance(market.machine, Oracle)
    for _ in range(120):
        market.step()
        for number in market.feed.instruments.by_id:
            for side in (Side.BUY, Side.SELL):
                assert placed(market.feed, number, side) == queue_of(market.machine, number, side)
    interest = Counter({
        number: sum(max(0, account.positions[number].net)
                    for account in market.machine.market.accounts.values()
                    if number in account.positions)
        for number in market.feed.instruments.by_id
    })  # fmt: skip
    assert +Counter(market.feed.statistics.open_interest) == +interest


class Days:
    """The days' trades by instrument and match number, and nothing cleverer than sums of them."""

    def __init__(self) -> None:
        self.trades: dict[int, dict[int, tuple[int, int]]] = {}  # price, lots
        self.printed: dict[int, list[int]] = {}
        self.lies: set[int] = set()  # instruments in which a correction said what was not so

    def take(self, row: Row) -> None:
        kind, number = row[2], row[5]
        if kind == EventKind.DAY_OPENED:
            self.trades, self.printed, self.lies = {}, {}, set()
        elif kind == EventKind.TRADE:
            match = row[0] << INDEX_BITS | row[1]
            self.trades.setdefault(number, {})[match] = (row[8], row[9])
            self.printed.setdefault(number, []).append(row[8])
        elif kind in (EventKind.TRADE_BUSTED, EventKind.TRADE_ADJUSTED):
            day = self.trades.get(number, {})
            said = (signed(row[11]) if kind == EventKind.TRADE_ADJUSTED else row[8], row[9])
            if row[7] not in day:
                return  # of another day
            if day[row[7]] != said:
                self.lies.add(number)
            elif kind == EventKind.TRADE_BUSTED:
                del day[row[7]]
            else:
                day[row[7]] = (row[8], row[9])


@pytest.mark.parametrize("seed", range(4))
def test_a_day_is_the_sum_of_its_trades(seed: int) -> None:
    market, days = Market(seed), Days()
    seen = 0
    for _ in range(150):
        market.step()
        for row in market.rows:
            days.take(row)
        for number, trades in days.trades.items():
            if number in days.lies:
                continue
            instrument = market.feed.instruments.by_id[number]
            (told,) = market.feed.snapshot(f"statistics.{instrument.code}", 0)
            assert isinstance(told, wire.InstrumentStatistics)
            prices = [price for price, _ in trades.values()]
            lots = sum(lots for _, lots in trades.values())
            text, printed = instrument.price_text, days.printed[number]
            assert (told.trades, told.volume) == (len(trades), str(lots))
            assert told.high == (text(max(prices)) if prices else None)
            assert told.low == (text(min(prices)) if prices else None)
            assert (told.open, told.last) == (text(printed[0]), text(printed[-1]))
            value = sum(price * lots for price, lots in trades.values())
            assert Decimal(told.notional) == Decimal(value * instrument.tick_value) / 10**6
            if lots:
                mean = Decimal(value * instrument.tick_scale) / lots
                assert Decimal(told.vwap or "") * 10**6 == mean.to_integral_value(ROUND_HALF_EVEN)
            seen += len(trades)
    assert seen > 100


def test_what_nothing_has_changed_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick costs what has happened, not what is subscribed to."""
    market = Market(3)
    suffixes = {"depth": (".top5", ".by10", ".top50.100ms"), "top": ("", ".100ms")}
    suffixes["statistics"] = ("", ".1s")
    channels = [
        f"{kind}.{code}{suffix}"
        for code in market.feed.instruments.by_code
        for kind, known in suffixes.items()
        for suffix in known
    ]
    follower = market.follower(*channels)
    reads, needed = Counter[str](), 0

    def counting(kind: type[Picture]) -> Any:
        look = vars(kind)["_look"]

        def counted(picture: Picture) -> Any:
            reads[picture.channel] += 1
            return look(picture)

        return counted

    for kind in (Window, Top, Figures):
        monkeypatch.setattr(kind, "_look", counting(kind))
    for _ in range(40):
        market.step()
        for _ in range(10):  # the longest period
            follower.told(market.tick())
        needed += reads.total()
        reads.clear()
        assert [market.tick() for _ in range(20)] == [[]] * 20
        assert not reads
    assert needed > 100


def test_what_was_told_last_is_what_one_who_joins_now_is_told() -> None:
    """Of days and states; those of a combination move when one of its legs does."""
    moved: Counter[type] = Counter()
    for seed in range(6):
        market = Market(seed, combine=60, mark=30, settle=20)
        codes = market.feed.instruments.by_code
        last: dict[str, Any] = {}
        for _ in range(80):
            for channel, message in market.step():
                if isinstance(message, wire.InstrumentState | wire.InstrumentStatistics):
                    last[channel] = message
                    moved[type(message)] += bool(codes[message.instrument].legs)
            for channel, message in last.items():
                assert what(market.feed.snapshot(channel, 0)[0]) == what(message), channel
            for channel in (f"{kind}.{code}" for kind in ("statistics", "state") for code in codes):
                if channel not in last:
                    market.feed.join(channel)
                    market.wanted.add(channel)
                    last[channel] = market.feed.snapshot(channel, 0)[0]
    assert min(moved.values()) > 50, moved


def what(message: Any) -> dict[str, Any]:
    """What a message says, but for when it was said."""
    said = msgspec.structs.asdict(message)
    for name in ("sequence", "previous_sequence", "time", "business_date"):
        said.pop(name, None)
    return said


def agree(follower: Follower, feed: Feed) -> None:
    """Orders make levels, levels make the top: all three are the exchange's."""
    for number, instrument in feed.instruments.by_id.items():
        depth, code = feed.depths[number], instrument.code
        if f"depth.{code}" not in follower.copies.channels:
            continue
        book, queue = follower.copies.book(code), follower.copies.queue(code)
        top = follower.copies.top(code)
        assert book.is_live and queue.is_live and top.is_live
        assert (book.bids(), book.asks()) == (depth.bids(), depth.asks())
        assert [level[:2] for level in queue.bid_levels()] == book.bids()
        assert [level[:2] for level in queue.ask_levels()] == book.asks()
        assert top.bid == next(iter(queue.bid_levels()), None)
        assert top.ask == next(iter(queue.ask_levels()), None)
        for side, orders in (("buy", queue.bids(8)), ("sell", queue.asks(8))):
            ahead: Counter[int] = Counter()
            for rank, price, lots in orders:
                assert queue.lots_ahead(side, rank) == ahead[price]
                ahead[price] += lots


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_one_who_joins_late_sees_what_one_from_the_start_does(seed: int, joins: list[int]) -> None:
    market = Market(seed)
    first = market.follower(*market.channels())
    followers = [first]
    begun = market.traded
    for number in range(50):
        batch = market.step()
        for follower in followers:
            follower.told(batch)
            agree(follower, market.feed)
        if number in joins:
            followers.append(market.follower(*first.copies.channels))
    for follower in followers:
        assert follower.repairs == 0 == sum(m.repairs for m in follower.copies.marks.values())
        for channel in first.copies.copies:
            kind, _, code = channel.partition(".")
            if kind == "queue":
                mine, theirs = follower.copies.queue(code), first.copies.queue(code)
                assert (mine.bids(), mine.asks()) == (theirs.bids(), theirs.asks())
        for code, figures in first.copies.statistics.items():
            assert follower.copies.statistics[code].checksum == figures.checksum
            assert figures.checksum == figures.proof()
    trades = [one for one in first.heard if isinstance(one, wire.PublicTrade)]
    listed = {channel for channel in first.copies.channels if channel.startswith("trades.")}
    if len(listed) == len(market.feed.instruments.by_id):
        assert len(trades) == market.traded - begun


def test_the_flows_have_what_they_are_to_have() -> None:
    """Auctions, icebergs, combinations, stops, implied prices: all happen in what is followed."""
    happened: Counter[int] = Counter()
    for seed in range(8):
        market = Market(seed)
        for _ in range(150):
            market.step()
        happened += market.happened
    for kind in (
        EventKind.TRADE, EventKind.ORDER_CANCELLED, EventKind.ORDER_REPLACED,
        EventKind.ORDER_REFILLED, EventKind.ORDER_ELECTED, EventKind.ORDER_DORMANT,
        EventKind.ORDER_RETURNED, EventKind.AUCTION_UNCROSSED, EventKind.LEVEL_TAKEN,
        EventKind.LEG_TRADE, EventKind.ORDER_EXECUTED, EventKind.QUOTED,
    ):  # fmt: skip
        assert happened[kind] > 0, kind.name


class Watched:
    """An engine whose events a feed reads as they come."""

    def __init__(self) -> None:
        self.engine, self.feed, self.told = Engine(), Feed(), list[wire.Response]()

    def apply(self, commands: bytes, first_sequence: int, stamp_ns: int) -> bytes:
        events = self.engine.apply(commands, first_sequence, stamp_ns)
        wanted = {f"trades.{code}" for code in self.feed.instruments.by_code}
        told = self.feed.apply(list(EVENT.iter_unpack(events)), stamp_ns, {}, wanted)
        self.told = [message for _, message in told]
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_a_match_through_several_books_is_told_in_each() -> None:
    """A buyer of the near month trades with the spread and the far one: three books, one match."""
    watched = Watched()
    desk = Desk(cast(Machine, watched), near=0, far=2)
    desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1))
    desk.enter(2, SPREAD, Side.SELL, 5, -40)
    desk.enter(3, 2, Side.SELL, 4, 2690)
    desk.enter(1, 0, Side.BUY, 6, 2650)
    trades = [one for one in watched.told if isinstance(one, wire.PublicTrade)]
    codes = watched.feed.instruments.by_id
    assert [(t.instrument, t.aggressor, t.quantity, t.implied) for t in trades] == [
        (codes[number].code, "buy", "4", True) for number in (0, SPREAD, 2)
    ]
    first = trades[0]
    assert {t.match_number for t in trades} == {str(first.sequence << 20 | first.index)}
    marks = [one for one in watched.told if isinstance(one, wire.ChannelMark)]
    assert [mark.count for mark in marks] == [1, 1, 1]


def test_no_rank_tells_whose_order_it_is_or_that_a_part_follows_another() -> None:
    """An iceberg's next part gets the next number, as any new order does."""
    row: Row = (1, 0, int(EventKind.INSTRUMENT_LISTED), 1, 1, 0, 0, 1, 2_650_000, 720, 1_000,
                0, 0, 0, 9_999)  # fmt: skip
    feed = Feed()
    feed.apply([row], 1, {}, ())
    follower = Follower(feed, ["queue.I0"])
    accepted, refilled = int(EventKind.ORDER_ACCEPTED), int(EventKind.ORDER_REFILLED)

    def rest(sequence: int, kind: int, order_id: int, account: int) -> list[tuple[int, int, int]]:
        row: Row = (sequence, 0, kind, 0, 0, 0, account, order_id, 2_650, 20, 10, 77, 78, 0, 0)
        return seen(row)

    def seen(row: Row) -> list[tuple[int, int, int]]:
        follower.told(feed.apply([row], row[0], {}, ()))
        return follower.copies.queue("I0").bids()

    first, second, third, fourth = ((rank, 2_650, 10) for rank in range(1, 5))
    assert rest(2, accepted, 900, 5) == [first]
    assert rest(3, accepted, 901, 6) == [first, second]
    maker = 5 | 10 << 32  # its account, and its leaves with what it hides
    traded: Row = (4, 1, int(EventKind.TRADE), EventFlag.SELL, 0, 0, 7, 950, 2_650, 10, 0, 900,
                   maker, 0, 0)  # fmt: skip
    assert seen(traded) == [second]
    assert rest(5, refilled, 900, 5) == [second, third]
    assert rest(6, accepted, 902, 5) == [second, third, fourth]


FATES = st.sampled_from(["comes"] * 9 + ["is lost", "comes twice", "comes late"])


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(FATES, min_size=20, max_size=50))
def test_whatever_the_wire_does_a_live_queue_is_true(seed: int, fates: list[str]) -> None:
    """At every step a copy is the exchange's of its sequence, or it has noticed."""
    market = Market(seed)
    follower = market.follower(*market.channels())
    listed = list(market.feed.instruments.by_id.values())
    late: Told = []
    for fate in fates:
        batch = market.step()
        if fate == "is lost":
            batch = []
        elif fate == "comes late":
            batch, late = late, batch
        follower.told([*batch, *batch] if fate == "comes twice" else batch)
        if fate == "comes":
            follower.told(late)
            late = []
        for one in listed:
            queue = follower.copies.queue(one.code)
            if queue.sequence == market.feed.depths[one.id].sequence and queue.is_live:
                truth = market.feed.queues[one.id]
                assert queue.bids() == list(truth.entries(0))
                assert queue.asks() == list(truth.entries(1))
    for channel in sorted(follower.copies.channels):  # silence is seen, too
        follower.take([market.feed.heartbeat(channel)])
    agree(follower, market.feed)


def grouped(levels: Levels, ticks: int, *, down: bool) -> Levels:
    """The best groups of levels, one level at a time."""
    lots: Counter[int] = Counter()
    for price, quantity in levels:
        lots[price // ticks * ticks if down else -(-price // ticks) * ticks] += quantity
    return sorted(lots.items(), reverse=down)[:GROUP_LEVELS]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 7), st.integers(5, 30))
def test_what_is_cut_or_conflated_is_of_the_same_book(seed: int, every: int, join: int) -> None:
    market = Market(seed)
    cuts = [f"top{n}" for n in DEPTH_TOPS] + [f"by{n}" for n in DEPTH_GROUPS] + [""]
    codes = list(market.feed.instruments.by_code)
    raw = [f"depth.{code}.{cut}" for code in codes for cut in cuts if cut]
    slow = [f"depth.{code}.{cut}.100ms".replace("..", ".") for code in codes for cut in cuts]
    slow += [f"{kind}.{code}.100ms" for code in codes for kind in ("queue", "top", "statistics")]
    followers = [market.follower(*raw, *slow)]
    for number in range(40):
        batch = market.step()
        for follower in followers:
            follower.told(batch)
            same(follower, market.feed, codes, [cut for cut in cuts if cut])
        if number % every == 0:
            ticked = market.tick()
            for follower in followers:
                follower.told(ticked)
                same(follower, market.feed, codes, [f"{cut}.100ms".strip(".") for cut in cuts])
                for code in codes:
                    queue, top = follower.copies.queue(code, "100ms"), follower.copies.top(code)
                    truth = market.feed.queues[market.feed.instruments.by_code[code].id]
                    assert queue.bids() == list(truth.entries(0))
                    assert not top.is_live  # the plain channel was never joined
        if number == join:
            followers.append(market.follower(*raw, *slow))
    assert all(follower.repairs == 0 for follower in followers)


def same(follower: Follower, feed: Feed, codes: list[str], cuts: list[str]) -> None:
    """Each cut is what the whole book makes it."""
    for code in codes:
        depth = feed.depths[feed.instruments.by_code[code].id]
        for cut in cuts:
            book: Book = follower.copies.book(code, cut)
            bids, asks, kind = depth.bids(), depth.asks(), cut.partition(".")[0]
            if kind.startswith("top"):
                bids, asks = bids[: int(kind[3:])], asks[: int(kind[3:])]
            elif kind.startswith("by"):
                ticks = int(kind[2:])
                bids, asks = grouped(bids, ticks, down=True), grouped(asks, ticks, down=False)
            assert (book.bids(), book.asks()) == (bids, asks), (code, cut)
