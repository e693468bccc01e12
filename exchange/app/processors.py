"""Which processors a market's process keeps to, and its children do not.

Work that is handed from one thread to another goes where a processor is idle, and to wake an idle
one takes longer than to wait for the one that the first thread is about to leave. A process that
keeps to one hands a lone order to the thread that syncs, and takes it back, without that.
"""

import os
from asyncio.subprocess import Process, create_subprocess_exec
from typing import Any, Final

ANY: Final = -1
# Those that this process was given; empty where the system does not say.
_GIVEN: Final[frozenset[int]] = frozenset(getattr(os, "sched_getaffinity", lambda _: ())(0))


class NoSuchProcessor(ValueError):
    """A processor that this process may not run on; the message says which there are."""


def last() -> int:
    """Return the last of the processors that this process was given; ANY where none is told."""
    return max(_GIVEN, default=ANY)


def keep_to(processor: int) -> None:
    """Have this thread, and every thread and process that it begins from now on, run there alone;
    with ANY, nothing happens.

    ``start_child`` starts processes that do not. Raises NoSuchProcessor.
    """
    if processor == ANY:
        return
    if not _GIVEN:
        raise NoSuchProcessor("this system has no way to keep to one processor; leave it at -1")
    if processor not in _GIVEN:
        there = ", ".join(map(str, sorted(_GIVEN)))
        raise NoSuchProcessor(f"this process has no processor {processor}; there are {there}")
    os.sched_setaffinity(0, {processor})


async def start_child(*command: str, **options: Any) -> Process:
    """Start a process that may run wherever this one was first given; ``options`` are those of
    asyncio's ``create_subprocess_exec``. So may the thread that waits for its end, if there is one.
    """
    kept = os.sched_getaffinity(0) if _GIVEN else _GIVEN
    if kept == _GIVEN:
        return await create_subprocess_exec(*command, **options)
    os.sched_setaffinity(0, _GIVEN)  # which a child takes over
    try:
        return await create_subprocess_exec(*command, **options)
    finally:
        os.sched_setaffinity(0, kept)
