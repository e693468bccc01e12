"""The async client on a real market, over a wire that a test can cut. Budget: 20 seconds."""

import asyncio
import random
from pathlib import Path
from typing import Final

import pytest
from live import CODE, QUICK, Cable, Live, clock_ns, opened_live, until

from clients import errors
from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.events import Connected, Disconnected, EventStream
from clients.keys import Key
from exchange.app.requests import Halt, Resume
from exchange.messages import wire
from exchange.sim.trader import encoded_report

SIDES: Final[tuple[wire.SideText, wire.SideText]] = ("buy", "sell")


live = opened_live  # a fixture


async def middle(client: AsyncClient) -> int:
    """Ticks in the middle of the instrument's price limits."""
    await client.subscribe(f"state.{CODE}")
    state, scale = client.states[CODE], client.scale(CODE)
    return (scale.read(state.low_limit) + scale.read(state.high_limit)) // 2


def waiting(stream: EventStream) -> list[object]:
    """What a stream holds now."""
    held: list[object] = list(stream._events)
    stream._events.clear()
    return held


def kinds_of(stream: EventStream, kinds: set[type]) -> set[type]:
    """The kinds with those of what a stream holds now."""
    kinds.update(type(event) for event in waiting(stream))
    return kinds


@pytest.mark.parametrize("msgpack", [False, True])
async def test_an_order_lives_through_all_it_can(live: Live, msgpack: bool) -> None:
    client = await live.client(1, msgpack=msgpack)
    price = await middle(client)
    entered = await client.enter(CODE, "buy", 10, price, client_order_id="mine")
    assert isinstance(entered, wire.Accepted) and not entered.duplicate
    reduced = await client.reduce("mine", quantity="3")
    assert isinstance(reduced, wire.Reduced) and reduced.leaves_quantity == "7"
    replaced = await client.replace("mine", quantity=7, price=price - 1)
    assert isinstance(replaced, wire.Replaced) and not replaced.priority_kept
    order = client.orders["mine"]
    assert (order.price, order.leaves_quantity) == (client.price_text(CODE, price - 1), 7)
    cancelled = await client.cancel(order_id=order.order_id)
    assert isinstance(cancelled, wire.Cancelled)
    assert client.orders == {}
    again = await client.cancel("mine")
    assert isinstance(again, wire.Rejected) and again.name == "NOT_FOUND"


async def test_the_same_id_is_the_same_order(live: Live) -> None:
    client = await live.client(1)
    price = await middle(client)
    first = await client.enter(CODE, "buy", 1, price, client_order_id="once")
    second = await client.enter(CODE, "buy", 1, price, client_order_id="once")
    assert isinstance(first, wire.Accepted) and isinstance(second, wire.Accepted)
    assert second.duplicate and second.order_id == first.order_id
    other = await client.enter(CODE, "buy", 2, price, client_order_id="once")
    assert isinstance(other, wire.Rejected) and other.name == "DUPLICATE_DIFFERENT"
    assert list(client.orders) == ["once"] and client.orders["once"].quantity == 1


async def test_a_reject_is_an_outcome_and_says_why(live: Live) -> None:
    client = await live.client(1)
    outcome = await client.enter(CODE, "buy", 1, "9999")
    assert isinstance(outcome, wire.Rejected)
    assert outcome.name == "PRICE_LIMIT" and outcome.field == "price"
    with pytest.raises(errors.ValueRefused, match="float"):
        await client.enter(CODE, "buy", 1, 3.2)  # type: ignore[arg-type]
    with pytest.raises(errors.RequestRefused) as refused:
        await client.subscribe("depth.GOLD")
    assert refused.value.reason == "NOT_FOUND"


async def test_books_of_two_clients_follow_the_engine(live: Live) -> None:
    trader, watcher = await live.client(1), await live.client(2, msgpack=True)
    price = await middle(trader)
    await watcher.subscribe(f"depth.{CODE}")
    chance = random.Random(7)
    for _ in range(60):
        side, away = chance.choice(SIDES), chance.randint(-3, 8)
        ticks = price - away if side == "buy" else price + away
        await trader.enter(CODE, side, chance.randint(1, 9), ticks, self_trade="decrement")
        if chance.random() < 0.3 and trader.orders:
            await trader.cancel(chance.choice(list(trader.orders)))
    number = trader.instruments[CODE].instrument_id
    bids, asks = live.market.engine.book(number, 0)
    book = watcher.book(CODE)
    await until(lambda: book.bids() == [level[:2] for level in bids])
    assert book.is_live and book.asks() == [level[:2] for level in asks] and book.repairs == 0


