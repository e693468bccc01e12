"""Read one contract file: TOML text to contract specs, or every fault in it.

A file holds ``product``, ``name`` and ``settlement``, then one ``[[version]]`` per version with a
table for each part of the terms. Each field has one rule, in the tables below. A few rules concern
two fields, and some codes must exist in other files of ``data/`` (contracts.references).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from contracts import cycle, symbol
from contracts.calendar import CalendarError, Month, clock_time
from contracts.decimal_text import parse_price
from contracts.references import References
from contracts.rules import (
    DATE,
    FACTOR_DECIMALS,
    TEXT,
    Fault,
    Rule,
    number,
    one_of,
    read_table,
    read_toml,
    readable,
    shown,
)
from contracts.spec import (
    CASH,
    LISTED_MONTHS_MAX,
    PAR_FACTOR,
    PHYSICAL,
    PHYSICAL_MONTHS_MAX,
    ContractSpec,
    Schedule,
    tick_decimals,
)

_LOTS_MAX: Final = (1 << 31) - 1  # maximum quantity of one order in the engine
_FEE_MAX: Final = 1 << 32
_MONEY_MAX: Final = 1 << 60  # maximum amount in the engine, in micro-dollars
# In millionths of a dollar, far above any price of a GPU-hour so far
_PRICE_MAX: Final = 1_000_000_000
_HOURS_MAX: Final = 744  # maximum of a month
_GPUS_MAX: Final = 1_000_000
_DAYS_MAX: Final = 20  # business days before delivery
_COMBINATIONS: Final = ("spread", "quarter", "year")


def _factor(low: int, high: int) -> Rule:
    """Return the rule for a decimal text at 1e-4 within bounds."""

    def read(text: str) -> int:
        value = parse_price(text, FACTOR_DECIMALS)
        if not low <= value <= high:
            raise ValueError(f"{text} is out of range")
        return value

    bounds = f'"{low / PAR_FACTOR:.4f}" to "{high / PAR_FACTOR:.4f}"'
    return readable(str, f"must be a factor from {bounds}, four decimals at most", read)


def _words(text: str, known: Callable[[Any], bool]) -> Rule:
    """Return the rule for a list of different texts, each of a known form."""

    def test(words: list[Any]) -> bool:
        return all(isinstance(w, str) and known(w) for w in words) and len(set(words)) == len(words)

    return Rule(list, text, test, tuple)


_CODE: Final = readable(str, "must be a code of 1 to 48 characters", lambda text: _code(text))
_CLOCK: Final = Rule(
    str, 'must be a time of day such as "16:00"', readable(str, "", clock_time).test
)
_TICK: Final = Rule(
    str,
    'must be a power of ten from "0.000001" to "0.1"',
    readable(str, "", tick_decimals).test,
)


def _code(text: str) -> str:
    if not 1 <= len(text) <= 48 or not text.isascii() or not text.isprintable():
        raise ValueError("not a code")
    return text


_HEAD: Final = {
    "product": one_of(*symbol.PRODUCTS),
    "name": TEXT,
    "settlement": one_of(CASH, PHYSICAL),
}
_VERSION: Final = {
    "effective": DATE,
    "first_expiry": readable(str, 'must be a month such as "2026-12"', Month.parse),
    "calendar": _CODE,
}
_GROUPS: Final = {
    "listing": {
        "listed_months": number(1, LISTED_MONTHS_MAX),
        "opened_months": number(0, LISTED_MONTHS_MAX),
        "combinations": _words(
            f"must be a list of {', '.join(_COMBINATIONS)}, or empty",
            lambda word: word in _COMBINATIONS,
        ),
    },
    "lot": {
        "contract_size": number(1, 1_000),
        "tick": _TICK,
        "price_step": number(1, 1_000),
        "lot_step": number(1, 1_000),
        "max_order": number(1, _LOTS_MAX),
    },
    "grade": {
        "hardware": _CODE,
        "gpu": TEXT,
        "fabric": TEXT,
        "node_gpus": number(1, 1_024),
        "cluster_low": number(1, _GPUS_MAX),
        "cluster_high": number(1, _GPUS_MAX),
        "grades": _words("must be a list of different codes", lambda word: bool(word)),
        "factor_low": _factor(PAR_FACTOR // 2, PAR_FACTOR * 2),
        "factor_high": _factor(PAR_FACTOR // 2, PAR_FACTOR * 2),
    },
    "protection": {
        "limit_percent": number(1, 99),
        "band_percent": number(1, 99),
        "order_value_limit": number(1, _MONEY_MAX // 1_000_000),
        "accountability_level": number(1, _LOTS_MAX),
        "position_limit": number(1, _LOTS_MAX),
        "all_months_limit": number(1, _LOTS_MAX),
        "spot_month_limit": number(1, _LOTS_MAX),
        "spot_supply_percent": number(1, 100),
    },
    "margin": {
        "margin_percent": number(1, 100),
        "spot_margin_percent": number(1, 100),
        "maintenance_percent": number(1, 100),
        "spread_percent": number(1, 100),
    },
    "fees": {
        "maker_fee": number(-_FEE_MAX, _FEE_MAX),
        "taker_fee": number(-_FEE_MAX, _FEE_MAX),
        "final_fee": number(0, _FEE_MAX),
    },
    "index": {"index": _CODE, "methodology": _CODE},
}
_SCHEDULE: Final = {field: number(1, _DAYS_MAX) for field in Schedule.__struct_fields__}
_DELIVERY: Final = {
    "notice_cutoff": _CLOCK,
    "delivery_step": number(1, _LOTS_MAX),
    "true_up_tolerance": _factor(0, PAR_FACTOR // 10),
    "goodput_floor": _factor(PAR_FACTOR // 2, PAR_FACTOR),
    "failure_percent": number(0, 100),
}
_PHYSICAL_GROUPS: Final = {"schedule": _SCHEDULE, "delivery": _DELIVERY}
_GROUP_OF: Final = {
    field: group for group, rules in (_GROUPS | _PHYSICAL_GROUPS).items() for field in rules
}

Keeps = Callable[[Any, Any], bool]


def _at_most(low: Any, high: Any) -> bool:
    return bool(low <= high)


# (field, other field, condition, rule in words): checked if both fields are valid by themselves.
_PAIRS: Final[list[tuple[str, str, Keeps, str]]] = [
    ("first_expiry", "effective", lambda month, day: month >= Month.of(day),
     "must not end before the version is effective"),
    ("opened_months", "listed_months", _at_most, "must not be above listed_months"),
    ("max_order", "position_limit", _at_most, "must not be above position_limit"),
    ("max_order", "lot_step", lambda order, step: order % step == 0,
     "must be a multiple of lot_step"),
    ("spot_month_limit", "position_limit", _at_most, "must not be above position_limit"),
    ("position_limit", "all_months_limit", _at_most, "must not be above all_months_limit"),
    ("accountability_level", "position_limit", _at_most, "must not be above position_limit"),
    ("contract_size", "position_limit",
     lambda size, lots: size * lots * _HOURS_MAX * _PRICE_MAX <= _MONEY_MAX,
     "must keep a position of position_limit at $1,000 a GPU-hour within 2**60 micro-dollars"),
    ("band_percent", "limit_percent", _at_most, "must not be above limit_percent"),
    ("margin_percent", "spot_margin_percent", _at_most, "must not be above spot_margin_percent"),
    ("maker_fee", "taker_fee", lambda maker, taker: maker + taker >= 0,
     "must not be a rebate above taker_fee"),
    ("factor_low", "factor_high", lambda low, high: low <= PAR_FACTOR <= high,
     "and factor_high must have 1.0000 between them"),
    ("cluster_low", "cluster_high", _at_most, "must not be above cluster_high"),
    ("node_gpus", "cluster_low", _at_most, "must not be above cluster_low"),
    ("factors_frozen", "factors_published", lambda frozen, published: frozen < published,
     "must be fewer days than factors_published"),
    ("first_notice", "factors_frozen", lambda notice, frozen: notice < frozen,
     "must be fewer days than factors_frozen"),
    ("last_trading", "first_notice", _at_most, "must not be more days than first_notice"),
    ("last_notice", "last_trading", _at_most, "must not be more days than last_trading"),
    ("delivery_step", "lot_step", lambda delivery, step: delivery % step == 0,
     "must be a multiple of lot_step"),
]  # fmt: skip


def read_file(
    name: str, content: bytes, references: References
) -> tuple[list[ContractSpec], list[Fault]]:
    """Return the versions without fault in one file, and every fault."""
    table, faults = read_toml(name, content)
    if faults:
        return [], faults
    versions = table.pop("version", None)
    head, faults = read_table(name, "", table, _HEAD)
    product = head.get("product")
    if product is not None:
        faults += _head_faults(name, product, head.get("settlement"))
    if not isinstance(versions, list) or not versions:
        faults.append(Fault(name, "version", "", "must be one or more [[version]] tables"))
        versions = []
    specs: dict[int, ContractSpec] = {}
    for count, version in enumerate(versions, start=1):
        spec, found = _read_version(name, f"version {count}", version, head, references)
        faults += found
        if spec is not None:
            specs[count] = spec
    if specs:
        newest = max(specs, key=lambda count: specs[count].effective)
        spec = specs[newest]
        if rule := references.methodology_rule(spec.index, spec.methodology):
            place = f"version {newest}, index.methodology"
            faults.append(Fault(name, place, shown(spec.methodology), rule))
    if len(specs) == len(versions):
        faults += _later_faults(name, versions, specs, references)
    return list(specs.values()), faults


def _later_faults(
    file: str, tables: list[Any], specs: Mapping[int, ContractSpec], references: References
) -> list[Fault]:
    """Return faults of versions that disagree with rules for factors which begin during their
    months."""
    faults = []
    for count, spec in specs.items():
        after = [s.first_expiry for s in specs.values() if s.effective > spec.effective]
        values = msgspec.structs.asdict(spec)
        if spec.schedule is None:
            values = {field: values[field] for field in values if field not in _DELIVERY}
        else:
            values |= msgspec.structs.asdict(spec.schedule)
        for field, rule in references.later_faults(values, str(min(after)) if after else ""):
            value = tables[count - 1][_GROUP_OF[field]][field]
            faults.append(Fault(file, f"version {count}, {_place(field)}", shown(value), rule))
    return faults


def _place(field: str) -> str:
    """Return the position of a field in a version's tables."""
    group = _GROUP_OF.get(field)
    return f"{group}.{field}" if group else field


