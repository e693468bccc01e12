"""One WebSocket of the dialect: translates between JSON-RPC and a native session's frames.

The link uses the peer as its socket. A client's call is answered here or passed on as a native
request; the session's frames answer these requests and feed the channels.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from secrets import token_hex
from typing import Any, Final

import msgspec

from exchange.gateway.access import Key
from exchange.gateway.arrivals import Spend
from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit import codes, rpc
from exchange.gateway.dialects.deribit import params as take
from exchange.gateway.dialects.deribit.calls import LOGON, Later, Pending, Wish
from exchange.gateway.dialects.deribit.channels import Channel, open_channel
from exchange.gateway.dialects.deribit.methods import PRIVATE, Methods
from exchange.gateway.dialects.deribit.rpc import Call, Failure, wrong_param
from exchange.gateway.frames import WSMessage, WSMsgType
from exchange.gateway.server import CLOSE_IDLE, Link, Socket
from exchange.gateway.session import (
    CLOSE_POLICY,
    LOGON_LIMIT,
    MALFORMED_LIMIT,
    Session,
    Stage,
)
from exchange.messages import Limit, Reason
from exchange.messages.access import Right
from exchange.messages.wire import (
    MSGPACK_PROTOCOL,
    AnyCommand,
    AnyResponse,
    Logon,
    Subscribe,
    Unsubscribe,
    encode_msgpack,
)
from exchange.messages.wire_base import Request

TICK_SECONDS: Final = 0.1  # between two checks for due notifications
HEARTBEAT_SECONDS_MIN: Final = 10
HEARTBEAT_SECONDS_MAX: Final = 3_600
CLOSE_NORMAL: Final = 1000
read_frame: Final = msgspec.msgpack.Decoder(list[AnyResponse]).decode


class PeerLink(Link):
    """The link of a peer; it also runs the peer's clock."""

    def __init__(
        self, methods: Methods, socket: Socket, abort: Callable[[], None], address: str
    ) -> None:
        self._peer = Peer(methods, socket, address)
        super().__init__(methods.hub, self._peer, abort, address)
        self._peer.attend(self.session, lambda spent_ns: self.spend(spent_ns))

    async def serve(self) -> None:
        """Serve like any link, with the peer's clock running."""
        beating = asyncio.create_task(self._peer.beat())
        try:
            await super().serve()
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating
            self._peer.leave()


