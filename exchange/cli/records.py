"""``hourbook flow``: a raw order flow through the core."""

from pathlib import Path
from typing import Annotated

import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, show_facts


def flow(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.bin", help="A raw order flow: records of 32 bytes.")
    ],
    skip: Annotated[int, typer.Option(min=0, help="Commands that come before the timing.")] = 0,
    as_json: Json = False,
) -> None:
    """Run a raw order flow through the core as the market would, and time the core alone."""
    from exchange.sim.flow import run  # noqa: PLC0415

    try:
        result = run(file, skip)
    except ValueError as error:
        fail(f"{file}: {error}", Exit.UNUSABLE)
    show_facts(result.as_dict(), as_json)
