"""What an operator may ask of a market: the messages of the admin socket.

One JSON object a line, tagged ``operation``; the answer is one line too (docs/reference/admin.md).
Money and prices are decimal strings: dollars, and dollars per GPU-hour.
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
THROTTLE_INTERVAL_NS: Final = 100_000  # one order every 0.1 ms in the long run
THROTTLE_BURST: Final = 10_000
OVERLAP_SECONDS: Final = 86_400
OVERLAP_SECONDS_MAX: Final = 90 * 86_400


class OpenAccount(Request, frozen=True, kw_only=True, tag="open_account"):
    """Opens an account; without ``member`` it is a member, without ``self_trade_group`` a group of
    its own number. Accounts of one group never trade with each other."""

    account: int
    member: int | None = None
    self_trade_group: int | None = None
    kind: Literal["house", "client", "box"] = "client"
    max_open_orders: int = MAX_OPEN_ORDERS
    throttle_interval_ns: int = THROTTLE_INTERVAL_NS
    throttle_burst: int = THROTTLE_BURST
    if_missing: bool = False  # an account that is open already is no error

    @property
    def of_member(self) -> int:
        """The member that the account belongs to."""
        return self.account if self.member is None else self.member


class SetAccount(Request, frozen=True, kw_only=True, tag="set_account"):
    """Throws or lifts the account's switch of this setting and bounds the lots of its orders (0: no
    bound). Those of ``Kill`` are others: the answer says which of all stop it now."""

    account: int
    killed: bool = False
    max_order: int = 0


class Kill(Request, frozen=True, kw_only=True, tag="kill"):
    """Throws a kill switch: what it stops is cancelled, and may only cancel and reduce, until two
    people lift it (``lift``, with a reason)."""

    scope: Literal["account", "session", "member", "exchange"] = "account"
    account: int = 0  # of scope account or session
    session: int = 0
    member: int = 0
    lift: bool = False
    reason: str = ""


class CreateKey(Request, frozen=True, kw_only=True, tag="create_key"):
    """Makes an API key for an account, which is opened if need be.

    With ``public_key``, an Ed25519 one in hexadecimal, there is no secret to hand out.
    """

    account: int
    scope: Scope = "trade"
    addresses: tuple[str, ...] = ()  # networks that it may be used from; none: any
    public_key: str = ""


class RotateKey(Request, frozen=True, kw_only=True, tag="rotate_key"):
    """Makes a key like another one, which stays good for ``overlap_seconds`` more."""

    key_id: str
    overlap_seconds: Annotated[int, Meta(ge=0, le=OVERLAP_SECONDS_MAX)] = OVERLAP_SECONDS
    public_key: str = ""


class ListKeys(Request, frozen=True, kw_only=True, tag="list_keys"):
    """Asks which API keys there are; their secrets stay where they are."""


class RevokeKey(Request, frozen=True, kw_only=True, tag="revoke_key"):
    """Deletes an API key and closes its live connections."""

    key_id: str


class Deposit(Request, frozen=True, kw_only=True, tag="deposit"):
    """Books dollars into an account. A repeated ``request_id`` is answered, not booked again."""

    account: int
    amount: str
    request_id: str = ""


class Withdraw(Request, frozen=True, kw_only=True, tag="withdraw"):
    """Books dollars out of an account, as far as they are free."""

    account: int
    amount: str
    request_id: str = ""


class SetMode(Request, frozen=True, kw_only=True, tag="mode"):
    """Makes the whole market cancel-only, or normal again."""

    mode: Literal["normal", "cancel_only"]


class OpenDay(Request, frozen=True, kw_only=True, tag="open_day"):
    """Opens a business date (yyyymmdd): lists new expiries, sets limits, starts trading."""

    date: int | None = None  # the next one after the last, or today if that is later


class Settle(Request, frozen=True, kw_only=True, tag="settle"):
    """Closes the open day and settles it, at the prices clearing finds or two persons approved."""


class RunCycle(Request, frozen=True, kw_only=True, tag="run_cycle"):
    """Carries the intraday cycle that is due out; a market does so by itself."""


class ProposePrice(Request, frozen=True, kw_only=True, tag="propose_price"):
    """A settlement price of an instrument in place of the computed one; the next ``settle`` takes
    it. Needs a second person: the answer is a proposal. Of a settled date: a ``correction``."""

    code: str
    price: str
    reason: str
    correction: bool = False


class PutRecord(Request, frozen=True, kw_only=True, tag="put_record"):
    """Puts a record before the clearing house: a JSON object tagged ``operation``.

    A repeated ``request_id`` is recorded once; the repeat has no rulings of its own.
    """

    record: str
    request_id: str = ""


class Bust(Request, frozen=True, kw_only=True, tag="bust"):
    """Takes a trade of the open day back. Needs a second person: the answer is a proposal.

    A trade inside the no-bust range stands, unless the market's own ``malfunction`` made it.
    """

    match_number: int
    reason: str
    malfunction: bool = False


class Adjust(Request, frozen=True, kw_only=True, tag="adjust"):
    """Gives a trade of the open day another price, inside the no-bust range; as ``Bust``."""

    match_number: int
    price: str
    reason: str
    malfunction: bool = False


class Approve(Request, frozen=True, kw_only=True, tag="approve"):
    """Has another person's proposal done."""

    proposal: str


