"""One contract file: TOML text to contract specs, or every fault in it.

A file holds ``product`` and ``name``, then a ``[[version]]`` table per version. Each field has one
rule, in the table below; a few rules join two fields. Nothing is guessed: an unknown field is a
fault, a missing field is a fault, and a number is never taken for another kind of number.
"""

import tomllib
from collections.abc import Callable
from datetime import date
from typing import Any, Final, NamedTuple

from contracts import symbol
from contracts.calendar import Month
from contracts.decimal_text import DecimalTextError, parse_price
from contracts.spec import PAR_FACTOR, ContractSpec, tick_decimals

FILE_BYTES_MAX: Final = 65_536
_SHOWN_CHARS: Final = 60
_FACTOR_DECIMALS: Final = 4
_LOTS_MAX: Final = (1 << 31) - 1  # one order's quantity in the engine
_FEE_MAX: Final = 1 << 32


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


class Rule(NamedTuple):
    """What a field must be: its TOML type, a sentence, a test, and how its value is read."""

    type: type
    rule: str
    test: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


def _number(low: int, high: int) -> Rule:
    return Rule(int, f"must be a whole number from {low} to {high}", lambda n: low <= n <= high)


def _factor(text: str) -> int:
    return parse_price(text, _FACTOR_DECIMALS)


def _is(read: Callable[[str], Any]) -> Callable[[str], bool]:
    """Whether a text can be read; every reader here raises ValueError where it cannot."""

    def test(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return test


def _is_factor(text: str) -> bool:
    try:
        return PAR_FACTOR // 2 <= _factor(text) <= PAR_FACTOR * 2
    except DecimalTextError:
        return False


_TEXT: Final = Rule(
    str,
    "must be a line of 1 to 200 printable ASCII characters",
    lambda text: 1 <= len(text) <= 200 and text.isascii() and text.isprintable(),
)
_FACTOR: Final = Rule(
    str, 'must be a factor from "0.5000" to "2.0000", four decimals at most', _is_factor, _factor
)
_HEAD: Final = {
    "product": Rule(
        str, f"must be one of {', '.join(symbol.ROOTS)}", lambda text: text in symbol.ROOTS
    ),
    "name": _TEXT,
}
_VERSION: Final = {
    "effective": Rule(date, "must be a date", lambda day: True),
    "first_expiry": Rule(str, 'must be a month such as "2026-12"', _is(Month.parse), Month.parse),
    "listed_months": _number(1, 60),
    "contract_size": _number(1, 1_000),
    "tick": Rule(str, 'must be a power of ten from "0.000001" to "0.1"', _is(tick_decimals)),
    "price_step": _number(1, 1_000),
    "lot_step": _number(1, 1_000),
    "limit_percent": _number(1, 99),
    "margin_percent": _number(1, 100),
    "position_limit": _number(1, _LOTS_MAX),
    "max_order": _number(1, _LOTS_MAX),
    "maker_fee": _number(-_FEE_MAX, _FEE_MAX),
    "taker_fee": _number(-_FEE_MAX, _FEE_MAX),
    "gpu": _TEXT,
    "fabric": _TEXT,
    "cluster": _TEXT,
    "settlement": _TEXT,
    "factor_low": _FACTOR,
    "factor_high": _FACTOR,
}


def read_file(name: str, content: bytes) -> tuple[list[ContractSpec], list[Fault]]:
    """The versions without fault in one file, and every fault.

    Raises ValueError or RecursionError, as ``tomllib.loads`` does, for what is no TOML at all.
    """
    if len(content) > FILE_BYTES_MAX:
        rule = f"must be at most {FILE_BYTES_MAX} bytes"
        return [], [Fault(name, "", f"{len(content)} bytes", rule)]
    table = tomllib.loads(content.decode("utf-8"))
    versions = table.pop("version", None)
    head, faults = _read_table(name, "", table, _HEAD)
    product = head.get("product")
    if product is not None and name != f"{product.lower()}.toml":
        # So no two files can hold one product.
        faults.append(Fault(name, "product", _shown(product), f"must be in {product.lower()}.toml"))
    if not isinstance(versions, list) or not versions:
        faults.append(Fault(name, "version", "", "must be one or more [[version]] tables"))
        versions = []
    specs = []
    for number, version in enumerate(versions, start=1):
        spec, found = _read_version(name, f"version {number}", version, head)
        faults += found
        if spec is not None:
            specs.append(spec)
    return specs, faults


def _read_version(
    file: str, place: str, table: object, head: dict[str, Any]
) -> tuple[ContractSpec | None, list[Fault]]:
    if not isinstance(table, dict):
        return None, [Fault(file, place, _shown(table), "must be a table")]
    values, faults = _read_table(file, f"{place}, ", table, _VERSION)
    faults += [
        Fault(file, f"{place}, {field}", _shown(table[field]), rule)
        for field, rule in _joint_faults(values)
    ]
    if faults or len(head) < len(_HEAD):
        return None, faults
    return ContractSpec(**head, **values), []


def _read_table(
    file: str, place: str, table: dict[str, Any], rules: dict[str, Rule]
) -> tuple[dict[str, Any], list[Fault]]:
    """The values that keep their rules, and the faults of all others."""
    values: dict[str, Any] = {}
    faults = [
        Fault(file, f"{place}{_key(field)}", _shown(table[field]), "is not a known field")
        for field in table
        if field not in rules
    ]
    for field, rule in rules.items():
        if field not in table:
            faults.append(Fault(file, f"{place}{field}", "", f"is missing: it {rule.rule}"))
            continue
        value = table[field]
        # The exact type: true is not 1, 1.0 is not 1, and a moment is not a date.
        if type(value) is not rule.type or not rule.test(value):
            faults.append(Fault(file, f"{place}{field}", _shown(value), rule.rule))
            continue
        values[field] = rule.read(value)
    return values, faults


def _joint_faults(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Faults between two fields, where both keep their own rules."""
    pairs: list[tuple[str, str, Callable[[Any, Any], bool], str]] = [
        ("first_expiry", "effective", lambda month, day: month >= Month.of(day),
         "must not end before the version is effective"),
        ("max_order", "position_limit", lambda order, limit: order <= limit,
         "must not be above position_limit"),
        ("max_order", "lot_step", lambda order, step: order % step == 0,
         "must be a multiple of lot_step"),
        ("maker_fee", "taker_fee", lambda maker, taker: maker + taker >= 0,
         "must not be a rebate above taker_fee"),
        ("factor_low", "factor_high", lambda low, high: low <= PAR_FACTOR <= high,
         "and factor_high must have 1.0000 between them"),
    ]  # fmt: skip
    return [
        (field, rule)
        for field, other, keeps, rule in pairs
        if field in values and other in values and not keeps(values[field], values[other])
    ]


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number too long to show"
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _key(field: str) -> str:
    return field if field.isidentifier() and field.isascii() else _shown(field)
