"""Reads the reports that a connection missed from the tape, in slices.

A logon may request years of reports. They are read in slices between other work, no faster than the
client reads them, so that a long absence does not delay other connections.
"""

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter
from typing import Final, Protocol

from exchange.gateway.corrections import CORRECTIONS, TRANSFERRED
from exchange.gateway.decode import Refused, is_id
from exchange.gateway.reports import DUPLICATE, Reports
from exchange.gateway.session import ENCODERS, STALE_BYTES, Session
from exchange.marketdata.stream import Released, Row, maker_of
from exchange.messages import EVENT, EventKind, Reason
from exchange.messages.wire import Position, Response

SLICE_EVENTS: Final = 4_096  # read for one connection before others have their turn
LOGON_MARK: Final = int.from_bytes(b"logon", "little")  # key_hi of a LOGON's correlation key
_TRADE: Final = int(EventKind.TRADE)
_RECORDED: Final = int(EventKind.RECORDED)
_REJECTED: Final = int(EventKind.REJECTED)
_FIRST: Final = itemgetter(0)
Place = tuple[int, int, int]  # epoch, sequence, index


class Reader(Protocol):
    """The released stream, readable from any event on."""

    def read(self, epoch: int, sequence: int, index: int) -> Iterator[Released]:
        """Yield what was released after that event, up to the present."""
        ...


class Epochs:
    """The first sequence of each epoch."""

    def __init__(self) -> None:
        self.first: list[tuple[int, int]] = []  # (first sequence released, epoch), ascending

    def note(self, epoch: int, first_sequence: int) -> None:
        """Note the first sequence of an epoch."""
        self.first.append((first_sequence, epoch))

    def place(self, after: Position) -> Place:
        """Return a position with the epoch of its sequence.

        Sequences never repeat, so the sequence determines the epoch. A client that was disconnected
        while it read reports of several epochs cannot know the epoch of its last report.
        """
        if after.sequence == 0:
            return (0, 0, 0)
        found = bisect_right(self.first, after.sequence, key=_FIRST) - 1
        epoch = self.first[found][1] if found >= 0 else after.epoch
        return (epoch, after.sequence, after.index)


class Resume:
    """One connection that catches up from the last report it saw to the present.

    ``logged_on`` is the answer of its logon, sent at the LOGON's place ``logon`` in the stream:
    reports before it were missed, those after it belong to the new session.
    """

    def __init__(
        self,
        session: Session,
        account: int,
        start: Place,
        logon: tuple[int, int],
        logged_on: Response,
    ) -> None:
        self.session = session
        self._account = account
        self._at = start
        self.sent_upto = max(0, start[1] - 1)  # all reports up to it are queued, or were seen
        self._logon = logon
        self._logged_on: Response | None = logged_on
        self._records: Iterator[Released] = iter(())
        self._known = -1  # sequence that ``_records`` reaches at least
        self._held: Released | None = None  # read, and not yet reported

    def advance(self, tape: Reader, reports: Reports, upto: int) -> bool:
        """Queue a slice of the missed reports; return whether all up to ``upto`` are queued.

        Call between two released batches, with the sequence of the last one. A connection that has
        seen later reports, from another gateway, stays behind until this gateway has them.
        """
        if upto < self._at[1]:
            return False
        left = SLICE_EVENTS
        while (released := self._next(tape, upto)) and released.first_sequence <= upto:
            if left <= 0 or self.session.backlog_bytes > STALE_BYTES:
                return False
            left -= self._take(released, reports)
            self._held = None
        self._answer()
        return True

    def _next(self, tape: Reader, upto: int) -> Released | None:
        if self._held is None:
            self._held = next(self._records, None)
        if self._held is None and self._known < upto:
            self._records, self._known = tape.read(*self._at), upto
            self._held = next(self._records, None)
        return self._held

    def _take(self, released: Released, reports: Reports) -> int:
        """Queue one batch's reports; return how many events it has."""
        texts, encode = dict(released.texts), ENCODERS[self.session.codec]
        rows: list[Row] = list(EVENT.iter_unpack(released.events))
        for row in rows:
            if row[:2] >= self._logon:
                self._answer()
            text = texts.get(row[0])
            for message in self._reports_of(row, reports, released.stamp, text):
                self.session.push(encode(message))
        self._at = (released.epoch, *rows[-1][:2])
        self.sent_upto = self._at[1]
        return len(rows)

    def _answer(self) -> None:
        """Queue the logon's answer, once."""
        answer, self._logged_on = self._logged_on, None
        if answer is not None:
            self.session.admit()
            self.session.push(ENCODERS[self.session.codec](answer))

    def _reports_of(
        self, row: Row, reports: Reports, stamp: int, text: str | None
    ) -> Iterator[Response]:
        """Yield the reports of one event for the connection's account."""
        return reports_of(row, self._account, reports, stamp, text)


def reports_of(
    row: Row, account: int, reports: Reports, stamp: int, text: str | None
) -> Iterator[Response]:
    """Yield the reports of one event for an account; ``text`` came with its command."""
    if row[2] == TRANSFERRED and account in (row[6], row[7]) and not row[3] & DUPLICATE:
        yield reports.transferred(row, stamp, account)
    if row[2] == _RECORDED and row[6] == account:
        held = reports.held(row, stamp, text)
        if held is not None:
            yield held
    build = reports.kinds.get(row[2])
    if build is None or (row[2] == _REJECTED and (text is None or not is_id(text))):
        return  # only rejects of clients' requests are reported: see dispatch.py
    if row[6] == account:
        yield build(row, stamp, text)
    if row[2] == _TRADE and maker_of(row[12])[0] == account:
        yield reports.made(row, stamp)
    elif row[2] in CORRECTIONS and row[12] == account:
        yield reports.other(row, stamp)


def check_position(tape: Reader, place: Place, no_such_position: type[Exception]) -> None:
    """Raise Refused NOT_FOUND for a resume point that is no event of the stream."""
    try:
        next(tape.read(*place), None)
    except no_such_position as error:
        raise Refused(Reason.NOT_FOUND, "after", str(error)) from None
