"""Old segments: compressed, proven before the original goes, and read as if nothing happened."""

import errno
import gzip
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from recorded import crashed_copy, deposits, open_sequencer, read_log, record, running, say
from typer.testing import CliRunner

from exchange.cli import archive as archiving
from exchange.cli.root import app
from exchange.engine import Engine
from exchange.journal import archive, retention
from exchange.journal.archive import DamagedArchive, NotArchivable
from exchange.journal.errors import DamagedLog, MissingSegment, WrongExchange
from exchange.journal.head import KnownFrame, read_head
from exchange.journal.places import find_sequence, list_segments
from exchange.journal.reader import LogReader, Start
from exchange.journal.shadow import Shadow
from exchange.journal.storage import LocalStorage
from exchange.sequencer import replay

BATCHES = [deposits(4, 10 * at) for at in range(1, 8)]
NAMES = [f"log/{first:020}.hbl" for first in (1, 9, 17, 25)]


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """Four segments of two frames each, the last of one."""
    directory = tmp_path / "market"
    record(directory, BATCHES, segment_bytes=700)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "log").iterdir()}


@pytest.mark.parametrize(
    ("upto", "archived"), [(0, 0), (7, 0), (8, 1), (15, 1), (16, 2), (24, 3), (28, 3), (99, 3)]
)
def test_what_is_archived_reads_the_same(market: Path, upto: int, archived: int) -> None:
    """Never a segment that reaches above the bound, never the one being written."""
    before, state = contents(market), replay(market, Engine).state_hash
    done = retention.archive_upto(LocalStorage(market), upto)
    assert [one.name for one in done] == NAMES[:archived]
    assert [one.last_sequence for one in done] == [8, 16, 24][:archived]
    assert sorted(contents(market)) == sorted(
        [Path(name).name + ".gz" for name in NAMES[:archived]]
        + [Path(name).name for name in NAMES[archived:]]
    )
    report = replay(market, Engine)
    assert (report.state_hash, report.last_sequence) == (state, 28)
    for sequence in (1, 8, 9, 20, 28):
        assert find_sequence(market, sequence).first_sequence <= sequence
    for one in done:
        assert (
            gzip.decompress((market / f"{one.name}.gz").read_bytes()) == before[Path(one.name).name]
        )
    if done:
        retention.restore(LocalStorage(market), LocalStorage(market))
    assert contents(market) == before


def test_a_market_goes_on_over_an_archived_log(market: Path) -> None:
    retention.archive_upto(LocalStorage(market), 28)
    record(market, [deposits(2, 700)], segment_bytes=700)
    assert replay(market, Engine).divergence is None
    assert read_log(market).last_sequence == 31
    assert len(list_segments(LocalStorage(market))) == 5


async def test_beside_a_serving_market(tmp_path: Path) -> None:
    async with running(tmp_path, segment_bytes=700) as sequencer:
        for batch in BATCHES[:4]:
            await say(sequencer, batch)
        assert len(retention.archive_upto(LocalStorage(tmp_path), 16)) == 1
        for batch in BATCHES[4:]:
            await say(sequencer, batch)
    assert replay(tmp_path, Engine).divergence is None


def test_archived_elsewhere_and_brought_back(market: Path, tmp_path: Path) -> None:
    before, cellar = contents(market), LocalStorage(tmp_path / "cellar")
    retention.archive_upto(LocalStorage(market), 16, cellar)
    with pytest.raises(MissingSegment, match="from the archive"):
        read_log(market)
    done = retention.restore(LocalStorage(market), cellar)
    assert [name for name, _ in done] == [f"{name}.gz" for name in NAMES[:2]]
    for stray in ("notes.hbl.gz", "1.hbl.gz"):
        (tmp_path / "cellar" / "log" / stray).write_bytes(b"")
    assert retention.restore(LocalStorage(market), cellar) == []
    assert contents(market) == before
    with pytest.raises(NotArchivable, match="no archived segment"):
        retention.restore(LocalStorage(market), LocalStorage(tmp_path / "nowhere"))
    (market / NAMES[1]).unlink()
    with pytest.raises(NotArchivable, match=r"ends at sequence 8, and .* behind 16: restore those"):
        retention.archive_upto(LocalStorage(market), 16)
    retention.restore(LocalStorage(market), cellar)
    assert len(retention.archive_upto(LocalStorage(market), 16)) == 2


async def test_what_is_elsewhere_is_missed_by_no_start_above_it(tmp_path: Path) -> None:
    """The head names the last frame before the last roll, and its segment went: a shadow follows
    the market still, and after a kill it starts.
    """
    directory, killed = tmp_path / "market", tmp_path / "killed"
    async with running(directory, segment_bytes=700) as sequencer:
        for batch in BATCHES:
            await say(sequencer, batch)
        shadow = Shadow(directory, Engine())
        shadow.catch_up()
        storage, taken = LocalStorage(directory), shadow.write(prove=Engine()).sequence
        retention.archive_upto(storage, 8)
        done = retention.archive_upto(storage, taken - 1, LocalStorage(tmp_path / "cellar"))
        head = read_head(directory)
        assert head is not None and head.sequence == done[-1].last_sequence == 24
        await say(sequencer, deposits(1, 700))
        assert shadow.advance() == 1
        shutil.copytree(directory, killed)
    async with running(killed) as again:
        assert (again.recovered.frames, again.recovered.last_sequence) == (1, 29)


