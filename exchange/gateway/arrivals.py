"""Limits on connections by address, before a client is known.

An address may have a limited number of connections, and all of them together leave some of the
process's open files to its log, its ledger and its operators. Each must send its first request's
headers, and the body of every request, in time, and must read its answers in time; otherwise it is
aborted, so that slow clients do not hold sockets. Each is read in pieces, as long as its owner has
processor time left (``pace``), so that fast clients do not delay others.
"""

import asyncio
import logging
import resource
import socket
import sys
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from time import thread_time_ns
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakSet

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from exchange.gateway.access import is_loopback
from exchange.gateway.decode import Refused
from exchange.gateway.http import BAD_REQUEST, answer_refused, guard_answer
from exchange.gateway.pace import ADDRESS_ONE_IN, LOOPBACK_ONE_IN, MEMBER_ONE_IN, OWNERS_SWEPT, Pace
from exchange.gateway.seats import connections_allowed
from exchange.messages import Reason

HANDSHAKE_SECONDS: Final = 5.0  # for the first request's headers, TLS included
BODY_SECONDS: Final = 10.0  # for a request's body, after its headers
SEND_SECONDS: Final = 30.0  # for an HTTP client to read the data that fills its socket
KEEPALIVE_SECONDS: Final = 15.0  # between two HTTP requests of a connection
FILES_KEPT: Final = 256  # open files that connections leave to the process; half, if that is less
SOCKETS_PER_SEAT: Final = 2  # connections of an address, HTTP included, per WebSocket allowed
READ_BYTES: Final = 16_384  # taken from a connection before others have their turn
OWING_BYTES: Final = 1_024  # the same for a connection that had to wait
# Flat charges to the address's time; see ``pace``.
CONNECTION_NS: Final = 200_000
REQUEST_NS: Final = 200_000
COSTLY_NS: Final = {"/metrics": 2_000_000}  # by path, instead of REQUEST_NS
OVERDRAWN_SECONDS: Final = 2.0  # an address that would wait longer gets no new connection
DETAIL_CHARS: Final = 80
_log = logging.getLogger(__name__)


Spend: TypeAlias = Callable[[int], float]  # takes nanoseconds, returns the seconds to wait


class Asker(Protocol):
    """The session of a connection."""

    trading_account: int  # negative: no account that may enter commands


