"""The native protocol's reports of lots and cash that move apart from an order's own trades."""

from typing import Literal, TypeAlias

from exchange.messages.wire_base import InstrumentEvent, LogEvent, SideText

CorrectionText: TypeAlias = Literal["bust", "adjustment"]
TransferText: TypeAlias = Literal["give_up", "block", "efp", "porting"]


class Corrected(LogEvent, frozen=True, kw_only=True, tag="corrected"):
    """A trade of the account was cancelled (``bust``) or its price changed (``adjustment``).

    ``side`` is the account's own in the trade; ``fee`` is the fee returned. For a combination's
    trade there is one report of the whole, which moved no position, and one for each of its
    ``legs``.
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
    """Lots were transferred off the book, at a clearing price; the position changes by them.

    ``side`` is that of this message's account, which bought from ``other_account`` or sold to it.
    """

    kind: TransferText
    instrument: str
    side: SideText
    quantity: str
    price: str
    other_account: int


class PublicTransfer(InstrumentEvent, frozen=True, kw_only=True, tag="off_book"):
    """Lots that two sides agreed to transfer off the book: it is neither a trade nor a price of
    it."""

    kind: Literal["give_up", "block", "efp"]
    price: str
    quantity: str


class LegTraded(LogEvent, frozen=True, kw_only=True, tag="leg"):
    """One leg of a combination's trade, at a clearing price; the position changes by it."""

    match_number: str
    place: int
    legs: int
    instrument: str
    side: SideText
    quantity: str
    price: str
    fee: str


class ResidualPosted(LogEvent, frozen=True, kw_only=True, tag="residual"):
    """The cash by which the legs of a combination's trade differ from its own price."""

    match_number: str
    instrument: str
    cash: str
