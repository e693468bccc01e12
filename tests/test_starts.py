"""A market that starts after a crash, and one that crashes while it stops. Budget: 20 seconds."""

import asyncio
import errno
import os
import shutil
from asyncio import AbstractEventLoop
from pathlib import Path

import pytest
from live import market_in
from test_app import NOON_NS, eventually, perform, running, states

from exchange.app import Market, identity, requests, standby, wishes
from exchange.app.clerk import Clerk
from exchange.app.conduct import Conduct
from exchange.app.settings import Schedule, Settings
from exchange.app.standby import Standby
from exchange.app.wishes import RequestRefused
from exchange.engine import Engine
from exchange.journal import replay
from exchange.journal.errors import DirectoryLocked, NotReproduced, SyncFailed
from exchange.journal.places import EXCHANGE_ID_NAME
from exchange.journal.storage import DirectoryLock, LocalFile, LocalStorage
from exchange.journal.syncer import Done, Log
from exchange.journal.tape import PREAMBLE, RECORD_BYTES, Tape, unpack_head
from exchange.journal.tapecheck import DamagedTape
from exchange.messages import EVENT, EventKind

DAY_NS = 86_400 * 10**9
FRIDAY_NS = NOON_NS + 3 * 3_600 * 10**9  # within the session of 2026-11-20


class BadDisk:
    """Syncs at once; with ``bad`` set none is good any more."""

    def __init__(self) -> None:
        self.bad = False
        self.log: Log | None = None

    def __call__(self, log: Log) -> "BadDisk":
        self.log = log
        return self

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        assert self.log is not None
        failed = None
        if self.bad:
            failed = self.log.sync_failed(OSError(errno.EIO, os.strerror(errno.EIO)))
        else:
            self.log.sync()
        loop.call_soon(done, failed)

    def stop(self) -> None:
        """Nothing is left to end."""


# Stops


async def test_a_log_that_this_build_does_not_reproduce_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path):
        pass
    monkeypatch.setattr(replay, "digest", lambda data: bytes(32))  # another state than recorded
    with pytest.raises(NotReproduced, match=f"`hourbook replay {tmp_path} --verify` says where"):
        await Market.start(tmp_path, clock=lambda: NOON_NS)


async def test_a_sync_that_fails_during_a_stop_is_raised(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    disk = BadDisk()
    market = await Market.start(tmp_path, clock=lambda: NOON_NS, syncer=disk)
    disk.bad = True
    market.sequencer.submit(0, wishes.checkpoint().record)
    with pytest.raises(SyncFailed, match="mend the disk"):
        await market.stop()
    assert await market.stop() == ""  # the head on disk is an earlier run's


async def test_a_stop_waits_for_no_checkpoint_that_can_never_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = BadDisk()
    market = await Market.start(tmp_path, clock=lambda: NOON_NS, syncer=disk)
    await market.listen("127.0.0.1", 0)
    disk.bad = True
    with pytest.raises(SyncFailed, match="mend the disk"):
        await asyncio.wait_for(market.stop(), 10)
    assert "no last checkpoint: sequencer" in caplog.text


# Starts in the middle of something


def copied(directory: Path, copy: Path) -> None:
    """What a kill -9 would leave of a market's directory now."""
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.sock"))


def dying(patch: pytest.MonkeyPatch, owner: type, name: str, directory: Path, copy: Path) -> None:
    """Have a market copied at its next call of a method."""
    real = getattr(owner, name)

    def before(*arguments: object) -> object:
        if not copy.exists():
            copied(directory, copy)
        return real(*arguments)

    patch.setattr(owner, name, before)


async def test_an_opening_that_a_crash_broke_off_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market, first, second = tmp_path / "market", tmp_path / "first", tmp_path / "second"
    with monkeypatch.context() as patch:
        dying(patch, Conduct, "may_trade", market, first)
        async with running(market) as m:
            await perform(m, requests.ListContract(code="H100Z26-H100F27"))
            await perform(m, requests.Close(code="H100Z26"))
            await perform(m, requests.Halt(code="H100F27"))
            legs = {c: s for c, s in states(m).items() if s != "CONTINUOUS"}
    async with running(first) as m:  # nothing but the day was opened
        assert set(states(m).values()) == {"CONTINUOUS"}
    async with running(market) as m:  # what an operator closed stays so, and opens with the next
        assert {c: s for c, s in states(m).items() if s != "CONTINUOUS"} == legs
        await perform(m, requests.Settle())
        dying(monkeypatch, Conduct, "may_trade", market, second)
        await perform(m, requests.OpenDay())
        spread = m.desk.instruments.by_code["H100Z26-H100F27"]
        limits = spread.high_ticks
        events = b"".join(released.events for released in m.tape.read(0, 0, 0))
        moved = [row[0] for row in EVENT.iter_unpack(events)
                 if row[2] == EventKind.LIMITS_CHANGED and row[5] == spread.id]  # fmt: skip
        assert max(moved) < m.desk.day_first  # whatever follows the day cannot miss them
    async with running(second, NOON_NS + DAY_NS) as m:
        assert {c: s for c, s in states(m).items() if s != "CONTINUOUS"} == {"H100F27": "HALTED"}
        assert m.desk.instruments.by_code["H100Z26-H100F27"].high_ticks == limits


async def test_a_settlement_that_a_crash_broke_off_comes_before_the_next_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    market, killed = tmp_path / "market", tmp_path / "killed"
    dying(monkeypatch, Clerk, "_pay_variation", market, killed)
    async with running(market) as m:
        await perform(m, requests.Settle())
    async with running(killed, NOON_NS + DAY_NS) as m:
        assert (m.desk.business_date, m.desk.day_open) == (20261120, False)
        assert "business date 20261120 is closed and not settled" in caplog.text
        with pytest.raises(RequestRefused, match="20261120 is closed and not settled"):
            await perform(m, requests.OpenDay())
        assert len((await perform(m, requests.Settle()))["settlement_prices"]) == 48
        listed = requests.ListContract(code="H100PZ26", price="2.5")
        await perform(m, listed)  # after the close: of that date there is nothing to settle
        assert (await perform(m, requests.OpenDay()))["business_date"] == 20261121


async def test_a_calendar_that_does_not_settle_waits_for_who_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follows = Settings(schedule=Schedule(follow=True, settle=False))
    async with running(tmp_path, FRIDAY_NS) as m:
        await m.desk.perform([wishes.close_day(20261120)])
    monday = FRIDAY_NS + 3 * DAY_NS
    async with market_in(tmp_path, clock=lambda: monday, settings=follows) as m:
        assert m.desk.business_date == 20261120
        assert "20261123 waits: settle business date 20261120" in caplog.text


async def test_who_asks_a_market_that_nobody_serves_opens_no_day(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.Settle())
    later = NOON_NS + DAY_NS
    m = await Market.start(tmp_path, clock=lambda: later, serving=False)
    assert (m.desk.business_date, m.desk.day_open) == (20261120, False)
    await m.stop()
    async with running(tmp_path, later) as m:
        assert (m.desk.business_date, m.desk.day_open) == (20261121, True)


# Its identity


def test_an_identity_is_made_once_and_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = tmp_path / "market"
    seen: list[bytes] = []
    real = LocalStorage.replace

    def beside(storage: LocalStorage, name: str, data: bytes) -> None:
        with pytest.raises(DirectoryLocked):
            identity.exchange_id(market)  # of another first start, which has found none either
        seen.append(data)
        real(storage, name, data)

    monkeypatch.setattr(LocalStorage, "replace", beside)
    made = identity.exchange_id(market)
    assert made == identity.exchange_id(market)
    assert seen == [made.hex().encode() + b"\n"]
    DirectoryLock(market).close()  # given back


@pytest.mark.parametrize("text", ["", "00", "no hexadecimal", "00" * 17])
def test_a_file_that_holds_no_identity_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / EXCHANGE_ID_NAME).write_text(text)
    with pytest.raises(identity.BadExchangeId, match="does not hold 16 bytes"):
        identity.exchange_id(tmp_path)


