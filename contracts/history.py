"""Price history behind the margin model; ``data/margin_history.toml`` names the sources.

A level is an integer in a unit of its own series: only ratios within one series are meaningful.
"""

from functools import cache
from importlib import resources
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from contracts.prices import Origin

_FILE: Final = "margin_history.toml"

Level = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Levels = Annotated[tuple[Level, ...], Meta(min_length=2, max_length=100_000)]


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One product's levels at equal steps of time."""

    series: str
    levels: Levels
    providers: int = 0  # the fewest behind any change; 0: not known


class Panel(Origin, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Series of one source at one step of time; series of different panels are never joined."""

    products: dict[str, Series]

    def __post_init__(self) -> None:
        if len({len(series.levels) for series in self.products.values()}) != 1:
            raise ValueError("the series of a panel must cover the same times")


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file: daily on-demand prices, and hourly offers of a marketplace."""

    daily: Panel
    hourly: Panel


def shipped() -> bytes:
    """Return the content of the shipped file."""
    return (resources.files("contracts") / "data" / _FILE).read_bytes()


def read(content: bytes) -> History:
    """Return the history in a file; raise msgspec.ValidationError or DecodeError if it is
    invalid."""
    return msgspec.toml.decode(content, type=History)


@cache
def load() -> History:
    """Return the history that ships with this package."""
    return read(shipped())
