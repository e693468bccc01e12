"""``hourbook snapshot`` and ``hourbook shadow``: snapshots, which shorten a start."""

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import msgspec
import typer

from exchange.cli import signals
from exchange.cli.access import Json, need_log
from exchange.cli.output import Exit, fail, group, progress, show_facts, show_json, show_table

if TYPE_CHECKING:
    from exchange.journal.errors import Diverged
    from exchange.journal.sealed import Header
    from exchange.journal.shadow import Shadow

EVERY_COMMANDS: Final = 1_000_000  # half a second of replay
EVERY_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.1
OTHER_BUILDS: Final = "other layout"

app = group("Snapshots of a market.")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A market's data directory.")]
Keep = Annotated[int, typer.Option(min=1, help="Snapshots of this build to keep.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Begin with the log's first command, not a snapshot.")
]


@app.command("write")
def write(
    directory: Directory, keep: Keep = 3, fresh: Fresh = False, as_json: Json = False
) -> None:
    """Replay what the log has beyond the newest snapshot and write another, proven by restoring it.

    May run beside a serving market, which it does not hold up.
    """
    from exchange.engine import Engine  # noqa: PLC0415
    from exchange.journal.errors import Diverged  # noqa: PLC0415

    shadow = _shadow(directory, fresh)
    try:
        with progress("replaying the log") as advance:
            shadow.catch_up(advance)
    except Diverged as diverged:
        _explain(directory, diverged, as_json)
    if not shadow.point.sequence:
        fail(f"the log in {directory} is empty: there is no state to keep", Exit.UNUSABLE)
    header = shadow.write(keep=keep, prove=Engine())
    show_facts(_facts(header), as_json)


@app.command("list")
def list_snapshots(directory: Directory, as_json: Json = False) -> None:
    """List snapshots, newest first; of each only its name and size are looked at."""
    from exchange.engine import Engine  # noqa: PLC0415
    from exchange.journal import sealed, snapshots  # noqa: PLC0415
    from exchange.journal.storage import LocalStorage  # noqa: PLC0415

    need_log(directory)
    storage = LocalStorage(directory)
    own = snapshots.layout_of(Engine().snapshot())
    found = [
        {"sequence": sequence, "bytes": storage.size(name), "this_build": layout == own,
         "file": str(storage.where(name))}
        for sequence, layout, name in sealed.list_files(storage, snapshots.KIND)
    ]  # fmt: skip
    if as_json:
        show_json(found)
        return
    rows = [
        (f"{one['sequence']:,}", f"{one['bytes']:,}", "yes" if one["this_build"] else "no",
         str(one["file"]))
        for one in found
    ]  # fmt: skip
    show_table(("sequence", "bytes", "of this build", "file"), rows)


@app.command("verify")
def verify(directory: Directory, as_json: Json = False) -> None:
    """Restore every snapshot and check it: bytes, log, state hash, and the engine's own check.

    Exit code 1 if none is good or one of this build is not. Those of another build are told apart,
    and so is what gateway and desk know, without which a start only takes longer.
    """
    from exchange.app.standby import view_reason  # noqa: PLC0415
    from exchange.engine import Engine  # noqa: PLC0415
    from exchange.journal import snapshots  # noqa: PLC0415
    from exchange.journal.storage import LocalStorage  # noqa: PLC0415

    need_log(directory)
    storage = LocalStorage(directory)
    found = snapshots.examine(storage, Engine())
    views = [view_reason(storage, one.sequence) for one in found]
    if as_json:
        told = zip(found, views, strict=True)
        show_json([msgspec.to_builtins(one) | {"view": view} for one, view in told])
    else:
        rows = [
            (f"{one.sequence:,}", one.reason or "good", view or "good", one.why or one.state_hash)
            for one, view in zip(found, views, strict=True)
        ]
        show_table(("sequence", "is", "its view", "why, or its state hash"), rows)
    if not any(one.reason == "" for one in found):
        fail(f"no snapshot in {directory} is good; `hourbook snapshot write {directory}` makes one")
    bad = [one for one in found if one.reason not in ("", OTHER_BUILDS)]
    if bad:
        fail(f"{bad[0].file}: {bad[0].reason}: {bad[0].why}; a start passes over it: delete it")


def shadow(
    directory: Directory,
    every: Annotated[int, typer.Option(min=1, help="Most commands between two snapshots.")] = (
        EVERY_COMMANDS
    ),
    seconds: Annotated[
        float, typer.Option(min=0, help="Most seconds between two snapshots.")
    ] = EVERY_SECONDS,
    keep: Keep = 3,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Follow a market's log with an engine of its own, compare, and take snapshots.

    Runs beside a serving market until SIGTERM or SIGINT. A difference from what the market
    recorded ends it with exit code 1 and the place where it is.
    """
    from exchange.journal.errors import Diverged  # noqa: PLC0415

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    with signals.noted() as stopped:
        following = _shadow(directory, fresh)
        try:
            with progress("replaying the log") as advance:
                following.catch_up(signals.until(stopped, advance))
            sequence, file = following.point.sequence, following.found.file
            show_facts({"ready": True, "sequence": sequence, "from": file}, as_json)
            taken = _follow(following, stopped, every, seconds, keep, as_json)
        except Diverged as diverged:
            _explain(directory, diverged, as_json)
    done = {"stopped": True, "sequence": following.point.sequence, "snapshots": taken,
            "states_compared": following.checked}  # fmt: skip
    show_facts(done, as_json)


def _follow(
    following: "Shadow",
    stopped: threading.Event,
    every: int,
    seconds: float,
    keep: int,
    as_json: bool,
) -> int:
    """Advance until stopped, taking due snapshots and a last one; return how many were taken."""
    taken, at, due = 0, following.found.point.sequence, time.monotonic() + seconds
    while True:
        last = stopped.wait(POLL_SECONDS)
        following.advance()
        new = following.point.sequence - at
        if new >= every or (new and (last or time.monotonic() >= due)):
            header = _take(following, keep)
            if header is not None:
                show_facts(_facts(header), as_json)
                taken, at = taken + 1, header.sequence
            due = time.monotonic() + seconds
        if last:
            return taken


def _take(following: "Shadow", keep: int) -> "Header | None":
    """Take a proven snapshot. None, with a log entry, if the disk or the tape prevents it now."""
    from exchange.engine import Engine  # noqa: PLC0415
    from exchange.journal.sealed import Damaged  # noqa: PLC0415
    from exchange.journal.shadow import TapeBehind  # noqa: PLC0415

    try:
        return following.write(keep=keep, prove=Engine())
    except (OSError, TapeBehind, Damaged) as error:
        logging.getLogger(__name__).error("no snapshot, trying again later: %s", error)
        return None


def _shadow(directory: Path, fresh: bool) -> "Shadow":
    from exchange.app.standby import Standby  # noqa: PLC0415
    from exchange.engine import Engine  # noqa: PLC0415

    need_log(directory)
    return Standby(directory, Engine(), fresh=fresh)


def _facts(header: "Header") -> dict[str, Any]:
    return {
        "snapshot": header.file,
        "sequence": header.sequence,
        "bytes": header.size,
        "layout": f"{header.layout:016x}",
        "state_hash": header.state_hash.hex(),
    }


def _explain(directory: Path, diverged: "Diverged", as_json: bool) -> NoReturn:
    """Print where the divergence is, as exactly as log and tape allow, and fail."""
    from exchange.history.divergence import explain  # noqa: PLC0415

    told = explain(directory, diverged)
    if as_json:
        show_json(told)
    else:
        print("\n".join(told["words"]))
    fail(f"the log is not what this build makes of it: {diverged}")
