"""What is recorded of the default fund and of defaults. Amounts are micro-dollars."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from exchange.clearing.default.waterfall import ASSESSMENT_CAP_MANY_PCT, ASSESSMENT_CAP_PCT
from exchange.clearing.records import Record
from exchange.messages import Limit

Money: TypeAlias = Annotated[int, Meta(ge=0, le=int(Limit.MONEY))]


class PayCapital(Record, frozen=True, kw_only=True, tag="pay_capital"):
    """The owner pays in, or with a negative amount takes out, the house's own capital at risk."""

    amount: int
    person: str


class SizeFund(Record, frozen=True, kw_only=True, tag="size_fund"):
    """Size the default fund by the stress scenarios now, and call or return the differences."""

    person: str


class DeclareDefault(Record, frozen=True, kw_only=True, tag="declare_default"):
    """A member does not pay. One person may say so: it only freezes."""

    member: int
    person: str
    reason: str


class PortClient(Record, frozen=True, kw_only=True, tag="port_client"):
    """A client of the defaulter goes to a member, positions and collateral.

    ``accepted_by`` is who takes it on for that member: not who asks.
    """

    default: int
    account: int
    member: int
    person: str
    accepted_by: str


class OpenAuction(Record, frozen=True, kw_only=True, tag="open_auction"):
    """The defaulter's own position in an instrument is auctioned until a log time."""

    default: int
    instrument: int
    deadline: int
    person: str


class AuctionBid(Record, frozen=True, kw_only=True, tag="auction_bid"):
    """An offer to take lots over at a clearing price."""

    auction: int
    account: int
    lots: int
    price: int


class ProposeAllocation(Record, frozen=True, kw_only=True, tag="propose_allocation"):
    """The book is closed: share the loss. ``gains`` by account is what haircuts may take."""

    default: int
    person: str
    gains: dict[int, Money] = msgspec.field(default_factory=dict)
    assessment_cap_pct: Annotated[int, Meta(ge=0, le=ASSESSMENT_CAP_MANY_PCT)] = ASSESSMENT_CAP_PCT


class ApproveAllocation(Record, frozen=True, kw_only=True, tag="approve_allocation"):
    """A second person approves the last proposal, within its time."""

    default: int
    person: str
