"""The process-wide sources of chance, replaced for the length of a simulation.

Parts of the market ask the operating system itself: ``time`` for when a frame came in, ``secrets``
for a nonce. While ``virtual`` is entered these answer from the simulation, so that nothing in a
log depends on the day it was made. Whatever was bound before (``from time import ...``) is left
alone: the interpreter's own threads keep their real clock.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from random import Random
from unittest.mock import patch


@contextlib.contextmanager
def virtual(clock_ns: Callable[[], int], random: Random) -> Iterator[None]:
    """Have ``time`` and ``secrets`` answer from a clock and a seed inside the block."""
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
