"""The log: nothing that was durable is lost in silence, nothing torn is taken for whole."""

import asyncio
import os
import re
import threading
import zlib
from hashlib import blake2b
from pathlib import Path

import pytest
import recorded
from blake3 import blake3
from recorded import (
    EXCHANGE_ID,
    FIRST_SEGMENT,
    SIZES,
    SPEC_HASH,
    append,
    crashed_copy,
    deposit,
    deposits,
    frame_bounds,
    journal_at,
    log_in_memory,
    open_sequencer,
    read_log,
    running,
    say,
)

from exchange.engine import Engine
from exchange.journal import frame as frames
from exchange.journal.errors import (
    BrokenChain,
    DamagedLog,
    Diverged,
    JournalError,
    NewerVersion,
    WrongExchange,
)
from exchange.journal.reader import LogReader
from exchange.messages import RULES_VERSION, SCHEMA_VERSION
from exchange.sequencer import replay

PAGE = Path(__file__).parents[1] / "docs/reference/journal.md"


market, log = recorded.market, recorded.log  # fixtures


def reseal(frame: bytes) -> bytes:
    """The frame with a CRC and a hash that fit its bytes."""
    opening, body = frame[: frames.OPENING_BYTES], frame[frames.HEADER_BYTES :]
    sealed = opening + frames.SEAL.pack(zlib.crc32(opening + body), 0)
    return sealed + blake3(sealed + body).digest() + body


