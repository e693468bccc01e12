"""What happens once, in the public's words: trades, their corrections, lots off the book."""

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
}  # what is told to all; who is ported from whom is not


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
    """Return the public message of an ORDER_EXECUTED: what a match through several books, with an
    implied price, was in one of them."""
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
    """Which of ``TRADE_CORRECTIONS`` are of a trade that the public was told of: all are to be
    shown, in the order of the stream.

    Legs of a combination's own trade were not told, and its correction comes first in its command.
    A trade with an implied price was told in the book of each leg, and is corrected by its legs.
    """

    def __init__(self) -> None:
        self._whole = 0  # sequence of the last correction of a whole trade

    def is_told(self, row: Row) -> bool:
        """Whether the event takes a trade back that was told, or gives it another price."""
        if row[2] in _WHOLE:
            self._whole = row[0]
            return True
        return row[0] != self._whole and (row[2] in _BUSTS or row[8] != signed(row[11]))


def correction_of(instrument: Instrument, row: Row, time: int) -> PublicCorrection:
    """Return the public message of what busts or adjusts a trade, or its leg of one."""
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
    """Whether a LOTS_TRANSFERRED is for the public: two sides agreed on it, and it is no repeat."""
    return row[4] in _AGREED and not row[3] & _DUPLICATE


def transfer_of(instrument: Instrument, row: Row, time: int) -> PublicTransfer:
    """Return the public message of lots that changed hands off the book."""
    return PublicTransfer(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        kind=_AGREED[row[4]],
        price=micros_text(row[8]),
        quantity=str(row[9]),
    )
