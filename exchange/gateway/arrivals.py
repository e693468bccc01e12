"""Connections as they come, while nothing is known of them but their address.

So many of an address, and each makes its requests in time: the first one's head, and every body
behind its head; and takes their answers in time. What takes longer is cut off, so that nobody holds
a socket by being slow. And each is read a piece at a time, as far as its owner has time in hand
(``pace``), so that nobody holds the others up by being quick.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from time import thread_time_ns
from typing import Any, Final, Protocol, TypeAlias

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exchange.gateway.access import is_loopback
from exchange.gateway.decode import Refused
from exchange.gateway.http import answer_refused, guard_answer
from exchange.gateway.pace import ADDRESS_ONE_IN, LOOPBACK_ONE_IN, MEMBER_ONE_IN, Pace
from exchange.gateway.seats import connections_allowed
from exchange.messages import Reason

HANDSHAKE_SECONDS: Final = 5.0  # for the first request's headers, TLS included
BODY_SECONDS: Final = 10.0  # for a request's body, behind its headers
SEND_SECONDS: Final = 30.0  # for a full socket to take what waits for it, over HTTP
KEEPALIVE_SECONDS: Final = 15.0  # between two HTTP requests of a connection
SOCKETS_PER_SEAT: Final = 2  # of an address, HTTP's included, for each WebSocket that it may have
READ_BYTES: Final = 16_384  # of a connection that are taken before others have their turn
OWING_BYTES: Final = 1_024  # the same of one that had to wait
# What a connection and an HTTP request cost, of their address's time, whatever they really take.
CONNECTION_NS: Final = 200_000
REQUEST_NS: Final = 200_000
COSTLY_NS: Final = {"/metrics": 2_000_000}  # of paths that take far longer
OVERDRAWN_SECONDS: Final = 2.0  # an address that has to wait for longer gets no new connection
DETAIL_CHARS: Final = 80
_log = logging.getLogger(__name__)


Spend: TypeAlias = Callable[[int], float]  # nanoseconds; the seconds to wait for then


class Asker(Protocol):
    """The session of a connection."""

    trading_account: int  # below zero: none that may enter commands


class Arrivals:
    """The connections of one gateway and what each still owes."""

    def __init__(self) -> None:
        self._of_address: Counter[str] = Counter()
        self._due: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self.pace = Pace()

    def greet(self, server: web.Server) -> web.RequestHandler:
        """Take a connection in; it goes unless the head of a request is there in time."""
        protocol = _Arrival(self, server)
        self._expect(protocol, HANDSHAKE_SECONDS)
        return protocol

    def head(self, request: web.Request) -> None:
        """A request's head is there; its body is due, if it has one."""
        protocol = request.protocol
        self.settle(protocol)
        if not request.content.is_eof():
            self._expect(protocol, BODY_SECONDS)
            request.content.on_eof(partial(self.settle, protocol))

    async def ask(self, request: web.Request) -> None:
        """Charge a request to its address, and let it wait for that one's time."""
        protocol = request.protocol
        if isinstance(protocol, _Arrival):
            wait = protocol.spend(COSTLY_NS.get(request.path, REQUEST_NS))
            if wait:
                await asyncio.sleep(wait)

    def attend(self, request: web.Request, asker: Asker) -> Spend:
        """Learn whose a WebSocket is: from when it may trade it is read at its account's pace.
        Return what charges it for what is taken of it elsewhere."""
        protocol = request.protocol
        assert isinstance(protocol, _Arrival), "greeted here"
        protocol.asker = asker
        return protocol.spend

    def settle(self, protocol: web.RequestHandler) -> None:
        """Nothing is due of a connection."""
        due = self._due.pop(protocol, None)
        if due is not None:
            due.cancel()

    def admit(self, address: str) -> bool:
        """Count a connection; return whether its address may have it."""
        self._of_address[address] += 1
        return self._of_address[address] <= SOCKETS_PER_SEAT * connections_allowed(address)

    def leave(self, address: str) -> None:
        """Count a connection no longer."""
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def close(self) -> None:
        """Wait for nothing any more."""
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


class _Arrival(web.RequestHandler):
    """One connection; one of an address that has too many ends at once.

    aiohttp has no public place for what it reads: tests fail where that changes.
    """

    __slots__ = ("_address", "_arrivals", "_later", "_local", "_owes", "_stuck", "_turn", "asker")

    def __init__(self, arrivals: Arrivals, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        kept: Any = {"keepalive_timeout": KEEPALIVE_SECONDS, "access_log": None}
        super().__init__(server, loop=loop, **kept)
        self._arrivals = arrivals
        self._address: str | None = None  # counted under; None: not
        self._local = True  # of this machine
        self.asker: Asker | None = None
        self._later = b""  # read, and not taken yet
        self._owes = False  # it had to wait for its time
        self._turn: asyncio.TimerHandle | None = None  # when it is read again; None: now
        self._stuck: asyncio.TimerHandle | None = None  # its end, while it takes no answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # else a Unix socket's, which only its owner opens
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
        self._later, self.asker = b"", None
        self._take_off()
        if self._address is not None:
            self._arrivals.leave(self._address)
            self._address = None
        super().connection_lost(exc)
        self._data_received_cb = None  # of a WebSocket, which leads back here

    def pause_writing(self) -> None:
        """Wait for so long until who asks takes the answer; of a WebSocket its session decides."""
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
        """Take a piece of what was read, and the rest when it is this one's turn again."""
        if self._later:
            self._later += data
            return
        most = OWING_BYTES if self._owes else READ_BYTES
        if len(data) > most:
            data, self._later = data[:most], data[most:]
        begun = 0 if self._is_unheld() else thread_time_ns()  # a machine that stalls is not his
        super().data_received(data)
        wait = self.spend(thread_time_ns() - begun) if begun else 0.0
        self._owes = wait > 0
        if (wait or self._later) and self._turn is None and self.transport is not None:
            self._pause_transport_reading()
            self._turn = self._loop.call_later(wait, self._go_on)

    def _is_unheld(self) -> bool:
        """Whether nothing is charged: it trades on this machine, or is a Unix socket's owner."""
        trades = self.asker is not None and self.asker.trading_account >= 0
        return self._local and (trades or self._address is None)

    def spend(self, spent_ns: int) -> float:
        """Charge what it asked for, in time of the processor, to its account, if it trades, or to
        its address; return the seconds until it is read again."""
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
        """Answer bytes that are no request: nothing of them is logged, which may be a secret."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        _log.debug("no HTTP request from %s: %s", request.remote, type(exc).__name__)
        said = ascii((message or "").partition(":")[0][:DETAIL_CHARS])[1:-1]
        answer = answer_refused(Refused(Reason.SYNTAX, None, f"no HTTP request: {said}"))
        guard_answer(answer)
        answer.force_close()
        return answer
