"""Logs for the tests of the journal and the sequencer, written by the real sequencer."""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from exchange.engine import Engine
from exchange.journal.reader import LogReader, Recovered
from exchange.messages import COMMAND, Command, CommandKind
from exchange.sequencer import Sequencer

EXCHANGE_ID = bytes(range(16))
SPEC_HASH = bytes(range(100, 132))
SECOND = 1_000_000_000
NOON = 1_800_000_000 * SECOND

Batch = Sequence[bytes]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def record_of(kind: CommandKind, **fields: int) -> bytes:
    """The 64 bytes of one command."""
    return COMMAND.pack(*msgspec.structs.astuple(Command(kind=kind, **fields)))


def deposit(key: int, account: int = 0) -> bytes:
    """A command that any market accepts once per key."""
    return record_of(CommandKind.DEPOSIT, account=account, price=1_000, key_lo=key)


def deposits(count: int, first_key: int = 1) -> list[bytes]:
    return [deposit(first_key + number) for number in range(count)]


def open_sequencer(directory: Path, engine: object = None, **options: object) -> Sequencer:
    """Open with the tests' identity; ``options`` pass through."""
    settings = {"exchange_id": EXCHANGE_ID, "spec_hash": SPEC_HASH, **options}
    return Sequencer.open(directory, engine or Engine(), **settings)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds; a test that waits in vain fails."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def say(sequencer: Sequencer, batch: Iterable[bytes], text: str | None = None) -> None:
    """Submit one batch and wait until it is released."""
    last = sequencer.tape.last[1]
    count = 0
    for command in batch:
        sequencer.submit(1, command, text=text)
        count += 1
    await until(lambda: sequencer.tape.last[1] >= last + count)


def record(directory: Path, batches: Iterable[Batch], **options: object) -> None:
    """Run a market that is told the batches one after another, then closes."""

    async def session() -> None:
        sequencer = open_sequencer(directory, **options)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sequencer.run())
            found = sequencer.recovered.last_sequence
            await until(lambda: sequencer.tape.last[1] == (found + 1 if found else 0))
            for number, batch in enumerate(batches):
                await say(sequencer, batch, text=f"batch-{number}")
            await sequencer.close()

    asyncio.run(session())


def crashed_copy(directory: Path, copy: Path) -> Path:
    """The log alone, as a killed process would leave it: no head and no tape."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory / "log", copy / "log")
    return copy


def read_log(directory: Path, exchange_id: bytes | None = EXCHANGE_ID) -> Recovered:
    """Read and judge the whole log."""
    reader = LogReader(directory, exchange_id)
    for _ in reader.chunks():
        pass
    return reader.finish()


def frame_bounds(directory: Path) -> list[tuple[int, int]]:
    """(start, end) of every frame of a log of one segment, in bytes."""
    bounds, offset = [], 0
    for chunk in LogReader(directory).chunks():
        for frame in chunk:
            bounds.append((offset, offset + frame.length))
            offset += frame.length
    return bounds
