"""Builds accounts' private reports from released events.

A report is a function of its event, the instruments and the client order ids, so a resuming
connection gets the same reports as a live one. The commonest reports (accepted, execution,
cancelled) are built with positional arguments, in the field order of messages/wire.py.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from exchange.gateway.accounts import Accounts, quote_name
from exchange.gateway.corrections import CorrectionReports
from exchange.gateway.deadlines import read_hold
from exchange.gateway.mass import MassReports
from exchange.gateway.rejects import from_event, is_of_entry
from exchange.marketdata.instruments import Instruments, micros_text
from exchange.marketdata.stream import Row, maker_of
from exchange.messages import (
    INDEX_BITS,
    CancelReason,
    EventFlag,
    EventKind,
    OrderFeature,
    Reason,
    SelfTrade,
    TimeInForce,
)
from exchange.messages.wire import (
    Accepted,
    CancelAfterSet,
    Cancelled,
    CashMoved,
    Deficit,
    Dormant,
    Elected,
    Execution,
    Reduced,
    Refilled,
    Rejected,
    Replaced,
    Response,
    Returned,
    Settled,
    SideText,
    Waiting,
)

FEES_REMEMBERED: Final = 4096
_STP_TEXT: Final = tuple(mode.name.lower() for mode in SelfTrade)
_TIF_TEXT: Final = tuple(tif.name for tif in TimeInForce)
_REASON_TEXT: Final = {int(reason): reason.name for reason in CancelReason}
_ASKED: Final = frozenset((0, int(CancelReason.REQUESTED), int(CancelReason.REDUCED)))
REQUESTED_TEXT: Final = CancelReason.REQUESTED.name
# Plain integers: the operators of enumerations would cost more than the rest of a report.
SELL: Final = int(EventFlag.SELL)
QUOTE: Final = int(OrderFeature.QUOTE)
MARKET: Final = int(EventFlag.MARKET)
POST_ONLY: Final = int(EventFlag.POST_ONLY)
RESTING: Final = int(EventFlag.RESTING)
DUPLICATE: Final = int(EventFlag.DUPLICATE)
AUCTION: Final = int(EventFlag.AUCTION)
_OF_QUOTES: Final = frozenset((int(Reason.CROSSED), int(Reason.QUOTES_BLOCKED)))  # no other request
_REPRICED: Final = 2  # reason of ORDER_REPLACED: an auction, not a request
# Bits in ``b`` of ORDER_ACCEPTED.
STOP: Final = int(OrderFeature.STOP) << 16
ICEBERG: Final = int(OrderFeature.ICEBERG) << 16


@lru_cache(FEES_REMEMBERED)
def fee_text(cash: int) -> str:
    """Return the fee of one side of a trade, given the trade's change of its cash."""
    return micros_text(-cash)


def _names_instrument(row: Row) -> bool:
    """Whether the instrument of a REJECTED event is that of its request, which entered no order.

    One that names an order has 0 there, the number of the first one listed; a mass cancel and a
    protection of quotes may have a product's number.
    """
    if row[4] in _OF_QUOTES:
        return True
    has_terms, has_key = bool(row[8] or row[9]), bool(row[11] or row[12])
    return row[5] != 0 and has_terms and has_key  # a quote has all three


def _side(flags: int) -> SideText:
    return "sell" if flags & SELL else "buy"


