"""The journal compared with bare appends with the same syncs, and the cost of its checks.

    hourbook bench journal [--json] [--commands N] [--rounds N] [--batches N ...]

Every round appends the same commands in three ways, in turns batch by batch, on the same disk: as
bare bytes to a file, as bare bytes into preallocated room, and as frames of the journal with CRC,
hash and chain. Each way syncs once per batch; the system calls are counted. Then a sequencer gets a
queue of commands and its syncs are counted, which shows group commit. The instructions of checksum
and chain are callgrind's, for the same frames made with and without them.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final

from benches.instructions import TUNABLES
from benches.rows import Row, bench_parser, folder, publish, row, whole
from benches.workloads import workload
from exchange.engine import Engine
from exchange.journal import frame as frames
from exchange.journal.frame import NO_HASH, Opening, encode
from exchange.journal.reader import LogReader
from exchange.journal.segments import Journal
from exchange.journal.storage import LocalFile, LocalStorage
from exchange.messages import COMMAND_BYTES, RULES_VERSION, Limit
from exchange.sequencer import Sequencer
from exchange.sim.flow import START_NS, prepare

COMMANDS: Final = 200_000
SYNCS_MAX: Final = 300  # of one way in one round: small batches use fewer commands
ROUNDS: Final = 5
BATCHES: Final = (1, 64, 4_096)
COUNTED_FRAMES: Final = 200
SOURCES: Final = 16
HEADER: Final = bytes(frames.HEADER_BYTES)
PER_THOUSAND: Final = "syncs/1000 commands"
SEAL: Final = "seal"
BARE: Final = "bare"


class Counting(LocalStorage):
    """Local files whose syncs are counted."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.syncs = 0

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        file = super().open(name, write=write)
        sync = file.sync

        def counted() -> None:
            self.syncs += 1
            sync()

        file.sync = counted  # type: ignore[method-assign]
        return file


def commands_of(count: int) -> bytes:
    """Return ``count`` command records of the project's own flow."""
    drawn = workload("single", count)
    flow = prepare(drawn.raw, drawn.prefill)
    return b"".join((*flow.prefix, *flow.timed))[: count * COMMAND_BYTES]


def batches_of(records: bytes, size: int) -> list[bytes]:
    step = size * COMMAND_BYTES
    return [records[at : at + step] for at in range(0, len(records), step)]


def opening_of(first: int, count: int, previous: bytes) -> Opening:
    return Opening(
        bytes(16), 0, 1, first, START_NS, first - 1, count, RULES_VERSION, 0, 0, NO_HASH, previous,
        NO_HASH,
    )  # fmt: skip


