"""Applies a released batch to the accounts and queues its private reports for their readers.

The most frequent reports are written from the event straight to JSON text (``Page``). All others,
and those of an account with a MessagePack connection, are built by ``reports.Reports``.
"""

from collections.abc import Callable
from typing import Final

from exchange.gateway.accounts import Accounts, Order
from exchange.gateway.corrections import CORRECTIONS, TRANSFERRED
from exchange.gateway.decode import is_id
from exchange.gateway.page import Page
from exchange.gateway.reports import Reports, fee_text
from exchange.gateway.resume import LOGON_MARK
from exchange.gateway.session import JSON, MSGPACK, Session, elements
from exchange.marketdata.instruments import Instruments
from exchange.marketdata.stream import Row, maker_of
from exchange.messages import EventFlag, EventKind
from exchange.messages.wire import Response, encode_json, encode_msgpack

# Plain integers: see reports.py.
_ACCEPTED: Final = int(EventKind.ORDER_ACCEPTED)
_CANCELLED: Final = int(EventKind.ORDER_CANCELLED)
_TRADE: Final = int(EventKind.TRADE)
_REJECTED: Final = int(EventKind.REJECTED)
_OPENED: Final = int(EventKind.SESSION_OPENED)
_RECORDED: Final = int(EventKind.RECORDED)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_MARKET: Final = int(EventFlag.MARKET)


class Readers:
    """An account's live connections, and their reports of the current batch."""

    __slots__ = ("_messages", "_reads_json", "page", "plain", "sessions", "waits")

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.waits = False  # whether it is in the dispatch's list for this batch
        self.page = Page()  # for JSON connections
        self._messages: list[Response] = []  # for MessagePack connections
        self._look()

    def _look(self) -> None:
        codecs = {one.codec for one in self.sessions}
        self._reads_json, self.plain = JSON in codecs, MSGPACK not in codecs

    def join(self, session: Session) -> None:
        """Add a connection."""
        self.sessions.append(session)
        self._look()

    def leave(self, session: Session) -> None:
        """Remove a connection."""
        self.sessions.remove(session)
        self._look()

    def add(self, report: Response) -> None:
        """Add a report that was built by ``Reports``."""
        if self._reads_json:
            self.page.add(encode_json(report))
        if not self.plain:
            self._messages.append(report)

    def tell(self, told: dict[int, Session]) -> None:
        """Queue the collected reports, encoded once per codec; add the sessions to ``told``."""
        self.waits = False
        count = self.page.count or len(self._messages)
        if not count:
            return
        text, packed = self.page.take(), b""
        if not self.plain:
            packed = elements(encode_msgpack(self._messages))
            self._messages.clear()
        for session in self.sessions:
            session.push(text if session.codec == JSON else packed, count)
            told[session.number] = session


class Dispatch:
    """Applies batches. ``readers`` are the live connections by account."""

    def __init__(
        self,
        instruments: Instruments,
        accounts: Accounts,
        reports: Reports,
        answer_logon: Callable[[Row, int], None],
    ) -> None:
        """``answer_logon`` is called with the event that answers a LOGON, and its stamp."""
        self.readers: dict[int, Readers] = {}
        self._listed = instruments.by_id
        self._accounts = accounts
        self._reports = reports
        self._answer_logon = answer_logon
        self._waiting: list[Readers] = []  # those that the current batch concerns

    def join(self, account: int, session: Session) -> None:
        """Start reporting an account's events to a connection."""
        self.readers.setdefault(account, Readers()).join(session)

    def leave(self, account: int, session: Session) -> None:
        """Stop reporting to a connection."""
        readers = self.readers[account]
        readers.leave(session)
        if not readers.sessions:
            del self.readers[account]

    def take(
        self, rows: list[Row], stamp: int, texts: dict[int, str], told: dict[int, Session]
    ) -> None:
        """Apply a batch's events and queue their reports; add the sessions concerned to ``told``,
        by connection number."""
        accounts = self._accounts
        accounts.now = stamp
        for row in rows:
            kind, text = row[2], texts.get(row[0])
            order = accounts.apply(row, text)
            self._report(order, row, stamp, text)
            if kind in (_ACCEPTED, _CANCELLED):
                continue
            if kind == _TRADE:
                self._made(row, stamp)
            elif kind not in (_REJECTED, _OPENED):
                self._others(row, stamp, text)
            elif row[12] == LOGON_MARK:
                self._tell(told)
                self._answer_logon(row, stamp)
        self._tell(told)

    def _tell(self, told: dict[int, Session]) -> None:
        for readers in self._waiting:
            readers.tell(told)
        self._waiting.clear()

    def _of(self, account: int) -> Readers | None:
        """Return an account's live connections; None if it has none."""
        readers = self.readers.get(account)
        if readers is not None and not readers.waits:
            readers.waits = True
            self._waiting.append(readers)
        return readers

    def _report(self, order: Order | None, row: Row, stamp: int, text: str | None) -> None:
        """Report an event to the account that it names; ``order`` is the order it changed."""
        readers, kind = self._of(row[6]), row[2]
        if readers is None:
            return
        if order is not None and readers.plain and kind in (_ACCEPTED, _CANCELLED, _TRADE):
            self._write(readers.page, row, stamp, order.text, text)
            return
        build = self._reports.kinds.get(kind)
        # Only rejects of clients' requests are reported, not those of logons, or of an operator's
        # or the gateway's commands.
        if build is not None and (kind != _REJECTED or (text is not None and is_id(text))):
            readers.add(build(row, stamp, text))

    def _write(self, page: Page, row: Row, stamp: int, named: str, text: str | None) -> None:
        """Write one of the most frequent reports to the page."""
        kind, flags, instrument = row[2], row[3], self._listed[row[5]]
        code, price = instrument.code, instrument.price_text(row[8])
        if kind == _CANCELLED:
            page.cancelled(row, stamp, named, code, price, text)
        elif kind == _TRADE:
            page.execution(row, stamp, False, named, code, price, fee_text(row[13]))
        else:
            unpriced = flags & _MARKET != 0 and not row[8] and not row[10]
            account = self._accounts.by_id[row[6]]
            tokens = account.bucket.left(stamp)
            page.accepted(row, stamp, named, code, None if unpriced else price, tokens)

    def _made(self, row: Row, stamp: int) -> None:
        """Report a TRADE to the account of the resting order."""
        readers = self._of(maker_of(row[12])[0])
        if readers is None:
            return
        if not readers.plain:
            readers.add(self._reports.made(row, stamp))
            return
        instrument, named = self._listed[row[5]], self._accounts.text_of(row[11])
        price, fee = instrument.price_text(row[8]), fee_text(row[14])
        readers.page.execution(row, stamp, True, named, instrument.code, price, fee)

    def _others(self, row: Row, stamp: int, text: str | None) -> None:
        """Report an event to its other account, or the setting of a dead man's switch."""
        kind, reports = row[2], self._reports
        if kind in CORRECTIONS:
            readers = self._of(row[12])
            if readers is not None:
                readers.add(reports.other(row, stamp))
        elif kind == TRANSFERRED and not row[3] & _DUPLICATE:
            for account in (row[6], row[7]):
                readers = self._of(account)
                if readers is not None:
                    readers.add(reports.transferred(row, stamp, account))
        elif kind == _RECORDED:
            readers = self._of(row[6])
            held = None if readers is None else reports.held(row, stamp, text)
            if readers is not None and held is not None:
                readers.add(held)
