"""The native protocol's order requests: enter, change, cancel, preview; see ``wire``."""

from typing import Final, Literal, TypeAlias

from exchange.messages.wire_base import Level, LogEvent, Rejected, Request, Response, SideText
from exchange.messages.wire_mass import Quote

BATCH_REQUESTS: Final = 100  # commands in one frame

OrderTypeText: TypeAlias = Literal["limit", "market"]
TimeInForceText: TypeAlias = Literal["GTC", "DAY", "IOC", "FOK", "GTD", "GFA"]
SelfTradeText: TypeAlias = Literal["cancel_newest", "cancel_oldest", "cancel_both", "decrement"]


class Enter(Request, frozen=True, kw_only=True, tag="enter"):
    """Enters an order. A limit order has a price; a market order has none and is IOC.

    A market order with a resting time in force is market-to-limit: its limit is the best opposite
    price. With ``protection`` its limit is that far beyond the best opposite price. With
    ``stop_price`` the order waits until a trade elects it, and is then entered unchanged.
    """

    client_order_id: str
    instrument: str
    side: SideText
    quantity: str
    price: str | None = None
    type: OrderTypeText = "limit"
    time_in_force: TimeInForceText | None = None  # GTC for a limit order, IOC for a market order
    post_only: bool = False
    self_trade: SelfTradeText = "cancel_newest"
    manual: bool = False  # entered by a person; recorded, but no rule depends on it
    expires_ms: int | None = None  # with GTD: when it expires, milliseconds since 1970
    minimum_quantity: str | None = None  # lots that must trade at once, else it is cancelled
    protection: str | None = None  # of a market order, dollars beyond the best opposite price
    stop_price: str | None = None  # a stop: it waits for a trade at this price or beyond it
    display_quantity: str | None = None  # an iceberg: lots that it shows at a time
    reduce_only: bool = False  # it may only bring the position nearer to zero
    group_with: str | None = None  # order id of another order: a trade of one cancels the other
    valid_until_ms: int | None = None  # dropped as LATE if the gateway reads it after this time


class Cancel(Request, frozen=True, kw_only=True, tag="cancel"):
    """Cancels an order, named by exactly one of ``order_id`` and ``client_order_id``."""

    request_id: str
    order_id: str | None = None
    client_order_id: str | None = None
    side: SideText | None = None
    manual: bool = False


class Reduce(Request, frozen=True, kw_only=True, tag="reduce"):
    """Removes ``quantity`` lots from an order, which keeps its place."""

    request_id: str
    quantity: str
    order_id: str | None = None
    client_order_id: str | None = None
    side: SideText | None = None
    manual: bool = False


class Replace(Request, frozen=True, kw_only=True, tag="replace"):
    """Gives an order a new price and a new total quantity, executed lots included.

    ``instrument`` may be left out after the order's ``accepted`` was received.
    """

    request_id: str
    price: str
    quantity: str
    instrument: str | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    side: SideText | None = None
    post_only: bool = False
    manual: bool = False
    valid_until_ms: int | None = None


class CancelAfter(Request, frozen=True, kw_only=True, tag="cancel_after"):
    """A dead man's switch: unless this is sent again within ``timeout_ms``, every order entered in
    this session is cancelled. 0 turns it off."""

    request_id: str
    timeout_ms: int


class CancelAfterSet(LogEvent, frozen=True, kw_only=True, tag="cancel_after"):
    """The session's switch is set, or turned off: then ``due_ms`` is absent."""

    request_id: str
    session: int
    due_ms: int | None = None  # milliseconds since 1970, on the log's clock


class Preview(Request, frozen=True, kw_only=True, tag="preview"):
    """Asks what an order, a replacement or a quote would do if it arrived now; nothing changes."""

    request_id: str
    order: Enter | Replace | Quote


class Previewed(Response, frozen=True, kw_only=True, tag="previewed"):
    """The result of a preview, as if the command came right after ``sequence``, by the market's own
    rules.

    Money is the account's afterwards; without ``refused`` the order would have been accepted.
    """

    request_id: str
    sequence: int
    time: int
    refused: Rejected | None = None
    duplicate: bool = False  # its id is known: the first answer would be repeated
    executions: list[Level]  # trades at once, by price
    executed_quantity: str
    leaves_quantity: str  # lots that would keep working
    cash: str
    cash_change: str  # minus fees; of a combination also its legs' residual
    required: str
    required_before: str
    free: str
    instrument: str
    low_limit: str
    high_limit: str
    band: str | None = None  # how far beyond the reference price an order may be priced