def test_every_field_stands_where_the_page_says(market: Path) -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` ", PAGE.read_text(), re.MULTILINE)
    fields = ("magic", "format", "schema", *frames.Opening.__struct_fields__)
    names = (*fields, "crc32", "spare", "hash")
    sizes = [4, 2, 2, 16, 4, 4, 8, 8, 8, 4, 4, 4, 4, 32, 32, 32, 4, 4, 32]
    offsets = [sum(sizes[:at]) for at in range(len(sizes))]
    expected = [(str(o), str(s), n) for o, s, n in zip(offsets, sizes, names, strict=True)]
    assert rows == expected
    assert sum(sizes) == frames.HEADER_BYTES


def test_a_frame_holds_what_the_batch_was(market: Path) -> None:
    (chunk,) = LogReader(market).chunks()
    assert [frame.opening.count for frame in chunk] == list(SIZES)
    second = chunk[1]
    opening = second.opening
    assert second.commands == b"".join(deposits(3, 200))
    assert len(second.ingress) == 3 * 8
    assert frames.unpack_texts(second.texts) == [(sequence, "batch-1") for sequence in (2, 3, 4)]
    assert (opening.exchange_id, opening.spec_hash) == (EXCHANGE_ID, SPEC_HASH)
    assert (opening.shard, opening.epoch, opening.first_sequence) == (0, 1, 2)
    assert opening.durable_upto == 1
    assert opening.previous_hash == chunk[0].hash
    assert opening.rules_version == RULES_VERSION


def test_a_cut_at_every_byte(log: Path) -> None:
    """Whole frames are kept, the torn one is dropped with a reason, and writing goes on."""
    whole = (log / FIRST_SEGMENT).read_bytes()
    ends = [0, *(end for _, end in frame_bounds(log))]
    sequences = [sum(SIZES[:at]) for at in range(len(SIZES) + 1)]
    for size in range(len(whole)):
        storage = log_in_memory(whole[:size])
        kept = sum(1 for end in ends[1:] if end <= size)
        recovered = read_log(storage)
        assert (recovered.frames, recovered.last_sequence) == (kept, sequences[kept])
        tail = recovered.tail_dropped
        assert (tail is None) == (size == ends[kept])
        if tail is not None:
            assert (tail.offset, tail.size) == (ends[kept], size - ends[kept])
            assert "cut short" in tail.reason
        journal = journal_at(storage, recovered)
        append(journal, [deposit(1)])
        journal.abandon()
        again = read_log(storage)
        assert (again.last_sequence, again.tail_dropped) == (sequences[kept] + 1, None)


def test_a_flipped_bit_is_found_wherever_it_is(log: Path) -> None:
    whole = bytearray((log / FIRST_SEGMENT).read_bytes())
    bounds = frame_bounds(log)
    last_start = bounds[-1][0]
    for offset in range(len(whole)):
        start = max(begin for begin, _ in bounds if begin <= offset)
        whole[offset] ^= 1 << offset % 8
        storage = log_in_memory(bytes(whole))
        whole[offset] ^= 1 << offset % 8
        if start == last_start:
            try:
                tail = read_log(storage).tail_dropped
            except NewerVersion:
                continue
            assert tail is not None and tail.offset == start
        else:
            with pytest.raises((DamagedLog, NewerVersion)) as caught:
                read_log(storage)
            error = caught.value
            assert isinstance(error, DamagedLog | NewerVersion)
            assert (error.path, error.offset) == (storage.where(FIRST_SEGMENT), start)


def test_damage_names_the_hashes(log: Path) -> None:
    path = log / FIRST_SEGMENT
    start, end = frame_bounds(log)[1]
    data = bytearray(path.read_bytes())
    data[start + frames.HEADER_BYTES] ^= 1
    crc = zlib.crc32(data[start + 208 : end], zlib.crc32(data[start : start + 168]))
    data[start + 168 : start + 172] = crc.to_bytes(4, "little")  # the CRC agrees, the hash does not
    path.write_bytes(data)
    with pytest.raises(DamagedLog) as caught:
        read_log(log)
    recorded = bytes(data[start + 176 : start + 208]).hex()
    assert caught.value.what.startswith("frame hash")
    assert caught.value.found == recorded and len(caught.value.expected) == 64
    assert (caught.value.offset, caught.value.sequence) == (start, 2)


@pytest.mark.parametrize("order", [(0, 2, 3, 4, 5), (0, 1, 1, 2, 3, 4, 5), (0, 2, 1, 3, 4, 5),
                                   (1, 2, 3), (0, 1, 2, 3, 5), (0, 1, 2, 3, 4, 5, 5)])  # fmt: skip
def test_frames_removed_doubled_or_swapped_break_the_chain(
    log: Path, order: tuple[int, ...]
) -> None:
    path = log / FIRST_SEGMENT
    whole, bounds = path.read_bytes(), frame_bounds(log)
    path.write_bytes(b"".join(whole[slice(*bounds[at])] for at in order))
    wrong = next(position for position, at in enumerate(order) if at != position)
    offset = bounds[wrong - 1][1] if wrong else 0
    with pytest.raises(BrokenChain) as caught:
        read_log(log)
    assert caught.value.offset == offset


@pytest.mark.parametrize("tail", [bytes(1), bytes(100), bytes(8192)])
def test_a_zero_filled_tail_is_the_end(log: Path, tail: bytes) -> None:
    path = log / FIRST_SEGMENT
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + tail)
    recovered = read_log(log)
    assert (recovered.last_sequence, recovered.offset) == (sum(SIZES), size)
    assert recovered.tail_dropped is None  # a writer reserves ahead: nothing was lost
    journal_at(log, recovered).close()
    assert path.stat().st_size == size


def test_zeros_over_a_durable_frame_are_damage(log: Path) -> None:
    path = log / FIRST_SEGMENT
    start, end = frame_bounds(log)[2]
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    with pytest.raises(DamagedLog) as caught:
        read_log(log)
    assert caught.value.offset == start


def test_a_torn_frame_with_a_whole_one_behind_it_above_the_mark_is_dropped(log: Path) -> None:
    """Writes reach the disk in any order: the frame behind was never durable either."""
    path = log / FIRST_SEGMENT
    whole, bounds = path.read_bytes(), frame_bounds(log)
    journal = journal_at(log, read_log(log))
    append(journal, [deposit(1)])  # its durable mark is 0: nothing known
    journal.abandon()
    data = bytearray(path.read_bytes())
    data[bounds[-1][0] + 300] ^= 1
    path.write_bytes(data)
    recovered = read_log(log)
    assert recovered.frames == len(SIZES) - 1
    assert recovered.tail_dropped is not None
    assert recovered.tail_dropped.size == len(data) - bounds[-1][0] > len(whole) - bounds[-1][0]


def test_another_exchange_is_refused(log: Path) -> None:
    with pytest.raises(WrongExchange) as caught:
        read_log(log, bytes(16))
    assert (caught.value.expected, caught.value.found) == (bytes(16).hex(), EXCHANGE_ID.hex())
    with pytest.raises(WrongExchange):
        open_sequencer(log, exchange_id=bytes(16))


@pytest.mark.parametrize(
    ("at", "what", "known"),
    [(4, "format", 1), (6, "schema", SCHEMA_VERSION), (60, "rules", RULES_VERSION)],
)
def test_a_newer_version_is_refused_by_name(log: Path, at: int, what: str, known: int) -> None:
    path = log / FIRST_SEGMENT
    start, end = frame_bounds(log)[-1]
    data = path.read_bytes()
    newer = bytearray(data[start:end])
    newer[at] += 1
    path.write_bytes(data[:start] + reseal(bytes(newer)))
    with pytest.raises(NewerVersion) as caught:
        read_log(log)
    error = caught.value
    assert (error.what, error.known, error.found) == (what, known, known + 1)
    assert error.offset == start


@pytest.mark.parametrize(
    ("at", "what"), [(24, "shard"), (28, "epoch"), (40, "stamp"), (48, "durable mark")]
)
def test_a_well_made_frame_must_still_follow(log: Path, at: int, what: str) -> None:
    path = log / FIRST_SEGMENT
    start, end = frame_bounds(log)[-1]
    data = path.read_bytes()
    frame = bytearray(data[start:end])
    value = {"shard": 1, "epoch": 0, "stamp": 1, "durable mark": 99}[what]
    size = 4 if at < 32 else 8
    frame[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(data[:start] + reseal(bytes(frame)))
    with pytest.raises(BrokenChain) as caught:
        read_log(log)
    assert caught.value.what == what


def test_what_the_tape_shows_as_released_may_not_be_missing(market: Path, tmp_path: Path) -> None:
    """Released means it was durable: a log without it lost something that others were told."""
    log = crashed_copy(market, tmp_path / "taped")
    (log / "tape").mkdir()
    tape = (market / "tape/released.hbt").read_bytes()
    os.truncate(log / FIRST_SEGMENT, frame_bounds(log)[-1][1] - 1)
    (log / "tape/released.hbt").write_bytes(tape)
    with pytest.raises(DamagedLog, match="durable up to 13"):
        open_sequencer(log)
    (log / "tape/released.hbt").unlink()
    sequencer = open_sequencer(log)
    assert sequencer.recovered.last_sequence == sum(SIZES[:-1])
    asyncio.run(sequencer.close())


@pytest.mark.parametrize("seed", range(40))
def test_rubbish_is_never_a_market(tmp_path: Path, seed: int) -> None:
    """Any bytes at all: a named error or an empty log with a reason."""
    (tmp_path / "log").mkdir()
    noise = blake2b(seed.to_bytes(2, "big"), digest_size=64).digest() * 8
    data = (frames.MAGIC if seed % 2 else b"") + noise[: 13 * seed]
    (tmp_path / FIRST_SEGMENT).write_bytes(data)
    try:
        recovered = read_log(tmp_path)
    except JournalError as error:
        assert isinstance(error, NewerVersion)
    else:
        assert recovered.last_sequence == 0
        assert (recovered.tail_dropped is None) == (not data)


def test_a_divergence_is_found_in_its_batch(log: Path) -> None:
    """A command changed by somebody who can reseal every frame: the events' digest still tells."""
    path = log / FIRST_SEGMENT
    whole, bounds = path.read_bytes(), frame_bounds(log)
    previous, remade = frames.NO_HASH, []
    for at, (start, end) in enumerate(bounds):
        frame = bytearray(whole[start:end])
        frame[104:136] = previous
        if at == 2:
            frame[frames.HEADER_BYTES + 20] ^= 1  # an account
        remade.append(reseal(bytes(frame)))
        previous = remade[-1][176:208]
    path.write_bytes(b"".join(remade))
    report = replay(log, Engine)
    assert report.divergence is not None
    found = report.divergence
    assert (found.what, found.first_sequence, found.last_sequence) == ("events", 5, 6)
    with pytest.raises(Diverged):
        open_sequencer(log)


async def test_a_log_that_is_being_written_is_read_up_to_some_frame(tmp_path: Path) -> None:
    """Never as damaged, whatever the writer does between two looks of the reader."""
    stop = threading.Event()
    found: list[int] = []
    wrong: list[str] = []

    def follow() -> None:
        while not stop.is_set():
            try:
                recovered = read_log(tmp_path)
            except JournalError as error:
                wrong.append(str(error))
                return
            found.append(recovered.last_sequence)
            if recovered.tail_dropped is not None:
                wrong.append(recovered.tail_dropped.reason)

    async with running(tmp_path) as sequencer:
        await say(sequencer, deposits(1))
        reader = threading.Thread(target=follow)
        reader.start()
        number = 0
        while number < 400 or (len(found) <= 3 and reader.is_alive()):
            number += 1
            await say(sequencer, deposits(20, 100 * number))
        stop.set()
        reader.join()
    assert wrong == []
    assert found == sorted(found) and len(found) > 3
