"""``hourbook contracts``: the traded contracts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, group, show_json, show_table

if TYPE_CHECKING:
    from contracts.registry import Registry
    from contracts.rules import Fault
    from contracts.spec import Combination, ContractSpec, Instrument, Listed

app = group("What is traded.")

LIST_HINT: Final = "`hourbook contracts list` shows what is listed"
Kind = Literal["outright", "spread", "quarter", "year"]
On = Annotated[
    datetime | None,
    typer.Option(
        "--on",
        formats=["%Y-%m-%d"],
        metavar="YYYY-MM-DD",
        help="As of this day; today, UTC, if absent.",
    ),
]
Code = Annotated[
    str, typer.Argument(help="An instrument, H100Z26; a combination, H100-1Q27; a product, H100P.")
]
Compared = Annotated[str, typer.Argument(help="A code, a product, a file or a folder of files.")]
Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Contract files, or folders of them; the shipped ones if absent."),
]


@app.command("list")
def list_(
    on: On = None,
    product: Annotated[
        str, typer.Option("--product", help="Only this product, as H100; all if absent.")
    ] = "",
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="Only this kind; all if absent.")
    ] = None,
    opened: Annotated[
        bool, typer.Option("--opened", help="Only what a new market opens by itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the instruments of a day's listing cycle: expiries, spreads and strips."""
    from contracts import registry  # noqa: PLC0415

    day = _day(on)
    specs = registry.load()
    if product and product not in specs.products:
        fail(f"no product {product[:16]!a}; there are {', '.join(specs.products)}")
    with _known_days():
        every: list[Listed] = [*specs.opening(day)] if opened else _cycle(specs, day)
    listed = [one for one in every if product in ("", one.product) and kind in (None, _kind(one))]
    if as_json:
        show_json([{"kind": "outright", **msgspec.to_builtins(one)} for one in listed])
        return
    heads = ("code", "kind", "delivery", "hours", "tick", "last trading day", "name")
    show_table(heads, [_line(one) for one in listed])


def _cycle(specs: "Registry", day: date) -> "list[Listed]":
    """Return the cycle of a day; if it is longer than the calendars, as much as they cover, with a
    note of that. CalendarError if they cover nothing of it."""
    from contracts.calendar import CalendarError  # noqa: PLC0415
    from contracts.spec import LISTED_MONTHS_MAX  # noqa: PLC0415

    def first(months: int) -> "list[Listed]":
        return [*specs.listing(day, months), *specs.combinations(day, months)]

    try:
        return first(LISTED_MONTHS_MAX)
    except CalendarError as beyond:
        for months in range(LISTED_MONTHS_MAX - 1, 0, -1):
            with suppress(CalendarError):
                listed = first(months)
                print(f"hourbook: the first {months} months only: {beyond}", file=sys.stderr)
                return listed
        raise


def _kind(one: "Listed") -> str:
    return getattr(one, "kind", "outright")


def _line(one: "Listed") -> tuple[str, ...]:
    from contracts.spec import Instrument  # noqa: PLC0415

    if isinstance(one, Instrument):
        delivery, hours = one.expiry, one.multiplier
    else:
        delivery, hours = f"{len(one.legs)} months", one.net_hours
    last = str(one.last_trading_day)
    return (one.code, _kind(one), delivery, str(hours), one.tick, last, one.name)


@app.command("show")
def show(code: Code, on: On = None, as_json: Json = False) -> None:
    """Show the terms of an instrument (H100Z26), a combination (H100-1Q27) or a product (H100)."""
    from contracts import registry, sheet  # noqa: PLC0415
    from contracts.pages import product_sheet  # noqa: PLC0415

    specs, day = registry.load(), _day(on)
    found = _find(specs, code, day)
    if as_json:
        facts = specs.indices.get(getattr(found, "index", ""))
        show_json({**msgspec.to_builtins(found), **({"index_facts": facts} if facts else {})})
    elif code in specs.products:
        print(product_sheet(specs, code, day), end="")
    else:
        print(sheet(found, specs.calendars[found.calendar]), end="")  # type: ignore[arg-type]


