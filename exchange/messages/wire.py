"""The native protocol's messages: what a client may send and what the gateway answers.

A frame from a client holds one request, an object whose ``op`` names it, or an array of at most
``BATCH_REQUESTS`` commands. A frame from the gateway holds an array of responses, objects whose
``type`` names them. docs/reference/wire.md has a table per message, and describes how a connection
is resumed and a checksum recomputed.

Prices, quantities and money are decimal strings, never numbers: a price in dollars per GPU-hour on
the instrument's tick, a quantity in whole lots, money in dollars with six decimals. Ids that may
exceed 2**53 (order ids, match numbers) are strings of digits. ``time`` is the stamp of the log,
nanoseconds since 1970. (``sequence``, ``index``) is the event's position in the released stream; a
response without it comes from the gateway only and is not in the stream.

Requests with unknown fields are refused. Responses may gain fields; clients ignore unknown ones.
"""

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from exchange.messages import SelfTrade, Side, TimeInForce
from exchange.messages.access import Scope as Scope
from exchange.messages.wire_auction import AuctionResult as AuctionResult
from exchange.messages.wire_auction import BreakerData as BreakerData
from exchange.messages.wire_auction import IndicativePrice as IndicativePrice
from exchange.messages.wire_auction import LegData as LegData
from exchange.messages.wire_auction import RuleText
from exchange.messages.wire_base import Level as Level
from exchange.messages.wire_base import LogEvent
from exchange.messages.wire_base import Rejected as Rejected
from exchange.messages.wire_base import Request as Request
from exchange.messages.wire_base import Response as Response
from exchange.messages.wire_base import SideText as SideText
from exchange.messages.wire_market import CHECKSUM_LEVELS as CHECKSUM_LEVELS
from exchange.messages.wire_market import ChannelMark as ChannelMark
from exchange.messages.wire_market import DepthDelta as DepthDelta
from exchange.messages.wire_market import DepthSnapshot as DepthSnapshot
from exchange.messages.wire_market import FactorData as FactorData
from exchange.messages.wire_market import FactorsPublished as FactorsPublished
from exchange.messages.wire_market import IndexFixing as IndexFixing
from exchange.messages.wire_market import InstrumentState as InstrumentState
from exchange.messages.wire_market import InstrumentStatistics as InstrumentStatistics
from exchange.messages.wire_market import PublicCorrection as PublicCorrection
from exchange.messages.wire_market import PublicTrade as PublicTrade
from exchange.messages.wire_market import QueueDelta as QueueDelta
from exchange.messages.wire_market import QueueSnapshot as QueueSnapshot
from exchange.messages.wire_market import SettlementPrice as SettlementPrice
from exchange.messages.wire_market import Subscribe as Subscribe
from exchange.messages.wire_market import Subscribed as Subscribed
from exchange.messages.wire_market import TopOfBook as TopOfBook
from exchange.messages.wire_market import Unsubscribe as Unsubscribe
from exchange.messages.wire_market import Unsubscribed as Unsubscribed
from exchange.messages.wire_mass import (
    Kill,
    Killed,
    MassCancel,
    MassCancelled,
    Protect,
    Protection,
    Quote,
    Quoted,
)
from exchange.messages.wire_moves import Corrected as Corrected
from exchange.messages.wire_moves import CorrectionText as CorrectionText
from exchange.messages.wire_moves import LegTraded as LegTraded
from exchange.messages.wire_moves import PublicTransfer as PublicTransfer
from exchange.messages.wire_moves import ResidualPosted as ResidualPosted
from exchange.messages.wire_moves import Transferred as Transferred
from exchange.messages.wire_moves import TransferText as TransferText
from exchange.messages.wire_orders import BATCH_REQUESTS as BATCH_REQUESTS
from exchange.messages.wire_orders import Cancel as Cancel
from exchange.messages.wire_orders import CancelAfter as CancelAfter
from exchange.messages.wire_orders import CancelAfterSet as CancelAfterSet
from exchange.messages.wire_orders import Enter as Enter
from exchange.messages.wire_orders import OrderTypeText as OrderTypeText
from exchange.messages.wire_orders import Preview as Preview
from exchange.messages.wire_orders import Previewed as Previewed
from exchange.messages.wire_orders import Reduce as Reduce
from exchange.messages.wire_orders import Replace as Replace
from exchange.messages.wire_orders import SelfTradeText as SelfTradeText
from exchange.messages.wire_orders import TimeInForceText as TimeInForceText