def test_a_segment_that_is_there_lacks_nothing_a_head_names(market: Path) -> None:
    """One that goes on with something else before the frame wanted is damaged, not elsewhere."""
    path, place = market / NAMES[2], find_sequence(market, 21)
    known = [KnownFrame(24, bytes(32), "a witness")]
    data = bytearray(path.read_bytes())
    data[place.offset] ^= 1
    path.write_bytes(data)
    (market / "index" / f"{17:020}.hbx").unlink()
    with pytest.raises(DamagedLog, match="named by a witness") as caught:
        LogReader(market, known=known, start=Start(28))
    assert (caught.value.path, caught.value.offset) == (path, place.offset)
    path.unlink()
    LogReader(market, known=known, start=Start(28))


def test_two_logs_in_one_place_spoil_neither(market: Path, tmp_path: Path) -> None:
    other, cellar = tmp_path / "other", LocalStorage(tmp_path / "cellar")
    record(other, BATCHES, segment_bytes=700, exchange_id=bytes(16))
    retention.archive_upto(LocalStorage(market), 16, cellar)
    before, packed = contents(other), contents(tmp_path / "cellar")
    with pytest.raises(NotArchivable, match="of this log alone"):
        retention.archive_upto(LocalStorage(other), 16, cellar)
    assert (contents(other), contents(tmp_path / "cellar")) == (before, packed)
    (other / NAMES[1]).unlink()
    gone = contents(other)
    with pytest.raises(WrongExchange, match=f"expected {bytes(16).hex()}"):
        retention.restore(LocalStorage(other), cellar)
    assert contents(other) == gone
    assert len(retention.restore(LocalStorage(market), cellar)) == 2
    assert len(retention.archive_upto(LocalStorage(market), 16, cellar)) == 2


def test_what_a_kill_inside_a_roll_left_is_archived(market: Path) -> None:
    """The reserve stands as zeros behind the frames; only to the end."""
    path = market / NAMES[0]
    frames = path.read_bytes()
    path.write_bytes(frames + bytes(5_000) + b"x")
    with pytest.raises(NotArchivable, match=f"at byte {len(frames)}"):
        retention.archive_upto(LocalStorage(market), 8)
    path.write_bytes(frames + bytes(5_000))
    assert [one.size for one in retention.archive_upto(LocalStorage(market), 8)] == [
        len(frames) + 5_000
    ]
    assert replay(market, Engine).last_sequence == 28


def test_a_reader_beside_an_archive_run(market: Path, tmp_path: Path) -> None:
    """Segments that it listed, and has not opened yet, are read in the form that they have then."""
    storage, reader = LocalStorage(market), LogReader(market)
    chunks = reader.chunks()
    assert next(chunks)[-1].last_sequence == 8
    retention.archive_upto(storage, 28)
    assert next(chunks)[-1].last_sequence == 16
    retention.restore(storage, storage)
    assert next(chunks)[-1].last_sequence == 24 and reader.total_bytes > 0
    other = LogReader(market)
    retention.archive_upto(storage, 8, LocalStorage(tmp_path / "cellar"))
    with pytest.raises(MissingSegment, match="gone since"):
        next(other.chunks())


def test_a_damaged_segment_is_not_archived(market: Path) -> None:
    path = market / NAMES[0]
    data = bytearray(path.read_bytes())
    for damage in (300, len(data) - 1):
        data[damage] ^= 1
        path.write_bytes(data)
        with pytest.raises(NotArchivable, match="verify the log"):
            retention.archive_upto(LocalStorage(market), 8)
        data[damage] ^= 1
        assert path.exists() and not path.with_name(path.name + ".gz").exists()
    path.write_bytes(data[: find_sequence(market, 5).offset])
    with pytest.raises(NotArchivable, match="ends at sequence 4"):
        retention.archive_upto(LocalStorage(market), 8)


class Forgetting(LocalStorage):
    """A place that keeps something else than it was given."""

    def replace(self, name: str, data: bytes) -> None:
        super().replace(name, archive.pack(archive.unpack(data, name) + b"\0"))


def test_the_original_stays_until_the_copy_is_proven(market: Path, tmp_path: Path) -> None:
    before = contents(market)
    with pytest.raises(DamagedArchive, match="the segment was kept"):
        retention.archive_upto(LocalStorage(market), 8, Forgetting(tmp_path / "bad"))
    assert contents(market) == before


