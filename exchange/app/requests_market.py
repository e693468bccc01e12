"""The operators' requests about instruments: states, auctions, combinations, protections.

``code`` is the code of an instrument, or of a product, which means all its listed expiries. Prices
and money are decimal strings, times are milliseconds.
"""

from typing import Literal, TypeAlias

from exchange.app.requests_base import Request


class Halt(Request, frozen=True, kw_only=True, tag="halt"):
    """Halt trading. Orders stay and may be cancelled."""

    code: str


class Resume(Request, frozen=True, kw_only=True, tag="resume"):
    """Start continuous trading of instruments that are closed, halted or in an auction.

    After a breaker's halt two people and a ``reason`` are needed: the answer is a proposal. With
    ``auction`` trading resumes with a volatility auction, which another ``resume`` ends.
    """

    code: str
    reason: str = ""
    auction: bool = False


class PreOpen(Request, frozen=True, kw_only=True, tag="pre_open"):
    """Begin to collect orders for an opening auction."""

    code: str


class Auction(Request, frozen=True, kw_only=True, tag="auction"):
    """Begin to collect orders for an auction, which the next change of state ends."""

    code: str
    cause: Literal["opening", "closing", "volatility"] = "volatility"


class Close(Request, frozen=True, kw_only=True, tag="close"):
    """Close trading. The orders collected for an auction trade at its price."""

    code: str


class Indicate(Request, frozen=True, kw_only=True, tag="indicate"):
    """Publish the price and quantity at which the auction would trade if it ended now."""

    code: str


class ListContract(Request, frozen=True, kw_only=True, tag="list_contract"):
    """List an expiry of the cycle that a market does not list automatically, or a combination of
    listed expiries."""

    code: str
    price: str = ""  # the first mark of an expiry: dollars per GPU-hour


class SetImplied(Request, frozen=True, kw_only=True, tag="implied"):
    """Turn implied prices of a combination, or of all listed ones, on or off."""

    code: str = ""
    on: bool = True


class Protect(Request, frozen=True, kw_only=True, tag="protect"):
    """Set the protections of instruments to those of their terms, except where stated here.

    Without ``code`` it applies to every instrument; without ``on`` it removes all protections.
    """

    code: str = ""
    on: bool = True
    band: str | None = None  # dollars per GPU-hour beyond the reference price
    order_value: str | None = None  # maximum value of one order in dollars
    accountability: int | None = None  # lots of an account in an expiry, from which it is reported
    all_months: int | None = None  # maximum lots of an account over all expiries


class SetBreaker(Request, frozen=True, kw_only=True, tag="breaker"):
    """Set a breaker, which halts an instrument if its price moves by more than ``variation`` within
    ``span_ms``."""

    code: str
    window: Literal["circuit", "velocity"] = "circuit"
    variation: str = "0"  # dollars per GPU-hour; 0 removes the breaker
    span_ms: int = 60_000
    halt_ms: int = 0  # length of the halt; 0: until two people resume trading
    product: bool = False  # whether all outrights of the product halt as well


class SetLimits(Request, frozen=True, kw_only=True, tag="limits"):
    """Change an instrument's daily price limits, its position limit, the maximum size of an order,
    or the credit of a calendar spread.

    Omitted fields stay as they are. The next business day starts with the limits of the terms; a
    credit stays.
    """

    code: str
    low: str | None = None
    high: str | None = None
    position_limit: int | None = None
    max_order: int | None = None
    credit: str | None = None  # of a calendar spread: dollars per pair; 0: none


class SetFeature(Request, frozen=True, kw_only=True, tag="feature"):
    """Turn one feature of the whole market off or on, without a restart."""

    feature: Literal[
        "reduce_only", "groups", "stops", "icebergs", "bands", "circuit_breaker", "velocity",
        "accountability", "order_value", "all_months_limit", "loss_limit",
    ]  # fmt: skip
    on: bool = False


StateRequest: TypeAlias = Halt | Resume | PreOpen | Auction | Close
ConductRequest: TypeAlias = (
    StateRequest | Indicate | SetImplied | Protect | SetBreaker | SetLimits | SetFeature
)
MarketRequest: TypeAlias = ConductRequest | ListContract
