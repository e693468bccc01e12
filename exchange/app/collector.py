"""What a process that only serves asks of its interpreter."""

import gc
import sys
from typing import Final

YOUNG_OBJECTS: Final = 50_000  # allocations between two looks at the young objects
TURN_SECONDS: Final = 0.0005  # a thread keeps the interpreter from another that wants it
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
