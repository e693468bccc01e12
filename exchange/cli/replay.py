"""``hourbook replay``: replays a log through a fresh engine; can stop, play, show and export."""

import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, plain, progress, show_facts, show_json, show_table
from exchange.messages import EVENT_BYTES

if TYPE_CHECKING:
    from exchange.history.picture import Picture
    from exchange.history.walk import Replayed, Take
    from exchange.journal.frame import Frame

NS: Final = 1_000_000_000
_DATE_DIGITS: Final = 8  # of yyyymmdd
SLOWEST: Final = 1e-6  # lowest speed, as a factor of the log's own time
PAUSE_NS: Final = 86_400 * NS  # at once: no system sleeps for centuries
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A market's data directory.")]
UNTIL_HELP = "Stop after this sequence, or after this millisecond (ISO 8601, UTC)."


def replay(
    directory: Directory,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also check the state reached, and explain a doubt.")
    ] = False,
    until: Annotated[str, typer.Option(metavar="SEQ|TIME", help=UNTIL_HELP)] = "",
    speed: Annotated[
        str,
        typer.Option(metavar="real|Nx", help="Print events at their own pace, or N times faster."),
    ] = "",
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every record: FILE.jsonl or FILE.parquet."),
    ] = None,
    book: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Show its book at the end; repeatable."),
    ] = None,
    account: Annotated[
        list[int] | None,
        typer.Option(metavar="ACCOUNT", help="Show its money at the end; repeatable."),
    ] = None,
    from_snapshot: Annotated[
        bool, typer.Option("--from-snapshot", help="Begin with the newest snapshot that holds.")
    ] = False,
    heads: Annotated[
        Path | None, typer.Option(help="Directory of signed heads to compare the log with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay a log through a fresh engine and compare every hash recorded in it.

    Changes nothing on disk and may run beside a serving market. With --until it stops there, and
    --book and --account show what anybody saw and held at that sequence.
    """
    from exchange.history import walk  # noqa: PLC0415
    from exchange.history.picture import Picture  # noqa: PLC0415

    if from_snapshot and (verify or speed or export or book or account):
        fail("--from-snapshot tells the state alone: the rest needs the whole log", Exit.USAGE)
    with (
        suppress(_NotExported),
        ExitStack() as exits,
        progress("replaying", printing=bool(speed)) as advance,
    ):
        sequence = stop_at(directory, until) if until else None
        picture = Picture()
        takes: list[Take] = []
        if book or account or export or speed:
            takes.append(picture.take)
        if export is not None:
            takes.append(_exporter(exits, export, picture))
        if speed:
            takes.append(_player(_factor(speed), picture, as_json))
        take = None if not takes else _all(takes)
        started = time.perf_counter()
        replayed = walk.replay(
            directory, take, sequence, advance, from_snapshot=from_snapshot, heads=heads
        )
        seconds = time.perf_counter() - started
        if replayed.divergence is not None and export is not None:
            raise _NotExported  # no file of another history than the log's
    _answer(directory, replayed, seconds, verify, picture, book or [], account or [], as_json)


class _NotExported(Exception):
    """Abandons an export, so that no file appears."""


def stop_at(directory: Path, text: str) -> int:
    """Return the sequence that SEQ or TIME names, the last of its millisecond; a usage error if it
    is neither."""
    from exchange.history.walk import last_moment, last_sequence_at  # noqa: PLC0415

    sequence, stamp = named(text)
    return last_sequence_at(directory, last_moment(stamp)) if sequence is None else sequence


def named(text: str) -> tuple[int | None, int]:
    """Return the sequence that SEQ|TIME names, or None and the stamp in ns.

    Fails if it is neither, and for digits that may be a date as well as a sequence.
    """
    from exchange.history.walk import parse_time  # noqa: PLC0415

    digits = text.removeprefix("#")  # events are printed with it
    try:
        if not digits.isdecimal():
            return None, parse_time(text)
        sequence = int(digits)
    except (ValueError, OverflowError):
        fail(f"{text} is neither a sequence nor a time like 2026-12-01T15:30:00", Exit.USAGE)
    if digits == text and len(text) == _DATE_DIGITS:
        with suppress(ValueError):
            day = datetime.strptime(text, "%Y%m%d").date()
            fail(f"{text} may be a date: write {day}, or '#{text}' for the sequence", Exit.USAGE)
    return sequence, 0


def _factor(speed: str) -> float:
    """Return the speed as a factor of the log's own time: 1 for ``real``, 10 for ``10x``."""
    if speed == "real":
        return 1.0
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not SLOWEST <= factor < float("inf"):
        fail(f"--speed {speed}: write real, or a factor like 10x", Exit.USAGE)
    return factor


def _all(takes: "list[Take]") -> "Take":
    def take(frame: "Frame", events: bytes) -> None:
        for one in takes:
            one(frame, events)

    return take


def _exporter(exits: ExitStack, path: Path, picture: "Picture") -> "Take":
    from exchange.cli.export import exporting  # noqa: PLC0415
    from exchange.history.table import rows  # noqa: PLC0415

    write = exits.enter_context(exporting(path))
    return lambda frame, events: write(rows(frame, events, picture))


def _player(factor: float, picture: "Picture", as_json: bool) -> "Take":
    """Return a function that prints each batch's events when its time has come, counted from the
    log's first stamp."""
    from exchange.history.records import event_row  # noqa: PLC0415
    from exchange.history.walk import time_text  # noqa: PLC0415
    from exchange.history.words import event_line  # noqa: PLC0415

    started: list[tuple[int, int]] = []  # stamp of the first batch, and when it was printed

    def play(frame: "Frame", events: bytes) -> None:
        stamp = frame.opening.stamp
        if not started:
            started.append((stamp, time.monotonic_ns()))
        first, begun = started[0]
        due = begun + int((stamp - first) / factor)
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(min(left, PAUSE_NS) / NS)
        at = time_text(stamp)
        for number in range(len(events) // EVENT_BYTES):
            row = event_row(events, number)
            if as_json:
                what = event_line(row, picture)
                show_json({"sequence": row[0], "index": row[1], "time": at, "what": what})
            else:
                print(f"{at}  #{row[0]}.{row[1]}  {event_line(row, picture)}", flush=True)

    return play


def _answer(
    directory: Path,
    replayed: "Replayed",
    seconds: float,
    verify: bool,
    picture: "Picture",
    books: list[str],
    accounts: list[int],
    as_json: bool,
) -> None:
    run, divergence = replayed.replayer, replayed.divergence
    dropped = replayed.tail_dropped
    agrees = divergence is None
    facts: dict[str, Any] = {
        "commands": run.commands,
        # Counted per chunk, so unknown after a divergence
        "events": run.events if agrees else None,
        "frames": run.frames if agrees else None,
        "epoch": run.epoch if agrees else None,
        "last_sequence": run.last_sequence,
        "agreed_upto": divergence.first_sequence - 1 if divergence else run.last_sequence,
        "time": _stamp_text(run.stamp) if agrees else None,
        "state_hash": run.state_hash().hex(),
        "commands_per_second": int(run.commands / seconds) if seconds else 0,
        "tail_dropped": dropped.reason if dropped else None,
        "divergence": str(divergence) if divergence else None,
    }
    words: list[str] = []
    if verify:
        replayed.engine.check()
        facts["verified"] = divergence is None and run.commands > 0
    if verify and divergence is not None:
        from exchange.history.divergence import explain  # noqa: PLC0415

        told = explain(directory, divergence)
        words = told["words"]
        if as_json:
            facts["explanation"] = told
    shown = _views(replayed, picture, books, accounts)
    if as_json:
        show_json(facts | shown)
    else:
        show_facts(facts, False)
        _print_views(shown)
        print("\n".join(["", *words]) if words else "", end="\n" if words else "")
    if divergence is not None:
        hint = "" if verify else "; `--verify` says which command and field"
        fail(f"this build does not reproduce the log: {divergence}{hint}")
    if verify and not run.commands:
        fail(f"no command of the log in {directory} was replayed: there is nothing to verify")


def _stamp_text(stamp: int) -> str | None:
    from exchange.history.walk import time_text  # noqa: PLC0415

    return time_text(stamp) if stamp else None


def _views(
    replayed: "Replayed", picture: "Picture", books: list[str], accounts: list[int]
) -> dict[str, Any]:
    from exchange.history import view  # noqa: PLC0415

    shown: dict[str, Any] = {}
    for code in books:
        if code not in picture.instruments.by_code:
            listed = ", ".join(sorted(picture.instruments.by_code)) or "none"
            fail(f"{code} is not listed at that sequence; listed are: {listed}")
        shown.setdefault("books", []).append(view.book(replayed.engine, picture, code))
    for number in accounts:
        if number not in picture.accounts:
            fail(f"account {number} is not open at that sequence")
        shown.setdefault("accounts", []).append(view.account(replayed.engine, picture, number))
    return shown


def _print_views(shown: dict[str, Any]) -> None:
    for book in shown.get("books", []):
        print(
            f"\n{book['instrument']}  {book['state']}  mark {plain(book['mark'])}"
            f"  limits {book['low_limit']} to {book['high_limit']}"
        )
        sides = [(side, level) for side in ("asks", "bids") for level in _down(side, book[side])]
        rows = [
            (side[:-1], level["price"], f"{level['quantity']:,}", f"{level['orders']:,}")
            for side, level in sides
        ]
        show_table(("side", "price", "lots", "orders"), rows)
    for account in shown.get("accounts", []):
        print()
        positions = account.pop("positions")
        show_facts(account, False)
        if positions:
            heads = tuple(name.replace("_", " ") for name in positions[0])
            show_table(heads, [tuple(map(plain, held.values())) for held in positions])


def _down(side: str, levels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return levels in book order: the highest price on top."""
    return levels[::-1] if side == "asks" else levels
