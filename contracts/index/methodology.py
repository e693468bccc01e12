"""What each index measures and by which rules, from ``data/indices.toml``.

The file has four parts: ``common`` (defaults of all indices), ``indices`` (one table per code,
which may override them), ``providers`` (the known providers and the routes of their prices), and
``panel`` (the names of GPUs and kinds that an observation may have). A file with a fault is refused
whole.
"""

import hashlib
from datetime import date
from enum import Enum
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec
import msgspec.toml
from msgspec import Meta

from contracts.decimal_text import DecimalTextError, parse_price
from contracts.rules import entries

FILE_BYTES_MAX: Final = 262_144
FACTOR_ONE: Final = 10_000
HASH_BYTES: Final = 32
MINUTES_OF_DAY: Final = 24 * 60
_PERSON: Final = b"hourbook.index.1"
_FACTOR_DECIMALS: Final = 4
_FILE: Final = "indices.toml"

Text = Annotated[str, Meta(min_length=1, max_length=600)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Percent = Annotated[int, Meta(ge=1, le=100)]
BasisPoints = Annotated[int, Meta(ge=0, le=20_000)]
Count = Annotated[int, Meta(ge=0, le=100_000)]
Days = Annotated[int, Meta(ge=1, le=3_660)]
Hours = Annotated[int, Meta(ge=0, le=240)]
Minute = Annotated[int, Meta(ge=0, le=MINUTES_OF_DAY)]
Venue = Literal["neocloud", "marketplace", "hyperscaler"]
Code = Annotated[str, Meta(pattern=r"^[A-Z0-9][A-Z0-9-]{2,23}\Z")]


class Tier(Enum):
    """The hierarchy of inputs: the quality of an observation as evidence, the strongest first."""

    EXECUTABLE = "executable"  # can be bought at this price immediately, through an API
    RATE_CARD = "rate_card"  # a published price of exactly the good
    JUDGEMENT = "judgement"  # a price of another good, restated, or of one not fully described


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the restatement schedule: a good whose prices count for the index's good."""

    gpu: Name
    kind: Name
    tier: Tier  # the strongest tier of its prices: a provider's own tier may be weaker
    factor: str = "1.0000"  # price of the index's good / price of this one
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.gpu} {self.kind}"

    @property
    def factor_e4(self) -> int:
        return parse_price(self.factor, _FACTOR_DECIMALS)

    @property
    def restated(self) -> bool:
        """Whether its price counts only by judgement: its tier, or a factor other than one."""
        return self.tier is Tier.JUDGEMENT or self.factor_e4 != FACTOR_ONE


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider of prices. ``route`` names the aggregator they come through, if any."""

    venue: Venue
    tier: Tier
    route: str = ""


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two thresholds: ``enter`` to publish after a day without a number, ``keep`` after one with.

    Whether a value must be at least or at most the threshold: ``AT_MOST``.
    """

    enter: Count
    keep: Count


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions for publishing a day's number, in the order in which a failure is named."""

    providers: Gate  # least number of votes
    observations: Gate  # least number of observations behind them
    effective_tenths: Gate  # least effective number of providers (inverse Herfindahl), in tenths
    coverage_percent: Gate  # least share of the anchor table's weight
    restated_percent: Gate  # most weight on restated inputs
    dispersion_bp: Gate  # largest robust standard deviation of the month's anchors
    disagreement_bp: Gate  # largest robust standard deviation of the day's changes
    influence_bp: Gate  # furthest that one provider could have moved the fixing


# Least ``effective_tenths.keep`` of every index, since cash contracts may settle on any of them.
CASH_EFFECTIVE_TENTHS: Final = 50
AT_MOST: Final = ("restated_percent", "dispersion_bp", "disagreement_bp", "influence_bp")


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fallback ladder of a month's final settlement price."""

    full_days: Days  # fixings for the plain mean
    short_days: Days  # fixings for the mean of an incomplete month
    market_days: Days  # the exchange's own settlement prices for the last step
    revision_hours: Hours  # a revision counts if known by so many hours after the month


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One index: its good, its governance texts, and the parameters of its rules."""

    code: Code
    name: Text
    good: Text
    currency: Literal["USD"]
    administrator: Text
    methodology_version: Text
    effective: date
    data_sufficiency: Text
    input_hierarchy: Text
    transition_policy: Text
    cessation: Text
    conflicts: Text
    complaints: Text
    change_notice_days: Days
    retention_years: Days
    review_date: date

    series: Annotated[tuple[Series, ...], Meta(min_length=1, max_length=32)]
    venues: Annotated[tuple[Venue, ...], Meta(min_length=1, max_length=8)]
    window_opens_minute: Minute
    window_closes_minute: Minute
    extended_closes_minute: Minute
    stale_days: dict[Tier, Days]
    tier_weights: dict[Tier, Annotated[int, Meta(ge=1, le=1_000)]]
    restatement_limit: str
    weight_cap_percent: Percent
    clip_bp: Annotated[int, Meta(ge=1, le=5_000)]
    screen_sigmas: Annotated[int, Meta(ge=2, le=10)]
    screen_floor_bp: Annotated[int, Meta(ge=1, le=10_000)]
    anchor_days: Days
    anchor_least_days: Days
    inception_days: Days
    gates: Gates
    settlement: Settlement


class Methodology(msgspec.Struct, frozen=True):
    """Every index by code, every provider by name, and the names an observation may have."""

    indices: dict[str, Index]
    providers: dict[str, Provider]
    gpus: frozenset[str]
    kinds: frozenset[str]

    def index(self, code: str) -> Index:
        """Return the index of a code; LookupError if there is none."""
        found = self.indices.get(code)
        if found is None:
            known = ", ".join(sorted(self.indices))
            raise LookupError(f"no index {code[:32]!a}; there are {known}")
        return found

    def rules_hash(self, code: str) -> bytes:
        """Return the digest of an index's rules, the providers and the panel's names, which decide
        what of a file counts; LookupError as ``index``."""
        names = sorted(self.gpus), sorted(self.kinds)
        plain = msgspec.to_builtins((self.index(code), self.providers, names), str_keys=True)
        return digest(msgspec.json.encode(plain, order="sorted"))

    def route(self, provider: str) -> str:
        """Return a provider's aggregator, or its own name if it has none. KeyError if unknown."""
        return self.providers[provider].route or provider


