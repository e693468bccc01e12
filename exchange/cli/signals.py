"""Handling of SIGINT and SIGTERM, which depends on the command."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from exchange.cli.output import Advance

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)


def stop_signal() -> asyncio.Event:
    """Return an event of the running loop that SIGINT or SIGTERM sets."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in NUMBERS:
        loop.add_signal_handler(number, stopped.set)
    return stopped


@contextmanager
def noted() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets while the block runs, and do nothing else."""
    asked = threading.Event()
    with _handled(lambda *_: asked.set()):
        yield asked


@contextmanager
def interrupting() -> Iterator[None]:
    """Let SIGINT or SIGTERM end the block by KeyboardInterrupt, so that open files are closed and
    temporary directories removed.
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
    """Return a progress reporter that raises KeyboardInterrupt once ``asked`` is set."""

    def told(done: int, total: int, note: str = "", /) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        if advance is not None:
            advance(done, total, note)

    return told
