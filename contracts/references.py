"""What a contract spec may refer to: the codes in the other files of ``data/``.

A spec names a calendar, a GPU class, deliverable grades and an index with its methodology version.
Of files that other modules own, only the parts that a spec refers to are read here; the owner
checks the rest (contracts.owners). References to an absent file are not checked.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from contracts.calendar import FILE_NAME as CALENDARS
from contracts.calendar import Calendar, read_calendars
from contracts.decimal_text import parse_price
from contracts.rules import FACTOR_DECIMALS, Fault, read_toml

HARDWARE: Final = "hardware.toml"
GRADES: Final = "grades.toml"
INDICES: Final = "indices.toml"
FILES: Final = (CALENDARS, HARDWARE, GRADES, INDICES)

T = TypeVar("T")


class IndexFacts(msgspec.Struct, frozen=True):
    """Facts about an index that a reader of a spec needs; ``data/indices.toml`` holds them."""

    methodology_version: str = ""
    name: str = ""
    good: str = ""
    administrator: str = ""
    data_sufficiency: str = ""
    transition_policy: str = ""


class GradeFacts(msgspec.Struct, frozen=True):
    """Figures of a grade that a spec repeats: all of them for the par grade, the hardware for
    any."""

    gpu_class: str
    gpus_least: int
    gpus_most: int
    delivery_unit_lots: int
    first_expiry: str = ""

    def figures(self) -> dict[str, tuple[str, int]]:
        """Return the name here and the value, by the name of the spec's field."""
        return {
            "cluster_low": ("gpus_least", self.gpus_least),
            "cluster_high": ("gpus_most", self.gpus_most),
            "delivery_step": ("delivery_unit_lots", self.delivery_unit_lots),
        }


class FactorRules(msgspec.Struct, frozen=True):
    """Figures of the rules for conversion factors that a spec repeats."""

    first_expiry: str
    factor_low: str
    factor_high: str
    publish_days: int
    freeze_days: int
    true_up_tolerance: str
    failure_floor: str

    def figures(self) -> dict[str, tuple[str, int]]:
        """Return the name here and the value, factors at 1e-4, by the name of the spec's field."""
        names = {
            "factor_low": "factor_low",
            "factor_high": "factor_high",
            "factors_published": "publish_days",
            "factors_frozen": "freeze_days",
            "true_up_tolerance": "true_up_tolerance",
            "goodput_floor": "failure_floor",
        }
        said = {field: (name, getattr(self, name)) for field, name in names.items()}
        return {
            field: (name, parse_price(n, FACTOR_DECIMALS) if isinstance(n, str) else n)
            for field, (name, n) in said.items()
        }


class GradesFile(msgspec.Struct, frozen=True):
    """The parts of ``data/grades.toml`` that are read."""

    grades: dict[str, GradeFacts] = {}
    rules: list[FactorRules] = []

    def __post_init__(self) -> None:
        for rules in self.rules:
            rules.figures()


class IndicesFile(msgspec.Struct, frozen=True):
    """The parts of ``data/indices.toml`` that are read; ``common`` holds the defaults of an
    index."""

    common: dict[str, Any] = {}
    indices: dict[str, dict[str, Any]] = {}

    def facts(self) -> dict[str, IndexFacts]:
        """Return the facts by index code."""
        return {
            code: msgspec.convert(self.common | table, IndexFacts)
            for code, table in self.indices.items()
        }

    def __post_init__(self) -> None:
        self.facts()


