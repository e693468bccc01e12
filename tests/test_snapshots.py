"""Snapshots and recovery: a start from one is what the whole log gives, or it is not used.

Budget: 15 seconds.
"""

import asyncio
import os
import shutil
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import pytest
from blake3 import blake3
from generator import Generator
from recorded import EXCHANGE_ID, FIRST_SEGMENT, Batch, everything, open_sequencer, record, running

from exchange.engine import Engine
from exchange.journal import sealed, snapshots
from exchange.journal.archive import archive_segment
from exchange.journal.errors import Diverged
from exchange.journal.frame import digest
from exchange.journal.places import list_segments, make_index, read_index
from exchange.journal.point import Point
from exchange.journal.sealed import FOLDER, HEADER, HEADER_BYTES
from exchange.journal.shadow import Shadow, TapeBehind
from exchange.journal.snapshots import Found, examine, recover
from exchange.journal.storage import LocalStorage
from exchange.messages import COMMAND_BYTES
from exchange.sequencer import replay

BATCHES = 24
TAPE = "tape/released.hbt"
STATE_HASH_AT, FLAGS_AT = 56, 88


def drawn(seed: int, count: int = BATCHES, size: int = 40) -> list[Batch]:
    """Batches of a market's commands: the engine they are drawn against sees no RECOVERED."""
    generator, engine, sequence = Generator(seed), Engine(), 1
    batches: list[Batch] = []
    data = generator.opening()
    for _ in range(count):
        generator.learn(engine.apply(data, sequence, generator.stamp))
        batches.append([data[at : at + COMMAND_BYTES] for at in range(0, len(data), COMMAND_BYTES)])
        sequence += len(batches[-1])
        data = generator.batch(size)
    return batches


def market(directory: Path, batches: list[Batch], **options: object) -> Path:
    """Run the batches in a market of the directory; a clock that stands still makes logs equal."""
    record(directory, batches, clock=lambda: 1_800_000_000 * 10**9, **options)
    return directory


def taken(directory: Path, keep: int = 3) -> Path:
    """A snapshot of the log as it stands."""
    shadow = Shadow(directory, Engine())
    shadow.advance()
    return Path(shadow.write(keep=keep, prove=Engine()).file)


def recovered(directory: Path, **options: object) -> tuple[Found, Engine]:
    engine = Engine()
    found = snapshots.recover(
        LocalStorage(directory), engine, EXCHANGE_ID, tape=directory, **options  # type: ignore[arg-type]
    )  # fmt: skip
    return found, engine


def reasons(directory: Path) -> list[str]:
    return [passed.reason for passed in recovered(directory)[0].passed]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market with a snapshot in the middle of its log and one at its end."""
    directory = tmp_path_factory.mktemp("made")
    batches = drawn(7)
    market(directory, batches[: BATCHES // 2])
    taken(directory)
    market(directory, batches[BATCHES // 2 :])
    taken(directory)
    return directory


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def files(directory: Path) -> list[Path]:
    """The snapshots, newest first."""
    storage = LocalStorage(directory)
    return [directory / name for _, _, name in sealed.list_files(storage, snapshots.KIND)]


def resealed(data: bytes) -> bytes:
    """A snapshot's bytes with a hash that fits them."""
    whole = blake3(data[: HEADER.size] + data[HEADER_BYTES:]).digest()
    return data[: HEADER.size] + whole + data[HEADER_BYTES:]


# Recovery is the replay


@pytest.mark.parametrize("seed", range(3))
def test_a_market_that_starts_from_a_snapshot_is_the_one_that_read_its_whole_log(
    tmp_path: Path, seed: int
) -> None:
    batches = drawn(seed)
    plain, quick = tmp_path / "plain", tmp_path / "quick"
    for part in (batches[:8], batches[8:16], batches[16:]):
        market(plain, part, from_snapshot=False)
        market(quick, part)
        taken(quick)
    found, engine = recovered(quick)
    assert found.file is not None and not found.passed
    report = replay(quick, Engine)
    assert report.divergence is None
    assert digest(engine.state_bytes()) == report.state_hash
    for path in sorted((plain / "log").iterdir()):
        assert path.read_bytes() == (quick / "log" / path.name).read_bytes()
    assert (plain / TAPE).read_bytes() == (quick / TAPE).read_bytes()


