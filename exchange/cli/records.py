"""``hourbook replay`` and ``hourbook flow``: recorded orders through the engine again."""

from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, progress, show_facts


def replay(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A market's data directory.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also check the state reached; any doubt is exit 1.")
    ] = False,
    until: Annotated[int | None, typer.Option(help="Stop after this sequence.")] = None,
    as_json: Json = False,
) -> None:
    """Replay a log through a fresh engine and compare every hash recorded in it.

    Changes nothing on disk and may run beside a serving market.
    """
    from exchange.engine import Engine  # noqa: PLC0415
    from exchange.journal.replay import replay as replay_log  # noqa: PLC0415

    if not (directory / "log").is_dir():
        fail(f"no log in {directory}; name a market's data directory", Exit.UNUSABLE)
    engines: list[Engine] = []

    def fresh() -> Engine:
        engines.append(Engine())
        return engines[-1]

    with progress("replaying") as advance:
        report = replay_log(directory, fresh, until, advance)
    facts = {
        "commands": report.commands,
        "events": report.events,
        "frames": report.frames,
        "epoch": report.epoch,
        "last_sequence": report.last_sequence,
        "state_hash": report.state_hash.hex(),
        "commands_per_second": report.commands_per_second,
        "tail_dropped": report.tail_dropped.reason if report.tail_dropped else None,
        "divergence": str(report.divergence) if report.divergence else None,
    }
    if verify:
        engines[-1].check()
        facts["verified"] = report.divergence is None
    show_facts(facts, as_json)
    if report.divergence is not None:
        fail(f"this build does not reproduce the log: {report.divergence}")


def flow(
    file: Annotated[Path, typer.Argument(metavar="FILE.bin", help="A raw order flow.")],
    skip: Annotated[int, typer.Option(min=0, help="Commands applied before the clock runs.")] = 0,
    as_json: Json = False,
) -> None:
    """Run a raw order flow through the core as the market would, and time the core alone."""
    from exchange.sim.flow import run  # noqa: PLC0415

    try:
        result = run(file, skip)
    except ValueError as error:
        fail(f"{file}: {error}", Exit.UNUSABLE)
    show_facts(result.as_dict(), as_json)
