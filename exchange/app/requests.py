"""The operators' requests: the messages of the admin socket.

A request is a JSON object on one line, tagged ``operation``; the answer is one line as well
(docs/reference/admin.md). Money and prices are decimal strings: dollars, and dollars per GPU-hour.
"""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from exchange.app.requests_base import Request
from exchange.app.requests_market import Auction as Auction
from exchange.app.requests_market import Close as Close
from exchange.app.requests_market import Halt as Halt
from exchange.app.requests_market import Indicate as Indicate
from exchange.app.requests_market import ListContract as ListContract
from exchange.app.requests_market import MarketRequest
from exchange.app.requests_market import PreOpen as PreOpen
from exchange.app.requests_market import Protect as Protect
from exchange.app.requests_market import Resume as Resume
from exchange.app.requests_market import SetBreaker as SetBreaker
from exchange.app.requests_market import SetFeature as SetFeature
from exchange.app.requests_market import SetImplied as SetImplied
from exchange.app.requests_market import SetLimits as SetLimits
from exchange.messages.access import Scope

MAX_OPEN_ORDERS: Final = 10_000
THROTTLE_INTERVAL_NS: Final = 100_000  # per order, on average
THROTTLE_BURST: Final = 10_000
OVERLAP_SECONDS: Final = 86_400
OVERLAP_SECONDS_MAX: Final = 90 * 86_400


class OpenAccount(Request, frozen=True, kw_only=True, tag="open_account"):
    """Open an account. ``member`` and ``self_trade_group`` default to the account's own number.

    Accounts of one self-trade group never trade with each other."""

    account: int
    member: int | None = None
    self_trade_group: int | None = None
    kind: Literal["house", "client", "box"] = "client"
    max_open_orders: int = MAX_OPEN_ORDERS
    throttle_interval_ns: int = THROTTLE_INTERVAL_NS
    throttle_burst: int = THROTTLE_BURST
    if_missing: bool = False  # succeed if the account is open already

    @property
    def of_member(self) -> int:
        """The member that the account belongs to."""
        return self.account if self.member is None else self.member


class SetAccount(Request, frozen=True, kw_only=True, tag="set_account"):
    """Set or clear an account's ``setting`` switch, and limit the lots of each of its orders (0: no
    limit).

    The switches of ``Kill`` are separate. The answer lists all switches that stop the account now.
    """

    account: int
    killed: bool = False
    max_order: int = 0


class Kill(Request, frozen=True, kw_only=True, tag="kill"):
    """Throw a kill switch: cancel the orders of its scope, and from then on accept only cancels and
    reductions, until two people lift it (``lift``, with a reason)."""

    scope: Literal["account", "session", "member", "exchange"] = "account"
    account: int = 0  # of scope account or session
    session: int = 0
    member: int = 0
    lift: bool = False
    reason: str = ""


class CreateKey(Request, frozen=True, kw_only=True, tag="create_key"):
    """Create an API key of an account, which is opened if it does not exist.

    With ``public_key``, an Ed25519 key in hexadecimal, the answer has no secret.
    """

    account: int
    scope: Scope = "trade"
    addresses: tuple[str, ...] = ()  # networks from which it may be used; empty: any
    public_key: str = ""


class RotateKey(Request, frozen=True, kw_only=True, tag="rotate_key"):
    """Create a key with the properties of another, which stays valid for ``overlap_seconds``."""

    key_id: str
    overlap_seconds: Annotated[int, Meta(ge=0, le=OVERLAP_SECONDS_MAX)] = OVERLAP_SECONDS
    public_key: str = ""


class ListKeys(Request, frozen=True, kw_only=True, tag="list_keys"):
    """List the API keys, without their secrets."""


class RevokeKey(Request, frozen=True, kw_only=True, tag="revoke_key"):
    """Delete an API key and close its connections."""

    key_id: str


class Deposit(Request, frozen=True, kw_only=True, tag="deposit"):
    """Deposit dollars into an account. A repeated ``request_id`` is not booked again; it gets the
    first answer."""

    account: int
    amount: str
    request_id: str = ""


class Withdraw(Request, frozen=True, kw_only=True, tag="withdraw"):
    """Withdraw dollars from an account, at most what is free. ``request_id`` as in ``Deposit``."""

    account: int
    amount: str
    request_id: str = ""


class SetMode(Request, frozen=True, kw_only=True, tag="mode"):
    """Set the mode of the whole market: cancel-only, or normal."""

    mode: Literal["normal", "cancel_only"]


class OpenDay(Request, frozen=True, kw_only=True, tag="open_day"):
    """Open a business date (yyyymmdd): list new expiries, set limits, start trading."""

    date: int | None = None  # None: the day after the last one, or today if that is later


class Settle(Request, frozen=True, kw_only=True, tag="settle"):
    """Close the open day; settle it at the prices that clearing computes or two people approved."""


