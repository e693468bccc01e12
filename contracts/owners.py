"""Check files of ``data/`` that other modules own, by their owners' readers and against changes.

The registry reads only those parts of them that a spec refers to (contracts.references). So it may
accept a file that the index or the conversion factors refuse as a whole.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Final

import msgspec

from contracts import grades, hardware
from contracts.calendar import Month
from contracts.grades import Grades, listed_through
from contracts.index import methodology
from contracts.index.methodology import Methodology
from contracts.references import GRADES, HARDWARE, INDICES
from contracts.rules import Fault

_IN_FORCE: Final = "must stay as it is"


def faults(files: Mapping[str, bytes], on: date) -> list[Fault]:
    """Return the faults of the given files, by name, that the registry does not read completely.

    A fault is whatever the owner's reader refuses, and every change to what is in force on a day.
    """
    found: list[Fault] = []
    for name, judge in _JUDGES.items():
        try:
            found += judge(files, on) if name in files else []
        except ValueError as error:
            found.append(Fault(name, "", "", f"must be what its owner reads: {error}"))
    return found


def _hardware(files: Mapping[str, bytes], on: date) -> list[Fault]:
    after = hardware.read(files[HARDWARE])
    return [
        Fault(HARDWARE, code, "", f"{_IN_FORCE}: factors name it; add a class")
        for code, gpu in hardware.classes().items()
        if after.get(code) != gpu
    ]


def _grades(files: Mapping[str, bytes], on: date) -> list[Fault]:
    """Check grades against the GPU classes given in the same set of files, if these are
    readable."""
    classes = None
    if HARDWARE in files:
        with suppress(ValueError):  # reported as a fault of that file
            classes = hardware.read(files[HARDWARE])
    return _grade_changes(grades.load(), grades.read(files[GRADES], classes), on)


def _indices(files: Mapping[str, bytes], on: date) -> list[Fault]:
    return _index_changes(methodology.load(), methodology.read(files[INDICES]), on)


_JUDGES: Final = {HARDWARE: _hardware, GRADES: _grades, INDICES: _indices}


def _grade_changes(before: Grades, after: Grades, on: date) -> list[Fault]:
    """Return the changed rules that are in force, and the changed grades of listed expiries."""
    rules = {one.version: one for one in after.rules}
    found = [
        Fault(GRADES, f"rules {one.version}", "", f"{_IN_FORCE}: add [[rules]] for later expiries")
        for one in before.rules
        if one.effective <= on and rules.get(one.version) != one
    ]
    listed = listed_through(on)
    return found + [
        Fault(GRADES, f"grades.{code}", "", f"{_IN_FORCE}: add a grade with a later first_expiry")
        for code, grade in before.grades.items()
        if Month.parse(grade.first_expiry) <= listed and after.grades.get(code) != grade
    ]


def _index_changes(before: Methodology, after: Methodology, on: date) -> list[Fault]:
    """Return indices whose rules changed without a new version, and those in force that are
    missing."""
    found = []
    for code, index in before.indices.items():
        later = after.indices.get(code)
        if index.effective > on:
            continue
        if later is None:
            found.append(Fault(INDICES, f"indices.{code}", "", "must stay: it is in force"))
        elif later.methodology_version == index.methodology_version and (
            before.rules_hash(code) != after.rules_hash(code)
        ):
            rule = f"{_IN_FORCE} under methodology {index.methodology_version}: raise the version"
            changed = _first_change(index, later) or _first_change(before, after)
            found.append(Fault(INDICES, f"indices.{code}{changed}", "", rule))
    return found


def _first_change(before: msgspec.Struct, after: msgspec.Struct) -> str:
    """Return the first field that differs, other than the indices; empty if none does."""
    for field in before.__struct_fields__:
        if field != "indices" and getattr(before, field) != getattr(after, field):
            return f", {field}"
    return ""
