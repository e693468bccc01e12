"""The client's public side against a gateway: frames that are lost, connections that are cut.

Budget: 15 seconds.
"""

import asyncio
import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
import venue as market
from live import Cable, until
from msgspec.structs import astuple
from sockets import running
from test_channels import ALL, BOOKS
from test_marketdata import order
from venue import CODE, OTHER, RICH, THIRD, Venue, flow

from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.events import Disconnected
from clients.feed import AnyPublic
from clients.feed import Feed as Copies
from clients.marks import Missed
from clients.sync import Client
from exchange.gateway.session import Session
from exchange.messages import COMMAND, Command, CommandKind, Side, wire
from exchange.messages.wire import encode_json

CHANNELS = [f"{kind}.{code}" for kind in ("top", "depth", "queue", "trades", "statistics")
            for code in (CODE, OTHER)]  # fmt: skip

LATE = "H200Z26"


class Reader:
    """A client's feed on a gateway's session; ``loses`` frames now and then, and its own never."""

    def __init__(self, venue: Venue, seed: int) -> None:
        self.venue, self.chance = venue, random.Random(seed)
        self.session: Session = venue.connect()
        ids = itertools.count()
        self.copies = Copies(lambda: f"r{next(ids)}")
        self.trades: Counter[str] = Counter()
        self.missed: list[Missed] = []
        self.lost = self.asked = 0
        listed = [one.describe() for one in venue.hub.feed.instruments.by_id.values()]
        self.copies.adopt(wire.Instruments(sequence=0, instruments=listed))

    def say(self, request: wire.AnyRequest) -> None:
        self.session.receive(encode_json(request).decode(), 0)

    def read(self, *, loses: bool = False) -> None:
        """Take what waits, and what that leads to."""
        while told := self.venue.heard(self.session):
            if loses and self.chance.random() < 0.2:
                self.lost += 1
                continue
            for message in told:
                if isinstance(message, wire.Subscribed):
                    self.copies.joined(message)
                elif isinstance(message, AnyPublic):
                    self._take(message)
            loses = False  # what was asked for comes

    def _take(self, message: AnyPublic) -> None:
        told, send = self.copies.take(message)
        if isinstance(told, wire.PublicTrade):
            self.trades[told.match_number] += 1
        elif isinstance(told, Missed):
            self.missed.append(told)
        self.asked += len(send)
        for request in send:
            self.say(request)

    def check(self) -> None:
        """Its books are the exchange's."""
        feed = self.venue.hub.feed
        for code in (CODE, OTHER):
            number = feed.instruments.by_code[code].id
            queue, book = self.copies.queue(code), self.copies.book(code)
            assert queue.is_live and book.is_live and self.copies.top(code).is_live
            assert queue.bids() == list(feed.queues[number].entries(Side.BUY))
            assert queue.asks() == list(feed.queues[number].entries(Side.SELL))
            assert book.bids() == [level[:2] for level in queue.bid_levels()]


@pytest.mark.parametrize("seed", range(3))
async def test_lost_frames_are_noticed_and_made_good(tmp_path: Path, seed: int) -> None:
    """Every trade comes once, in spite of what was lost, and every book ends up true."""
    async with market.running(tmp_path) as venue:
        whole, lossy = Reader(venue, seed), Reader(venue, seed)
        for reader in (whole, lossy):
            reader.say(wire.Subscribe(request_id="all", channels=CHANNELS))
            reader.read()
        for number, command in enumerate(flow(seed, 400)):
            venue.submit(0, COMMAND.pack(*astuple(command)))
            if number % 4 == 0:
                await venue.settle()
                lossy.read(loses=True)
                whole.read()
        await venue.settle()
        for _ in range(2):  # silence is noticed by heartbeats
            venue.hub.beat()
            lossy.read()
            whole.read()
        whole.check()
        lossy.check()
        assert whole.asked == 0 and lossy.lost > 5 and lossy.asked > 5
        assert not lossy.missed
        assert lossy.trades == whole.trades and set(whole.trades.values()) == {1}
        for code, figures in whole.copies.statistics.items():
            assert lossy.copies.statistics[code] == figures


