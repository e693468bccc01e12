"""Settings of a process that only serves: its interpreter, memory and open files."""

import contextlib
import ctypes
import gc
import resource
import sys
from typing import Final

YOUNG_OBJECTS: Final = 50_000  # allocations between two collections of young objects
# Longest time that a thread keeps the interpreter while another wants it
TURN_SECONDS: Final = 0.0005
M_MMAP_THRESHOLD: Final = -3  # M_MMAP_THRESHOLD of glibc's mallopt
LARGE_BYTES: Final = 1 << 19
FILES_MAX: Final = 1 << 20  # Linux allows a process no more by default
OLDER_LOOKS: Final = 50  # collections of one generation per collection of the next older one


def calm_collector() -> None:
    """Collect garbage rarely, and exclude all objects created so far.

    For a process that only serves: a full collection of a large market's objects stops it for tens
    of milliseconds, and orders create no reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER_LOOKS, OLDER_LOOKS)


def short_turns() -> None:
    """Let threads take turns ten times as often as by default.

    A thread that has made a batch durable has only to report that, and orders wait for it; by
    default it could wait five milliseconds for busy clearing code.
    """
    sys.setswitchinterval(TURN_SECONDS)


def give_back_tables() -> None:
    """Give every large block of memory pages of its own, which are returned when it is freed.

    A table that drops its oldest entries is reallocated from time to time. By default the C library
    would take the second such table from its heap and keep the first one's space, so that the
    process grows by unused memory. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def open_many_files() -> None:
    """Let this process and its children have as many open files as the system allows them.

    By default that is often 1,024, fewer than the connections that a gateway accepts.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if most == resource.RLIM_INFINITY else min(most, FILES_MAX)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
