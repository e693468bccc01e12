"""Uses of a client that cannot end well, and that end by name at once, without I/O."""

import asyncio
import copy
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable

import pytest
from served import CHECKOUT
from test_clients import CODE, ready
from test_clients_breaks import Clogged

from clients import errors, link
from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.session import Session
from clients.strip import split
from exchange.messages import wire

KINDS = [
    errors.LogonRefused("NONCE", "why", retryable=True),
    errors.RequestRefused("NOT_FOUND", "why", retryable=True, retry_after_ms=5),
    errors.TooMany("requests", 3),
    errors.OutcomeUnknown("id"),
    errors.Gap("depth.X", 1, 2),
    errors.BadChecksum("depth.X", 9),
    errors.ValueRefused("a price"),
]


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_an_exception_survives_its_way_out_of_a_worker_process(error: errors.HourbookError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error) and str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("msgpack", [False, True])
async def test_what_no_frame_can_carry_is_refused_before_it_is_sent(msgpack: bool) -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect, msgpack=msgpack)
    await client.connect()
    sent = len(clogged.sent[0])
    good = client.build.enter(CODE, "buy", 1, "2.650")
    large = client.build.enter("X" * 20_000, "buy", 1, "2.650")
    for asked in (
        client.enter("X" * 20_000, "buy", 1, "2.650"),
        client.send_batch([good, large]),
        client.preview(large),
        client.subscribe(*(f"trades.{CODE}.{number:030d}" for number in range(400))),
        client.query_order("x" * 20_000),
        client.enter("\ud800", "buy", 1, "2.650"),
        client.cancel(order_id="\udfff"),
    ):
        with pytest.raises(errors.ValueRefused, match=r"the limit is 16384|cannot be sent"):
            await asked
    assert len(clogged.sent) == 1 and len(clogged.sent[0]) == sent
    assert not client._session.pending
    await client.close()


async def test_a_strip_whose_prices_lack_a_month_is_not_entered_at_any_price() -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect)
    await client.connect()
    strip = split(14_000, {CODE: 744, "H100F27": 744})
    with pytest.raises(errors.ValueRefused, match="no price for H100F27"):
        await client.enter_strip(strip, "buy", {CODE: "2.650", "H100FZ7": "2.650"})
    asked = asyncio.create_task(client.enter_strip(strip, "buy", {CODE: "2.650", "H100F27": None}))
    async with asyncio.timeout(20):
        while not isinstance(clogged.sent[0][-1], list):
            await asyncio.sleep(0)
    sent = clogged.sent[0][-1]
    assert [(one.instrument, one.type) for one in sent] == [(CODE, "limit"), ("H100F27", "market")]
    await client.close()
    await asked


async def test_a_batch_of_what_is_no_command_leaves_nothing_to_be_sent_later() -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect)
    await client.connect()
    batch = [client.build.enter(CODE, "buy", 1, "2.650"), None]
    with pytest.raises(AttributeError):
        await client.send_batch(batch)  # type: ignore[arg-type]
    assert not client._session.pending
    await client.close()


async def test_a_client_that_ended_can_be_asked_for_ever() -> None:
    """All calls raise what ended it, one exception, whose traceback does not grow with them."""
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect)
    await client.connect()
    client._link._finish(errors.LogonRefused("BAD_SIGNATURE"))
    depths, ends, stream = set(), set(), client.events()
    for _ in range(5):
        for asked in (client.cancel("a"), client.send_batch([client.build.cancel("a")])):
            with pytest.raises(errors.LogonRefused) as caught:
                await asked
            depths.add(len(caught.traceback))
        with pytest.raises(errors.LogonRefused) as ended:
            await anext(stream)
        ends.add(len(ended.traceback))
    assert len(depths) <= 2 and len(ends) == 1  # of either call, of the stream
    await client.close()


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_breaks_no_connection_and_hides_no_silence(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(link, "WATCH_SECONDS", 0.001)
    clogged, clock = Clogged(), [time.time_ns()]
    client = AsyncClient("ws://nowhere", connect=clogged.connect, clock_ns=lambda: clock[0])
    await client.connect()
    clock[0] += hours * 3_600_000_000_000
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert len(clogged.sent) == 1 and client.is_ready
    client._session._beat_ns = 1_000_000  # by which the exchange has been silent for long
    async with asyncio.timeout(20):
        while len(clogged.sent) == 1:
            await asyncio.sleep(0.001)
    await client.close()


@pytest.mark.parametrize(("pause", "attempts"), [(3600.0, [0, 1, 2, 3, 4]), (0.0, [0] * 5)])
async def test_a_connection_that_breaks_sooner_than_it_was_waited_for_is_no_success(
    monkeypatch: pytest.MonkeyPatch, pause: float, attempts: list[int]
) -> None:
    made: list[int] = []
    first, sleep = Clogged(), asyncio.sleep

    class Breaking(Clogged):
        async def frames(self) -> AsyncIterator[list[wire.AnyResponse]]:
            yield await self._frames.get()  # the list of instruments, and no more

    class Pauses(Backoff, frozen=True):
        def seconds(self, attempt: int, chance: Callable[[], float]) -> float:
            made.append(attempt)
            return pause

    async def connect(url: str, *, msgpack: bool) -> Clogged:
        if not first.sent:
            return await first.connect(url, msgpack=msgpack)
        later = Breaking()
        later.sent.append([])
        return later

    client = AsyncClient("ws://nowhere", connect=connect, backoff=Pauses())
    await client.connect()
    monkeypatch.setattr(asyncio, "sleep", lambda s: sleep(0 if s == pause else s))
    first.cut()
    async with asyncio.timeout(20):
        while len(made) < 5:
            await sleep(0.001)
    await client.close()
    assert made[:5] == attempts


@pytest.mark.parametrize(("name", "number"), [("TIMESTAMP", 103), ("KEY_LOCKED", 106)])
def test_what_passes_in_time_ends_only_who_was_never_logged_on(name: str, number: int) -> None:
    refused = wire.Rejected(number=number, name=name, op="logon")
    known, unknown = ready(), Session("key", "secret", started_ns=1)
    known.lost()
    for session, again in ((known, True), (unknown, False)):
        session.connected(1)
        with pytest.raises(errors.LogonRefused) as raised:
            session.receive(refused, 1)
        assert raised.value.retryable is again
    assert ("this machine's clock" in str(raised.value)) == (name == "TIMESTAMP")


def test_a_refused_time_names_the_clock_over_http_too() -> None:
    refused = wire.Rejected(number=103, name="TIMESTAMP")
    assert "this machine's clock" in str(errors.refusal(refused))


FORKED = """
import os, signal
from clients.errors import NotConnected
from clients.rest import Rest

rest = Rest("ws://nowhere")
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    rest.close()
    raise SystemExit(os.waitstatus_to_exitcode(status))
signal.alarm(20)  # ends a child that hangs
try:
    rest.contracts()
except NotConnected as error:
    assert "of another process" in str(error), error
    rest.close()
    os._exit(3)
"""


def test_a_blocking_client_hangs_in_no_forked_process() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], cwd=CHECKOUT)
    assert done.returncode == 3


async def test_an_id_that_is_no_text_is_refused_by_name() -> None:
    client = AsyncClient("ws://nowhere", connect=Clogged().connect)
    await client.connect()
    with pytest.raises(errors.ValueRefused, match="id 5 is not of the form"):
        await client.enter(CODE, "buy", 1, "2.65", client_order_id=5)  # type: ignore[arg-type]
    assert isinstance(client.build.cancel("a"), wire.Cancel)
    await client.close()
    await asyncio.sleep(0)
