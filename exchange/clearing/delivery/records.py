"""The records of deliveries. Amounts of use are GPU-seconds; days of the month count from 1."""

from typing import Annotated

import msgspec
from msgspec import Meta

from exchange.clearing.records import Record


class Tender(Record, frozen=True, kw_only=True, tag="tender"):
    """A short's intent to deliver lots from a site, at the factor of the named table version."""

    account: int
    instrument: int
    lots: int
    grade: str
    provider: str
    facility: str
    factor_version: int


class Attest(Record, frozen=True, kw_only=True, tag="attest"):
    """One side's figures of a day of a delivery: the seller's, the buyer's, or the house's as
    arbiter.

    ``available`` is the GPU-seconds available, ``lost`` those of them that the seller lost,
    ``digest`` that of the attestation log behind them.
    """

    account: int
    delivery: int
    day: int
    available: int
    lost: int = 0
    digest: str = ""


class Alternative(Record, frozen=True, kw_only=True, tag="alternative_delivery"):
    """One side's consent to an alternative delivery. It takes both sides' consent, with the same
    ``agreement``, to end the delivery."""

    account: int
    delivery: int
    agreement: str


class NameConsignee(Record, frozen=True, kw_only=True, tag="consignee"):
    """The consignee of an account's deliveries.

    ``tpp_received`` is the total processing performance received elsewhere in the business date's
    year so far; deliveries assigned here are added, each to the year of its month.
    """

    account: int
    country: str
    parent_country: str
    end_use: str = ""
    tpp_received: Annotated[int, Meta(ge=0)] = 0


class SetJurisdiction(Record, frozen=True, kw_only=True, tag="jurisdiction"):
    """The operator's legal restrictions on receiving GPUs. Off until one is recorded."""

    enabled: bool
    denied_countries: tuple[str, ...] = ()
    denied_end_uses: tuple[str, ...] = ()
    tpp_per_consignee: Annotated[int, Meta(ge=0)] = 0


class FactorsRecorded(Record, frozen=True, kw_only=True, tag="record_factors"):
    """A published factor table, with the signed text."""

    grade: str
    expiry: str
    digest: str
    table: str


class Day(msgspec.Struct):
    """One day of a delivery until it is settled: each side's (available, lost) GPU-seconds."""

    seller: tuple[int, int] | None = None
    buyer: tuple[int, int] | None = None
    disputed: bool = False
