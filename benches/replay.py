"""Replay from the log, compared with the batched core on the same commands.

    hourbook bench replay [--json] [--commands N] [--rounds N]

A market directory is written by the sequencer itself. Every round then replays it, reading and
verifying each frame and comparing each recorded digest, and applies the same commands to an engine
straight from memory.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benches.rows import Row, bench_parser, publish, row, whole
from benches.workloads import PROFILES, workload
from exchange.engine import Engine
from exchange.messages import COMMAND_BYTES
from exchange.sequencer import Sequencer, replay
from exchange.sim.flow import START_NS, Flow, prepare

COMMANDS: Final = 500_000  # with a short log, the hash of the last state would dominate
ROUNDS: Final = 5


async def write_log(directory: Path, flow: Flow) -> None:
    """Run the flow through a sequencer that keeps its log in the directory."""
    sequencer = Sequencer.open(
        directory, Engine(), spec_hash=bytes(32), exchange_id=bytes(16), clock=lambda: START_NS
    )
    running = asyncio.create_task(sequencer.run())
    for batch in (*flow.setup, *flow.prefix, *flow.timed):
        for at in range(0, len(batch), COMMAND_BYTES):
            sequencer.submit(0, batch[at : at + COMMAND_BYTES])
        while sequencer.queued:
            await asyncio.sleep(0)
    await sequencer.close()
    await running


def core_seconds(batches: list[bytes]) -> float:
    """Return the seconds to apply the batches to an empty engine, straight from memory."""
    engine, sequence = Engine(), 1
    started = time.perf_counter()
    for batch in batches:
        engine.apply(batch, sequence, START_NS)
        sequence += len(batch) // COMMAND_BYTES
    return time.perf_counter() - started


def replay_rows(name: str, commands: int, rounds: int) -> Iterator[Row]:
    """Yield the rows of one workload; raise RuntimeError if the replay differs from the log."""
    drawn = workload(name, commands)
    flow = prepare(drawn.raw, drawn.prefill)
    batches = [*flow.setup, *flow.prefix, *flow.timed]
    replayed, core = [], []
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(write_log(Path(folder), flow))
        for _ in range(rounds):
            report = replay(Path(folder), Engine)
            if report.divergence is not None or report.commands != _count(batches):
                raise RuntimeError(f"the log did not replay: {report}")
            replayed.append(report.commands / report.seconds)
            core.append(report.commands / core_seconds(batches))
    ratio = median(a / b for a, b in zip(replayed, core, strict=True))
    yield row(f"{name}.core", median(core), "commands/s")
    yield Row(
        f"{name}.replay", round(median(replayed)), "commands/s", round(ratio, 4), f"{name}.core"
    )


def _count(batches: list[bytes]) -> int:
    return sum(map(len, batches)) // COMMAND_BYTES


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("replay", "Time a replay of a log.", ROUNDS)
    parser.add_argument("--workloads", nargs="+", choices=PROFILES, default=["single", "xc"],
        help="flows to time (single and xc)")  # fmt: skip
    parser.add_argument(
        "--commands", type=whole, default=COMMANDS, help="in each log (%(default)s)"
    )
    options = parser.parse_args(arguments)
    rows = (
        one
        for name in options.workloads
        for one in replay_rows(name, options.commands, options.rounds)
    )
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
