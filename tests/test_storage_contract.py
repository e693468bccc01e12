"""The contract of a place that keeps the log (exchange.journal.storage), run on every engine.

A new engine, or a wrapper that puts faults into one, is right if it passes this file: add it to
``ENGINES``, and to ``CRASHABLE`` if it can tell what a power cut would leave.
"""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import small_disk

from exchange.journal.errors import DirectoryLocked
from exchange.journal.memory import MemoryStorage
from exchange.journal.storage import File, LocalStorage, Storage, read_whole
from exchange.sim.disk import SimDisk

NAME = "log/a"
ENGINES: dict[str, Callable[[Path], Storage]] = {
    "local files": LocalStorage,
    "memory": lambda directory: MemoryStorage(),
    "simulated disk": lambda directory: SimDisk(random.Random(1)),
}


# Engines whose power a test can cut: ``crashed`` of theirs is what would be left.
CRASHABLE: dict[str, Callable[[], MemoryStorage]] = {"memory": MemoryStorage}


@pytest.fixture(params=list(ENGINES))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return ENGINES[request.param](tmp_path / "market")


@pytest.fixture(scope="module")
def two_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("disk"), "2m") as place:
        yield place


def content(storage: Storage, name: str = NAME) -> bytes:
    file = storage.open(name)
    found = read_whole(file, storage.size(name))
    file.close()
    return found


def test_what_is_renewed_stays_the_same(storage: Storage) -> None:
    file = storage.open(NAME, write=True)
    file.append(b"one two")
    file.reserve(100)
    file.renew(4)
    file.sync()
    assert file.end == 7
    file.append(b" three")
    file.truncate(file.end)
    file.close()
    assert content(storage) == b"one two three"


def test_what_is_appended_is_read(storage: Storage) -> None:
    file = storage.open(NAME, write=True)
    assert (file.end, file.room) == (0, 0)
    file.append(b"one")
    file.append(b"")
    file.append(b"two")
    assert file.end == 6
    reader = storage.open(NAME)
    assert read_whole(reader, 100) == b"onetwo"
    assert read_whole(reader, 2, 2) == b"et"
    assert read_whole(reader, 10, 6) == read_whole(reader, 10, 600) == b""
    file.append(b"three")  # who reads sees what comes
    assert read_whole(reader, 100, 6) == b"three"
    for one in (reader, file, file):
        one.close()


def test_names_are_listed_in_order(storage: Storage) -> None:
    assert storage.list("log") == []
    for name in ("log/2", "log/10", "log/1", "other/1", "single"):
        storage.open(name, write=True).close()
    assert storage.list("log") == ["log/1", "log/10", "log/2"]
    storage.remove("log/10")
    storage.remove("log/10")
    assert storage.list("log") == ["log/1", "log/2"]
    assert storage.size("single") == 0


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    for call in (storage.open, storage.read, storage.size):
        with pytest.raises(FileNotFoundError):
            call(NAME)
    assert "log" in str(storage.where(NAME))


def test_a_removed_file_is_still_read_by_who_has_it(storage: Storage) -> None:
    file = storage.open(NAME, write=True)
    file.append(b"gone")
    reader = storage.open(NAME)
    storage.remove(NAME)
    assert read_whole(reader, 10) == b"gone"
    again = storage.open(NAME, write=True)
    assert again.end == 0
    for one in (file, reader, again):
        one.close()


def test_room_is_zeros_or_nothing_until_it_is_written(storage: Storage) -> None:
    file = storage.open(NAME, write=True)
    file.append(b"abc")
    file.reserve(5_000)
    assert (file.end, file.room) == (3, 5_000)
    file.reserve(10)  # there is more than that
    assert file.room == 5_000
    file.append(b"defg")
    assert (file.end, file.room) == (7, 4_996)
    assert content(storage).rstrip(b"\0") == b"abcdefg"
    file.append(bytes([1]) * 5_000)
    assert (file.end, file.room) == (5_007, 0)
    assert len(content(storage)) == 5_007
    file.close()


def test_a_file_opened_again_goes_on_where_it_is_cut(storage: Storage) -> None:
    file = storage.open(NAME, write=True)
    file.append(b"abcdef")
    file.reserve(100)
    file.close()
    file = storage.open(NAME, write=True)
    assert 6 <= file.end <= 106
    file.truncate(4)
    assert (file.end, file.room) == (4, 0)
    file.append(b"xy")
    file.sync()
    file.truncate(6)
    assert content(storage) == b"abcdxy"
    file.close()


def test_random_appends_cuts_and_rooms_are_a_byte_string(storage: Storage) -> None:
    draw, expected = random.Random(7), b""
    file = storage.open(NAME, write=True)
    for _ in range(300):
        what = draw.randrange(6)
        if what == 0:
            expected = expected[: draw.randint(0, len(expected))]
            file.truncate(len(expected))
        elif what == 1:
            file.reserve(draw.randrange(9_000))
        elif what == 2:
            file.sync()
        else:
            data = draw.randbytes(draw.randrange(700))
            file.append(data)
            expected += data
        assert file.end == len(expected)
        found = content(storage)
        assert found[: len(expected)] == expected and not found[len(expected) :].strip(b"\0")
    file.close()


