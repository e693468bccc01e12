"""``hourbook``: the operator's command line. Names, options and exit codes: docs/reference/cli.md.

Commands import what they need when they run, so that ``--help`` is quick.
"""

import os
import sys
from typing import Annotated

import typer

from exchange.cli import (
    archive,
    bench,
    clear,
    conduct,
    config,
    contracts,
    default,
    delivery,
    goodput,
    index,
    log,
    margin,
    market,
    members,
    operator,
    records,
    replay,
    sandbox,
    simulate,
    snapshot,
)
from exchange.cli.output import Exit, Failure, group, leave_paths, why

app = group(
    "An exchange and clearing house for compute.",
    "`hourbook demo` shows all of it in twenty seconds; `hourbook COMMAND --help` tells what a"
    " command takes. Exit codes: 0 done, 1 the answer is no, 2 a wrong command line, 3 something"
    " cannot be used, 130 interrupted. Reference: docs/reference/cli.md.",
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        print(f"hourbook {version('hourbook')}")
    except PackageNotFoundError:
        print("hourbook, of sources that are not installed")
    raise typer.Exit


@app.callback()
def hourbook(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """An exchange and clearing house for compute."""


app.command("demo")(market.demo)
app.command("serve")(market.serve)
app.command("sandbox")(sandbox.sandbox)
app.command("flow")(records.flow)
app.command("simulate")(simulate.simulate)
app.command("replay")(replay.replay)
app.command("shadow")(snapshot.shadow)
app.add_typer(snapshot.app, name="snapshot")
app.add_typer(log.app, name="log")
app.add_typer(archive.archive, name="archive")
app.add_typer(archive.heads, name="heads")
app.add_typer(contracts.app, name="contracts")
app.add_typer(goodput.app, name="goodput")
app.add_typer(index.app, name="index")
clear.app.add_typer(margin.app)  # listed among the commands of `clear`
clear.app.add_typer(members.app)
clear.app.add_typer(delivery.app)
clear.app.add_typer(default.app, name="default")
app.add_typer(clear.app, name="clear")
app.add_typer(operator.keys, name="keys")
operator.admin.add_typer(conduct.app)
app.add_typer(operator.admin, name="admin")
app.add_typer(config.app, name="config")
app.add_typer(bench.app, name="bench")
leave_paths(app)


def main() -> None:
    """Run the command line. Every expected failure prints one line that says what to do."""
    _take_standard_places()
    try:
        app(prog_name="hourbook")
    except SystemExit as ended:
        # Typer ends with 1 when nobody reads the output any more, which is no answer
        if isinstance(ended.__context__, BrokenPipeError):
            sys.exit(Exit.UNUSABLE)
        raise
    except Failure as failure:
        print(f"hourbook: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except OSError as error:
        print(f"hourbook: {_told(error)}", file=sys.stderr)
        sys.exit(Exit.UNUSABLE)
    except MemoryError:
        print("hourbook: out of memory; is a file that was named too large?", file=sys.stderr)
        sys.exit(Exit.UNUSABLE)
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":  # only text that was not UTF-8 on input cannot be encoded
            print(f"hourbook: {error.object[:40]!a} is not UTF-8; write it so", file=sys.stderr)
            sys.exit(Exit.USAGE)
        said = f"the output takes no {error.object[error.start]!a} ({error.encoding})"
        print(f"hourbook: {said}; set PYTHONUTF8=1", file=sys.stderr)
        sys.exit(Exit.UNUSABLE)
    except Exception as error:
        if not isinstance(error, _refusals()):
            raise
        print(f"hourbook: {error}", file=sys.stderr)
        sys.exit(Exit.UNUSABLE)


def _take_standard_places() -> None:
    """Open the null device for each of stdin, stdout and stderr that the caller has closed.
    Otherwise the next files opened, for example a market's log, would get their descriptors and
    receive what is printed."""
    for place in range(3):
        try:
            os.fstat(place)
        except OSError:
            # Takes the lowest free descriptor
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _told(error: OSError) -> str:
    """Return an operating system error's text, with what to do if it does not say so itself."""
    if "AF_UNIX path too long" in str(error):
        return (
            "the path of the market's admin.sock is too long for a socket: name a shorter directory"
            " (--data; TMPDIR for demo)"
        )
    if error.filename is not None:
        return f"{error.filename}: {why(error)}"
    return why(error) or type(error).__name__


def _refusals() -> tuple[type[Exception], ...]:
    """Return the expected errors; imported only after something has failed."""
    from contracts.rules import FilesRefused  # noqa: PLC0415
    from exchange.app.gateways import GatewayDied  # noqa: PLC0415
    from exchange.app.wishes import RequestRefused  # noqa: PLC0415
    from exchange.journal.errors import JournalError  # noqa: PLC0415
    from exchange.sequencer import QueueFull  # noqa: PLC0415

    return FilesRefused, GatewayDied, JournalError, QueueFull, RequestRefused


__all__ = ["app", "main"]
