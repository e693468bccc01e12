"""Codes of everything listed: the only place that builds and parses them.

    outright   H100Z26          cash-settled, December 2026
               H100PZ26         the same, physically delivered
    spread     H100Z26-H100F27  near month minus far month
    quarter    H100-1Q27        January, February and March 2027
    year       H100-CAL27       the twelve months of 2027

Upper case, ASCII, years 2000 to 2099. Exactly one code names one thing: ``str(parse(text))`` is
``text`` again.
"""

import re
from typing import Final

import msgspec

from contracts.calendar import Month

ROOTS: Final = ("A100", "B200", "GB200", "H100", "H200", "MI300")
PHYSICAL_SUFFIX: Final = "P"
PRODUCTS: Final = tuple(f"{root}{end}" for root in ROOTS for end in ("", PHYSICAL_SUFFIX))
QUARTER_MONTHS: Final = 3
YEAR_MONTHS: Final = 12
MONTH_LETTERS: Final = "FGHJKMNQUVXZ"  # January to December
CODE_CHARS_MAX: Final = 24
_CENTURY: Final = 2000

_ROOT: Final = rf"({'|'.join(ROOTS)})(P?)"
_OUTRIGHT: Final = re.compile(rf"{_ROOT}([{MONTH_LETTERS}])([0-9]{{2}})")
_QUARTER: Final = re.compile(rf"{_ROOT}-([1-4])Q([0-9]{{2}})")
_YEAR: Final = re.compile(rf"{_ROOT}-CAL([0-9]{{2}})")


class CodeError(ValueError):
    """The text is not a code."""


class Outright(msgspec.Struct, frozen=True, order=True):
    """One delivery month of one product: ``product`` is the GPU's root, without the P."""

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


Code = Outright | Spread | Strip


def code(product: str, expiry: Month) -> str:
    """The code of a product's expiry: ``"H100P", 2026-12`` is ``"H100PZ26"``."""
    return str(outright(product, expiry))


def outright(product: str, expiry: Month) -> Outright:
    """The outright of a product's own code, which may end in P."""
    if product not in PRODUCTS:
        raise CodeError(f"not a product: {product[:CODE_CHARS_MAX]!a}")
    physical = product not in ROOTS
    return Outright(
        product.removesuffix(PHYSICAL_SUFFIX) if physical else product, physical, expiry
    )


def spread(near: Outright) -> Spread:
    """The spread of a month and the month after it."""
    return Spread(near, Outright(near.product, near.physical, near.expiry.plus(1)))


def strip(first: Outright, months: int) -> Strip:
    """The quarter or year that begins with a month: of 1, 4, 7 or 10, and of 1."""
    if (first.expiry.month - 1) % months or months not in (QUARTER_MONTHS, YEAR_MONTHS):
        raise CodeError(f"no strip of {months} months begins in {first.expiry}")
    return Strip(first.product, first.physical, first.expiry, months)


def parse(text: str) -> Code:
    """What a code names; CodeError if it names nothing."""
    if len(text) > CODE_CHARS_MAX:
        raise CodeError(f"not a code: {text[:CODE_CHARS_MAX]!a}...")
    if match := _OUTRIGHT.fullmatch(text):
        return _outright(match)
    if match := _QUARTER.fullmatch(text):
        first = Month(_CENTURY + int(match[4]), 3 * int(match[3]) - 2)
        return Strip(match[1], match[2] == "P", first, QUARTER_MONTHS)
    if match := _YEAR.fullmatch(text):
        return Strip(match[1], match[2] == "P", Month(_CENTURY + int(match[3]), 1), YEAR_MONTHS)
    near, _, far = text.partition("-")
    near_match, far_match = _OUTRIGHT.fullmatch(near), _OUTRIGHT.fullmatch(far)
    if near_match is None or far_match is None:
        raise CodeError(f"not a code: {text!a}")
    return _spread(text, _outright(near_match), _outright(far_match))


def parse_outright(text: str) -> Outright:
    """As ``parse``, for a place where only one delivery month makes sense."""
    parsed = parse(text)
    if not isinstance(parsed, Outright):
        raise CodeError(f"not the code of one delivery month: {text!a}")
    return parsed


def _spread(text: str, near: Outright, far: Outright) -> Spread:
    if (near.product, near.physical) != (far.product, far.physical):
        raise CodeError(f"a spread has two months of one product: {text!a}")
    if near.expiry >= far.expiry:
        raise CodeError(f"a spread names the near month first: {text!a}")
    return Spread(near, far)


def _outright(match: re.Match[str]) -> Outright:
    expiry = Month(_CENTURY + int(match[4]), MONTH_LETTERS.index(match[3]) + 1)
    return Outright(match[1], match[2] == "P", expiry)


def _root(product: str, physical: bool) -> str:
    return f"{product}P" if physical else product


def _two_digits(year: int) -> str:
    if not _CENTURY <= year < _CENTURY + 100:
        raise CodeError(f"no code has the year {year}")
    return f"{year - _CENTURY:02d}"