def test_what_is_renewed_stays_what_it_was(storage: Storage) -> None:
    file = storage.open(NAME, write=True)
    file.append(b"abcdefgh")
    file.reserve(100)
    for offset in (0, 5, 8):
        file.renew(offset)
        file.sync()
        assert (file.end, content(storage).rstrip(b"\0")) == (8, b"abcdefgh")
    file.append(b"i")
    assert content(storage).rstrip(b"\0") == b"abcdefghi"
    file.close()


def test_one_syncs_while_the_other_appends(storage: Storage) -> None:
    file = storage.open(NAME, write=True)

    def sync() -> None:
        for _ in range(20):
            file.sync()

    syncs = threading.Thread(target=sync)
    syncs.start()
    for number in range(200):
        file.append(bytes([number]) * 100)
    syncs.join()
    file.sync()
    assert content(storage) == b"".join(bytes([number]) * 100 for number in range(200))
    file.close()


def test_a_small_file_is_replaced_whole(storage: Storage) -> None:
    for data in (b"first, and the longer one", b"second"):
        storage.replace("head", data)
        assert storage.read("head") == data == content(storage, "head")
    storage.replace("folder/head", b"")
    assert storage.list("folder") == ["folder/head"]


def test_two_that_replace_a_file_at_once_leave_one_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first has written and not yet given the name."""
    storage, sync = LocalStorage(tmp_path), os.fsync
    storage.replace("folder/file", b"")
    texts = [b"second" * 900]

    def synced(handle: int) -> None:
        if texts:
            storage.replace("folder/file", texts.pop())
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    storage.replace("folder/file", b"first")
    assert storage.read("folder/file") == b"first"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_what_a_kill_left_beside_a_file_goes_with_the_next_of_its_folder(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.replace("folder/file", b"")
    left = tmp_path / "folder" / "another.0123abcd.new"
    for name in (left, left.with_name("of a person's own.new")):
        name.write_bytes(b"half of it")
    storage.replace("folder/file", b"whole")
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == ["file", "of a person's own.new"]


def test_every_new_directorys_name_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the one that was there: else a file that was synced may lie in none."""
    synced: list[Path] = []
    monkeypatch.setattr("exchange.journal.storage.sync_directory", synced.append)
    LocalStorage(tmp_path / "a/b").replace("folder/file", b"")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/folder"]
    synced.clear()
    LocalStorage(tmp_path / "c/d").lock().close()
    assert synced == [tmp_path, tmp_path / "c"]


def test_there_is_one_writer(storage: Storage) -> None:
    lock = storage.lock()
    with pytest.raises(DirectoryLocked):
        storage.lock()
    lock.close()
    storage.lock().close()


@pytest.mark.parametrize("engine", list(CRASHABLE))
def test_a_power_cut_leaves_what_was_synced(engine: str) -> None:
    storage = CRASHABLE[engine]()
    crashed = storage.crashed
    file = storage.open(NAME, write=True)
    storage.replace("head", b"1")
    file.append(b"abc")
    assert content(crashed()) == b""
    file.sync()
    file.append(b"def")
    storage.replace("head", b"2")
    left = crashed()
    assert (content(left), left.read("head"), left.list("log")) == (b"abc", b"2", [NAME])
    file.truncate(2)
    file.append(b"x")
    assert content(crashed()) == b"abc"
    file.sync()
    assert content(crashed()) == b"abx"


def filled(file: File) -> None:
    """Append until the disk is full; the last append left nothing."""
    while True:
        end = file.end
        try:
            file.append(b"x" * 9_000)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            assert file.end == end
            return


@pytest.mark.parametrize("engine", ["local files", "memory"])
def test_a_full_disk_takes_all_or_nothing(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What does not fit leaves no trace, what was reserved can be written, what goes makes room."""
    storage: Storage = MemoryStorage(2 << 20)
    if engine == "local files":
        storage = LocalStorage(request.getfixturevalue("two_megabytes") / "market")
    file, other = storage.open(NAME, write=True), storage.open("log/b", write=True)
    file.append(b"begin")
    file.reserve(100_000)
    filled(other)
    with pytest.raises(OSError, match="No space"):
        file.reserve(500_000)
    assert file.room == 100_000
    with pytest.raises(OSError, match="No space"):
        file.append(b"y" * 300_000)
    assert (file.end, file.room) == (5, 100_000)
    file.append(b"z" * 100_000)
    assert content(storage) == b"begin" + b"z" * 100_000
    assert set(content(storage, "log/b")) == {ord("x")}
    other.close()
    storage.remove("log/b")
    file.reserve(500_000)
    assert file.room == 500_000
    file.close()


def test_a_directory_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        LocalStorage(tmp_path / "desk" / "market").lock().close()
    finally:
        os.umask(before)
    for made in (tmp_path / "desk", tmp_path / "desk" / "market"):
        assert made.stat().st_mode & 0o777 == 0o700
