"""Deliverable grades: what may be delivered, at which conversion factor, in which units.

    grades.load().grade(code)        a grade's terms, from data/grades.toml
    eligibility.faults(site, grade)  every reason why a site may not deliver it
    measure.measure(...)             attestation logs to measured runs
    factors.rows(...)                the factors of one grade and expiry, from measured runs
    table.make / sign / read         published factor tables: versioned, signed, frozen
    table.check_publication          whether a table may be published on a day
    delivery                         invoice, true-up, cheapest to deliver

Shares and factors are integers at 1e-4, prices millionths of a dollar per GPU-hour, money cents.
"""

from collections.abc import Mapping
from datetime import date
from functools import cache
from hashlib import blake2b
from importlib import resources
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from contracts import symbol
from contracts.calendar import Month
from contracts.decimal_text import parse_price
from contracts.hardware import GpuClass, gpu_class, peak
from contracts.refusals import Refusal, Refused
from contracts.rules import entries
from contracts.spec import PAR_FACTOR, PHYSICAL_MONTHS_MAX

FILE_BYTES_MAX: Final = 262_144
_FILE: Final = "grades.toml"
_DECIMALS: Final = 4
_PERSON: Final = b"hourbook.rules"

Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[ -~]+\Z")]
Words = Annotated[tuple[Text, ...], Meta(min_length=1)]
Share = Annotated[str, Meta(pattern=r"^[0-2]\.[0-9]{1,4}\Z")]
Lots = Annotated[int, Meta(ge=1, le=1_000_000)]
Days = Annotated[int, Meta(ge=1, le=365)]
Nodes = Annotated[int, Meta(ge=1, le=10_000)]
Size = Annotated[int, Meta(ge=1, lt=1 << 53)]


class _RulesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=10_000)]
    effective: date
    first_expiry: str
    formula: Text
    factor_low: Share
    factor_high: Share
    soft_threshold: Share
    transient_sd: Share
    run_sd: Share
    exposure_node_days: Lots
    confidence: Share
    window_days: Days
    nodes_drawn: Nodes
    runs_drawn: Nodes
    run_minutes: Lots
    nodes_least: Nodes
    runs_least: Share
    publish_days: Days
    dispute_days: Days
    freeze_days: Days
    true_up_tolerance: Share
    true_up_cap: Share
    failure_floor: Share


class _GradeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    product: Text
    gpu_class: Text
    fabrics: Words
    fabric_gbps: Lots
    gpus_least: Lots
    gpus_most: Lots
    delivery_unit_lots: Lots
    tenancy: Text
    availability: Share
    regions: Words
    precision: Text
    benchmark: Text
    benchmark_version: Text
    par_delivered: Share
    par_mfu: Share
    first_expiry: str


class Benchmark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The workload that MFU is measured with. Logs of any other workload are refused."""

    name: Text
    version: Text
    model: Text
    parameters: Size
    active_parameters: Size
    layers: Size
    heads: Size
    head_dimension: Size
    sequence_length: Size
    tokens_per_gpu: Size


class Jurisdiction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Restrictions on who may receive GPUs. Off unless an operator enables it with its own data."""

    enabled: bool = False
    denied_countries: tuple[str, ...] = ()
    denied_end_uses: tuple[str, ...] = ()
    tpp_per_consignee: Annotated[int, Meta(ge=0)] = 0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: tuple[_RulesFile, ...]
    benchmarks: tuple[Benchmark, ...]
    grades: dict[str, dict[str, Any]]
    jurisdiction: Jurisdiction


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the rules for factors, rosters and deliveries; ``_e4`` is at 1e-4."""

    version: int
    effective: date
    first_expiry: str
    formula: str
    factor_low_e4: int
    factor_high_e4: int
    soft_threshold_e4: int
    transient_sd_e4: int
    run_sd_e4: int
    exposure_node_days: int
    confidence_e4: int
    window_days: int
    nodes_drawn: int
    runs_drawn: int
    run_minutes: int
    nodes_least: int
    runs_least_e4: int
    publish_days: int
    dispute_days: int
    freeze_days: int
    true_up_tolerance_e4: int
    true_up_cap_e4: int
    failure_floor_e4: int


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """A grade: the hardware a seller must deliver, the delivery unit, and the par levels."""

    code: str
    product: str
    gpu_class: str
    form_factor: str
    fabrics: tuple[str, ...]
    fabric_gbps: int  # the least, in Gb/s per GPU
    gpus_least: int  # cluster-size tier: GPUs on one fabric, from ``gpus_least`` to ``gpus_most``
    gpus_most: int
    delivery_unit_lots: int
    tenancy: str
    availability_e4: int
    regions: tuple[str, ...]
    precision: str
    benchmark: str
    benchmark_version: str
    par_delivered_e4: int
    par_mfu_e4: int
    first_expiry: str
    work: Benchmark

    def check_lots(self, lots: int) -> None:
        """Raise Refused DELIVERY_UNIT unless ``lots`` is a positive number of whole units."""
        if lots <= 0 or lots % self.delivery_unit_lots:
            raise Refused(
                Refusal.DELIVERY_UNIT,
                f"{self.code} is delivered in whole units",
                limit=self.delivery_unit_lots,
                seen=lots,
            )


class Grades(msgspec.Struct, frozen=True):
    """All grades by code, the rules by first expiry, and the jurisdiction's data."""

    rules: tuple[Rules, ...]
    grades: dict[str, Grade]
    jurisdiction: Jurisdiction

    def grade(self, code: str, expiry: Month | None = None) -> Grade:
        """Return the grade of a code.

        Raises Refused UNKNOWN_GRADE if there is none, or if it begins after ``expiry``.
        """
        found = self.grades.get(code)
        if found is None:
            known = ", ".join(self.grades)
            raise Refused(Refusal.UNKNOWN_GRADE, f"name one of {known}", seen=ascii(code[:40]))
        if expiry is not None and expiry < Month.parse(found.first_expiry):
            raise Refused(
                Refusal.UNKNOWN_GRADE, f"{code} begins later", limit=found.first_expiry, seen=expiry
            )
        return found

    def rules_of(self, expiry: Month) -> Rules:
        """Return the rules of an expiry's listing; Refused RULES_CHANGED if none cover it."""
        found = [rules for rules in self.rules if Month.parse(rules.first_expiry) <= expiry]
        if not found:
            raise Refused(Refusal.RULES_CHANGED, "no rules cover this expiry", seen=expiry)
        return found[-1]


