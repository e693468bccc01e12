"""Snapshots and recovery, with a million resting orders.

    hourbook bench recovery [--json] [--orders N] [--tail N] [--rounds N]

A sequencer writes a log: orders that rest, then ``--tail`` commands of a market's mix; the snapshot
is taken between the two. Rows ``snapshot.*`` compare writing and restoring it with copying its
bytes to and from the page cache. Rows ``recovery.*`` compare a start in a fresh process, as after a
kill, with reading the bytes that it needs and with a start that reads the whole log. Their figures
are CPU time, since all of it is copying and computing; other load changes them little. Rows
``pause.*`` show how snapshots delay the batches of an engine on the same machine, in wall time.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benches.rows import Row, bench_parser, publish, row, seconds, whole
from benches.workloads import Draw, Profile
from exchange.engine import Engine
from exchange.journal import sealed, snapshots
from exchange.journal.frame import digest
from exchange.journal.shadow import Shadow
from exchange.journal.storage import LocalStorage
from exchange.messages import COMMAND_BYTES, Limit
from exchange.sequencer import Sequencer
from exchange.sim.flow import START_NS, Flow, prepare

ORDERS: Final = 1_000_000
TAIL: Final = 500_000
ROUNDS: Final = 3
SYMBOLS: Final = 1_000
IDENTITY: Final = {"spec_hash": bytes(32), "exchange_id": bytes(16)}
PIECE: Final = 1 << 20
WORKING_SECONDS: Final = 3.0  # of an engine at work alone, before a snapshot beside it


class PageCache(LocalStorage):
    """Local files that are replaced in the page cache only, so that the disk is not in the
    ratio."""

    def replace(self, name: str, data: bytes) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            file.write(data)


def drawn(orders: int, tail: int) -> Flow:
    """Return the commands: the same market for the same numbers."""
    profile = Profile(16, (45, 40, 5, 5, 3, 2), orders, 900, symbols=SYMBOLS)
    return prepare(b"".join(Draw(profile, profile.seed).records(tail)), orders)


async def submit(sequencer: Sequencer, batches: list[bytes]) -> None:
    for batch in batches:
        for at in range(0, len(batch), COMMAND_BYTES):
            sequencer.submit(0, batch[at : at + COMMAND_BYTES])
        while sequencer.queued:
            await asyncio.sleep(0)


async def write_market(directory: Path, flow: Flow) -> int:
    """Write the log, with a snapshot before the timed part; return the snapshot's sequence."""
    sequencer = Sequencer.open(directory, Engine(), clock=lambda: START_NS, **IDENTITY)  # type: ignore[arg-type]
    running = asyncio.create_task(sequencer.run())
    await submit(sequencer, [*flow.setup, *flow.prefix])
    while sequencer.tape.last[1] < sequencer.sequence:
        await asyncio.sleep(0)
    shadow = Shadow(directory, Engine())
    shadow.advance()
    header = shadow.write(prove=Engine())
    await submit(sequencer, flow.timed)
    await sequencer.close()
    await running
    return header.sequence


# A snapshot compared with copying its bytes


def write_once(storage: LocalStorage, engine: snapshots.Engine, shadow: Shadow) -> None:
    snapshots.write(storage, engine, shadow.point, bytes(16))


def read_once(storage: LocalStorage, name: str, engine: snapshots.Engine) -> None:
    header, _, image = sealed.load(storage, name)
    snapshots.restore(engine, header.file, header.state_hash, image, check=False)


