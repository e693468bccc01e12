"""The public messages of single events: trades, corrections, lots moved off the book."""

from typing import Final, Literal

from exchange.marketdata.instruments import Instrument, micros_text
from exchange.marketdata.stream import Row, signed
from exchange.messages import INDEX_BITS, EventFlag, EventKind, TransferKind
from exchange.messages.wire import PublicTransfer
from exchange.messages.wire_market import PublicCorrection, PublicTrade

_SELL: Final = int(EventFlag.SELL)
_AUCTION: Final = int(EventFlag.AUCTION)
_RESTING: Final = int(EventFlag.RESTING)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_BUSTS: Final = frozenset(map(int, (EventKind.TRADE_BUSTED, EventKind.LEG_BUSTED)))
_WHOLE: Final = frozenset(map(int, (EventKind.TRADE_BUSTED, EventKind.TRADE_ADJUSTED)))
_LEGS: Final = frozenset(map(int, (EventKind.LEG_BUSTED, EventKind.LEG_ADJUSTED)))
TRADE_CORRECTIONS: Final = _WHOLE | _LEGS  # of a trade, or of a leg
_AGREED: Final[dict[int, Literal["give_up", "block", "efp"]]] = {
    int(TransferKind.GIVE_UP): "give_up",
    int(TransferKind.BLOCK): "block",
    int(TransferKind.EFP): "efp",
}  # published kinds; who is ported from whom is not public


def trade_of(instrument: Instrument, row: Row, time: int) -> PublicTrade:
    """Return the public message of a TRADE."""
    return PublicTrade(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        match_number=str(row[0] << INDEX_BITS | row[1]),
        price=instrument.price_text(row[8]),
        quantity=str(row[9]),
        aggressor=None if row[3] & _AUCTION else "sell" if row[3] & _SELL else "buy",
    )


def executed_of(instrument: Instrument, row: Row, time: int) -> PublicTrade:
    """Return the public message of an ORDER_EXECUTED: the part in one book of a match at an implied
    price, which goes through several books."""
    sells = bool(row[3] & _SELL) != bool(row[3] & _RESTING)
    return PublicTrade(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        match_number=str(row[0] << INDEX_BITS | row[1] - row[4]),
        price=instrument.price_text(row[8]),
        quantity=str(row[9]),
        aggressor="sell" if sells else "buy",
        implied=True,
    )


class Corrections:
    """Decides which of ``TRADE_CORRECTIONS`` correct a trade that was published.

    All must be passed to it, in stream order. The legs of a combination's own trade were not
    published; the correction of the whole trade comes first in its command. A trade with an implied
    price was published in the book of each leg, and is corrected leg by leg.
    """

    def __init__(self) -> None:
        self._whole = 0  # sequence of the last correction of a whole trade

    def is_told(self, row: Row) -> bool:
        """Whether the event busts a published trade or changes its price."""
        if row[2] in _WHOLE:
            self._whole = row[0]
            return True
        return row[0] != self._whole and (row[2] in _BUSTS or row[8] != signed(row[11]))


def correction_of(instrument: Instrument, row: Row, time: int) -> PublicCorrection:
    """Return the public message of a bust or adjustment of a trade, or of one leg of a trade."""
    is_leg = row[2] in _LEGS
    return PublicCorrection(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        kind="bust" if row[2] in _BUSTS else "adjustment",
        match_number=str(row[7] - (row[4] & 0xFF) if is_leg else row[7]),
        price=instrument.price_text(row[8] // instrument.tick_scale if is_leg else row[8]),
        quantity=str(row[9]),
    )


def is_agreed(row: Row) -> bool:
    """Whether a LOTS_TRANSFERRED is public: both sides agreed on it, and it is no repeated
    answer."""
    return row[4] in _AGREED and not row[3] & _DUPLICATE


def transfer_of(instrument: Instrument, row: Row, time: int) -> PublicTransfer:
    """Return the public message of lots moved off the book."""
    return PublicTransfer(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        kind=_AGREED[row[4]],
        price=micros_text(row[8]),
        quantity=str(row[9]),
    )
