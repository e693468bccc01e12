"""The state machine of one connection, without a socket: frames in, frames out.

A connection may at first make only public requests. A ``logon`` with a key of scope trade is
answered once the engine has opened or resumed a session. Messages to the connection are queued;
``take`` returns them as one frame, an array.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, get_args

from exchange.gateway.access import NEEDS, Key
from exchange.gateway.accounts import Order
from exchange.gateway.auth import logon_proof
from exchange.gateway.batches import is_batch, read_batch
from exchange.gateway.deadlines import hold
from exchange.gateway.decode import (
    U32_MAX,
    Refused,
    checked_id,
    read_json,
    read_msgpack,
)
from exchange.gateway.rejects import from_refused, full_reason
from exchange.gateway.shows import Shows
from exchange.messages import Limit, Reason
from exchange.messages.access import GatewayReason, Right
from exchange.messages.wire import (
    AnyCommand,
    AnyRequest,
    Cancel,
    CancelAfter,
    Enter,
    ListInstruments,
    Logon,
    Ping,
    Preview,
    Previewed,
    QueryAccount,
    QueryOrder,
    QueryOrders,
    Reduce,
    Replace,
    Response,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    encode_json,
    encode_msgpack,
)
from exchange.messages.wire_mass import (
    Kill,
    MassCancel,
    Protect,
    Quote,
)

if TYPE_CHECKING:
    from exchange.gateway.hub import Hub

JSON: Final = 0
MSGPACK: Final = 1
ENCODERS: Final = (encode_json, encode_msgpack)
BACKLOG_BYTES: Final = 1 << 22  # a connection with more unsent bytes than this is evicted
EAGER_BYTES: Final = BACKLOG_BYTES >> 2  # with more, messages of a snapshot are queued one a turn
STALE_BYTES: Final = 1 << 18  # with more, deltas of pictures are replaced by a later snapshot
MALFORMED_LIMIT: Final = 64  # frames outside the grammar that close a connection
LOGON_LIMIT: Final = 5  # refused logons that close a connection
STREAM_MAX: Final = (1 << 63) - 1
CLOSE_POLICY: Final = 1008
CLOSE_INTERNAL: Final = 1011
CLOSE_REVOKED: Final = 4003
CLOSE_SLOW: Final = 4008

_COMMANDS: Final = frozenset(get_args(AnyCommand))
_GRAMMAR: Final = frozenset(
    {
        Reason.SYNTAX,
        Reason.DUPLICATE_FIELD,
        Reason.UNKNOWN_FIELD,
        Reason.MISSING_FIELD,
        Reason.UNKNOWN_COMMAND,
    }
)


class Stage(Enum):
    """The stage of a connection."""

    PUBLIC = 1
    LOGGING_ON = 2
    READY = 3
    CLOSED = 4


def _nobody() -> None:
    """The ``wake`` of a connection that has ended."""


class Session:
    """One connection.

    ``wake`` is called when something is to be sent or the connection is to be closed. ``send_now``,
    if set, tries to send at once, without the sender's task; it returns whether the queue is empty.
    """

    def __init__(
        self, hub: "Hub", number: int, codec: int, wake: Callable[[], None], address: str
    ) -> None:
        self.hub = hub
        self.address = address  # of the socket's peer; headers are not considered
        self._recorder = hub.recorder
        self.number = number
        self.codec = codec
        self.wake = wake
        self.send_now: Callable[[], bool] | None = None
        self.stage = Stage.PUBLIC
        self.key: Key | None = None
        self.logon: Logon | None = None
        self.engine_session = 0
        self.trading_account = -1  # the key's account while commands may be entered
        self.channels: set[str] = set()
        self.stale: set[str] = set()  # channels that skipped a picture's delta
        self.shows = Shows()
        self.cancels_on_loss = False  # its orders are cancelled when the connection ends
        self.closing: tuple[int, str] | None = None  # close code and reason, once it is closing
        self.sending_bytes = 0  # taken and not yet handed to the socket
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._granted_bytes = 0  # of snapshots, since the queue was last empty
        self._turn = 0  # the hub's turn in which a message was last queued
        self._late_bytes = 0  # unsent when that turn began or the last frame arrived
        self._waiting_count = 0  # messages in ``_waiting``
        self._kind: type = (str, bytes)[codec]  # type of its frames
        self._encode = ENCODERS[codec]
        self._malformed = 0
        self._bad_logons = 0
        self.failure: Exception | None = None  # an error of the gateway in handling a frame
        self._handlers: dict[type, Callable[..., None]] = {
            Enter: self._enter,
            Cancel: self._cancel,
            Reduce: self._reduce,
            Replace: self._replace,
            MassCancel: self._mass,
            Kill: self._mass,
            Quote: self._mass,
            Protect: self._mass,
            CancelAfter: self._cancel_after,
            Preview: self._preview,
            Logon: self._logon,
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            ListInstruments: self._instruments,
            QueryAccount: self._account,
            QueryOrders: self._orders,
            QueryOrder: self._order,
            Ping: self._ping,
        }

    @property
    def is_silent(self) -> bool:
        """Whether it has neither logged on nor subscribed."""
        return self.stage is Stage.PUBLIC and not self.channels

    @property
    def backlog_bytes(self) -> int:
        """Bytes that are queued or being sent."""
        return self._waiting_bytes + self.sending_bytes + self.shows.behind_bytes

    def admit(self) -> None:
        """Accept private requests from now on; the logon is complete."""
        assert self.key is not None, "admitted without a key"
        self.stage = Stage.READY
        self._handlers = {
            kind: handler if self.key.may(NEEDS.get(kind, Right.TRADE)) else self._beyond_scope
            for kind, handler in self._handlers.items()
        }
        if self.engine_session:
            self.trading_account = self.key.account

    def release(self) -> None:
        """Break the reference cycles of a connection that has ended, so that its memory is freed at
        once."""
        self._handlers = {}
        self.wake, self.send_now = _nobody, None

    # Incoming

    def hear(self, data: str | bytes, ingress_ns: int) -> None:
        """Handle a frame. An unexpected exception is kept as ``failure``, the connection closed."""
        if self.closing is None:
            try:
                self.receive(data, ingress_ns)
            except Exception as error:  # raised by the reader; this may be called by the parser
                self.failure = error
                self.close(CLOSE_INTERNAL, "an error of the gateway")

    def receive(self, data: str | bytes, ingress_ns: int) -> None:
        """Handle a frame; the result is an answer, a command, or a closed connection."""
        self._late_bytes = self.backlog_bytes
        request: AnyRequest | None = None
        try:
            if type(data) is not self._kind:
                raise Refused(Reason.SYNTAX, None, "text frames are JSON, binary ones MessagePack")
            if is_batch(data):
                return self._receive_batch(data, ingress_ns)
            request = read_json(data) if isinstance(data, str) else read_msgpack(data)
            self._handlers[type(request)](request, ingress_ns)
        except Refused as refused:
            self._refuse(request, refused)
            if refused.reason in _GRAMMAR:
                self._count_malformed()

    def _receive_batch(self, data: str | bytes, ingress_ns: int) -> None:
        """Handle a frame of several commands; raises Refused if the frame itself is invalid."""
        malformed = False
        for one in read_batch(data):
            request = None if isinstance(one, Refused) else one
            try:
                if isinstance(one, Refused):
                    raise one
                if type(one) not in _COMMANDS:
                    raise Refused(Reason.COMBINATION, "op", "it takes a frame of its own")
                self._handlers[type(one)](one, ingress_ns)
            except Refused as refused:
                self._refuse(request, refused)
                malformed |= refused.reason in _GRAMMAR
        if malformed:
            self._count_malformed()

    def _count_malformed(self) -> None:
        self._malformed += 1
        if self._malformed >= MALFORMED_LIMIT:
            self.close(CLOSE_POLICY, "too many malformed frames")

    def _refuse(self, request: AnyRequest | None, refused: Refused) -> None:
        if request is not None:
            for name in ("client_order_id", "request_id", "order_id"):
                value = getattr(request, name, None)
                if value is not None and len(value) <= Limit.CLIENT_ID_CHARS:
                    refused.seen[name] = value
        if self.hub.metrics is not None:
            self.hub.metrics.rejected(refused.reason)
        op = None if request is None else request.__struct_config__.tag
        self.send(from_refused(refused, op if isinstance(op, str) else None))

    def _beyond_scope(self, request: AnyRequest, ingress_ns: int) -> None:
        assert self.key is not None, "only a key has a scope"
        raise Refused(Reason.SCOPE, None, f"the key's scope is {self.key.scope}")

    def _enter(self, request: Enter, ingress_ns: int) -> None:
        account = self.trading_account
        if account < 0:
            account = self._trader()
        if request.valid_until_ms is not None:
            self._check_time(request.valid_until_ms)
        record = self._recorder.enter(request, account, self.engine_session)
        self._submit(record, ingress_ns, request.client_order_id)

    def _cancel(self, request: Cancel, ingress_ns: int) -> None:
        account = self.trading_account
        if account < 0:
            account = self._trader()
        record = self._recorder.cancel(request, account, self.engine_session)
        self._submit(record, ingress_ns, request.request_id)

    def _reduce(self, request: Reduce, ingress_ns: int) -> None:
        record = self._recorder.reduce(request, self._trader(), self.engine_session)
        self._submit(record, ingress_ns, request.request_id)

    def _replace(self, request: Replace, ingress_ns: int) -> None:
        account = self._trader()
        if request.valid_until_ms is not None:
            self._check_time(request.valid_until_ms)
        target = self.hub.accounts.target_instrument(request, account)
        record = self._recorder.replace(request, account, self.engine_session, target)
        self._submit(record, ingress_ns, request.request_id)

    def _mass(self, request: MassCancel | Kill | Quote | Protect, ingress_ns: int) -> None:
        account = self._trader()
        if isinstance(request, Quote) and request.valid_until_ms is not None:
            self._check_time(request.valid_until_ms)
        record = self.hub.mass.record(request, account, self.engine_session)
        self._submit(record, ingress_ns, request.request_id)

    def _cancel_after(self, request: CancelAfter, ingress_ns: int) -> None:
        record, text = hold(request, self._trader(), self.engine_session)
        self._submit(record, ingress_ns, text)

    def _preview(self, request: Preview, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")

        def tell(answer: Previewed | Refused) -> None:
            if isinstance(answer, Refused):
                self._refuse(request, answer)
            else:
                self.send(answer)

        self.hub.previews.ask(request, self._reader(), self.engine_session, tell)

    def _check_time(self, valid_until_ms: int) -> None:
        """Raise Refused if a command's ``valid_until_ms`` has passed."""
        now_ms = self.hub.now_ms()
        if now_ms > valid_until_ms:
            limit, observed = str(valid_until_ms), str(now_ms)
            raise Refused(GatewayReason.LATE, "valid_until_ms", limit=limit, observed=observed)

    def _submit(self, record: bytes, ingress_ns: int, text: str) -> None:
        hub = self.hub
        try:
            hub.put(self.trading_account, record, ingress_ns=ingress_ns, text=text)
        except hub.queue_full as full:
            raise Refused(full_reason(full)) from None
        metrics = hub.metrics
        if metrics is not None and metrics.probing:
            metrics.follow(text, ingress_ns, time.time_ns())

    def _trader(self) -> int:
        """Return the account, if it may enter commands; raises Refused."""
        account = self._reader()
        assert self.engine_session, "a key that may cancel has an engine session"
        return account

    def _reader(self) -> int:
        if self.stage is not Stage.READY or self.key is None:
            raise Refused(Reason.AUTH_REQUIRED, None, "log on first")
        return self.key.account

    def _logon(self, request: Logon, ingress_ns: int) -> None:
        if self.stage is not Stage.PUBLIC:  # the stage stays
            self._count_logon()
            raise Refused(Reason.SESSION_LIVE, None, "this connection has logged on")
        try:
            self._check_logon(request)
        except Refused:
            self.refuse_logon()
            raise

    def _check_logon(self, request: Logon) -> None:
        numbers = _numbers(request)
        for field, number, _ in numbers:
            if number < 0:
                raise Refused(Reason.SYNTAX, field, "a number is negative")
        for field, number, most in numbers:
            if most and number > most:
                raise Refused(Reason.PARAMETER_RANGE, field, limit=str(most))
        verdict = self.hub.keys.check(logon_proof(request, self.address), self.hub.now_ms())
        if not isinstance(verdict, Key):
            raise Refused(verdict)
        self.hub.log_on(self, verdict, request)

    def refuse_logon(self) -> None:
        """Reset after a logon that the gateway or the engine refused; too many of them close the
        connection."""
        self.stage, self.key, self.logon = Stage.PUBLIC, None, None
        self._count_logon()

    def _count_logon(self) -> None:
        self._bad_logons += 1
        if self._bad_logons >= LOGON_LIMIT:
            self.close(CLOSE_POLICY, "too many refused logons")

    def _subscribe(self, request: Subscribe, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")
        names = list(dict.fromkeys(request.channels))
        wanted = len(self.channels.union(names))
        if wanted > Limit.SUBSCRIPTIONS:
            limit = str(Limit.SUBSCRIPTIONS.value)
            raise Refused(Reason.SUBSCRIPTIONS_FULL, "channels", limit=limit, observed=str(wanted))
        resumed, first = self.hub.subscribe(self, names, request.after)
        self.send(Subscribed(request_id=request.request_id, channels=names, resumed=resumed))
        for channel, messages in first.items():
            self._send_snapshot(channel, messages)
        self.wake()

    def _unsubscribe(self, request: Unsubscribe, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")
        names = list(dict.fromkeys(request.channels))
        if not self.channels.issuperset(names):
            raise Refused(Reason.NOT_FOUND, "channels", "not subscribed")
        self.hub.unsubscribe(self, names)
        self.send(Unsubscribed(request_id=request.request_id, channels=names))

    def _instruments(self, request: ListInstruments, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")
        self.send(self.hub.queries.instruments(self.hub.sequence, request.request_id))

    def _account(self, request: QueryAccount, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")
        self.send(self.hub.queries.account(self._reader(), self.hub.sequence, request.request_id))

    def _orders(self, request: QueryOrders, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")
        self.send(self.hub.queries.orders(self._reader(), self.hub.sequence, request.request_id))

    def _order(self, request: QueryOrder, ingress_ns: int) -> None:
        checked_id(request.request_id, "request_id")
        hub = self.hub

        def tell(order: Order | None) -> None:
            self.send(hub.queries.order(order, hub.sequence, request.request_id))

        hub.lookups.ask(request, self._reader(), hub.now_ms(), tell)

    def _ping(self, request: Ping, ingress_ns: int) -> None:
        self.send(self.hub.heartbeat(self))

    # Outgoing

    def send(self, message: Response) -> None:
        """Queue a message for this connection only, and wake the sender."""
        self.push(self._encode(message))
        self.wake()

    def flush(self) -> bool:
        """Send the queue at once if possible, otherwise wake the sender.

        Return whether other connections need not wait for it: it is sent, or the socket is full.
        """
        if self.send_now is not None and self.send_now():
            return True
        self.wake()
        return self.sending_bytes > 0

    def push(self, encoded: bytes, count: int = 1) -> None:
        """Queue ``count`` encoded messages without waking the sender.

        A reader that does not keep up is evicted. Messages of the present turn of the hub, or in
        answer to the present frame, do not count, since none of them could be sent yet.
        """
        if self.closing is not None and self.closing[0] == CLOSE_SLOW:
            return
        if self._turn != self.hub.turn:
            self._turn, self._late_bytes = self.hub.turn, self.backlog_bytes
        if self._late_bytes > BACKLOG_BYTES:
            self._waiting.clear()
            self._waiting_bytes = self._waiting_count = 0
            self.shows.clear()
            self.close(CLOSE_SLOW, "slow reader")
            return
        self._waiting.append(encoded)
        self._waiting_bytes += len(encoded)
        self._waiting_count += count

    def push_picture(self, channel: str, encoded: bytes) -> None:
        """Queue a picture's delta. For a reader that is behind, a later snapshot replaces it."""
        if not self.backlog_bytes:
            self._granted_bytes = 0
        if channel in self.stale:
            return
        if self.backlog_bytes > STALE_BYTES + self._granted_bytes:
            self.stale.add(channel)
            self.shows.forget(channel)
        elif channel in self.shows.channels:
            self.shows.hold(channel, encoded)
        else:
            self.push(encoded)

    def _send_snapshot(self, channel: str, messages: Sequence[Response]) -> None:
        """Queue a snapshot; its length never counts as the reader's delay.

        A short one is queued at once; a picture's long one, or one behind a long queue, one message
        a turn.
        """
        few = isinstance(messages, list) or len(messages) == 1
        few = few and self._waiting_bytes <= EAGER_BYTES
        if few or not self.hub.feed.pictured(channel):
            for message in messages:
                self._grant(message)
        else:
            self.shows.begin(channel, messages)

    def _grant(self, message: Response) -> int:
        encoded = self._encode(message)
        self._granted_bytes += len(encoded)
        self.push(encoded)
        return len(encoded)

    def _show(self) -> None:
        """Queue the next message of a long snapshot."""
        message, behind = self.shows.tell()
        self.hub.refreshes.spend(self._grant(message))
        for encoded in behind:
            self.push(encoded)
        if self.shows.channels:
            self.wake()

    def forget(self, channels: Iterable[str]) -> None:
        """Drop what is still to be queued of channels that are left or begin again."""
        for channel in channels:
            self.stale.discard(channel)
            self.shows.forget(channel)

    def _refresh(self) -> None:
        """Queue current snapshots for a reader that has caught up, as far as its turn allows."""
        refreshes, before = self.hub.refreshes, self._granted_bytes
        try:
            for channel in sorted(self.stale):
                if not refreshes.admits(self):
                    return
                self.stale.remove(channel)
                self._send_snapshot(channel, self.hub.snapshot(channel))
                refreshes.spend(self._granted_bytes - before)
                before = self._granted_bytes
        except Refused:
            self.close(CLOSE_SLOW, "slow reader of a long queue")

    def take(self) -> bytes:
        """Return the queue as one frame, which the caller sends; empty if nothing is queued."""
        if self.stale and self._waiting_bytes == 0:
            self._refresh()
        if self.shows.channels and self.closing is None:
            self._show()
        waiting = self._waiting
        if not waiting:
            return b""
        count = self._waiting_count
        self._waiting, self._waiting_bytes, self._waiting_count = [], 0, 0
        return array_of(waiting, count, self.codec)

    def close(self, code: int, reason: str) -> None:
        """Close the connection; only the first code and reason count."""
        if self.closing is None:
            self.closing = (code, reason)
            if self.hub.metrics is not None:
                self.hub.metrics.closed(code)
            self.wake()


def array_of(parts: list[bytes], count: int, codec: int) -> bytes:
    """Return ``count`` encoded messages, in parts of one or more, as one encoded array."""
    if codec == JSON:
        return b"[" + b",".join(parts) + b"]"
    if count < 16:
        head = bytes([0x90 | count])
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(parts)


def elements(array: bytes) -> bytes:
    """Return the elements of an array encoded as MessagePack, as a part for ``array_of``."""
    return array[{0xDC: 3, 0xDD: 5}.get(array[0], 1) :]


def _numbers(request: Logon) -> list[tuple[str, int, int]]:
    """Return a logon's numbers with their fields and maxima; 0 if the key decides the maximum."""
    after = request.after
    place = () if after is None else (after.epoch, after.sequence, after.index)
    return [
        ("timestamp_ms", request.timestamp_ms, 0),
        ("nonce", request.nonce, 0),
        ("grace_ms", request.grace_ms, U32_MAX),
        ("resume_session", request.resume_session, U32_MAX),
        *(("after", number, STREAM_MAX) for number in place),
    ]
