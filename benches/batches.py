"""Many orders in a frame compared with one order in a frame, over the whole path.

    hourbook bench batches [--json] [--requests N] [--rounds N]

A market's mix of requests is sent in three ways over the same connections: ``single``, one at a
time, each after the answer to the last; ``pipelined``, fifty at a time, a frame each; ``frames``,
fifty at a time in one frame. Every round times all three, one after the other.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from aiohttp import ClientSession, ClientWebSocketResponse

from benches.path import Peer, Timed, answered_by, server
from benches.rows import Row, bench_parser, publish, row, whole

AT_ONCE: Final = 50
REQUESTS: Final = 4_000  # of all connections, per way and round
ROUNDS: Final = 5
CONNECTIONS: Final = (1, 4)
WAYS: Final = ("single", "pipelined", "frames")


def frames_of(requests: list[str], way: str) -> list[list[str]]:
    """Return, as frames, what is sent each time before waiting for answers."""
    at_once = 1 if way == "single" else AT_ONCE
    turns = [requests[at : at + at_once] for at in range(0, len(requests), at_once)]
    if way == "frames":
        return [[f"[{','.join(turn)}]"] for turn in turns]
    return turns


async def pump(link: ClientWebSocketResponse, turns: list[list[str]], counts: list[int]) -> None:
    """Send each turn's frames and wait for all its answers."""
    for turn, count in zip(turns, counts, strict=True):
        for frame in turn:
            await link.send_str(frame)
        while count > 0:
            count -= answered_by(await link.receive_str())


async def time_way(peer: Peer, way: str, requests: int) -> Timed:
    """Time one way of sending a market's mix over all connections at once."""
    mixes = [trader.mixed(requests // len(peer.traders)) for trader in peer.traders]
    turns = [frames_of(mix, way) for mix in mixes]
    at_once = 1 if way == "single" else AT_ONCE
    counts = [[len(mix[at : at + at_once]) for at in range(0, len(mix), at_once)] for mix in mixes]

    async def send() -> None:
        await asyncio.gather(*map(pump, peer.links, turns, counts))

    return await peer.timed(send(), sum(map(len, mixes)))


async def measure(
    peer: Peer, connections: int, requests: int, rounds: int
) -> dict[str, list[Timed]]:
    """Return all rounds by way, after one more round that is discarded."""
    found: dict[str, list[Timed]] = {way: [] for way in WAYS}
    async with ClientSession() as session:
        await peer.connect(session, connections)
        for number in range(rounds + 1):
            for way in WAYS:
                few = requests // 4 if way == "single" else requests
                timed = await time_way(peer, way, few)
                if number:
                    found[way].append(timed)
    return found


def batch_rows(requests: int, rounds: int) -> Iterator[Row]:
    """Yield the rows of this bench."""
    for connections in CONNECTIONS:
        with (
            tempfile.TemporaryDirectory() as folder,
            server("market", folder, str(connections)) as facts,
        ):
            peer = Peer(facts, answered_by)
            found = asyncio.run(measure(peer, connections, requests, rounds))
        name = f"batches.{connections}"
        single = f"{name}.single"
        for way in WAYS:
            pairs = list(zip(found[way], found["single"], strict=True))
            value = round(median(one.rate for one, _ in pairs))
            ratio = round(median(one.rate / base.rate for one, base in pairs), 3)
            if way == "single":
                yield row(single, value, "requests/s")
            else:
                yield Row(f"{name}.{way}", value, "requests/s", ratio, single)
        if base_cpu := sum(one.cpu for one in found["single"]):
            cpu = sum(one.cpu for one in found["frames"])
            value_us = round(1e6 * cpu / rounds, 2)
            yield Row(f"{name}.frames.cpu", value_us, "us", round(cpu / base_cpu, 4), f"{single}'s")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("batches", "Time orders in batches.", ROUNDS)
    parser.add_argument(
        "--requests",
        type=whole,
        default=REQUESTS,
        help="of all connections, per way and round (%(default)s)",
    )
    options = parser.parse_args(arguments)
    rows = batch_rows(options.requests, options.rounds)
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
