"""Validation of the files of ``data/``: every field has one rule, and every fault is reported.

A fault is a file, a field, a value and a rule. An unknown field is a fault, a missing field is a
fault, and no type of number is converted to another.
"""

import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

FILE_BYTES_MAX: Final = 65_536
TEXT_CHARS_MAX: Final = 200
FACTOR_DECIMALS: Final = 4  # conversion factors are integers at 1e-4
_SHOWN_CHARS: Final = 60

T = TypeVar("T")


class Fault(NamedTuple):
    """One reason to refuse a file."""

    file: str
    field: str
    value: str
    rule: str

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.field) if part)
        value = f"= {self.value}" if self.value else ""
        return " ".join(part for part in (place, value, self.rule) if part)


class FilesRefused(ValueError):
    """The files were refused as a whole; ``faults`` holds every reason."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))


class Rule(NamedTuple):
    """What a field must be: its TOML type, the rule in words, a test, and a conversion of its
    value."""

    kind: type
    rule: str
    test: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


def number(low: int, high: int) -> Rule:
    """Return the rule for a whole number within bounds, both included."""
    return Rule(int, f"must be a whole number from {low} to {high}", lambda n: low <= n <= high)


def one_of(*words: str) -> Rule:
    """Return the rule for one of a few words."""
    return Rule(str, f"must be one of {', '.join(words)}", lambda text: text in words)


def readable(kind: type, rule: str, read: Callable[[Any], Any]) -> Rule:
    """Return the rule for a value that ``read`` converts; it raises ValueError for any other."""

    def test(value: Any) -> bool:
        try:
            read(value)
        except ValueError:
            return False
        return True

    return Rule(kind, rule, test, read)


TEXT: Final = Rule(
    str,
    f"must be a line of 1 to {TEXT_CHARS_MAX} printable ASCII characters",
    lambda text: 1 <= len(text) <= TEXT_CHARS_MAX and text.isascii() and text.isprintable(),
)
DATE: Final = Rule(date, "must be a date", lambda day: True)


def read_toml(file: str, content: bytes) -> tuple[dict[str, Any], list[Fault]]:
    """Return the tables of a TOML file; a file that is too large or no TOML gives one fault."""
    if len(content) > FILE_BYTES_MAX:
        rule = f"must be at most {FILE_BYTES_MAX} bytes"
        return {}, [Fault(file, "", f"{len(content)} bytes", rule)]
    try:
        return tomllib.loads(content.decode("utf-8")), []
    except (ValueError, RecursionError) as error:
        return {}, [Fault(file, "", "", f"must be a TOML file: {error}")]


def read_table(
    file: str, place: str, table: Mapping[str, Any], rules: Mapping[str, Rule]
) -> tuple[dict[str, Any], list[Fault]]:
    """Return the valid values, and the faults of all others."""
    values: dict[str, Any] = {}
    faults = [
        Fault(file, f"{place}{key(field)}", shown(table[field]), "is not a known field")
        for field in table
        if field not in rules
    ]
    for field, rule in rules.items():
        if field not in table:
            faults.append(Fault(file, f"{place}{field}", "", f"is missing: it {rule.rule}"))
            continue
        value = table[field]
        # The exact type: true is not 1, 1.0 is not 1, and a date with a time is not a date.
        if type(value) is not rule.kind or not rule.test(value):
            faults.append(Fault(file, f"{place}{field}", shown(value), rule.rule))
            continue
        values[field] = rule.read(value)
    return values, faults


def entries(
    tables: Mapping[str, Mapping[str, Any]], kind: type[T], place: str = ""
) -> dict[str, T]:
    """Return a file's tables converted to ``kind``, by name; ValueError names the first faulty
    one."""
    found = {}
    for name, table in tables.items():
        try:
            found[name] = msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            raise ValueError(f"{place}{key(name)}: {error}") from error
    return found


def shown(value: object) -> str:
    """Return a value as a fault shows it: short and printable whatever it holds."""
    try:
        text = ascii(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number too long to show"
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def key(field: str) -> str:
    """Return a field's name as a fault shows it."""
    return field if field.isidentifier() and field.isascii() else shown(field)
