"""Answers that come when nobody waits for them any more, and what a retry makes of them, without
I/O: the exchange remembers an account's last 256 ids, so a retry must not depend on that alone."""

import asyncio

import pytest
from test_clients import CODE, accepted, enter, execution, ready
from test_clients_breaks import Clogged

from clients import errors, session
from clients.aio import AsyncClient
from exchange.messages import wire

NOW = 1_800_000_000 * 1_000_000_000
SHORT = 0.05


def reject(client_order_id: str = "a", **fields: object) -> wire.Rejected:
    return wire.Rejected(number=601, name="THROTTLED", client_order_id=client_order_id,
                         sequence=9, index=0, **fields)  # type: ignore[arg-type]  # fmt: skip


async def until_known(client: AsyncClient, name: str) -> None:
    async with asyncio.timeout(20):
        while name not in client.orders:
            await asyncio.sleep(0.001)


def orders_of(clogged: Clogged) -> list[object]:
    frames = [one if isinstance(one, list) else [one] for one in clogged.sent[0]]
    return [one for frame in frames for one in frame if isinstance(one, wire.Enter | wire.Cancel)]


@pytest.mark.parametrize("many", [False, True])
async def test_a_retry_of_what_was_answered_late_has_that_answer_and_is_not_sent(
    many: bool,
) -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect, answer_s=20)
    await client.connect()
    client._link._answer_s = SHORT
    orders = [client.build.enter(CODE, "buy", 10, "2.650", client_order_id=name) for name in "ab"]

    async def ask() -> list[object]:
        if many:
            return list(await client.send_batch(orders))
        asked = [client.enter(CODE, "buy", 10, "2.650", client_order_id=name) for name in "ab"]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    assert all(isinstance(one, errors.OutcomeUnknown) for one in await ask())
    answers = [accepted(7, "a"), accepted(8, "b")]
    clogged.answer(*answers)
    await until_known(client, "b")
    assert await ask() == answers and await ask() == answers
    assert orders_of(clogged) == orders
    await client.close()


async def test_a_batch_given_up_halfway_is_sent_again_without_what_was_answered() -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect, answer_s=20)
    await client.connect()
    orders = [client.build.enter(CODE, "buy", 10, "2.650", client_order_id=name) for name in "ab"]
    giving_up = asyncio.create_task(client.send_batch(orders))
    await asyncio.sleep(0)
    clogged.answer(first := accepted(7, "a"))
    await until_known(client, "a")
    giving_up.cancel()
    await asyncio.wait([giving_up])
    again = asyncio.create_task(client.send_batch(orders))
    await asyncio.sleep(0)
    clogged.answer(second := accepted(8, "b"))
    assert await again == [first, second] and orders_of(clogged) == orders
    await client.close()


async def test_who_is_cancelled_with_the_answer_has_it_at_the_retry() -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect, answer_s=20)
    await client.connect()
    asking = asyncio.create_task(client.cancel("a", request_id="c"))
    await asyncio.sleep(0)
    gone = wire.Cancelled(sequence=7, index=0, time=0, order_id="7", client_order_id="a",
                          instrument=CODE, side="buy", quantity="10", reason="REQUESTED",
                          request_id="c")  # fmt: skip
    client._link._session.receive(gone, NOW)
    client._link._settle(("request", "c"), gone)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert await client.cancel("a", request_id="c") == gone
    assert len(orders_of(clogged)) == 1
    await client.close()


def test_a_late_reject_is_no_answer_to_a_retry() -> None:
    one = ready()
    pending = one.ask(enter())
    assert one.sends(pending)
    one.drop([pending])
    one.receive(reject(), NOW)
    assert one.sends(one.ask(enter()))


def test_another_order_under_a_late_id_is_for_the_exchange_to_refuse() -> None:
    one = ready()
    pending = one.ask(enter())
    assert one.sends(pending)
    one.drop([pending])
    one.receive(accepted(7), NOW)
    one.receive(execution(7, quantity=10, leaves=0), NOW)
    assert one.ask(enter()).answer == accepted(7)
    assert one.sends(one.ask(enter(price="2.651")))


def test_what_is_kept_of_late_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LATE_MAX", 2)
    one = ready()
    for sequence, name in enumerate("abc", 7):
        pending = one.ask(enter(name))
        assert one.sends(pending)
        one.drop([pending])
        one.receive(accepted(sequence, name), NOW)
    assert [one.ask(enter(name)).answer is None for name in "cba"] == [False, False, True]
