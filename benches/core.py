"""The core's speed: seeded flows through ``Engine.apply``, with rivals and floors in the same run.

    hourbook bench core [--json] [--flow DIR] [--rival PATH] [--instructions]

Every round times, one after another, the floor, the core in batches, in slices of 64 and with one
command per call, and the rival. A figure is the median over the rounds. A ratio is the median of
the rounds' ratios, so both sides of it ran under the same load. The totals of the core and the
rival must be those that the workload expects, or the bench fails.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benches import auction
from benches.instructions import count_rows, flow_count, prefill
from benches.memory import memory_rows
from benches.rivals import PACKAGES, ExternalRun, new_oracle, run_external, time_package
from benches.rows import Row, bench_parser, publish, row, whole
from benches.workloads import PROFILES, workload
from exchange.engine import Engine
from exchange.messages import Limit
from exchange.sim.flow import Flow, Totals, prepare, tally, time_once
from exchange.sim.flow_records import RAW_BYTES, access_floor

COMMANDS: Final = 200_000
ROUNDS: Final = 5
SLICE: Final = 64
SLICED_COMMANDS: Final = 100_000  # of each flow, cut into slices and single calls
ORDER_BYTES: Final = 64
TABLE_BYTES_MIN: Final = 1 << 17
ORACLE_COMMANDS: Final = 2_000
AUCTION: Final = "auction"  # selectable like the flows: rows of benches/auction.py


@dataclass(frozen=True, slots=True)
class Subject:
    """A flow to measure: its file, the length of its prefix that fills the books, expected
    totals."""

    name: str
    path: Path
    skip: int
    expected: dict[str, object] | None

    def check(self, who: str, totals: dict[str, object]) -> None:
        """Raise RuntimeError if any of the totals differs from the expected; ``who`` computed
        them."""
        for name, right in (self.expected or {}).items():
            if totals.get(name) != right:
                raise RuntimeError(f"{self.name}: {who} has {name} {totals.get(name)}, not {right}")


@dataclass(frozen=True, slots=True)
class Round:
    """Nanoseconds per command of everything timed in one round."""

    floor: float
    batch: float
    cpu: float
    part: float  # the sliced part of the flow, in whole batches
    sliced: float
    single: float
    rival: float | None
    rival_cpu: float | None


def own_subjects(folder: Path, names: Sequence[str], commands: int) -> Iterator[Subject]:
    """Yield the project's own workloads, written to files that a rival can read."""
    for name in names:
        drawn = workload(name, commands)
        path = folder / f"{name}.bin"
        path.write_bytes(drawn.raw)
        yield Subject(name, path, drawn.prefill, asdict(drawn.expected))


def given_subjects(folder: Path) -> Iterator[Subject]:
    """Yield every .bin of a folder, with the totals of the .json beside it if there is one."""
    names = Totals.__dataclass_fields__
    for path in sorted(folder.glob("*.bin")):
        facts = path.with_suffix(".json")
        expected = None
        if facts.exists():
            expected = {k: v for k, v in json.loads(facts.read_text()).items() if k in names}
        yield Subject(f"flow-{path.stem}", path, prefill(path), expected)


def floor_table(resting: int) -> "array[int]":
    """Return a table as large as the resting orders, rounded up to a power of two."""
    wanted = max(TABLE_BYTES_MIN, resting * ORDER_BYTES)
    return array("Q", bytes(1 << (wanted - 1).bit_length()))


def time_floor(flow: Flow, table: "array[int]") -> float:
    started = time.perf_counter_ns()
    access_floor(flow.timed, table)
    return (time.perf_counter_ns() - started) / flow.timed_commands


def rounds(subject: Subject, count: int, rival: Path | None) -> list[Round]:
    """Time the subject ``count`` times; raise RuntimeError if any totals are wrong."""
    raw = subject.path.read_bytes()
    flow = prepare(raw, subject.skip)
    totals = tally(flow, Engine())
    subject.check("the core", asdict(totals))
    part = raw[: (subject.skip + SLICED_COMMANDS) * RAW_BYTES]
    sizes = (Limit.BATCH_COMMANDS, SLICE, 1)
    whole, sliced, single = (prepare(part, subject.skip, size) for size in sizes)
    table = floor_table(totals.resting)
    access_floor(flow.timed, table)  # touches every page once
    done = []
    for _ in range(count):
        batch = time_once(flow, Engine())
        external = None if rival is None else run_rival(rival, subject, totals)
        done.append(
            Round(
                floor=time_floor(flow, table),
                batch=batch.ns_per_command,
                cpu=batch.cpu_ns_per_command,
                part=time_once(whole, Engine()).ns_per_command,
                sliced=time_once(sliced, Engine()).ns_per_command,
                single=time_once(single, Engine()).ns_per_command,
                rival=None if external is None else external.ns_per_command,
                rival_cpu=None if external is None else external.cpu_ns_per_command,
            )
        )
    return done


