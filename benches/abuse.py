"""Timing that must not leak information, and what a flood costs; compared in turns in one run.

    hourbook bench abuse [--json] [--rounds N] [--record]

``abuse.unknown_key`` is the time from a logon with an unknown key to its refusal, compared with a
known key and a bad signature. ``abuse.flood`` is the time from an order to its report, one at a
time, while another client floods another instrument, compared with the same without a flood.
"""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse

from benches.path import Facts, Trader, answered_by, logon, server, trip
from benches.rows import Row, bench_parser, publish, row
from clients.aio import AsyncClient
from exchange.gateway.auth import create_key

ROUNDS: Final = 9
LOGONS: Final = 40  # connections of a round; each gets two refusals, one of either kind
ORDERS: Final = 200  # timed in a round
FLOOD_FRAME: Final = 50  # orders and their cancels in one frame, sent repeatedly
FLOOD_RATE: Final = 2_000  # requests a second


async def refusal(socket: ClientWebSocketResponse, key: tuple[str, str]) -> float:
    """Return the seconds from a logon to its refusal, which must be BAD_SIGNATURE."""
    text = logon(*key)
    started = time.perf_counter()
    await socket.send_str(text)
    (told,) = json.loads(await socket.receive_str())
    seconds = time.perf_counter() - started
    if told.get("name") != "BAD_SIGNATURE":
        raise RuntimeError(f"a bad logon was told {told}")
    return seconds


async def refusals(facts: Facts, folder: Path, rounds: int) -> Iterator[Row]:
    """Return the row of unknown keys."""
    random, ratios, values = Random(1), [], []
    async with ClientSession() as session:
        for _ in range(rounds + 1):
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(LOGONS):
                known, _ = create_key(folder, 1, "read")
                bad = secrets.token_hex(32)
                keys = {True: (known, bad), False: (secrets.token_hex(len(known) // 2), bad)}
                async with session.ws_connect(facts["ws"]) as socket:
                    for kind in random.sample((True, False), 2):
                        seconds[kind].append(await refusal(socket, keys[kind]))
            values.append(median(seconds[False]))
            ratios.append(values[-1] / median(seconds[True]))
    name, base = "abuse.unknown_key", "a bad signature"
    value = 1e6 * median(values[1:])
    return iter([Row(name, float(f"{value:.6g}"), "us", round(median(ratios[1:]), 3), base)])


async def two_books(url: str) -> list[dict[str, Any]]:
    """Return what a trader needs to know of two instruments."""
    async with AsyncClient(url) as client:
        codes = [code for code, data in client.instruments.items() if not data.legs][:2]
        await client.subscribe(*(f"state.{code}" for code in codes))
        return [{"instrument": code, "price": client.states[code].mark[:-3]} for code in codes]


async def flood(socket: ClientWebSocketResponse, trader: Trader) -> None:
    """Send frames of orders and their cancels at FLOOD_RATE until cancelled."""

    async def read() -> None:
        async for _ in socket:
            pass

    reading, begun, sent = asyncio.create_task(read()), time.perf_counter(), 0
    try:
        while True:
            commands = trader.mixed(FLOOD_FRAME)
            await socket.send_str(f"[{','.join(commands)}]")
            sent += len(commands)
            await asyncio.sleep(max(0.0, begun + sent / FLOOD_RATE - time.perf_counter()))
    finally:
        reading.cancel()


async def floods(facts: Facts, rounds: int) -> Iterator[Row]:
    """Return the rows of a flood."""
    calm, flooded = await two_books(facts["ws"])
    percentiles: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    async with ClientSession() as session:
        links = []
        for key in facts["keys"]:
            links.append(await session.ws_connect(facts["ws"], max_msg_size=0))
            await links[-1].send_str(logon(*key))
            await links[-1].receive_str()
        trader, crowd = Trader(calm, 0), Trader(flooded, 1)
        for number in range(2 * rounds + 2):
            beside = number % 2 == 1
            flooding = asyncio.create_task(flood(links[1], crowd)) if beside else None
            found = [await trip(links[0], text, answered_by) for text in _asked(trader)]
            if flooding is not None:
                flooding.cancel()
                with suppress(asyncio.CancelledError):
                    await flooding
            percentiles[beside].append((median(found), quantiles(found, n=100)[98]))
    return _flood_rows(percentiles)


def _asked(trader: Trader) -> list[str]:
    return [trader.resting() for _ in range(ORDERS)]


def _flood_rows(percentiles: dict[bool, list[tuple[float, float]]]) -> Iterator[Row]:
    """Yield the rows of rounds without and with a flood; the first of each is a warm-up."""
    for place, name in enumerate(("p50", "p99")):
        alone, beside = ([one[place] for one in percentiles[kind][1:]] for kind in (False, True))
        ratio = median(b / a for a, b in zip(alone, beside, strict=True))
        yield row(f"abuse.flood.{name}.alone", 1e6 * median(alone), "us")
        value = float(f"{1e6 * median(beside):.6g}")
        yield Row(f"abuse.flood.{name}", value, "us", round(ratio, 3), f"abuse.flood.{name}.alone")


def abuse_rows(rounds: int) -> Iterator[Row]:
    """Yield the rows of this bench."""
    with (
        tempfile.TemporaryDirectory() as folder,
        server("market", folder, "2") as facts,
    ):
        yield from asyncio.run(refusals(facts, Path(folder), rounds))
        yield from asyncio.run(floods(facts, rounds))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("abuse", "Time what abuse may not tell.", ROUNDS)
    options = parser.parse_args(arguments)
    publish(abuse_rows(options.rounds), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
