"""Shared by the bots' command lines: the market's address, the key, and how to stop.

A bot is a module with ``async def bot(client, chosen, stop)``: ``chosen`` holds the command line
arguments that ``arguments(parser)`` adds, and ``stop`` is an event that asks the bot to end.
"""

import argparse
import asyncio
import functools
import importlib.util
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

from clients.aio import AsyncClient
from clients.errors import HourbookError, ValueRefused
from clients.events import AnyEvent, EventStream
from clients.keys import Key

Bot: TypeAlias = Callable[
    [AsyncClient, argparse.Namespace, asyncio.Event], Coroutine[Any, Any, None]
]
Run: TypeAlias = Callable[[AsyncClient, asyncio.Event], Coroutine[Any, Any, None]]
Arguments: TypeAlias = Callable[[argparse.ArgumentParser], None]
INTERRUPTED: Final = 130


def parser(question: str, arguments: Arguments | None = None) -> argparse.ArgumentParser:
    """Return a parser of the market's address, the key, and the bot's own arguments."""
    made = argparse.ArgumentParser(description=question)
    made.add_argument(
        "--url", default="ws://localhost:8000/ws", help="address of the market (%(default)s)"
    )
    made.add_argument("--key", default="", help="key file; none: the environment's (HOURBOOK_KEY)")
    made.add_argument("--private-key", default="", help="PEM file of an Ed25519 key")
    if arguments is not None:
        arguments(made)
    return made


def whole(least: int) -> Callable[[str], int]:
    """Return an argument type: an integer, ``least`` or more."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return number

    return read


def number(text: str) -> Decimal:
    """An argument type: a price or a time, any finite number."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return found


def positive(text: str) -> Decimal:
    """An argument type: a time above zero. A bot that never waits keeps others from going on."""
    found = number(text)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above zero")
    return found


def key_of(chosen: argparse.Namespace) -> Key:
    """Return the key that the command line or the environment names. Raises ValueRefused."""
    if chosen.key:
        return Key.from_file(chosen.key, chosen.private_key)
    return Key.from_environment()


def main(question: str, bot: Bot, arguments: Arguments | None = None) -> int:
    """Run a bot from the command line until it ends or is interrupted; return the exit status.

    The first interrupt asks the bot to end, the second ends it at once.
    """
    chosen = parser(question, arguments).parse_args()
    try:
        asyncio.run(_run(bot, chosen))
    except HourbookError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the second
        return INTERRUPTED
    return 0


async def _run(bot: Bot, chosen: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupted() -> None:
        stop.set()
        for one in numbers:
            loop.remove_signal_handler(one)

    for one in numbers:
        loop.add_signal_handler(one, interrupted)
    async with AsyncClient(
        chosen.url,
        key_of(chosen),
        cancel_on_disconnect=True,
        grace_ms=5_000,
    ) as client:
        await bot(client, chosen, stop)


def load(command: str) -> Run:
    """Return a bot by its command: a module or a file that ends in ``.py``, with arguments.

    ``maker H100Z26`` is one of ``clients.bots``. The module has ``bot(client, chosen, stop)`` and,
    if it takes arguments, ``arguments(parser)``. Raises ValueRefused; SystemExit for unknown
    arguments.
    """
    try:
        name, *words = shlex.split(command)
    except ValueError as error:  # an unclosed quotation, or an empty command
        raise ValueRefused(f"no bot in {command!r}: {error}") from None
    module = _module(name)
    bot: Bot | None = getattr(module, "bot", None)
    if bot is None:
        raise ValueRefused(f"{name} has no bot(client, chosen, stop)")
    made = argparse.ArgumentParser(prog=name)
    getattr(module, "arguments", lambda parser: None)(made)
    return functools.partial(_with, bot, made.parse_args(words))


async def _with(
    bot: Bot, chosen: argparse.Namespace, client: AsyncClient, stop: asyncio.Event
) -> None:
    await bot(client, chosen, stop)


def _module(name: str) -> ModuleType:
    if name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None, "of a .py file"
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except FileNotFoundError:
            raise ValueRefused(f"no bot in {name}: there is no such file") from None
        return module
    for known in (f"clients.bots.{name}", name):
        if _exists(known):
            return importlib.import_module(known)
    raise ValueRefused(f"no bot is called {name}: name a module, or a file that ends in .py")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: of a name that no module can have
        return False


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait ``seconds``, or until ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def next_event(events: EventStream, stop: asyncio.Event | None) -> AnyEvent | None:
    """Return the next event; None once ``stop`` is set, or the client has been closed."""
    if stop is None:
        return await anext(events, None)
    coming = asyncio.ensure_future(anext(events, None))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        coming.cancel()
        stopping.cancel()
