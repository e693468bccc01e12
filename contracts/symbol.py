"""Codes of everything listed. Only this module builds and parses them.

    outright   H100Z26          cash-settled, December 2026
               H100PZ26         the same, physically delivered
    spread     H100Z26-H100F27  near month minus far month
    quarter    H100-1Q27        January, February and March 2027
    year       H100-CAL27       the twelve months of 2027
    butterfly  H100Z26-H100F27-H100G27  the wings minus twice the middle month
    ratio      2H100Z26-1B200Z26        2 lots bought, 1 sold, of any two expiries

Upper case, ASCII, years 2000 to 2099. Each instrument has exactly one code: ``str(parse(text))``
equals ``text``.
"""

import re
from itertools import pairwise
from math import gcd
from typing import Final

import msgspec

from contracts.calendar import Month

ROOTS: Final = ("A100", "B200", "GB200", "H100", "H200", "MI300")
PHYSICAL_SUFFIX: Final = "P"
PRODUCTS: Final = tuple(f"{root}{end}" for root in ROOTS for end in ("", PHYSICAL_SUFFIX))
QUARTER_MONTHS: Final = 3
YEAR_MONTHS: Final = 12
MONTH_LETTERS: Final = "FGHJKMNQUVXZ"  # January to December
CODE_CHARS_MAX: Final = 29
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = FIRST_YEAR + 99

_ROOT: Final = rf"({'|'.join(ROOTS)})(P?)"
_PLAIN: Final = rf"(?:{'|'.join(ROOTS)})P?[{MONTH_LETTERS}][0-9]{{2}}"
_OUTRIGHT: Final = re.compile(rf"{_ROOT}([{MONTH_LETTERS}])([0-9]{{2}})")
_QUARTER: Final = re.compile(rf"{_ROOT}-([1-4])Q([0-9]{{2}})")
_RATIO: Final = re.compile(rf"([1-7])({_PLAIN})-([1-7])({_PLAIN})")
_YEAR: Final = re.compile(rf"{_ROOT}-CAL([0-9]{{2}})")


class CodeError(ValueError):
    """The text is not a code."""


class Outright(msgspec.Struct, frozen=True, order=True):
    """One delivery month of one product; ``product`` is the GPU's root, without the P."""

    product: str
    physical: bool
    expiry: Month

    def __str__(self) -> str:
        letter = MONTH_LETTERS[self.expiry.month - 1]
        return f"{_root(self.product, self.physical)}{letter}{_two_digits(self.expiry.year)}"

    @property
    def root(self) -> str:
        """The product's own code: the root, with P if it is physically delivered."""
        return _root(self.product, self.physical)

    @property
    def legs(self) -> tuple["Outright", ...]:
        return (self,)


class Spread(msgspec.Struct, frozen=True, order=True):
    """The near month bought and the far month sold, both of one product."""

    near: Outright
    far: Outright

    def __str__(self) -> str:
        return f"{self.near}-{self.far}"

    @property
    def legs(self) -> tuple[Outright, ...]:
        return (self.near, self.far)

    @property
    def ratios(self) -> tuple[int, ...]:
        return (1, -1)


class Butterfly(msgspec.Struct, frozen=True, order=True):
    """The near and the far month bought and the middle one sold twice, all of one product."""

    near: Outright
    middle: Outright
    far: Outright

    def __str__(self) -> str:
        return f"{self.near}-{self.middle}-{self.far}"

    @property
    def legs(self) -> tuple[Outright, ...]:
        return (self.near, self.middle, self.far)

    @property
    def ratios(self) -> tuple[int, ...]:
        return (1, -2, 1)


class Ratio(msgspec.Struct, frozen=True, order=True):
    """Lots of one expiry bought and lots of another sold, for example of two GPU generations."""

    bought: Outright
    bought_lots: int
    sold: Outright
    sold_lots: int

    def __str__(self) -> str:
        return f"{self.bought_lots}{self.bought}-{self.sold_lots}{self.sold}"

    @property
    def legs(self) -> tuple[Outright, ...]:
        return (self.bought, self.sold)

    @property
    def ratios(self) -> tuple[int, ...]:
        return (self.bought_lots, -self.sold_lots)


