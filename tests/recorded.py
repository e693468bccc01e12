"""Logs for the tests of the journal and the sequencer, written by the real sequencer."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from exchange.engine import Engine
from exchange.journal import frame as frames
from exchange.journal.memory import MemoryStorage
from exchange.journal.reader import LogReader, Recovered
from exchange.journal.replay import Engine as AnyEngine
from exchange.journal.segments import Journal
from exchange.journal.storage import LocalFile, LocalStorage, Storage
from exchange.journal.tape import START, Position, Reel, Released
from exchange.messages import (
    COMMAND,
    EVENT,
    EVENT_FIELDS,
    RULES_VERSION,
    Command,
    CommandFlag,
    CommandKind,
    TradingState,
)
from exchange.sequencer import Sequencer

EXCHANGE_ID = bytes(range(16))
SPEC_HASH = bytes(range(100, 132))
SECOND = 1_000_000_000
FIRST_SEGMENT = "log/00000000000000000001.hbl"
SIZES = (1, 3, 2, 1, 4, 2)  # commands of the batches of a small log
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


class OwnSync(LocalFile):
    """A file that has its sync called, and none of the system's in its place."""

    handle = -1


class Syncing(LocalStorage):
    """Local files whose sync is another: one that waits, or one that fails.

    The first sync of a file, of what was found in it, is the real one.
    """

    def __init__(self, directory: Path, sync: Callable[[int], None]) -> None:
        super().__init__(directory)
        self._sync = sync

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        file = super().open(name, write=write)

        def sync() -> None:
            syncs[0](file._handle)
            syncs[0] = self._sync

        syncs: list[Callable[[int], None]] = [os.fsync]
        if write:
            file.__class__ = OwnSync
            file.sync = sync  # type: ignore[method-assign]
        return file


def open_sequencer(directory: Path, engine: object = None, **options: object) -> Sequencer:
    """Open with the tests' identity; ``options`` pass through, ``sync`` to the storage."""
    sync = options.pop("sync", None)
    if sync is not None:
        options["storage"] = Syncing(directory, sync)  # type: ignore[arg-type]
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


def log_in_memory(data: bytes) -> MemoryStorage:
    """A log of one segment of those bytes, and nothing beside it."""
    storage = MemoryStorage()
    storage.replace(FIRST_SEGMENT, data)
    return storage


def read_log(directory: Path | Storage, exchange_id: bytes | None = EXCHANGE_ID) -> Recovered:
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


@asynccontextmanager
async def running(
    directory: Path, engine: AnyEngine | None = None, **options: object
) -> AsyncIterator[Sequencer]:
    """A sequencer that runs inside the block and is closed after it."""
    sequencer = open_sequencer(directory, engine, **options)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sequencer.run())
        yield sequencer
        await sequencer.close()


def events_of(released: Released) -> list[dict[str, int]]:
    rows = EVENT.iter_unpack(released.events)
    return [dict(zip(EVENT_FIELDS, row, strict=True)) for row in rows]


def everything(tape: Reel, after: Position = START) -> bytes:
    return b"".join(released.events for released in tape.read(*after))


LOGON = record_of(CommandKind.LOGON, flags=CommandFlag.CANCEL_ON_DISCONNECT, quantity=1_000)


def opened(account: int) -> bytes:
    return record_of(
        CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account, tif=1,
        quantity=100, target_hi=1,
    )  # fmt: skip


def entered(account: int, side: int, price: int, quantity: int, key: int) -> bytes:
    return record_of(
        CommandKind.ENTER, account=account, side=side, price=price, quantity=quantity, key_lo=key
    )


# A market whose commands give one to five events each.
BUSY = [
    [record_of(CommandKind.OPEN_DAY, quantity=20261123), opened(1), opened(2)],
    [
        record_of(
            CommandKind.LIST, price=2_500_000, quantity=744, session=1_000, account=1, operator=1,
            target_lo=1_000, target_hi=4_000,
        ),
        record_of(CommandKind.SET_RISK, price=1_000, quantity=10_000, session=500),
        record_of(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
    ],
    [record_of(CommandKind.DEPOSIT, account=a, price=1 << 50, key_lo=a) for a in (1, 2)],
    [LOGON, *(entered(1, 1, 2_500 + step, 5, 10 + step) for step in range(4))],
    [entered(2, 0, 2_510, 18, 30), entered(2, 0, 2_400, 1, 31)],
    [record_of(CommandKind.CHECKPOINT)],
    [record_of(CommandKind.CANCEL, account=2, side=2, flags=8, target_lo=31, key_lo=32)],
]  # fmt: skip


def journal_at(place: Path | Storage, recovered: Recovered) -> Journal:
    return Journal(LocalStorage(place) if isinstance(place, Path) else place, recovered)


def append(journal: Journal, commands: list[bytes]) -> None:
    opening = frames.Opening(
        EXCHANGE_ID, 0, 1, journal.last.sequence + 1, 1 << 62, 0, len(commands), RULES_VERSION,
        0, 0, SPEC_HASH, journal.last.frame_hash, frames.NO_HASH,
    )  # fmt: skip
    journal.append(opening, b"".join(commands), bytes(8 * len(commands)), b"", b"")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market that closed cleanly after a batch of each of ``SIZES``."""
    directory = tmp_path_factory.mktemp("market")
    record(directory, [deposits(size, 100 * at) for at, size in enumerate(SIZES, 1)])
    return directory


@pytest.fixture
def log(market: Path, tmp_path: Path) -> Path:
    """A copy of its log as a killed process would have left it."""
    return crashed_copy(market, tmp_path / "copy")