class ListProposals(Request, frozen=True, kw_only=True, tag="proposals"):
    """Asks which proposals wait for a second person."""


class Expire(Request, frozen=True, kw_only=True, tag="expire"):
    """Ends an instrument at its final settlement price: every order and position is gone."""

    code: str
    at_settlement: bool = False  # at the last settlement price, where the index has no price


class Hedge(Request, frozen=True, kw_only=True, tag="hedge"):
    """The manager of a default trades its book: what does not trade at once is cancelled.

    A repeated ``request_id`` is answered, not traded again; a hedge that was rejected spends none.
    """

    default: int
    code: str
    side: Literal["buy", "sell"]
    lots: int
    price: str  # the limit: dollars per GPU-hour
    request_id: str = ""


class ByTwo(Request, frozen=True, kw_only=True, tag="by_two"):
    """Puts a record before the clearing house that takes two people: the answer is a proposal."""

    record: str
    reason: str


class RecordFixing(Request, frozen=True, kw_only=True, tag="record_fixing"):
    """Puts an index's fixing of a day into the log: its price, and the hash of its inputs.

    ``price`` is empty for a day that was withheld. A repeated (index, date, revision) is answered,
    not recorded again; with another price or hash it is refused.
    """

    index: str
    date: int  # yyyymmdd
    revision: int = 0
    state: Literal["PUBLISHED", "WITHHELD", "FALLBACK", "REVISED"]
    reason: str = ""
    price: str = ""
    inputs_hash: str  # hexadecimal, 32 bytes
    tape_hash: str  # of the tape's entry that holds the fixing


class RecordFactors(Request, frozen=True, kw_only=True, tag="record_factors"):
    """Puts a published table of conversion factors into the log, as it was signed.

    A repeated (grade, expiry, version) is answered, not recorded again; another one is refused.
    """

    table: str  # JSON, as `hourbook goodput factors` writes it


class AdoptMargin(Request, frozen=True, kw_only=True, tag="adopt_margin"):
    """Adopts the next version of the margin parameters, from the business date it names on.

    A repeat of the same parameters is answered, not adopted again.
    """

    parameters: str  # JSON, as `hourbook clear calibrate` writes it


class State(Request, frozen=True, kw_only=True, tag="state"):
    """Asks how the market stands; of ``every`` instrument, or of those that have not expired."""

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

# What one person alone may not do: it waits for another's approval.
TwoPersons: TypeAlias = Bust | Adjust | ProposePrice | ByTwo | Resume | Kill

# What a key of scope clear may ask over HTTP; all else is for scope admin.
ClearingDesk: TypeAlias = (
    Settle | RunCycle | ProposePrice | PutRecord | Expire | Hedge | ByTwo | RecordFixing |
    RecordFactors | AdoptMargin | State
)  # fmt: skip
