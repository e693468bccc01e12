"""Types of the auction's rule. What it does: call.pyx and docs/reference/engine.md."""

from collections.abc import Collection

def clearing_price(
    bids: Collection[tuple[int, int]],
    asks: Collection[tuple[int, int]],
    market_buy: int,
    market_sell: int,
    reference: int | None = None,
    reference_is_candidate: bool = False,
    band_bp: int | None = None,
) -> tuple[int | None, int, int]: ...
