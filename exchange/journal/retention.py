"""What becomes of old segments: archived up to a snapshot, listed, brought back."""

from collections.abc import Callable

import msgspec

from exchange.journal.archive import (
    ARCHIVED_SUFFIX,
    Archived,
    NotArchivable,
    archive_segment,
    restore_segment,
)
from exchange.journal.places import LOG_NAME, exchange_of, list_segments, segment_bytes
from exchange.journal.storage import Storage

Progress = Callable[[int, int], None]


class Stored(msgspec.Struct, frozen=True):
    """A segment as it lies there. ``last_sequence`` is None for the one being written.

    It is the one before the next segment here: those between may have been archived elsewhere.
    """

    name: str
    first_sequence: int
    last_sequence: int | None
    archived: bool
    size: int


def stored(storage: Storage) -> list[Stored]:
    """Return the segments of a log, oldest first."""
    segments = list_segments(storage)
    follow = [segment.first - 1 for segment in segments[1:]]
    return [
        Stored(one.name, one.first, last, one.archived, segment_bytes(storage, one))
        for one, last in zip(segments, [*follow, None], strict=True)
    ]


def archive_upto(
    storage: Storage, upto: int, to: Storage | None = None, progress: Progress | None = None
) -> list[Archived]:
    """Archive every closed segment whose last sequence is at or below ``upto``.

    ``upto`` is the caller's word that a start no longer needs what lies up to there: the sequence
    of a snapshot that was verified. With ``to`` the archived segments go there: the log then begins
    with a later one, and only such a snapshot can start it, if the frame that ends at its sequence
    is still here: ``upto`` lies below it then. The segment being written stays. May
    run beside a serving market. Raises NotArchivable, DamagedArchive.
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
    """Bring every archived segment of ``origin`` back that the log has not; return name and bytes.

    ``origin`` may be the log itself: its archived segments are unpacked. Raises NotArchivable
    where the origin holds none, DamagedArchive, WrongExchange where one is of another log.
    """
    there = {one.first for one in list_segments(storage) if not one.archived}
    names = [name for name in origin.list(LOG_NAME) if name.endswith(f".{ARCHIVED_SUFFIX}")]
    if not names:
        raise NotArchivable(f"{origin.where(LOG_NAME)} holds no archived segment")
    done, exchange_id = [], exchange_of(storage)
    for number, name in enumerate(names):
        if progress is not None:
            progress(number, len(names))
        if int(name.partition("/")[2].partition(".")[0]) not in there:
            done.append((name, restore_segment(storage, name, origin, exchange_id)))
    return done
