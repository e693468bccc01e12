"""Conversion between JSON numbers, as Deribit's clients use them, and exact decimal text.

No floats are used: JSON numbers are read and written by their digits.
"""

from decimal import Decimal
from typing import Final

import msgspec

from contracts.decimal_text import PRICE_CHARS_MAX
from exchange.gateway.dialects.deribit.rpc import wrong_param
from exchange.messages import Reason

DIGITS_MAX: Final = 40  # before or after the decimal point
NANOSECONDS_PER_MS: Final = 1_000_000


def exact(text: str) -> msgspec.Raw:
    """Return decimal text as a JSON number with the same digits."""
    return msgspec.Raw(text.encode())


def plain(value: object, param: str) -> str:
    """Return a number parameter as decimal text without exponent and trailing zeros.

    Clients may send it as a JSON number (``2.65``, ``8e-7``) or as text. Raises Failure with the
    name ``param``.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise wrong_param(param, Reason.SYNTAX, "not a number")
    if isinstance(value, str) and not (value.isascii() and set(value) <= _NUMBER):
        raise wrong_param(param, Reason.SYNTAX, "not a number")
    try:
        number = Decimal(value)
    except ArithmeticError:
        raise wrong_param(param, Reason.SYNTAX, "not a number") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise wrong_param(param, Reason.SYNTAX, "not a number")
    if max(number.adjusted(), -exponent) > DIGITS_MAX:
        raise wrong_param(param, Reason.SYNTAX, f"more than {DIGITS_MAX} digits")
    if not number:
        return "0"  # of a negative zero, too, which a program with floats may well arrive at
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if len(text) > PRICE_CHARS_MAX:  # in a native frame it would count as malformed
        raise wrong_param(param, Reason.SYNTAX, f"more than {PRICE_CHARS_MAX} characters")
    return text


_NUMBER: Final = frozenset("0123456789.eE+-")


def milliseconds(time_ns: int) -> int:
    """Return log time in ms, the unit of the clients' timestamps."""
    return time_ns // NANOSECONDS_PER_MS


def half_even(dividend: int, divisor: int) -> int:
    """Return the quotient of integers, rounded half to even; ``divisor`` must be positive."""
    whole, rest = divmod(dividend, divisor)
    twice = 2 * rest
    up = twice > divisor or (twice == divisor and whole % 2 == 1)
    return whole + up
