"""What is traded: contract specifications, expiries, codes, calendars and the figures behind them.

Pure Python that reads only its own ``data/`` folder. Start at ``registry.load()``.
"""

from contracts.sheets import sheet

__all__ = ["sheet"]
