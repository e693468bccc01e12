"""Replaces the process-wide clock and random source for the duration of a simulation.

Parts of the market ask the operating system directly: ``time`` for when a frame arrived,
``secrets`` for a nonce. While ``virtual`` is active these answer from the simulation, so that
nothing in a log depends on the day of the run. Names bound before (``from time import ...``) are
not replaced: the interpreter's own threads keep their real clock.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from random import Random
from unittest.mock import patch


@contextlib.contextmanager
def virtual(clock_ns: Callable[[], int], random: Random) -> Iterator[None]:
    """Let ``time`` and ``secrets`` answer from a clock and a seed inside the block."""
    with contextlib.ExitStack() as stack:
        for name, answer in (
            ("time_ns", clock_ns),
            ("monotonic_ns", clock_ns),
            ("time", lambda: clock_ns() / 1e9),
            ("monotonic", lambda: clock_ns() / 1e9),
        ):
            stack.enter_context(patch.object(time, name, answer))
        stack.enter_context(patch.object(secrets, "token_bytes", random.randbytes))
        stack.enter_context(
            patch.object(secrets, "token_hex", lambda size=32: random.randbytes(size).hex())
        )
        yield
