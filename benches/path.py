"""The whole path of an order, compared with a bare echo of the same messages.

    hourbook bench path [--json] [--requests N] [--rounds N]

A request goes through WebSocket, gateway, journal with fsync and matching, and its report comes
back. The rival is an aiohttp server that sends each message back, with as many connections and as
many messages in flight. Market and rival run in processes of their own; every round times both, one
after the other, with one client. Half the connections buy what the other half sells. There are two
mixes. ``mixed`` is a market's: of twenty requests, ten enter orders that rest, nine cancel one of
those and one trades, so the book keeps its depth. In ``trades`` every order trades. There are three
markets: one with default settings, one whose clearing runs ``apart`` in a process of its own, and
one that is ``kept`` on one processor.
"""

import asyncio
import hmac
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse

from benches.rows import Row, bench_parser, publish, row, whole
from exchange.app import processors
from exchange.journal.room import make_room
from exchange.journal.storage import File, LocalStorage
from exchange.messages.wire import signed_text

CONNECTIONS: Final = 4
IN_FLIGHT: Final = 64
REQUESTS: Final = 8_000  # of all connections, each round; a position limit bounds the trades
ONE_AT_A_TIME: Final = 500
ROUNDS: Final = 7
SETTLE_SECONDS: Final = 0.5  # for clearing to book the trades before single orders are timed
DEPTH: Final = 400  # orders of each connection in the book before the first round
LEVELS: Final = 20  # of a side's book, behind its best
FRAME: Final = bytes(290)  # as long as what the journal writes for a single order
SIDES: Final = ("buy", "sell")
Facts = dict[str, Any]


MIXES: Final = ("mixed", "trades")
PLACES: Final = {  # part of a row's name -> settings of that market
    "": (),
    "apart.": ("serve.clearing=process",),
    "kept.": (f"serve.processor={processors.last()}",),
}


@dataclass(frozen=True, slots=True)
class Timed:
    """One run of requests: requests per second, and CPU seconds of the server per request."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Trip:
    """Median seconds of an echo, of a market's answer, and of one append with its sync."""

    echo: float
    market: float
    fsync: float

    @property
    def floor(self) -> float:
        """Two echoes and one sync."""
        return 2 * self.echo + self.fsync


@dataclass(frozen=True, slots=True)
class Round:
    """(echo, market) by mix and place; single orders by place."""

    rates: dict[tuple[str, str], tuple[Timed, Timed]]
    trips: dict[str, Trip]


