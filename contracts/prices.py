"""Price figures behind the demo market: spot levels, intraday paths and an assumed forward curve.

``data/prices_2026.toml`` names the source and licence of each figure, and which of them are
assumptions. Prices are in ticks; ratios are integers at 1e-4.
"""

from datetime import date
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Annotated, Final

import msgspec
from msgspec import Meta

RATIO_ONE: Final = 10_000
PATH_POINTS: Final = 48  # half hours of a day
TICK_MICROS: Final = 1_000  # micro-dollars of a tick of these figures, whatever tick a contract has
_FILE: Final = "prices_2026.toml"

Ticks = Annotated[int, Meta(ge=1, le=1_000_000)]
Ratio = Annotated[int, Meta(ge=RATIO_ONE // 2, le=RATIO_ONE * 2)]
Path = Annotated[tuple[Ratio, ...], Meta(min_length=PATH_POINTS, max_length=PATH_POINTS)]
BasisPoints = Annotated[int, Meta(ge=-5_000, le=5_000)]


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The spot level of one product."""

    series: str
    providers: int
    level_ticks: Ticks


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The intraday price path of one product."""

    series: str
    ratios: Path


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where figures come from; ``attribution`` must be shown wherever they are."""

    source: str
    licence: str
    attribution: str
    first_day: date
    last_day: date


class Levels(Origin, frozen=True, kw_only=True, forbid_unknown_fields=True):
    products: dict[str, Level]


class Paths(Origin, frozen=True, kw_only=True, forbid_unknown_fields=True):
    products: dict[str, Shape]


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The assumed slope of the forward curve: the change from one month to the next."""

    assumption: str
    monthly_change_bp: dict[str, BasisPoints]


class PriceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Every product with a level has a curve; a path is optional."""

    levels: Levels
    paths: Paths
    curve: Curve

    def __post_init__(self) -> None:
        products = self.levels.products.keys()
        if products != self.curve.monthly_change_bp.keys() or self.paths.products.keys() - products:
            raise ValueError("levels and curve must name the same products, and paths no others")


@cache
def table() -> PriceTable:
    """Return the figures that ship with this package."""
    content = (resources.files("contracts") / "data" / _FILE).read_bytes()
    return msgspec.toml.decode(content, type=PriceTable)


def level(product: str) -> int:
    """Return a product's spot price in ticks; like the functions below, raise KeyError if
    unknown."""
    return table().levels.products[product].level_ticks


def path(product: str) -> tuple[int, ...]:
    """Return the intraday path: 48 half-hourly ratios to the day's median, at 1e-4, from 00:00
    UTC."""
    return table().paths.products[product].ratios


def forward_curve(product: str, months: int) -> list[int]:
    """Return prices of consecutive months in ticks; the first is the spot level.

    The later ones are an ASSUMPTION: each month is a fixed ratio of the one before. Each is rounded
    once, half to even, from the exact power.
    """
    ratio = _ratio(product)
    return [round(level(product) * ratio**month) for month in range(months)]


def following(product: str, before: Fraction | None) -> Fraction:
    """Return a month's price in micro-dollars per GPU-hour, unrounded, from that of the month
    ``before``.

    The first month of a product (``before`` None) has the spot level. Same ASSUMPTION as in
    forward_curve.
    """
    spot = Fraction(level(product) * TICK_MICROS)
    return spot if before is None else before * _ratio(product)


def _ratio(product: str) -> Fraction:
    return 1 + Fraction(table().curve.monthly_change_bp[product], RATIO_ONE)
