"""Native sessions of HTTP callers: one per key, from its first order until it is idle."""

import asyncio
import time
from typing import Any, Final

from exchange.gateway.access import Key
from exchange.gateway.dialects.deribit.calls import LOGON, Pending, Wish
from exchange.gateway.dialects.deribit.codes import TIMED_OUT, UNKNOWN, refusal
from exchange.gateway.dialects.deribit.peer import read_frame
from exchange.gateway.dialects.deribit.rpc import Failure
from exchange.gateway.hub import Hub
from exchange.gateway.session import MSGPACK
from exchange.messages import Reason
from exchange.messages.wire import Logon, encode_msgpack

ANSWER_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0


class Lines:
    """The sessions, by key."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lines: dict[str, Line] = {}

    async def carry_out(self, wish: Wish, key: Key, address: str) -> Any:
        """Carry a wish out in its key's session and return the result; raises Failure."""
        line = self._lines.get(key.key_id)
        if line is None or line.over:
            line = self._lines[key.key_id] = Line(self._hub, key, address, self._forget)
        return await line.carry_out(wish)

    def close(self) -> None:
        """End every session."""
        for line in list(self._lines.values()):
            line.end()

    def _forget(self, line: "Line") -> None:
        if self._lines.get(line.key.key_id) is line:
            del self._lines[line.key.key_id]


class Line:
    """One session without a socket. Its orders keep working when it ends."""

    def __init__(self, hub: Hub, key: Key, address: str, forget: Any) -> None:
        self.key = key
        self.over = False
        self._hub = hub
        self._forget = forget
        self._pending = Pending()
        self._loop = asyncio.get_running_loop()
        self._drained = True
        self._ready: asyncio.Future[Any] = self._loop.create_future()
        self._session = hub.connect(MSGPACK, self._wake, address)
        self._idle = self._loop.call_later(IDLE_SECONDS, self._check_idle)
        self._used = self._loop.time()
        logon = Logon(key_id=key.key_id, timestamp_ms=hub.now_ms(), nonce=0, signature="")
        hub.log_on(self._session, key, logon)
        self._pending.add(Wish(LOGON, None, lambda _: None), self._admit)

    async def carry_out(self, wish: Wish) -> Any:
        """Send a wish's request and return the result of its answer.

        Raises Failure; without an answer within ``ANSWER_SECONDS`` TIMED_OUT, of unknown outcome.
        """
        self._used = self._loop.time()
        answered: asyncio.Future[Any] = self._loop.create_future()

        def settle(outcome: Any) -> None:
            if not answered.done():  # it may have timed out in the same turn of the loop
                answered.set_result(outcome)

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                admitted = await asyncio.shield(self._ready)
                if isinstance(admitted, Failure):
                    raise admitted
                self._pending.add(wish, settle)
                self._session.receive(encode_msgpack(wish.request), time.time_ns())
                outcome = await answered
        except TimeoutError:
            code, message = TIMED_OUT
            raise Failure(code, message, {"outcome": UNKNOWN}) from None
        finally:
            self._pending.drop(wish)
        if isinstance(outcome, Failure):
            raise outcome
        return outcome

    def end(self) -> None:
        """Log the session off. The outcome of wishes that still wait stays unknown."""
        if not self.over:
            self.over = True
            self._idle.cancel()
            self._hub.disconnect(self._session)
            self._forget(self)

    def _admit(self, outcome: Any) -> None:
        self._ready.set_result(outcome)
        if isinstance(outcome, Failure):
            self.end()

    def _wake(self) -> None:
        if self._drained:
            self._drained = False
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drained = True
        while frame := self._session.take():
            for message in read_frame(frame):
                self._pending.settle(message)
        if self._session.closing is not None and not self.over:
            if not self._ready.done():
                self._ready.set_result(refusal(Reason.AUTH_REQUIRED, self._session.closing[1]))
            self.end()

    def _check_idle(self) -> None:
        quiet = self._loop.time() - self._used
        if quiet >= IDLE_SECONDS and not self._pending:
            self.end()
        else:
            wait = max(1.0, IDLE_SECONDS - quiet)
            self._idle = self._loop.call_later(wait, self._check_idle)