def test_a_crash_between_copy_and_removal_changes_nothing(market: Path) -> None:
    path = market / NAMES[0]
    (market / f"{NAMES[0]}.gz").write_bytes(archive.pack(path.read_bytes()))
    assert [one.archived for one in list_segments(LocalStorage(market))] == [False] * 4
    assert replay(market, Engine).divergence is None
    assert len(retention.archive_upto(LocalStorage(market), 8)) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "more", "empty", "longer"])
def test_a_damaged_archive_is_refused_by_name(market: Path, damage: str) -> None:
    retention.archive_upto(LocalStorage(market), 8)
    path = market / f"{NAMES[0]}.gz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({
        "cut": whole[:-5],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :],
        "more": whole + whole,
        "empty": b"",
        "longer": whole + b"x",
    }[damage])  # fmt: skip
    with pytest.raises(DamagedArchive, match="restore it from a copy"):
        read_log(market)


def test_the_last_segment_archived_by_hand_is_not_written_to(market: Path, tmp_path: Path) -> None:
    path = market / NAMES[-1]
    path.with_name(path.name + ".gz").write_bytes(archive.pack(path.read_bytes()))
    path.unlink()
    record(market, [deposits(1, 900)])
    assert [one.first for one in list_segments(LocalStorage(market))] == [1, 9, 17, 25, 29]
    assert replay(market, Engine).last_sequence == 30


def no_room(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_command_asks_for_a_good_snapshot(market: Path, tmp_path: Path) -> None:
    """Nothing goes that a start could need; afterwards a start needs nothing that went."""
    hourbook = CliRunner()

    def told(*arguments: str) -> dict[str, int]:
        answer = hourbook.invoke(app, [*arguments, "--json"])
        assert answer.exit_code == 0, answer.output
        found: dict[str, int] = json.loads(answer.stdout)
        return found

    refused = hourbook.invoke(app, ["archive", "run", str(market)])
    assert refused.exit_code == 1 and "no snapshot" in str(refused.exception)
    told("snapshot", "write", str(market))
    record(market, [deposits(4, 10 * at) for at in range(20, 26)], segment_bytes=700)
    above = hourbook.invoke(app, ["archive", "run", str(market), "--upto", "29"])
    assert above.exit_code == 1 and "above the newest good snapshot" in str(above.exception)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", no_room)
        full = hourbook.invoke(app, ["archive", "run", str(market)])
    said = str(full.exception)
    assert full.exit_code == 1 and "--to" in said and "log/00000000000000000001.hbl.gz" in said
    cellar = tmp_path / "cellar"
    done = told("archive", "run", str(market), "--to", str(cellar))
    assert (done["archived"], done["upto"]) == (3, 24)
    assert done["archived_bytes"] < done["bytes"]
    record(market, [deposits(1, 950)])
    listed = hourbook.invoke(app, ["archive", "list", str(market), "--json"])
    assert json.loads(listed.stdout)[0]["first_sequence"] == 25
    assert hourbook.invoke(app, ["replay", str(market)]).exit_code != 0
    told("archive", "restore", str(market), "--from", str(cellar))
    assert replay(market, Engine).state_hash == replay(crashed_copy(market, tmp_path / "c"),
                                                       Engine).state_hash  # fmt: skip
    shutil.rmtree(market / "snapshots")
    open_sequencer(market)


def test_a_run_or_a_restore_waits_for_the_one_under_way(market: Path) -> None:
    assert CliRunner().invoke(app, ["snapshot", "write", str(market)]).exit_code == 0
    for ask, left in ((archiving.run, NAMES[3:]), (archiving.restore, NAMES)):
        with ThreadPoolExecutor(2) as pool:
            with archiving.alone(market):
                before = contents(market)
                asked = [pool.submit(ask, market) for _ in range(2)]
                time.sleep(0.2)
                assert contents(market) == before
            failed = [one.exception() for one in asked]
        assert [f"log/{name}" for name in sorted(contents(market)) if "gz" not in name] == left
        # To the second there is nothing left to do; that is said of a restore alone.
        assert {type(one) for one in failed} <= {type(None), NotArchivable}


def test_the_snapshots_own_frame_stays(tmp_path: Path) -> None:
    """A start looks at it, so the segment that ends with it goes nowhere else."""
    other = tmp_path / "other"
    record(other, BATCHES[:6], segment_bytes=700)
    hourbook = CliRunner()
    assert hourbook.invoke(app, ["snapshot", "write", str(other)]).exit_code == 0
    record(other, BATCHES[6:], segment_bytes=700)
    assert [one.first for one in list_segments(LocalStorage(other))] == [1, 9, 17, 25]
    told = ["archive", "run", str(other), "--to", str(tmp_path / "cellar"), "--json"]
    assert json.loads(hourbook.invoke(app, [*told, "--upto", "0"]).stdout)["archived"] == 0
    assert json.loads(hourbook.invoke(app, told).stdout)["upto"] == 16
    record(other, [deposits(1, 950)])
    assert json.loads(hourbook.invoke(app, told[:3] + told[-1:]).stdout)["upto"] == 24
    record(other, [deposits(1, 960)])
