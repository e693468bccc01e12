"""The wiring: the only room that constructs a market out of the others.

``Market`` is the whole; ``requests`` says what its operator may ask, ``asking`` carries that to the
market and ``admin`` answers it, ``operations`` and ``wishes`` turn it into journalled commands.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exchange.app.market import Addresses as Addresses
    from exchange.app.market import Market as Market

__all__ = ["Addresses", "Market"]


def __getattr__(name: str) -> Any:
    """Import the market when it is asked for: who only asks one for something never needs it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from exchange.app import market  # noqa: PLC0415

    return getattr(market, name)
