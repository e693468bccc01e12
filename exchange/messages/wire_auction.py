"""The native protocol's public messages of an auction, and parts of the instrument messages."""

from typing import Literal, TypeAlias

import msgspec

from exchange.messages.wire_base import InstrumentEvent

RuleText: TypeAlias = Literal["difference", "average"]


class IndicativePrice(InstrumentEvent, frozen=True, kw_only=True, tag="indicative"):
    """The result if the auction ended now; nothing has traded."""

    quantity: str
    surplus: str  # lots to buy at the price minus lots to sell
    price: str | None = None


class AuctionResult(InstrumentEvent, frozen=True, kw_only=True, tag="auction"):
    """An auction ended: its trades are on the trades channel, all at this price."""

    quantity: str
    surplus: str
    price: str | None = None


class BreakerData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window of prices whose breach halts an instrument: see ``messages.Breaker``."""

    variation: str
    span_ms: int
    halt_ms: int  # 0: until an operator resumes
    product: bool = False  # every outright of the product halts as well


class LegData(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of a combination: ``ratio`` lots of ``code`` per lot, sold if negative."""

    code: str
    ratio: int
