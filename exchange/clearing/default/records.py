"""The records of the default fund and of defaults. Amounts are micro-dollars."""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from exchange.clearing.default.waterfall import ASSESSMENT_CAP_MANY_PCT, ASSESSMENT_CAP_PCT
from exchange.clearing.records import ByTwo, Record
from exchange.messages import Limit

AUCTION_SECONDS: Final = 3_600
Money: TypeAlias = Annotated[int, Meta(ge=0, le=int(Limit.MONEY))]


class PayCapital(Record, frozen=True, kw_only=True, tag="pay_capital"):
    """The owner pays the house's own capital at risk in, or takes it out (a negative amount)."""

    amount: int
    person: str


class SizeFund(Record, frozen=True, kw_only=True, tag="size_fund"):
    """The default fund is sized by the stress scenarios; differences are called or returned."""

    person: str


class DeclareDefault(Record, frozen=True, kw_only=True, tag="declare_default"):
    """A member is in default: its own accounts are frozen. It takes one person."""

    member: int
    person: str
    reason: str


class PortClient(ByTwo, frozen=True, kw_only=True, tag="port_client"):
    """A client of the defaulter moves to an account of another member, with all that it has."""

    default: int
    account: int
    to: int


class OpenAuction(Record, frozen=True, kw_only=True, tag="open_auction"):
    """The defaulter's position in an instrument is auctioned for ``within_seconds`` of log time."""

    default: int
    instrument: int
    within_seconds: int = AUCTION_SECONDS
    person: str


class AuctionBid(Record, frozen=True, kw_only=True, tag="auction_bid"):
    """An offer to take over lots at a clearing price."""

    auction: int
    account: int
    lots: int
    price: int


class TearUp(ByTwo, frozen=True, kw_only=True, tag="tear_up"):
    """Lots without a bid end: accounts on the other side lose as many lots, at the mark."""

    default: int
    instrument: int


class Allocate(ByTwo, frozen=True, kw_only=True, tag="allocate"):
    """The loss of a closed book is shared; ``gains`` is what haircuts may take, by account."""

    default: int
    gains: dict[int, Money] = msgspec.field(default_factory=dict)
    assessment_cap_pct: Annotated[int, Meta(ge=0, le=ASSESSMENT_CAP_MANY_PCT)] = ASSESSMENT_CAP_PCT


class CloseDefault(ByTwo, frozen=True, kw_only=True, tag="close_default"):
    """A default ends: what is left repays those who bore the loss, what is still owed is written
    off."""

    default: int


class DistributeRecovery(ByTwo, frozen=True, kw_only=True, tag="distribute_recovery"):
    """What has come in since a default ended repays those who bore its loss."""

    default: int
