"""The client's state machine. It does no I/O and reads no clock: its driver sends the requests it
returns, passes in what arrives, and passes the time in nanoseconds, best from a clock that is never
set: silence is measured by it. Only a logon states the time of day.

A command is *pending* from ``enter`` (or ``cancel`` …) until its answer. Answers come on the
account's stream, whose reports are delivered once each: one at or before the last position
(sequence, index) is a repetition and is dropped. After a broken connection the logon names that
position, so that the exchange first sends what was missed; then every command that is still awaited
is sent again under its old id, which the exchange carries out only once.
"""

from enum import Enum
from itertools import count
from typing import Final, TypeAlias

import msgspec

from clients.errors import LogonRefused, NotConnected, TooMany, ValueRefused, detail_of
from clients.feed import AnyPublic, Feed
from clients.keys import Key as ApiKey
from clients.keys import key_of as api_key_of
from clients.marks import Missed
from clients.portfolio import Portfolio
from exchange.messages import Reason
from exchange.messages.access import GatewayReason
from exchange.messages.wire import (
    HEARTBEAT_MS,
    Accepted,
    AccountReport,
    AnyCommand,
    AnyRequest,
    AnyResponse,
    CancelAfterSet,
    Cancelled,
    CashMoved,
    Corrected,
    Deficit,
    Dormant,
    Elected,
    Enter,
    Execution,
    Heartbeat,
    Instruments,
    LegTraded,
    ListInstruments,
    LoggedOn,
    Logon,
    Orders,
    OrderStatus,
    Ping,
    Position,
    Previewed,
    QueryAccount,
    Reduced,
    Refilled,
    Rejected,
    Replaced,
    ResidualPosted,
    Returned,
    Settled,
    Subscribe,
    Subscribed,
    Transferred,
    Unsubscribe,
    Unsubscribed,
    Waiting,
    signed_text,
)
from exchange.messages.wire_mass import (
    Killed,
    MassCancelled,
    Protection,
    Quoted,
)

Key: TypeAlias = tuple[str, str]  # ("order" or "request", id)
AnyOrderReport: TypeAlias = (
    Accepted
    | Execution
    | Cancelled
    | Reduced
    | Replaced
    | Dormant
    | Returned
    | Waiting
    | Elected
    | Refilled
)
AnyMassReport: TypeAlias = MassCancelled | Killed | Quoted | Protection | CancelAfterSet
AnyReport: TypeAlias = (
    AnyOrderReport
    | AnyMassReport
    | Corrected
    | LegTraded
    | ResidualPosted
    | Transferred
    | Settled
    | CashMoved
    | Deficit
)
_ANSWERS: Final = (Subscribed, Unsubscribed, Instruments, AccountReport, Orders)
PENDING_MAX: Final = 16_384  # requests without an answer
LATE_MAX: Final = PENDING_MAX  # commands whose answers came when nobody waited for them any more
QUIET_BEATS: Final = 1.5  # heartbeat intervals of silence before a Ping
DEAD_BEATS: Final = 3  # and before the connection is given up
# Reject reasons of a logon that pass by themselves or with the next nonce.
LOGON_AGAIN: Final = frozenset({Reason.NONCE, Reason.SESSION_LIVE, Reason.SESSION_UNKNOWN})
# Those that pass in time for a client that was logged on before: once the exchange notices dead
# connections; for a logon that was long under way, or a machine that was suspended and has not set
# its clock yet; and once a lock of the key ends that others at this address have caused.
LOGON_LATER: Final = frozenset(
    {GatewayReason.CONNECTIONS_FULL, Reason.SESSIONS_FULL, Reason.TIMESTAMP, Reason.KEY_LOCKED}
)


class State(Enum):
    """The state of the connection."""

    DOWN = "down"
    LOGGING_ON = "logging_on"
    READY = "ready"


class Health(Enum):
    """The meaning of the server's silence."""

    ALIVE = "alive"
    QUIET = "quiet"  # send a Ping
    DEAD = "dead"  # give the connection up


class Pending(msgspec.Struct, eq=False):
    """A request without an answer yet. ``awaited`` counts who waits for it; if nobody does, it is
    not sent again automatically.

    ``connection`` is the number of the connection on which it was last sent, 0 for none. ``answer``
    is set for the retry of a command that has been answered meanwhile.
    """

    key: Key
    request: AnyRequest
    awaited: int = 1
    connection: int = 0
    answer: AnyResponse | None = None


class Received(msgspec.Struct, frozen=True):
    """The result of one message: an event to deliver, a request answered, requests to send."""

    event: AnyResponse | Missed | None = None
    answered: Key | None = None
    send: list[AnyRequest] = []


