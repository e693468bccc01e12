"""``hourbook bench``: the checkout's own benchmarks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

import exchange
from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, group

app = group("Benchmarks.")
COUNTED: Final = {"implied", "features"}  # always counted in instructions
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

Flow = Annotated[
    Path | None,
    typer.Option("--flow", exists=True, file_okay=False, help="A folder of raw flow files to add."),
]
Rival = Annotated[
    Path | None,
    typer.Option(
        "--rival", exists=True, dir_okay=False, help="An external engine to time as well."
    ),
]


@app.command("core", context_settings=PASS_ON)
def core(
    context: typer.Context, as_json: Json = False, flow: Flow = None, rival: Rival = None
) -> None:
    """Time the engine alone on the project's seeded flows."""
    arguments = context.args
    arguments += [] if flow is None else ["--flow", str(flow)]
    arguments += [] if rival is None else ["--rival", str(rival.resolve())]
    if flow is not None and not any(flow.glob("*.bin")):
        fail(f"{flow} has no raw flow, a file that ends in .bin", Exit.USAGE)
    _run("core", arguments, as_json)


@app.command("path", context_settings=PASS_ON)
def path(context: typer.Context, as_json: Json = False) -> None:
    """Time orders from the WebSocket through journal and match to the report."""
    _run("path", context.args, as_json)


@app.command("access", context_settings=PASS_ON)
def access(context: typer.Context, as_json: Json = False) -> None:
    """Time market access against bare aiohttp, and with several gateways."""
    _run("access", context.args, as_json)


@app.command("abuse", context_settings=PASS_ON)
def abuse(context: typer.Context, as_json: Json = False) -> None:
    """Time that unknown keys are refused as bad signatures are, and orders beside a flood."""
    _run("abuse", context.args, as_json)


@app.command("batches", context_settings=PASS_ON)
def batches(context: typer.Context, as_json: Json = False) -> None:
    """Time orders many in a frame against one in a frame."""
    _run("batches", context.args, as_json)


@app.command("feed", context_settings=PASS_ON)
def feed(context: typer.Context, as_json: Json = False) -> None:
    """Time what public data costs for each event, by channel."""
    _run("feed", context.args, as_json)


@app.command("auction", context_settings=PASS_ON)
def auction(context: typer.Context, as_json: Json = False) -> None:
    """Time the uncross of 100,000 orders against sorting their prices."""
    _run("auction", context.args, as_json)


@app.command("implied", context_settings=PASS_ON)
def implied(context: typer.Context, as_json: Json = False) -> None:
    """Count what implied prices cost on a curve of 24 months, in instructions."""
    _run("implied", context.args, as_json)


@app.command("features", context_settings=PASS_ON)
def features(context: typer.Context, as_json: Json = False) -> None:
    """Count what each feature of the core costs in instructions."""
    _run("features", context.args, as_json)


@app.command("replay", context_settings=PASS_ON)
def replay(context: typer.Context, as_json: Json = False) -> None:
    """Time a replay from the log."""
    _run("replay", context.args, as_json)


@app.command("journal", context_settings=PASS_ON)
def journal(context: typer.Context, as_json: Json = False) -> None:
    """Time the journal against bare appends, count its syncs, and what its checks cost."""
    _run("journal", context.args, as_json)


@app.command("ledger", context_settings=PASS_ON)
def ledger(context: typer.Context, as_json: Json = False) -> None:
    """Time durable transfers against raw SQLite; `--day` ends a day of a million positions."""
    _run("ledger", context.args, as_json)


@app.command("questions", context_settings=PASS_ON)
def questions(context: typer.Context, as_json: Json = False) -> None:
    """Time questions to a log against a plain replay of it."""
    _run("questions", context.args, as_json)


@app.command("recovery", context_settings=PASS_ON)
def recovery(context: typer.Context, as_json: Json = False) -> None:
    """Time snapshots, and a start from one with a million resting orders."""
    _run("recovery", context.args, as_json)


@app.command("index", context_settings=PASS_ON)
def index(context: typer.Context, as_json: Json = False) -> None:
    """Measure what one provider can do to the settlement index, and time a month of it."""
    _run("index", context.args, as_json)


@app.command("goodput", context_settings=PASS_ON)
def goodput(context: typer.Context, as_json: Json = False) -> None:
    """Time goodput from an attestation log against decoding it."""
    _run("goodput", context.args, as_json)


@app.command("normalization", context_settings=PASS_ON)
def normalization(context: typer.Context, as_json: Json = False) -> None:
    """Hold the normalization against real data: `--data FOLDER` names where it lies."""
    _run("normalization", context.args, as_json)


@app.command("contracts", context_settings=PASS_ON)
def contracts(context: typer.Context, as_json: Json = False) -> None:
    """Time the contract registry against parsing its TOML."""
    _run("contracts", context.args, as_json)


@app.command("margin", context_settings=PASS_ON)
def margin(context: typer.Context, as_json: Json = False) -> None:
    """Time the margin of a million positions in sixteen scenarios, on one core."""
    _run("margin", context.args, as_json)


@app.command("soak", context_settings=PASS_ON)
def soak(context: typer.Context, as_json: Json = False) -> None:
    """Serve under a steady rate of orders for an hour, and judge that memory stays flat."""
    _run("soak", context.args, as_json)


def _run(name: str, arguments: list[str], as_json: bool) -> None:
    """Run ``benches/NAME.py`` of the checkout that this package is in."""
    checkout = Path(exchange.__file__).parents[1]
    if not (checkout / "benches" / f"{name}.py").is_file():
        fail("bench runs a checkout's benches/; clone the project and `make build`", Exit.USAGE)
    if (name in COUNTED or "--instructions" in arguments) and shutil.which("valgrind") is None:
        fail("instructions are counted by valgrind, which is not installed", Exit.UNUSABLE)
    command = [sys.executable, "-m", f"benches.{name}", *arguments, *(["--json"] * as_json)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)
