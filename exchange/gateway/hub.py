"""The core that all connections share: takes the released stream, queues reports and public data.

The hub uses no socket and starts no task. ``release`` applies one released batch and queues first
the public messages for their subscribers, then the private reports. It wakes readers of public data
first, so that public data is never later than private.
"""

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Final, Protocol

from exchange.gateway.access import Key
from exchange.gateway.auth import Keys
from exchange.gateway.channels import Channels
from exchange.gateway.deadlines import cancel_session, request_of
from exchange.gateway.decode import NO_ID, RECORD, Recorder, Refused
from exchange.gateway.dispatch import Dispatch
from exchange.gateway.lookups import Lookups
from exchange.gateway.mass import MassRecorder
from exchange.gateway.metrics import Metrics
from exchange.gateway.previews import Previews, WhatIf
from exchange.gateway.queries import Queries
from exchange.gateway.refreshes import Refreshes
from exchange.gateway.rejects import from_refused, full_reason
from exchange.gateway.reports import Reports
from exchange.gateway.resume import LOGON_MARK, Resume, check_position
from exchange.gateway.seats import Owner, Seats
from exchange.gateway.session import CLOSE_REVOKED, ENCODERS, Session, Stage
from exchange.gateway.view import View
from exchange.marketdata.stream import Released, Row
from exchange.messages import EVENT, CommandFlag, CommandKind, EventKind, Reason
from exchange.messages.access import Right
from exchange.messages.wire import (
    HEARTBEAT_MS,
    Heartbeat,
    LoggedOn,
    Logon,
    Position,
    Response,
)

_REJECTED: Final = int(EventKind.REJECTED)
_OPS: Final = {  # a client's operation by the kind of its command
    int(CommandKind.ENTER): "enter",
    int(CommandKind.CANCEL): "cancel",
    int(CommandKind.REDUCE): "reduce",
    int(CommandKind.REPLACE): "replace",
    int(CommandKind.MASS_CANCEL): "mass_cancel",
    int(CommandKind.KILL): "kill",
    int(CommandKind.RESUME): "kill",
    int(CommandKind.MASS_QUOTE): "quote",
    int(CommandKind.SET_PROTECTION): "protect",
    int(CommandKind.LOGON): "logon",
    int(CommandKind.RECORD): "cancel_after",
}
_OWNER: Final = itemgetter(0, 5, 6, -1)  # a record's kind, account, session and key
_log = logging.getLogger(__name__)


class Submit(Protocol):
    """Queues a command for the sequencer, or raises one of ``Hub.queue_full``.

    ``source`` is the account: its commands keep their order over all its connections.
    """

    def __call__(
        self, source: int, record: bytes, *, ingress_ns: int = 0, text: str | None = None
    ) -> None: ...


class Tape(Protocol):
    """The released stream: live, and from any event on to catch up."""

    def read(self, epoch: int, sequence: int, index: int) -> Iterator[Released]:
        """Yield what was released after that event, up to the present."""
        ...

    def follow(self, after: tuple[int, int, int] = (0, 0, 0)) -> AsyncIterator[Released]:
        """Yield what is released after that event, for as long as the market runs."""
        ...


