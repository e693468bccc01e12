"""Margin parameters, as integers in the log, and the rates per lot computed from them.

Float models propose them (``exchange.clearing.margin.model``); everything after that is integer
arithmetic. ``bp`` is 1e-4 of a lot's value = price x multiplier. A version is in force from its
effective business date until that of the next one.
"""

from collections.abc import Collection, Iterator
from datetime import date
from enum import IntEnum
from itertools import pairwise
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from contracts import symbol
from contracts.calendar import Month
from exchange.clearing.margin.rules import BP, PERCENT, up

PRODUCTS_MAX: Final = 64
OFFSETS_MAX: Final = 64
BANDS_MAX: Final = 8

Bp: TypeAlias = Annotated[int, Meta(ge=0, le=2 * BP)]
Percent: TypeAlias = Annotated[int, Meta(ge=0, le=PERCENT)]
Share: TypeAlias = Annotated[int, Meta(ge=1, le=PERCENT)]
Lots: TypeAlias = Annotated[int, Meta(ge=1, le=1 << 40)]
Ratio: TypeAlias = Annotated[int, Meta(ge=1, le=1_000)]
Months: TypeAlias = Annotated[int, Meta(ge=0, le=120)]
Days: TypeAlias = Annotated[int, Meta(ge=0, le=31)]


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scan range of expiries ``months`` or more after the business date's month."""

    months: Months
    scan_bp: Bp


class ProductMargin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of one product."""

    product: str
    bands: Annotated[tuple[Band, ...], Meta(min_length=1, max_length=BANDS_MAX)]
    floor_bp: Bp  # least scan range of any band: at least one daily limit move
    spread_bp: Bp  # per calendar spread
    delivery_bp: Bp  # per outright lot of the spot month
    delivery_spread_bp: Bp  # per lot of the spot month in a calendar spread
    liquidity_bp: Bp  # cost of closing a lot
    daily_volume: Lots  # lots traded per day
    participation_percent: Share  # share of the daily volume that a close-out may be
    maintenance_percent: Share = PERCENT  # of the requirement; below it a margin call follows
    notice_days: Days = 0  # calendar days before the delivery month from which it is the spot month
    averaged: bool = False  # settled on its month's average: the scan shrinks as days are fixed

    def scan_bp(self, months: int) -> int:
        """Return the scan range of an expiry ``months`` ahead, the first band's for less than 0."""
        return next(
            (band.scan_bp for band in reversed(self.bands) if months >= band.months),
            self.bands[0].scan_bp,
        )


class Offset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lots of one product that offset lots of another, with the credit on both scans."""

    a: str
    b: str
    ratio_a: Ratio = 1
    ratio_b: Ratio = 1
    percent: Percent


class MarginParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version. ``inputs_hash`` is the BLAKE2b-256 of its calibration's inputs, in hex."""

    version: Annotated[int, Meta(ge=1, le=1 << 31)]
    effective: Annotated[int, Meta(ge=20000101, le=20991231)]  # business date, yyyymmdd
    inputs_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    products: Annotated[tuple[ProductMargin, ...], Meta(min_length=1, max_length=PRODUCTS_MAX)]
    offsets: Annotated[tuple[Offset, ...], Meta(max_length=OFFSETS_MAX)] = ()

    def of(self, product: str) -> ProductMargin:
        """Return the product's parameters; KeyError if there are none."""
        for found in self.products:
            if found.product == product:
                return found
        raise KeyError(f"margin parameters {self.version} do not cover {product}")

    def covers(self, code: str) -> bool:
        """Whether a code is an expiry of a product that has parameters."""
        return any(found.product == root_of(code) for found in self.products)

    def to_json(self) -> str:
        """Return the JSON text, as in files and records."""
        return msgspec.json.encode(self).decode("ascii")


class MarginFault(IntEnum):
    """Why parameters are refused. The numbers are frozen; the lowest that applies is named."""

    VERSION = 2301
    EFFECTIVE = 2302
    PRODUCT_UNKNOWN = 2303
    PRODUCT_TWICE = 2304
    PRODUCT_MISSING = 2305
    BANDS_ORDER = 2306
    BELOW_LIMIT_MOVE = 2307
    SPREAD_RANGE = 2308
    DELIVERY_RANGE = 2309
    OFFSET_PRODUCTS = 2310


class Found(NamedTuple):
    """A fault: its subject, the limit and the observed value."""

    fault: MarginFault
    what: str
    limit: int
    observed: int

    def __str__(self) -> str:
        name = f"{self.fault.name} ({int(self.fault)})"
        return f"{name}: {self.what} (limit {self.limit}, observed {self.observed})"


