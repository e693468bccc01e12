"""What SIGINT and SIGTERM do to a command, which depends on what it is about."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from exchange.cli.output import Advance

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)


def stop_signal() -> asyncio.Event:
    """An event of the running loop that either sets."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in NUMBERS:
        loop.add_signal_handler(number, stopped.set)
    return stopped


@contextmanager
def noted() -> Iterator[threading.Event]:
    """An event that either sets while the block runs, and nothing else happens."""
    asked = threading.Event()
    with _handled(lambda *_: asked.set()):
        yield asked


@contextmanager
def interrupting() -> Iterator[None]:
    """Either ends the block where it is, by KeyboardInterrupt: what it has opened is closed, and
    what it put into memory's files is taken away.
    """
    with _handled(signal.default_int_handler):
        yield


@contextmanager
def _handled(handler: Callable[..., Any]) -> Iterator[None]:
    before = [signal.signal(number, handler) for number in NUMBERS]
    try:
        yield
    finally:
        for number, one in zip(NUMBERS, before, strict=True):
            signal.signal(number, one)


def until(asked: threading.Event, advance: Advance | None) -> Advance:
    """Reports progress, and ends what reports it by KeyboardInterrupt once ``asked`` is set."""

    def told(done: int, total: int, note: str = "", /) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        if advance is not None:
            advance(done, total, note)

    return told