async def test_what_comes_behind_the_snapshot_is_replayed_and_the_stream_is_whole(
    copy: Path,
) -> None:
    os.remove(files(copy)[0])
    found, _ = recovered(copy)
    engine = Engine()
    async with running(copy, engine, clock=lambda: 1_800_000_001 * 10**9) as sequencer:
        last = sequencer.recovered.last_sequence
        assert 0 < found.point.sequence < last
        async with asyncio.timeout(20):
            while sequencer.tape.last[1] <= last:
                await asyncio.sleep(0)
        half = next(iter(sequencer.tape.read(*_position(found.point))))
    assert half.first_sequence == found.point.sequence + 1
    other = Engine()
    assert everything(sequencer.tape) == b"".join(_replayed(copy, other))
    assert engine.state_bytes() == other.state_bytes()


def _position(point: Point) -> tuple[int, int, int]:
    return point.epoch, point.sequence, point.last_index


def _replayed(directory: Path, engine: Engine) -> list[bytes]:
    shadow = Shadow(directory, engine, fresh=True)
    outputs: list[bytes] = []
    apply = engine.apply

    class Listening:
        """The engine, and a copy of what it says."""

        def apply(self, commands: bytes, first: int, stamp: int, /) -> bytes:
            outputs.append(apply(commands, first, stamp))
            return outputs[-1]

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

    shadow.engine = Listening()  # type: ignore[assignment]
    shadow.advance()
    return outputs


def test_until_takes_the_newest_one_that_is_not_beyond(copy: Path) -> None:
    newest, older = (int(path.name[:20]) for path in files(copy))
    assert recovered(copy, until=newest - 1)[0].point.sequence == older
    assert recovered(copy, until=older - 1)[0].file is None


def test_a_log_whose_first_segments_are_archived_elsewhere_starts_from_a_snapshot(
    tmp_path: Path,
) -> None:
    directory, away = tmp_path / "market", LocalStorage(tmp_path / "away")
    batches = drawn(3)
    market(directory, batches[:16], segment_bytes=20_000)
    taken(directory)
    storage = LocalStorage(directory)
    segments = list_segments(storage)
    assert len(segments) > 2
    for one, following in pairwise(segments[:-1]):
        archive_segment(storage, one.name, one.first, following.first - 1, away)
    market(directory, batches[16:], segment_bytes=20_000)
    assert recovered(directory)[0].file is not None
    for segment in list_segments(storage)[:-1]:
        assert read_index(storage, segment) in (None, make_index(storage, segment))


# What may be wrong with a file


def test_every_flipped_bit_and_every_cut_is_found(copy: Path) -> None:
    newest, older = files(copy)
    whole, draw = newest.read_bytes(), Random(5)
    newest_sequence, older_sequence = (int(path.name[:20]) for path in (newest, older))
    assert recovered(copy)[0].point.sequence == newest_sequence
    body = [draw.randrange(HEADER_BYTES, len(whole)) for _ in range(60)]
    for at in [*range(HEADER_BYTES), *body]:
        wrong = bytearray(whole)
        wrong[at] ^= 1 << draw.randrange(8)
        newest.write_bytes(wrong)
        found, _ = recovered(copy)
        assert found.point.sequence == older_sequence
        assert found.passed[0].reason in ("damaged", "newer version", "other exchange",
                                          "other layout")  # fmt: skip
    for size in [*range(0, HEADER_BYTES + 1, 7), *(draw.randrange(len(whole)) for _ in range(20))]:
        newest.write_bytes(whole[:size])
        assert reasons(copy) == ["damaged"]
    newest.write_bytes(whole + b"\0")
    assert reasons(copy) == ["damaged"]


def test_with_no_good_one_the_log_is_read_from_its_beginning(copy: Path) -> None:
    for path in files(copy):
        path.write_bytes(b"")
    found, engine = recovered(copy)
    assert (found.file, found.point.sequence) == (None, 0)
    assert [passed.reason for passed in found.passed] == ["damaged", "damaged"]
    assert engine.state_bytes() == Engine().state_bytes()
    sequencer = open_sequencer(copy)
    assert sequencer.recovered.frames > 0
    asyncio.run(sequencer.close())