class RunCycle(Request, frozen=True, kw_only=True, tag="run_cycle"):
    """Run the intraday cycle that is due. A serving market does this automatically."""


class ProposePrice(Request, frozen=True, kw_only=True, tag="propose_price"):
    """Propose an instrument's settlement price instead of the computed one, for the next ``settle``
    or, with ``correction``, for a date that is settled. The answer is a proposal, which a second
    person must approve."""

    code: str
    price: str
    reason: str
    correction: bool = False


class PutRecord(Request, frozen=True, kw_only=True, tag="put_record"):
    """Write a clearing record, a JSON object tagged ``operation``, to the log.

    A repeated ``request_id`` is recorded once; the answer to the repeat has no rulings.
    """

    record: str
    request_id: str = ""


class Bust(Request, frozen=True, kw_only=True, tag="bust"):
    """Cancel a trade of the open day. The answer is a proposal, which a second person must approve.

    A trade inside the no-bust range cannot be busted, unless a ``malfunction`` of the market caused
    it.
    """

    match_number: int
    reason: str
    malfunction: bool = False


class Adjust(Request, frozen=True, kw_only=True, tag="adjust"):
    """Change the price of a trade of the open day to one inside the no-bust range; otherwise as
    ``Bust``."""

    match_number: int
    price: str
    reason: str
    malfunction: bool = False


class Approve(Request, frozen=True, kw_only=True, tag="approve"):
    """Approve another person's proposal, which is then carried out."""

    proposal: str


class ListProposals(Request, frozen=True, kw_only=True, tag="proposals"):
    """List the proposals that wait for a second person."""


class Expire(Request, frozen=True, kw_only=True, tag="expire"):
    """Expire an instrument at its final settlement price: all its orders and positions end."""

    code: str
    at_settlement: bool = False  # at the last settlement price, if the index has none


class Hedge(Request, frozen=True, kw_only=True, tag="hedge"):
    """Enter an immediate-or-cancel order on an account of a member in default.

    A repeated ``request_id`` does not trade again; it gets the first outcome. A rejected hedge does
    not use its id up.
    """

    default: int
    code: str
    side: Literal["buy", "sell"]
    lots: int
    price: str  # the limit: dollars per GPU-hour
    request_id: str = ""


class ByTwo(Request, frozen=True, kw_only=True, tag="by_two"):
    """Propose a clearing record that needs two people. The answer is a proposal."""

    record: str
    reason: str


class RecordFixing(Request, frozen=True, kw_only=True, tag="record_fixing"):
    """Write an index's fixing of a day to the log: its price and the hash of its inputs.

    ``price`` is empty for a withheld day. A repeated (index, date, revision) is not recorded again;
    with another price or hash it is refused.
    """

    index: str
    date: int  # yyyymmdd
    revision: int = 0
    state: Literal["PUBLISHED", "WITHHELD", "FALLBACK", "REVISED"]
    reason: str = ""
    price: str = ""
    inputs_hash: str  # hexadecimal, 32 bytes
    tape_hash: str  # of the tape entry with the fixing


class RecordFactors(Request, frozen=True, kw_only=True, tag="record_factors"):
    """Write a published table of conversion factors to the log, as it was signed.

    A repeated (grade, expiry, version) is not recorded again; with another table it is refused.
    """

    table: str  # JSON, as `hourbook goodput factors` writes it


class AdoptMargin(Request, frozen=True, kw_only=True, tag="adopt_margin"):
    """Adopt the next version of the margin parameters, effective from the business date in it.

    The same parameters again are not adopted twice.
    """

    parameters: str  # JSON, as `hourbook clear calibrate` writes it


class State(Request, frozen=True, kw_only=True, tag="state"):
    """Query the market's state; with ``every`` also of expired instruments."""

    every: bool = False


AnyRequest: TypeAlias = (
    OpenAccount
    | SetAccount
    | Kill
    | CreateKey
    | ListKeys
    | RotateKey
    | RevokeKey
    | Deposit
    | Withdraw
    | MarketRequest
    | SetMode
    | OpenDay
    | Settle
    | RunCycle
    | Bust
    | Adjust
    | Approve
    | ListProposals
    | ProposePrice
    | PutRecord
    | Expire
    | Hedge
    | ByTwo
    | RecordFixing
    | RecordFactors
    | AdoptMargin
    | State
)

# Requests that may need a second person's approval.
TwoPersons: TypeAlias = Bust | Adjust | ProposePrice | ByTwo | Resume | Kill

# Requests that a key of scope clear may make over HTTP; all others need scope admin.
ClearingDesk: TypeAlias = (
    Settle | RunCycle | ProposePrice | PutRecord | Expire | Hedge | ByTwo | RecordFixing |
    RecordFactors | AdoptMargin | State
)  # fmt: skip