def fault(
    new: MarginParameters, version: int, business_date: int, listed: Collection[str]
) -> Found | None:
    """Return why ``new`` may not follow ``version`` on a business date; None if it may.

    ``version`` is the last one adopted, 0 for none. ``listed`` are the products with instruments,
    which must be covered.
    """
    return min(_faults(new, version, business_date, listed), default=None)


def _faults(
    new: MarginParameters, version: int, business_date: int, listed: Collection[str]
) -> Iterator[Found]:
    names = [product.product for product in new.products]
    if new.version != version + 1:
        yield Found(MarginFault.VERSION, "the next version", version + 1, new.version)
    if new.effective < business_date:
        yield Found(MarginFault.EFFECTIVE, "a date gone by", business_date, new.effective)
    for name in sorted(set(names)):
        if name not in symbol.PRODUCTS:
            yield Found(MarginFault.PRODUCT_UNKNOWN, name[:16], 0, 1)
        if names.count(name) > 1:
            yield Found(MarginFault.PRODUCT_TWICE, name[:16], 1, names.count(name))
    for name in sorted(set(listed) - set(names)):
        yield Found(MarginFault.PRODUCT_MISSING, name, 1, 0)
    for product in new.products:
        yield from _product_faults(product)
    for offset in new.offsets:
        if offset.a == offset.b or {offset.a, offset.b} - set(names):
            what = f"{offset.a[:16]} against {offset.b[:16]}"
            yield Found(MarginFault.OFFSET_PRODUCTS, what, 2, len({offset.a, offset.b}))


def _product_faults(product: ProductMargin) -> Iterator[Found]:
    name, months = product.product[:16], [band.months for band in product.bands]
    for near, far in pairwise(months):
        if near >= far:
            yield Found(MarginFault.BANDS_ORDER, name, near + 1, far)
    least = min(band.scan_bp for band in product.bands)
    if least < max(product.floor_bp, 1):
        yield Found(MarginFault.BELOW_LIMIT_MOVE, name, max(product.floor_bp, 1), least)
    if product.spread_bp > least:
        yield Found(MarginFault.SPREAD_RANGE, name, least, product.spread_bp)
    if product.delivery_spread_bp > product.delivery_bp:
        limit, seen = product.delivery_bp, product.delivery_spread_bp
        yield Found(MarginFault.DELIVERY_RANGE, name, limit, seen)


def root_of(code: str) -> str:
    """Return the product of an expiry's code; empty for any other code."""
    try:
        return symbol.parse_outright(code).root
    except symbol.CodeError:
        return ""


class LotRates(NamedTuple):
    """The rates per lot of one expiry on a day: micro-dollars, rounded up, ``relief`` down."""

    scan_range: int
    scan_whole: int  # the scan range without the reduction for averaged days
    spread: int
    delivery: int  # 0 outside the spot month, as the next
    relief: int  # reduction of ``delivery`` for a lot in a calendar spread
    liquidity: int
    spot: bool

    @property
    def hold(self) -> int:
        """The engine's rate per lot: it covers every part except concentration."""
        return self.scan_whole + self.delivery + self.liquidity


def lot_rates(
    parameters: MarginParameters,
    code: str,
    multiplier: int,
    price: int,
    on: date,
    withheld: int = 0,
) -> LotRates:
    """Return the rates of the expiry ``code`` at a clearing price on a business date.

    ``withheld`` is the number of days of its month so far without a fixing, which raises the weight
    of each day left. KeyError if the product is not covered, symbol.CodeError if the code is not
    that of an expiry.
    """
    outright = symbol.parse_outright(code)
    terms, expiry = parameters.of(outright.root), outright.expiry
    value, today = abs(price) * multiplier, Month.of(on)
    months = (expiry.year - today.year) * 12 + expiry.month - today.month
    spot = (expiry.first_day - on).days <= terms.notice_days

    def part(bp: int, numerator: int = 1, denominator: int = 1) -> int:
        return up(value * bp * numerator, BP * denominator)

    scan_bp, left, days = terms.scan_bp(months), 1, 1
    if terms.averaged and months <= 0:
        left, days = (expiry.days - on.day if months == 0 else 0), expiry.days - withheld
        if withheld and left == days == 0:  # the month is over and was never fixed
            left = days = 1
        assert 0 <= left <= days, f"{withheld} days withheld by {on}"
    return LotRates(
        scan_range=part(scan_bp, left, days),
        scan_whole=part(scan_bp),
        spread=part(terms.spread_bp),
        delivery=part(terms.delivery_bp) if spot else 0,
        relief=value * (terms.delivery_bp - terms.delivery_spread_bp) // BP if spot else 0,
        liquidity=part(terms.liquidity_bp),
        spot=spot,
    )