def run_rival(rival: Path, subject: Subject, totals: Totals) -> ExternalRun:
    """Run one round of the external engine; raise RuntimeError if its totals differ from the
    core's."""
    external = run_external(rival, subject.path, subject.skip)
    for name, right in asdict(totals).items():
        if external.totals.get(name, right) != right:
            found = external.totals[name]
            raise RuntimeError(f"{subject.name}: {rival.name} has {name} {found}, not {right}")
    return external


def compared(name: str, rounds: list[Round], of: str, to: str, label: str) -> Row:
    """Return the row of field ``of`` with its ratio to field ``to``, both as medians over the
    rounds."""
    value = median(getattr(one, of) for one in rounds)
    ratio = median(getattr(one, of) / getattr(one, to) for one in rounds)
    return Row(name, round(value, 2), "ns/command", float(f"{ratio:.4g}"), label)


def flow_rows(
    subject: Subject, count: int, rival: Path | None, *, count_instructions: bool
) -> Iterator[Row]:
    """Yield all rows of one flow."""
    name = subject.name
    done = rounds(subject, count, rival)
    yield row(f"{name}.floor", median(one.floor for one in done), "ns/command")
    yield compared(f"{name}.batch", done, "batch", "floor", f"{name}.floor")
    if rival is not None:
        yield row(f"{name}.{rival.name}", median(one.rival or 0 for one in done), "ns/command")
        yield compared(f"{name}.batch", done, "batch", "rival", f"{name}.{rival.name}")
        if all(one.rival_cpu for one in done):
            yield compared(f"{name}.cpu", done, "cpu", "rival_cpu", f"{name}.{rival.name} (cpu)")
    yield compared(f"{name}.cpu", done, "cpu", "batch", f"{name}.batch")
    yield compared(f"{name}.slices_of_64", done, "sliced", "part", f"{name}.batch")
    yield compared(f"{name}.one_a_call", done, "single", "part", f"{name}.batch")
    if count_instructions:
        yield instruction_row(subject)


def instruction_row(subject: Subject) -> Row:
    """Return callgrind's count for a flow; raise RuntimeError without valgrind."""
    found, commands = flow_count(subject.path, subject.skip)
    return next(count_rows(subject.name, found, commands, "command", cache=False))


def package_rows(subject: Subject) -> Iterator[Row]:
    """Yield the Python rivals on the start of one flow, compared with the core's batches on all of
    it."""
    raw = subject.path.read_bytes()
    core = time_once(prepare(raw, subject.skip), Engine()).ns_per_command
    label = f"{subject.name}.batch"
    part = prepare(raw[: (subject.skip + ORACLE_COMMANDS) * RAW_BYTES], subject.skip)
    value = time_once(part, new_oracle()).ns_per_command
    yield row(f"{subject.name}.oracle", value, "ns/command", core, label)
    for package in PACKAGES:
        try:
            value = time_package(package, raw, subject.skip)
        except ImportError:
            print(f"{package} is not installed: pip install 'hourbook[bench]'", file=sys.stderr)
            continue
        yield row(f"{subject.name}.{package}", value, "ns/command", core, label)


def all_rows(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        named = [name for name in options.workloads if name in PROFILES]
        subjects = list(own_subjects(Path(folder), named, options.commands))
        given = [] if options.flow is None else list(given_subjects(options.flow))
        if options.instructions:
            yield from map(instruction_row, (*subjects, *given))
            if AUCTION in options.workloads:
                yield from auction.rows(only_count=True)
            return
        for subject in (*subjects, *given):
            counted = shutil.which("valgrind") is not None
            yield from flow_rows(subject, options.rounds, options.rival, count_instructions=counted)
        if AUCTION in options.workloads:
            yield from auction.rows()
        if subjects:
            yield from package_rows(subjects[0])
        yield from memory_rows()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("core", "Time the core.", ROUNDS)
    parser.add_argument(
        "--flow", type=Path, help="a folder of raw flow files, .bin, to time as well"
    )
    parser.add_argument(
        "--rival", type=Path, help="a program to time as well; it is run as PATH FLOW 1 --skip N"
    )
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions, time nothing; needs valgrind",
    )
    parser.add_argument(
        "--commands", type=whole, default=COMMANDS, help="in each workload (%(default)s)"
    )
    names = [*PROFILES, AUCTION]
    parser.add_argument(
        "--workloads", nargs="+", choices=names, default=names, help="what to time (all)"
    )
    options = parser.parse_args(arguments)
    publish(all_rows(options), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
