"""Translates mass cancels, kills, quotes and protections between messages and records.

Requests become command records; events become reports of their accounts.
"""

from collections.abc import Callable
from typing import Final

from exchange.gateway.accounts import Accounts
from exchange.gateway.decode import (
    MANUAL,
    NO_ID,
    RECORD,
    REQUEST,
    UNSTATED,
    Recorder,
    Refused,
    checked_id,
    id_key,
)
from exchange.marketdata.instruments import Instruments
from exchange.marketdata.stream import Row
from exchange.messages import CommandKind, EventFlag, EventKind, KillScope, Reason, Selection
from exchange.messages.wire import (
    SIDES,
    TIMES_IN_FORCE,
    Response,
)
from exchange.messages.wire_mass import (
    Kill,
    Killed,
    MassCancel,
    MassCancelled,
    Protect,
    Protection,
    Quote,
    Quoted,
)

NANOSECONDS_PER_MS: Final = 1_000_000
WINDOW_MS_MAX: Final = (1 << 50) // NANOSECONDS_PER_MS
U32_MAX: Final = (1 << 32) - 1


class MassRecorder:
    """Builds the records of mass requests; prices and quantities are read like those of orders."""

    def __init__(self, instruments: Instruments, recorder: Recorder) -> None:
        self._instruments = instruments
        self._recorder = recorder

    def record(
        self, request: MassCancel | Kill | Quote | Protect, account: int, session: int
    ) -> bytes:
        """Return the record of a mass request; raises Refused."""
        if isinstance(request, MassCancel):
            return self.mass_cancel(request, account, session)
        if isinstance(request, Kill):
            return self.kill(request, account, session)
        if isinstance(request, Quote):
            return self.quote(request, account, session)
        return self.protect(request, account, session)

    def mass_cancel(self, request: MassCancel, account: int, session: int) -> bytes:
        """Return the record of a MASS_CANCEL; raises Refused."""
        key = _key(request.request_id)
        by, number, target = Selection(0), 0, 0
        if request.instrument is not None and request.product is not None:
            raise Refused(Reason.COMBINATION, "product", "an instrument or a product, not both")
        if request.instrument is not None:
            by, number = Selection.INSTRUMENT, self._recorder.instrument(request.instrument).id
        if request.product is not None:
            by, number = Selection.PRODUCT, self._product(request.product)
        if request.session is not None:
            if not 0 < request.session <= U32_MAX:
                raise Refused(Reason.SYNTAX, "session", "not a session id")
            by, target = by | Selection.SESSION, request.session
        side = UNSTATED if request.side is None else SIDES[request.side]
        return RECORD.pack(
            CommandKind.MASS_CANCEL, side, by, MANUAL if request.manual else 0, number, account,
            session, 0, 0, 0, 0, 0, target.to_bytes(16, "little"), key,
        )  # fmt: skip

    def kill(self, request: Kill, account: int, session: int) -> bytes:
        """Return the record of a KILL of the client's own account or session; raises Refused."""
        checked_id(request.request_id, "request_id")
        scope = KillScope[request.scope.upper()]
        named = session if scope is KillScope.SESSION else 0
        return RECORD.pack(
            CommandKind.KILL, 0, scope, 0, 0, account, named, 0, 0, 0, 0, 0, NO_ID, NO_ID
        )

    def quote(self, request: Quote, account: int, session: int) -> bytes:
        """Return the record of a MASS_QUOTE; raises Refused."""
        key = _key(request.request_id)
        instrument = self._recorder.instrument(request.instrument)
        sides = []
        for name in ("bid", "ask"):
            price, lots = getattr(request, f"{name}_price"), getattr(request, f"{name}_quantity")
            if (price is None) != (lots is None):
                missing = "price" if price is None else "quantity"
                raise Refused(Reason.MISSING_FIELD, f"{name}_{missing}", "both or neither")
            ticks = 0 if price is None else self._recorder.price(instrument, price, f"{name}_price")
            sides.append(
                (ticks, 0 if lots is None else self._recorder.lots(lots, f"{name}_quantity"))
            )
        (bid, bid_lots), (ask, ask_lots) = sides
        target = (ask & (1 << 64) - 1) | ask_lots << 64
        return RECORD.pack(
            CommandKind.MASS_QUOTE, 0, TIMES_IN_FORCE[request.time_in_force], 0, instrument.id,
            account, session, bid, bid_lots, 0, 0, 0, target.to_bytes(16, "little"), key,
        )  # fmt: skip

    def protect(self, request: Protect, account: int, session: int) -> bytes:
        """Return the record of a SET_PROTECTION; raises Refused."""
        checked_id(request.request_id, "request_id")
        if not 0 <= request.window_ms <= WINDOW_MS_MAX:
            limit = str(WINDOW_MS_MAX)
            raise Refused(Reason.PARAMETER_RANGE, "window_ms", limit=limit)
        target = request.window_ms * NANOSECONDS_PER_MS
        return RECORD.pack(
            CommandKind.SET_PROTECTION, 0, 0, 0, self._product(request.product), account, session,
            0, self._recorder.lots(request.quantity), 0, 0, 0, target.to_bytes(16, "little"), NO_ID,
        )  # fmt: skip

    def _product(self, name: str) -> int:
        number = self._instruments.products.get(name)
        if number is None:
            checked_id(name, "product")
            raise Refused(Reason.UNKNOWN_INSTRUMENT, "product", observed=name)
        return number


