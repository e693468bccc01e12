"""The wiring: the only room that constructs a market out of the others.

``Market`` is the whole; ``requests`` says what its operator may ask, ``admin`` carries that over
the data directory's Unix socket, ``operations`` and ``wishes`` turn it into journalled commands.
"""

from exchange.app.market import Addresses, Market

__all__ = ["Addresses", "Market"]