class Bare:
    """Plain appends of as many bytes as the frames have, with or without preallocated room."""

    def __init__(self, path: Path, room: int) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        if room:
            os.posix_fallocate(self._handle, 0, room)
        os.fsync(self._handle)
        self._at = self.syncs = 0

    def append(self, batch: bytes) -> None:
        self._at += os.pwrite(self._handle, HEADER + batch + bytes(len(batch) // 8), self._at)
        os.fdatasync(self._handle)
        self.syncs += 1

    def close(self) -> None:
        os.close(self._handle)


class Frames:
    """The same batches as frames of a new log, each made durable by the journal."""

    def __init__(self, directory: Path) -> None:
        self._storage = Counting(directory)
        self._journal = Journal(self._storage, LogReader(self._storage).finish())
        self._storage.syncs = 0

    def append(self, batch: bytes) -> None:
        count, last = len(batch) // COMMAND_BYTES, self._journal.last
        opening = opening_of(last.sequence + 1, count, last.frame_hash)
        self._journal.append(opening, batch, bytes(8 * count), b"", b"")
        self._journal.sync()

    @property
    def syncs(self) -> int:
        return self._storage.syncs

    def close(self) -> None:
        self._journal.close()
        shutil.rmtree(self._storage.directory)


def time_ways(folder: Path, batches: list[bytes]) -> dict[str, tuple[float, int]]:
    """Return the seconds and syncs of each way.

    The ways take turns batch by batch, since the speed of a shared disk changes.
    """
    room = sum(len(HEADER) + len(batch) * 9 // 8 for batch in batches)
    ways: dict[str, Bare | Frames] = {
        "bare": Bare(folder / "bare", 0),
        "bare_ahead": Bare(folder / "ahead", room),
        "frames": Frames(folder / "market"),
    }
    seconds = dict.fromkeys(ways, 0.0)
    names = list(ways)
    for turn, batch in enumerate(batches):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            ways[name].append(batch)
            seconds[name] += time.perf_counter() - started
    found = {name: (seconds[name], way.syncs) for name, way in ways.items()}
    for way in ways.values():
        way.close()
    return found


def append_rows(
    folder: Path, records: bytes, size: int, commands: int, rounds: int
) -> Iterator[Row]:
    """Yield the rows of one batch size; raise RuntimeError if the numbers of syncs differ."""
    count = min(commands, size * SYNCS_MAX)
    batches = batches_of(records[: count * COMMAND_BYTES], size)
    done = [time_ways(folder, batches) for _ in range(rounds)]
    syncs = {way[1] for one in done for way in one.values()}
    if syncs != {len(batches)}:
        raise RuntimeError(f"{len(batches)} batches, and syncs of {syncs}")
    name = f"journal.{size}_a_batch"
    rates = {way: median(count / one[way][0] for one in done) for way in done[0]}
    for way in ("bare", "bare_ahead"):
        yield row(f"{name}.{way}", rates[way], "commands/s")
    for way in ("bare", "bare_ahead"):
        ratio = median(one[way][0] / one["frames"][0] for one in done)
        yield Row(f"{name}.frames", float(f"{rates['frames']:.6g}"), "commands/s",
                  round(ratio, 4), f"{name}.{way}")  # fmt: skip
    each = 1_000 * len(batches) / count
    yield row(f"{name}.syncs", each, PER_THOUSAND, each, f"{name}.bare")


async def group_commit(folder: Path, records: bytes) -> tuple[int, int]:
    """Return the commands and syncs of a sequencer whose queue is kept full by several sources."""
    storage = Counting(folder / "grouped")
    sequencer = Sequencer.open(
        folder / "grouped", Engine(), storage=storage, spec_hash=bytes(32), exchange_id=bytes(16)
    )
    running, storage.syncs = asyncio.create_task(sequencer.run()), 0
    waiting = iter(batches_of(records, 1))
    while group := list(islice(waiting, int(Limit.BATCH_COMMANDS))):
        for number, record in enumerate(group):
            sequencer.submit(number % SOURCES, record)
        while sequencer.queued:
            await asyncio.sleep(0)
    await sequencer.close()
    await running
    return sequencer.durable_upto, storage.syncs


def make_frames(kind: str, records: bytes, size: int) -> None:
    """Make ``COUNTED_FRAMES`` frames for callgrind, with seal or without."""
    batches, previous, first = batches_of(records, size), NO_HASH, 1
    for number in range(COUNTED_FRAMES):
        batch = batches[number % len(batches)]
        opening = opening_of(first, len(batch) // COMMAND_BYTES, previous)
        ingress = bytes(8 * opening.count)
        if kind == SEAL:
            _, previous = encode(opening, batch, ingress, b"", b"")
        else:
            start, body = frames.put_together(opening, batch, ingress, b"", b"")
            b"".join((start + frames.SEAL.pack(0, 0), NO_HASH, body))
        first += opening.count


def instructions(kind: str, size: int) -> int:
    """Return the instructions of a process that makes the frames; raise RuntimeError if it
    fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, "-m",
             "benches.journal", "--counted", kind, "--batches", str(size)],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"GLIBC_TUNABLES": TUNABLES, "PYTHONHASHSEED": "0"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
        lines = out.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("totals:"))


def all_rows(options: argparse.Namespace) -> Iterator[Row]:
    records = commands_of(options.commands)
    with tempfile.TemporaryDirectory(dir=options.disk) as name:
        folder = Path(name)
        for size in options.batches:
            yield from append_rows(folder, records, size, options.commands, options.rounds)
        commands, syncs = asyncio.run(group_commit(folder, records))
        yield row("journal.group_commit.syncs", 1_000 * syncs / commands, PER_THOUSAND)
    if not options.instructions or shutil.which("valgrind") is None:
        return
    for size in options.batches:
        both = {kind: instructions(kind, size) for kind in (SEAL, BARE)}
        each = (both[SEAL] - both[BARE]) / (COUNTED_FRAMES * size)
        yield row(f"journal.{size}_a_batch.seal", each, "instructions/command")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("journal", "Time the journal.", ROUNDS)
    parser.add_argument(
        "--commands", type=whole, default=COMMANDS, help="appended, each round (%(default)s)"
    )
    parser.add_argument(
        "--batches",
        type=whole,
        nargs="+",
        default=list(BATCHES),
        help="commands in a batch (1, 64 and 4096)",
    )
    parser.add_argument(
        "--disk", type=folder, help="a folder on the disk to time (the one for temporary files)"
    )
    parser.add_argument("--no-instructions", dest="instructions", action="store_false",
        help="time only: do not count the checks' instructions, which needs valgrind")  # fmt: skip
    parser.add_argument("--counted", choices=(SEAL, BARE), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.counted:
        (size,) = options.batches
        make_frames(options.counted, bytes(range(64)) * (4 * size), size)
        return 0
    publish(all_rows(options), as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