def file_name(product: str) -> str:
    """Return the only file name that may hold a product, so that no two files can define it."""
    return f"{product.lower()}.toml"


def _head_faults(name: str, product: str, settlement: str | None) -> list[Fault]:
    faults = []
    if name != file_name(product):
        rule = f"must be in {file_name(product)}"
        faults.append(Fault(name, "product", shown(product), rule))
    physical = product not in symbol.ROOTS
    if settlement is not None and (settlement == PHYSICAL) != physical:
        rule = f"must be {PHYSICAL if physical else CASH} for {product}"
        faults.append(Fault(name, "settlement", shown(settlement), rule))
    return faults


def _read_version(
    file: str, place: str, table: object, head: dict[str, Any], references: References
) -> tuple[ContractSpec | None, list[Fault]]:
    if not isinstance(table, dict):
        return None, [Fault(file, place, shown(table), "must be a table")]
    groups = dict(_GROUPS)
    if head.get("settlement") == PHYSICAL:
        groups |= _PHYSICAL_GROUPS
    flat = {field: value for field, value in table.items() if field not in groups}
    values, faults = read_table(file, f"{place}, ", flat, _VERSION)
    for group, rules in groups.items():
        part = table.get(group, {})
        if not isinstance(part, dict):
            faults.append(Fault(file, f"{place}, {group}", shown(part), "must be a table"))
            part = {}
        found, wrong = read_table(file, f"{place}, {group}.", part, rules)
        values |= found
        faults += wrong
        flat |= {field: value for field, value in part.items() if field in rules}
    faults += [
        Fault(file, f"{place}, {_place(field)}", shown(flat[field]), rule)
        for field, rule in _between(values, head) + references.faults(values)
    ]
    if faults or len(head) < len(_HEAD):
        return None, faults
    return _spec(file, place, head | values, references)


