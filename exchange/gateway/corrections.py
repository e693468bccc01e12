"""Reports of events with two accounts and no order: corrections, legs, residuals, transfers.

Corrections, legs and residuals have the layout of a trade. Each account gets its own report.
"""

from collections.abc import Callable
from typing import Final

from exchange.marketdata.instruments import Instruments, micros_text
from exchange.marketdata.stream import Row, signed
from exchange.messages import INDEX_BITS, EventFlag, EventKind
from exchange.messages.wire import (
    Corrected,
    LegTraded,
    ResidualPosted,
    Response,
    SideText,
    Transferred,
    TransferText,
)

CORRECTIONS: Final = frozenset(
    map(
        int,
        (
            EventKind.TRADE_BUSTED,
            EventKind.TRADE_ADJUSTED,
            EventKind.LEG_TRADE,
            EventKind.RESIDUAL_POSTED,
            EventKind.LEG_BUSTED,
            EventKind.LEG_ADJUSTED,
            EventKind.RESIDUAL_CORRECTED,
        ),
    )
)  # laid out as a trade, with the other account in ``maker_account`` and without an order
TRANSFERRED: Final = int(EventKind.LOTS_TRANSFERRED)  # the other account is in ``order_id``
_TRANSFER_TEXT: Final[tuple[TransferText, ...]] = ("give_up", "block", "efp", "porting")
_SELL: Final = int(EventFlag.SELL)


def _side(row: Row) -> SideText:
    return "sell" if row[3] & _SELL else "buy"


def _other_side(row: Row) -> SideText:
    return "buy" if row[3] & _SELL else "sell"


class CorrectionReports:
    """Builds the reports; ``kinds`` maps an event kind to the builder for its first account."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self.kinds: dict[int, Callable[[Row, int, str | None], Response]] = {
            EventKind.TRADE_BUSTED: self._corrected,
            EventKind.TRADE_ADJUSTED: self._corrected,
            EventKind.LEG_TRADE: self._leg,
            EventKind.RESIDUAL_POSTED: self._residual,
            EventKind.LEG_BUSTED: self._corrected,
            EventKind.LEG_ADJUSTED: self._corrected,
            EventKind.RESIDUAL_CORRECTED: self._residual,
        }

    def other(self, row: Row, time: int) -> Corrected | LegTraded | ResidualPosted:
        """Return the other account's report of an event of ``CORRECTIONS``."""
        side = _other_side(row)
        if row[2] == EventKind.LEG_TRADE:
            return self._leg_of(row, time, side, row[14])
        if row[2] in (EventKind.RESIDUAL_POSTED, EventKind.RESIDUAL_CORRECTED):
            return self._residual_of(row, time, row[14])
        return self._correction(row, time, side, row[14])

    def transferred(self, row: Row, time: int, account: int) -> Transferred:
        """Return the report of an off-book transfer of lots for one of its two accounts."""
        took = account == row[6]
        return Transferred(
            sequence=row[0],
            index=row[1],
            time=time,
            kind=_TRANSFER_TEXT[row[4] - 1],
            instrument=self._instruments.by_id[row[5]].code,
            side=_side(row) if took else _other_side(row),
            quantity=str(row[9]),
            price=micros_text(row[8]),
            other_account=row[7] if took else row[6],
        )

    def _corrected(self, row: Row, time: int, text: str | None) -> Corrected:
        return self._correction(row, time, _side(row), row[13])

    def _correction(self, row: Row, time: int, side: SideText, cash: int) -> Corrected:
        instrument = self._instruments.by_id[row[5]]
        busted = row[2] in (EventKind.TRADE_BUSTED, EventKind.LEG_BUSTED)
        whole = row[2] in (EventKind.TRADE_BUSTED, EventKind.TRADE_ADJUSTED)
        place = 0 if whole else row[4] & 0xFF
        price_text = instrument.price_text if whole else micros_text  # legs are in micro-dollars
        return Corrected(
            sequence=row[0],
            index=row[1],
            time=time,
            kind="bust" if busted else "adjustment",
            match_number=str(row[7] - place),
            instrument=instrument.code,
            side=side,
            quantity=str(row[9]),
            price=price_text(row[8]),
            previous_price=None if busted else price_text(signed(row[11])),
            fee=micros_text(cash),
            place=place,
            legs=row[4] if whole else row[4] >> 8,
        )

    def _leg(self, row: Row, time: int, text: str | None) -> LegTraded:
        return self._leg_of(row, time, _side(row), row[13])

    def _leg_of(self, row: Row, time: int, side: SideText, cash: int) -> LegTraded:
        return LegTraded(
            sequence=row[0],
            index=row[1],
            time=time,
            match_number=str(row[0] << INDEX_BITS | row[10]),
            place=row[4] & 0xFF,
            legs=row[4] >> 8,
            instrument=self._instruments.by_id[row[5]].code,
            side=side,
            quantity=str(row[9]),
            price=micros_text(row[8]),
            fee=micros_text(-cash),
        )

    def _residual(self, row: Row, time: int, text: str | None) -> ResidualPosted:
        return self._residual_of(row, time, row[13])

    def _residual_of(self, row: Row, time: int, cash: int) -> ResidualPosted:
        traded = row[2] == EventKind.RESIDUAL_POSTED
        return ResidualPosted(
            sequence=row[0],
            index=row[1],
            time=time,
            match_number=str(row[0] << INDEX_BITS | row[10] if traded else row[7]),
            instrument=self._instruments.by_id[row[5]].code,
            cash=micros_text(cash),
        )
