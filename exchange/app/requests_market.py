"""What an operator may ask of instruments: states, auctions, combinations, protections.

``code`` is an instrument's, or a product's and then means all its expiries that are listed.
Prices and money are decimal strings, times milliseconds.
"""

from typing import Literal, TypeAlias

from exchange.app.requests_base import Request


class Halt(Request, frozen=True, kw_only=True, tag="halt"):
    """Stops trading; orders stay and may be cancelled."""

    code: str


class Resume(Request, frozen=True, kw_only=True, tag="resume"):
    """Starts trading in what is closed, halted or collected for an auction.

    What a breaker halted takes two people: with a ``reason``, and the answer is a proposal. It
    goes on through a volatility auction if ``auction``, which another of these then ends.
    """

    code: str
    reason: str = ""
    auction: bool = False


class PreOpen(Request, frozen=True, kw_only=True, tag="pre_open"):
    """Collects orders for an opening auction."""

    code: str


class Auction(Request, frozen=True, kw_only=True, tag="auction"):
    """Collects orders for an auction, which ends with the next change of state."""

    code: str
    cause: Literal["opening", "closing", "volatility"] = "volatility"


class Close(Request, frozen=True, kw_only=True, tag="close"):
    """Ends trading; what an auction collected trades at its price."""

    code: str


class Indicate(Request, frozen=True, kw_only=True, tag="indicate"):
    """Publishes what the orders collected would do if the auction ended now."""

    code: str


class ListContract(Request, frozen=True, kw_only=True, tag="list_contract"):
    """Lists an expiry of the cycle that a market does not list by itself, or a combination of
    expiries that are listed."""

    code: str
    price: str = ""  # the first mark of an expiry: dollars per GPU-hour


class SetImplied(Request, frozen=True, kw_only=True, tag="implied"):
    """Switches implied prices of a combination, or of all that are listed, on or off."""

    code: str = ""
    on: bool = True


class Protect(Request, frozen=True, kw_only=True, tag="protect"):
    """Holds instruments to the protections of their terms; what is stated here goes before them.

    Without ``code`` every instrument; not ``on``: to nothing.
    """

    code: str = ""
    on: bool = True
    band: str | None = None  # dollars per GPU-hour through the reference price
    order_value: str | None = None  # most dollars of one order
    accountability: int | None = None  # lots of an account in an expiry that are reported
    all_months: int | None = None  # lots of an account over all expiries


class SetBreaker(Request, frozen=True, kw_only=True, tag="breaker"):
    """Halts an instrument whose price moves by more than ``variation`` within a span of time."""

    code: str
    window: Literal["circuit", "velocity"] = "circuit"
    variation: str = "0"  # dollars per GPU-hour; 0 takes it off
    span_ms: int = 60_000
    halt_ms: int = 0  # until it goes on by itself; 0: until two people resume it
    product: bool = False  # every outright of the product halts with it


class SetLimits(Request, frozen=True, kw_only=True, tag="limits"):
    """Moves an instrument's daily price limits, what one account or one order may have, or what a
    spread's pairs need not hold.

    What is not stated stays. The next business day begins with those of its terms; a credit stays.
    """

    code: str
    low: str | None = None
    high: str | None = None
    position_limit: int | None = None
    max_order: int | None = None
    credit: str | None = None  # of a calendar spread: dollars a pair, 0 for none


class SetFeature(Request, frozen=True, kw_only=True, tag="feature"):
    """Turns one feature of the whole market off, or on again, without a restart."""

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