@pytest.mark.parametrize(
    ("at", "name"), [(4, "newer version"), (6, "newer version"), (8, "other exchange"),
                     (24, "newer version"), (32, "other layout")],
)  # fmt: skip
def test_a_well_made_file_of_somebody_else_is_named(copy: Path, at: int, name: str) -> None:
    newest = files(copy)[0]
    data = bytearray(newest.read_bytes())
    data[at] += 1
    newest.write_bytes(resealed(bytes(data)))
    assert reasons(copy) == [name]


class Pruned(LocalStorage):
    """Files whose newest snapshot goes once the names were listed: another writer's pruning."""

    def list(self, folder: str) -> list[str]:
        names = super().list(folder)
        if folder == FOLDER and len(names) > 1:
            self.remove(names[-1])
        return names


def test_one_that_goes_meanwhile_is_passed_over(copy: Path) -> None:
    newest, older = files(copy)
    found = recover(Pruned(copy), Engine(), EXCHANGE_ID, tape=copy)
    assert found.point.sequence == int(older.name[:20])
    assert [(one.reason, Path(one.file).name) for one in found.passed] == [("gone", newest.name)]
    assert [one.file for one in examine(Pruned(copy), Engine())] == [f"{FOLDER}/{older.name}"]


def test_another_state_than_its_hash_says_is_named_and_leaves_no_trace(copy: Path) -> None:
    newest, older = files(copy)
    data = bytearray(newest.read_bytes())
    data[STATE_HASH_AT] ^= 1
    newest.write_bytes(resealed(bytes(data)))
    older.unlink()
    found, engine = recovered(copy)
    assert [passed.reason for passed in found.passed] == ["other state"]
    assert engine.state_bytes() == Engine().state_bytes()


def test_the_self_check_is_run_unless_these_bytes_passed_it(
    copy: Path,
) -> None:
    """And what fails it is never written as proven."""
    newest = files(copy)[0]
    assert newest.read_bytes()[FLAGS_AT] == sealed.PROVEN
    shadow = Shadow(copy, Engine())

    class Doubting:
        def check(self) -> None:
            raise AssertionError("levels")

        def __init__(self) -> None:
            self.engine = Engine()

        def __getattr__(self, name: str) -> object:
            return getattr(self.engine, name)

    def found() -> Found:
        return snapshots.recover(LocalStorage(copy), Doubting(), EXCHANGE_ID, tape=copy)  # type: ignore[arg-type]

    assert found().file == str(newest)
    shadow.write()  # unproven
    assert newest.read_bytes()[FLAGS_AT] == 0
    assert [one.reason for one in found().passed] == ["other state"]
    whole = newest.read_bytes()
    with pytest.raises(sealed.OtherState, match="self-check fails: levels"):
        shadow.write(prove=Doubting())  # type: ignore[arg-type]
    assert newest.read_bytes() == whole


def test_a_snapshot_above_the_log_is_passed_over(copy: Path) -> None:
    (copy / "head").unlink()
    path = copy / FIRST_SEGMENT
    shadow = Shadow(copy, Engine(), fresh=True)
    shadow.advance()
    path.write_bytes(path.read_bytes()[:-40].rstrip(b"\0")[:-900])
    assert reasons(copy) == ["above the log"]


def test_a_snapshot_of_another_history_is_passed_over(made: Path, copy: Path) -> None:
    other = market(copy.parent / "other", drawn(8, BATCHES * 2))
    (other / sealed.FOLDER).mkdir()
    for path in files(made):
        shutil.copy(path, other / sealed.FOLDER)
    assert reasons(other) == ["not of this log", "not of this log"]


@pytest.mark.parametrize("size", [None, 0, 40, -1])
def test_a_tape_that_does_not_reach_it_is_made_again_from_the_log(
    copy: Path, size: int | None
) -> None:
    tape = copy / TAPE
    whole = tape.read_bytes()
    if size is None:
        tape.unlink()
    else:
        tape.write_bytes(whole[:size])
    names = reasons(copy)
    assert names[0] == "tape behind"
    sequencer = open_sequencer(copy)
    asyncio.run(sequencer.close())
    assert tape.read_bytes()[: len(whole)] == whole
    assert reasons(copy) == []


# Writing


