"""Margin parameters before they are recorded: parsing and checks.

Clearing checks the parameters in the log again. The checks here give the operator an immediate
answer, and add one that needs the contracts' terms: at least one daily limit move.
"""

from collections.abc import Mapping

import msgspec

from contracts.spec import Instrument as Terms
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.clearing.margin.parameters import (
    Found,
    MarginFault,
    MarginParameters,
    fault,
    root_of,
)
from exchange.clearing.margin.rules import BP, PERCENT


def read(text: str) -> MarginParameters:
    """Return the parameters in a file's text. RequestRefused."""
    try:
        return msgspec.json.decode(text, type=MarginParameters)
    except msgspec.DecodeError as error:
        raise RequestRefused(f"these are no margin parameters: {error}") from error


def judge(
    new: MarginParameters, clearing: Clearing, terms: Mapping[str, Terms], business_date: int
) -> bool:
    """Whether the parameters are to be recorded; False if they are adopted already.

    RequestRefused with the fault's number and name if they may not follow those in force.
    """
    adopted = clearing.margin_versions()
    if new in adopted:
        return False
    version = adopted[-1].version if adopted else 0
    found = fault(new, version, business_date, {root_of(code) for code in terms} - {""})
    found = found or _below_limit_move(new, terms)
    if found is not None:
        raise RequestRefused(f"margin parameters {new.version}: {found}")
    return True


def _below_limit_move(new: MarginParameters, terms: Mapping[str, Terms]) -> Found | None:
    for product in new.products:
        moves = [t.limit_percent for code, t in terms.items() if root_of(code) == product.product]
        least = max(moves, default=0) * BP // PERCENT
        if product.floor_bp < least:
            return Found(MarginFault.BELOW_LIMIT_MOVE, product.product, least, product.floor_bp)
    return None