async def test_a_log_without_its_identity_is_refused_and_given_no_other(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    path = tmp_path / EXCHANGE_ID_NAME
    own = path.read_text().strip()
    path.unlink()
    for _ in range(2):
        with pytest.raises(identity.BadExchangeId, match=f"the log is of exchange {own}"):
            await Market.start(tmp_path, clock=lambda: NOON_NS)
    assert not path.exists()
    path.write_text(own)
    async with running(tmp_path):
        pass


# What is damaged, or full


async def test_a_tape_damaged_below_a_snapshot_is_named_with_its_remedy(tmp_path: Path) -> None:
    """No start that begins with the snapshot writes it anew; one without a tape does."""
    market, other = tmp_path / "market", tmp_path / "other"
    async with running(market) as m:
        await perform(m, requests.Deposit(account=1, amount="5"))
        await perform(m, requests.Deposit(account=2, amount="5"))
    shadow = Standby(market, Engine())
    shadow.catch_up()
    shadow.write()
    copied(market, other)
    path = market / "tape/released.hbt"
    data, at = bytearray(path.read_bytes()), [PREAMBLE.size]
    while head := unpack_head(bytes(data[at[-1] : at[-1] + RECORD_BYTES])):
        at.append(at[-1] + head.length)
    data[at[-3] + 9] ^= 1
    path.write_bytes(data)
    for _ in range(2):  # the second finds the directory free
        with pytest.raises(DamagedTape, match="delete the file while nobody serves"):
            await Market.start(market, clock=lambda: NOON_NS)
    (other / "tape/released.hbt").unlink()
    async with running(other) as m:
        assert {1, 2} <= m.desk.accounts.keys()


def test_a_view_that_is_deleted_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A shadow prunes between a start's look at the names and its reading of one."""
    gone = [(1, 1, "snapshots/gone.hbv")]
    monkeypatch.setattr("exchange.journal.sealed.list_files", lambda *_: gone)
    assert standby.recover_view(LocalStorage(tmp_path), Tape(tmp_path, bytes(16))) is None
    assert "gone.hbv: gone: deleted meanwhile" in caplog.text


async def test_a_start_on_a_full_disk_goes_on_by_itself_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the restart halted trades again, as far as no operator halted it, and the business date
    that has come is opened."""
    real, most = LocalFile.reserve, 4 << 20

    def reserve(file: LocalFile, room: int) -> None:
        if room > most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, room)

    async with running(tmp_path) as m:
        await perform(m, requests.Halt(code="H100Z26"))
    for came, day in ((0, 20261120), (DAY_NS, 20261121)):
        with monkeypatch.context() as full:
            full.setattr(LocalFile, "reserve", reserve)
            full.setattr("exchange.intake.admits", lambda *_: False)
            async with running(tmp_path, NOON_NS + came, watch_seconds=0.02) as m:
                assert "LOG_FULL" in caplog.text and "goes on by itself" in caplog.text
                assert (m.desk.business_date, m.desk.day_open) == (20261120, not came)
                assert came or set(states(m).values()) == {"HALTED"}
                full.undo()
                await eventually(lambda: not m.operations.held_up)
                halted = [code for code, state in states(m).items() if state != "CONTINUOUS"]
                assert halted == ["H100Z26"]
                assert (m.desk.business_date, m.desk.day_open) == (day, True)
                await perform(m, requests.Settle())