PROTOCOL_VERSION: Final = 1
JSON_PROTOCOL: Final = "hourbook.json"  # WebSocket subprotocols; JSON is the default
MSGPACK_PROTOCOL: Final = "hourbook.msgpack"
HEARTBEAT_MS: Final = 5_000  # longest silence of the gateway


OrderStateText: TypeAlias = Literal["working", "ended", "unknown"]
SIDES: Final[dict[str, Side]] = {"buy": Side.BUY, "sell": Side.SELL}
TIMES_IN_FORCE: Final[dict[str, TimeInForce]] = {tif.name: tif for tif in TimeInForce}
SELF_TRADES: Final[dict[str, SelfTrade]] = {mode.name.lower(): mode for mode in SelfTrade}


class Position(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A position in the released stream, ``[epoch, sequence, index]``: the last report seen."""

    epoch: int
    sequence: int
    index: int


class Logon(Request, frozen=True, kw_only=True, tag="logon"):
    """Authenticates the connection with a key, and opens or resumes an engine session.

    ``signature`` is, in lower-case hex, the HMAC-SHA256 with the key's secret, or the Ed25519
    signature, of ``f"{timestamp_ms}\\n{nonce}\\n{key_id}\\n{resume_session}"``.
    """

    key_id: str
    timestamp_ms: int
    nonce: int
    signature: str
    cancel_on_disconnect: bool = False
    grace_ms: int = 0
    resume_session: int = 0
    after: Position | None = None


class ListInstruments(Request, frozen=True, kw_only=True, tag="instruments"):
    """Asks for every listed instrument."""

    request_id: str


class QueryAccount(Request, frozen=True, kw_only=True, tag="account"):
    """Asks for the account's cash, margin and positions."""

    request_id: str


class QueryOrders(Request, frozen=True, kw_only=True, tag="orders"):
    """Asks for the account's working orders."""

    request_id: str


class QueryOrder(Request, frozen=True, kw_only=True, tag="order"):
    """Asks for one order of the account, by exactly one of its ids. If the order is still on its
    way, the answer waits for it."""

    request_id: str
    order_id: str | None = None
    client_order_id: str | None = None


class Ping(Request, frozen=True, kw_only=True, tag="heartbeat"):
    """Asks for a heartbeat now."""


# Requests that become commands of the log; a frame may hold many of them.
AnyCommand: TypeAlias = Enter | Cancel | Reduce | Replace | MassCancel | Kill | Quote | Protect
AnyRequest: TypeAlias = (
    Logon | AnyCommand | CancelAfter | Preview | Subscribe | Unsubscribe | ListInstruments |
    QueryAccount | QueryOrders | QueryOrder | Ping
)  # fmt: skip


class LoggedOn(Response, frozen=True, kw_only=True, tag="logged_on"):
    """The logon succeeded. The reports that ``after`` requested were sent before it, in stream
    order."""

    account: int
    session: int  # 0 for a key that may not cancel
    scope: Scope
    epoch: int
    sequence: int
    index: int
    time: int
    heartbeat_ms: int
    cancel_on_disconnect: bool = False
    grace_ms: int = 0


class OrderReport(Response, frozen=True, gc=False):
    """The fields of every private report of one order.

    The three most frequent reports may be built by position, which takes a fifth of the time of
    building them by name.
    """

    sequence: int
    index: int
    time: int
    order_id: str
    client_order_id: str
    instrument: str
    side: SideText


class Accepted(OrderReport, frozen=True, gc=False, tag="accepted"):
    """The order was accepted. ``leaves_quantity`` is what rests once its command is done."""

    quantity: str
    leaves_quantity: str
    price: str | None = None
    order_type: OrderTypeText = "limit"
    time_in_force: TimeInForceText = "GTC"
    post_only: bool = False
    self_trade: SelfTradeText = "cancel_newest"
    session: int = 0
    duplicate: bool = False  # a repeated first answer to a known id; nothing new happened
    stop: bool = False  # it waits for its trigger: ``waiting`` follows
    display_quantity: str | None = None  # of an iceberg
    tokens: int | None = None  # tokens left in the account's throttle; absent in a replay


class Execution(OrderReport, frozen=True, gc=False, tag="execution"):
    """This account's side of one trade. If an account traded with itself, it gets both sides."""

    match_number: str
    price: str
    quantity: str
    leaves_quantity: str
    liquidity: Literal["maker", "taker", "auction"]
    fee: str  # dollars; negative is a rebate
    legs: int = 0  # that many leg reports follow, which move the position; it moves none itself


class Cancelled(OrderReport, frozen=True, gc=False, tag="cancelled"):
    """``quantity`` lots were cancelled, and the order is finished."""

    quantity: str
    reason: str  # name of messages.CancelReason
    price: str | None = None
    request_id: str | None = None
    resting: bool = False
    duplicate: bool = False


class Reduced(OrderReport, frozen=True, kw_only=True, tag="reduced"):
    """``quantity`` lots were cancelled; ``leaves_quantity`` lots keep working. A repeat does not
    know how many do."""

    quantity: str
    leaves_quantity: str | None = None
    reason: str
    price: str | None = None
    request_id: str | None = None
    duplicate: bool = False


class Replaced(OrderReport, frozen=True, kw_only=True, tag="replaced"):
    """The order has a new price and total quantity. A repeat does not know what works of it, nor
    whether it kept its place."""

    price: str
    quantity: str
    leaves_quantity: str | None = None
    priority_kept: bool | None = None
    request_id: str | None = None
    duplicate: bool = False
    tokens: int | None = None  # as in ``accepted``


class Dormant(OrderReport, frozen=True, kw_only=True, tag="dormant"):
    """The order is outside the new price limits: it keeps its hold but is not in the book."""

    price: str
    leaves_quantity: str


class Returned(OrderReport, frozen=True, kw_only=True, tag="returned"):
    """A dormant order returned to the book; ``leaves_quantity`` rests once that is done."""

    price: str
    quantity: str
    leaves_quantity: str


class Waiting(OrderReport, frozen=True, kw_only=True, tag="waiting"):
    """A stop waits, invisible to others, for a trade at its ``stop_price`` or beyond it."""

    price: str  # its limit; for a stop at the market the day's far limit when it was accepted
    quantity: str
    stop_price: str


class Elected(OrderReport, frozen=True, kw_only=True, tag="elected"):
    """A stop was elected; ``leaves_quantity`` rests once that is done."""

    price: str
    quantity: str
    leaves_quantity: str
    stop_price: str


class Refilled(OrderReport, frozen=True, kw_only=True, tag="refilled"):
    """All that an iceberg showed has traded: its next part is shown, at the back of the queue."""

    price: str
    leaves_quantity: str  # all its lots, hidden ones included
    shown_quantity: str


class Settled(LogEvent, frozen=True, kw_only=True, tag="settled"):
    """The variation margin of one position was paid; ``cash`` is the account's new balance."""

    instrument: str
    position: str
    settlement_price: str
    variation: str
    cash: str


class CashMoved(LogEvent, frozen=True, kw_only=True, tag="cash"):
    """Cash moved for another reason than a trade or a settlement."""

    kind: Literal["deposit", "withdrawal", "fee"]
    amount: str  # signed
    cash: str


class Deficit(LogEvent, frozen=True, kw_only=True, tag="deficit"):
    """The account's requirement exceeds its collateral, or no longer does (``active`` false)."""

    active: bool
    required: str
    cash: str


class InstrumentData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The data of an instrument that a client needs to trade it; the text of its listing."""

    code: str
    product: str
    expiry: str = ""  # empty for a combination
    # GPU-hours of one lot; for a combination the hours that its price refers to
    multiplier: int = 0
    tick: str
    decimals: int
    name: str = ""
    last_trading_day: str = ""
    instrument_id: int = 0
    lot_step: int = 1
    max_order: int = 0
    state: str = "CLOSED"
    legs: list[LegData] = msgspec.field(default_factory=list)  # of a combination
    price_rule: RuleText | None = None  # of a combination
    implied: bool = False  # implied prices are on between it and its legs


class Instruments(Response, frozen=True, kw_only=True, tag="instruments"):
    """Every listed instrument as of ``sequence``."""

    sequence: int
    instruments: list[InstrumentData]
    request_id: str | None = None


class PositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The position in one instrument: signed net lots, working lots per side, and its hold."""

    instrument: str
    net: str
    working_buy: str
    working_sell: str
    hold: str
    unrealized: str


class AccountReport(Response, frozen=True, kw_only=True, tag="account"):
    """Cash, requirement and positions as of ``sequence``."""

    request_id: str
    account: int
    sequence: int
    time: int
    cash: str
    required: str
    free: str
    open_orders: int
    positions: list[PositionReport]
    killed: bool = False
    member: int = 0
    self_trade_group: int = 0  # accounts of one group never trade with each other
    tokens: int | None = None  # tokens left in the throttle at ``time``
    burst: int = 1  # tokens when full
    interval_ns: int = 0  # log time in which one token is added
    credit: str = "0.000000"  # of the account's spreads: ``required`` is lower by it


class WorkingOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One working order as of the ``orders`` response's sequence."""

    order_id: str
    client_order_id: str
    instrument: str
    side: SideText
    price: str
    quantity: str
    leaves_quantity: str
    time_in_force: TimeInForceText = "GTC"
    dormant: bool = False
    waiting: bool = False  # a stop that has not been elected


class Orders(Response, frozen=True, kw_only=True, tag="orders"):
    """The account's working orders as of ``sequence``."""

    request_id: str
    sequence: int
    time: int
    orders: list[WorkingOrder]


class OrderStatus(Response, frozen=True, kw_only=True, tag="order"):
    """The state of one order as of ``sequence``. ``unknown`` does not mean rejected: the order may
    still arrive."""

    request_id: str
    sequence: int
    time: int
    state: OrderStateText
    executed_quantity: str | None = None
    order: WorkingOrder | None = None  # its present or its final state


class Heartbeat(Response, frozen=True, kw_only=True, tag="heartbeat"):
    """A sign of life; everything up to ``sequence`` has been sent to this connection."""

    epoch: int
    sequence: int
    time: int


AnyResponse: TypeAlias = (
    LoggedOn | Rejected | Accepted | Execution | Cancelled | Reduced | Replaced | Dormant |
    Returned | Waiting | Elected | Refilled | MassCancelled | Killed | Quoted | Protection |
    Corrected | LegTraded | ResidualPosted | Transferred | Settled | CashMoved | Deficit |
    Subscribed | Unsubscribed | DepthSnapshot | DepthDelta | PublicTrade | PublicCorrection |
    PublicTransfer | TopOfBook | QueueSnapshot | QueueDelta | InstrumentStatistics |
    SettlementPrice | IndexFixing | FactorsPublished | ChannelMark | InstrumentState |
    IndicativePrice | AuctionResult | Instruments |
    AccountReport | Orders | OrderStatus | CancelAfterSet | Previewed | Heartbeat
)  # fmt: skip

encode_json: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode
read_listing: Final[Callable[[str], InstrumentData]] = msgspec.json.Decoder(InstrumentData).decode
encode_msgpack: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder().encode


def signed_text(timestamp_ms: int, nonce: int, key_id: str, resume_session: int) -> bytes:
    """Return the exact bytes that a logon's signature covers."""
    return f"{timestamp_ms}\n{nonce}\n{key_id}\n{resume_session}".encode()