class References(msgspec.Struct, frozen=True):
    """The codes that exist; None where their file is absent."""

    calendars: Mapping[str, Calendar]
    hardware: Mapping[str, Any] | None = None
    grades: GradesFile | None = None
    indices: Mapping[str, IndexFacts] | None = None

    def faults(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Return (field, rule) for every code among a version's values that does not exist."""
        faults = []
        if values.get("calendar", "") not in {*self.calendars, ""}:
            faults.append(("calendar", _rule(CALENDARS, self.calendars)))
        if self.hardware is not None and values.get("hardware", "") not in {*self.hardware, ""}:
            faults.append(("hardware", _rule(HARDWARE, self.hardware)))
        return faults + self._grade_faults(values) + self._index_faults(values)

    def _grade_faults(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Return faults of grades: unknown, not begun yet, of other hardware, or with other
        figures."""
        if self.grades is None:
            return []
        faults = []
        first = str(values.get("first_expiry", ""))
        for code in values.get("grades", ()):
            grade = self.grades.grades.get(code)
            if grade is None:
                faults.append(("grades", f"has {code!a}, which is no code of {GRADES}"))
            elif grade.gpu_class != values.get("hardware", grade.gpu_class):
                faults.append(("grades", f"has {code!a}, which is of {grade.gpu_class}"))
            elif first and grade.first_expiry > first:
                faults.append(("grades", f"has {code!a}, which begins with {grade.first_expiry}"))
        par = self.grades.grades.get(next(iter(values.get("grades", ())), ""))
        if par is not None:
            faults += _other_figures(values, par, "the par grade")
        governing = [rules for rules in self.grades.rules if rules.first_expiry <= first]
        if governing:
            faults += _other_figures(values, governing[-1], "the rules")
        return faults

    def later_faults(self, values: dict[str, Any], until: str) -> list[tuple[str, str]]:
        """Return figures that differ from the rules of later months which the version still
        governs.

        ``until`` is the first month that a later version governs; empty if there is none.
        """
        first = str(values["first_expiry"])
        rules = [] if self.grades is None else self.grades.rules
        return [
            (field, f"{rule}: add a [[version]]")
            for one in rules
            if first < one.first_expiry and (not until or one.first_expiry < until)
            for field, rule in _other_figures(values, one, f"the rules from {one.first_expiry} on")
        ]

    def _index_faults(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        code = values.get("index")
        if self.indices is None or code is None:
            return []
        return [] if code in self.indices else [("index", _rule(INDICES, self.indices))]

    def methodology_rule(self, index: str, methodology: str) -> str:
        """Return the rule that a product's newest version breaks; empty if its methodology is the
        current.

        An older version keeps the methodology with which its expiries were listed.
        """
        facts = None if self.indices is None else self.indices.get(index)
        if facts is None or facts.methodology_version == methodology:
            return ""
        return f"must be {facts.methodology_version!a}, the version of {index} in {INDICES}"


def _other_figures(
    values: dict[str, Any], said: GradeFacts | FactorRules, whose: str
) -> list[tuple[str, str]]:
    """Return (field, rule) for every figure in a spec that differs from the file of grades."""
    return [
        (field, f"must be {getattr(said, name)!a}, {name} of {whose} in {GRADES}")
        for field, (name, figure) in said.figures().items()
        if values.get(field, figure) != figure
    ]


def _rule(file: str, codes: Mapping[str, Any]) -> str:
    return f"must be a code of {file}: {', '.join(sorted(codes))}"


def read_references(files: Mapping[str, bytes]) -> tuple[References, list[Fault]]:
    """Return the codes of those of ``FILES`` that are given, and the faults found in reading
    them."""
    calendars, faults = read_calendars(CALENDARS, files.get(CALENDARS, b""))
    hardware = _read(HARDWARE, files, dict[str, dict[str, Any]], faults)
    grades = _read(GRADES, files, GradesFile, faults)
    indices = _read(INDICES, files, IndicesFile, faults)
    facts = None if indices is None else indices.facts()
    return References(calendars, hardware, grades, facts), faults


def _read(name: str, files: Mapping[str, bytes], kind: type[T], faults: list[Fault]) -> T | None:
    """Return a file converted to ``kind``; None if it is absent or faulty. Faults go to
    ``faults``."""
    if name not in files:
        return None
    table, found = read_toml(name, files[name])
    if not found:
        try:
            return msgspec.convert(table, kind)
        except ValueError as error:
            found = [Fault(name, "", "", f"must have what a spec refers to: {error}")]
    faults += found
    return None
