"""HTTP: the parameters of GET requests under ``/api/v1``, and their answers.

Answers are those of the WebSocket where it has them, otherwise the types here: each is an object
whose ``type`` names it. Pages of history carry ``next``, a cursor for ``after`` of the next
request; a page may hold fewer than ``limit`` items, even none, and still have a next one, because a
request reads a bounded part of the log. Times are nanoseconds since 1970, ``*_ms`` milliseconds.
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from exchange.messages.wire import (
    Accepted,
    CancelAfterSet,
    Cancelled,
    CashMoved,
    Deficit,
    Dormant,
    Elected,
    Execution,
    OrderTypeText,
    PositionReport,
    PublicCorrection,
    PublicTrade,
    PublicTransfer,
    Reduced,
    Refilled,
    Rejected,
    Replaced,
    ResidualPosted,
    Returned,
    Settled,
    SideText,
    TimeInForceText,
    Transferred,
    Waiting,
)
from exchange.messages.wire_base import Response
from exchange.messages.wire_mass import Killed, MassCancelled, Protection, Quoted
from exchange.messages.wire_moves import Corrected, LegTraded

PAGE_MOST: Final = 500
MS_MAX: Final = (1 << 63) // 1_000_000 - 1
ID_PATTERN: Final = r"^[A-Za-z0-9._-]{1,36}$"
# Epoch, sequence and index; sequence and index together stay within 63 bits.
CURSOR_PATTERN: Final = r"^(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,11})\.(0|[1-9][0-9]{0,6})$"
DATE_LEAST, DATE_MOST = 19_700_101, 99_991_231
INTERVALS: Final = {"1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}  # seconds

Code: TypeAlias = Annotated[
    str, Meta(pattern=ID_PATTERN, description="code of an instrument or contract")
]
ClientOrderId: TypeAlias = Annotated[
    str, Meta(pattern=ID_PATTERN, description="the client's own id of an order")
]
OrderId: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9]{1,20}$", description="the venue's id of an order")
]
Milliseconds: TypeAlias = Annotated[
    int, Meta(ge=0, le=MS_MAX, description="milliseconds since the epoch, on the log's clock")
]
Cursor: TypeAlias = Annotated[
    str, Meta(pattern=CURSOR_PATTERN, description="`next` of the page before")
]
Most: TypeAlias = Annotated[int, Meta(ge=1, le=PAGE_MOST, description="most items of the page")]
BusinessDate: TypeAlias = Annotated[
    int, Meta(ge=DATE_LEAST, le=DATE_MOST, description="business date, yyyymmdd")
]


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the query parameters; by itself it allows none. A default outside the field's own
    pattern or range means that the parameter was not given."""


class OfOrder(Query, frozen=True, kw_only=True):
    """One order, by the client's own id."""

    client_order_id: ClientOrderId


class OfInstruments(Query, frozen=True, kw_only=True):
    """The instruments that are listed; ``all`` has those that have expired, too."""

    state: Literal["live", "all"] = "live"


class OfHistory(Query, frozen=True, kw_only=True):
    """A section of the log: from ``from_ms``, or after the cursor ``after``, to before
    ``to_ms``."""

    from_ms: Milliseconds = 0
    to_ms: Milliseconds = MS_MAX
    after: Cursor = ""
    limit: Most = 100


class OfCandles(Query, frozen=True, kw_only=True):
    """Candles of ``limit`` intervals from ``from_ms`` on, or from where the market's books begin if
    that is later. An interval without a trade has none."""

    interval: Literal["1m", "5m", "1h", "1d"] = "1h"
    from_ms: Milliseconds = 0
    limit: Most = 100


class OfPrices(Query, frozen=True, kw_only=True):
    """Settlement prices of one instrument or all, of a range of business dates."""

    code: Code = ""
    from_date: BusinessDate = DATE_LEAST
    to_date: BusinessDate = DATE_MOST
    after: Cursor = ""
    limit: Most = 100


class OfStatement(Query, frozen=True, kw_only=True):
    """The statement of a business date, or without one of all time."""

    date: BusinessDate = 0


class OfPreview(Query, frozen=True, kw_only=True):
    """An order to preview; its fields are those of ``enter``."""

    instrument: Code
    side: SideText
    quantity: str
    price: str | None = None
    type: OrderTypeText = "limit"
    time_in_force: TimeInForceText | None = None
    expires_ms: Milliseconds | None = None
    post_only: bool = False
    reduce_only: bool = False


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of a product in force: the template of its contracts, not a single expiry."""

    code: str
    name: str
    settlement: str
    hardware: str
    fabric: str
    contract_size: int
    tick: str
    lot_step: int
    max_order: int
    position_limit: int
    limit_percent: int
    margin_percent: int
    effective: str


class Contracts(Response, frozen=True, kw_only=True, tag="contracts"):
    """Every product whose terms are in force on the open business date."""

    contracts: list[Product]


class Positions(Response, frozen=True, kw_only=True, tag="positions"):
    """The account's positions as of ``sequence``."""

    sequence: int
    time: int
    positions: list[PositionReport]


PublicRow: TypeAlias = PublicTrade | PublicCorrection | PublicTransfer


