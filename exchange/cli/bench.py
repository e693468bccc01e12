"""``hourbook bench``: the checkout's own benchmarks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

import exchange
from exchange.cli.output import Exit, fail, group

app = group("Benchmarks. What each one takes: `hourbook bench NAME --help`.")
COUNTED: Final = {"implied", "features"}  # always counted in instructions
PASS_ON: Final = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],  # a benchmark tells its options itself
}
BENCHES: Final = {
    "path": "Time orders from the WebSocket through journal and match to the report.",
    "access": "Time market access against bare aiohttp, and with several gateways.",
    "abuse": "Time that unknown keys are refused as bad signatures are, and orders beside a flood.",
    "batches": "Time orders many in a frame against one in a frame.",
    "feed": "Time what public data costs for each event, by channel.",
    "auction": "Time the uncross of 100,000 orders against sorting their prices.",
    "implied": "Count what implied prices cost on a curve of 24 months, in instructions.",
    "features": "Count what each feature of the core costs in instructions.",
    "replay": "Time a replay from the log.",
    "journal": "Time the journal against bare appends, count its syncs, and what its checks cost.",
    "ledger": "Time durable transfers against raw SQLite; `--day`: a day of a million positions.",
    "questions": "Time questions to a log against a plain replay of it.",
    "recovery": "Time snapshots, and a start from one with a million resting orders.",
    "index": "Measure what one provider can do to the settlement index, and time a month of it.",
    "goodput": "Time goodput from an attestation log against decoding it.",
    "normalization": "Hold the normalization against real data, in the folder `--data`.",
    "contracts": "Time the contract registry against parsing its TOML.",
    "margin": "Time the margin of a million positions in sixteen scenarios, on one core.",
    "soak": "Serve under a steady rate of orders for an hour, and judge that memory stays flat.",
}

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
def core(context: typer.Context, flow: Flow = None, rival: Rival = None) -> None:
    """Time the engine alone on the project's seeded flows."""
    arguments = context.args
    arguments += [] if flow is None else ["--flow", str(flow)]
    arguments += [] if rival is None else ["--rival", str(rival.resolve())]
    if flow is not None and not any(flow.glob("*.bin")):
        fail(f"{flow} has no raw flow, a file that ends in .bin", Exit.USAGE)
    _run("core", arguments)


def _command(name: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        _run(name, context.args)

    return command


for _name, _text in BENCHES.items():
    app.command(_name, help=_text, context_settings=PASS_ON)(_command(_name))


def _run(name: str, arguments: list[str]) -> None:
    """Run ``benches/NAME.py`` of the checkout that this package is in."""
    checkout = Path(exchange.__file__).parents[1]
    if not (checkout / "benches" / f"{name}.py").is_file():
        fail("bench runs a checkout's benches/; clone the project and `make build`", Exit.USAGE)
    counts = (name in COUNTED or "--instructions" in arguments) and "--help" not in arguments
    if counts and shutil.which("valgrind") is None:
        fail("instructions are counted by valgrind, which is not installed", Exit.UNUSABLE)
    command = [sys.executable, "-m", f"benches.{name}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)