class Arrivals:
    """The connections of one gateway and the deadlines of their requests."""

    def __init__(self) -> None:
        self._of_address: Counter[str] = Counter()
        self._due: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        # With TLS, the connections of an address; some of them may have ended
        self._accepted: dict[str, WeakSet[socket.socket]] = {}
        self.pace = Pace()

    def greet(self, server: web.Server) -> web.RequestHandler:
        """Return the protocol of a new connection, aborted unless a request's head is in time."""
        protocol = _Arrival(self, server)
        self._expect(protocol, HANDSHAKE_SECONDS)
        return protocol

    def head(self, request: web.Request) -> None:
        """Note that a request's head has come; start the deadline of its body, if it has one."""
        protocol = request.protocol
        self.settle(protocol)
        if not request.content.is_eof():
            self._expect(protocol, BODY_SECONDS)
            request.content.on_eof(partial(self.settle, protocol))

    async def ask(self, request: web.Request) -> None:
        """Charge a request's flat cost, and wait until its owner has time again."""
        protocol = request.protocol
        if isinstance(protocol, _Arrival):
            wait = protocol.spend(_flat_cost(request))
            if wait:
                await asyncio.sleep(wait)

    async def answer(
        self, request: web.Request, work: Awaitable[web.StreamResponse]
    ) -> web.StreamResponse:
        """Return the answer that ``work`` makes, and charge the address what it takes beyond the
        flat cost, also if nobody waits for it any more: its next request waits for that."""
        steps = _Steps(work)
        address = request.remote  # None for a Unix socket
        one_in = LOOPBACK_ONE_IN if address and is_loopback(address) else ADDRESS_ONE_IN
        try:
            return await steps.run()
        finally:
            if address:
                beyond = max(0, steps.spent_ns - _flat_cost(request))
                self.pace.spend(("address", address), beyond, one_in)

    def attend(self, request: web.Request, asker: Asker) -> Spend:
        """Set the session of a WebSocket, which is charged to its account once it may trade.

        Return the function that charges it for messages not taken in its parser.
        """
        protocol = request.protocol
        assert isinstance(protocol, _Arrival), "greeted here"
        protocol.asker = asker
        if protocol.transport is not None:
            protocol.transport.set_write_buffer_limits()
        return protocol.spend

    def settle(self, protocol: web.RequestHandler) -> None:
        """Cancel the deadline of a connection, if any."""
        due = self._due.pop(protocol, None)
        if due is not None:
            due.cancel()

    def admit(self, address: str) -> bool:
        """Count a new connection; return whether its address may have it."""
        self._of_address[address] += 1
        return self._of_address[address] <= SOCKETS_PER_SEAT * connections_allowed(address)

    def guard(self, server: asyncio.Server, *, tls: bool) -> None:
        """Have a server that does not accept yet refuse at once what may not be accepted: asyncio
        calls no protocol of ours before the end of a TLS handshake."""
        listening = _listening(partial(self._takes, tls))
        for one in server._sockets:  # type: ignore[attr-defined]
            one.__class__ = listening

    def _takes(self, tls: bool, connection: socket.socket, address: str) -> bool:
        """Return whether a new connection leaves enough open files to the process, and with TLS
        whether its address may have it: those within the handshake are counted, too."""
        if connection.fileno() >= files_allowed():
            return False
        if not tls:
            return True
        most = SOCKETS_PER_SEAT * connections_allowed(address)
        if len(self._accepted) >= OWNERS_SWEPT and address not in self._accepted:
            self._accepted = {one: its for one, its in self._accepted.items() if its}
        known = self._accepted.setdefault(address, WeakSet())
        if len(known) >= most and sum(one.fileno() >= 0 for one in known) >= most:
            return False
        known.add(connection)
        return True

    def leave(self, address: str) -> None:
        """Stop counting a connection."""
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def close(self) -> None:
        """Cancel all deadlines."""
        for due in self._due.values():
            due.cancel()
        self._due.clear()

    def _expect(self, protocol: web.RequestHandler, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._due[protocol] = loop.call_later(seconds, self._give_up, protocol)

    def _give_up(self, protocol: web.RequestHandler) -> None:
        del self._due[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()


def _flat_cost(request: web.Request) -> int:
    return COSTLY_NS.get(request.path, REQUEST_NS)


class _Steps:
    """Awaits something and adds up the processor time of its own steps, without that of the tasks
    that have their turns while it waits."""

    def __init__(self, work: Awaitable[web.StreamResponse]) -> None:
        self._work = work.__await__()
        self.spent_ns = 0

    @types.coroutine
    def run(self) -> Generator[Any, Any, web.StreamResponse]:
        """Return the result."""
        step: Callable[[Any], Any] = self._work.send
        value: Any = None
        while True:
            begun = thread_time_ns()
            try:
                waits_for = step(value)
            except StopIteration as done:
                answer: web.StreamResponse = done.value
                return answer
            finally:
                self.spent_ns += thread_time_ns() - begun
            try:
                step, value = self._work.send, (yield waits_for)
            except BaseException as error:  # also a cancellation: it is for the work
                step, value = self._work.throw, error


def files_allowed() -> int:
    """Return the lowest number of an open file that no connection may have. A new file has the
    lowest number that is free, so all lower ones are in use then."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return most - min(FILES_KEPT, most // 2)


def _listening(takes: Callable[[socket.socket, str], bool]) -> type[socket.socket]:
    """Return the class of a listening socket that closes each new connection of which ``takes``,
    called with it and its peer's address, is false. Uses private attributes of asyncio, which has
    no public way; tests fail if these change."""

    class Listening(socket.socket):
        __slots__ = ()

        def accept(self) -> tuple[socket.socket, Any]:
            connection, address = super().accept()
            if takes(connection, str(address[0])):
                return connection, address
            connection.close()
            raise ConnectionAbortedError  # asyncio tries the next one in its next turn

    return Listening


class _Arrival(web.RequestHandler):
    """One connection; it is aborted at once if its address has too many.

    Uses private attributes of aiohttp, which has no public way to limit reading; tests fail if
    these change.
    """

    __slots__ = (
        "_address", "_answered", "_arrivals", "_body", "_later", "_local", "_owes", "_said_all",
        "_stuck", "_turn", "asker",
    )  # fmt: skip

    def __init__(self, arrivals: Arrivals, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        kept: Any = {"keepalive_timeout": KEEPALIVE_SECONDS, "access_log": None}
        super().__init__(server, loop=loop, **kept)
        self._arrivals = arrivals
        self._address: str | None = None  # that it is counted for; None: a Unix socket
        self._local = True  # from this machine
        self.asker: Asker | None = None
        self._later = b""  # read, and not processed yet
        self._owes = False  # its last piece used up the owner's time
        self._turn: asyncio.TimerHandle | None = None  # resumes reading; None: not paused
        self._stuck: asyncio.TimerHandle | None = None  # aborts it while it reads no answer
        self._body: StreamReader | None = None  # of the latest request
        self._answered = 0  # requests
        self._said_all = False  # the client has ended its side, and is owed answers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.transport is not None and self.ssl_context is None:  # TLS ends in time by itself
            self.transport.set_write_buffer_limits(high=1)  # `_stuck` begins with the first byte
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # otherwise a Unix socket, which only its owner can open
            self._address = str(peer[0])
            self._local = is_loopback(self._address)
            admitted = self._arrivals.admit(self._address) and self.spend(0) <= OVERDRAWN_SECONDS
            if admitted:
                self.spend(CONNECTION_NS)
            elif self.transport is not None:
                self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._arrivals.settle(self)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._later, self.asker, self._body = b"", None, None
        self._take_off()
        if self._address is not None:
            self._arrivals.leave(self._address)
            self._address = None
        super().connection_lost(exc)
        self._data_received_cb = None  # breaks a WebSocket's reference cycle

    def pause_writing(self) -> None:
        """Abort an HTTP client that reads nothing for ``SEND_SECONDS``; a WebSocket's session has
        its own rule."""
        super().pause_writing()
        if self.asker is None and self.transport is not None:
            self._stuck = self._loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_off()

    def _take_off(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def data_received(self, data: bytes) -> None:
        """Process a piece of the data, and the rest when the connection has its turn again."""
        if self._later:
            self._later += data
            return
        most = OWING_BYTES if self._owes else READ_BYTES
        if len(data) > most:
            data, self._later = data[:most], data[most:]
        # Processor time: the client is not charged for a machine that stalls.
        begun = 0 if self._is_unheld() else thread_time_ns()
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]
        wait = self.spend(thread_time_ns() - begun) if begun else 0.0
        self._owes = wait > 0
        if (wait or self._later) and self._turn is None and self.transport is not None:
            self._pause_transport_reading()
            self._turn = self._loop.call_later(wait, self._go_on)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp says None
        """Keep the connection of an HTTP client that has ended its side until all that it asked is
        answered; end any other, such as a WebSocket."""
        whole = self._body is not None and self._body.is_eof()
        # With TLS asyncio ends both sides, whatever is returned.
        self._said_all = whole and not self._upgraded and self.ssl_context is None
        return self._said_all and self._answered < self._request_count

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and close after the last one of a client that has ended its side."""
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        if self._said_all and self._answered == self._request_count:
            self.close()
        return finished

    def _is_unheld(self) -> bool:
        """Whether nothing is charged: a local client that may trade, or a Unix socket."""
        trades = self.asker is not None and self.asker.trading_account >= 0
        return self._local and (trades or self._address is None)

    def spend(self, spent_ns: int) -> float:
        """Charge processor time to the account, if it may trade, or else to the address; return
        the seconds until the connection is read again."""
        if self._is_unheld():
            return 0.0
        account = -1 if self.asker is None else self.asker.trading_account
        if account < 0 and self._address is not None:
            one_in = LOOPBACK_ONE_IN if self._local else ADDRESS_ONE_IN
            return self._arrivals.pace.spend(("address", self._address), spent_ns, one_in)
        return self._arrivals.pace.spend(("account", account), spent_ns, MEMBER_ONE_IN)

    def _go_on(self) -> None:
        self._turn = None
        later, self._later = self._later, b""
        if later:
            self.data_received(later)
        if not (self._turn or self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if self._turn is None:
            super()._resume_transport_reading()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are no HTTP request. They are not logged: they may hold a secret. Nor
        is the end of the connection, which is no error of the gateway."""
        ended = self.transport is None or self.transport.is_closing()
        if ended and isinstance(exc, ConnectionError):
            return web.Response(status=BAD_REQUEST)  # not sent
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        _log.debug("no HTTP request from %s: %s", request.remote, type(exc).__name__)
        said = ascii((message or "").partition(":")[0][:DETAIL_CHARS])[1:-1]
        answer = answer_refused(Refused(Reason.SYNTAX, None, f"no HTTP request: {said}"))
        guard_answer(answer)
        answer.force_close()
        return answer