class Strip(msgspec.Struct, frozen=True, order=True):
    """Consecutive months bought together: a calendar quarter (3) or a calendar year (12)."""

    product: str
    physical: bool
    first: Month
    months: int

    def __str__(self) -> str:
        year = _two_digits(self.first.year)
        quarter = (self.first.month + 2) // 3
        period = f"CAL{year}" if self.months == YEAR_MONTHS else f"{quarter}Q{year}"
        return f"{_root(self.product, self.physical)}-{period}"

    @property
    def legs(self) -> tuple[Outright, ...]:
        return tuple(
            Outright(self.product, self.physical, self.first.plus(n)) for n in range(self.months)
        )

    @property
    def ratios(self) -> tuple[int, ...]:
        return (1,) * self.months


Combined = Spread | Strip | Butterfly | Ratio
Code = Outright | Combined


def code(product: str, expiry: Month) -> str:
    """Return the code of a product's expiry: ``"H100P", 2026-12`` is ``"H100PZ26"``."""
    return str(outright(product, expiry))


def outright(product: str, expiry: Month) -> Outright:
    """Return the outright of a product code, which may end in P; raise CodeError if it is
    unknown."""
    if product not in PRODUCTS:
        raise CodeError(f"not a product: {product[:CODE_CHARS_MAX]!a}")
    physical = product not in ROOTS
    return Outright(
        product.removesuffix(PHYSICAL_SUFFIX) if physical else product, physical, expiry
    )


def spread(near: Outright) -> Spread:
    """Return the spread of a month and the month after it."""
    return Spread(near, Outright(near.product, near.physical, near.expiry.plus(1)))


def strip(first: Outright, months: int) -> Strip:
    """Return the quarter or year that begins with a month; raise CodeError if none begins there."""
    if (first.expiry.month - 1) % months or months not in (QUARTER_MONTHS, YEAR_MONTHS):
        raise CodeError(f"no strip of {months} months begins in {first.expiry}")
    return Strip(first.product, first.physical, first.expiry, months)


def parse(text: str) -> Code:
    """Return what a code names; raise CodeError for any other text."""
    if len(text) > CODE_CHARS_MAX:
        raise CodeError(f"not a code: {text[:CODE_CHARS_MAX]!a}...")
    if match := _OUTRIGHT.fullmatch(text):
        return _outright(match)
    if match := _QUARTER.fullmatch(text):
        first = Month(FIRST_YEAR + int(match[4]), 3 * int(match[3]) - 2)
        return Strip(match[1], match[2] == "P", first, QUARTER_MONTHS)
    if match := _YEAR.fullmatch(text):
        return Strip(match[1], match[2] == "P", Month(FIRST_YEAR + int(match[3]), 1), YEAR_MONTHS)
    if match := _RATIO.fullmatch(text):
        return _ratio(text, match)
    months = [_OUTRIGHT.fullmatch(part) for part in text.split("-")]
    found = [_outright(month) for month in months if month is not None]
    if len(found) < len(months) or len(found) not in (2, 3):
        raise CodeError(f"not a code: {text!a}")
    _check_months(text, found)
    return Spread(*found) if len(found) == 2 else Butterfly(*found)


def parse_outright(text: str) -> Outright:
    """Like ``parse``, but accept the code of a single delivery month only."""
    parsed = parse(text)
    if not isinstance(parsed, Outright):
        raise CodeError(f"not the code of one delivery month: {text!a}")
    return parsed


def _check_months(text: str, months: list[Outright]) -> None:
    if len({(month.product, month.physical) for month in months}) > 1:
        raise CodeError(f"a spread has months of one product: {text!a}")
    if any(near.expiry >= far.expiry for near, far in pairwise(months)):
        raise CodeError(f"a spread names the near month first: {text!a}")


def _ratio(text: str, match: re.Match[str]) -> Ratio:
    bought, sold = parse_outright(match[2]), parse_outright(match[4])
    ratio = Ratio(bought, int(match[1]), sold, int(match[3]))
    if bought == sold or gcd(ratio.bought_lots, ratio.sold_lots) > 1:
        raise CodeError(f"a ratio spread has two expiries, and lots in lowest terms: {text!a}")
    return ratio


def _outright(match: re.Match[str]) -> Outright:
    expiry = Month(FIRST_YEAR + int(match[4]), MONTH_LETTERS.index(match[3]) + 1)
    return Outright(match[1], match[2] == "P", expiry)


def _root(product: str, physical: bool) -> str:
    return f"{product}P" if physical else product


def _two_digits(year: int) -> str:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise CodeError(f"no code has the year {year}")
    return f"{year - FIRST_YEAR:02d}"
