"""Old segments: archived up to a snapshot, listed, restored."""

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import Final

import msgspec

from exchange.journal.archive import (
    ARCHIVED_SUFFIX,
    Archived,
    NotArchivable,
    archive_segment,
    restore_segment,
)
from exchange.journal.places import DIGITS, LOG_NAME, exchange_of, list_segments, segment_bytes
from exchange.journal.storage import Storage

Progress = Callable[[int, int], None]
_ARCHIVE: Final = re.compile(rf"{LOG_NAME}/[0-9]{{{DIGITS}}}\.{re.escape(ARCHIVED_SUFFIX)}")


class Stored(msgspec.Struct, frozen=True):
    """A segment in its present form.

    ``last_sequence`` is derived from the next segment's first, and so includes segments between
    them that were archived elsewhere; None for the segment being written.
    """

    name: str
    first_sequence: int
    last_sequence: int | None
    archived: bool
    size: int


def stored(storage: Storage) -> list[Stored]:
    """Return the segments of a log, oldest first."""
    segments = list_segments(storage)
    last = [segment.first - 1 for segment in segments[1:]]
    return [
        Stored(one.name, one.first, upto, one.archived, segment_bytes(storage, one))
        for one, upto in zip_longest(segments, last)
    ]


def archive_upto(
    storage: Storage, upto: int, to: Storage | None = None, progress: Progress | None = None
) -> list[Archived]:
    """Archive every closed segment whose last sequence is at or below ``upto``; return them.

    The caller guarantees that a start no longer needs what lies up to ``upto``: it is the sequence
    of a verified snapshot, or below it. With ``to`` the archives go to that storage and the log
    then begins later: only such a snapshot can start it, and only if the frame that ends at its
    sequence is still in the log, so ``upto`` must be below that sequence. The segment being written
    is kept. May run while the market is served. Raises NotArchivable, DamagedArchive.
    """
    wanted = [
        one
        for one in stored(storage)
        if one.last_sequence is not None and one.last_sequence <= upto and not one.archived
    ]
    done = []
    for number, one in enumerate(wanted):
        if progress is not None:
            progress(number, len(wanted))
        assert one.last_sequence is not None
        done.append(archive_segment(storage, one.name, one.first_sequence, one.last_sequence, to))
    return done


def restore(
    storage: Storage, origin: Storage, progress: Progress | None = None
) -> list[tuple[str, int]]:
    """Restore every archived segment of ``origin`` that the log lacks; return names and bytes.
    Files of other names are left alone.

    ``origin`` may be the log itself: its archives are then unpacked. Raises NotArchivable if the
    origin holds none, DamagedArchive, WrongExchange if one is of another log.
    """
    there = {one.first for one in list_segments(storage) if not one.archived}
    names = [name for name in origin.list(LOG_NAME) if _ARCHIVE.fullmatch(name)]
    if not names:
        raise NotArchivable(f"{origin.where(LOG_NAME)} holds no archived segment")
    done, exchange_id = [], exchange_of(storage)
    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names))
        if int(name.partition("/")[2].partition(".")[0]) not in there:
            done.append((name, restore_segment(storage, name, origin, exchange_id)))
    return done