class _Panel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gpus: tuple[Name, ...]
    kinds: tuple[Name, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    common: dict[str, Any]
    indices: dict[Code, dict[str, Any]]
    providers: dict[Name, dict[str, Any]]
    panel: _Panel


class MethodologyError(ValueError):
    """The file was refused whole; the message says why."""


def digest(*parts: bytes) -> bytes:
    """Return the BLAKE2b-256 of the parts, each preceded by its length."""
    hasher = hashlib.blake2b(digest_size=HASH_BYTES, person=_PERSON)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


@cache
def load() -> Methodology:
    """Return the indices shipped with this package."""
    return read((resources.files("contracts") / "data" / _FILE).read_bytes())


def read(content: bytes) -> Methodology:
    """Return the indices of a TOML file's content; MethodologyError with the first fault."""
    if len(content) > FILE_BYTES_MAX:
        raise MethodologyError(f"{len(content)} bytes, at most {FILE_BYTES_MAX}")
    try:
        file = msgspec.toml.decode(content, type=_File)
        providers = entries(file.providers, Provider, "providers.")
        whole = {code: {**file.common, **one, "code": code} for code, one in file.indices.items()}
        indices = entries(whole, Index, "indices.")
    except (ValueError, RecursionError) as error:
        raise MethodologyError(f"not a file of indices: {error}") from error
    if not indices:
        raise MethodologyError("at least one index is needed")
    for index in indices.values():
        for rule in _faults(index, file):
            raise MethodologyError(f"{index.code}: {rule}")
    gpus, kinds = frozenset(file.panel.gpus), frozenset(file.panel.kinds)
    return Methodology(indices, providers, gpus, kinds)


def _faults(index: Index, file: _File) -> list[str]:
    """Inconsistencies between the fields of one index."""
    faults = []
    low, middle, high = (
        index.window_opens_minute,
        index.window_closes_minute,
        index.extended_closes_minute,
    )
    if not low < middle <= high:
        faults.append("the window must open before it closes, and be extended, not shortened")
    if set(index.stale_days) != set(Tier) or set(index.tier_weights) != set(Tier):
        faults.append("stale_days and tier_weights must name every tier")
    if len({series.name for series in index.series}) < len(index.series):
        faults.append("a series stands in the schedule twice")
    for series in index.series:
        if series.gpu not in file.panel.gpus or series.kind not in file.panel.kinds:
            faults.append(f"{series.name} is not in the panel's names")
        fault = _restatement_fault(series.factor, index.restatement_limit)
        if fault:
            faults.append(f"{series.name}: {fault}")
    if index.screen_sigmas * index.screen_floor_bp < index.clip_bp:
        faults.append("the screen must not be narrower than the clip")
    if index.settlement.short_days > index.settlement.full_days:
        faults.append("short_days must not be above full_days")
    if index.gates.effective_tenths.keep < CASH_EFFECTIVE_TENTHS:
        faults.append(f"gate effective_tenths must keep {CASH_EFFECTIVE_TENTHS} or more")
    faults += _gate_faults(index.gates)
    return faults


def _restatement_fault(factor: str, limit: str) -> str:
    try:
        value = parse_price(factor, _FACTOR_DECIMALS)
        most = parse_price(limit, _FACTOR_DECIMALS)
    except DecimalTextError as error:
        return str(error)
    if most < FACTOR_ONE:
        return f"restatement_limit {limit} is below one"
    if value * most < FACTOR_ONE * FACTOR_ONE or value > most:
        return f"factor {factor} restates by more than {limit}"
    return ""


def _gate_faults(gates: Gates) -> list[str]:
    faults = []
    for name in gates.__struct_fields__:
        gate: Gate = getattr(gates, name)
        stricter = gate.enter <= gate.keep if name in AT_MOST else gate.enter >= gate.keep
        if not stricter:
            faults.append(f"gate {name}: it must not be easier to enter than to keep")
    return faults
