"""What a process that only serves asks of its interpreter."""

import contextlib
import ctypes
import gc
import sys
from typing import Final

YOUNG_OBJECTS: Final = 50_000  # allocations between two looks at the young objects
TURN_SECONDS: Final = 0.0005  # a thread keeps the interpreter from another that wants it
M_MMAP_THRESHOLD: Final = -3  # of glibc's mallopt
LARGE_BYTES: Final = 1 << 19
OLDER_LOOKS: Final = 50  # looks at one generation before the next older one is looked at


def calm_collector() -> None:
    """Look for cycles seldom, and never again among what the start has made.

    For a process that only serves: a full look at a large market's objects stops it for tens of
    milliseconds, and orders make no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER_LOOKS, OLDER_LOOKS)


def short_turns() -> None:
    """Let threads take turns ten times as often as usual.

    The thread that made a batch durable has one thing to say, and everybody waits for it; by
    default it would wait five milliseconds for a clearing that is busy.
    """
    sys.setswitchinterval(TURN_SECONDS)


def give_back_tables() -> None:
    """Have every large block of memory be pages of its own, which go back when it is freed.

    A table from which the oldest leaves is laid out anew now and then. Left to itself, the C
    library takes the second such table from its heap and keeps the hole of the first: the process
    grows by what nothing uses. Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
