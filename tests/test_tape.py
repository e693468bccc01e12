"""The released stream: resumable at every event, and only ever what the log says."""

import asyncio
import shutil
from pathlib import Path

import pytest
from recorded import (
    BUSY,
    crashed_copy,
    deposits,
    events_of,
    everything,
    open_sequencer,
    record,
    running,
    say,
    until,
)

from exchange.engine import Engine
from exchange.journal import stream
from exchange.journal.errors import Diverged, JournalError, NoSuchPosition
from exchange.journal.tape import PREAMBLE, START, Position
from exchange.journal.tapecheck import DamagedTape, check_tape
from exchange.messages import EVENT_BYTES


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market that said something in two epochs."""
    directory = tmp_path_factory.mktemp("spoken")
    record(directory, BUSY)
    record(directory, [deposits(3, 900)])
    return directory


async def test_the_stream_resumes_after_any_event(spoken: Path, tmp_path: Path) -> None:
    directory = crashed_copy(spoken, tmp_path / "copy")
    async with running(directory) as sequencer:
        await until(lambda: sequencer.tape.last[0] == 3)
        tape = sequencer.tape
        records = list(tape.read(*START))
        whole = b"".join(record.events for record in records)
        texts = [text for record in records for text in record.texts]
        seen = 0
        for released in records:
            for event in events_of(released):
                position = (released.epoch, event["sequence"], event["index"])
                seen += EVENT_BYTES
                rest = list(tape.read(*position))
                assert b"".join(part.events for part in rest) == whole[seen:]
                if rest:
                    head = events_of(rest[0])[0]
                    assert rest[0].first_sequence == head["sequence"]
                    later = [text for text in texts if text[0] >= head["sequence"]]
                    assert [text for part in rest for text in part.texts] == later
        assert tape.last == position


async def test_a_position_of_another_history_is_refused(spoken: Path, tmp_path: Path) -> None:
    directory = crashed_copy(spoken, tmp_path / "copy")
    async with running(directory) as sequencer:
        epoch, sequence, index = sequencer.tape.last
        for wrong in (
            (epoch, sequence + 1, 0),
            (epoch, sequence, index + 1),
            (epoch + 1, sequence, index),
            (2, 1, 0),
            (0, 1, 0),
            (1, 0, 0),
        ):
            with pytest.raises(NoSuchPosition) as caught:
                list(sequencer.tape.read(*wrong))
            assert caught.value.position == wrong


async def test_followers_see_all_wherever_they_stand(tmp_path: Path) -> None:
    """At the end from memory, far behind from disk, and the same either way."""

    async def collect(after: Position) -> bytes:
        return b"".join([r.events async for r in sequencer.tape.follow(after)])

    async with asyncio.TaskGroup() as tasks:
        async with running(tmp_path) as sequencer:
            early = tasks.create_task(collect(START))
            for number in range(200):  # more than the records kept in memory
                await say(sequencer, deposits(2, 10 * number))
            late = tasks.create_task(collect(START))
            middle = tasks.create_task(collect((1, 201, 0)))
            await say(sequencer, deposits(1, 5_000))
        whole = everything(sequencer.tape)
    assert early.result() == late.result() == whole
    assert middle.result() == whole[201 * EVENT_BYTES :]


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "another", "zeros"])
def test_the_tape_is_rebuilt_from_the_log(spoken: Path, tmp_path: Path, damage: str) -> None:
    directory = crashed_copy(spoken, tmp_path / "copy")
    said = (spoken / "tape/released.hbt").read_bytes()
    path = directory / "tape/released.hbt"
    path.parent.mkdir()
    broken = bytearray(said)
    broken[len(said) // 2] ^= 4
    content = {
        "missing": b"",
        "cut": said[:-7],
        "flipped": bytes(broken),
        "another": bytes(32) + said[32:],
        "zeros": said + bytes(500),
    }
    path.write_bytes(content[damage])

    async def session() -> None:
        await open_sequencer(directory).close()

    asyncio.run(session())
    assert path.read_bytes()[: len(said)] == said


def test_a_start_that_does_not_reproduce_the_log_leaves_its_tape(
    spoken: Path, tmp_path: Path
) -> None:
    """What the writing build released shows in what another one differs."""
    engine, seen = Engine(), 0

    class Altered:
        def apply(self, commands: bytes, first: int, stamp: int, /) -> bytes:
            nonlocal seen
            seen += 1
            events = engine.apply(commands, first, stamp)
            return events if seen != 3 else events[:-1] + bytes([events[-1] ^ 1])

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

    copy = shutil.copytree(spoken, tmp_path / "copy")
    said = (copy / "tape/released.hbt").read_bytes()
    with pytest.raises(Diverged):
        open_sequencer(copy, Altered())
    assert (copy / "tape/released.hbt").read_bytes() == said


async def test_another_process_may_follow_by_socket(spoken: Path, tmp_path: Path) -> None:
    directory, path = crashed_copy(spoken, tmp_path / "copy"), tmp_path / "s"
    async with running(directory) as sequencer:
        await until(lambda: sequencer.tape.last[0] == 3)
        server = await stream.serve(sequencer.tape, path)
        assert path.stat().st_mode & 0o777 == 0o600
        whole = everything(sequencer.tape)

        async def collect(after: Position) -> bytes:
            return b"".join([r.events async for r in stream.subscribe(path, after)])

        async with asyncio.TaskGroup() as tasks:
            every = tasks.create_task(collect(START))
            inside = tasks.create_task(collect((1, 1, 0)))
            with pytest.raises(NoSuchPosition, match="released are 1 to"):
                await collect((3, 10_000, 0))
            with pytest.raises(JournalError, match="exchange"):
                async for _ in stream.subscribe(path, exchange_id=bytes(16)):
                    pass
            await say(sequencer, deposits(2, 8_000))
            whole = everything(sequencer.tape)
            sequencer.tape.close()
        server.close()
    assert (every.result(), inside.result()) == (whole, whole[EVENT_BYTES:])


@pytest.mark.parametrize("closed", [False, True])
def test_the_tape_is_proven_by_the_log_alone(spoken: Path, tmp_path: Path, closed: bool) -> None:
    """Any byte of any record is; of the last one as well, after a clean close."""
    directory = tmp_path / "copy"
    shutil.copytree(spoken, directory)
    path = directory / "tape/released.hbt"
    whole = path.read_bytes()
    report = check_tape(directory)
    assert (report.bytes, report.last_sequence) == (len(whole), report.proven_upto)
    if not closed:
        (directory / "head").unlink()
        assert 0 < check_tape(directory).proven_upto < report.last_sequence
        path.write_bytes(whole[: report.bytes // 2])
        with pytest.raises(DamagedTape):
            check_tape(directory)
        return
    path.write_bytes(b"no stream" + whole[9:])
    with pytest.raises(DamagedTape, match=f"{path} at byte 0, .* not a released stream"):
        check_tape(directory)
    for offset in range(16, len(whole), 7):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedTape) as caught:
            check_tape(directory)
        assert caught.value.offset <= len(whole) and "makes it again" in str(caught.value)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        check_tape(directory)
    path.write_bytes(whole[: PREAMBLE.size])
    assert check_tape(directory).records == 0


@pytest.mark.parametrize("damage", ["damaged", "cut short", "text"])
def test_who_meets_a_bad_record_is_told_what_to_do(
    spoken: Path, tmp_path: Path, damage: str
) -> None:
    """Not to start again: from a snapshot on, a start rewrites nothing below it."""
    directory = tmp_path / "copy"
    shutil.copytree(spoken, directory)
    path = directory / "tape/released.hbt"
    sequencer = open_sequencer(directory)
    data = bytearray(path.read_bytes())
    if damage == "cut short":
        del data[-3:]
    else:  # the magic of the first record, or what its texts are
        texts_at = data.index(b"batch-") - 3
        data[PREAMBLE.size if damage == "damaged" else texts_at] = 0xC1
    path.write_bytes(data)
    how = damage.replace("text", "damaged")
    with pytest.raises(JournalError, match=f"{how} at byte .*: delete tape/released.hbt while"):
        everything(sequencer.tape)
    sequencer.abandon()
