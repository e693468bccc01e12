"""``hourbook index``: settlement indices, from observation files to a final settlement price."""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from exchange.app import requests
from exchange.cli.access import Json, market_command
from exchange.cli.output import Exit, fail, group, progress, show_facts, show_json, show_table
from exchange.messages.dates import number_of

if TYPE_CHECKING:
    from contracts.index.fixing import Fixing
    from contracts.index.methodology import Index, Methodology
    from contracts.index.observations import Batch
    from contracts.index.tape import Tape

app = group("The settlement indices.")

DEFAULT_TAPE: Final = Path("index.tape")
REJECTED_SHOWN: Final = 20
_DAY: Final = ["%Y-%m-%d"]

TapeFile = Annotated[Path, typer.Option("--tape", help="The file of all fixings.")]
Code = Annotated[str, typer.Argument(help="An index, as HBX-H100; `index rules` lists them.")]
Codes = Annotated[
    list[str] | None,
    typer.Option("--index", metavar="CODE", help="Only this index (repeatable); all if absent."),
]
Known = Annotated[
    datetime | None,
    typer.Option("--known", metavar="TIME", help="As it was known then, UTC: 2026-08-03T12:00:00."),
]


@app.command("fix")
def fix(
    file: Annotated[
        Path,
        typer.Argument(help="A CSV of price observations (docs/reference/index-methodology.md)."),
    ],
    on: Annotated[
        datetime,
        typer.Option(
            "--date",
            formats=_DAY,
            metavar="YYYY-MM-DD",
            help="The day to fix, with those before it that the tape lacks.",
        ),
    ],
    first: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            formats=_DAY,
            metavar="YYYY-MM-DD",
            help="On an empty tape: fix no day before this one.",
        ),
    ] = None,
    codes: Codes = None,
    revise: Annotated[
        bool, typer.Option("--revise", help="Fix that one day again, beside what was fixed.")
    ] = False,
    tape_file: TapeFile = DEFAULT_TAPE,
    as_json: Json = False,
) -> None:
    """Fix the indices of a day from price observations, and of the days before that have none.

    A fixing rests on the days before it: an empty tape begins with the first day of the file.
    """
    from contracts.index import methodology as rules  # noqa: PLC0415
    from contracts.index import run  # noqa: PLC0415

    methodology = rules.load()
    chosen = (
        [_index(code, methodology).code for code in dict.fromkeys(codes)]
        if codes
        else sorted(methodology.indices)
    )
    now_ns = time.time_ns()
    with _locked(tape_file), _refusals(file):
        tape = _read_tape(tape_file)
        batch = _batch(file, now_ns, methodology, on.date() if revise else None)
        if revise:
            grown, fixings = run.revise(
                tape, methodology, batch, chosen, on.date(), recorded_ns=now_ns
            )
        else:
            with progress("fixing") as advance:
                grown, fixings = run.fix_through(
                    tape,
                    methodology,
                    batch,
                    chosen,
                    on.date(),
                    recorded_ns=now_ns,
                    first=first.date() if first else None,
                    advance=advance,
                )
        _write(tape_file, grown.encode())
    _show_fixed(fixings, batch, on.date(), as_json)


@app.command("show")
def show(
    code: Code,
    on: Annotated[
        datetime | None,
        typer.Option("--date", formats=_DAY, metavar="YYYY-MM-DD", help="One day, with its votes."),
    ] = None,
    month: Annotated[str, typer.Option("--month", help="One month, as 2026-08.")] = "",
    known: Known = None,
    tape_file: TapeFile = DEFAULT_TAPE,
    as_json: Json = False,
) -> None:
    """Show an index's fixings, or one day with its votes and revisions; as known at any time."""
    from contracts.calendar import Month  # noqa: PLC0415

    index, tape, known_ns = _index(code), _read_tape(tape_file), _ns(known)
    if on is not None:
        _show_day(tape, index.code, on.date(), known_ns, as_json)
        return
    days = tape.days(index.code)
    if month:
        try:
            wanted = Month.parse(month)
        except ValueError as error:
            fail(f"{error}", Exit.USAGE)
        days = [day for day in days if Month.of(day) == wanted]
    fixings = [f for day in days if (f := tape.fixing(index.code, day, known_ns)) is not None]
    if not fixings:
        fail(f"{tape_file} has no such fixing of {index.code}; `hourbook index fix` makes them")
    if as_json:
        show_json(fixings)
    else:
        _show_fixings(fixings)


