"""The native protocol's orders: what enters, changes and ends one; see ``wire``."""

from typing import Final, Literal, TypeAlias

from exchange.messages.wire_base import Level, LogEvent, Rejected, Request, Response, SideText
from exchange.messages.wire_mass import Quote

BATCH_REQUESTS: Final = 100  # commands of one frame

OrderTypeText: TypeAlias = Literal["limit", "market"]
TimeInForceText: TypeAlias = Literal["GTC", "DAY", "IOC", "FOK", "GTD", "GFA"]
SelfTradeText: TypeAlias = Literal["cancel_newest", "cancel_oldest", "cancel_both", "decrement"]


class Enter(Request, frozen=True, kw_only=True, tag="enter"):
    """Enters an order. A limit order has a price; a market order has none and is IOC.

    A market order with a time in force that rests is market-to-limit: it takes the best opposite
    price for its limit. With ``protection`` its limit is that far beyond the best opposite price.
    With ``stop_price`` it waits until it is elected by a trade, and is then entered as it is.
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
    manual: bool = False  # a person entered it; recorded, read by no rule
    expires_ms: int | None = None  # with GTD: the end of its life, milliseconds since the epoch
    minimum_quantity: str | None = None  # lots that must trade at once, or it is cancelled
    protection: str | None = None  # of a market order, dollars beyond the best opposite price
    stop_price: str | None = None  # a stop: it waits for a trade at this price or through it
    display_quantity: str | None = None  # an iceberg: lots that it shows at a time
    reduce_only: bool = False  # it only ever brings the position nearer to zero
    group_with: str | None = None  # order id of another one: a trade of one cancels the other
    valid_until_ms: int | None = None  # dropped, as LATE, if the gateway reads it after this


class Cancel(Request, frozen=True, kw_only=True, tag="cancel"):
    """Takes an order out, named by exactly one of ``order_id`` and ``client_order_id``."""

    request_id: str
    order_id: str | None = None
    client_order_id: str | None = None
    side: SideText | None = None
    manual: bool = False


class Reduce(Request, frozen=True, kw_only=True, tag="reduce"):
    """Takes ``quantity`` lots off an order, which keeps its place."""

    request_id: str
    quantity: str
    order_id: str | None = None
    client_order_id: str | None = None
    side: SideText | None = None
    manual: bool = False


class Replace(Request, frozen=True, kw_only=True, tag="replace"):
    """Gives an order a new price and a new total quantity, executed lots included.

    ``instrument`` may be left out once the order's ``accepted`` has been seen.
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
    """A dead man's switch: unless this comes again within ``timeout_ms``, every order that was
    entered in this session is cancelled. 0 takes it back."""

    request_id: str
    timeout_ms: int


class CancelAfterSet(LogEvent, frozen=True, kw_only=True, tag="cancel_after"):
    """The session's switch is set, or taken back: then ``due_ms`` is absent."""

    request_id: str
    session: int
    due_ms: int | None = None  # milliseconds since the epoch, on the log's clock


class Preview(Request, frozen=True, kw_only=True, tag="preview"):
    """Asks what an order, a replacement or a quote would do if it came now; nothing happens."""

    request_id: str
    order: Enter | Replace | Quote


class Previewed(Response, frozen=True, kw_only=True, tag="previewed"):
    """What it would have done as the command behind ``sequence``, judged by the market's own rules.

    Money is that of the account afterwards; without ``refused`` the order would have been taken.
    """

    request_id: str
    sequence: int
    time: int
    refused: Rejected | None = None
    duplicate: bool = False  # its id is known: it would get its first answer again
    executions: list[Level]  # what would trade at once, by price
    executed_quantity: str
    leaves_quantity: str  # lots that would work on
    cash: str
    cash_change: str  # minus fees; of a combination also what its legs leave
    required: str
    required_before: str
    free: str
    instrument: str
    low_limit: str
    high_limit: str
    band: str | None = None  # how far through the reference price it may be priced
