"""What the command lines of the bots share: where the market is, whose key, and how to stop."""

import argparse
import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from clients.aio import AsyncClient
from clients.errors import HourbookError

Bot: TypeAlias = Callable[
    [AsyncClient, argparse.Namespace, asyncio.Event], Coroutine[Any, Any, None]
]


class KeyFile(msgspec.Struct, frozen=True):
    """What ``hourbook keys create`` prints."""

    key_id: str
    secret: str


def parser(question: str) -> argparse.ArgumentParser:
    """A parser with ``--url`` and ``--key``; ``question`` is what the bot answers."""
    made = argparse.ArgumentParser(description=question)
    made.add_argument("--url", default="ws://localhost:8000/ws", help="address of the market")
    made.add_argument(
        "--key", type=read_key, required=True, help="KEY_ID:SECRET, or a file with the key as JSON"
    )
    return made


def read_key(text: str) -> KeyFile:
    """A key from ``KEY_ID:SECRET`` or from a file that ``hourbook keys create`` wrote."""
    key_id, colon, secret = text.partition(":")
    if colon and not Path(text).exists():
        return KeyFile(key_id, secret)
    try:
        return msgspec.json.decode(Path(text).read_bytes(), type=KeyFile)
    except (OSError, msgspec.DecodeError) as error:
        raise argparse.ArgumentTypeError(f"neither KEY_ID:SECRET nor a key file: {error}") from None


def main(bot: Bot, options: argparse.Namespace) -> int:
    """Run a bot until it ends or is interrupted; the exit status."""
    try:
        asyncio.run(_run(bot, options))
    except HourbookError as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


async def _run(bot: Bot, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncClient(
        options.url,
        options.key.key_id,
        options.key.secret,
        cancel_on_disconnect=True,
        grace_ms=5_000,
    ) as client:
        await bot(client, options, stop)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait that long, or until ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
