"""Clearing in a process of its own: the same books, the same end, and a death that is noticed."""

import asyncio
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from live import CODE, Live, clock_ns, market_in, until

from exchange.app import Market, bookkeeping, wishes
from exchange.app.bookkeeping import LEDGER_NAME, STREAM_NAME, ClearingDied
from exchange.app.requests import Settle
from exchange.app.settings import Limits, Serve, Settings
from exchange.clearing import Clearing
from exchange.journal.errors import DirectoryLocked
from exchange.journal.storage import DirectoryLock
from exchange.messages import Mode

APART = Settings(serve=Serve(clearing="process"), limits=Limits(clearing_pause_seconds=0.01))


@asynccontextmanager
async def running(directory: Path, settings: Settings = APART) -> AsyncIterator[Live]:
    async with market_in(directory, clock=clock_ns, settings=settings) as market:
        live = Live(market, await market.listen("127.0.0.1", 0))
        async with live._clients:
            yield live


async def trade(live: Live, count: int) -> None:
    """``count`` trades of two clients."""
    maker, taker = await live.client(1), await live.client(2)
    listed = live.market.desk.instruments.by_code[CODE]
    price = listed.mark // listed.tick_scale
    for _ in range(count):
        await maker.enter(CODE, "buy", 1, price)
        await taker.enter(CODE, "sell", 1, price)


async def test_the_books_are_those_that_a_thread_would_have_kept(tmp_path: Path) -> None:
    async with asyncio.timeout(60), running(tmp_path) as live:
        await trade(live, 10)
        settled = await live.market.operations.perform(Settle())
        assert settled["divergences"] == 0
        assert live.market.ready()["ledger_balanced"] and live.market.clearing_lag == 0
        assert live.market.clearing.is_balanced()
    assert not (tmp_path / STREAM_NAME).exists()
    path = tmp_path / LEDGER_NAME
    apart = Clearing.open(path)
    apart.audit()
    books, found = apart.trial_balance().accounts, apart.ledger_hash
    assert apart.position[1] == live.market.tape.last[1]
    apart.close()
    path.unlink()  # rebuilt by a thread
    async with running(tmp_path, Settings()) as live:
        upto = live.market.tape.last[1]
        await until(lambda: live.market.clearing.position[1] >= upto)
        assert live.market.clearing.trial_balance().accounts == books
        assert live.market.clearing.ledger_hash == found


async def test_a_restart_goes_on_where_the_books_are(tmp_path: Path) -> None:
    async with running(tmp_path) as live:
        await trade(live, 3)
    async with running(tmp_path) as live:
        await trade(live, 3)
        await live.market.operations.cleared()
        assert live.market.clearing.net(1, live.market.desk.instruments.by_code[CODE].id) == 6


def test_an_orphan_books_nothing_and_two_never_write_at_once(tmp_path: Path) -> None:
    """A child waits for who has the ledger, and leaves it alone if its server is gone."""
    run = f"from {bookkeeping.__name__} import main; import sys; main(*sys.argv[1:])"
    somebody = "1"  # is no child's parent here
    arguments = [sys.executable, "-c", run, str(tmp_path), "512", "0", somebody]
    with bookkeeping.alone(tmp_path):
        child = subprocess.Popen(arguments)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(2)
    assert child.wait(30) == 0
    assert not (tmp_path / LEDGER_NAME).exists()


def test_a_full_disk_is_said_once_and_that_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    outcomes = iter([full, full, full, None, None, full])

    class Books:
        def apply(self, frames: Any) -> None:
            if (outcome := next(outcomes)) is not None:
                raise outcome

    waits = False
    for _ in range(6):
        waits = not bookkeeping.booked(Books(), [], waits)  # type: ignore[arg-type]
    assert waits
    told = [(record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records]
    assert told == [
        ("ERROR", "clearing waits for room on the disk"),
        ("WARNING", "clearing goes on"),
        ("ERROR", "clearing waits for room on the disk"),
    ]


def child_of(directory: Path) -> int:
    """The clearing process of a market in this process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if b"bookkeeping" in line and str(directory).encode() in line:
                return int(entry.name)
    raise AssertionError("no clearing process")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the child in /proc")
async def test_a_clearing_process_that_dies_is_a_failure_and_the_books_stay_whole(
    tmp_path: Path,
) -> None:
    market = await Market.start(tmp_path, clock=clock_ns, settings=APART)
    live = Live(market, await market.listen("127.0.0.1", 0))
    async with live._clients:
        await trade(live, 3)
        await market.operations.cleared()  # so it is well under way
        os.kill(child_of(tmp_path), signal.SIGTERM)  # is ignored: only the stream's end ends it
        await trade(live, 1)
        await market.operations.cleared()
        os.kill(child_of(tmp_path), signal.SIGKILL)
        with pytest.raises(ClearingDied):
            await asyncio.wait_for(market.failed(), 10)
        assert not market.healthy()["clearing"] and not market.ready()["running"]
    await market.stop()
    async with running(tmp_path) as live:
        await live.market.operations.checkpoint()
        await live.market.operations.cleared()
        assert not live.market.clearing.divergences
        assert live.market.desk.mode == Mode.NORMAL


async def test_a_market_that_stops_keeps_its_ledger_until_all_is_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next server has the directory by then, and waits."""
    market = await Market.start(tmp_path, clock=clock_ns)
    await market.operations.cleared()
    booked, seen = bookkeeping.booked, []

    def late(*arguments: Any) -> bool:
        while True:
            try:
                DirectoryLock(tmp_path).close()
                break
            except DirectoryLocked:
                time.sleep(0.01)
        with open(tmp_path / bookkeeping.LOCK_NAME, "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                seen.append("free")
            except BlockingIOError:
                seen.append("held")
        return booked(*arguments)

    monkeypatch.setattr(bookkeeping, "booked", late)
    market.sequencer.submit(0, wishes.checkpoint().record)
    await market.stop()
    assert seen and set(seen) == {"held"}
    with bookkeeping.alone(tmp_path):
        pass
