"""Pins a market's process to a processor, but not its children.

Work handed from one thread to another goes to an idle processor, and waking an idle one takes
longer than waiting for the one that the first thread is about to leave. A process pinned to one
processor hands a lone order to the sync thread and back without that delay.
"""

import os
from asyncio.subprocess import Process, create_subprocess_exec
from typing import Any, Final

ANY: Final = -1
# The processors this process was given; empty if the system does not say.
_GIVEN: Final[frozenset[int]] = frozenset(getattr(os, "sched_getaffinity", lambda _: ())(0))


class NoSuchProcessor(ValueError):
    """A processor that this process may not use; the message names those it may."""


def last() -> int:
    """Return the last of the processors that this process was given; ANY if unknown."""
    return max(_GIVEN, default=ANY)


def keep_to(processor: int) -> None:
    """Pin this thread, and every thread and process that it starts from now on, to a processor; do
    nothing with ANY.

    ``start_child`` starts processes that are not pinned. Raises NoSuchProcessor.
    """
    if processor == ANY:
        return
    if not _GIVEN:
        raise NoSuchProcessor("this system has no way to keep to one processor; leave it at -1")
    if processor not in _GIVEN:
        there = ", ".join(map(str, sorted(_GIVEN)))
        raise NoSuchProcessor(f"this process has no processor {processor}; it may run on {there}")
    os.sched_setaffinity(0, {processor})


async def start_child(*command: str, **options: Any) -> Process:
    """Start a process that may use all processors that this one was first given.

    ``options`` are those of asyncio's ``create_subprocess_exec``. A thread that asyncio starts to
    wait for the child's end is not pinned either.
    """
    kept = os.sched_getaffinity(0) if _GIVEN else _GIVEN
    if kept == _GIVEN:
        return await create_subprocess_exec(*command, **options)
    os.sched_setaffinity(0, _GIVEN)  # inherited by a child
    try:
        return await create_subprocess_exec(*command, **options)
    finally:
        os.sched_setaffinity(0, kept)