def _between(values: dict[str, Any], head: dict[str, Any]) -> list[tuple[str, str]]:
    """Return faults between two fields, each of which is valid by itself."""
    faults = [
        (field, rule)
        for field, other, keeps, rule in _PAIRS
        if field in values and other in values and not keeps(values[field], values[other])
    ]
    if {"delivery_step", "contract_size", "node_gpus"} <= values.keys() and (
        values["delivery_step"] * values["contract_size"] % values["node_gpus"]
    ):
        faults.append(("delivery_step", "must be whole nodes of node_gpus"))
    if head.get("settlement") == PHYSICAL and values.get("grades") == ():
        faults.append(("grades", "must name a grade that can be delivered"))
    if head.get("settlement") == PHYSICAL and values.get("listed_months", 1) > PHYSICAL_MONTHS_MAX:
        rule = (
            f"must be at most {PHYSICAL_MONTHS_MAX}: later months may get other rules for factors"
        )
        faults.append(("listed_months", rule))
    if head.get("settlement") == PHYSICAL and values.get("contract_size", 1) != 1:
        faults.append(("contract_size", "must be 1: what is delivered is counted a GPU a lot"))
    return faults


def _spec(
    file: str, place: str, values: dict[str, Any], references: References
) -> tuple[ContractSpec | None, list[Fault]]:
    """Return the spec of values without fault; a fault if its first days are outside the
    calendar."""
    counts = {field: values.pop(field) for field in _SCHEDULE if field in values}
    spec = ContractSpec(**values, schedule=Schedule(**counts) if counts else None)
    days = references.calendars[spec.calendar]
    if not symbol.FIRST_YEAR <= spec.first_expiry.year <= symbol.LAST_YEAR:
        rule = f"must be a month of {symbol.FIRST_YEAR} to {symbol.LAST_YEAR}, as codes have"
        return None, [Fault(file, f"{place}, first_expiry", shown(str(spec.first_expiry)), rule)]
    try:
        listed_on = cycle.listed_on([spec], spec.first_expiry, references.calendars)
        spec.instrument(spec.first_expiry, days, listed_on)
        cycle.front_month([spec], spec.effective, references.calendars)
    except CalendarError as error:
        return None, [
            Fault(file, f"{place}, effective", f"{spec.effective}", f"must have days: {error}")
        ]
    return spec, []