def listed_through(on: date) -> Month:
    """Return the furthest month that a contract may list on a day.

    A cycle has at most ``PHYSICAL_MONTHS_MAX`` months, the first at most two months ahead.
    """
    return Month.of(on).plus(1 + PHYSICAL_MONTHS_MAX)


def frozen_terms(rules: Rules, grade: Grade) -> str:
    """Return the digest (hex) of the terms that freeze when an expiry is listed: the rules and the
    grade."""
    content = msgspec.json.encode((rules, grade), order="sorted")
    return blake2b(content, digest_size=32, person=_PERSON).hexdigest()


@cache
def load() -> Grades:
    """Return the grades shipped with this package."""
    return read((resources.files("contracts") / "data" / _FILE).read_bytes())


def read(content: bytes, classes: Mapping[str, GpuClass] | None = None) -> Grades:
    """Return the grades of a TOML file's content; ValueError with the first fault.

    ``classes`` are the known GPU classes, by default the shipped ones.
    """
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{_FILE} must be at most {FILE_BYTES_MAX} bytes")
    file = msgspec.toml.decode(content, type=_File)
    rules = tuple(_rules(one) for one in file.rules)
    months = [Month.parse(one.first_expiry) for one in rules]
    if not rules or months != sorted(set(months)):
        raise ValueError("rules must be one or more, each for later expiries than the one before")
    for one, month in zip(rules[1:], months[1:], strict=True):
        if month <= (listed := listed_through(one.effective)):
            raise ValueError(
                f"rules {one.version}: first_expiry must be after {listed}, listed by then"
            )
    benchmarks = {(one.name, one.version): one for one in file.benchmarks}
    if len(benchmarks) < len(file.benchmarks):
        raise ValueError("a benchmark's version is stated once")
    tables = entries(file.grades, _GradeFile, "grades.")
    grades = {code: _grade(code, one, benchmarks, classes) for code, one in tables.items()}
    return Grades(rules, grades, file.jurisdiction)


def _e4(text: str) -> int:
    return parse_price(text, _DECIMALS)


def _shares(table: msgspec.Struct) -> dict[str, Any]:
    """The fields of a table, its shares as integers at 1e-4 in fields named ``..._e4``."""
    hints: Mapping[str, Any] = type(table).__annotations__
    return {
        f"{name}_e4" if hints[name] is Share else name: (
            _e4(value) if hints[name] is Share else value
        )
        for name, value in msgspec.structs.asdict(table).items()
    }


def _rules(table: _RulesFile) -> Rules:
    found = Rules(**_shares(table))
    if not 0 < found.factor_low_e4 <= PAR_FACTOR <= found.factor_high_e4:
        raise ValueError(f"rules {found.version}: factor_low <= 1.0000 <= factor_high must hold")
    if found.nodes_least > found.nodes_drawn:
        raise ValueError(f"rules {found.version}: nodes_least must not be above nodes_drawn")
    if found.publish_days <= found.freeze_days + found.dispute_days:
        raise ValueError(f"rules {found.version}: disputes must end before the freeze")
    if not 0 < found.failure_floor_e4 < PAR_FACTOR or not found.transient_sd_e4:
        raise ValueError(f"rules {found.version}: failure_floor below one, transient_sd above zero")
    if not 0 < found.confidence_e4 < PAR_FACTOR:
        raise ValueError(f"rules {found.version}: confidence must be above zero and below one")
    Month.parse(found.first_expiry)
    return found


def _grade(
    code: str,
    table: _GradeFile,
    benchmarks: Mapping[tuple[str, str], Benchmark],
    classes: Mapping[str, GpuClass] | None,
) -> Grade:
    if table.product not in symbol.ROOTS:
        raise ValueError(f"{code}: product {table.product!a} is no root of a contract")
    gpu = gpu_class(table.gpu_class, classes)
    peak(table.gpu_class, table.precision, classes)
    if gpu.product != table.product:
        raise ValueError(f"{code}: {table.gpu_class} is not delivered on {table.product}")
    work = benchmarks.get((table.benchmark, table.benchmark_version))
    if work is None:
        raise ValueError(
            f"{code}: no [[benchmarks]] is {table.benchmark} {table.benchmark_version}"
        )
    found = Grade(code=code, form_factor=gpu.form_factor, work=work, **_shares(table))
    if not found.gpus_least <= found.gpus_most or found.delivery_unit_lots % gpu.gpus_per_domain:
        raise ValueError(f"{code}: a delivery unit is whole domains of {gpu.gpus_per_domain} GPUs")
    shares = (found.par_delivered_e4, found.par_mfu_e4, found.availability_e4)
    if not all(0 < share <= PAR_FACTOR for share in shares):
        raise ValueError(f"{code}: pars and availability must be above 0 and at most 1")
    Month.parse(found.first_expiry)
    return found
