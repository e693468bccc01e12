"""What gateway and desk know, kept at a point of the stream: going on from it is as good as reading
all of the stream.

Budget: 10 seconds.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from generator import EXPIRING, Generator
from live import START_NS, Live, until

from exchange.app import Market, requests, standby, wishes
from exchange.app.standby import Standby
from exchange.engine import Engine
from exchange.gateway import view as views
from exchange.gateway.view import View
from exchange.journal import sealed
from exchange.journal.storage import LocalStorage
from exchange.marketdata import prints
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    EVENT_BYTES,
    CommandKind,
    EventKind,
    KillScope,
)

BATCHES = 40


@pytest.mark.parametrize("seed", range(6))
def test_a_view_that_was_packed_goes_on_as_the_one_that_was_not(seed: int) -> None:
    generator, engine, sequence = Generator(seed), Engine(), 1
    view, other = View(), View()
    data = generator.opening()
    for number in range(BATCHES):
        events = engine.apply(data, sequence, generator.stamp)
        generator.learn(events)
        kinds = enumerate(data[::COMMAND_BYTES], sequence)
        texts = {n: f"c{n % 50}" for n, kind in kinds if kind <= CommandKind.REPLACE}
        for one in (view, other):
            one.take(1 + number // 15, generator.stamp, events, texts)
        if number % 9 == 4:
            other = View.unpack(other.pack())
        sequence += len(data) // COMMAND_BYTES
        data = generator.batch(60)
    assert other.pack() == view.pack()
    assert known(other) == known(view)
    assert {n: d.checksum() for n, d in other.depths().items()} == {
        n: d.checksum() for n, d in view.feed.depths.items() if d.sequence
    }
    shown = ("top", "depth", "queue", "statistics", "trades", "state")
    channels = [f"{kind}.{code}" for kind in shown for code in view.feed.instruments.by_code]
    for channel in (*channels, *prints.CHANNELS):
        assert list(other.feed.snapshot(channel, sequence)) == list(
            view.feed.snapshot(channel, sequence)
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_view_is_the_same_wherever_batches_end(seed: int) -> None:
    """An instrument may be settled and expire in one batch."""
    generator, engine, sequence = Generator(seed, EXPIRING), Engine(), 1
    whole, apart = View(), View()
    data = generator.opening()
    for _ in range(BATCHES):
        events = engine.apply(data, sequence, generator.stamp)
        generator.learn(events)
        whole.take(1, generator.stamp, events, {})
        for _, rows in groupby(EVENT.iter_unpack(events), key=itemgetter(0)):
            one = b"".join(EVENT.pack(*row) for row in rows)
            apart.take(1, generator.stamp, one, {})
        sequence += len(data) // COMMAND_BYTES
        data = generator.batch(60)
    assert known(whole) == known(apart)
    assert len(whole.feed.instruments.by_id) > 6


def known(view: View) -> Any:
    """The figures behind every answer, taken apart."""
    accounts = {
        number: (
            one.cash,
            one.killed,
            {i: (h.net, h.cost) for i, h in one.holdings.items()},
            [order.terms() for order in one.orders.values()],
            one.ids,
        )
        for number, one in view.accounts.by_id.items()
    }
    instruments = {
        number: (one.describe(), one.low_ticks, one.high_ticks, one.mark, one.settlement_price,
                 one.cause, one.resumes, one.risk, one.protections, one.breakers, one.legs)
        for number, one in view.feed.instruments.by_id.items()
    }  # fmt: skip
    return accounts, instruments, view.feed.instruments.business_date, list(view.accounts.orders)


@asynccontextmanager
async def running(directory: Path, day: int = 0) -> AsyncIterator[Market]:
    market = await Market.start(directory, clock=lambda: START_NS + day * 86_400 * 10**9)
    await market.listen("127.0.0.1", 0)
    try:
        yield market
    finally:
        await market.stop()


def taken(directory: Path) -> Path:
    shadow = Standby(directory, Engine())
    shadow.advance()
    return Path(shadow.write(prove=Engine()).file)


def views_at(directory: Path) -> list[Path]:
    """The files with a View, newest first."""
    return [Path(name) for _, _, name in sealed.list_files(LocalStorage(directory), standby.KIND)]


async def perform(market: Market, *wishes: requests.AnyRequest) -> None:
    for wish in wishes:
        await market.operations.perform(wish)


def picture(market: Market) -> Any:
    desk, hub = market.desk, market.hub
    view = View()
    view.feed, view.accounts = hub.feed, hub.accounts
    return (
        market.operations.state(),
        desk.terms,
        desk.factors,
        desk.accounts,
        desk.mode,
        known(view),
        hub.epoch,
        hub.sequence,
    )


async def test_a_market_started_from_a_view_is_the_one_that_read_the_stream(tmp_path: Path) -> None:
    quick, plain = tmp_path / "quick", tmp_path / "plain"
    async with running(quick) as market:
        await perform(
            market,
            requests.Deposit(account=1, amount="5000"),
            requests.Halt(code="H100Z26"),
            requests.Settle(),
            requests.OpenDay(),
        )
    taken(quick)
    async with running(quick, 1) as market:
        await perform(market, requests.Deposit(account=2, amount="7"), requests.Settle())
    shutil.copytree(quick, plain)
    shutil.rmtree(plain / sealed.FOLDER)
    pictures = []
    for directory in (quick, plain):
        async with running(directory, 2) as market:
            begun = market.hub._begin
            assert (begun == views.START) == (directory == plain)
            await market.operations.cleared()
            quotes = await market.desk.quotes.read()
            pictures.append((*picture(market), quotes))
    assert pictures[0] == pictures[1]


async def test_a_view_grows_with_what_is_listed_and_not_with_the_days(tmp_path: Path) -> None:
    """Only that a day was opened and closed, and records that somebody reads again, are added."""
    record = requests.PutRecord(record='{"operation": "size_fund", "person": "anna"}')
    events, texts = [], []
    async with running(tmp_path) as market:
        for _ in range(4):
            await perform(market, requests.Settle(), requests.OpenDay(), record)
            view = View()
            for one in market.tape.read(*views.START):
                view.take(one.epoch, one.stamp, one.events, dict(one.texts))
            events.append(len(view.events))
            texts.append(len(view.texts))
    assert events[0] > 48 * 5 * EVENT_BYTES
    assert [after - before for before, after in pairwise(events[1:])] == [2 * EVENT_BYTES] * 2
    assert [after - before for before, after in pairwise(texts[1:])] == [2] * 2


async def test_a_view_keeps_the_last_throw_of_a_switch_that_is_on(tmp_path: Path) -> None:
    """A client may throw its switches as often as it likes; a session's ends with the session."""
    async with Live.open(tmp_path) as live:
        desk, client = live.market.desk, await live.client(1)
        for scope in ("session", "account", "session", "account"):
            await client.kill(scope)

        def kept() -> list[int]:
            view = View()
            for one in live.market.tape.read(*views.START):
                view.take(one.epoch, one.stamp, one.events, dict(one.texts))
            view = View.unpack(view.pack())
            switches = {(row[4], row[6], row[7]): row[0] for row in switched(view)}
            assert switches == desk._killed
            return [row[4] for row in switched(view)]

        assert kept() == [KillScope.SESSION, KillScope.ACCOUNT]
        await client.close()
        await until(lambda: len(desk._killed) == 1)
        assert kept() == [KillScope.ACCOUNT]
        await desk.perform([wishes.switch(requests.Kill(account=1), on=False)])
        assert kept() == []


