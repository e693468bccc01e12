"""What is recorded of the default fund and of defaults. Amounts are micro-dollars."""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from exchange.clearing.default.waterfall import ASSESSMENT_CAP_MANY_PCT, ASSESSMENT_CAP_PCT
from exchange.clearing.records import ByTwo, Record
from exchange.messages import Limit

AUCTION_SECONDS: Final = 3_600
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


class PortClient(ByTwo, frozen=True, kw_only=True, tag="port_client"):
    """A client of the defaulter goes to an account of another member, with all that it has."""

    default: int
    account: int
    to: int


class OpenAuction(Record, frozen=True, kw_only=True, tag="open_auction"):
    """The defaulter's own position in an instrument is auctioned, for so long on the log's time."""

    default: int
    instrument: int
    within_seconds: int = AUCTION_SECONDS
    person: str


class AuctionBid(Record, frozen=True, kw_only=True, tag="auction_bid"):
    """An offer to take lots over at a clearing price."""

    auction: int
    account: int
    lots: int
    price: int


class TearUp(ByTwo, frozen=True, kw_only=True, tag="tear_up"):
    """What nobody bid for ends: those on the other side lose their contracts, at the mark."""

    default: int
    instrument: int


class Allocate(ByTwo, frozen=True, kw_only=True, tag="allocate"):
    """The book is closed: share the loss. ``gains`` by account is what haircuts may take."""

    default: int
    gains: dict[int, Money] = msgspec.field(default_factory=dict)
    assessment_cap_pct: Annotated[int, Meta(ge=0, le=ASSESSMENT_CAP_MANY_PCT)] = ASSESSMENT_CAP_PCT


class CloseDefault(ByTwo, frozen=True, kw_only=True, tag="close_default"):
    """A default ends: what is left goes to those who bore its loss, what stays owed is written
    off."""

    default: int


class DistributeRecovery(ByTwo, frozen=True, kw_only=True, tag="distribute_recovery"):
    """What has come in since a default ended goes to those who bore its loss."""

    default: int