def snapshot_rows(directory: Path, rounds: int) -> Iterator[Row]:
    storage = PageCache(directory / "copies")
    storage.directory.mkdir()
    shadow = Shadow(directory, Engine())
    engine, plain = shadow.engine, directory / "copies" / "plain"
    write_once(storage, engine, shadow)
    ((_, _, name),) = sealed.list_files(storage, snapshots.KIND)
    data = storage.read(name)
    to, back, wrote, read = [], [], [], []
    for _ in range(rounds):
        to.append(seconds(lambda: storage.replace(plain.name, data)))
        wrote.append(seconds(lambda: write_once(storage, engine, shadow)))
        back.append(seconds(plain.read_bytes))
        read.append(seconds(lambda: read_once(storage, name, Engine())))
    size = len(data) / (1 << 20)
    yield row("snapshot.size", len(data) / engine.counts()["orders"], "bytes/resting order")
    yield row("snapshot.copy", size / median(a + b for a, b in zip(to, back, strict=True)), "MiB/s")
    both = [a + b for a, b in zip(wrote, read, strict=True)]
    copied = [a + b for a, b in zip(to, back, strict=True)]
    yield slower("snapshot.write", size, wrote, to, "writing its bytes")
    yield slower("snapshot.restore", size, read, back, "reading its bytes")
    yield slower("snapshot.both", size, both, copied, "copying its bytes to and from")
    checks = [seconds(engine.check) for _ in range(rounds)]
    yield slower("snapshot.self_check", size, checks, copied, "copying its bytes to and from")


def slower(name: str, size: float, took: list[float], base: list[float], to: str) -> Row:
    """Return MiB/s of a step, and the ratio of its time to that of its base."""
    ratio = median(a / b for a, b in zip(took, base, strict=True))
    return Row(name, round(size / median(took), 2), "MiB/s", float(f"{ratio:.4g}"), to)


# The effect on an engine at work


def batch_seconds(flow: Flow, until: Callable[[], bool]) -> list[float]:
    """Return the time of every batch of 4,096 commands, repeated until ``until`` is true."""
    took: list[float] = []
    while not until():
        engine, sequence = Engine(), 1
        for batch in (*flow.setup, *flow.prefix, *flow.timed):
            started = time.perf_counter()
            engine.apply(batch, sequence, START_NS)
            sequence += len(batch) // COMMAND_BYTES
            if len(batch) == Limit.BATCH_COMMANDS * COMMAND_BYTES:
                took.append(time.perf_counter() - started)
            if until():
                break
    return took


