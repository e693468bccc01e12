"""What a contract spec may refer to: the codes of the other files of ``data/``.

A spec names a calendar, a GPU class, deliverable grades and an index with its methodology version.
A file that is absent is not checked against; one that is there must hold what a spec names.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from contracts.calendar import FILE_NAME as CALENDARS
from contracts.calendar import Calendar, read_calendars
from contracts.decimal_text import parse_price
from contracts.rules import FACTOR_DECIMALS, Fault, read_toml

HARDWARE: Final = "hardware.toml"
GRADES: Final = "grades.toml"
INDICES: Final = "indices.toml"
FILES: Final = (CALENDARS, HARDWARE, GRADES, INDICES)


class IndexFacts(msgspec.Struct, frozen=True):
    """What a spec's reader must know of its index; ``data/indices.toml`` says it once for all."""

    methodology_version: str = ""
    name: str = ""
    good: str = ""
    administrator: str = ""
    data_sufficiency: str = ""
    transition_policy: str = ""


class GradeFacts(msgspec.Struct, frozen=True):
    """What a spec and a grade both say, and must say alike."""

    product: str = ""
    gpu_class: str = ""


class References(msgspec.Struct, frozen=True):
    """Codes that exist; None where there is no file to know them from."""

    calendars: Mapping[str, Calendar]
    hardware: frozenset[str] | None = None
    grades: Mapping[str, GradeFacts] | None = None
    factor_rules: tuple[Mapping[str, Any], ...] = ()  # of the grades' file, the first the oldest
    indices: Mapping[str, IndexFacts] | None = None

    def faults(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """(field, rule) of every code among a version's values that exists nowhere."""
        faults = []
        if values.get("calendar", "") not in {*self.calendars, ""}:
            faults.append(("calendar", _rule(CALENDARS, self.calendars)))
        if self.hardware is not None and values.get("hardware", "") not in {*self.hardware, ""}:
            faults.append(("hardware", _rule(HARDWARE, self.hardware)))
        return faults + self._grade_faults(values) + self._index_faults(values)

    def _grade_faults(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Grades that do not exist or are of other hardware; figures other than the factors'."""
        faults = []
        grades = {} if self.grades is None else self.grades
        for code in values.get("grades", ()) if self.grades is not None else ():
            grade = grades.get(code)
            if grade is None:
                faults.append(("grades", f"has {code!a}, which is no code of {GRADES}"))
            elif grade.gpu_class != values.get("hardware", grade.gpu_class):
                faults.append(("grades", f"has {code!a}, which is of {grade.gpu_class}"))
        governing = [
            rules
            for rules in self.factor_rules
            if rules.get("first_expiry", "") <= str(values.get("first_expiry", ""))
        ]
        for field, other in _FACTOR_FIGURES.items() if governing else ():
            rule = governing[-1].get(other)
            if field in values and rule is not None and values[field] != _figure(rule):
                faults.append((field, f"must be {rule!a}, {other} of the rules in {GRADES}"))
        return faults

    def _index_faults(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        code = values.get("index")
        if self.indices is None or code is None:
            return []
        facts = self.indices.get(code)
        if facts is None:
            return [("index", _rule(INDICES, self.indices))]
        version = facts.methodology_version
        if values.get("methodology", version) != version:
            return [("methodology", f"must be {version!a}, the version of {code} in {INDICES}")]
        return []


# A spec's figure, and its name among the rules by which conversion factors are made.
_FACTOR_FIGURES: Final = {
    "factor_low": "factor_low",
    "factor_high": "factor_high",
    "factors_published": "publish_days",
    "factors_frozen": "freeze_days",
    "true_up_tolerance": "true_up_tolerance",
    "goodput_floor": "failure_floor",
}


def _figure(rule: object) -> object:
    """A rule's figure as a spec has it: factors at 1e-4."""
    return parse_price(rule, FACTOR_DECIMALS) if isinstance(rule, str) else rule


def _rule(file: str, codes: Mapping[str, Any] | frozenset[str]) -> str:
    return f"must be a code of {file}: {', '.join(sorted(codes))}"


def read_references(files: Mapping[str, bytes]) -> tuple[References, list[Fault]]:
    """The codes of those of ``FILES`` that are given, and what keeps them from being read.

    Of the files that other modules own only codes are read here; what else is in them is judged
    by its owner.
    """
    calendars, faults = read_calendars(CALENDARS, files.get(CALENDARS, b""))
    found: dict[str, Any] = {"calendars": calendars}
    readers: dict[str, Callable[[dict[str, Any]], Any]] = {
        HARDWARE: frozenset, GRADES: _grade_facts, INDICES: _index_facts
    }  # fmt: skip
    for name, read in readers.items():
        if name not in files:
            continue
        table, wrong = read_toml(name, files[name])
        faults += wrong
        if not wrong:
            found[name.removesuffix(".toml")] = read(table)
        if name == GRADES:
            found["factor_rules"] = tuple(table.get("rules", ()))
    return References(**found), faults


def _grade_facts(table: dict[str, Any]) -> dict[str, GradeFacts]:
    return {
        code: GradeFacts(str(grade.get("product", "")), str(grade.get("gpu_class", "")))
        for code, grade in table.get("grades", {}).items()
    }


def _index_facts(table: dict[str, Any]) -> dict[str, IndexFacts]:
    """Facts by index code: what is common holds where an index says nothing."""
    common = table.get("common", {})
    fields = IndexFacts.__struct_fields__
    return {
        code: IndexFacts(**{field: str((common | index).get(field, "")) for field in fields})
        for code, index in table.get("indices", {}).items()
    }