async def test_a_spoilt_book_repairs_itself(live: Live) -> None:
    client = await live.client(1)
    price = await middle(client)
    await client.subscribe(f"depth.{CODE}")
    await client.enter(CODE, "buy", 1, price)
    book = client.book(CODE)
    await until(lambda: book.best_bid == (price, 1))
    book.sequence -= 1  # as if a message had been lost
    await client.enter(CODE, "buy", 2, price)
    await until(lambda: book.repairs == 1)
    assert book.is_live and book.best_bid == (price, 3) and isinstance(book.fault, errors.Gap)


async def test_an_order_in_flight_when_the_wire_is_cut_exists_once(live: Live) -> None:
    cable, url = await live.cable()
    client = await live.client(1, url=url)
    other = await live.client(2)
    price = await middle(client)
    events = client.events()
    cable.silent = True  # the request gets through, its answer does not
    entering = asyncio.create_task(client.enter(CODE, "buy", 5, price, client_order_id="flight"))
    accounts = live.market.hub.accounts
    await until(lambda: len(accounts.by_id[1].orders) == 1)
    sold = await other.enter(CODE, "sell", 2, price)  # a trade that the client cannot see yet
    assert isinstance(sold, wire.Accepted)
    cable.cut()
    outcome = await entering
    assert isinstance(outcome, wire.Accepted) and not outcome.duplicate
    await until(lambda: client.positions == {CODE: 2} and client.is_ready)
    assert client.orders["flight"].leaves_quantity == 3
    assert len(accounts.by_id[1].orders) == 1
    kinds = [type(event) for event in waiting(events)][:4]  # then its channels are joined again
    assert kinds == [Disconnected, wire.Accepted, wire.Execution, Connected]


async def test_a_request_that_never_arrived_is_sent_again(live: Live) -> None:
    cable, url = await live.cable()
    client = await live.client(1, url=url)
    price = await middle(client)
    cable.cut()
    # The break has not been noticed here yet, so the request goes into a dead wire.
    outcome = await client.enter(CODE, "buy", 5, price, client_order_id="again")
    assert isinstance(outcome, wire.Accepted)
    assert list(client.orders) == ["again"] and client.orders["again"].leaves_quantity == 5


@pytest.mark.parametrize("seed", [3, 4])
async def test_under_many_cuts_no_report_is_lost_or_doubled(live: Live, seed: int) -> None:
    """Cuts between frames and, half of them, after any byte of one, either way."""
    cable, url = await live.cable()
    client = await live.client(1, url=url)
    steady = await live.client(1)  # another connection of the same account hears the truth
    other = await live.client(2)
    price = await middle(steady)
    got, truth = client.events(), steady.events()
    chance = random.Random(seed)

    async def trade() -> None:
        for number in range(120):
            side, opposite = SIDES if number % 2 else SIDES[::-1]
            try:
                await client.enter(CODE, side, 2, price, client_order_id=f"n{number}")
            except errors.NotConnected:
                await asyncio.sleep(0.01)
            await other.enter(CODE, opposite, 1, price)

    trading = asyncio.create_task(trade())
    while not trading.done():
        await asyncio.sleep(chance.uniform(0.0, 0.08))
        if chance.random() < 0.5:
            cable.cut_after(chance.randint(1, 3_000))
            continue
        cable.silent = chance.random() < 0.5
        await asyncio.sleep(chance.uniform(0.0, 0.02))
        cable.cut()
    await trading
    end = await steady.enter(CODE, "buy", 1, price - 50, client_order_id="end")
    assert isinstance(end, wire.Accepted)
    await until(lambda: "end" in client.orders)
    assert cable.connections > 3
    assert reports(waiting(got)) == reports(waiting(truth))
    assert client.positions == steady.positions
    assert {k: o.leaves_quantity for k, o in client.orders.items()} == {
        k: o.leaves_quantity for k, o in steady.orders.items()
    }