class Reports:
    """Builds reports; ``kinds`` maps an event kind to the builder of its account's report."""

    def __init__(self, instruments: Instruments, accounts: Accounts) -> None:
        self._instruments = instruments
        self._accounts = accounts
        self._alike = 0, False  # number of instruments, and whether their ticks are alike; cached
        corrections = CorrectionReports(instruments)
        self.other, self.transferred = corrections.other, corrections.transferred
        self.kinds: dict[int, Callable[[Row, int, str | None], Response]] = {
            EventKind.ORDER_ACCEPTED: self._accepted,
            EventKind.REJECTED: self._rejected,
            EventKind.TRADE: self._taken,
            EventKind.ORDER_CANCELLED: self._cancelled,
            EventKind.ORDER_REDUCED: self._reduced,
            EventKind.ORDER_REPLACED: self._replaced,
            EventKind.ORDER_DORMANT: self._dormant,
            EventKind.ORDER_RETURNED: self._returned,
            EventKind.ORDER_WAITING: self._waiting,
            EventKind.ORDER_ELECTED: self._elected,
            EventKind.ORDER_REFILLED: self._refilled,
            EventKind.POSITION_SETTLED: self._settled,
            EventKind.ORDER_EXECUTED: self._executed,
            **MassReports(instruments, accounts).kinds,
            **corrections.kinds,
            EventKind.DEPOSITED: self._cash,
            EventKind.WITHDRAWN: self._cash,
            EventKind.FEE_CHARGED: self._cash,
            EventKind.DEFICIT_STARTED: self._deficit,
            EventKind.DEFICIT_ENDED: self._deficit,
        }

    def _accepted(self, row: Row, time: int, text: str | None) -> Accepted:
        flags, terms = row[3], row[14]
        market = flags & MARKET
        instrument = self._instruments.by_id[row[5]]
        if terms >> 16 & QUOTE:
            text = quote_name(instrument.code, flags & SELL != 0)
        return Accepted(
            row[0],
            row[1],
            time,
            str(row[7]),
            text or "",
            instrument.code,
            "sell" if flags & SELL else "buy",
            str(row[9]),
            str(row[10]),
            None if market and not row[8] and not row[10] else instrument.price_text(row[8]),
            "market" if market else "limit",
            _TIF_TEXT[terms & 0xFF],  # type: ignore[arg-type]
            flags & POST_ONLY != 0,
            _STP_TEXT[terms >> 8 & 0xFF],  # type: ignore[arg-type]
            row[13],
            flags & DUPLICATE != 0,
            terms & STOP != 0,
            str(terms >> 32) if terms & ICEBERG else None,
            self._accounts.tokens(row[6], time),
        )

    def _rejected(self, row: Row, time: int, text: str | None) -> Rejected:
        known = self._accounts.known(row[7]) if row[7] else None
        number = row[5] if known is None else known.instrument
        listed, tokens = self._instruments.by_id.get(number), None
        if row[6] in self._accounts.by_id:
            tokens = self._accounts.tokens(row[6], time)
        is_guess = known is None and not _names_instrument(row) and not is_of_entry(row, text)
        if is_guess and not self._are_ticks_alike():
            listed = None
        return from_event(row, time, text, listed, tokens, is_guess=is_guess)

    def _are_ticks_alike(self) -> bool:
        """Whether the prices of all instruments count the same ticks."""
        listed = self._instruments.by_id
        count, alike = self._alike
        if count != len(listed):
            alike = len({(one.tick_units, one.decimals) for one in listed.values()}) == 1
            self._alike = len(listed), alike
        return alike

    def _taken(self, row: Row, time: int, text: str | None) -> Execution:
        order_id, instrument = row[7], self._instruments.by_id[row[5]]
        return Execution(
            row[0],
            row[1],
            time,
            str(order_id),
            self._accounts.text_of(order_id),
            instrument.code,
            "sell" if row[3] & SELL else "buy",
            str(row[0] << INDEX_BITS | row[1]),
            instrument.price_text(row[8]),
            str(row[9]),
            str(row[10]),
            "auction" if row[3] & AUCTION else "taker",
            fee_text(row[13]),
            row[4],
        )

    def made(self, row: Row, time: int) -> Execution:
        """Return the resting side's report of a TRADE."""
        order_id, instrument = row[11], self._instruments.by_id[row[5]]
        return Execution(
            row[0],
            row[1],
            time,
            str(order_id),
            self._accounts.text_of(order_id),
            instrument.code,
            "buy" if row[3] & SELL else "sell",
            str(row[0] << INDEX_BITS | row[1]),
            instrument.price_text(row[8]),
            str(row[9]),
            str(maker_of(row[12])[1]),
            "auction" if row[3] & AUCTION else "maker",
            fee_text(row[14]),
            row[4],
        )

    def held(self, row: Row, time: int, text: str | None) -> CancelAfterSet | None:
        """Return the report of a RECORDED event that set or cleared a cancel-after switch; None for
        other records."""
        said = read_hold(row, text)
        if said is None:
            return None
        return CancelAfterSet(
            sequence=row[0],
            index=row[1],
            time=time,
            request_id=said.request_id,
            session=said.session,
            due_ms=said.due_ms(time) if said.timeout_ms else None,
        )

    def _executed(self, row: Row, time: int, text: str | None) -> Execution:
        """Return one order's report of a trade at an implied price.

        Fees and positions are reported with the legs: all of them for an order of the combination,
        one leg for an order of a leg's book.
        """
        order_id, instrument = row[7], self._instruments.by_id[row[5]]
        return Execution(
            row[0],
            row[1],
            time,
            str(order_id),
            self._accounts.text_of(order_id),
            instrument.code,
            _side(row[3]),
            str(row[0] << INDEX_BITS | row[1] - row[4]),
            instrument.price_text(row[8]),
            str(row[9]),
            str(row[10]),
            "maker" if row[3] & RESTING else "taker",
            fee_text(0),
            len(instrument.legs) or 1,
        )

    def _cancelled(self, row: Row, time: int, text: str | None) -> Cancelled:
        order_id, flags, reason = row[7], row[3], row[4]
        instrument = self._instruments.by_id[row[5]]
        return Cancelled(
            row[0],
            row[1],
            time,
            str(order_id),
            self._accounts.text_of(order_id),
            instrument.code,
            "sell" if flags & SELL else "buy",
            str(row[9]),
            _REASON_TEXT.get(reason, REQUESTED_TEXT),
            instrument.price_text(row[8]),
            text if reason in _ASKED else None,
            flags & RESTING != 0,
            flags & DUPLICATE != 0,
        )

    def _reduced(self, row: Row, time: int, text: str | None) -> Reduced:
        again = row[3] & DUPLICATE != 0  # in the event of a repeat, leaves and reason are 0
        return Reduced(
            **self._order(row, time),
            quantity=str(row[9]),
            leaves_quantity=None if again else str(row[10]),
            reason=_REASON_TEXT.get(row[4], CancelReason.REQUESTED.name),
            price=self._price(row),
            request_id=self._request(row, text),
            duplicate=again,
        )

    def _replaced(self, row: Row, time: int, text: str | None) -> Replaced:
        again = row[3] & DUPLICATE != 0
        return Replaced(
            **self._order(row, time),
            price=self._price(row),
            quantity=str(row[9]),
            leaves_quantity=None if again else str(row[10]),
            priority_kept=None if again else row[4] == 1,
            request_id=None if row[4] == _REPRICED else text,
            duplicate=again,
            tokens=None if row[4] == _REPRICED else self._accounts.tokens(row[6], time),
        )

    def _dormant(self, row: Row, time: int, text: str | None) -> Dormant:
        return Dormant(
            **self._order(row, time), price=self._price(row), leaves_quantity=str(row[9])
        )

    def _returned(self, row: Row, time: int, text: str | None) -> Returned:
        return Returned(
            **self._order(row, time),
            price=self._price(row),
            quantity=str(row[9]),
            leaves_quantity=str(row[10]),
        )

    def _waiting(self, row: Row, time: int, text: str | None) -> Waiting:
        return Waiting(
            **self._order(row, time),
            price=self._price(row),
            quantity=str(row[9]),
            stop_price=self._trigger(row),
        )

    def _elected(self, row: Row, time: int, text: str | None) -> Elected:
        return Elected(
            **self._order(row, time),
            price=self._price(row),
            quantity=str(row[9]),
            leaves_quantity=str(row[10]),
            stop_price=self._trigger(row),
        )

    def _refilled(self, row: Row, time: int, text: str | None) -> Refilled:
        return Refilled(
            **self._order(row, time),
            price=self._price(row),
            leaves_quantity=str(row[9]),
            shown_quantity=str(row[10]),
        )

    def _trigger(self, row: Row) -> str:
        return self._instruments.by_id[row[5]].price_text(row[14])

    def _order(self, row: Row, time: int) -> dict[str, Any]:
        """Return the fields that every report of one order has."""
        return {
            "sequence": row[0],
            "index": row[1],
            "time": time,
            "order_id": str(row[7]),
            "client_order_id": self._accounts.text_of(row[7]),
            "instrument": self._instruments.by_id[row[5]].code,
            "side": _side(row[3]),
        }

    def _price(self, row: Row) -> str:
        return self._instruments.by_id[row[5]].price_text(row[8])

    def _request(self, row: Row, text: str | None) -> str | None:
        """Return the id of the request for this change; None if the change was not requested."""
        return text if row[4] in _ASKED else None

    def _settled(self, row: Row, time: int, text: str | None) -> Settled:
        return Settled(
            sequence=row[0],
            index=row[1],
            time=time,
            instrument=self._instruments.by_id[row[5]].code,
            position=str(-row[9] if row[3] & SELL else row[9]),
            settlement_price=micros_text(row[8]),
            variation=micros_text(row[13]),
            cash=micros_text(row[14]),
        )

    def _cash(self, row: Row, time: int, text: str | None) -> CashMoved:
        kinds = {EventKind.DEPOSITED: "deposit", EventKind.WITHDRAWN: "withdrawal"}
        return CashMoved(
            sequence=row[0],
            index=row[1],
            time=time,
            kind=kinds.get(EventKind(row[2]), "fee"),  # type: ignore[arg-type]
            amount=micros_text(row[13]),
            cash=micros_text(row[14]),
        )

    def _deficit(self, row: Row, time: int, text: str | None) -> Deficit:
        return Deficit(
            sequence=row[0],
            index=row[1],
            time=time,
            active=row[2] == EventKind.DEFICIT_STARTED,
            required=micros_text(row[13]),
            cash=micros_text(row[14]),
        )