async def test_a_cut_connection_goes_on_without_a_snapshot_or_a_gap(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        cable = Cable(int(house.url.rpartition(":")[2]))
        url = await cable.open()
        quick = Backoff(first_s=0.01, most_s=0.05)
        key = 0

        async def trade() -> None:
            nonlocal key
            key += 10
            for n in range(3):
                rest = order(key + n, Side.BUY, 2_640 + n, 2, RICH)
                house.venue.submit(0, COMMAND.pack(*astuple(rest)))
            take = order(key + 9, Side.SELL, 2_640, 3, THIRD)
            house.venue.submit(0, COMMAND.pack(*astuple(take)))
            await house.venue.settle()

        async with AsyncClient(url, backoff=quick) as client:
            await client.subscribe(*ALL)
            events = client.events()
            for _ in range(4):
                await trade()
            cable.cut()
            await trade()
            await until(lambda: client.is_ready and client.queue(CODE).is_live)
            await trade()
            truth = house.venue.hub.feed.queues[0]
            await until(lambda: client.queue(CODE).bids() == list(truth.entries(Side.BUY)))
            trades = f"trades.{CODE}"
            marked = house.venue.hub.feed.marked
            await until(lambda: client.feed.marks[trades].sequence == marked[trades])
            heard = []
            while events._events:
                heard.append(await anext(events))
            kinds = Counter(type(one) for one in heard)
            assert kinds[Disconnected] == 1 and kinds[Missed] == 0
            assert kinds[wire.DepthSnapshot] == 0 == kinds[wire.QueueSnapshot]
            numbers = [one.match_number for one in heard if isinstance(one, wire.PublicTrade)]
            assert len(numbers) == len(set(numbers)) == 12
            assert [c.repairs for c in client.feed.copies.values()] == [0] * len(BOOKS)
            assert client.top(CODE).bid == truth_of(house.venue)
        await cable.close()


async def test_what_was_listed_since_is_joined_as_any_other(tmp_path: Path) -> None:
    """No connection breaks over a book of which the client knows no tick yet."""
    async with running(tmp_path) as house, AsyncClient(f"{house.url}/ws") as client:
        events = client.events()
        late = Command(
            kind=CommandKind.LIST, instrument=2, price=market.MARK, quantity=market.HOURS,
            session=market.TICK_SCALE, account=1, operator=1,
            target_lo=market.LOW, target_hi=market.HIGH,
        )  # fmt: skip
        await house.venue.order(late, market.listing(LATE))
        await client.subscribe(*(f"{kind}.{LATE}" for kind in ("depth", "queue", "top")))
        books = (client.book(LATE), client.queue(LATE), client.top(LATE))
        assert [one.is_live for one in books] == [True] * 3
        assert not any(isinstance(one, Disconnected) for one in events._events)


def truth_of(venue: Venue) -> tuple[int, int, int] | None:
    """The best bid as the exchange has it."""
    feed = venue.hub.feed
    ((price, lots),) = feed.depths[0].bids(1)
    return price, lots, feed.queues[0].count(Side.BUY, price)


async def test_what_a_channel_showed_is_gone_with_it(tmp_path: Path) -> None:
    """It would stay as it was, and look current."""
    async with running(tmp_path) as house, AsyncClient(house.url) as client:
        channels = [f"state.{CODE}", f"statistics.{CODE}", f"statistics.{CODE}.1s", "settlements"]
        await client.subscribe(*channels)
        await until(lambda: CODE in client.states and CODE in client.feed.statistics)
        await client.unsubscribe(f"state.{CODE}", f"statistics.{CODE}.1s", "settlements")
        assert CODE not in client.states and CODE in client.feed.statistics
        assert not client.feed.settlements
        await client.unsubscribe(f"statistics.{CODE}")
        assert CODE not in client.feed.statistics
        await client.subscribe(f"state.{CODE}")
        await until(lambda: CODE in client.states)


async def test_a_market_that_knows_less_is_joined_anew(tmp_path: Path) -> None:
    """A refused ``after`` is no dead end."""
    async with market.running(tmp_path) as venue:
        reader = Reader(venue, 1)
        reader.say(wire.Subscribe(request_id="all", channels=CHANNELS))
        reader.read()
        reader.copies.lost()
        reader.copies.sequence = 1 << 40
        request, ping = reader.copies.rejoin([])
        assert isinstance(ping, wire.Ping)
        told = await venue.say(reader.session, encode_json(request).decode())
        assert isinstance(told[0], wire.Rejected) and told[0].field == "after"
        (again,) = reader.copies.refused(told[0])
        reader.say(again)
        reader.read()
        reader.check()
        unknown = wire.Rejected(number=1, name="NOT_FOUND", request_id="unknown")
        assert reader.copies.refused(unknown) == []


async def test_the_blocking_client_shows_the_same(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        rest = order(1, Side.BUY, 2_640, 2, RICH)
        house.venue.submit(0, COMMAND.pack(*astuple(rest)))
        await house.venue.settle()

        def look() -> None:
            with Client(f"{house.url}/ws") as client:
                assert client.queue(CODE) is None and client.top(CODE) is None
                client.subscribe(*BOOKS)
                assert client.queue(CODE) == ([(1, 2_640, 2)], [])
                assert client.top(CODE) == ((2_640, 2, 1), None)
                assert client.depth(CODE) == ([(2_640, 2)], [])
                assert not client.statistics
                client.subscribe(f"statistics.{CODE}", "settlements", "fixings", "factors")
                assert client.statistics[CODE].reference == "2.650000"
                assert not (client.settlements or client.fixings or client.factors)

        await asyncio.to_thread(look)
