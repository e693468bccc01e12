"""Calibration of margin parameters from price history and the contracts' terms.

A product's scan range is computed in these steps:

    model          ``model.filtered`` over weeks at 99 %, at least the same weeks unfiltered
    stress         a quarter of the weight on the largest weeks of the hourly series
    floors         at least one daily limit move and the contract's own least margin
    buffer         a quarter on top, used up when the model rises (``rules.buffered``)

A product without a history takes the largest figures of those with one. Parameters without data,
since no forward prices, bids or volumes of compute are public, are chosen: see CHOSEN.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from hashlib import blake2b
from itertools import combinations
from typing import Final, NamedTuple

import msgspec

from contracts import prices
from contracts.history import History
from contracts.spec import ContractSpec
from contracts.symbol import PHYSICAL_SUFFIX
from exchange.clearing.margin import model, rules
from exchange.clearing.margin.parameters import (
    Band,
    MarginParameters,
    Offset,
    ProductMargin,
)

CONFIDENCE_BP: Final = 9_900
WEEK_DAYS: Final = 7  # of daily prices: five business days, the margin period
WEEK_HOURS: Final = 7 * 24
STRESS_PERCENT: Final = 25
STRESS_MOST_BP: Final = 4_000  # larger stresses are covered by the default fund
BUFFER_BP: Final = 2_500
REBUILD_BP: Final = 100  # of the model, at each new version
CHOSEN: Final = {
    "spread_bp": "the contract's spread_percent: no forward prices are public",
    "delivery_bp": "the contract's spot_margin_percent less its margin_percent",
    "delivery_spread_bp": "half of delivery_bp",
    "liquidity_bp": "a twentieth of the daily limit: no bids are public",
    "daily_volume": "without a market's own volume: the contract's position limit",
    "participation_percent": "25: a close-out may be a quarter of the day's volume",
}
NOTICE_DAYS: Final = 10  # of physical products: covers their notice period before the month
_LIQUIDITY_SHARE: Final = 20
_PARTICIPATION: Final = 25
_RATIO_MOST: Final = 8


class Proposal(NamedTuple):
    """The steps to one product's scan range; ``_bp`` is at 1e-4 of a lot's value."""

    product: str
    source: str  # product of the series; empty: the largest figures of the others
    weeks: int  # overlapping weeks in the history
    plain_bp: int  # unfiltered
    filtered_bp: int
    stress_bp: int
    blended_bp: int
    floor_bp: int
    model_bp: int  # before the buffer
    charged_bp: int


class Pair(NamedTuple):
    """Two products' measured correlation over weeks, its lower bound, and the credit for it: none
    if one of them has no price level, since lots of unknown value have no ratio."""

    a: str
    b: str
    correlation: float
    least: float
    percent: int


class Calibration(NamedTuple):
    """The proposed parameters, and the figures behind them."""

    parameters: MarginParameters
    proposals: tuple[Proposal, ...]
    pairs: tuple[Pair, ...]


def calibrate(
    specs: Mapping[str, ContractSpec],
    history: History,
    content: bytes,
    *,
    effective: int,
    before: MarginParameters | None = None,
    volumes: Mapping[str, int] | None = None,
) -> Calibration:
    """Propose the version after ``before``, in force from ``effective`` (yyyymmdd).

    ``specs`` are by product; ``content`` is the history's file content, for the hash of the inputs;
    ``volumes`` are lots per day by product, as far as they are known. ValueError for a history that
    has no whole week.
    """
    volumes, levels = volumes or {}, _levels()
    for panel, week in ((history.daily, WEEK_DAYS), (history.hourly, WEEK_HOURS)):
        for name, series in panel.products.items():
            if len(series.levels) <= week:
                raise ValueError(f"{name} has {len(series.levels)} levels, {week + 1} are a week")
    proposals = tuple(
        _propose(spec, history, _charged(before, product))
        for product, spec in sorted(specs.items())
    )
    pairs = tuple(_pairs(specs, history))
    values = {
        p.product: specs[p.product].contract_size * levels[p.product] * p.charged_bp
        for p in proposals
        if p.product in levels
    }
    parameters = MarginParameters(
        version=before.version + 1 if before else 1,
        effective=effective,
        inputs_hash=_inputs_hash(content, specs, volumes, levels, before),
        products=tuple(_margin(specs[p.product], p, volumes.get(p.product, 0)) for p in proposals),
        offsets=tuple(_offset(pair, values) for pair in pairs if pair.percent),
    )
    return Calibration(parameters, proposals, pairs)


def _series(spec: ContractSpec) -> str:
    """The product whose history applies: cash and physical products share one."""
    return spec.product.removesuffix(PHYSICAL_SUFFIX)


def _charged(before: MarginParameters | None, product: str) -> int | None:
    """The scan range charged by ``before``; None if it has none."""
    if before is None or product not in {found.product for found in before.products}:
        return None
    return before.of(product).bands[0].scan_bp


def _figures(product: str, history: History) -> tuple[int, int, int, int]:
    """(weeks, plain, filtered, stress) of a product with a history; the last three in bp."""
    moves = model.changes(history.daily.products[product].levels)
    plain = model.scan_bp(model.over(moves, WEEK_DAYS), CONFIDENCE_BP)
    filtered = model.scan_bp(model.filtered(moves, WEEK_DAYS), CONFIDENCE_BP)
    wild = history.hourly.products.get(product)
    weeks = [] if wild is None else [model.over(model.changes(wild.levels), WEEK_HOURS)]
    stress = max((model.scan_bp(moves, CONFIDENCE_BP) for moves in weeks), default=0)
    return len(moves) - WEEK_DAYS + 1, plain, filtered, min(stress, STRESS_MOST_BP)


def _propose(spec: ContractSpec, history: History, charged: int | None) -> Proposal:
    own = _series(spec) in history.daily.products
    names = [_series(spec)] if own else sorted(history.daily.products)
    weeks, plain, filtered, stress = map(
        max, zip(*(_figures(n, history) for n in names), strict=True)
    )
    blended = rules.stressed(max(plain, filtered), stress, STRESS_PERCENT)
    floor = max(spec.limit_percent, spec.margin_percent) * rules.BP // rules.PERCENT
    modelled = rules.floored(blended, floor)
    return Proposal(
        product=spec.product,
        source=names[0] if own else "",
        weeks=weeks,
        plain_bp=plain,
        filtered_bp=filtered,
        stress_bp=stress,
        blended_bp=blended,
        floor_bp=floor,
        model_bp=modelled,
        charged_bp=rules.buffered(modelled, charged, BUFFER_BP, REBUILD_BP),
    )


def _margin(spec: ContractSpec, proposal: Proposal, volume: int) -> ProductMargin:
    one = rules.BP // rules.PERCENT
    delivery = max(0, spec.spot_margin_percent - spec.margin_percent) * one
    return ProductMargin(
        product=spec.product,
        bands=(Band(months=0, scan_bp=proposal.charged_bp),),
        floor_bp=proposal.floor_bp,
        spread_bp=min(spec.spread_percent * one, proposal.charged_bp),
        delivery_bp=delivery,
        delivery_spread_bp=delivery // 2,
        liquidity_bp=spec.limit_percent * one // _LIQUIDITY_SHARE,
        daily_volume=volume or spec.position_limit,
        participation_percent=_PARTICIPATION,
        maintenance_percent=spec.maintenance_percent or rules.PERCENT,
        notice_days=NOTICE_DAYS if spec.physical else 0,
        averaged=not spec.physical,
    )


def _pairs(specs: Mapping[str, ContractSpec], history: History) -> Iterable[Pair]:
    """Every pair of products with histories of their own. Cash and physical products are never a
    pair, since they share a history."""
    moves = {p: model.changes(s.levels) for p, s in sorted(history.daily.products.items())}
    levels = _levels()
    for a, b in combinations([p for p in moves if p in specs and _is_cash(p)], 2):
        found, least = model.correlation(moves[a], moves[b], WEEK_DAYS)
        known = a in levels and b in levels
        yield Pair(a, b, found, least, model.credit_percent(least) if known else 0)


def _is_cash(product: str) -> bool:
    return not product.endswith(PHYSICAL_SUFFIX)


def _levels() -> dict[str, int]:
    """The price levels of ``contracts.prices`` in ticks, by product."""
    return {name: one.level_ticks for name, one in prices.table().levels.products.items()}


def _offset(pair: Pair, values: Mapping[str, int]) -> Offset:
    """An offset in lots by the inverse ratio of their scans in money, in small integers; ``values``
    are these scans, in any one unit."""
    ratio = Fraction(values[pair.b], values[pair.a])
    near = max(ratio, 1 / ratio).limit_denominator(_RATIO_MOST)
    more, fewer = min(near.numerator, 1_000), near.denominator
    a, b = (more, fewer) if ratio > 1 else (fewer, more)
    return Offset(a=pair.a, b=pair.b, ratio_a=a, ratio_b=b, percent=pair.percent)


def _inputs_hash(
    content: bytes,
    specs: Mapping[str, ContractSpec],
    volumes: Mapping[str, int],
    levels: Mapping[str, int],
    before: MarginParameters | None,
) -> str:
    """The BLAKE2b-256 (hex) of all inputs of the proposal."""
    parts = [
        content,
        *(msgspec.json.encode(spec) for _, spec in sorted(specs.items())),
        msgspec.json.encode(dict(sorted(volumes.items()))),
        msgspec.json.encode(dict(sorted(levels.items()))),
        b"" if before is None else before.to_json().encode(),
    ]
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
