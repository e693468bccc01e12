"""Mass actions of the native protocol: mass cancel, kill, quotes, protection; see ``wire``."""

from typing import Literal, TypeAlias

from exchange.messages.wire_base import LogEvent, Request, SideText

KillText: TypeAlias = Literal["session", "account"]
QuoteTimeText: TypeAlias = Literal["GTC", "DAY"]


class MassCancel(Request, frozen=True, kw_only=True, tag="mass_cancel"):
    """Cancels all of the account's orders, or those that match every field given."""

    request_id: str
    instrument: str | None = None
    product: str | None = None
    side: SideText | None = None
    session: int | None = None  # orders entered in that session
    manual: bool = False


class Kill(Request, frozen=True, kw_only=True, tag="kill"):
    """Turns on the kill switch of this session or of the whole account: every order that it covers
    is cancelled, and only cancels and reductions are accepted until an operator turns it off."""

    request_id: str
    scope: KillText = "session"


class Quote(Request, frozen=True, kw_only=True, tag="quote"):
    """Sets both sides of the account's quote in an instrument: a side left out is withdrawn, an
    unchanged one keeps its place. A quote never takes: one that would trade at once is refused."""

    request_id: str
    instrument: str
    bid_price: str | None = None
    bid_quantity: str | None = None
    ask_price: str | None = None
    ask_quantity: str | None = None
    time_in_force: QuoteTimeText = "DAY"
    valid_until_ms: int | None = None  # as in ``enter``


class Protect(Request, frozen=True, kw_only=True, tag="protect"):
    """Limits the lots that the account's quotes in a product may trade within a window.

    When the limit is reached all of them are cancelled, and quotes are refused until this is sent
    again.
    """

    request_id: str
    product: str
    quantity: str  # lots; "0": no protection, and then window_ms must be 0
    window_ms: int


class MassCancelled(LogEvent, frozen=True, kw_only=True, tag="mass_cancelled"):
    """A mass cancel was carried out: reports of the ``orders`` cancelled orders follow."""

    orders: int
    request_id: str | None = None
    duplicate: bool = False


class Killed(LogEvent, frozen=True, kw_only=True, tag="killed"):
    """A kill switch was turned on, or off (``active`` false); ``orders`` were cancelled."""

    scope: str  # session, account, member or exchange
    active: bool
    orders: int = 0
    session: int | None = None
    request_id: str | None = None


class Quoted(LogEvent, frozen=True, kw_only=True, tag="quoted"):
    """The account's quote in an instrument was set; reports of the orders that changed follow."""

    instrument: str
    bid_price: str | None = None
    bid_quantity: str | None = None
    ask_price: str | None = None
    ask_quantity: str | None = None
    request_id: str | None = None
    duplicate: bool = False
    tokens: int | None = None  # as in ``accepted``


class Protection(LogEvent, frozen=True, kw_only=True, tag="protection"):
    """The protection of the account's quotes in a product was set, or has ``blocked`` them."""

    product: str
    quantity: str
    window_ms: int
    traded: str
    blocked: bool
    request_id: str | None = None