def _key(request_id: str) -> bytes:
    return id_key(request_id, "request_id", REQUEST)


class MassReports:
    """Builds the reports of mass requests; ``kinds`` maps an event kind to its builder."""

    def __init__(self, instruments: Instruments, accounts: Accounts) -> None:
        self._instruments = instruments
        self._accounts = accounts
        self.kinds: dict[int, Callable[[Row, int, str | None], Response]] = {
            EventKind.MASS_CANCELLED: self._mass_cancelled,
            EventKind.KILLED: self._killed,
            EventKind.RESUMED: self._killed,
            EventKind.QUOTED: self._quoted,
            EventKind.PROTECTION_CHANGED: self._protection,
        }

    def _mass_cancelled(self, row: Row, time: int, text: str | None) -> MassCancelled:
        return MassCancelled(
            sequence=row[0],
            index=row[1],
            time=time,
            request_id=text,
            orders=row[9],
            duplicate=bool(row[3] & EventFlag.DUPLICATE),
        )

    def _killed(self, row: Row, time: int, text: str | None) -> Killed:
        by_client = text is not None and not text.startswith("{")  # an operator's text is a note
        return Killed(
            sequence=row[0],
            index=row[1],
            time=time,
            request_id=text if by_client else None,
            scope=KillScope(row[4]).name.lower(),
            active=row[2] == EventKind.KILLED,
            session=row[7] or None,
            orders=row[9],
        )

    def _quoted(self, row: Row, time: int, text: str | None) -> Quoted:
        instrument = self._instruments.by_id[row[5]]
        again = bool(row[3] & EventFlag.DUPLICATE)
        bid, ask = row[9], 0 if again else row[10]
        return Quoted(
            sequence=row[0],
            index=row[1],
            time=time,
            request_id=text,
            instrument=instrument.code,
            bid_price=instrument.price_text(row[8]) if bid else None,
            bid_quantity=str(bid) if bid else None,
            ask_price=instrument.price_text(row[13]) if ask else None,
            ask_quantity=str(ask) if ask else None,
            duplicate=again,
            tokens=self._accounts.tokens(row[6], time),
        )

    def _protection(self, row: Row, time: int, text: str | None) -> Protection:
        return Protection(
            sequence=row[0],
            index=row[1],
            time=time,
            request_id=text if not row[10] else None,
            product=self._instruments.product_names.get(row[5], str(row[5])),
            quantity=str(row[9]),
            window_ms=row[13] // NANOSECONDS_PER_MS,
            traded=str(row[14]),
            blocked=bool(row[10]),
        )
