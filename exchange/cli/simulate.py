"""``hourbook simulate``: the whole market in a seeded storm of faults."""

import logging
import time
from typing import Annotated

import typer

from exchange.cli import signals
from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, progress, show_facts, show_json


def simulate(
    seed: Annotated[int, typer.Option(min=0, help="The seed, or the first of several.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, one after another.")] = 1,
    seconds: Annotated[
        int, typer.Option(min=0, help="Go on with more seeds for so many seconds.")
    ] = 0,
    bug: Annotated[
        str,
        typer.Option(help="Bug to put in, which the run must find; a wrong name lists all."),
    ] = "",
    trace: Annotated[bool, typer.Option(help="Print every step of the run.")] = False,
    as_json: Json = False,
) -> None:
    """Run the real market in a storm of faults that a seed decides, and check what must hold.

    Exit code 1 names the seed that failed; the same seed fails again in the same way. With a bug
    in it is 1 also if no seed found it, and says that.
    """
    from exchange.sim import storm  # noqa: PLC0415
    from exchange.sim.bugs import BUGS  # noqa: PLC0415

    if bug and bug not in BUGS:
        fail(f"no bug is called {bug!r}; there are {', '.join(BUGS)}", Exit.USAGE)
    logging.disable(logging.CRITICAL)  # a dying market logs many errors, all of them intended
    deadline = time.monotonic() + seconds
    done = 0
    with signals.interrupting(), progress("simulating") as advance:
        while done < seeds or time.monotonic() < deadline:
            try:
                report, simulation = storm.simulate(seed + done, bug=bug, trace=trace)
            except storm.Found as found:
                _show_trace(found.simulation.trace.lines)
                fail(str(found))
            done += 1
            if advance is not None:
                advance(done, max(done, seeds), f"seed {report.seed}")
            _show_trace(simulation.trace.lines)
            if as_json:
                show_json(report)
    if bug:
        fail(f"no seed from {seed} to {seed + done - 1} found the bug; try more of them")
    if not as_json:
        last = {"seeds": done} if done > 1 else {
            name: getattr(report, name) for name in report.__struct_fields__
        }  # fmt: skip
        show_facts({**last, "all held": "yes"}, as_json)


def _show_trace(lines: list[str] | None) -> None:
    for line in lines or ():
        print(line)
