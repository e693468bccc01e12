"""``hourbook archive`` and ``hourbook heads``: archived segments, and proof that a log is
unchanged."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from exchange.cli.access import Json, need_log
from exchange.cli.output import Exit, fail, group, progress, show_facts, show_json, show_table

archive = group("Old segments of a log.")
heads = group("Signed heads of a log.")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A market's data directory.")]
LOCK_NAME: Final = "archive.lock"


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold DIR/archive.lock, waiting for another archive or restore: of two at once each could
    remove what the other relies on."""
    with open(directory / LOCK_NAME, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@archive.command("run")
def run(
    directory: Directory,
    upto: Annotated[
        int | None,
        typer.Option(help="The last sequence that may go; the newest good snapshot's if absent."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Directory to archive into; beside the log if absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compress closed segments up to a snapshot that was found good now, and remove the originals.

    Each is read back and compared before its original goes. May run beside a serving market.
    """
    from exchange.engine import Engine  # noqa: PLC0415
    from exchange.journal import retention, snapshots  # noqa: PLC0415
    from exchange.journal.storage import LocalStorage  # noqa: PLC0415

    storage = LocalStorage(directory)
    need_log(directory)
    good = [one.sequence for one in snapshots.examine(storage, Engine()) if not one.reason]
    bound = max(good, default=0)
    if not bound:
        fail(
            f"no snapshot in {directory} is good, and without one a start needs every segment: "
            f"`hourbook snapshot write {directory}` makes one"
        )
    if upto is not None and upto > bound:
        fail(f"--upto {upto} is above the newest good snapshot, of sequence {bound}")
    place = None if to is None else LocalStorage(to)
    # A start reads the frame that ends at the snapshot
    most = bound if place is None else bound - 1
    last = most if upto is None else min(upto, most)
    try:
        with alone(directory), progress("archiving") as advance:
            done = retention.archive_upto(storage, last, place, advance)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail(f"a compressed segment has no room: {error}: --to names a directory on another disk;"
             " what is archived by now stays so", Exit.UNUSABLE)  # fmt: skip
    facts = {
        "archived": len(done),
        "upto": done[-1].last_sequence if done else 0,
        "bytes": sum(one.size for one in done),
        "archived_bytes": sum(one.archived_size for one in done),
        "to": str(to or directory),
    }
    show_facts(facts, as_json)


@archive.command("list")
def list_(directory: Directory, as_json: Json = False) -> None:
    """List the segments of a log, archived or not.

    The last sequence of each is the one before the next segment here: where a segment was archived
    elsewhere, what it holds is counted to the one before it. None is opened for this.
    """
    from exchange.journal import retention  # noqa: PLC0415
    from exchange.journal.storage import LocalStorage  # noqa: PLC0415

    need_log(directory)
    found = retention.stored(LocalStorage(directory))
    if as_json:
        show_json(found)
        return
    rows = [
        (one.name, f"{one.first_sequence:,}",
         "being written" if one.last_sequence is None else f"{one.last_sequence:,}",
         "yes" if one.archived else "no", f"{one.size:,}")
        for one in found
    ]  # fmt: skip
    show_table(("segment", "first", "last", "archived", "bytes"), rows)


@archive.command("restore")
def restore(
    directory: Directory,
    origin: Annotated[
        Path | None, typer.Option("--from", help="Where the archived segments are; DIR if absent.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring archived segments back, every frame checked. The log is read either way, archived
    beside it or not; this is for segments that lie elsewhere, and for tools of other makers.
    """
    from exchange.journal import retention  # noqa: PLC0415
    from exchange.journal.storage import LocalStorage  # noqa: PLC0415

    need_log(directory)
    storage = LocalStorage(directory)
    place = storage if origin is None or origin.resolve() == directory.resolve() else None
    with alone(directory), progress("restoring") as advance:
        done = retention.restore(storage, place or LocalStorage(origin or directory), advance)
    show_facts({"restored": len(done), "bytes": sum(size for _, size in done)}, as_json)


@heads.command("verify")
def verify(
    directory: Directory,
    place: Annotated[Path, typer.Option("--heads", help="Directory of the signed heads.")],
    key: Annotated[
        str, typer.Option(help="The id of the only key that you trust, as another told you.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check every signature and chain of the heads, and every frame of the log against them."""
    from exchange.journal import heads as signed  # noqa: PLC0415
    from exchange.journal.reader import LogReader  # noqa: PLC0415

    need_log(directory)
    known = signed.frames_known_of(directory, place)
    reader = LogReader(directory, known=known)
    total, done = reader.total_bytes, 0
    with progress("reading the log") as advance:
        for chunk in reader.chunks():
            done += sum(frame.length for frame in chunk)
            if advance is not None:
                advance(done, total)
    reader.finish()
    found = signed.read_heads(place, reader.exchange_id.hex()) if reader.exchange_id else []
    keys = sorted({head.key for head in found})
    if key and keys != [key]:
        fail(f"the heads are signed by {', '.join(keys) or 'nobody'}, not by {key} alone")
    facts = {
        "heads": len(found),
        "signed_upto": found[-1].sequence if found else 0,
        "log_upto": reader.next_sequence - 1,
        "keys": keys,
    }
    show_facts(facts, as_json)


def tape(directory: Directory, as_json: Json = False) -> None:
    """Compare the released stream on disk with the log, record by record, without an engine."""
    from exchange.journal.tapecheck import check_tape  # noqa: PLC0415

    need_log(directory)
    with progress("comparing") as advance:
        report = check_tape(directory, advance)
    show_facts(
        {
            "records": report.records,
            "bytes": report.bytes,
            "last_sequence": report.last_sequence,
            "proven_upto": report.proven_upto,
        },
        as_json,
    )
