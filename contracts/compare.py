"""Two specs, expiries or registries side by side: the fields in which they differ."""

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

import msgspec

from contracts.registry import Registry
from contracts.spec import ContractSpec, Listed

PRESENT: Final = "present"
ABSENT: Final = "absent"


class Difference(msgspec.Struct, frozen=True):
    """One field that differs; ``what`` is whose, empty where there is but one thing."""

    what: str
    field: str
    before: str
    after: str


def differences(
    before: ContractSpec | Listed, after: ContractSpec | Listed, what: str = ""
) -> list[Difference]:
    """The fields of two things that differ, in their order; a field of one alone differs too."""
    left, right = _fields(before), _fields(after)
    return [
        Difference(what, field, left.get(field, ""), right.get(field, ""))
        for field in dict.fromkeys([*left, *right])
        if left.get(field) != right.get(field)
    ]


def versions(before: Registry, after: Registry) -> list[Difference]:
    """What changed from one registry to another, version by version of every product."""
    left, right = _by_version(before), _by_version(after)
    found: list[Difference] = []
    for key in sorted({*left, *right}):
        what = f"{key[0]} {key[1]}"
        if key not in right:
            found.append(Difference(what, "version", PRESENT, ABSENT))
        elif key not in left:
            found.append(Difference(what, "version", ABSENT, PRESENT))
        else:
            found += differences(left[key], right[key], what)
    return found


def edited_versions(before: Registry, after: Registry, on: date) -> list[Difference]:
    """Changes that may not be made: to what is in force on a day, under which months are listed.

    A version that is not in force yet may change, and one may be added that begins later.
    """
    return [
        found
        for found in versions(before, after)
        if date.fromisoformat(found.what.split()[1]) <= on
    ]


def _by_version(registry: Registry) -> dict[tuple[str, str], ContractSpec]:
    return {(spec.product, str(spec.effective)): spec for spec in registry.specs}


def _fields(thing: ContractSpec | Listed) -> dict[str, str]:
    return dict(_flat("", msgspec.to_builtins(thing)))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and {*value} == {"year", "month"}:
        yield name, f"{value['year']:04d}-{value['month']:02d}"
    elif isinstance(value, dict):
        for field, part in value.items():
            yield from _flat(f"{name}.{field}".lstrip("."), part)
    elif value is not None:
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