@contextmanager
def server(*arguments: str) -> Iterator[Facts]:
    """Run benches/servers.py; yield the facts that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benches.servers", *arguments],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with exit code {process.wait()}")
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


class Trader:
    """The requests of one connection; even numbers buy, odd numbers sell."""

    def __init__(self, facts: Facts, number: int) -> None:
        self._instrument = facts["instrument"]
        dollars, mills = facts["price"].split(".")
        self._mid = 1000 * int(dollars) + int(mills)
        self._number = number
        self._sign = (-1, 1)[number % 2]  # direction of this side's prices from the middle
        self._entered = 0
        self._resting: deque[str] = deque()  # orders to cancel, oldest first

    def opening(self) -> list[str]:
        """Return orders that rest: DEPTH at the best price and as many behind."""
        best = [self._enter(self._number, self._sign) for _ in range(DEPTH)]
        return best + [self._rest() for _ in range(DEPTH)]

    def mixed(self, count: int) -> list[str]:
        """Return a market's mix of ``count`` requests, rounded down to a multiple of twenty."""
        requests = []
        for _ in range(count // 20):
            for _ in range(9):
                requests += [self._rest(), self._cancel()]
            requests.append(self._enter(self._number, self._sign))
            requests.append(self._enter(self._number, -self._sign, "IOC"))
        return requests

    def trades(self, count: int, turn: int) -> list[str]:
        """Return orders at the middle, where only this round's rest; sides alternate with the
        turn."""
        return [self._enter(self._number + turn, 0) for _ in range(count)]

    def lone(self) -> list[str]:
        """Return IOC orders that find nothing at their price."""
        return [self._enter(self._number, 0, "IOC") for _ in range(ONE_AT_A_TIME)]

    def resting(self) -> str:
        """Return an order that rests, and so changes the book."""
        return self._rest()

    def _rest(self) -> str:
        order = self._enter(self._number, self._sign * (2 + self._entered % LEVELS))
        self._resting.append(f"{self._number}-{self._entered}")
        return order

    def _enter(self, side: int, offset: int, time_in_force: str = "GTC") -> str:
        self._entered += 1
        dollars, mills = divmod(self._mid + offset, 1000)
        return _text(
            op="enter",
            client_order_id=f"{self._number}-{self._entered}",
            instrument=self._instrument,
            side=SIDES[side % 2],
            quantity="1",
            price=f"{dollars}.{mills:03}",
            time_in_force=time_in_force,
        )

    def _cancel(self) -> str:
        target = self._resting.popleft()
        return _text(op="cancel", request_id=f"c{target}", client_order_id=target)


def _text(**fields: object) -> str:
    return json.dumps(fields, separators=(",", ":"))


def logon(key_id: str, secret: str) -> str:
    stamp = time.time_ns() // 1_000_000
    signed = signed_text(stamp, stamp, key_id, 0)
    signature = hmac.new(secret.encode(), signed, "sha256").hexdigest()
    return _text(op="logon", key_id=key_id, timestamp_ms=stamp, nonce=stamp, signature=signature)


def echoed(frame: str) -> int:
    """Return how many requests a frame of the echo answers."""
    return 1


def answered_by(frame: str) -> int:
    """Return how many requests a frame of the market answers; raise RuntimeError for a reject.

    An order is answered when it is accepted; of the other reports only the answer to a cancel names
    a request.
    """
    if '"type":"rejected"' in frame:
        told = frame[frame.index('{"type":"rejected"') :].partition("}")[0]
        raise RuntimeError(f"a request was rejected: {told}}}")
    return frame.count('"type":"accepted"') + frame.count('"request_id"')


async def pump(
    socket: ClientWebSocketResponse, requests: list[str], answered: Callable[[str], int]
) -> None:
    """Send all requests, with at most IN_FLIGHT unanswered, and wait for every answer."""
    sent = done = 0
    while done < len(requests):
        while sent < min(done + IN_FLIGHT, len(requests)):
            await socket.send_str(requests[sent])
            sent += 1
        done += answered(await socket.receive_str())


async def rate(
    sockets: list[ClientWebSocketResponse],
    requests: list[list[str]],
    answered: Callable[[str], int],
) -> float:
    """Return the requests per second over all connections at once."""
    started = time.perf_counter()
    await asyncio.gather(
        *(pump(s, mine, answered) for s, mine in zip(sockets, requests, strict=True))
    )
    return sum(map(len, requests)) / (time.perf_counter() - started)


async def trip(
    socket: ClientWebSocketResponse, request: str, answered: Callable[[str], int]
) -> float:
    """Return the seconds from sending one request to its answer."""
    started = time.perf_counter()
    await socket.send_str(request)
    while not answered(await socket.receive_str()):
        pass
    return time.perf_counter() - started


@contextmanager
def probe(directory: Path) -> Iterator[File]:
    """Yield a file to append to as the journal does: into room that was allocated before."""
    file = LocalStorage(directory).open("append.probe", write=True)
    file.truncate(0)
    assert make_room(file), "the disk is full"
    file.sync()
    yield file
    file.close()


def append_seconds(file: File) -> float:
    """Return the seconds to append a frame to a file and make it durable."""
    started = time.perf_counter()
    file.append(FRAME)
    file.sync()
    return time.perf_counter() - started


class Peer:
    """The connections to a server and, for a market, the traders that use them."""

    def __init__(self, facts: Facts, answered: Callable[[str], int]) -> None:
        self._facts = facts
        self._answered = answered
        self.links: list[ClientWebSocketResponse] = []
        self.traders: list[Trader] = []
        self.processes: list[int] = []  # whose CPU time counts; empty: the server's

    async def connect(self, session: ClientSession, connections: int) -> None:
        """Connect; for a market, also log on and fill the book."""
        self.links = [await session.ws_connect(self._facts["ws"]) for _ in range(connections)]
        for link, key in zip(self.links, self._facts.get("keys", ()), strict=False):
            await link.send_str(logon(*key))
            while '"type":"logged_on"' not in (answer := await link.receive_str()):
                if '"type":"rejected"' in answer:  # anything else is a heartbeat
                    raise RuntimeError(f"the logon was refused: {answer}")
            self.traders.append(Trader(self._facts, len(self.traders)))
        if self.traders:
            await self.time([trader.opening() for trader in self.traders])

    async def time(self, requests: list[list[str]]) -> Timed:
        """Time the requests of all connections at once."""
        before = self._cpu()
        found = await rate(self.links, requests, self._answered)
        return Timed(found, (self._cpu() - before) / sum(map(len, requests)))

    async def timed(self, work: Awaitable[None], requests: int) -> Timed:
        """Time work that sends so many requests and waits for their answers."""
        before, started = self._cpu(), time.perf_counter()
        await work
        seconds = time.perf_counter() - started
        return Timed(requests / seconds, (self._cpu() - before) / requests)

    def _cpu(self) -> float:
        """CPU seconds of the server so far; 0 where the system does not report them."""
        return sum(map(cpu_seconds, self.processes or [self._facts["pid"]]))


async def trips(echo: Peer, market: Peer, directory: Path) -> Trip:
    """Time single orders.

    They take turns with an echo and an append, since the speed of a disk changes within seconds.
    """
    echoes, answers, syncs = [], [], []
    with probe(directory) as file:
        for request in market.traders[0].lone():
            echoes.append(await trip(echo.links[0], request, echoed))
            answers.append(await trip(market.links[0], request, answered_by))
            syncs.append(append_seconds(file))
    return Trip(median(echoes), median(answers), median(syncs))


def cpu_seconds(process: int) -> float:
    """Return a process's CPU seconds so far, over its live threads; 0 where the system reports
    none."""
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        spent = [int((one / "schedstat").read_text().split()[0]) for one in threads]
    except FileNotFoundError:
        return 0.0
    return sum(spent) / 1e9


async def measure(
    echo: Peer, markets: dict[str, Peer], directory: Path, requests: int, rounds: int, each: int
) -> list[Round]:
    """Return all rounds, after one more that is discarded. ``each``: connections."""
    done = []
    async with ClientSession() as session:
        for peer in (echo, *markets.values()):
            await peer.connect(session, each)
        for number in range(rounds + 1):
            rates = {}
            for mix in MIXES:
                for place, market in markets.items():
                    count = requests // each
                    asked = [
                        one.mixed(count) if mix == "mixed" else one.trades(count, number)
                        for one in market.traders
                    ]
                    rates[mix, place] = await echo.time(asked), await market.time(asked)
            await asyncio.sleep(SETTLE_SECONDS)
            alone = {
                place: await trips(echo, market, directory) for place, market in markets.items()
            }
            done.append(Round(rates, alone))
    return done[1:]


def path_rows(requests: int, rounds: int, connections: int) -> Iterator[Row]:
    """Yield the rows of this bench."""
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        echo = Peer(running.enter_context(server("echo")), echoed)
        markets = {}
        for place, settings in PLACES.items():
            data = str(Path(folder) / f"market{place}")
            started = server("market", data, str(connections), *settings)
            markets[place] = Peer(running.enter_context(started), answered_by)
        found = measure(echo, markets, Path(folder), requests, rounds, connections)
        done = asyncio.run(found)
    for mix in MIXES:
        for place in PLACES:
            yield from _rate_rows(f"path.{place}{mix}", [one.rates[mix, place] for one in done])
    beside = [one.trips[""] for one in done]
    for place in PLACES:
        yield from _trip_rows(f"path.{place}", [one.trips[place] for one in done], beside)


def _trip_rows(name: str, trips: list[Trip], beside: list[Trip]) -> Iterator[Row]:
    """Yield the rows of single orders.

    ``beside`` are those of the default market. Their echoes and syncs are the base for all markets,
    because a market kept on the client's processor displaces the client and slows its own echo.
    """
    yield row(f"{name}echo_round_trip", 1e6 * median(one.echo for one in trips), "us")
    yield row(f"{name}fsync", 1e6 * median(one.fsync for one in trips), "us")
    value = round(1e6 * median(one.market for one in trips), 1)
    pairs = zip(trips, beside, strict=True)
    ratio = round(median(one.market / other.floor for one, other in pairs), 4)
    rival = "2 * path.echo_round_trip + path.fsync"
    yield Row(f"{name}round_trip", value, "us", ratio, rival)


def _rate_rows(name: str, timed: list[tuple[Timed, Timed]]) -> Iterator[Row]:
    echo = f"{name}.echo_rate"
    yield row(echo, median(one.rate for one, _ in timed), "requests/s")
    ratio = median(market.rate / one.rate for one, market in timed)
    value = round(median(market.rate for _, market in timed))
    yield Row(f"{name}.rate", value, "requests/s", round(ratio, 4), echo)
    echo_cpu = sum(one.cpu for one, _ in timed)
    if echo_cpu:
        market_cpu = sum(market.cpu for _, market in timed)
        value_us = round(1e6 * market_cpu / len(timed), 2)
        yield Row(f"{name}.cpu", value_us, "us", round(market_cpu / echo_cpu, 4), "the echo's")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("path", "Time the path of an order.", ROUNDS)
    parser.add_argument(
        "--requests",
        type=whole,
        default=REQUESTS,
        help="of all connections, each round (%(default)s)",
    )
    parser.add_argument(
        "--connections", type=whole, default=CONNECTIONS, help="an even number (%(default)s)"
    )
    options = parser.parse_args(arguments)
    rows = path_rows(options.requests, options.rounds, options.connections)
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
