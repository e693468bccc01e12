"""The native protocol's reports of lots and cash that move beside an order's own trades."""

from typing import Literal, TypeAlias

from exchange.messages.wire_base import InstrumentEvent, LogEvent, SideText

CorrectionText: TypeAlias = Literal["bust", "adjustment"]
TransferText: TypeAlias = Literal["give_up", "block", "efp", "porting"]


class Corrected(LogEvent, frozen=True, kw_only=True, tag="corrected"):
    """A trade of the account was taken back (``bust``) or got another price (``adjustment``).

    ``side`` is the account's own in the trade; ``fee`` is what came back of it. Of a combination's
    trade one comes for the whole, which moved no position, and one for each of its ``legs``.
    """

    kind: CorrectionText
    match_number: str
    instrument: str
    side: SideText
    quantity: str
    price: str
    previous_price: str | None = None
    fee: str
    place: int = 0
    legs: int = 0


class Transferred(LogEvent, frozen=True, kw_only=True, tag="transferred"):
    """Lots changed hands off the book, at a clearing price: what moves the position.

    ``side``: of the account told, which bought of ``other_account`` or sold to it.
    """

    kind: TransferText
    instrument: str
    side: SideText
    quantity: str
    price: str
    other_account: int


class PublicTransfer(InstrumentEvent, frozen=True, kw_only=True, tag="off_book"):
    """Lots that two sides agreed on off the book: no trade of it, and no price of it either."""

    kind: Literal["give_up", "block", "efp"]
    price: str
    quantity: str


class LegTraded(LogEvent, frozen=True, kw_only=True, tag="leg"):
    """One leg of a combination's trade, at a clearing price: what moves the position."""

    match_number: str
    place: int
    legs: int
    instrument: str
    side: SideText
    quantity: str
    price: str
    fee: str


class ResidualPosted(LogEvent, frozen=True, kw_only=True, tag="residual"):
    """What the legs of a combination's trade leave of its price, in cash."""

    match_number: str
    instrument: str
    cash: str
