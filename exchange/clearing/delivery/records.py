"""What is recorded of deliveries. Times of a delivery are GPU-seconds, its days count from 1."""

from typing import Annotated

import msgspec
from msgspec import Meta

from exchange.clearing.records import Record


class Tender(Record, frozen=True, kw_only=True, tag="tender"):
    """A short's intent to deliver lots from a site, at the published factor that it names."""

    account: int
    instrument: int
    lots: int
    grade: str
    provider: str
    facility: str
    factor_version: int


class Attest(Record, frozen=True, kw_only=True, tag="attest"):
    """What one side saw of a delivery's day: the seller, the buyer, or the house as arbiter.

    ``available``: GPU-seconds that were there. ``lost``: of these, what the seller lost.
    ``digest``: of the attestation log that says so.
    """

    account: int
    delivery: int
    day: int
    available: int
    lost: int = 0
    digest: str = ""


class Alternative(Record, frozen=True, kw_only=True, tag="alternative_delivery"):
    """One side agrees to deliver otherwise than by the rules; it takes both, under the same words,
    to end the delivery."""

    account: int
    delivery: int
    agreement: str


class NameConsignee(Record, frozen=True, kw_only=True, tag="consignee"):
    """Who receives what an account is delivered. ``tpp_received``: in the business date's year so
    far; the deliveries assigned here are added, each to the year of its month."""

    account: int
    country: str
    parent_country: str
    end_use: str = ""
    tpp_received: Annotated[int, Meta(ge=0)] = 0


class SetJurisdiction(Record, frozen=True, kw_only=True, tag="jurisdiction"):
    """Whom the operator's law keeps from receiving which chips. Off until one is recorded."""

    enabled: bool
    denied_countries: tuple[str, ...] = ()
    denied_end_uses: tuple[str, ...] = ()
    tpp_per_consignee: Annotated[int, Meta(ge=0)] = 0


class FactorsRecorded(Record, frozen=True, kw_only=True, tag="record_factors"):
    """A published factor table, as it was signed."""

    grade: str
    expiry: str
    digest: str
    table: str


class Day(msgspec.Struct):
    """One day of a delivery while its figures come in: what each side saw, and what counts."""

    seller: tuple[int, int] | None = None  # available, lost
    buyer: tuple[int, int] | None = None
    disputed: bool = False