def test_a_crash_before_the_rename_leaves_the_older_one(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = files(copy)[0]
    whole = newest.read_bytes()
    newest.unlink()
    for size in (0, 100, len(whole)):  # what a kill may leave: a part, or all of it unnamed
        newest.with_name(newest.name + ".new").write_bytes(whole[:size])
        assert len(files(copy)) == 1
        assert recovered(copy)[0].passed == []

    def refused(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refused)
        with pytest.raises(OSError, match="disk is gone"):
            taken(copy)
    assert len(files(copy)) == 1
    assert taken(copy) == newest
    assert newest.read_bytes() == whole


def test_the_same_point_gives_the_same_bytes(copy: Path) -> None:
    """A snapshot taken behind a restored one is the one that a whole replay gives."""
    newest = files(copy)[0]
    whole = newest.read_bytes()
    shadow = Shadow(copy, Engine(), fresh=True)
    shadow.advance()
    assert Path(shadow.write(prove=Engine()).file) == newest
    assert newest.read_bytes() == whole


def test_as_many_are_kept_as_asked_for_and_other_builds_only_while_newer(tmp_path: Path) -> None:
    batches = drawn(2, 8)
    foreign = tmp_path / sealed.file_name(3, 0xABC, snapshots.KIND)
    kept = []
    for number in range(4):
        market(tmp_path, batches[2 * number : 2 * number + 2])
        if number == 0:
            (tmp_path / sealed.FOLDER).mkdir()
            foreign.write_bytes(b"of another build")
        kept.append(taken(tmp_path, keep=2))
        assert foreign.exists() == (number == 0)
    assert files(tmp_path) == kept[:-3:-1]


def test_a_tape_behind_the_log_puts_a_snapshot_off(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.journal.shadow.TAPE_SECONDS", 0.0)
    tape = copy / TAPE
    tape.write_bytes(tape.read_bytes()[:-1])
    with pytest.raises(TapeBehind):
        taken(copy)


# The shadow


def test_a_shadow_follows_a_log_that_grows(tmp_path: Path) -> None:
    batches = drawn(4)
    market(tmp_path, batches[:6])
    shadow = Shadow(tmp_path, Engine())
    assert shadow.advance() > 0
    for part in (batches[6:7], batches[7:12], batches[12:]):
        market(tmp_path, part, segment_bytes=30_000)
        assert shadow.advance() > sum(map(len, part))  # RECOVERED, too
        assert shadow.advance() == 0
    report = replay(tmp_path, Engine)
    assert digest(shadow.engine.state_bytes()) == report.state_hash
    assert shadow.checked >= 4  # every close wrote one


def test_a_shadow_waits_for_the_rest_of_a_torn_frame(copy: Path) -> None:
    path = copy / FIRST_SEGMENT
    (copy / "head").unlink()
    whole = path.read_bytes().rstrip(b"\0")
    shadow = Shadow(copy, Engine(), fresh=True)
    for cut in (2_000, 1_000, 300, 1):
        path.write_bytes(whole[:-cut])
        shadow.advance()
    path.write_bytes(whole)
    shadow.advance()
    other = Shadow(copy, Engine(), fresh=True)
    other.advance()
    assert shadow.point == other.point


@pytest.mark.parametrize("fresh", [True, False])
def test_a_shadow_says_where_it_differs(copy: Path, fresh: bool) -> None:
    """An engine that is not the one that wrote the log, from some command on."""
    os.remove(files(copy)[0])
    shadow = Shadow(copy, Engine(), fresh=fresh)
    engine, seen = shadow.engine, 0

    class Altered:
        def apply(self, commands: bytes, first: int, stamp: int, /) -> bytes:
            nonlocal seen
            seen += 1
            events = engine.apply(commands, first, stamp)
            return events if seen != 5 else events[:-1] + bytes([events[-1] ^ 1])

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

    shadow.engine = Altered()  # type: ignore[assignment]
    with pytest.raises(Diverged) as caught:
        shadow.advance()
    assert caught.value.what == "events"
    assert caught.value.last_sequence == shadow.point.sequence
    assert caught.value.first_sequence == shadow.point.first_sequence


def test_a_point_says_the_same_as_the_tape(made: Path) -> None:
    shadow = Shadow(made, Engine(), fresh=True)
    shadow.advance()
    assert shadow.point.tape_end == (made / TAPE).stat().st_size
    assert shadow.point.events == len(_events(made)) // 80
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(shadow.point), type=Point) == shadow.point


def _events(directory: Path) -> bytes:
    return b"".join(_replayed(directory, Engine()))
