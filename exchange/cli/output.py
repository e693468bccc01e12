"""Output and exit codes of the commands.

Results go to stdout, as JSON with ``--json``; progress and errors go to stderr, progress only if
that is a terminal. Exit codes: docs/reference/cli.md.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec
import typer
from typer.core import TyperGroup

from clients import files


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    NO = 1  # the answer is no: rejected, different, not proven
    USAGE = 2  # the command line is not valid
    UNUSABLE = 3  # the data directory or the market cannot be used as it is
    INTERRUPTED = 130


class Commands(TyperGroup):
    """A group whose help has the whole first sentence of every command, in several lines."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list."""
        named = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(sys.maxsize)) for name, one in named])


def group(text: str, epilog: str | None = None) -> typer.Typer:
    """Return an empty group of commands with that help."""
    return typer.Typer(
        help=text,
        epilog=epilog,
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def leave_paths(app: typer.Typer) -> None:
    """Have the commands of a group check no path beforehand: one that may not be read is no wrong
    command line (2), and who opens it says so by name and with the command's own exit code."""
    for inner in app.registered_groups:
        if inner.typer_instance is not None:
            leave_paths(inner.typer_instance)
    for command in app.registered_commands:
        if command.callback is not None:
            for parameter in signature(command.callback).parameters.values():
                for option in getattr(parameter.annotation, "__metadata__", ()):
                    option.readable = False


class Failure(Exception):
    """Ends the command with a message that says what to do."""

    def __init__(self, message: str, code: Exit = Exit.NO) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str, code: Exit = Exit.NO) -> NoReturn:
    """Raise Failure."""
    raise Failure(message, code)


def why(error: Exception) -> str:
    """Return what an error says, without the number and the file of one of the operating system."""
    return getattr(error, "strerror", None) or str(error)


def show_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(msgspec.json.encode(value).decode(), flush=True)


def show_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print named facts: one JSON object, or a line each."""
    if as_json:
        show_json(facts)
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}  {plain(value)}")


def plain(value: object) -> str:
    """Return a value as people read it: yes and no, a dash for what there is none of, and the
    entries of a list or under names after one another, apart by ; where they have commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return plain([f"{name} {plain(one)}" for name, one in value.items()])
    if isinstance(value, list | tuple):
        entries = [plain(one) for one in value]
        return ("; " if any("," in entry for entry in entries) else ", ").join(entries) or "-"
    return "-" if value in (None, "") else str(value)


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a plain table, or "none" if it has no rows; the first ``left`` columns are
    left-aligned, the others right-aligned."""
    if not rows:
        print("none")
        return
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def dollars(micros: int) -> str:
    """Return micro-dollars as dollars, as ``exchange.clearing.statements.dollars`` does."""
    from exchange.clearing import statements  # noqa: PLC0415

    return statements.dollars(micros)


def percent(bp: int) -> str:
    """Return basis points as per cent."""
    return f"{bp // 100}.{bp % 100:02d} %"


@contextmanager
def written(file: Path) -> Iterator[Path]:
    """As ``clients.files.written``. Failure if the path names no file; an OSError of what is
    written names the file, not the one beside it."""
    if not file.name:
        fail(f"'{file}' names no file", Exit.USAGE)
    place = file
    try:
        with files.written(file) as place:
            yield place
    except OSError as error:
        # An error of a write names no file
        if error.errno and error.filename in (None, str(place)):
            raise OSError(error.errno, os.strerror(error.errno), str(file)) from error
        raise


def write_text(file: Path, text: str) -> None:
    """Write a whole file, as ``written``."""
    with written(file) as place:
        place.write_text(text, encoding="utf-8")


class Advance(Protocol):
    """Reports progress: ``done`` of ``total``, and a note."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


@contextmanager
def progress(label: str, *, printing: bool = False) -> Iterator[Advance | None]:
    """Show a progress bar on stderr while the block runs; yield its ``advance(done, total)``.

    Yields None if stderr is no terminal, and if the block itself prints to a terminal
    (``printing``), since lines and bar would overwrite each other.
    """
    if not sys.stderr.isatty() or (printing and sys.stdout.isatty()):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - imported only for a terminal
    from rich.progress import Progress  # noqa: PLC0415

    # Results stay on stdout: by default they would be redirected to stderr while the bar is shown.
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=None)

        def advance(done: int, total: int, note: str = "", /) -> None:
            bar.update(task, completed=done, total=total, description=f"{label} {note}")

        yield advance