class Peer:
    """The translating socket of a link; see the module. ``attend`` sets its session."""

    ws_protocol: str | None = MSGPACK_PROTOCOL
    _session: Session
    _spend: Spend

    def __init__(self, methods: Methods, socket: Socket, address: str) -> None:
        self._methods = methods
        self._socket = socket
        self._address = address
        self._pending = Pending()
        self._answered = asyncio.Event()  # set by a native frame, which may answer a logon
        self._channels: dict[str, Channel] = {}
        self._out: list[bytes] = []  # answers to send
        self._sending = asyncio.Lock()  # keeps the order of notifications
        self._malformed = self._bad_logons = 0
        self._heartbeat = 0.0  # interval in seconds; 0: none
        self._beat_due = 0.0
        self._heard = True  # whether the client sent anything since the last heartbeat
        self._asked = False  # whether a test_request was sent and not answered
        self._readings: set[asyncio.Task[None]] = set()
        self._own: dict[str, Callable[[Call], Any]] = {
            "public/auth": self._auth,
            "public/subscribe": self._subscribe,
            "private/subscribe": self._subscribe,
            "public/unsubscribe": self._unsubscribe,
            "private/unsubscribe": self._unsubscribe,
            "public/unsubscribe_all": self._unsubscribe_all,
            "private/unsubscribe_all": self._unsubscribe_all,
            "public/set_heartbeat": self._set_heartbeat,
            "public/disable_heartbeat": self._disable_heartbeat,
            "private/logout": self._logout,
            "private/enable_cancel_on_disconnect": self._enable_cancel,
            "private/disable_cancel_on_disconnect": self._disable_cancel,
            "private/get_cancel_on_disconnect": self._get_cancel,
        }

    def attend(self, session: Session, spend: Spend) -> None:
        """Set the session. All its frames go through the writer, since translation takes time."""
        self._session, self._spend = session, spend
        session.send_now = None
        self._methods.blotter.on_listing.add(self._widen)

    def leave(self) -> None:
        """Cancel the pending reads from disk, and what waits for an order."""
        self._methods.blotter.on_listing.discard(self._widen)
        for reading in self._readings:
            reading.cancel()

    # The link's socket

    async def receive(self) -> WSMessage:
        """Return the next native request, or a WebSocket message that is no data.

        Calls after a logon wait for its answer, on which they may depend.
        """
        while True:
            while LOGON in self._pending:
                self._answered.clear()
                await self._answered.wait()
            message = await self._socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return message
            if self._session.closing is not None:
                continue  # the writer is closing the socket
            self._heard, self._asked = True, False
            begun = time.thread_time_ns()
            request = self._take(message.data)
            wait = self._spend(time.thread_time_ns() - begun)
            await self._flush()
            if request is not None:
                return WSMessage(WSMsgType.BINARY, encode_msgpack(request), None)
            await asyncio.sleep(wait)  # other connections have turns between received calls

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Translate a native frame and send the client its answers, then notifications."""
        for told in read_frame(message):
            self._pending.settle(told)
            for channel in self._channels.values():
                channel.take(told)
        self._answered.set()
        await self._flush()

    async def pong(self, message: bytes) -> None:
        """Answer a ping."""
        await self._socket.pong(message)

    async def close(self, *, code: int, message: bytes) -> bool:
        """Close the client's socket."""
        return await self._socket.close(code=code, message=message)

    # The clock

    async def beat(self) -> None:
        """Send due notifications and heartbeats, until cancelled or the connection ends."""
        with suppress(ConnectionResetError):
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self._beat_heart()
                await self._flush()

    def _beat_heart(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._heartbeat or now < self._beat_due:
            return
        self._beat_due = now + self._heartbeat
        if self._heard:
            self._out.append(rpc.heartbeat("heartbeat"))
        elif self._asked:
            self._session.close(CLOSE_IDLE, "a test request was not answered")
        else:
            self._out.append(rpc.heartbeat("test_request"))
            self._asked = True
        self._heard = False

    async def _flush(self) -> None:
        """Send the answers, then the notifications of channels that are due."""
        async with self._sending:
            frames, self._out = self._out, []
            now = asyncio.get_running_loop().time()
            for channel in list(self._channels.values()):
                if now >= channel.due:
                    told = channel.tell()
                    frames += [rpc.notification(channel.name, data) for data in told]
                    if told:
                        channel.due = now + channel.period
            for frame in frames:
                await self._socket.send_frame(frame, WSMsgType.TEXT)

    # Calls

    def _take(self, data: str | bytes) -> Request | Sequence[AnyCommand] | None:
        """Answer a frame, or return the native request whose answer will answer it."""
        taken, value = rpc.now_us(), None
        try:
            if isinstance(data, bytes):
                raise rpc.not_text()
            value = rpc.read(data)
            call = rpc.call_of(value, taken)
        except Failure as failure:
            self._out.append(rpc.error(rpc.id_of(value), taken, failure))
            self._malformed += 1
            if self._malformed >= MALFORMED_LIMIT:
                self._session.close(CLOSE_POLICY, "too many malformed messages")
            return None
        try:
            outcome = self._answer(call)
        except Failure as failure:
            outcome = failure
        if isinstance(outcome, Later):
            reading = asyncio.create_task(self._reply_later(call, outcome))
            self._readings.add(reading)
            reading.add_done_callback(self._readings.discard)
            return None
        if not isinstance(outcome, Wish):
            self._reply(call, outcome)
            return None
        self._pending.add(outcome, lambda result: self._reply(call, result))
        return outcome.request

    def _answer(self, call: Call) -> Any:
        own = self._own.get(call.method)
        if own is None:
            if self._methods.only_reads(call):
                self._methods.count(self._address)
            return self._methods.answer(call, self._key)
        if call.method.startswith(PRIVATE):
            self._methods.permitted(self._key, Right.READ)
        return own(call)

    async def _reply_later(self, call: Call, later: Later) -> None:
        try:
            outcome = await later.done(self._address)
        except Failure as failure:
            outcome = failure
        if isinstance(outcome, Wish):
            self._pending.add(outcome, lambda result: self._reply(call, result))
            self._session.hear(encode_msgpack(outcome.request), time.time_ns())
            return
        self._reply(call, outcome)
        with suppress(ConnectionResetError):
            await self._flush()

    def _reply(self, call: Call, outcome: Any) -> None:
        if isinstance(outcome, Failure):
            self._out.append(rpc.error(call.id, call.taken_us, outcome))
        else:
            self._out.append(rpc.answer(call.id, call.taken_us, outcome))

    @property
    def _key(self) -> Key | None:
        return self._session.key if self._session.stage is Stage.READY else None

    def _auth(self, call: Call) -> Any:
        """Log the connection on. Once logged on, the same key gets new tokens."""
        gate, hub, session = self._methods.gate, self._methods.hub, self._session
        try:
            auth = take.convert(call.params, take.Auth)
            key = gate.grant(auth, self._address)
        except Failure:
            self._bad_logons += 1
            if self._bad_logons >= LOGON_LIMIT:
                session.close(CLOSE_POLICY, "too many refused logons")
            raise
        if session.key is not None:
            if session.stage is Stage.READY and session.key.key_id == key.key_id:
                return gate.issue(key, auth)
            raise codes.refusal(Reason.SESSION_LIVE, "this connection has another logon")
        logon = Logon(key_id=key.key_id, timestamp_ms=hub.now_ms(), nonce=0, signature="")
        hub.log_on(session, key, logon)

        def result(_: Any) -> Any:
            try:
                return gate.issue(key, auth)
            except Failure:  # a refresh token may open only one session
                session.close(CLOSE_POLICY, "a token that was spent meanwhile")
                raise

        return Wish(LOGON, None, result)

    def _subscribe(self, call: Call) -> Any:
        names = list(dict.fromkeys(take.convert(call.params, take.Channels).channels))
        account = None if self._key is None else self._key.account
        if len(self._channels.keys() | set(names)) > Limit.SUBSCRIPTIONS:
            told = f"{Limit.SUBSCRIPTIONS.value} channels"
            raise codes.refusal(Reason.SUBSCRIPTIONS_FULL, told)
        hub, portrayer = self._methods.hub, self._methods.portrayer
        opened = {
            name: open_channel(name, hub, portrayer, account)
            for name in names
            if name not in self._channels
        }
        feeds = sorted({feed for channel in opened.values() for feed in channel.feeds})
        self._check_feeds(feeds)
        self._channels |= opened
        if not feeds:
            return names
        for channel in opened.values():
            channel.due = inf  # says nothing before the answer

        def result(_: Any) -> list[str]:
            for channel in opened.values():
                channel.due = 0.0
            return names

        request = Subscribe(request_id=token_hex(12), channels=feeds)
        return Wish(request.request_id, request, result)

    def _check_feeds(self, feeds: list[str]) -> None:
        """Raise the Failure of a subscription that the session would refuse: its channels must not
        be opened then."""
        wanted, most = len(self._session.channels.union(feeds)), Limit.SUBSCRIPTIONS.value
        try:
            if wanted > most:
                limit, observed = str(most), str(wanted)
                raise Refused(Reason.SUBSCRIPTIONS_FULL, "channels", limit=limit, observed=observed)
            self._methods.hub.channels.check(feeds)
        except Refused as refused:
            raise codes.refused_by(refused) from None

    def _widen(self) -> None:
        """Subscribe to the feeds of newly listed instruments, before their first events."""
        if self._session.stage is Stage.CLOSED:
            return
        for channel in self._channels.values():
            channel.widen()
        needed = {feed for channel in self._channels.values() for feed in channel.feeds}
        feeds = sorted(needed - self._session.channels)
        if not feeds:
            return
        if len(needed) > Limit.SUBSCRIPTIONS:
            told = f"more than {Limit.SUBSCRIPTIONS.value} channels, of what was listed"
            self._session.close(CLOSE_POLICY, told)
            return
        over = len(self._session.channels) + len(feeds) - Limit.SUBSCRIPTIONS
        if over > 0:  # make room: feeds of what has expired are not needed any more
            gone = sorted(self._session.channels - needed)[:over]
            self._hear(Unsubscribe(request_id=token_hex(12), channels=gone))
        self._hear(Subscribe(request_id=token_hex(12), channels=feeds))

    def _hear(self, request: Request) -> None:
        self._session.hear(encode_msgpack(request), time.time_ns())

    def _unsubscribe(self, call: Call) -> Any:
        names = take.convert(call.params, take.Channels).channels
        return self._leave([name for name in dict.fromkeys(names) if name in self._channels])

    def _unsubscribe_all(self, call: Call) -> Any:
        left = self._leave(list(self._channels))
        return "ok" if not isinstance(left, Wish) else Wish(left.id, left.request, lambda _: "ok")

    def _leave(self, names: list[str]) -> Any:
        for name in names:
            del self._channels[name]
        needed = {feed for channel in self._channels.values() for feed in channel.feeds}
        feeds = sorted(self._session.channels - needed)
        if not feeds:
            return names
        request = Unsubscribe(request_id=token_hex(12), channels=feeds)
        return Wish(request.request_id, request, lambda _: names)

    def _set_heartbeat(self, call: Call) -> str:
        interval = take.convert(call.params, take.Heartbeat).interval
        if not HEARTBEAT_SECONDS_MIN <= interval <= HEARTBEAT_SECONDS_MAX:
            told = f"{HEARTBEAT_SECONDS_MIN} to {HEARTBEAT_SECONDS_MAX}"
            raise wrong_param("interval", Reason.PARAMETER_RANGE, told, str(interval))
        self._heartbeat = float(interval)
        self._beat_due = asyncio.get_running_loop().time() + interval
        return "ok"

    def _disable_heartbeat(self, call: Call) -> str:
        self._heartbeat = 0.0
        return "ok"

    def _enable_cancel(self, call: Call) -> str:
        return self._set_cancel(call, on=True)

    def _disable_cancel(self, call: Call) -> str:
        return self._set_cancel(call, on=False)

    def _set_cancel(self, call: Call, *, on: bool) -> str:
        self._methods.permitted(self._key, Right.CANCEL)
        take.convert(call.params, take.Loss)
        self._session.cancels_on_loss = on
        return "ok"

    def _get_cancel(self, call: Call) -> dict[str, Any]:
        scope = take.convert(call.params, take.Loss).scope
        return {"scope": scope, "enabled": self._session.cancels_on_loss}

    def _logout(self, call: Call) -> str:
        self._session.cancels_on_loss = False  # a logout is no loss of the connection
        self._session.close(CLOSE_NORMAL, "logged out")
        return "ok"
