"""Market access compared with bare aiohttp, and the effect of several gateways.

    hourbook bench access [--json] [--rounds N] [--only PART] [--record]

Parts: ``stages`` (a request without sockets), ``orders`` (the path of ``bench path``, compared with
an echo whose answers are as long as the market's: in one process, in several, and over picows),
``latency`` (by offered rate), ``fanout`` (one book update to 200 subscribers), ``slow`` (other
subscribers beside one that never reads) and ``idle`` (the memory of a thousand sessions).

docs/reference/benchmarks.md describes each row.
"""

import asyncio
import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse

from benches.listeners import Listener, deaf, listen, masked, resident_bytes
from benches.path import (
    Facts,
    Peer,
    Timed,
    answered_by,
    append_seconds,
    cpu_seconds,
    echoed,
    logon,
    probe,
    server,
)
from benches.rows import Row, bench_parser, publish, row
from benches.stages import stage_rows
from exchange.gateway.auth import create_key

ROUNDS: Final = 5
CONNECTIONS: Final = 8
REQUESTS: Final = 1_600  # of all connections, per turn
TURNS: Final = 5  # of a round; short turns, since other load on a machine comes in bursts
GATEWAYS: Final = (0, 1, 2)
ANSWER_BYTES: Final = 330  # length of a frame with one ``accepted``
RATES: Final = (500, 1_000, 2_000)  # requests a second
OFFERED_SECONDS: Final = 1.0
SYNCS: Final = 100  # of a round
SUBSCRIBERS: Final = 200
UPDATES: Final = 40  # of each round
SLOW_SUBSCRIBERS: Final = 8
SLOW_RATE: Final = 200
STALLED_BYTES: Final = 300_000
SEQUENCE: Final = re.compile(rb'"sequence":(\d+)')
ASKED_AT_ONCE: Final = 16
ASKED_TIMES: Final = 200
SESSIONS: Final = 1_000
KEY_SESSIONS: Final = 16
MEMORY: Final = "/dev/shm"
# Parts whose logs are in memory, so that no disk is timed
IN_MEMORY: Final = ("stages", "fanout", "slow", "idle")
PARTS: Final = ("stages", "orders", "latency", "fanout", "slow", "idle")


class Bench:
    """The servers of one run, and where they keep their data."""

    def __init__(self, folder: Path, rounds: int, running: ExitStack) -> None:
        self.folder = folder
        self._running = running
        self.rounds = rounds

    def echo(self, answer_bytes: int = 0) -> Facts:
        """Start an echo server."""
        return self._running.enter_context(server("echo", str(answer_bytes)))

    def market(self, name: str, gateways: int = 0) -> Facts:
        """Start a market."""
        data = self.folder / name
        arguments = (str(data), str(CONNECTIONS), f"serve.gateways={gateways}")
        facts = self._running.enter_context(server("market", *arguments))
        return {**facts, "data": data}


# Orders in, reports out