class Session:
    """One account's session over any number of connections. Without a key: public data only."""

    def __init__(
        self,
        key: ApiKey | str = "",
        secret: str = "",
        *,
        started_ns: int,
        cancel_on_disconnect: bool = False,
        grace_ms: int = 0,
        after: Position | None = None,
    ) -> None:
        self.state = State.DOWN
        self.position = after  # the last report seen
        self.account: int | None = None
        self.session_id = 0
        self.portfolio = Portfolio()
        self.feed = Feed(self.next_id)
        self.pending: dict[Key, Pending] = {}
        self._late: dict[Key, Pending] = {}  # answered when nobody waited, the oldest first
        self.key = api_key_of(key, secret)
        self._cancel_on_disconnect, self._grace_ms = cancel_on_disconnect, grace_ms
        self._prefix, self._ids = f"{started_ns:x}", count(1)
        self._connection = 0  # number of the present connection
        self._heard_ns = self._pinged_ns = started_ns
        self._ahead_ns = 0  # the time of day less the driver's clock
        self._beat_ns = HEARTBEAT_MS * 1_000_000
        self._account_asked = ""  # id of the session's own account query
        self._at_position: set[str] = set()  # order ids already reported at exactly ``position``

    def next_id(self) -> str:
        """Return an id never used before: it starts with the time at which this session was
        created. Any thread may call it."""
        return f"{self._prefix}-{next(self._ids)}"

    # --- the connection ---

    def connected(self, now_ns: int, day_ns: int | None = None) -> list[AnyRequest]:
        """Note that a transport is connected; return the requests to send first. ``day_ns`` is the
        time of day, ns since 1970, if ``now_ns`` is of another clock."""
        self._connection += 1
        self._ahead_ns = 0 if day_ns is None else day_ns - now_ns
        self._heard_ns = self._pinged_ns = now_ns
        if self.key is not None:
            self.state = State.LOGGING_ON
            return [self._logon(self.key, now_ns)]
        self.state = State.READY
        return self._resume()

    def lost(self) -> list[Unsubscribed]:
        """Note that the transport is gone; return answers for the pending Unsubscribe requests,
        which are thereby fulfilled.

        Other pending requests stay. The next logon names the session even if it has ended, so that
        the answer comes after everything sent in that session.
        """
        self.state = State.DOWN
        self._account_asked = ""
        self.feed.lost()
        asked = [item.request for item in self.pending.values()]
        done = [
            Unsubscribed(request_id=one.request_id, channels=one.channels)
            for one in asked
            if isinstance(one, Unsubscribe) and self.feed.channels.issuperset(one.channels)
        ]
        for answer in done:
            self._answer(answer)
        return done

    def health(self, now_ns: int) -> Health:
        """Classify the server's silence. QUIET is returned at most once per heartbeat interval."""
        silent = now_ns - self._heard_ns
        if silent > DEAD_BEATS * self._beat_ns:
            return Health.DEAD
        if silent > QUIET_BEATS * self._beat_ns and now_ns - self._pinged_ns > self._beat_ns:
            self._pinged_ns = now_ns
            return Health.QUIET
        return Health.ALIVE

    def _logon(self, key: ApiKey, now_ns: int) -> Logon:
        day_ns = now_ns + self._ahead_ns
        nonce, timestamp_ms = key.next_nonce(day_ns), day_ns // 1_000_000
        text = signed_text(timestamp_ms, nonce, key.key_id, self.session_id)
        return Logon(
            key_id=key.key_id,
            timestamp_ms=timestamp_ms,
            nonce=nonce,
            signature=key.sign(text),
            cancel_on_disconnect=self._cancel_on_disconnect,
            grace_ms=self._grace_ms,
            resume_session=self.session_id,
            after=self.position,
        )

    def _resume(self) -> list[AnyRequest]:
        """Return the requests to send once ready: instruments, channels, unanswered requests.

        Requests that are no longer awaited are forgotten, since no answer to them can come.
        """
        self.pending = {key: item for key, item in self.pending.items() if item.awaited}
        waiting = [item.request for item in self.pending.values() if self.sends(item)]
        asked = {c for request in waiting if isinstance(request, Subscribe | Unsubscribe)
                 for c in request.channels}  # fmt: skip
        listing = ListInstruments(request_id=self.next_id())
        return [listing, *self.feed.rejoin(asked), *waiting, *self._ask_account()]

    def _ask_account(self) -> list[AnyRequest]:
        """Return a query for positions that a settlement may have ended, unless one is under
        way."""
        if self.state is not State.READY or self._account_asked or not self.portfolio.is_unsure:
            return []
        self._account_asked = self.next_id()
        return [QueryAccount(request_id=self._account_asked)]

    # --- requests ---

    def ask(self, request: AnyRequest) -> Pending:
        """Register a request; registering the same again is a retry. ``sends`` says whether to send
        it.

        The retry of a command whose answer came too late for its first caller has that answer, and
        is not sent: the exchange remembers only an account's last ids, and would carry out an order
        that has traded once more. A late reject is no such answer, since nothing happened then.

        Raises NotConnected, TooMany, and ValueRefused if the id is pending for another request.
        """
        if self.state is not State.READY:
            raise NotConnected(f"the session is {self.state.value}")
        key = key_of(request)
        late = self._late.get(key)
        if late is not None and late.request == request:
            return msgspec.structs.replace(late, awaited=1)
        known = self.pending.get(key)
        if known is not None:
            if known.request != request:
                raise ValueRefused(f"{key[1]!r} is pending for another request")
            known.awaited += 1
            return known
        if len(self.pending) >= PENDING_MAX:
            raise TooMany("requests without an answer", PENDING_MAX)
        pending = self.pending[key] = Pending(key, request)
        return pending

    def drop(self, asked: list[Pending]) -> None:
        """Stop waiting for them; forget those that nobody waits for and that were never sent."""
        for one in asked:
            one.awaited -= 1
            if not one.awaited and not one.connection and self.pending.get(one.key) is one:
                del self.pending[one.key]

    def keep(self, pending: Pending, answer: AnyResponse) -> None:
        """Keep an answer that did not reach its caller, for a retry: the last ``LATE_MAX`` of
        commands that were carried out."""
        if isinstance(pending.request, AnyCommand) and not isinstance(answer, Rejected):
            self._late.pop(pending.key, None)
            self._late[pending.key] = msgspec.structs.replace(pending, awaited=0, answer=answer)
            if len(self._late) > LATE_MAX:
                del self._late[next(iter(self._late))]

    def sends(self, pending: Pending) -> bool:
        """Whether a request must be sent now: it is awaited, and not yet sent on this connection.

        Sending it once per connection is enough: the exchange receives it, or the connection
        breaks, and what is not answered by the next logon was not carried out. A second copy on the
        same connection could be accepted after the first one was rejected, and be answered as such.
        """
        if not self.is_due(pending):
            return False
        pending.connection = self._connection
        return True

    def is_due(self, pending: Pending) -> bool:
        """Whether ``sends`` would say so."""
        if pending.answer is not None:
            return False
        return pending.awaited > 0 and pending.connection != self._connection

    # --- what arrives ---

    def receive(self, message: AnyResponse, now_ns: int) -> Received:
        """Handle one message. Raises LogonRefused; ProtocolError if it makes no sense."""
        self._heard_ns = now_ns
        if isinstance(message, AnyReport):
            return self._report(message)
        if isinstance(message, Rejected):
            return self._rejected(message, now_ns)
        if isinstance(message, AnyPublic):
            event, send = self.feed.take(message)
            return Received(event, send=send)
        if isinstance(message, LoggedOn):
            return self._logged_on(message)
        if isinstance(message, Heartbeat):
            # All up to its sequence was sent, and every command has an event of index 0. Before the
            # logon is answered the sequence may be ahead of missed reports.
            if self.state is not State.READY or not message.sequence:
                return Received()
            self._advance(message.epoch, message.sequence, 0)
            return Received(send=self.feed.beat(message.sequence) + self._ask_account())
        if isinstance(message, Previewed | OrderStatus):
            return Received(answered=self._settle(("request", message.request_id)))
        if isinstance(message, _ANSWERS):
            return self._answer(message)
        return Received(message)

    def _logged_on(self, message: LoggedOn) -> Received:
        self.state = State.READY
        self.account, self.session_id = message.account, message.session
        self._beat_ns = message.heartbeat_ms * 1_000_000
        self._advance(message.epoch, message.sequence, message.index)
        return Received(message, send=self._resume())

    def _report(self, message: AnyReport) -> Received:
        order_id = message.order_id if isinstance(message, AnyOrderReport) else ""
        if not self._is_new(message.sequence, message.index, order_id):
            return Received()
        if isinstance(message, AnyOrderReport):
            self.portfolio.apply(message)
            return Received(message, self._settle(_answered_by(message), message))
        if isinstance(message, AnyMassReport):
            key = None if message.request_id is None else ("request", message.request_id)
            return Received(message, self._settle(key, message))
        if isinstance(message, Corrected):
            self.portfolio.correct(message)
        elif isinstance(message, LegTraded | Transferred):
            self.portfolio.take_leg(message)
        elif isinstance(message, Settled):
            self.portfolio.settle(message)
        return Received(message, send=self._ask_account())

    def _rejected(self, message: Rejected, now_ns: int) -> Received:
        if self._is_about_logon(message):
            return self._logon_refused(message, now_ns)
        if message.sequence is not None and message.index is not None:
            order_id = message.order_id or ""
            if not self._is_new(message.sequence, message.index, order_id):
                return Received()
        key = None
        if message.request_id is not None:
            key = ("request", message.request_id)
        elif message.client_order_id is not None:
            key = ("order", message.client_order_id)
        if message.request_id and message.request_id == self._account_asked:
            self._account_asked = ""  # the next heartbeat repeats the query
        return Received(message, self._settle(key), self.feed.refused(message))

    def _is_about_logon(self, message: Rejected) -> bool:
        if message.op is not None or self.state is not State.LOGGING_ON:
            return message.op == "logon"
        # The engine's own refusal names no request, but a missed reject of another command may come
        # before the logon's answer. A new session cannot be unknown.
        is_named = message.request_id is not None or message.client_order_id is not None
        is_new = message.number == Reason.SESSION_UNKNOWN and not self.session_id
        return not is_named and not is_new

    def _logon_refused(self, message: Rejected, now_ns: int) -> Received:
        if message.number == Reason.SESSION_UNKNOWN and self.session_id and self.key is not None:
            self.session_id = 0  # it has ended meanwhile: open a new one
            return Received(send=[self._logon(self.key, now_ns)])
        later = message.number in LOGON_LATER and self.account is not None
        again = message.retryable or later or message.number in LOGON_AGAIN
        raise LogonRefused(message.name, detail_of(message), retryable=again)

    def _answer(
        self, message: Subscribed | Unsubscribed | Instruments | AccountReport | Orders
    ) -> Received:
        if isinstance(message, Subscribed):
            self.feed.joined(message)
        elif isinstance(message, Unsubscribed):
            self.feed.left(message)
        elif isinstance(message, Instruments):
            self.feed.adopt(message)
        elif isinstance(message, AccountReport):
            self.portfolio.adopt_account(message)
            if message.request_id == self._account_asked:
                self._account_asked = ""
        else:
            self.portfolio.adopt_orders(message)
        key = None if message.request_id is None else ("request", message.request_id)
        return Received(answered=self._settle(key), send=self._ask_account())

    def _settle(self, key: Key | None, answer: AnyResponse | None = None) -> Key | None:
        """Remove a pending request; return its key, or None if there was none. A command's answer
        is kept if nobody waits for it."""
        pending = None if key is None else self.pending.pop(key, None)
        if pending is None:
            return None
        if answer is not None and not pending.awaited:
            self.keep(pending, answer)
        return key

    def _is_new(self, sequence: int, index: int, order_id: str) -> bool:
        """Whether a report has not been delivered yet. Both sides of one trade share a position."""
        last = (self.position.sequence, self.position.index) if self.position else (-1, 0)
        if (sequence, index) < last or ((sequence, index) == last and self._seen_here(order_id)):
            return False
        if (sequence, index) > last:
            self._advance(self.position.epoch if self.position else 0, sequence, index)
        self._at_position.add(order_id)
        return True

    def _seen_here(self, order_id: str) -> bool:
        return not self._at_position or order_id in self._at_position

    def _advance(self, epoch: int, sequence: int, index: int) -> None:
        last = self.position
        if last is None or (sequence, index) > (last.sequence, last.index):
            self._at_position.clear()
            self.position = Position(epoch, sequence, index)
        elif epoch > last.epoch:
            self.position = Position(epoch, last.sequence, last.index)


def key_of(request: AnyRequest) -> Key:
    """Return the key under which a request is answered. ValueRefused if it has no answer of its
    own."""
    if isinstance(request, Enter):
        return "order", request.client_order_id
    if isinstance(request, Logon | Ping):
        raise ValueRefused("a logon or a heartbeat is not asked by id")
    return "request", request.request_id


def _answered_by(report: AnyOrderReport) -> Key | None:
    """Return the key of the request that this report may answer: it is a command's first report."""
    if isinstance(report, Accepted):
        return "order", report.client_order_id
    if isinstance(report, Cancelled | Reduced | Replaced) and report.request_id is not None:
        return "request", report.request_id
    return None
