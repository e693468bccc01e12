"""Conversion of prices and quantities between user input, integers and the wire. No other module
converts.

A price is a ``str`` or ``Decimal`` in USD per GPU-hour ("2.650"), or an ``int`` count of ticks. A
quantity is lots: ``int``, ``str`` or ``Decimal``, always whole. A ``float`` is refused, since its
value is hardly ever exactly the one that was typed.
"""

from collections.abc import Iterable
from decimal import Context, Decimal, InvalidOperation
from typing import Final, TypeAlias

from clients.errors import ProtocolError, ValueRefused
from contracts.decimal_text import DecimalTextError, format_price, parse_price, parse_quantity

Number: TypeAlias = int | str | Decimal
DIGITS_MAX: Final = 40  # before or after the decimal point
CACHED_TEXTS: Final = 65_536  # prices cached per instrument
# Every product of a tick and a number is exact in it, whatever the program's own context rounds to.
_EXACT: Final = Context(prec=4 * DIGITS_MAX, traps=[])


def checked_decimal(value: Number, name: str) -> Decimal:
    """Return ``value`` as a finite Decimal of at most ``DIGITS_MAX`` digits on either side of the
    point; ValueRefused otherwise, and for a float, a bool or anything else."""
    if isinstance(value, float):
        raise ValueRefused(f"{name} {value!r} is a float; write it as a string, '{value}'")
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueRefused(f"{name} {value!r} is neither int, str nor Decimal")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueRefused(f"{name} {value!r} is not a decimal number") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueRefused(f"{name} {value!r} is not finite")
    # With an exponent a short text is a number of any length
    if max(number.adjusted(), -exponent) > DIGITS_MAX:
        raise ValueRefused(f"{name} has more than {DIGITS_MAX} digits")
    return number


def exact_sum(parts: Iterable[tuple[int, Decimal]]) -> Decimal:
    """Return the sum of number times price of each part, without rounding."""
    total = Decimal(0)
    for number, price in parts:
        total = _EXACT.add(total, _EXACT.multiply(Decimal(number), price))
    return total


def quantity_text(value: Number) -> str:
    """Return ``value`` as the wire's text: whole lots, 1 or more. ValueRefused otherwise."""
    number = checked_decimal(value, "quantity")
    if number != number.to_integral_value() or number < 1:
        raise ValueRefused(f"quantity {value} is not a whole number of lots, 1 or more")
    return str(int(number))


def read_quantity(text: str) -> int:
    """Return the lots in a quantity from the exchange; ProtocolError if it is invalid."""
    try:
        return parse_quantity(text)
    except DecimalTextError as error:
        raise ProtocolError(str(error)) from error


class PriceScale:
    """Converts an instrument's ticks to and from text.

    >>> scale = PriceScale("0.001", 3)
    >>> scale.ticks("2.65"), scale.text(2650)
    (2650, '2.650')
    """

    def __init__(self, tick: str, decimals: int) -> None:
        self.tick = Decimal(tick)
        self.decimals = decimals
        self._units = parse_price(tick, decimals)  # units of the last decimal per tick
        self._read: dict[str, int] = {}

    def ticks(self, value: Number) -> int:
        """Return a user's price in whole ticks; ValueRefused off the tick, naming the nearest
        price."""
        number = checked_decimal(value, "price")
        if isinstance(value, int):
            return value
        ticks = int(_EXACT.divide(number, self.tick).to_integral_value())
        if _EXACT.multiply(Decimal(ticks), self.tick) != number:
            nearest = self.text(ticks)
            raise ValueRefused(f"price {value} is not a multiple of {self.tick}; try {nearest}")
        return ticks

    def text(self, ticks: int) -> str:
        """Return ticks as dollars per GPU-hour, in fixed point."""
        return format_price(ticks * self._units, self.decimals)

    def read(self, text: str) -> int:
        """Return the ticks of a price from the exchange; ProtocolError if it is invalid."""
        known = self._read.get(text)
        if known is not None:
            return known
        try:
            ticks, rest = divmod(parse_price(text, self.decimals), self._units)
        except DecimalTextError as error:
            raise ProtocolError(str(error)) from error
        if rest:
            raise ProtocolError(f"price {text} is not a multiple of {self.tick}")
        if len(self._read) >= CACHED_TEXTS:
            self._read.clear()
        self._read[text] = ticks
        return ticks