def switched(view: View) -> list[Any]:
    """The throws and releases of kill switches that a View keeps."""
    kinds = (EventKind.KILLED, EventKind.RESUMED)
    return [row for row in EVENT.iter_unpack(view.events) if row[2] in kinds]


def test_what_the_desk_reads_of_records_is_kept() -> None:
    assert {wishes.RECORD_FACTORS, wishes.PROPOSE, wishes.APPROVED} < views.READ_RECORDS


async def test_a_view_that_cannot_be_used_is_told_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path):
        pass
    taken(tmp_path)
    ((_, _, name),) = sealed.list_files(LocalStorage(tmp_path), standby.KIND)
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    async with running(tmp_path) as market:
        assert market.hub._begin == views.START
    assert "damaged" in caplog.text
    later = taken(tmp_path)  # made from the tape
    fresh = Standby(tmp_path, Engine(), fresh=True)
    fresh.advance()
    assert fresh.view is not None
    body = sealed.load(LocalStorage(tmp_path), str(views_at(tmp_path)[0]))[2]
    assert bytes(body) == fresh.view.pack()
    assert views_at(tmp_path)[0].stem[:20] == later.stem[:20]


async def test_without_a_tape_there_is_a_snapshot_alone(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    taken(tmp_path)
    (tmp_path / views_at(tmp_path)[0]).unlink()
    shutil.rmtree(tmp_path / "tape")
    taken(tmp_path)
    assert views_at(tmp_path) == []


@pytest.mark.parametrize("name", ["view.py", "accounts.py", "accounts.pxd"])
def test_sources_are_what_is_compiled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    room = "exchange/gateway"
    others = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(views._ROOT / "exchange", tmp_path / "exchange", ignore=others)
    monkeypatch.setattr(views, "_ROOT", tmp_path)
    before = views.sources()
    with (tmp_path / room / name).open("a") as file:
        file.write("\n")
    assert views.sources() != before


async def test_a_view_of_other_sources_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(standby, "sources", lambda: 7)
        taken(tmp_path)
    async with running(tmp_path) as market:
        assert market.hub._begin == views.START
    assert "other layout" in caplog.text
