"""Gateways as processes: they serve the clients, and the market's process parses nothing of theirs.

Each child follows the released stream over ``DIR/stream.sock`` and sends its clients' commands over
``DIR/gateways.sock``. One that dies is restarted, and its clients' sessions are logged off here:
the stream gives the connection number of each session, which identifies its gateway. No report can
be lost with it, since all reports come from the stream.
"""

import asyncio
import logging
import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from exchange.app import admin, processors
from exchange.app.door import tls_context
from exchange.app.front import POLL_SECONDS
from exchange.app.gateway_link import (
    SOCKET_NAME,
    Ask,
    Beat,
    Close,
    Drain,
    Drained,
    Hello,
    KeysGone,
    Left,
    Listening,
    Seat,
    Status,
    Told,
    TurnedBack,
    Welcome,
    Wire,
)
from exchange.app.lives import BEAT_SECONDS, Command, Lives
from exchange.gateway.decode import NO_ID, RECORD, Refused
from exchange.gateway.previews import Outcome
from exchange.gateway.rejects import full_reason
from exchange.gateway.resume import LOGON_MARK
from exchange.messages import EVENT, EVENT_BYTES, CommandKind, EventKind
from exchange.sequencer import Closed, QueueFull

if TYPE_CHECKING:
    from exchange.app.market import Market

# A connection's number: its gateway's life in the high bits, a counter in the low bits
LIFE_BITS: Final = 32
BACKOFF_SECONDS: Final = 0.1  # pause before a restart; doubled each time
BACKOFF_SECONDS_MAX: Final = 5.0
STEADY_SECONDS: Final = 10.0  # after serving this long the pause is the shortest again
END_SECONDS: Final = 5.0  # for a gateway to exit after it was asked to
RETRY_SECONDS: Final = 0.05  # before commands that a full queue refused are retried
_KIND: Final = 12  # offset of the kind byte in an event
_OPENED: Final = int(EventKind.SESSION_OPENED)
_ENDED: Final = (int(EventKind.SESSION_LOST), int(EventKind.SESSION_ENDED))
_LOGON: Final = int(CommandKind.LOGON)
_LOGOFF: Final = int(CommandKind.LOGOFF)
_log = logging.getLogger(__name__)


class GatewayDied(Exception):
    """A gateway's process ended, or was killed, before the market served any client."""