def reports(events: list[object]) -> list[bytes]:
    """The account's own stream, without the second answers to repeated requests."""
    kept = (wire.OrderReport, wire.Settled, wire.CashMoved)
    return [encoded_report(event) for event in events if isinstance(event, kept)]


async def test_a_client_resumes_where_another_one_stopped(live: Live) -> None:
    first = await live.client(1)
    price = await middle(first)
    await first.enter(CODE, "buy", 5, price, client_order_id="kept")
    position = first.position
    await first.close()
    other = await live.client(2)
    await other.enter(CODE, "sell", 5, price)
    key_id, secret = await live.fund(1)
    second = AsyncClient(live.addresses.ws, key_id, secret, after=position, clock_ns=clock_ns)
    events = second.events()
    async with second:
        told = [event for event in waiting(events) if isinstance(event, wire.OrderReport)]
        assert [type(event) for event in told] == [wire.Execution]
        assert second.positions == {CODE: 5}


async def test_orders_survive_a_break_within_the_grace_time(live: Live) -> None:
    cable, url = await live.cable()
    client = await live.client(1, url=url, cancel_on_disconnect=True, grace_ms=60_000)
    price = await middle(client)
    await client.enter(CODE, "buy", 5, price, client_order_id="safe")
    events = client.events()
    cable.cut()
    connected = None
    while not isinstance(connected, Connected):
        connected = await anext(events)
    await client.refresh()
    assert list(client.orders) == ["safe"]


async def test_orders_are_cancelled_after_the_grace_time(live: Live) -> None:
    cable, url = await live.cable()
    slow = Backoff(first_s=1.0, most_s=1.0)
    client = await live.client(
        1, url=url, cancel_on_disconnect=True, grace_ms=50, backoff=slow, chance=lambda: 0.0
    )
    price = await middle(client)
    await client.enter(CODE, "buy", 5, price, client_order_id="gone")
    events = client.events()
    cable.cut()
    cancelled = None
    while not isinstance(cancelled, wire.Cancelled):
        cancelled = await anext(events)
    assert cancelled.reason == "DISCONNECTED" and client.orders == {}


async def test_a_silent_server_is_left(live: Live) -> None:
    cable, url = await live.cable()
    skip = {"ns": 0}

    client = await live.client(1, url=url, clock_ns=lambda: clock_ns() + skip["ns"])
    before = cable.connections
    cable.silent = True
    skip["ns"] = 400_000_000  # a logon may be no more than a second ahead
    client._session._beat_ns = 100_000_000
    await until(lambda: cable.connections > before)
    cable.silent = False
    cable.cut()
    await until(lambda: client.is_ready)


async def test_who_is_ready_knows_instruments_and_orders(live: Live) -> None:
    """Whoever waits for it beside the task that connects may enter an order at once."""
    first = await live.client(1)
    await first.enter(CODE, "buy", 5, await middle(first), client_order_id="works")
    cable, url = await live.cable()
    client = AsyncClient(url, *await live.fund(1), clock_ns=clock_ns, backoff=QUICK)
    connecting = asyncio.create_task(client.connect())
    for connection in (1, 2):
        while cable.connections < connection or not client.is_ready:
            await asyncio.sleep(0)
        assert CODE in client.instruments and list(client.orders) == ["works"]
        cable.cut()
    await connecting
    await client.close()
    assert not client.is_ready


async def test_an_answer_that_does_not_come_is_unknown_not_refused(live: Live) -> None:
    cable, url = await live.cable()
    client = await live.client(1, url=url)
    price = await middle(client)
    cable.silent, patience = True, client._link._answer_s
    client._link._answer_s = 0.1
    with pytest.raises(errors.OutcomeUnknown):
        await client.enter(CODE, "buy", 5, price, client_order_id="retry")
    client._link._answer_s = patience
    cable.cut()
    await until(lambda: client.is_ready)
    outcome = await client.enter(CODE, "buy", 5, price, client_order_id="retry")
    assert isinstance(outcome, wire.Accepted)
    assert list(client.orders) == ["retry"]


