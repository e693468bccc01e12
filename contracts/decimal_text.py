"""Convert prices and quantities between decimal strings, which go over the wire, and integers.

One strict grammar, so that every reader of a price reads the same number:

    price     -?(0|[1-9][0-9]*)(\\.[0-9]+)?      at most 32 characters, no negative zero
    quantity  -?(0|[1-9][0-9]*)                  at most 40 characters, no negative zero

No exponent, plus sign, space, underscore, bare point, leading zero, or non-ASCII digit. The caller
checks whether the number is allowed (not negative, not too large).
"""

import re
from typing import Final

PRICE_CHARS_MAX: Final = 32
QUANTITY_CHARS_MAX: Final = 40
_SHOWN_CHARS: Final = 40

_PRICE: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")
_QUANTITY: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")


class DecimalTextError(ValueError):
    """The text does not match the documented grammar."""


class OffTickError(DecimalTextError):
    """The text is a price, but it lies between two ticks."""


def parse_price(text: str, decimals: int, name: str = "price") -> int:
    """Return a price in ticks, where a tick is one unit of the last decimal: ``"2.65", 3`` is 2650.

    Zeros after the last decimal are allowed; other digits there raise OffTickError. Anything
    outside the grammar raises DecimalTextError before any digit is converted. ``name`` is what
    errors call it.
    """
    if len(text) > PRICE_CHARS_MAX:
        raise DecimalTextError(_fault(name, text, f"more than {PRICE_CHARS_MAX} characters"))
    match = _PRICE.fullmatch(text)
    if match is None:
        raise DecimalTextError(_fault(name, text, 'not of the form "2.650"'))
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if fraction[decimals:].strip("0"):
        raise OffTickError(_fault(name, text, f"has more than {decimals} decimals"))
    ticks = int(whole + fraction[:decimals].ljust(decimals, "0"))
    if sign and ticks == 0:
        raise DecimalTextError(_fault(name, text, "negative zero"))
    return -ticks if sign else ticks


def format_price(ticks: int, decimals: int) -> str:
    """Return the canonical text of a price: ``2650, 3`` is ``"2.650"``."""
    if decimals == 0:
        return str(ticks)
    whole, fraction = divmod(abs(ticks), 10**decimals)
    return f"{'-' if ticks < 0 else ''}{whole}.{fraction:0{decimals}d}"


def parse_quantity(text: str) -> int:
    """Return a quantity in lots, of any range; raise DecimalTextError if it is not a number."""
    if len(text) > QUANTITY_CHARS_MAX:
        raise DecimalTextError(
            _fault("quantity", text, f"more than {QUANTITY_CHARS_MAX} characters")
        )
    if _QUANTITY.fullmatch(text) is None or text == "-0":
        raise DecimalTextError(_fault("quantity", text, 'not of the form "12"'))
    return int(text)


def _fault(kind: str, text: str, rule: str) -> str:
    """Return a message that is short and printable whatever the text holds."""
    shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
    return f"{kind} {shown!a}: {rule}"
