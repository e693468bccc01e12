"""Compare two specs, expiries, registries or sets of files: the fields that differ."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final

import msgspec

from contracts import references, registry
from contracts.registry import Registry, RegistryError
from contracts.rules import read_toml
from contracts.spec import ContractSpec, Listed

PRESENT: Final = "present"
ABSENT: Final = "absent"


class Difference(msgspec.Struct, frozen=True):
    """One field that differs. ``what`` names the object it belongs to; empty if only one is
    compared."""

    what: str
    field: str
    before: str
    after: str


def differences(
    before: ContractSpec | Listed, after: ContractSpec | Listed, what: str = ""
) -> list[Difference]:
    """Return the fields that differ, in their order; a field that only one of the two has differs
    too."""
    return _unlike(_fields(before), _fields(after), what)


def _unlike(left: Mapping[str, str], right: Mapping[str, str], what: str) -> list[Difference]:
    return [
        Difference(what, field, left.get(field, ""), right.get(field, ""))
        for field in dict.fromkeys([*left, *right])
        if left.get(field) != right.get(field)
    ]


def versions(before: Registry, after: Registry) -> list[Difference]:
    """Return what changed between two registries, version by version of every product."""
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


def files(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[Difference]:
    """Return what changed between two sets of contract files, each given as name and content.

    Products are compared version by version, the files they refer to field by field. Raises
    RegistryError for files that are refused.
    """
    found = versions(_specs(before), _specs(after))
    for name in references.FILES:
        if (name in before) != (name in after):
            there = [PRESENT if name in one else ABSENT for one in (before, after)]
            found.append(Difference(name, "file", *there))
        elif name in before:
            left, right = _table(name, before), _table(name, after)
            found += _unlike(left, right, name)
    return found


def _specs(contents: Mapping[str, bytes]) -> Registry:
    """Return the registry of the files; an empty one if there is no product file among them."""
    if set(contents) <= set(references.FILES):
        return Registry((), {}, {})
    return registry.read(contents)


def _table(name: str, contents: Mapping[str, bytes]) -> dict[str, str]:
    table, faults = read_toml(name, contents[name])
    if faults:
        raise RegistryError(faults)
    return dict(_flat("", table))


def edited_versions(before: Registry, after: Registry, on: date) -> list[Difference]:
    """Return forbidden changes: those to versions in force on a day, because months are listed by
    them.

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
    elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        for place, part in enumerate(value, start=1):
            yield from _flat(f"{name} {place}", part)
    elif isinstance(value, list) and value and all(isinstance(part, date) for part in value):
        yield from ((f"{name} {day}", PRESENT) for day in value)
    elif value is not None:
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