class Hub:
    """The gateway without its sockets. Nothing here is shared between threads."""

    def __init__(
        self,
        submit: Submit,
        tape: Tape,
        keys: Keys,
        *,
        queue_full: tuple[type[Exception], ...],
        no_such_position: type[Exception],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        view: View | None = None,
        what_if: WhatIf | None = None,
        first_connection: int = 1,
        seats: Seats | None = None,
    ) -> None:
        """``queue_full`` are the exceptions of ``submit``, ``no_such_position`` that of
        ``tape.read``; this package may not import theirs. ``view`` is the known state, after whose
        position the stream is followed. Connections are numbered from ``first_connection``; numbers
        are unique in a market. ``seats`` counts the connections, by default of this gateway alone.
        """
        view = view or View()
        self.put = self._submit = submit
        self.queue_full = queue_full
        self.no_such_position = no_such_position
        self.keys = keys
        self.now_ms = now_ms
        self.draining = False
        self.turn = 0  # counts batches, beats and ticks
        self.metrics: Metrics | None = None  # set once the earlier stream is read
        self.feed, self.accounts = view.feed, view.accounts
        self.recorder = Recorder(self.feed.instruments)
        self.mass = MassRecorder(self.feed.instruments, self.recorder)
        self.reports = Reports(self.feed.instruments, self.accounts)
        self.queries = Queries(self.feed, self.accounts)
        self.lookups = Lookups(self.accounts)
        self.previews = Previews(self.recorder, self.mass, self.accounts, what_if)
        self._begin = view.position
        self.epoch, self.sequence, _ = view.position  # of the last released batch
        self.sessions: dict[int, Session] = {}  # by connection number
        self.seats = seats or Seats()
        self._seated: dict[int, Owner] = {}  # logged on or logging on, by connection number
        self._tape = tape
        self.channels = Channels(self.feed)
        self.refreshes = Refreshes()
        self.dispatch = Dispatch(
            self.feed.instruments, self.accounts, self.reports, self._answer_logon
        )
        self._logons: dict[int, Session] = {}  # waiting for the engine, by connection number
        self._owed: list[tuple[int, bytes]] = []  # (account, record) refused by a full queue
        self._next_connection = first_connection
        self.epochs = view.epochs
        self._resumes: dict[int, Resume] = {}  # still catching up, by connection number

    def submit(self, account: int, record: bytes) -> bool:
        """Queue a command of the gateway's own; return whether there was room."""
        try:
            self._submit(account, record)
        except self.queue_full:
            return False
        return True

    def drain(self) -> None:
        """Refuse all commands from now on: the market stops. Queued ones are still reported."""
        self.draining = True

        def refuse(
            source: int, record: bytes, *, ingress_ns: int = 0, text: str | None = None
        ) -> None:
            raise self.queue_full[-1]("the market is stopping")

        self.put = refuse

    # Connections

    def connect(self, codec: int, wake: Callable[[], None], address: str = "") -> Session:
        """Return the session of a new connection from that peer."""
        session = Session(self, self._next_connection, codec, wake, address)
        self._next_connection += 1
        self.sessions[session.number] = session
        return session

    def disconnect(self, session: Session) -> None:
        """Remove a connection and log its engine session off; with ``cancels_on_loss`` its orders
        are cancelled."""
        self.unsubscribe(session, list(session.channels))
        self.refreshes.leave(session)
        del self.sessions[session.number]
        self._unseat(session)
        resuming = self._resumes.pop(session.number, None)
        if session.key is not None:
            if session.stage is Stage.READY and resuming is None:
                self.dispatch.leave(session.key.account, session)
            if session.engine_session:
                if session.cancels_on_loss:
                    account = session.key.account
                    self._owe(account, cancel_session(account, session.engine_session))
                self._log_off(session.key.account, session.engine_session)
        session.stage, session.trading_account = Stage.CLOSED, -1

    def log_on(self, session: Session, key: Key, logon: Logon) -> None:
        """Log a connection on, if its key may have one more; the session gets the answer."""
        session.key, session.logon, session.stage = key, logon, Stage.LOGGING_ON
        owner: Owner = ("key", key.key_id)
        self.seats.take(owner, partial(self._seat, session, key, logon, owner))

    def _seat(self, session: Session, key: Key, logon: Logon, owner: Owner, now: int) -> None:
        """Continue a logon whose key has ``now`` connections with it."""
        try:
            self.seats.check(owner, now)
            self._seated[session.number] = owner
            if session.stage is Stage.CLOSED:  # closed in the meantime
                self._unseat(session)
            else:
                self._ask_for_session(session, key, logon)
        except Refused as refused:
            if session.stage is not Stage.CLOSED:
                self._refuse_logon(session, refused)

    def _unseat(self, session: Session) -> None:
        owner = self._seated.pop(session.number, None)
        if owner is not None:
            self.seats.leave(owner)

    def _refuse_logon(self, session: Session, refused: Refused) -> None:
        """Refuse a connection's logon. A full queue does not count as a refused logon."""
        self._unseat(session)
        if self.metrics is not None:
            self.metrics.rejected(refused.reason)
        session.send(from_refused(refused, "logon"))
        if refused.reason in (Reason.QUEUE_FULL, Reason.LOG_FULL):
            session.stage, session.key, session.logon = Stage.PUBLIC, None, None
        else:
            session.refuse_logon()

    def _ask_for_session(self, session: Session, key: Key, logon: Logon) -> None:
        """Request a session of the engine; a key without CANCEL needs none. Raises Refused."""
        if key.account not in self.accounts.by_id:
            raise Refused(Reason.UNKNOWN_ACCOUNT)
        if logon.after is not None:
            check_position(self._tape, self.epochs.place(logon.after), self.no_such_position)
        if not key.may(Right.CANCEL):
            self._ready(session, 0, (self.sequence + 1, 0))
            self._resume_all()
            return
        flags = CommandFlag.CANCEL_ON_DISCONNECT if logon.cancel_on_disconnect else 0
        record = RECORD.pack(
            CommandKind.LOGON, 0, 0, flags, 0, key.account, logon.resume_session, 0,
            logon.grace_ms, 0, 0, 0, NO_ID,
            session.number.to_bytes(8, "little") + LOGON_MARK.to_bytes(8, "little"),
        )  # fmt: skip
        try:
            self._submit(key.account, record)
        except self.queue_full as full:
            raise Refused(full_reason(full)) from None
        self._logons[session.number] = session

    def _log_off(self, account: int, engine_session: int) -> None:
        record = RECORD.pack(
            CommandKind.LOGOFF, 0, 0, 0, 0, account, engine_session, 0, 0, 0, 0, 0, NO_ID, NO_ID
        )
        self._owe(account, record)

    def _owe(self, account: int, record: bytes) -> None:
        """Submit a command of the gateway's own, now or once there is room in the queue."""
        if self._owed or not self.submit(account, record):
            self._owed.append((account, record))

    def turned_back(self, record: bytes, text: str | None, refusal: Refused) -> None:
        """Handle the refusal of a command by a sequencer in another process.

        The gateway's own commands are retried; the others are rejected to their client.
        """
        kind, account, engine_session, key = _OWNER(RECORD.unpack(record))
        if kind == CommandKind.LOGOFF or (text is None and kind != CommandKind.LOGON):
            self._owed.append((account, record))
        elif kind == CommandKind.LOGON:
            session = self._logons.pop(int.from_bytes(key[:8], "little"), None)
            if session is not None and session.stage is Stage.LOGGING_ON:
                self._refuse_logon(session, refusal)
        else:
            if text is not None:
                named = "client_order_id" if kind == CommandKind.ENTER else "request_id"
                refusal.seen[named] = request_of(text) if kind == CommandKind.RECORD else text
            for session in self.sessions.values():
                if engine_session:
                    asked = session.engine_session == engine_session
                else:  # a kill of the account: all its connections are told
                    asked = session.trading_account == account
                if asked:
                    session.send(from_refused(refusal, _OPS.get(kind)))

    def retry(self) -> None:
        """Submit again what a full queue refused: a logoff must not be lost."""
        waiting, self._owed = self._owed, []
        for account, record in waiting:
            self._owe(account, record)

    def drop_revoked(self) -> None:
        """Close the connections whose key was revoked or has expired since they logged on. Keys
        that cannot be read are looked at again with the next beat."""
        keyed = {s.number: s.key.key_id for s in self.sessions.values() if s.key is not None}
        if keyed:
            try:
                gone = self.keys.revoked(set(keyed.values()), self.now_ms())
            except sqlite3.Error as error:
                _log.error("whose keys were revoked cannot be read: %s", error)
                return
            for number, key_id in keyed.items():
                if key_id in gone:
                    self.sessions[number].close(CLOSE_REVOKED, "the key was revoked")

    # Channels

    def snapshot(self, channel: str) -> Sequence[Response]:
        """Return a channel's first messages; raises Refused."""
        return self.channels.snapshot(channel, self.sequence)

    def subscribe(
        self, session: Session, names: list[str], after: int | None
    ) -> tuple[list[str], dict[str, Sequence[Response]]]:
        """Subscribe a connection to channels.

        Returns the channels that resume after the sequence ``after``, and the first messages by
        channel. Raises Refused, and then nothing has changed.
        """
        if after is not None and not 0 <= after <= self.sequence:
            limit, observed = str(self.sequence), str(after)
            raise Refused(Reason.NOT_FOUND, "after", limit=limit, observed=observed)
        self.channels.check(names)
        resumed = self.channels.join(session, names, after)
        first: dict[str, Sequence[Response]] = {}
        for name in names:
            if after is not None and name in resumed:
                first[name] = self.channels.missed(name, after)
            else:
                first[name] = self.snapshot(name)
        return resumed, first

    def unsubscribe(self, session: Session, names: list[str]) -> None:
        """End a connection's subscriptions."""
        self.channels.leave(session, names)

    def heartbeat(self, session: Session | None = None) -> Heartbeat:
        """Return the heartbeat of a connection, with the sequence up to which all its reports are
        queued; without ``session`` that of connections which are not behind."""
        epoch, sequence = self.epoch, self.sequence
        if session is not None and (behind := self._told_upto(session)) is not None:
            sequence = min(behind, sequence)
            epoch = self.epochs.place(Position(epoch, sequence, 0))[0]
        return Heartbeat(epoch=epoch, sequence=sequence, time=self.feed.time)

    def _told_upto(self, session: Session) -> int | None:
        """Return the sequence up to which a connection that is behind has its reports, or None."""
        resume = self._resumes.get(session.number)
        if resume is not None:
            return resume.sent_upto
        if session.stage is Stage.LOGGING_ON and session.logon is not None and session.logon.after:
            return max(0, session.logon.after.sequence - 1)  # the logon is not answered yet
        return None

    def beat(self) -> None:
        """Send the heartbeats of all connections and channels, retry refused commands, and close
        connections with revoked or expired keys."""
        self.turn += 1
        self.retry()
        self.drop_revoked()
        self.channels.beat()
        heartbeat = self.heartbeat()
        encoded = tuple(encode(heartbeat) for encode in ENCODERS)
        for session in list(self.sessions.values()):
            if self._told_upto(session) is None:
                session.push(encoded[session.codec])
            else:
                session.push(ENCODERS[session.codec](self.heartbeat(session)))
            session.wake()

    def tick(self) -> None:
        """Publish the conflated channels, answer order queries that have waited long enough, and
        send fresh snapshots to readers that were behind."""
        self.turn += 1
        self.lookups.expire(self.now_ms())
        for session in self.channels.tick().values():
            session.flush()
        self.refreshes.tick()

    # Released batches

    def follow(self) -> AsyncIterator[Released]:
        """Return the released stream after the known state; pass each batch to ``release``."""
        return self._tape.follow(self._begin)

    def read_back(self, commands: int) -> Iterator[Released]:
        """Yield the batches of the last ``commands`` commands, up to the hub's sequence."""
        after = max(0, self.sequence - commands)
        place = self.epochs.place(Position(self.epoch, after, 0))
        for released in self._tape.read(*place):
            if released.first_sequence > self.sequence:
                return
            yield released

    def release(self, released: Released) -> None:
        """Apply one released batch and queue its messages for every connection."""
        begun_ns = time.time_ns()
        self.turn += 1
        rows: list[Row] = list(EVENT.iter_unpack(released.events))
        texts = dict(released.texts)
        if released.epoch != self.epoch:
            self.epochs.note(released.epoch, released.first_sequence)
        self.epoch = released.epoch
        self.sequence = released.first_sequence + released.count - 1
        readers: dict[int, Session] = {}
        told: dict[int, Session] = {}
        for channel, message in self.feed.apply(rows, released.stamp, texts, self.channels):
            readers.update(self.channels.publish(channel, message))
        self.dispatch.take(rows, released.stamp, texts, told)
        prompt = True
        for number, session in readers.items():
            if number not in told:
                prompt &= session.flush()
        for session in told.values():
            if prompt:
                session.flush()
            else:  # a public reader waits for its sender, which must run first
                session.wake()
        self._resume_all()
        self.previews.release(self.sequence)
        if self.lookups:
            self.lookups.release(texts.values())
        if self._owed:
            self.retry()
        if self.metrics is not None:
            self.metrics.released(released.count, released.events)
            self.metrics.reported(texts, released.stamp, begun_ns, time.time_ns())

    def _answer_logon(self, row: Row, stamp: int) -> None:
        """Handle the event that answers a LOGON."""
        session = self._logons.pop(row[11], None)
        if session is None:
            return  # of a connection of this gateway before it restarted
        if row[2] == _REJECTED:
            session.send(self.reports.kinds[_REJECTED](row, stamp, None))
            self._unseat(session)
            session.refuse_logon()
        elif session.stage is Stage.CLOSED:
            self._log_off(row[6], row[7])
        else:
            self._ready(session, row[7], (row[0], row[1]))

    def _ready(self, session: Session, engine_session: int, place: tuple[int, int]) -> None:
        """Finish a logon: queue the missed reports, then the answer, then live reports."""
        key, logon = session.key, session.logon
        if key is None or logon is None:
            raise AssertionError("a logon was answered that nobody sent")
        session.engine_session = engine_session
        logged_on = LoggedOn(
            account=key.account,
            session=engine_session,
            scope=key.scope,
            epoch=self.epoch,
            sequence=place[0] if engine_session else self.sequence,
            index=place[1],
            time=self.feed.time,
            heartbeat_ms=HEARTBEAT_MS,
            cancel_on_disconnect=logon.cancel_on_disconnect,
            grace_ms=logon.grace_ms,
        )
        if logon.after is None:
            session.admit()
            session.send(logged_on)
            self.dispatch.join(key.account, session)
        else:
            start = self.epochs.place(logon.after)
            resume = Resume(session, key.account, start, place, logged_on)
            self._resumes[session.number] = resume

    def is_resuming(self, session: Session) -> bool:
        """Whether a connection is still catching up."""
        return session.number in self._resumes

    def resume(self, session: Session) -> bool:
        """Queue a slice of the reports that a connection missed; return whether it was behind.

        Its sender calls this whenever nothing is left to send, so that reading keeps the client's
        pace. Must not be called during ``release``, which calls it itself.
        """
        resume = self._resumes.get(session.number)
        if resume is None or session.closing is not None:
            return False
        if resume.advance(self._tape, self.reports, self.sequence):
            assert session.key is not None, "resumed without a key"
            del self._resumes[session.number]
            self.dispatch.join(session.key.account, session)
        return True

    def _resume_all(self) -> None:
        for resume in list(self._resumes.values()):
            self.resume(resume.session)
            resume.session.wake()
