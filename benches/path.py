"""The whole path of an order, against a bare echo of the same messages.

    hourbook bench path [--json] [--orders N] [--rounds N]

An order goes through WebSocket, gateway, journal with fsync and matching, and its report comes
back. The rival is an aiohttp server that sends each message back, with as many connections and
as many messages in flight. Server and rival run in processes of their own; every round times
both, one after the other, with one client. Half the connections buy what the other half sells.
"""

import argparse
import asyncio
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse

from benches.rows import Row, publish, row
from exchange.messages.wire import signed_text

CONNECTIONS: Final = 4
IN_FLIGHT: Final = 64
ORDERS: Final = 20_000  # of all connections, each round
ONE_AT_A_TIME: Final = 500
ROUNDS: Final = 5
RECORD: Final = bytes(4096)  # what one lone order makes the journal write, rounded up to a block
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Round:
    """Rates in orders a second; the others in seconds, medians over single orders."""

    echo_rate: float
    market_rate: float
    echo_trip: float
    market_trip: float
    fsync: float


@contextmanager
def server(*arguments: str) -> Iterator[Facts]:
    """Run benches/servers.py; yields what it announced."""
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


def order(facts: Facts, name: str, side: str, time_in_force: str = "GTC") -> str:
    """An order of one lot as a client sends it."""
    return json.dumps(
        {
            "op": "enter",
            "client_order_id": name,
            "instrument": facts["instrument"],
            "side": side,
            "quantity": "1",
            "price": facts["price"],
            "time_in_force": time_in_force,
        },
        separators=(",", ":"),
    )


def logon(key_id: str, secret: str) -> str:
    stamp = time.time_ns() // 1_000_000
    signed = signed_text(stamp, stamp, key_id, 0)
    signature = hmac.new(secret.encode(), signed, "sha256").hexdigest()
    return json.dumps(
        {
            "op": "logon",
            "key_id": key_id,
            "timestamp_ms": stamp,
            "nonce": stamp,
            "signature": signature,
        }
    )


def echoed(frame: str) -> int:
    """How many orders a frame of the echo answers."""
    return 1


def accepted(frame: str) -> int:
    """How many orders a frame of the market answers. Raises RuntimeError for a reject."""
    if '"type":"rejected"' in frame:
        raise RuntimeError(f"an order was rejected: {frame}")
    return frame.count('"type":"accepted"')


async def pump(
    socket: ClientWebSocketResponse, orders: list[str], answered: Callable[[str], int]
) -> None:
    """Send all orders, IN_FLIGHT unanswered at most, and wait for every answer."""
    sent = done = 0
    while done < len(orders):
        while sent < min(done + IN_FLIGHT, len(orders)):
            await socket.send_str(orders[sent])
            sent += 1
        done += answered(await socket.receive_str())


async def rate(
    sockets: list[ClientWebSocketResponse],
    orders: list[list[str]],
    answered: Callable[[str], int],
) -> float:
    """Orders a second over all connections at once."""
    started = time.perf_counter()
    await asyncio.gather(
        *(pump(s, mine, answered) for s, mine in zip(sockets, orders, strict=True))
    )
    return sum(map(len, orders)) / (time.perf_counter() - started)


async def trip(
    socket: ClientWebSocketResponse, orders: list[str], answered: Callable[[str], int]
) -> float:
    """Median seconds from sending an order to its answer, one at a time."""
    seconds = []
    for one in orders:
        started = time.perf_counter()
        await socket.send_str(one)
        while not answered(await socket.receive_str()):
            pass
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def fsync_seconds(directory: Path) -> float:
    """Median seconds to append a block to a file in the directory and make it durable."""
    seconds = []
    with (directory / "fsync.probe").open("wb", buffering=0) as file:
        for _ in range(ONE_AT_A_TIME):
            started = time.perf_counter()
            file.write(RECORD)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return median(seconds)


async def measure(
    echo: Facts, market: Facts, directory: Path, orders: int, rounds: int
) -> list[Round]:
    """All rounds; one more comes first and is thrown away."""
    done = []
    async with ClientSession() as session:
        echoes = [await session.ws_connect(echo["ws"]) for _ in market["keys"]]
        links = [await session.ws_connect(market["ws"]) for _ in market["keys"]]
        for link, key in zip(links, market["keys"], strict=True):
            await link.send_str(logon(*key))
            if '"type":"logged_on"' not in (answer := await link.receive_str()):
                raise RuntimeError(f"the logon was refused: {answer}")
        for number in range(rounds + 1):
            each = [
                [
                    order(market, f"{number}-{link}-{n}", ("buy", "sell")[link % 2])
                    for n in range(orders // len(links))
                ]
                for link in range(len(links))
            ]
            lone = [order(market, f"{number}-{n}", "buy", "IOC") for n in range(ONE_AT_A_TIME)]
            done.append(
                Round(
                    echo_rate=await rate(echoes, each, echoed),
                    market_rate=await rate(links, each, accepted),
                    echo_trip=await trip(echoes[0], lone, echoed),
                    market_trip=await trip(links[0], lone, accepted),
                    fsync=fsync_seconds(directory),
                )
            )
    return done[1:]


def path_rows(orders: int, rounds: int, connections: int) -> Iterator[Row]:
    """The rows of this bench."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server("echo") as echo,
        server("market", folder, str(connections)) as market,
    ):
        done = asyncio.run(measure(echo, market, Path(folder), orders, rounds))
    yield row("path.echo_rate", median(one.echo_rate for one in done), "orders/s")
    ratio = median(one.market_rate / one.echo_rate for one in done)
    value = median(one.market_rate for one in done)
    yield Row("path.rate", round(value), "orders/s", round(ratio, 4), "path.echo_rate")
    yield row("path.echo_round_trip", 1e6 * median(one.echo_trip for one in done), "us")
    yield row("path.fsync", 1e6 * median(one.fsync for one in done), "us")
    ratio = median(one.market_trip / (one.echo_trip + one.fsync) for one in done)
    value = 1e6 * median(one.market_trip for one in done)
    label = "path.echo_round_trip + path.fsync"
    yield Row("path.round_trip", round(value, 1), "us", round(ratio, 4), label)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench path", description="Time the path of an order.")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="an even number")
    parser.add_argument("--record", action="store_true", help="append to benches/history.jsonl")
    options = parser.parse_args(arguments)
    rows = path_rows(options.orders, options.rounds, options.connections)
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
