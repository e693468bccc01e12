"""The client's batches, previews and dead man's switch, on a real market."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from live import Live, clock_ns, until

from clients.backoff import Backoff
from clients.errors import OutcomeUnknown, RequestRefused, ValueRefused
from clients.requests import frames_of
from clients.sync import Client
from exchange.app import trial
from exchange.app.requests import ListContract
from exchange.messages import Limit, wire

CODE = "H100Z26"


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    monkeypatch.setattr(trial, "MARKET_SHARE", 1)
    async with Live.open(tmp_path) as opened:
        yield opened


def middle(live: Live) -> int:
    instrument = live.market.hub.feed.instruments.by_code[CODE]
    return (instrument.low_ticks + instrument.high_ticks) // 2


@pytest.mark.parametrize("msgpack", [False, True])
async def test_many_at_once_and_the_outcome_of_each(live: Live, msgpack: bool) -> None:
    client = await live.client(1, msgpack=msgpack)
    build, price = client.build, middle(live)
    orders = [build.enter(CODE, "buy", 1, price - n, client_order_id=f"b{n}") for n in range(150)]
    outcomes = await client.send_batch(
        [
            *orders,
            build.enter(CODE, "buy", 1, price, post_only=True, time_in_force="IOC"),
            build.cancel("b3"),
            build.replace("b4", quantity=2, price=price - 9, instrument=CODE),
        ]
    )
    assert all(isinstance(one, wire.Accepted) for one in outcomes[:150])
    bad, cancelled, replaced = outcomes[150:]
    assert isinstance(bad, wire.Rejected) and bad.name == "COMBINATION"
    assert isinstance(cancelled, wire.Cancelled) and cancelled.client_order_id == "b3"
    assert isinstance(replaced, wire.Replaced) and replaced.quantity == "2"
    assert len(client.orders) == 149
    again = await client.send_batch(orders[:2])
    assert all(isinstance(one, wire.Accepted) and one.duplicate for one in again)
    assert await client.send_batch([]) == []


def test_frames_are_as_full_as_they_may_be() -> None:
    orders = [
        wire.Enter(client_order_id=f"x{n}", instrument=CODE, side="buy", quantity="1", price="2.6")
        for n in range(250)
    ]
    frames = list(frames_of(orders))
    assert [one for frame in frames for one in frame] == orders
    assert [len(frame) for frame in frames] == [100, 100, 50]
    long = [wire.Cancel(request_id="r" * 36, order_id="9" * 20, manual=True)] * 100
    assert len(wire.encode_json(long)) < Limit.FRAME_BYTES, "so many always fit"
    wide = [
        wire.Enter(client_order_id="x" * 36, instrument="I" * 36, side="sell", quantity="9" * 10,
                   price="9" * 20, type="limit", time_in_force="GTD", post_only=True,
                   self_trade="cancel_oldest", manual=True, expires_ms=1 << 60)
    ] * 100  # fmt: skip
    frames = list(frames_of(wide))
    assert max(len(wire.encode_json(frame)) for frame in frames) <= Limit.FRAME_BYTES
    assert len(frames) == 2


async def test_a_batch_that_cannot_be_meant_sends_nothing(live: Live) -> None:
    client = await live.client(1)
    build, price = client.build, middle(live)
    first = build.enter(CODE, "buy", 1, price, client_order_id="same")
    other = build.enter(CODE, "buy", 2, price, client_order_id="same")
    with pytest.raises(ValueRefused):
        await client.send_batch([first, other])
    assert (await client.query_orders()).orders == []
    (outcome,) = await client.send_batch([other])
    assert isinstance(outcome, wire.Accepted) and not outcome.duplicate


@pytest.mark.parametrize("passing", [0, 1_000, 7_000], ids=["nothing", "half a frame", "answers"])
async def test_under_cuts_each_order_of_a_batch_exists_once(live: Live, passing: int) -> None:
    cable, url = await live.cable()
    steady = Backoff(first_s=0.1, most_s=0.1)
    client = await live.client(1, url=url, backoff=steady, chance=lambda: 0.0)
    orders = [client.build.enter(CODE, "buy", 1, middle(live) - n) for n in range(40)]
    cable.cut_after(passing)
    sending = asyncio.create_task(client.send_batch(orders))
    await until(lambda: not client.is_ready)
    cable.cut_after(1_000)  # the next connection too, once its handshake is through
    await until(lambda: cable.connections == 2)
    assert not sending.done(), "it was cut amid the batch"
    outcomes = await sending
    assert all(isinstance(one, wire.Accepted) for one in outcomes)
    await until(lambda: client.is_ready)  # an answer may come before the session is whole again
    assert cable.connections == 3
    working = (await client.query_orders()).orders
    assert sorted(one.client_order_id for one in working) == sorted(
        one.client_order_id for one in orders
    )


async def test_an_answer_that_does_not_come_is_unknown(live: Live) -> None:
    cable, url = await live.cable()
    client = await live.client(1, url=url)
    cable.silent, client._link._answer_s = True, 0.1
    (outcome,) = await client.send_batch([client.build.enter(CODE, "buy", 1, middle(live))])
    assert isinstance(outcome, OutcomeUnknown)


async def test_a_preview_and_a_switch(live: Live) -> None:
    maker, taker = await live.client(1), await live.client(2)
    price = middle(live)
    await maker.enter(CODE, "sell", 3, price)
    seen = await taker.preview(taker.build.enter(CODE, "buy", 5, price))
    assert seen.executed_quantity == "3" and seen.leaves_quantity == "2" and not seen.refused
    assert taker.orders == {} and float(seen.required) > float(seen.required_before) == 0
    with pytest.raises(RequestRefused, match="UNKNOWN_INSTRUMENT"):
        await taker.preview(wire.Enter(client_order_id="x", instrument="NONE", side="buy",
                                       quantity="1", price="1"))  # fmt: skip
    assert (await maker.cancel_after(1_000)).due_ms
    async with asyncio.timeout(20):
        while maker.orders:
            await asyncio.sleep(0.05)
    assert (await maker.cancel_after(0)).due_ms is None


async def test_the_blocking_client_has_them_too(live: Live) -> None:
    key = await live.fund(3)
    price = middle(live)

    def work() -> None:
        with Client(live.addresses.ws, *key, clock_ns=clock_ns) as client:
            build = client.build
            (outcome,) = client.send_batch([build.enter(CODE, "buy", 1, price)])
            assert isinstance(outcome, wire.Accepted)
            assert client.preview(build.enter(CODE, "buy", 1, price)).leaves_quantity == "1"
            assert client.cancel_after(60_000).due_ms

    await asyncio.to_thread(work)


async def test_a_preview_of_a_combination_says_what_its_legs_leave(live: Live) -> None:
    spread = "H100Z26-H100F27"
    await live.market.operations.perform(ListContract(code=spread))
    maker, taker = await live.client(1), await live.client(2)
    await maker.enter(spread, "sell", 3, 5)
    order = taker.build.enter(spread, "buy", 5, 6)
    seen = await taker.preview(order)
    assert (seen.executions, seen.leaves_quantity) == ([("0.005", "3")], "2")
    before = await taker.query_account()
    (outcome,) = await taker.send_batch([order])
    assert isinstance(outcome, wire.Accepted)
    after = await taker.query_account()
    assert (seen.cash, seen.required, seen.free) == (after.cash, after.required, after.free)
    assert Decimal(seen.cash_change) == Decimal(after.cash) - Decimal(before.cash) != 0
    assert seen.required_before == before.required
