"""``hourbook log audit``, ``bulletin``, ``large-traders`` and ``surveillance``: regulatory
reports."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, progress, show_facts, show_json, show_table, written
from exchange.cli.replay import UNTIL_HELP, Directory, stop_at

if TYPE_CHECKING:
    from exchange.history.bulletin import Bulletin, Day

Date = Annotated[
    int | None, typer.Option("--date", help="Business date yyyymmdd; the last if absent.")
]
CsvFile = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Also write the rows to this file.")
]

HOLDERS: Final = ("business_date", "instrument", "account", "member", "long", "short")
FINDINGS: Final = (
    "pattern", "business_date", "time", "instrument", "account", "member",
    "first_sequence", "last_sequence", "lots", "what",
)  # fmt: skip


def audit(
    directory: Directory,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="The file to write.")],
    until: Annotated[str, typer.Option(metavar="SEQ|TIME", help=UNTIL_HELP)] = "",
    as_json: Json = False,
) -> None:
    """Write the audit trail as CSV: a row for every command in and every answer out.

    docs/reference/audit.md names every field; docs/verify_audit.py checks the file on its own.
    """
    from exchange.history.audit import FIELDS, Trail  # noqa: PLC0415
    from exchange.history.walk import walk  # noqa: PLC0415

    stop = stop_at(directory, until) if until else None
    with (
        written(file) as place,
        open(place, "w", newline="", encoding="utf-8") as rows,
        progress("writing") as bar,
    ):
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(FIELDS)
        trail = Trail(writer.writerow)
        walk(directory, trail.take, stop, bar)
    show_facts({"file": str(file), "rows": trail.rows, "fields": len(FIELDS)}, as_json)


def bulletin(
    directory: Directory, date: Date = None, file: CsvFile = None, as_json: Json = False
) -> None:
    """The daily bulletin: volume, blocks, open interest, prices, settlement, deliveries."""
    collected, day = _day(directory, date)
    rows = collected.rows(day)
    if file is not None:
        _write_csv(file, rows, tuple(rows[0]) if rows else ())
    if as_json:
        show_json({"business_date": day.date, "rows": rows})
        return
    shown = [row for row in rows if row["trades"] or row["open_interest"] or row["deliveries"]]
    print(f"business date {day.date}: {len(shown)} of {len(rows)} instruments traded or held")
    _show_rows(shown)


def large_traders(
    directory: Directory,
    date: Date = None,
    lots: Annotated[int, typer.Option(min=1, help="Fewest lots of a holder that is named.")] = 25,
    file: CsvFile = None,
    as_json: Json = False,
) -> None:
    """Who holds much of an instrument at a date's end, and how much the largest 4 and 8 hold."""
    collected, day = _day(directory, date)
    rows, shares = collected.large_traders(day, lots), collected.concentration(day)
    if file is not None:
        _write_csv(file, rows, HOLDERS)
    if as_json:
        show_json({"business_date": day.date, "rows": rows, "concentration": shares})
        return
    print(f"business date {day.date}: holders of {lots} lots or more")
    _show_rows([{n: v for n, v in row.items() if n != "business_date"} for row in rows])
    print("\nper cent of the open interest")
    _show_rows(shares)


def surveillance(
    directory: Directory,
    pattern: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One of the patterns; repeatable. All if absent."),
    ] = None,
    file: CsvFile = None,
    as_json: Json = False,
) -> None:
    """Patterns of abuse: one owner, round trips, spoofing, marking the close, stuffing.

    docs/reference/audit.md defines each. Exit code 1 if anything was found.
    """
    from exchange.history.surveillance import PATTERNS, Surveillance  # noqa: PLC0415
    from exchange.history.walk import walk  # noqa: PLC0415

    wanted = tuple(pattern or PATTERNS)
    if not set(wanted) <= set(PATTERNS):
        fail(f"the patterns are {', '.join(PATTERNS)}", Exit.USAGE)
    watch = Surveillance()
    with progress("reading") as bar:
        walk(directory, watch.take, progress=bar)
    watch.finish()
    rows = watch.rows(wanted)
    if file is not None:
        _write_csv(file, rows, FINDINGS)
    if as_json:
        show_json({"patterns": wanted, "findings": rows})
    else:
        _show_rows(rows)
    if rows:
        raise typer.Exit(Exit.NO)


def _day(directory: Path, date: int | None) -> "tuple[Bulletin, Day]":
    from exchange.history.bulletin import Bulletin  # noqa: PLC0415
    from exchange.history.walk import walk  # noqa: PLC0415

    collected = Bulletin()
    with progress("reading") as bar:
        walk(directory, collected.take, progress=bar)
    collected.finish()
    if not collected.days:
        fail("the log has no business date yet", Exit.NO)
    try:
        return collected, collected.day(date)
    except KeyError:
        dates = f"{collected.days[0].date} to {collected.days[-1].date}"
        fail(f"the log has no business date {date}; it has {dates}")


def _write_csv(file: Path, rows: list[dict[str, Any]], heads: tuple[str, ...]) -> None:
    """Write rows under ``heads``, which are written without rows as well. ValueError for other
    fields."""
    with written(file) as place, open(place, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, heads, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _show_rows(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("nobody, nothing")
        return
    heads = tuple(name.replace("_", " ") for name in rows[0])
    cells = [tuple("" if v is None else str(v) for v in row.values()) for row in rows]
    show_table(heads, cells)
