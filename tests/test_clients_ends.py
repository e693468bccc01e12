"""What a client that ends, or whoever gives up waiting for it, leaves to the others, without
I/O."""

import asyncio
import gc

import pytest
from test_clients import CODE, accepted
from test_clients_breaks import Clogged

from clients import errors
from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.session import State
from clients.transport import _alone


async def test_who_still_waits_for_what_another_gave_up_gets_it() -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", backoff=Backoff(first_s=0.001), connect=clogged.connect)
    await client.connect()
    clogged.clogged = True
    order = client.build.enter(CODE, "buy", 1, "2.650", client_order_id="a")
    one = asyncio.create_task(client.enter(CODE, "buy", 1, "2.650", client_order_id="a"))
    many = asyncio.create_task(client.send_batch([order]))
    await asyncio.sleep(0)
    with pytest.raises(errors.ValueRefused):  # gives up what it has in common with the others
        await client.send_batch([order, client.build.enter(CODE, "sell", 2, client_order_id="a")])
    one.cancel()
    await asyncio.wait([one])
    clogged.cut()
    async with asyncio.timeout(20):
        while order not in clogged.sent[-1]:
            await asyncio.sleep(0.001)
    await client.close()
    assert isinstance((await many)[0], errors.OutcomeUnknown)


async def test_a_batch_keeps_the_answers_that_came_before_the_end() -> None:
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", connect=clogged.connect)
    await client.connect()
    orders = [client.build.enter(CODE, "buy", 1, client_order_id=name) for name in "ab"]
    asking = asyncio.create_task(client.send_batch(orders))
    clogged.answer(answer := accepted(7, "b"))
    async with asyncio.timeout(20):
        while "b" not in client.orders:
            await asyncio.sleep(0.001)
    await client.close()
    unknown, known = await asking
    assert isinstance(unknown, errors.OutcomeUnknown) and known == answer


async def test_an_end_that_is_cancelled_or_asked_for_twice_is_one() -> None:
    class Slow(Clogged):
        closed = False

        async def close(self) -> None:
            await may_close.wait()
            self.closed = True

    may_close, slow = asyncio.Event(), Slow()
    client = AsyncClient("ws://nowhere", connect=slow.connect)
    await client.connect()
    stream, asking = client.events(), asyncio.create_task(client.enter(CODE, "buy", 1))
    first, second = (asyncio.create_task(client.close()) for _ in range(2))
    while client._session.state is not State.DOWN:
        await asyncio.sleep(0)
    third = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled() and not second.done() and not third.done()
    may_close.set()
    await asyncio.wait_for(asyncio.gather(second, third), 20)
    assert slow.closed and [event async for event in stream] == []
    with pytest.raises(errors.ConnectionLost):
        await asking


async def test_who_gave_up_waiting_for_room_leaves_no_error_behind() -> None:
    loop, told = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: told.append(context))
    room = loop.create_future()

    async def sending(room: asyncio.Future[None]) -> None:
        await room

    gone = asyncio.create_task(_alone(sending(room)))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    room.set_exception(ConnectionError("broken"))
    await asyncio.sleep(0)
    del room, gone
    gc.collect()
    assert told == []