@app.command("rules")
def rules_(
    code: Annotated[str, typer.Argument(help="An index; all of them in short if absent.")] = "",
    as_json: Json = False,
) -> None:
    """Show the indices, or one index's rules and what its administrator undertakes."""
    from contracts.index import methodology as rules  # noqa: PLC0415

    methodology = rules.load()
    if not code:
        indices = [methodology.indices[known] for known in sorted(methodology.indices)]
        if as_json:
            show_json([_facts(index, methodology) for index in indices])
            return
        rows = [(i.code, i.methodology_version, f"{i.review_date}", i.name) for i in indices]
        show_table(("code", "methodology", "review", "name"), rows)
        return
    show_facts(_facts(_index(code, methodology), methodology), as_json)


@app.command("verify")
def verify(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Observation files: their days are fixed again from them, too."),
    ] = None,
    tape_file: TapeFile = DEFAULT_TAPE,
    as_json: Json = False,
) -> None:
    """Check the tape's chain, and compute every price again from its own votes and anchors.

    With the observation files, also every entry that they gave, byte for byte.
    """
    from contracts.index import methodology as rules  # noqa: PLC0415
    from contracts.index.methodology import digest  # noqa: PLC0415
    from contracts.index.observations import read  # noqa: PLC0415
    from contracts.index.run import reproduce, unfounded  # noqa: PLC0415

    if not tape_file.exists():
        fail(f"no tape {tape_file}; `hourbook index fix` makes one", Exit.UNUSABLE)
    methodology, tape = rules.load(), _read_tape(tape_file)
    checked, other_rules, differ = _recomputed(tape, methodology)
    differ += unfounded(tape)
    run_again, other_runs, given = 0, 0, set()
    for file in files or []:
        content = _content(file)
        given.add(digest(content).hex())

        def read_at(now_ns: int, content: bytes = content) -> "Batch":
            return read(content, now_ns=now_ns, methodology=methodology)

        with _refusals(file, "nothing is proven"):
            again = reproduce(tape, methodology, digest(content), read_at)
        differ += [f"{file}: {entries}" for entries in again.differ]
        run_again += again.runs > 0
        other_runs += again.other_rules
    facts = {
        "entries": len(tape),
        "tape_hash": tape.head,
        "recomputed": checked,
        "made_by_other_rules": other_rules,
        "files_run_again": run_again,
        "captures_by_other_rules": other_runs,
        "captures_without_their_file": sum(one.file_hash not in given for one in tape.captures()),
        "differ": differ,
    }
    show_facts(facts, as_json)
    if differ:
        fail(f"{len(differ)} parts of the tape are not what their inputs give: {differ[0]}")


def _recomputed(tape: "Tape", methodology: "Methodology") -> tuple[int, int, list[str]]:
    """Compute every price again from its votes; return how many, how many were made by other rules,
    and which differ."""
    from contracts.index.fixing import Fixing  # noqa: PLC0415
    from contracts.index.run import recompute  # noqa: PLC0415

    checked, other_rules, differ = 0, 0, []
    hashes = {code: methodology.rules_hash(code).hex() for code in methodology.indices}
    for recorded in tape:
        fixing = recorded.entry
        if not isinstance(fixing, Fixing) or not fixing.published:
            continue
        table = tape.table(fixing.index, fixing.date)
        if hashes.get(fixing.index) != fixing.rules_hash:
            other_rules += 1
            continue
        index = methodology.indices[fixing.index]
        same_table = table is not None and table.table_hash == fixing.table_hash
        if (
            table is None
            or not same_table
            or recompute(fixing, index, table) != fixing.price_micros
        ):
            differ.append(f"{fixing.index} {fixing.date} revision {fixing.revision}")
        checked += 1
    return checked, other_rules, differ


@app.command("settle")
def settle(
    code: Code,
    month: Annotated[str, typer.Argument(help="The delivery month, as 2026-08.")],
    market: Annotated[
        list[str] | None,
        typer.Option(
            "--market",
            metavar="PRICE",
            help="Last settlement prices of the contract, in order, as 2.650; repeatable.",
        ),
    ] = None,
    known: Known = None,
    tape_file: TapeFile = DEFAULT_TAPE,
    as_json: Json = False,
) -> None:
    """Compute a month's final settlement price: the mean of its fixings, or the fallback ladder."""
    from contracts.calendar import Month  # noqa: PLC0415
    from contracts.decimal_text import DecimalTextError, parse_price  # noqa: PLC0415
    from contracts.index.settlement import MonthIncomplete, final_price  # noqa: PLC0415

    index = _index(code)
    try:
        delivery = Month.parse(month)
        prices = [parse_price(price, 6) for price in market or []]
    except (ValueError, DecimalTextError) as error:
        fail(f"{error}", Exit.USAGE)
    if any(price <= 0 for price in prices):
        fail("--market: a price must be above zero", Exit.USAGE)
    try:
        cut_ns = None if known is None else _ns(known)
        final = final_price(index, delivery, _read_tape(tape_file), prices, cut_ns)
    except MonthIncomplete as error:
        fail(f"{error}; `hourbook index fix` fixes days, --known names another time to look from")
    facts = {
        "index": final.index,
        "month": final.month,
        "step": final.step.name,
        "price": _price(final.price_micros),
        "published_days": final.published_days,
        "withheld_days": len(final.withheld),
        "revisions_known_by": _moment(final.cut_ns),
        "final": known is None and time.time_ns() > final.cut_ns,
        "inputs_hash": final.inputs_hash,
    }
    show_facts(facts, as_json)
    if final.price_micros is None:
        fail(
            "too few fixings and no market prices to settle on; the market's rules name who decides"
        )


