"""Blocking clients and the threads that use them. Budget: 2 seconds."""

import asyncio
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from clients.decimals import PriceScale
from clients.errors import NotConnected
from clients.events import Connected, EventStream
from clients.feed import Feed
from clients.keys import Key
from clients.loop import Blocking, blocking
from clients.portfolio import Order, Portfolio
from clients.requests import Requests
from clients.session import Session
from clients.sync import Client as SyncClient
from clients.sync import Events
from exchange.messages.wire import InstrumentData, Instruments

CODE = "H100Z26"


class Asynchronous:
    """A client whose calls end some turns of the loop after its own end, or never."""

    def __init__(self) -> None:
        self.events = EventStream(lambda _: None)
        self._closed = asyncio.Event()

    async def close(self) -> None:
        self._closed.set()

    async def ends(self, turns: int) -> int:
        await self._closed.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    async def turns(self, turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    async def never_ends(self) -> None:
        await asyncio.Event().wait()

    async def next_event(self) -> object:
        return await anext(self.events)


class Client(Blocking[Asynchronous]):
    ends = blocking(Asynchronous.ends)
    turns = blocking(Asynchronous.turns)
    never_ends = blocking(Asynchronous.never_ends)
    next_event = blocking(Asynchronous.next_event)

    def __init__(self) -> None:
        super().__init__(Asynchronous)


def test_who_waits_in_another_thread_is_told_when_a_client_is_closed() -> None:
    """What ends with the client ends as it does; what would not is cut off. Nobody hangs."""
    client, told = Client(), dict[object, object]()
    waits = threading.Barrier(8)

    def call(turns: int | None) -> None:
        waits.wait()
        try:
            told[turns] = client.never_ends() if turns is None else client.ends(turns)
        except NotConnected as error:
            told[turns] = str(error)

    def close(name: str) -> None:
        waits.wait()
        client.close()
        told[name] = "closed"

    threads = [threading.Thread(target=call, args=(turns,), daemon=True)
               for turns in (0, 1, 2, 3, None)]  # fmt: skip
    threads += [threading.Thread(target=close, args=(name,), daemon=True) for name in "ab"]
    for thread in threads:
        thread.start()
    waits.wait()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    shut = "the client is closed"
    assert told.pop("a") == told.pop("b") == "closed" and told.pop(None) == shut
    assert all(outcome in (turns, shut) for turns, outcome in told.items())
    with pytest.raises(NotConnected):
        client.ends(0)
    client.close()


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C once the event is set; again if it was lost: in a finalizer Python cannot raise."""
    main, over, ready = threading.main_thread().ident or 0, threading.Event(), threading.Event()

    def press() -> None:
        wait = 0.05
        ready.wait()
        while not over.wait(wait):
            signal.pthread_kill(main, signal.SIGINT)
            wait = 1.0

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield ready
    finally:
        over.set()
        ready.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_takes_no_event_along() -> None:
    """Who was interrupted as he waited for an event gets it when he asks again."""
    client = Client()
    try:
        with interrupts() as ready, pytest.raises(KeyboardInterrupt):
            ready.set()
            client.next_event()
        came = Connected(1, 1)

        async def put() -> None:
            client.asynchronous.events.put(came)

        client.wait(put())
        assert client.next_event() is came
    finally:
        client.close()


def _interrupted(step: int, call: Callable[[], object]) -> bool:
    """Interrupt a call at that step at which Python looks for signals; False if it has no more."""
    steps = 0

    def watch(frame: FrameType, event: str, _: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_return")
        if steps == step:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(watch)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    assert steps < step, "the interrupt was lost"
    return False


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # interrupted before it began
def test_an_interrupt_at_any_step_leaves_a_client_whole() -> None:
    client, answers = Client(), list[int]()

    def ask() -> None:
        answers.append(client.turns(1))

    step = 1
    while _interrupted(step, ask) and step < 500:
        step += 1
        count = len(answers)
        other = threading.Thread(target=ask, daemon=True)
        other.start()
        other.join(5)
        assert len(answers) > count, f"the loop stands still, after step {step - 1}"
    assert 10 < step < 500
    for step in itertools.count(1):  # by the end of this one it is closed, and stays so
        if not _interrupted(step, client.close):
            break
    with pytest.raises(NotConnected):
        client.turns(1)


def test_who_stops_listening_as_another_closes_the_client_is_told_of_nothing() -> None:
    client = SyncClient("ws://nowhere")
    with client.events():
        another = threading.Thread(target=client.close)
        another.start()
        another.join()


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_asked_after_the_last_turn_of_the_loop_is_refused(closed: bool) -> None:
    client, told = Client(), list[str]()
    loop = client.loop._loop
    close = loop.close

    def ask() -> None:
        try:
            client.turns(1)
        except NotConnected as error:
            told.append(str(error))

    asks = threading.Thread(target=ask, daemon=True)

    def last() -> None:
        if closed:
            close()
            asks.start()
        else:
            asks.start()
            while not client.loop._asked:
                time.sleep(0)
            close()

    loop.close = last  # type: ignore[method-assign]
    client.close()
    asks.join(20)
    assert told == ["the client is closed"]


def test_what_came_before_a_client_was_closed_can_still_be_read() -> None:
    client = Client()
    stream = client.asynchronous.events
    for session in (1, 2, 3):
        stream.put(Connected(1, session))
    events = Events(client, stream)
    assert next(events) == Connected(1, 1)
    client.close()
    assert events.next_within(0) == Connected(1, 2)
    assert list(events) == [Connected(1, 3)] and events.next_within(0) is None


@pytest.mark.parametrize("kind", ["ids", "nonces"])
def test_no_two_threads_get_one_id_or_nonce(kind: str) -> None:
    """Two orders with one id are one order."""
    session, key = Session(started_ns=1), Key.hmac("k1", "secret")
    took: list[object] = []

    def take() -> None:
        for _ in range(5_000):
            took.append(session.next_id() if kind == "ids" else key.next_nonce(7))

    switches = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switches)
    assert len(took) == len(set(took)) == 20_000


def test_requests_are_built_while_orders_come_and_go() -> None:
    """``Client.build`` works in its user's thread, reports come in the loop's."""
    feed, portfolio = Feed(lambda: ""), Portfolio()
    data = InstrumentData(code=CODE, product="H100", expiry="2026-12", multiplier=744,
                          tick="0.001", decimals=3)  # fmt: skip
    feed.adopt(Instruments(sequence=1, instruments=[data]))
    assert feed.scales.keys() == {CODE} and isinstance(feed.scales[CODE], PriceScale)
    ids = (str(number) for number in itertools.count())
    build = Requests(feed, portfolio, lambda: next(ids))
    ended = threading.Event()

    def report() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            text = str(number % 500)
            if portfolio.orders.pop(text, None) is None:
                portfolio.orders[text] = Order(
                    client_order_id=text, order_id=text, instrument=CODE, side="buy",
                    price="2.650", quantity=1, leaves_quantity=1,
                )  # fmt: skip

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reports = threading.Thread(target=report, daemon=True)
    reports.start()
    try:
        for _ in range(8_000):
            build.replace(order_id="none", quantity=1, price="2.650")
    finally:
        ended.set()
        reports.join()
        sys.setswitchinterval(before)