class Gateways:
    """The market's gateways, as its front."""

    name = "gateways"

    def __init__(self, market: "Market") -> None:
        self._market = market
        self._count = market.settings.serve.gateways
        self._lives = Lives()
        self._children: dict[int, asyncio.subprocess.Process] = {}  # by the gateway's number
        self._killed: dict[int, str] = {}  # why, by the gateway's number, until it is restarted
        # Engine session -> (life, account), of sessions online
        self._owners: dict[int, tuple[int, int]] = {}
        # (account, record) of LOGOFFs that a full queue refused.
        self._logoffs: list[tuple[int, bytes]] = []
        self._again: asyncio.TimerHandle | None = None  # timer of their retry
        self._address = ("", 0)
        self._has_address = asyncio.Event()
        self._all_listen = asyncio.Event()
        self._closing = False
        self._reported = 0  # as last told by those that served
        self.restarts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # The market's calls to its front

    @property
    def sequence(self) -> int:
        """The last command reported by the slowest gateway that serves. One that starts reads the
        stream from its beginning, and reports nothing of it."""
        serving = [life.status.sequence for life in self._lives.values() if life.listening]
        self._reported = min(serving, default=self._reported)
        return self._reported

    @property
    def unsent_bytes(self) -> int:
        """Bytes waiting for slow readers."""
        return sum(life.status.unsent_bytes for life in self._lives.values())

    def connections(self) -> Mapping[str, int]:
        """Number of connections, by stage."""
        found: Counter[str] = Counter()
        for life in self._lives.values():
            found.update(life.status.connections)
        return found

    def drop_revoked(self) -> None:
        """Have every gateway close the connections whose key was revoked."""
        self._tell_all(KeysGone())

    def prepare(self) -> None:
        """Check the TLS files before a gateway does."""
        tls_context(self._market.settings.serve)

    async def caught_up(self) -> None:
        """Do nothing: a gateway catches up before it listens."""

    async def listen(self, host: str, port: int) -> int:
        """Have all gateways listen on one port; return it. Raises OSError if it is in use."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as alone:  # otherwise another market's clients could arrive here
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
        with socket.socket(family) as held:  # reserves the port until they listen
            # Past connections may still occupy it
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, port))
            self._address = host, held.getsockname()[1]
            self._has_address.set()
            await self._all_listen.wait()
        return self._address[1]

    def drain(self) -> None:
        """Have every gateway accept no more orders."""
        self._tell_all(Drain())

    def has_told(self, sequence: int) -> bool:
        """Whether every gateway has sent everything up to that command."""
        return all(
            life.drained and life.status.sequence == sequence and not life.status.unsent_bytes
            for life in self._lives.values()
        )

    async def close(self) -> None:
        """Have every gateway close its connections and end, and wait for that."""
        self._closing = True
        self._has_address.set()  # gateways that wait for it shall end
        self._tell_all(Close())
        deadline = time.monotonic() + END_SECONDS
        while self._lives and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        for wire in list(self._lives):
            wire.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self) -> None:
        """Run the gateways until the stream ends. Raises GatewayDied."""
        market = self._market
        path = market.directory / SOCKET_NAME
        path.unlink(missing_ok=True)  # left over from a crash
        mask = os.umask(0o177)
        try:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: Wire(self), path)
        finally:
            os.umask(mask)
        following = asyncio.create_task(self._follow())
        beating = asyncio.create_task(self._beat())
        self._tasks = {asyncio.create_task(self._keep(n)) for n in range(self._count)}
        try:
            done, _ = await asyncio.wait(
                [following, beating, *self._tasks], return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            tasks = (following, beating, *self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            server.close()
            path.unlink(missing_ok=True)

    # The processes

    async def _keep(self, number: int) -> None:
        """Run one gateway, restarting it until the market stops."""
        await self._has_address.wait()
        pause = BACKOFF_SECONDS
        while not self._closing:
            begun = time.monotonic()
            code = await self._run_one(number)
            if self._closing:
                return
            how = self._killed.pop(number, f"ended with exit code {code}")
            if not self._all_listen.is_set():
                raise GatewayDied(f"gateway {number} {how}: see what it logged")
            self.restarts += 1
            if time.monotonic() - begun > STEADY_SECONDS:
                pause = BACKOFF_SECONDS
            _log.error("gateway %d %s, started again", number, how)
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_SECONDS_MAX)

    async def _run_one(self, number: int) -> int:
        """Run a gateway's process and return its exit code; it is killed if this is cancelled."""
        run = "import sys; from exchange.app.gateway_process import main; main(*sys.argv[1:])"
        child = await processors.start_child(
            sys.executable, "-c", run, str(self._market.directory), str(number),
            stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._children[number] = child
        self._lives.start(number)
        try:
            return await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    # The wires' end

    def heard(self, wire: Wire, message: Any) -> None:
        """Handle a message of a gateway."""
        life = self._lives.get(wire)
        match message:
            case Hello():
                self._greet(wire, message.number)
            case _ if life is None:
                wire.close()
            case Listening():
                self._lives.serve(life)
                if self.processes == self._count:
                    self._all_listen.set()
            case Status():
                self._lives.stand(life, message)
                self._market.metrics.add(message.rejects, message.closed)
            case Beat():
                self._lives.heard(wire, message.number)
                self._let_logons_go()
            case Drained():
                life.drained = True
            case Seat():
                count = self._lives.seat(wire, message.owner)
                wire.say(Told(message.number, count=count))
            case Left():
                self._lives.leave(wire, message.owner)
            case Ask():
                task = asyncio.create_task(self._answer(wire, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _greet(self, wire: Wire, which: int) -> None:
        market = self._market
        life = self._lives.begin(wire, which)
        host, port = self._address
        tape = market.tape
        wire.say(Welcome(life.number, market.settings, host, port, tape.exchange_id, tape.standing))
        if market.stopping:
            wire.say(Drain())

    def put(self, wire: Wire, source: int, record: bytes, ingress: int, text: str | None) -> None:
        """Queue a client's command for the sequencer, or return it to the gateway."""
        if record[0] == _LOGON:
            logon = Command(source, record, ingress, text)
            if wire not in self._lives or self._lives.must_wait(wire, logon):
                return
        self._put(wire, source, record, ingress, text)

    def _put(self, wire: Wire, source: int, record: bytes, ingress: int, text: str | None) -> None:
        try:
            self._market.sequencer.submit(source, record, ingress_ns=ingress, text=text)
        except (QueueFull, Closed) as full:
            wire.say(TurnedBack(record, text, full_reason(full)))
        else:
            if record[0] == _LOGOFF:
                self._owners.pop(RECORD.unpack(record)[6], None)

    def lost(self, wire: Wire) -> None:
        """Log off the sessions of a gateway that is gone, after all that it had sent."""
        life = self._lives.end(wire)
        if life is not None:
            for session, (owner, account) in list(self._owners.items()):
                if owner == life.number:
                    self._log_off(session, account)
            self._let_logons_go()

    def _let_logons_go(self) -> None:
        for wire, logon in self._lives.due():
            self._put(wire, *logon)

    async def _beat(self) -> None:
        """Find gateways that hang, and kill them; they are then handled like any that died."""
        limits = self._market.settings.limits
        silence, start = limits.gateway_silence_seconds, limits.gateway_start_seconds
        while not self._closing:
            await asyncio.sleep(BEAT_SECONDS)
            for wire in self._lives.beat(math.ceil(silence / BEAT_SECONDS)):
                why = f"did not answer for {silence:g} s (limits.gateway_silence_seconds)"
                if not self._kill(self._lives[wire].which, why):
                    wire.abort()
            for which in self._lives.stuck(math.ceil(start / BEAT_SECONDS)):
                self._kill(
                    which,
                    f"came no nearer to serving for {start:g} s (limits.gateway_start_seconds)",
                )

    def _kill(self, which: int, why: str) -> bool:
        """Kill a gateway's process; return whether it had one."""
        child = self._children.get(which)
        if child is None or child.returncode is not None:
            return False
        self._killed[which] = f"{why} and was killed"
        child.kill()
        return True

    def _tell_all(self, message: KeysGone | Drain | Close) -> None:
        for wire in self._lives:
            wire.say(message)

    @property
    def processes(self) -> int:
        """Number of gateways that serve clients."""
        return sum(life.listening for life in self._lives.values())

    async def _answer(self, wire: Wire, ask: Ask) -> None:
        market = self._market
        match ask.what:
            case "healthy":
                wire.say(Told(ask.number, checks=market.healthy()))
            case "ready":
                wire.say(Told(ask.number, checks=market.ready()))
            case "metrics":
                wire.say(Told(ask.number, text=market.metrics.text()))
            case "perform":
                assert ask.request is not None, "an operator's question has a request"
                answer = await admin.answer(ask.request, market.operations, ask.person)
                wire.say(Told(ask.number, answer=answer))
            case "try":
                market.trial(ask.account, ask.record, lambda told: wire.say(_told(ask, told)))

    # The stream

    async def _follow(self) -> None:
        """Track which gateway each session belongs to, and count events, until the stream ends."""
        market = self._market
        async for released in market.tape.follow(market.tape.last):
            market.metrics.released(released.count, released.events)
            kinds = released.events[_KIND::EVENT_BYTES]
            if _OPENED in kinds or any(kind in kinds for kind in _ENDED):
                for row in EVENT.iter_unpack(released.events):
                    self._note(row)
            if self._logoffs:
                self._retry()

    def _note(self, row: tuple[int, ...]) -> None:
        """Record the gateway of a new session, or the end of one."""
        if row[2] == _OPENED and row[12] == LOGON_MARK:
            owner = row[11] >> LIFE_BITS
            self._owners[row[7]] = owner, row[6]
            if all(owner != life.number for life in self._lives.values()):
                self._log_off(row[7], row[6])  # the gateway died while it waited for this
        elif row[2] in _ENDED:
            self._owners.pop(row[7], None)

    def _log_off(self, session: int, account: int) -> None:
        self._owners.pop(session, None)
        record = RECORD.pack(_LOGOFF, 0, 0, 0, 0, account, session, 0, 0, 0, 0, 0, NO_ID, NO_ID)
        self._logoffs.append((account, record))
        self._retry()

    def _retry(self) -> None:
        """Submit the pending LOGOFFs; what a full queue refuses is retried."""
        waiting, self._logoffs = self._logoffs, []
        while waiting:
            try:
                self._market.sequencer.submit(*waiting[0])
            except Closed:
                return  # after a restart every session is lost and logged off anyway
            except QueueFull:
                self._logoffs = waiting
                if self._again is not None:
                    self._again.cancel()  # only one timer at a time
                self._again = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._retry)
                return
            waiting.pop(0)


def _told(ask: Ask, outcome: Outcome) -> Told:
    """Return a trial's outcome as the answer to its question."""
    if not isinstance(outcome, Refused):
        return Told(ask.number, tried=outcome)
    why = int(outcome.reason), outcome.detail, outcome.limit, outcome.observed
    return Told(ask.number, untried=why)