async def test_a_wrong_secret_is_refused_at_once(live: Live) -> None:
    key_id, _ = await live.fund(1)
    with pytest.raises(errors.LogonRefused) as refused:
        await AsyncClient(live.addresses.ws, key_id, "wrong", clock_ns=clock_ns).connect()
    assert refused.value.reason == "BAD_SIGNATURE" and not refused.value.retryable


async def test_a_nonce_that_cannot_be_passed_is_said(live: Live) -> None:
    """Somebody has used the key with a nonce beyond every clock: to wait does not help."""
    key_id, secret = await live.fund(1)
    used = Key.hmac(key_id, secret)
    used.next_nonce((1 << 64) - 3)
    async with AsyncClient(live.addresses.ws, used, clock_ns=clock_ns):
        pass
    late = AsyncClient(live.addresses.ws, key_id, secret, clock_ns=clock_ns, backoff=QUICK)
    with pytest.raises(errors.LogonRefused, match="NONCE"):
        await late.connect()


async def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(errors.ConnectionLost):
        await AsyncClient("ws://127.0.0.1:9").connect()


async def test_what_is_misspelt_is_named_with_what_is_right(live: Live) -> None:
    """Of the slips that every newcomer makes, each says what to do."""
    client = await live.client(1)
    with pytest.raises(errors.ValueRefused, match=f"there is .*{CODE}"):
        client.book(f"{CODE}9")
    with pytest.raises(KeyError, match=f"subscribe to state.{CODE} first"):
        client.states[CODE]
    with pytest.raises(
        errors.RequestRefused, match=rf"no such channel \(books.{CODE}\)"
    ) as refused:
        await client.subscribe(f"depth.{CODE}", f"books.{CODE}")
    assert (refused.value.reason, refused.value.retryable) == ("NOT_FOUND", False)
    shouted = await client.enter(CODE, "BUY", 1, "3.000")  # type: ignore[arg-type]
    assert isinstance(shouted, wire.Rejected) and shouted.field == "side"
    assert shouted.detail == "Invalid enum value 'BUY'; it is one of buy, sell"
    nobody = await client.cancel("nope")
    assert isinstance(nobody, wire.Rejected)
    assert (nobody.name, nobody.instrument) == ("NOT_FOUND", None)
    assert "None" not in repr(nobody)


@pytest.mark.parametrize(
    ("path", "said"), [("/nowhere", "the answer is 404"), ("/api/v1", ""), ("", "")]
)
async def test_an_address_that_is_none_says_so(live: Live, path: str, said: str) -> None:
    base = live.addresses.ws.removesuffix("/ws")
    client = AsyncClient(base + path, clock_ns=clock_ns)
    if not said:
        async with client:
            return
    with pytest.raises(errors.ConnectionLost, match=said):
        await client.connect()
    with pytest.raises(errors.ConnectionLost, match="no TLS there"):
        await AsyncClient(base.replace("ws://", "wss://")).connect()
    with pytest.raises(errors.ConnectionLost, match="nobody listens there"):
        await AsyncClient("ws://127.0.0.1:9").connect()


async def test_public_data_needs_no_key(live: Live) -> None:
    async with AsyncClient(live.addresses.ws) as client:
        await client.subscribe(f"depth.{CODE}", f"state.{CODE}")
        assert client.book(CODE).is_live and client.states[CODE].state == "CONTINUOUS"
        outcome = await client.enter(CODE, "buy", 1, "3.1")
        assert isinstance(outcome, wire.Rejected) and outcome.name == "AUTH_REQUIRED"


async def test_a_second_connect_leaves_a_client_as_it_is(live: Live) -> None:
    client = await live.client(1, cancel_on_disconnect=True)
    await client.enter(CODE, "buy", 1, 3100, client_order_id="mine")
    with pytest.raises(errors.NotConnected, match="connects once"):
        await client.connect()
    assert client.is_ready and (await client.query_order("mine")).state == "working"


