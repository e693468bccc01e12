"""Keeps one session connected: sockets, tasks and time, and the futures of awaited answers."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from clients.backoff import Backoff
from clients.errors import (
    ConnectionLost,
    HourbookError,
    LogonRefused,
    NotConnected,
    OutcomeUnknown,
    ProtocolError,
)
from clients.events import AnyEvent, Connected, Disconnected, EventStream
from clients.requests import frames_of, measured
from clients.session import Health, Key, Pending, Session, State, key_of
from clients.transport import AnyTransport, Connect
from exchange.messages.wire import AnyCommand, AnyRequest, AnyResponse, LoggedOn, Ping

WATCH_SECONDS: Final = 0.5  # between two checks of the server's silence
FIRST_LOGONS: Final = 5  # attempts of a client's first logon, while refusals are retryable


class Link:
    """A session's connections, one after the other, until ``close`` or a final refusal."""

    def __init__(
        self,
        url: str,
        session: Session,
        *,
        connect: Connect,
        msgpack: bool,
        answer_s: float,
        backoff: Backoff,
        clock_ns: Callable[[], int],
        chance: Callable[[], float],
    ) -> None:
        self._url = url
        self._session = session
        self._connect, self._msgpack, self._answer_s = connect, msgpack, answer_s
        self._backoff, self._clock_ns, self._chance = backoff, clock_ns, chance
        self._transport: AnyTransport | None = None
        self._ready = asyncio.Event()
        self._was_ready = False
        self._ready_at = 0.0  # by the loop's clock
        self._running: asyncio.Task[None] | None = None
        self._failure: HourbookError | None = None
        self._answers: dict[Key, asyncio.Future[AnyResponse]] = {}
        self._streams: list[EventStream] = []

    @property
    def is_ready(self) -> bool:
        """Whether a request can be sent now."""
        return self._ready.is_set()

    def events(self) -> EventStream:
        """Return a stream of everything that arrives from now on."""
        stream = EventStream(self._forget)
        if self._failure is not None or (self._running is not None and self._running.done()):
            stream.end(self._failure)
        else:
            self._streams.append(stream)
        return stream

    def _forget(self, stream: EventStream) -> None:
        with contextlib.suppress(ValueError):
            self._streams.remove(stream)

    def check_unused(self) -> None:
        """Raise NotConnected if it was opened before."""
        if self._running is not None:
            raise NotConnected("a client connects once; make another one")

    async def open(self) -> None:
        """Connect and log on. Raises ConnectionLost, LogonRefused."""
        self.check_unused()
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._ended)
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Disconnect for good; may be repeated, also meanwhile. Streams end."""
        if self._running is None:
            return self._finish(self._failure)
        if not self._running.cancelling():  # twice would interrupt the end of the connection
            self._running.cancel()
        await asyncio.wait([self._running])  # unlike the task itself, it may be cancelled

    def _ended(self, running: asyncio.Task[None]) -> None:
        """End what waits for the client, also with a fault of its own."""
        failure = self._failure
        if not running.cancelled() and (fault := running.exception()) is not None:
            failure = ConnectionLost(f"the client failed: {fault!r}")
            failure.__cause__ = fault
        self._finish(failure)

    def _finish(self, failure: HourbookError | None) -> None:
        self._failure = failure
        self._ready.clear()
        for stream in self._streams:
            stream.end(failure)
        self._streams.clear()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(failure or ConnectionLost("the client was closed"))
                # Marks it as retrieved, even if nobody awaits this answer any more
                future.exception()
        self._answers.clear()

    async def _run(self) -> None:
        """Keep a connection up until cancelled or finally refused."""
        attempt, pause = 0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._stay_connected()
            except LogonRefused as error:
                if not error.retryable or (not self._was_ready and attempt + 1 >= FIRST_LOGONS):
                    return self._finish(error)
            except ConnectionLost as error:
                if not self._was_ready:
                    return self._finish(error)
            # One that breaks sooner than it was waited for, as by what it brings, is no success.
            if self._ready.is_set() and loop.time() - self._ready_at > pause:
                attempt = 0
            self._ready.clear()
            pause = self._backoff.seconds(attempt, self._chance)
            await asyncio.sleep(pause)
            attempt += 1

    async def _stay_connected(self) -> None:
        """Run one connection from its opening to its end. Raises LogonRefused, ConnectionLost."""
        transport = await self._connect(self._url, msgpack=self._msgpack)
        self._transport = transport
        watch = asyncio.create_task(self._watch(transport))
        try:
            first = self._session.connected(_steady_ns(), self._clock_ns())
            await self._send(transport, first)
            if self._session.state is State.READY:
                self._announce()
            async for frame in transport.frames():
                await self._take(transport, frame)
            reason = transport.close_reason
        except (ConnectionLost, ProtocolError) as error:
            reason = str(error)
        finally:
            self._transport = None
            for answer in self._session.lost():
                self._settle(("request", answer.request_id), answer)
            watch.cancel()
            await transport.close()
        if self._ready.is_set():
            self._deliver(Disconnected(reason))
        if not self._was_ready:
            raise ConnectionLost(f"before the logon was answered: {reason}")

    def _announce(self) -> None:
        self._was_ready = True
        self._ready_at = asyncio.get_running_loop().time()
        known = self._session.pending  # without the requests that were given up
        self._answers = {key: one for key, one in self._answers.items() if key in known}
        self._ready.set()
        self._deliver(Connected(self._session.account, self._session.session_id))

    async def _watch(self, transport: AnyTransport) -> None:
        """Send a Ping to a quiet server; close the connection to a dead one."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            health = self._session.health(_steady_ns())
            if health is Health.DEAD:
                return await transport.close()
            if health is Health.QUIET:
                # The reader notices a break as well; a full connection must not stop the watch.
                with contextlib.suppress(ConnectionLost, TimeoutError):
                    async with asyncio.timeout(WATCH_SECONDS):
                        await transport.send(Ping())

    async def _take(self, transport: AnyTransport, frame: list[AnyResponse]) -> None:
        """Apply all messages of one frame, then send what they require."""
        now_ns = _steady_ns()
        send: list[AnyRequest] = []
        for message in frame:
            received = self._session.receive(message, now_ns)
            send.extend(received.send)
            if isinstance(message, LoggedOn):
                self._announce()
            elif received.event is not None:
                self._deliver(received.event)
            if received.answered is not None:
                self._settle(received.answered, message)
        await self._send(transport, send)

    def _settle(self, key: Key, answer: AnyResponse) -> None:
        future = self._answers.pop(key, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _send(self, transport: AnyTransport, requests: list[AnyRequest]) -> None:
        for request in requests:
            await transport.send(request)

    def _deliver(self, event: AnyEvent) -> None:
        for stream in tuple(self._streams):
            stream.put(event)

    def _check_alive(self) -> None:
        """Raise what ended the client, if anything did."""
        if self._failure is not None:
            # It is one exception for all callers: with its traceback it would grow with each.
            raise self._failure.with_traceback(None)

    async def ask(self, request: AnyRequest) -> AnyResponse:
        """Send a request and wait for its answer. Raises NotConnected, OutcomeUnknown, and
        ValueRefused for a request that no frame can carry."""
        self._check_alive()
        measured(request, msgpack=self._msgpack)
        pending = self._session.ask(request)
        future, told = self._answer_to(pending), False
        try:
            async with asyncio.timeout(self._answer_s):
                if self._transport is not None and self._session.sends(pending):
                    # It is sent again on the next connection
                    with contextlib.suppress(ConnectionLost):
                        await self._transport.send(request)
                await asyncio.wait([future])  # who gives up leaves the answer to others that wait
            told = True
            return future.result()
        except TimeoutError:
            raise OutcomeUnknown(pending.key[1]) from None
        finally:
            self._let_go([pending], [future], told=told)

    async def ask_many(self, requests: Sequence[AnyCommand]) -> list[AnyResponse | OutcomeUnknown]:
        """Send commands in as few frames as possible; return each answer, or OutcomeUnknown without
        one.

        Raises NotConnected, TooMany, ValueRefused; nothing was sent then.
        """
        self._check_alive()
        asked: list[Pending] = []
        try:
            for request in requests:
                measured(request, msgpack=self._msgpack)
                asked.append(self._session.ask(request))
        except BaseException:
            self._session.drop(asked)
            raise
        futures, told = [self._answer_to(one) for one in asked], False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._answer_s):
                    await self._send_many(asked, requests)
                    if futures:
                        await asyncio.wait(futures)
            told = True
            return [
                # Without a result there was no answer, or the client has ended meanwhile.
                future.result()
                if future.done() and future.exception() is None
                else OutcomeUnknown(one.key[1])
                for one, future in zip(asked, futures, strict=True)
            ]
        finally:
            self._let_go(asked, futures, told=told)

    def _let_go(
        self, asked: list[Pending], futures: list[asyncio.Future[AnyResponse]], *, told: bool
    ) -> None:
        """Stop waiting. Unless the caller was ``told``, keep what was answered: it was cancelled in
        the same moment, or while it waited for the rest of a batch."""
        for one, future in zip(asked, futures, strict=True):
            one.awaited -= 1
            if not told and future.done() and future.exception() is None:
                self._session.keep(one, future.result())

    async def _send_many(self, asked: list[Pending], requests: Sequence[AnyCommand]) -> None:
        """Send what is due, while the connection is the same: the next one sends what is left."""
        transport, known = self._transport, {one.key: one for one in asked}
        due = {one.key: request for one, request in zip(asked, requests, strict=True)
               if self._session.is_due(one)}  # fmt: skip
        with contextlib.suppress(ConnectionLost):
            for frame in frames_of(due.values()):
                if transport is None or self._transport is not transport:
                    return
                # Only now: a frame that is not reached is sent by a retry.
                now = [one for one in frame if self._session.sends(known[key_of(one)])]
                if now:
                    await transport.send(now)

    def _answer_to(self, pending: Pending) -> asyncio.Future[AnyResponse]:
        future = asyncio.get_running_loop().create_future()
        if pending.answer is None:
            return self._answers.setdefault(pending.key, future)
        future.set_result(pending.answer)
        return future


def _steady_ns() -> int:
    """The loop's time: the clock of the machine may be set, and a server be silent meanwhile."""
    return int(asyncio.get_running_loop().time() * 1e9)