async def orders(bench: Bench) -> Iterator[Row]:
    """Return the rows of ``orders``."""
    places = {f"gateways_{count}": bench.market(f"g{count}", count) for count in GATEWAYS}
    beside = bench.market("picows")
    if "picows" in beside:
        places["picows"] = {**beside, "ws": beside["picows"]}
    echo, peers = Peer(bench.echo(ANSWER_BYTES), echoed), {}
    async with ClientSession() as session:
        await echo.connect(session, CONNECTIONS)
        for name, facts in places.items():
            peers[name] = Peer(facts, answered_by)
            await peers[name].connect(session, CONNECTIONS)
            peers[name].processes = tree(facts["pid"])
        timed: dict[str, list[tuple[Timed, Timed]]] = {name: [] for name in peers}
        for _ in range(TURNS * (bench.rounds + 1)):
            for name, peer in peers.items():
                asked = [trader.mixed(REQUESTS // CONNECTIONS) for trader in peer.traders]
                timed[name].append((await echo.time(asked), await peer.time(asked)))
    rows = (
        _compared(f"access.orders.{name}", "echo", "requests/s", turns[TURNS:])
        for name, turns in timed.items()
    )
    return chain.from_iterable(rows)


def _compared(name: str, rival: str, unit: str, timed: list[tuple[Timed, Timed]]) -> Iterator[Row]:
    """Yield the rows of rounds that timed the rival and then the market."""
    yield row(f"{name}.{rival}_rate", median(one.rate for one, _ in timed), unit)
    ratio = median(market.rate / bare.rate for bare, market in timed)
    rate = float(f"{median(market.rate for _, market in timed):.6g}")
    yield Row(f"{name}.rate", rate, unit, round(ratio, 3), f"{name}.{rival}_rate")
    bare_cpu = sum(bare.cpu for bare, _ in timed)
    if bare_cpu:
        cpu = sum(market.cpu for _, market in timed)
        each = round(1e6 * cpu / len(timed), 1)
        yield Row(f"{name}.cpu", each, "us", round(cpu / bare_cpu, 3), f"the {rival}'s")


def tree(process: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [process]
    for task in Path(f"/proc/{process}/task").iterdir():
        children = (task / "children").read_text().split()
        found += [one for child in children for one in tree(int(child))]
    return found


# Latency by offered rate


async def offered(
    links: list[ClientWebSocketResponse],
    requests: list[list[str]],
    rate: int,
    answered: Callable[[str], int],
) -> list[float]:
    """Return the seconds from when each request was due (not sent) to its answer, at an offered
    rate.

    The answers on a connection must come in the order of its requests.
    """
    due: list[list[float]] = [[] for _ in links]
    found: list[float] = []

    async def read(link: ClientWebSocketResponse, mine: list[float], count: int) -> None:
        done = 0
        while done < count:
            come = answered(await link.receive_str())
            now = time.perf_counter()
            found.extend(now - at for at in mine[done : done + come])
            done += come

    readers = [
        asyncio.create_task(read(link, mine, len(asked)))
        for link, mine, asked in zip(links, due, requests, strict=True)
    ]
    start, count = time.perf_counter(), sum(map(len, requests))
    for number in range(count):
        at = start + number / rate
        place, turn = number % len(links), number // len(links)
        if (wait := at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        due[place].append(at)
        await links[place].send_str(requests[place][turn])
    await asyncio.gather(*readers)
    return found


async def latency(bench: Bench) -> Iterator[Row]:
    """Return the rows of ``latency``."""
    echo = Peer(bench.echo(ANSWER_BYTES), echoed)
    market = Peer(bench.market("latency"), answered_by)
    seconds: dict[tuple[str, int], list[float]] = {}
    async with ClientSession() as session:
        for peer in (echo, market):
            await peer.connect(session, CONNECTIONS)
        for _ in range(bench.rounds):
            for rate in RATES:
                each = int(rate * OFFERED_SECONDS) // CONNECTIONS
                asked = [trader.mixed(each) for trader in market.traders]
                for name, peer, answered in (
                    ("echo", echo, echoed),
                    ("market", market, answered_by),
                ):
                    found = await offered(peer.links, asked, rate, answered)
                    seconds.setdefault((name, rate), []).extend(found)
                syncs = await asyncio.to_thread(_syncs, bench.folder)
                seconds.setdefault(("sync", rate), []).extend(syncs)
    return _latency_rows(seconds)


def _syncs(folder: Path) -> list[float]:
    """Return the seconds of durable appends of a frame, on the disk of the markets' logs."""
    with probe(folder) as file:
        return [append_seconds(file) for _ in range(SYNCS)]


def _latency_rows(seconds: dict[tuple[str, int], list[float]]) -> Iterator[Row]:
    for rate in RATES:
        for percent, place in (("p50", 499), ("p99", 989), ("p999", 998)):
            bare, sync, market = (
                1e6 * quantiles(seconds[name, rate], n=1_000)[place]
                for name in ("echo", "sync", "market")
            )
            name = f"access.latency.{rate}.{percent}"
            yield row(f"{name}.echo", bare, "us")
            yield row(f"{name}.sync", sync, "us")
            yield row(name, market, "us", bare + sync, f"{name}.echo + {name}.sync")


# One update to many


async def subscribed(url: str, code: str, count: int) -> list[Listener]:
    """Return listeners that have received a book's snapshot."""
    made = [await listen(url) for _ in range(count)]
    for one in made:
        one.say(json.dumps({"op": "subscribe", "request_id": "s", "channels": [f"depth.{code}"]}))
    while not all(one.frames for one in made):
        await asyncio.sleep(0.01)
    return made


async def rounds_of(
    listeners: list[Listener], send: Callable[[], Awaitable[None]], count: int, process: int
) -> Timed:
    """Time updates, each sent once all listeners have the one before, and the server's CPU per
    update."""
    upto, cpu = max(one.updates for one in listeners), cpu_seconds(process)
    started = time.perf_counter()
    for number in range(1, count + 1):
        await send()
        while any(one.updates < upto + number for one in listeners):
            await asyncio.sleep(0)
    rate = count / (time.perf_counter() - started)
    return Timed(rate, (cpu_seconds(process) - cpu) / count)


async def fanout(bench: Bench) -> Iterator[Row]:
    """Return the rows of ``fanout``."""
    facts, bare = bench.market("fanout"), bench.echo()
    found: list[tuple[Timed, Timed]] = []
    async with ClientSession() as session:
        peer = Peer(facts, answered_by)
        await peer.connect(session, 2)
        trader, link = peer.traders[0], peer.links[0]
        ours = await subscribed(facts["ws"], facts["instrument"], SUBSCRIBERS)
        theirs = [await listen(bare["ws"].replace("/ws", "/take")) for _ in range(SUBSCRIBERS)]
        sender = await session.ws_connect(bare["ws"].replace("/ws", "/send"))

        async def enter() -> None:
            await link.send_str(trader.resting())

        async def update() -> None:
            await sender.send_str(ours[0].last.decode())

        reading = asyncio.create_task(_swallow(link))
        for _ in range(bench.rounds + 1):
            market = await rounds_of(ours, enter, UPDATES, facts["pid"])
            found.append((await rounds_of(theirs, update, UPDATES, bare["pid"]), market))
        reading.cancel()
        for one in (*ours, *theirs):
            one.transport.close()
    return _compared(f"access.fanout.{SUBSCRIBERS}", "raw", "updates/s", found[1:])


async def _swallow(link: ClientWebSocketResponse) -> None:
    while True:
        await link.receive()


# A slow reader


async def slow(bench: Bench) -> Iterator[Row]:
    """Return the rows of ``slow``."""
    facts = bench.market("slow")
    seconds: dict[bool, list[float]] = {False: [], True: []}
    spent: dict[bool, list[float]] = {False: [], True: []}
    ratios: list[float] = []
    subscribe = {"op": "subscribe", "request_id": "s", "channels": [f"depth.{facts['instrument']}"]}
    async with ClientSession() as session:
        peer = Peer(facts, answered_by)
        await peer.connect(session, 2)
        trader, link = peer.traders[0], peer.links[0]
        heard = await subscribed(facts["ws"], facts["instrument"], SLOW_SUBSCRIBERS)
        for number in range(2 * bench.rounds):
            beside = number % 2 == 1
            stuck = None
            if beside:
                stuck = await deaf(facts["ws"], [json.dumps(subscribe)])
                await _stall(stuck, session, facts["ws"])
            before = cpu_seconds(facts["pid"])
            found = await _heard_after(heard, link, trader.resting, SLOW_RATE)
            spent[beside].append((cpu_seconds(facts["pid"]) - before) * len(heard) / len(found))
            seconds[beside].append(quantiles(found, n=100)[98])
            if stuck is not None:
                stuck.close()
                ratios.append(seconds[True][-1] / seconds[False][-1])
        for one in heard:
            one.transport.close()
    alone, with_it = (1e6 * median(seconds[beside]) for beside in (False, True))
    name = "access.slow_reader.p99"
    rows = [row(f"{name}.alone", alone, "us")]
    rows.append(Row(name, round(with_it, 1), "us", round(median(ratios), 3), f"{name}.alone"))
    name = "access.slow_reader.cpu"
    alone, with_it = (1e6 * median(spent[beside]) for beside in (False, True))
    rows.append(row(f"{name}.alone", alone, "us CPU/order"))
    rows.append(row(name, with_it, "us CPU/order", alone, f"{name}.alone"))
    return iter(rows)


async def _stall(stuck: socket.socket, session: ClientSession, url: str) -> None:
    """Request long answers on a connection that never reads, until the gateway holds some back."""
    loop, metrics = asyncio.get_running_loop(), url.replace("ws://", "http://")[:-3] + "/metrics"
    ask = masked(json.dumps({"op": "instruments", "request_id": "i"})) * ASKED_AT_ONCE
    for _ in range(ASKED_TIMES):
        await loop.sock_sendall(stuck, ask)
        await asyncio.sleep(0.01)
        async with session.get(metrics) as got:
            text = await got.text()
        unsent = float(text.partition("\nhourbook_unsent_bytes ")[2].partition("\n")[0])
        if unsent > STALLED_BYTES:
            return
    raise RuntimeError("the reader that does not read was never held back")


async def _heard_after(
    listeners: list[Listener],
    link: ClientWebSocketResponse,
    order: Callable[[], str],
    rate: int,
) -> list[float]:
    """Return the seconds from when each order was due to the update that shows it, at every
    listener.

    Orders of one batch make one update: an order is shown by the first update whose sequence is not
    below its own.
    """
    start, count = time.perf_counter(), int(rate * OFFERED_SECONDS)
    seen: list[list[tuple[int, float]]] = [[] for _ in listeners]
    for one, mine in zip(listeners, seen, strict=True):

        def note(frame: bytes, mine: list[tuple[int, float]] = mine) -> None:
            mine.append((int(SEQUENCE.findall(frame)[-1]), time.perf_counter() - start))

        one.on_update = note
    accepted = asyncio.create_task(_sequences(link, count))
    for number in range(count):
        if (wait := start + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        await link.send_str(order())
    sequences = await accepted
    while any(not mine or mine[-1][0] < sequences[-1] for mine in seen):
        await asyncio.sleep(0.01)
    found = []
    for mine in seen:
        upto = iter(mine)
        shown, at = next(upto)
        for number, sequence in enumerate(sequences):
            while shown < sequence:
                shown, at = next(upto)
            found.append(at - number / rate)
    return found


async def _sequences(link: ClientWebSocketResponse, count: int) -> list[int]:
    """Return the sequences of a connection's next ``count`` orders, once all are accepted."""
    found: list[int] = []
    while len(found) < count:
        for told in json.loads(await link.receive_str()):
            if told["type"] == "accepted":
                found.append(told["sequence"])
    return found


# Idle sessions


async def idle(bench: Bench) -> Iterator[Row]:
    """Return the rows of ``idle``."""
    facts = bench.market("idle")
    made: list[Listener] = []
    before = 0
    for number in range(SESSIONS + 1):
        if number % KEY_SESSIONS == 0:
            key = create_key(facts["data"], 1 + number // KEY_SESSIONS % CONNECTIONS, "trade")
        one = await listen(facts["ws"])
        one.say(logon(*key))
        while not one.frames:
            await asyncio.sleep(0.001)
        made.append(one)
        if number == 0:
            before = resident_bytes(facts["pid"])
    after = resident_bytes(facts["pid"])
    for one in made:
        one.transport.close()
    kib = (after - before) / SESSIONS / 1024
    return iter([row("access.idle_session", kib, "KiB resident")])


def access_rows(rounds: int, only: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of this bench."""
    for name in only:
        with ExitStack() as running:
            memory = MEMORY if name in IN_MEMORY and Path(MEMORY).is_dir() else None
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=memory)))
            yield from asyncio.run(_BENCHES[name](Bench(folder, rounds, running)))


async def stages(bench: Bench) -> Iterator[Row]:
    """Return the rows of ``stages``."""
    return await stage_rows(bench.folder / "stages", bench.rounds)


_BENCHES: Final[dict[str, Callable[[Bench], Coroutine[Any, Any, Iterator[Row]]]]] = {
    "stages": stages,
    "orders": orders,
    "latency": latency,
    "fanout": fanout,
    "slow": slow,
    "idle": idle,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("access", "Time market access.", ROUNDS)
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; repeatable")
    options = parser.parse_args(arguments)
    rows = access_rows(options.rounds, options.only or PARTS)
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