class Trades(Response, frozen=True, kw_only=True, tag="trades"):
    """Trades of an instrument, their corrections, and lots moved off the book, oldest first."""

    trades: list[PublicRow]
    next: str | None


class Fills(Response, frozen=True, kw_only=True, tag="fills"):
    """The account's executions, leg trades and corrections, oldest first, as they were reported."""

    fills: list[Execution | LegTraded | Corrected]
    next: str | None


Report: TypeAlias = (
    Accepted | Rejected | Execution | Cancelled | Reduced | Replaced | Dormant | Returned | Waiting
    | Elected | Refilled | MassCancelled | Killed | Quoted | Protection | Corrected | LegTraded
    | ResidualPosted | Transferred | Settled | CashMoved | Deficit | CancelAfterSet
)  # fmt: skip


class Events(Response, frozen=True, kw_only=True, tag="events"):
    """Every report of the account, oldest first, as its connections received them; none is
    missing."""

    events: list[Report]
    next: str | None


class Costs(Response, frozen=True, kw_only=True, tag="costs"):
    """The cost of requests and their limits.

    ``tokens`` are those of the account's throttle by ``op``; the other fields are the gateway's
    limits.
    """

    tokens: dict[str, int]
    frame_bytes: int
    frame_commands: int
    requests_a_second: int  # over HTTP, per address
    previews_a_second: int  # per account
    connections: int  # per key


class Candle(msgspec.Struct, frozen=True, kw_only=True):
    """The trades of one interval; there is no candle for an interval without trades."""

    start_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int


class Candles(Response, frozen=True, kw_only=True, tag="candles"):
    """Candles of an instrument, oldest first, of trades as they happened: corrections are ignored.

    ``next`` is the ``from_ms`` of the next page. Candles are made from the trades that clearing has
    booked, those of a combination from the released trades.
    """

    interval: str
    candles: list[Candle]
    next: int | None


class SettlementPrice(msgspec.Struct, frozen=True, kw_only=True):
    """The settlement price of an instrument in one cycle of a business date."""

    instrument: str
    business_date: int
    cycle: int
    price: str


class SettlementPrices(Response, frozen=True, kw_only=True, tag="settlement_prices"):
    """Settlement prices in the order in which they were booked."""

    prices: list[SettlementPrice]
    next: str | None


class StatementHolding(msgspec.Struct, frozen=True, kw_only=True):
    """One open position of a statement; ``mark`` in dollars per GPU-hour."""

    instrument: str
    net: str
    mark: str
    unrealized: str


class StatementPledged(msgspec.Struct, frozen=True, kw_only=True):
    """Pledged units of an asset: ``price`` of one, and what they count for, in dollars."""

    asset: str
    units: str
    price: str
    haircut_bp: int
    counts: str


class StatementCallStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a margin call: ``called``, ``changed`` (another amount, the same deadline),
    ``met``, ``closed`` (without a payment), ``missed`` or ``default``.

    ``missing`` in dollars; ``stamp`` and ``deadline`` in nanoseconds, a deadline of 0 is none.
    """

    stamp: int
    business_date: int
    step: str
    missing: str
    deadline: int


class StatementShare(msgspec.Struct, frozen=True, kw_only=True):
    """What the account bore of another member's default in one layer of the waterfall, and has got
    back, in dollars. A member's share is on the first of its own accounts."""

    default: int
    layer: str
    borne: str
    repaid: str


class StatementStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How the account stands now. Amounts in dollars, discounts in basis points.

    ``liquidity`` is cash and ``collateral_value`` less ``required``; both are null without margin
    parameters that cover every position. ``call`` is the open margin call, 0 without one;
    ``fee_version`` is 0 if no fee tiers are in force. ``calls`` has every step, the oldest first.
    """

    collateral: list[StatementPledged]
    collateral_value: str
    required: str | None
    liquidity: str | None
    call: str
    call_deadline: int
    calls: list[StatementCallStep]
    fee_version: int
    maker_discount_bp: int
    taker_discount_bp: int
    lots_last_month: str
    lots_this_month: str
    defaults: list[StatementShare]


class StatementReport(Response, frozen=True, kw_only=True, tag="statement"):
    """The account's cash from ``opening`` to ``closing``, in dollars, as clearing has booked it.

    ``opening`` plus the nine lines after it is ``closing``. ``profit`` is variation, the three fee
    lines, interest and ``unrealized``. Of a past date ``holdings`` is empty and ``standing`` null.
    """

    account: int
    sequence: int
    business_date: int | None
    opening: str
    deposits: str
    withdrawals: str
    variation: str
    fees: str
    fees_earned: str
    fee_discounts: str
    interest: str
    delivery: str
    default_fund: str
    closing: str
    unrealized: str
    profit: str
    holdings: list[StatementHolding]
    standing: StatementStanding | None


class KeyReport(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the account, without anything secret."""

    key_id: str
    scope: str
    algorithm: str
    addresses: list[str]
    expires_ms: int | None


class KeyReports(Response, frozen=True, kw_only=True, tag="keys"):
    """The account's keys, oldest first."""

    keys: list[KeyReport]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How far the gateway has followed the market; ``time`` is the stamp of the last batch."""

    epoch: int
    sequence: int
    time: int
    connections: int
    protocol_version: int