@market_command(app, "record")
def record(
    code: Code,
    on: Annotated[
        datetime,
        typer.Option("--date", formats=_DAY, metavar="YYYY-MM-DD", help="The day of the fixing."),
    ],
    tape_file: TapeFile = DEFAULT_TAPE,
) -> requests.RecordFixing:
    """Put a day's fixing into a market's log: an integer, with the hash of its inputs."""
    tape, index = _read_tape(tape_file), _index(code)
    fixing = tape.fixing(index.code, on.date())
    if fixing is None:
        fail(f"{tape_file} has no fixing of {code} on {on.date()}; `hourbook index fix` makes it")
    return requests.RecordFixing(
        index=fixing.index,
        date=number_of(fixing.date),
        revision=fixing.revision,
        state=fixing.state.value,
        reason=fixing.reason,
        price=_price(fixing.price_micros) if fixing.published else "",
        inputs_hash=fixing.inputs_hash,
        tape_hash=tape.hash_of(fixing),
    )


def _show_fixed(fixings: Sequence["Fixing"], batch: "Batch", on: date, as_json: bool) -> None:
    rejected = dict(sorted(Counter(row.screen.name for row in batch.rejected).items()))
    if as_json:
        first = [
            {"line": row.line, "reason": row.screen.name, "number": int(row.screen)}
            | {"value": row.value}
            for row in batch.rejected[:REJECTED_SHOWN]
        ]
        show_json({"fixings": fixings, "rejected": rejected, "first_rejected": first})
        return
    _show_fixings([fixing for fixing in fixings if fixing.date == on])
    earlier = sum(fixing.date < on for fixing in fixings)
    if earlier:
        print(f"and {earlier} fixings of the days before; `hourbook index show CODE` shows them")
    if rejected:
        named = ", ".join(f"{name} {count}" for name, count in rejected.items())
        print(f"observations rejected: {named}; --json names the first {REJECTED_SHOWN}")


def _show_fixings(fixings: Sequence["Fixing"]) -> None:
    heads = ("index", "date", "state", "price", "reason", "revision", "providers", "one can move")
    rows = [
        (
            fixing.index,
            f"{fixing.date}",
            fixing.state.value,
            _price(fixing.price_micros),
            fixing.reason or (f"step {fixing.step}" if fixing.step else ""),
            f"{fixing.revision}",
            f"{fixing.gates.get('providers', len(fixing.votes))}",
            f"{fixing.gates['influence_bp'] / 100:.2f} %" if "influence_bp" in fixing.gates else "",
        )
        for fixing in fixings
    ]
    show_table(heads, rows)


def _show_day(tape: "Tape", code: str, on: date, known_ns: int, as_json: bool) -> None:
    """Show one day: every revision known by then, and the votes of the last of them."""
    revisions = [(at, f) for at, f in tape.revisions(code, on) if at <= known_ns]
    if not revisions:
        fail(f"no fixing of {code} on {on} was known then; `hourbook index fix` makes one")
    if as_json:
        show_json([{"known": _moment(at), "fixing": fixing} for at, fixing in revisions])
        return
    _show_fixings([fixing for _, fixing in revisions])
    last = revisions[-1][1]
    table = tape.table(code, on)
    anchors = {anchor.provider: anchor for anchor in table.anchors} if table else {}
    rows = []
    for vote in last.votes:
        anchor = anchors.get(vote.provider)
        seated = anchor is not None and anchor.series == vote.series
        change = vote.log - anchor.log - (last.median or 0) if anchor and seated else None
        note = "outlier" if vote.provider in last.outliers else "" if seated else "no seat"
        rows.append(
            (
                vote.provider,
                vote.series,
                _price(_micros(vote.log)),
                f"{vote.observations}",
                f"{anchor.weight / 1e7:.1f} %" if anchor and seated else "",
                f"{change / 1e7:+.2f} %" if change is not None else "",
                note,
            )
        )
    print()
    show_table(("provider", "series", "price", "seen", "weight", "from median", ""), rows)
    facts: dict[str, Any] = {"gates": _named(last.gates), "screened": _named(last.screened)}
    facts |= {"inputs_hash": last.inputs_hash, "table_hash": last.table_hash}
    print()
    show_facts(facts | {"rules_hash": last.rules_hash, "known": _moment(revisions[-1][0])}, False)


