"""Finding a frame without reading the log: the index is a cache, and never believed blindly."""

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import Clock, deposits, record

from exchange.journal import places
from exchange.journal.places import (
    NotInLog,
    find_sequence,
    find_time,
    list_segments,
    make_index,
    read_index,
)
from exchange.journal.reader import LogReader, Start
from exchange.journal.storage import LocalFile, LocalStorage
from exchange.messages import Limit

FRAMES = 90


class Ticking(Clock):
    """A clock that moves a second every third time it is read."""

    def __call__(self) -> int:
        self.now += 333_333_334
        return self.now


@pytest.fixture(scope="module", autouse=True)
def dense() -> Iterator[None]:
    """Marks every four kilobytes, so that small logs have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "MARK_BYTES", 4_096)
        yield


@pytest.fixture(scope="module")
def market(dense: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three segments and a bit of a fourth, of frames of one to four commands."""
    directory = tmp_path_factory.mktemp("market")
    batches = [deposits(1 + at % 4, 10 * at) for at in range(1, FRAMES)]
    record(directory, batches, clock=Ticking(), segment_bytes=10_000)
    return directory


def frames_of(directory: Path) -> Iterator[tuple[int, int, int]]:
    """(first sequence, last sequence, stamp) of every frame."""
    for chunk in LogReader(directory).chunks():
        for frame in chunk:
            yield frame.opening.first_sequence, frame.last_sequence, frame.opening.stamp


class Counting(LocalStorage):
    """Local files that count the bytes read from segments."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.taken = 0

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        file = super().open(name, write=write)
        read_into = file.read_into

        def counted(offset: int, buffer: memoryview) -> int:
            size = read_into(offset, buffer)
            self.taken += size
            return size

        file.read_into = counted  # type: ignore[method-assign]
        return file


def test_every_sequence_is_found(market: Path) -> None:
    for first, last, stamp in frames_of(market):
        for sequence in range(first, last + 1):
            place = find_sequence(market, sequence)
            assert (place.first_sequence, place.last_sequence) == (first, last)
            assert place.stamp == stamp
    for sequence in (0, last + 1):
        with pytest.raises(NotInLog):
            find_sequence(market, sequence)


def test_every_time_is_found(market: Path) -> None:
    frames = list(frames_of(market))
    stamps = [stamp for _, _, stamp in frames]
    for stamp in stamps:
        for wanted in (stamp - 1, stamp, stamp + 1):
            at = bisect_left(stamps, wanted)
            if at == len(stamps):
                with pytest.raises(NotInLog):
                    find_time(market, wanted)
            else:
                assert find_time(market, wanted).first_sequence == frames[at][0]
    assert find_time(market, 0).first_sequence == 1


def test_equal_stamps_give_the_first_of_them(tmp_path: Path) -> None:
    record(tmp_path, [deposits(3, 10 * at) for at in range(1, 40)], clock=Clock())
    assert find_time(tmp_path, Clock().now).first_sequence == 1


def test_a_seek_reads_little(tmp_path: Path) -> None:
    """Of a log of megabytes a few kilobytes, with the index or, once, the headers without."""
    batch = int(Limit.BATCH_COMMANDS) // 4
    record(tmp_path, [deposits(batch, batch * at) for at in range(1, 60)], segment_bytes=1 << 20)
    storage = Counting(tmp_path)
    total = sum(storage.size(segment.name) for segment in list_segments(storage))
    assert total > 4_000_000
    one = list_segments(storage)[1]
    assert read_index(storage, one) is not None
    for sequence in range(one.first, one.first + 10 * batch, batch // 3):
        storage.taken = 0
        assert find_sequence(storage, sequence).first_sequence <= sequence
        assert storage.taken < 150_000, "an index, a block of headers, a frame or two"
    storage.taken = 0
    find_time(storage, 1)
    assert storage.taken < 300_000


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty", "another's"])
def test_the_index_is_made_again(market: Path, damage: str) -> None:
    storage = LocalStorage(market)
    one, two, *_ = list_segments(storage)
    index, right = market / one.index_name, read_index(storage, one)
    assert right is not None and len(right) > 1
    whole = index.read_bytes()
    flipped = bytes([*whole[:30], whole[30] ^ 1, *whole[31:]])
    content = {"gone": b"", "cut": whole[:-1], "flipped": flipped, "empty": b"",
               "another's": (market / two.index_name).read_bytes()}  # fmt: skip
    index.write_bytes(content[damage])
    if damage == "gone":
        index.unlink()
    assert read_index(storage, one) is None
    assert find_sequence(market, 9).first_sequence <= 9
    assert make_index(storage, one) == right
    index.write_bytes(whole)


def test_an_index_of_a_log_that_is_no_more_misleads_nobody(market: Path, tmp_path: Path) -> None:
    """It points at frames that are others now, or not there: it is not used."""
    batches = [deposits(3, 10 * at) for at in range(1, 40)]
    record(tmp_path, batches, clock=Clock(), segment_bytes=10_000)
    for index in (market / places.INDEX_NAME).iterdir():
        (tmp_path / places.INDEX_NAME / index.name).write_bytes(index.read_bytes())
    for sequence in (1, 20, 70, 100, 117):
        place = find_sequence(tmp_path, sequence)
        assert place.first_sequence == sequence - (sequence - 1) % 3


def test_a_reader_begins_behind_any_frame(market: Path) -> None:
    every = [frame for chunk in LogReader(market).chunks() for frame in chunk]
    for at, frame in enumerate(every):
        opening = frame.opening
        known = Start(frame.last_sequence, frame.hash, opening.epoch, opening.stamp)
        for start in (known, Start(frame.last_sequence)):
            reader = LogReader(market, start=start)
            rest = [frame for chunk in reader.chunks() for frame in chunk]
            assert rest == every[at + 1 :]
            recovered = reader.finish()
            assert recovered.last_sequence == every[-1].last_sequence
            assert recovered.last_hash == (
                every[-1].hash if rest else start.frame_hash or bytes(32)
            )
    for inside in (every[5].last_sequence - 1, every[-1].last_sequence + 1):
        with pytest.raises(NotInLog):
            LogReader(market, start=Start(inside))


def test_the_writer_goes_on_with_the_index_after_a_restart(tmp_path: Path) -> None:
    for number in range(1, 6):
        record(tmp_path, [deposits(20, 100 * number)], segment_bytes=5_000)
    storage = LocalStorage(tmp_path)
    for segment in list_segments(storage)[:-1]:
        assert read_index(storage, segment) == make_index(storage, segment)
