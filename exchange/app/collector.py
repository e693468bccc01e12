"""The garbage collector of a serving process."""

import gc
from typing import Final

YOUNG_OBJECTS: Final = 50_000  # allocations between two looks at the young objects
OLDER_LOOKS: Final = 50  # looks at one generation before the next older one is looked at


def calm_collector() -> None:
    """Look for cycles seldom, and never again among what the start has made.

    For a process that only serves: a full look at a large market's objects stops it for tens of
    milliseconds, and orders make no cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER_LOOKS, OLDER_LOOKS)