async def test_a_client_whose_clock_was_wrong_for_a_while_goes_on(live: Live) -> None:
    """As after a suspended machine wakes up, and before it sets its clock."""
    cable, url = await live.cable()
    behind = [0]
    key = await live.fund(1)
    options = {"backoff": QUICK, "clock_ns": lambda: clock_ns() - behind[0]}
    async with AsyncClient(url, *key, **options) as client:  # type: ignore[arg-type]
        await client.enter(CODE, "buy", 1, 3100, client_order_id="mine")
        behind[0], before = 60 * 1_000_000_000, cable.connections
        cable.cut()
        await until(lambda: cable.connections > before + 2)  # refused meanwhile
        behind[0] = 0
        await until(lambda: client.is_ready)
        assert "mine" in client.orders


async def test_the_orders_of_one_of_several_clients_are_cancelled(live: Live) -> None:
    one, other = await live.client(1), await live.client(1)
    await one.enter(CODE, "buy", 1, 3100, client_order_id="one")
    await other.enter(CODE, "buy", 1, 3100, client_order_id="other")
    assert one.session and one.session != other.session
    await one.mass_cancel(session=one.session)
    await until(lambda: list(one.orders) == ["other"])


async def test_a_closed_client_ends_its_streams(live: Live) -> None:
    client = await live.client(1)
    events = client.events()
    await client.close()
    assert [event async for event in events] == []
    with pytest.raises(errors.NotConnected):
        await client.enter(CODE, "buy", 1, "3.1")


async def test_a_restart_of_the_market_loses_nothing(tmp_path: Path) -> None:
    async with Live.open(tmp_path) as live:
        key_id, secret = await live.fund(1)
        async with AsyncClient(live.addresses.ws, key_id, secret, clock_ns=clock_ns) as client:
            price = await middle(client)
            await client.enter(CODE, "buy", 5, price, client_order_id="old")
            position = client.position
    async with (
        Live.open(tmp_path) as live,
        AsyncClient(live.addresses.ws, key_id, secret, after=position, clock_ns=clock_ns) as client,
    ):
        assert client.orders["old"].leaves_quantity == 5
        assert client.position is not None and client.position.epoch == 2
        outcome = await client.enter(CODE, "buy", 5, price, client_order_id="old")
        assert isinstance(outcome, wire.Accepted) and outcome.duplicate


async def test_a_connected_client_lives_through_a_restart(tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        async with Live.open(tmp_path) as live:
            key = await live.fund(1)
            cable = Cable(live.port)
            url = await cable.open()
            client = AsyncClient(url, *key, backoff=QUICK, clock_ns=clock_ns)
            await client.connect()
            price = await middle(client)
            await client.enter(CODE, "buy", 5, price, client_order_id="old")
            events = client.events()
        async with Live.open(tmp_path) as live:
            cable.port = live.port
            other = await live.client(2)
            await until(lambda: client.is_ready)
            sold = await other.enter(CODE, "sell", 3, price)
            assert isinstance(sold, wire.Accepted)
            await until(lambda: client.positions == {CODE: 3})
            assert client.orders["old"].leaves_quantity == 2
            assert client.states[CODE].state == "CONTINUOUS"
            kinds: set[type] = set()
            await until(lambda: wire.InstrumentState in kinds_of(events, kinds))
            assert {Disconnected, Connected, wire.Execution, wire.InstrumentState} == kinds
            await client.close()
            await cable.close()


@pytest.mark.parametrize("cancels", [False, True])
async def test_no_order_is_accepted_that_its_sender_was_told_is_rejected(
    live: Live, cancels: bool
) -> None:
    """What a proxy holds back when its client is cut off comes in before the next logon is done."""
    cable, url = await live.cable()
    client = await live.client(1, url=url, cancel_on_disconnect=cancels, grace_ms=60_000)
    price = await middle(client)
    cable.hold()
    entering = asyncio.create_task(client.enter(CODE, "buy", 1, price, client_order_id="a"))
    await until(lambda: bool(client._session.pending))
    await live.market.operations.perform(Halt(code=CODE))
    cable.hang_up()
    await until(lambda: entering.done() or cable.connections > 3)
    await live.market.operations.perform(Resume(code=CODE))
    cable.deliver()
    outcome = await entering
    assert isinstance(outcome, wire.Accepted) and not outcome.duplicate, outcome
    await client.refresh()
    assert list(client.orders) == ["a"]