def pause_rows(directory: Path, flow: Flow) -> Iterator[Row]:
    """Yield an engine's longest batch alone, and while another process takes snapshots."""
    end = time.monotonic() + WORKING_SECONDS
    alone = batch_seconds(flow, lambda: time.monotonic() >= end)
    command = [sys.executable, "-m", "benches.recovery", "--snapshots", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as beside:
        with_it = batch_seconds(flow, lambda: beside.poll() is not None)
    middle = median(alone)
    engine = Shadow(directory, Engine()).engine
    inside = seconds(lambda: (engine.snapshot(), engine.state_bytes()))
    for name, took in (("alone", max(alone)), ("beside", max(with_it)), ("inside", inside)):
        yield row(f"pause.{name}", took / middle, "batches")


def take_snapshots(directory: Path) -> None:
    """Take three verified snapshots one after another: the highest load of a shadow."""
    shadow = Shadow(directory, Engine())
    for _ in range(3):
        shadow.write(prove=Engine())


# A start


def open_market(directory: Path, from_snapshot: bool) -> None:
    """Open the market, print how long it took and the state reached, and exit like a killed
    process."""
    engine = Engine()
    started = time.process_time()
    sequencer = Sequencer.open(
        directory, engine, clock=lambda: START_NS, from_snapshot=from_snapshot, **IDENTITY  # type: ignore[arg-type]
    )  # fmt: skip
    took = time.process_time() - started
    last = sequencer.recovered.last_sequence
    print(json.dumps({"seconds": took, "last": last, "state": digest(engine.state_bytes()).hex()}))
    sys.stdout.flush()
    os._exit(0)


def started(directory: Path, *, from_snapshot: bool) -> tuple[float, str]:
    """Return the seconds of a start in a separate process, and the state it reached."""
    flags = [] if from_snapshot else ["--from-start"]
    command = [sys.executable, "-m", "benches.recovery", "--open", str(directory), *flags]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return told["seconds"], f"{told['last']} {told['state']}"


def read_behind(directory: Path, sequence: int) -> int:
    """Read the bytes that a start needs; return their number.

    They are the snapshot, and the log and the tape behind it.
    """
    storage, size = LocalStorage(directory), 0
    header = sealed.read_header(storage, sealed.list_files(storage, snapshots.KIND)[0][2])
    _, point, _ = sealed.load(storage, sealed.list_files(storage, snapshots.KIND)[0][2])
    assert header.sequence == sequence
    from exchange.journal.places import find_sequence, list_segments  # noqa: PLC0415

    place = find_sequence(storage, sequence)
    parts = [(Path(header.file), 0), (directory / "tape" / "released.hbt", point.tape_end)]
    for segment in list_segments(storage):
        if segment.first >= place.segment.first:
            begin = place.end if segment == place.segment else 0
            parts.append((storage.where(segment.name), begin))
    buffer = bytearray(PIECE)
    for path, begin in parts:
        with open(path, "rb", buffering=0) as file:
            file.seek(begin)
            while got := file.readinto(buffer):
                size += got
    return size


def core_seconds(flow: Flow, directory: Path) -> float:
    """Return the seconds to apply the tail to an engine from memory."""
    shadow = Shadow(directory, Engine())
    engine, sequence = shadow.engine, shadow.point.sequence + 1
    started = time.process_time()
    for batch in flow.timed:
        engine.apply(batch, sequence, START_NS)
        sequence += len(batch) // COMMAND_BYTES
    return time.process_time() - started


def recovery_rows(directory: Path, flow: Flow, sequence: int, rounds: int) -> Iterator[Row]:
    tail = flow.timed_commands
    took, whole, reading, core = [], [], [], []
    for number in range(rounds):
        quick, state = started(directory, from_snapshot=True)
        took.append(quick)
        reading.append(seconds(lambda: read_behind(directory, sequence)))
        core.append(core_seconds(flow, directory))
        if number == 0:  # the slow way is needed only once, for comparison
            slow, right = started(directory, from_snapshot=False)
            if state != right:
                raise RuntimeError(f"a start from the snapshot came to {state}, not {right}")
            whole.append(slow)
    size = read_behind(directory, sequence) / (1 << 20)
    yield row("recovery.read", size / median(reading), "MiB/s")
    ratio = median(a / b for a, b in zip(took, reading, strict=True))
    yield Row("recovery.bytes", round(size / median(took), 2), "MiB/s", float(f"{ratio:.4g}"),
              "reading the bytes")  # fmt: skip
    rate = [tail / one for one in took]
    ratio = median(a * b / tail for a, b in zip(rate, core, strict=True))
    yield Row("recovery.tail", round(median(rate)), "commands/s", float(f"{ratio:.4g}"), "the core")
    ratio = whole[0] / took[0]
    commands = flow.setup_commands + flow.commands
    yield Row("recovery.whole_log", round(commands / whole[0]), "commands/s", float(f"{ratio:.4g}"),
              "a start from the snapshot, in time")  # fmt: skip


def rows(options: argparse.Namespace) -> Iterator[Row]:
    flow = drawn(options.orders, options.tail)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        sequence = asyncio.run(write_market(directory, flow))
        yield from recovery_rows(directory, flow, sequence, options.rounds)
        yield from snapshot_rows(directory, options.rounds)
        yield from pause_rows(directory, flow)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("recovery", "Time snapshots.", ROUNDS)
    parser.add_argument(
        "--orders", type=whole, default=ORDERS, help="orders that rest (%(default)s)"
    )
    parser.add_argument(
        "--tail", type=int, default=TAIL, help="commands behind the snapshot (%(default)s)"
    )
    for hidden in ("--open", "--snapshots"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--from-start", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.open is not None:
        open_market(options.open, not options.from_start)
    elif options.snapshots is not None:
        take_snapshots(options.snapshots)
    else:
        publish(rows(options), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