def _named(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.lower()} {count}" for name, count in counts.items()) or "none"


def _facts(index: "Index", methodology: "Methodology") -> dict[str, Any]:
    """Return an index's rules as text, in order."""
    facts: dict[str, Any] = msgspec.to_builtins(index, str_keys=True)
    return facts | {"rules_hash": methodology.rules_hash(index.code).hex()}


def _index(code: str, methodology: "Methodology | None" = None) -> "Index":
    from contracts.index import methodology as rules  # noqa: PLC0415

    try:
        return (methodology or rules.load()).index(code)
    except LookupError as error:
        fail(str(error.args[0]))


def _batch(file: Path, now_ns: int, methodology: "Methodology", revised: date | None) -> "Batch":
    """Return the observations of a file. Raises RefusedFile; EMPTY also if every one is rejected,
    or none is of the day to be ``revised``: no day is withheld for a wrong file."""
    from contracts.index.observations import FileRefusal, RefusedFile, read  # noqa: PLC0415

    batch = read(_content(file), now_ns=now_ns, methodology=methodology)
    if not batch.observations:
        first = batch.rejected[0]
        seen = f"{len(batch.rejected)} rejected, line {first.line} for {first.screen.name}"
        raise RefusedFile(FileRefusal.EMPTY, "an observation", f"{seen} {first.value[:40]!a}")
    days = batch.days
    if revised is not None and revised not in days:
        wanted, seen = f"an observation of {revised}", f"{days[0]} to {days[-1]}"
        raise RefusedFile(FileRefusal.EMPTY, wanted, seen)
    return batch


def _content(file: Path) -> bytes:
    """Return the bytes of a file, at most one more than allowed."""
    from contracts.index.observations import FILE_BYTES_MAX  # noqa: PLC0415

    if not file.is_file():
        about = "it is a CSV as docs/reference/index-methodology.md describes"
        fail(f"no file {file}; {about}", Exit.UNUSABLE)
    with file.open("rb") as opened:
        return opened.read(FILE_BYTES_MAX + 1)


@contextmanager
def _refusals(file: Path, ending: str = "nothing was fixed") -> Iterator[None]:
    """Report a refusal of a file, or of a run that it is for, as a one-line failure."""
    from contracts.index.observations import RefusedFile  # noqa: PLC0415
    from contracts.index.run import RefusedRun  # noqa: PLC0415
    from contracts.index.tape import TapeError  # noqa: PLC0415

    try:
        yield
    except (RefusedFile, RefusedRun, TapeError) as error:
        fail(f"{file}: {error}; {ending}")


def _read_tape(path: Path) -> "Tape":
    from contracts.index.tape import Tape, TapeError  # noqa: PLC0415

    try:
        return Tape.decode(path.read_bytes() if path.exists() else b"")
    except TapeError as error:
        fail(f"{path}: {error}; restore it from a copy, nothing was changed", Exit.UNUSABLE)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Allow one writer at a time. The lock is a separate file, since the tape is replaced; beside
    a tape's own place, so that it is one for all links to it."""
    if not path.name or (path.exists() and not path.is_file()):
        fail(f"'{path}' is no file, and a tape is one, which is replaced", Exit.USAGE)
    own = path.resolve()
    lock = own.with_name(f"{own.name}.lock")
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"another command is writing {path}; try again when it is done", Exit.UNUSABLE)
        yield


def _write(path: Path, content: bytes) -> None:
    """Replace the tape by the longer one, atomically; if the path is a link, what it leads to."""
    path = path.resolve()
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _price(micros: int | None) -> str:
    from contracts.decimal_text import format_price  # noqa: PLC0415

    return "" if micros is None else format_price(micros, 6)


def _micros(log: int) -> int:
    from contracts.index.numbers import price_micros  # noqa: PLC0415

    return price_micros(log)


def _moment(ns: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1_000)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _ns(moment: datetime | None) -> int:
    from contracts.index.tape import FOREVER_NS  # noqa: PLC0415

    if moment is None:
        return FOREVER_NS
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + 999_999_999
