"""Builds a market out of the other rooms; the only room that does.

``Market`` is the whole. ``requests`` defines what an operator may ask for, ``asking`` carries a
request to the market and ``admin`` answers it; ``operations`` and ``wishes`` turn it into
journalled commands.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exchange.app.market import Addresses as Addresses
    from exchange.app.market import Market as Market

__all__ = ["Addresses", "Market"]


def __getattr__(name: str) -> Any:
    """Import the market on first use: code that only sends requests does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from exchange.app import market  # noqa: PLC0415

    return getattr(market, name)
