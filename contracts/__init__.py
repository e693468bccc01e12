"""What is traded: contract specs, expiries, codes, calendars and the figures behind them.

Pure Python that reads only its own ``data/``. Start at ``registry.load()``.
"""

from contracts.sheets import sheet

__all__ = ["sheet"]