@app.command("schedule")
def schedule(
    code: Code,
    on: Annotated[
        datetime | None,
        typer.Option(
            "--date",
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="The business date; today, UTC, if absent.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the session of an instrument, a combination or a product on a business date."""
    from contracts import registry, sessions  # noqa: PLC0415
    from contracts.spec import ContractSpec  # noqa: PLC0415

    specs, day = registry.load(), _day(on)
    found = _find(specs, code, day)
    days = specs.calendars[found.calendar]
    if not isinstance(found, ContractSpec):
        if day > found.last_trading_day:
            fail(f"{code} traded until {found.last_trading_day}")
        if found.listed_on is not None and day < found.listed_on:
            fail(f"{code} is listed from {found.listed_on} on")
    with _known_days():
        every = sessions.steps(found, days, day)
    steps = [step for step in every if step.phase is not sessions.Phase.INDICATE]
    indicated = len(every) > len(steps)
    if as_json:
        show_json(
            {
                "code": code,
                "date": day,
                "calendar": days.code,
                "indicate_seconds": days.indicate_seconds if indicated else None,
                "steps": [{"at": step.at, "phase": step.phase} for step in steps],
            }
        )
        return
    zone = ZoneInfo(days.time_zone)
    rows = [
        (f"{step.at:%Y-%m-%d %H:%M}", f"{step.at.astimezone(zone):%Y-%m-%d %H:%M}",
         step.phase.value) for step in steps
    ]  # fmt: skip
    show_table(("UTC", days.time_zone, "state from then on"), rows, left=3)
    if indicated:
        print(f"an indicative price every {days.indicate_seconds} seconds while collected")


@app.command("check")
def check(files: Files = None, on: On = None, as_json: Json = False) -> None:
    """Check contract files before they are used; every fault of every file is named.

    Files stand in for the shipped ones of the same name. A version in force may not be changed, nor
    a grade or an index's rules.
    """
    from contracts import compare, owners, registry  # noqa: PLC0415
    from contracts.rules import Fault  # noqa: PLC0415

    faults: list[Fault] = []
    count, given = 0, _files(files or [])
    try:
        specs = registry.read(registry.shipped() | given)
        count = len(specs.specs)
        for found in compare.edited_versions(registry.load(), specs, _day(on)):
            rule = f"must stay {found.before!a}: it is in force; add a [[version]]"
            if found.before == compare.ABSENT:
                rule = f"must begin after {_day(on)}: months are listed under the one in force"
            faults.append(Fault(found.what, found.field, found.after, rule))
    except registry.RegistryError as error:
        faults += error.faults
    faults += owners.faults(given, _day(on))
    if as_json:
        show_json({"versions": count, "faults": [fault._asdict() for fault in faults]})
    else:
        _print_check(count, faults)
    if faults:
        raise typer.Exit(Exit.NO)


def _print_check(count: int, faults: "list[Fault]") -> None:
    for fault in faults:
        print(fault)
    found = f"{len(faults)} fault{'s' * (len(faults) > 1)}" if faults else "no fault"
    print(f"{found}, {count} versions read" if count else found)


@app.command("diff")
def diff(before: Compared, after: Compared, on: On = None, as_json: Json = False) -> None:
    """Show the fields in which two things differ: codes, products, files or folders of files."""
    from contracts import compare, registry  # noqa: PLC0415

    day = _day(on)
    paths = [Path(name) for name in (before, after)]
    for path in paths:
        if path.suffix == ".toml" and not path.exists():
            fail(f"no file {path}", Exit.UNUSABLE)
    there = [path for path in paths if path.exists()]
    if len(there) == 1 and there[0].suffix == ".toml":
        fail(f"{there[0]} is a file: name a second file, not a code, to compare it with")
    if len(there) == len(paths):
        try:
            found = compare.files(*(_files([path]) for path in paths))
        except registry.RegistryError as error:
            fail(f"{error}\nrefused whole: mend the file, or see `hourbook contracts check FILE`")
    else:
        specs = registry.load()
        found = compare.differences(_find(specs, before, day), _find(specs, after, day))
    if as_json:
        show_json(found)
    elif found:
        rows = [(f"{one.what} {one.field}".strip(), one.before, one.after) for one in found]
        show_table(("field", before, after), rows)
    else:
        print("no difference")
    if found:
        raise typer.Exit(Exit.NO)


@app.command("pages")
def pages(
    folder: Annotated[Path, typer.Argument(help="Where PRODUCT.md goes; made if need be.")],
    on: On = None,
    as_json: Json = False,
) -> None:
    """Write a Markdown page per product into a folder, which is made if need be."""
    from contracts import registry  # noqa: PLC0415
    from contracts.pages import page  # noqa: PLC0415

    specs, day = registry.load(), _day(on)
    with _known_days():
        made = {product: page(specs, product, day) for product in specs.products}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for product, text in made.items():
        path = folder / f"{product.lower()}.md"
        path.write_text(text)
        written.append(str(path))
    if as_json:
        show_json(written)
    else:
        print("\n".join(written))


def _find(specs: "Registry", code: str, day: date) -> "ContractSpec | Instrument | Combination":
    from contracts import calendar, registry, symbol  # noqa: PLC0415

    try:
        return specs.spec(code, day) if code in specs.products else specs.find(code, day)
    except (symbol.CodeError, registry.UnknownContractError, calendar.CalendarError) as error:
        fail(f"{error}; {LIST_HINT}")


def _files(paths: list[Path]) -> dict[str, bytes]:
    """Return the contents of files, and of the registry's files in folders, by name."""
    from contracts import registry  # noqa: PLC0415

    files: dict[str, bytes] = {}
    for path in paths:
        if not path.exists():
            fail(f"no file {path}", Exit.UNUSABLE)
        found = [path]
        if path.is_dir():
            found = [one for one in sorted(path.iterdir()) if registry.is_own(one.name)]
        if not found:
            fail(f"{path} holds no contract file: they are named as in contracts/data, h100.toml")
        for one in found:
            if one.name in files:
                fail(f"{one}: another file named {one.name} is given, too; check one at a time")
            files[one.name] = _content(one)
    return files


def _content(path: Path) -> bytes:
    """Return a file's bytes; of a file beyond the limit just enough to show that it is."""
    from contracts.rules import FILE_BYTES_MAX  # noqa: PLC0415

    with path.open("rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


@contextmanager
def _known_days() -> Iterator[None]:
    """Fail if no calendar covers the day and its whole cycle, or no specification is in force on
    it."""
    from contracts.calendar import BeyondCalendar, CalendarError  # noqa: PLC0415
    from contracts.registry import UnknownContractError  # noqa: PLC0415

    try:
        yield
    except BeyondCalendar as beyond:
        fail(f"{beyond}. Until then name an earlier day, whose months it covers")
    except (CalendarError, UnknownContractError) as error:
        fail(f"{error}")


def _day(on: datetime | None) -> date:
    return on.date() if on is not None else datetime.now(UTC).date()
