"""A product's documentation page, generated from its specification."""

from collections.abc import Sequence
from datetime import date

from contracts.registry import Registry
from contracts.sheets import Row, grade_rows, protection_rows, rows_text, settlement_rule, sheet
from contracts.spec import Combination, ContractSpec, Instrument

_EXAMPLES = 3  # combinations shown of each kind


def product_sheet(registry: Registry, product: str, on: date) -> str:
    """Return the template in force on a day, with its index: what all its expiries share."""
    spec = registry.spec(product, on)
    gpus = f"{spec.contract_size} GPU{'s' * (spec.contract_size > 1)}"
    opened = f"{spec.opened_months} of them" if spec.opened_months else "not"
    rows: list[Row] = [
        ("settlement", settlement_rule(spec)),
        ("listing", f"{spec.listed_months} consecutive months, {opened} opened by a new market"),
        ("combinations", ", ".join(spec.combinations) or "none"),
        ("one lot", f"{gpus} for every hour of the delivery month, UTC"),
        ("price", f"{spec.unit}, tick ${spec.tick}, in steps of {spec.price_step}"),
        ("last trading day", _last_trading(spec)),
        *grade_rows(spec),
        *protection_rows(spec),
        *_index_rows(registry, spec),
        ("in force", f"from {spec.effective}, for {spec.first_expiry} and later"),
    ]
    return rows_text(f"{product}: {spec.name}", rows)


def page(registry: Registry, product: str, on: date) -> str:
    """Return the product's page in Markdown: its template, the listing cycle of a day, an
    example."""
    spec = registry.spec(product, on)
    days = registry.days(spec)
    cycle = [listed for listed in registry.listing(on) if listed.product == product]
    combined = [listed for listed in registry.combinations(on) if listed.product == product]
    example = next((listed for listed in cycle if listed.listed_on), cycle[0])
    parts = [
        f"# {product}",
        f"{spec.name}. Made by `hourbook contracts pages` from"
        f" `contracts/data/{product.lower()}.toml` and the files it refers to;"
        " [what the fields mean](../contracts.md).",
        _block(product_sheet(registry, product, on)),
        f"## Expiries listed on {on}",
        _table(*_cycle_table(cycle, physical=spec.physical)),
        "## Combinations",
        _table(*_combination_table(combined)),
        f"{len(combined)} are listed on {on}: every pair of consecutive months, and every quarter"
        " and calendar year of which all months are listed.",
        f"## One expiry: {example.code}",
        _block(sheet(example, days)),
    ]
    return "\n\n".join(parts) + "\n"


def _last_trading(spec: ContractSpec) -> str:
    if spec.schedule is None:
        return "the last business day of the delivery month"
    counts = spec.schedule
    return (
        f"{counts.last_trading} business days before the first delivery day; factors published"
        f" {counts.factors_published}, frozen {counts.factors_frozen}; notices from"
        f" {counts.first_notice} to {counts.last_notice}"
    )


def _index_rows(registry: Registry, spec: ContractSpec) -> list[Row]:
    rows = [("index", f"{spec.index}, methodology {spec.methodology}")]
    facts = registry.indices.get(spec.index)
    if facts is not None:
        rows += [
            ("measures", facts.good),
            ("administrator", facts.administrator),
            ("data sufficiency", facts.data_sufficiency),
            ("transition", facts.transition_policy),
        ]
    return rows


def _cycle_table(
    cycle: Sequence[Instrument], *, physical: bool
) -> tuple[list[str], list[list[str]]]:
    heads = ["code", "delivery", "hours", "listed", "last trading day", "final settlement"]
    fields = ["listed_on", "last_trading_day", "final_settlement_day"]
    if physical:
        heads += ["factors published", "frozen", "first notice", "last notice"]
        fields += ["factors_published", "factors_frozen", "first_notice_day", "last_notice_day"]
    rows = [
        [one.code, one.expiry, str(one.multiplier), *(str(getattr(one, f)) for f in fields)]
        for one in cycle
    ]
    return heads, rows


def _combination_table(
    combined: Sequence[Combination],
) -> tuple[list[str], list[list[str]]]:
    rows = []
    for kind in dict.fromkeys(one.kind for one in combined):
        of_kind = [one for one in combined if one.kind == kind]
        codes = [one.code for one in of_kind[:_EXAMPLES]]
        more = ", ..." if len(of_kind) > _EXAMPLES else ""
        rows.append([kind, str(len(of_kind)), ", ".join(f"`{code}`" for code in codes) + more])
    return ["kind", "listed", "codes"], rows


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _block(text: str) -> str:
    return f"```\n{text}```"
