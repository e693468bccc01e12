"""Contract types: a product's template (ContractSpec), one expiry (Instrument), a Combination.

Units. A price is in dollars per GPU-hour, held as ticks (``_ticks``) or, for a clearing price, as
millionths of a dollar per GPU-hour (``_micros``); a tick is ``tick_scale`` of those. Money is in
micro-dollars. One lot is ``contract_size`` GPUs for every hour of the delivery month, so
``multiplier`` = contract_size x hours of the month. One tick on one lot is worth ``tick_value`` =
multiplier x tick_scale micro-dollars: a whole number, so margin is never rounded in it.

The JSON of an instrument is stored in the log when it is listed. Fields are only ever added, with a
default, so that old logs stay readable.
"""

from datetime import date, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from contracts import calendar, symbol
from contracts.calendar import Calendar, Month, delivery_period

PRICE_DECIMALS: Final = 6  # of a clearing price
PAR_FACTOR: Final = 10_000  # conversion factors are integers at 1e-4
LISTED_MONTHS_MAX: Final = 60  # of a listing cycle
PHYSICAL_MONTHS_MAX: Final = 24  # of a physical one: a listed month keeps its rules for factors
PRICE_UNIT: Final = "USD per GPU-hour"
CASH: Final = "cash"
PHYSICAL: Final = "physical"
_PERCENT: Final = 100

CombinationKind: TypeAlias = Literal["spread", "quarter", "year", "butterfly", "ratio"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms that a product and each of its expiries share."""

    product: str
    name: str
    settlement: str  # cash or physical
    gpu: str
    fabric: str
    contract_size: int  # GPUs of one lot
    tick: str  # dollars per GPU-hour, a power of ten
    price_step: int  # an order's price is a multiple of this many ticks
    lot_step: int  # an order's quantity is a multiple of this many lots
    limit_percent: int  # daily price limits, either side of the last settlement price
    margin_percent: int  # minimum initial margin, of the contract's value
    position_limit: int  # lots of one account in one expiry, working orders counted
    max_order: int  # lots of one order
    maker_fee: int  # micro-dollars a lot; negative is a rebate
    taker_fee: int  # micro-dollars a lot
    factor_low: int  # deliverable conversion factors, at 1e-4
    factor_high: int
    unit: str = PRICE_UNIT
    calendar: str = calendar.DEFAULT  # code of the session calendar
    # The grade: codes of data/hardware.toml and data/grades.toml
    hardware: str = ""
    node_gpus: int = 0
    cluster_low: int = 0  # GPUs on one fabric
    cluster_high: int = 0
    grades: tuple[str, ...] = ()  # deliverable, the par grade first
    # Protection
    # An order's price may not be further than this through the reference price
    band_percent: int = 0
    order_value_limit: int = 0  # maximum value of one order in dollars
    accountability_level: int = 0  # lots of one account in one expiry, reported above this
    all_months_limit: int = 0  # lots of one account over all expiries
    spot_month_limit: int = 0  # lots of one account in the spot month
    # Maximum share of the attested deliverable supply in the spot month
    spot_supply_percent: int = 0
    # Margin
    spot_margin_percent: int = 0  # minimum initial margin in the spot month
    maintenance_percent: int = 0  # maintenance margin, of the initial
    spread_percent: int = 0  # charge on a calendar spread, of the value of its near leg
    final_fee: int = 0  # micro-dollars a lot at final settlement or delivery
    # The index: code and version of data/indices.toml
    index: str = ""
    methodology: str = ""
    # Delivery, physical products only
    notice_cutoff: str = ""  # local time of the calendar
    delivery_step: int = 0  # lots of one delivery
    true_up_tolerance: int = 0  # goodput shortfall without consequence, at 1e-4
    goodput_floor: int = 0  # goodput below which a delivery has failed, at 1e-4
    failure_percent: int = 0  # penalty of a failed delivery, of its value


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A physical product's dates, in business days before the first delivery day."""

    factors_published: int
    factors_frozen: int
    first_notice: int
    last_trading: int
    last_notice: int


class ContractSpec(Terms, frozen=True, kw_only=True):
    """One version of a product's template.

    It is in force from ``effective``, for the expiries from ``first_expiry`` on. Expiries listed
    before keep the version they were listed with.
    """

    effective: date
    first_expiry: Month
    listed_months: int  # expiries of the listing cycle, the front one included
    opened_months: int  # how many of these a market opens by itself
    combinations: tuple[CombinationKind, ...]
    schedule: Schedule | None = None

    @property
    def physical(self) -> bool:
        return self.settlement == PHYSICAL

    def last_trading_day(self, expiry: Month, days: Calendar) -> date:
        """Return the last business day of the month; for a physical product, one before it
        begins."""
        if self.schedule is None:
            return days.at_or_before(expiry.last_day)
        return days.before(expiry.first_day, self.schedule.last_trading)

    def instrument(self, expiry: Month, days: Calendar, listed_on: date) -> "Instrument":
        """Return the expiry of this product for one delivery month.

        ``days`` is the product's calendar, ``listed_on`` comes from contracts.cycle. Raises
        CalendarError for a month beyond the calendar's years.
        """
        start, end = delivery_period(expiry)
        terms: dict[str, Any] = {name: getattr(self, name) for name in Terms.__struct_fields__}
        decimals = tick_decimals(self.tick)
        return Instrument(
            **(terms | self._notices(expiry, days)),
            code=symbol.code(self.product, expiry),
            expiry=str(expiry),
            version=self.effective,
            multiplier=self.contract_size * expiry.hours,
            tick_scale=10 ** (PRICE_DECIMALS - decimals),
            decimals=decimals,
            listed_on=listed_on,
            last_trading_day=self.last_trading_day(expiry, days),
            delivery_start=start,
            delivery_end=end,
            final_settlement_day=days.at_or_after(expiry.plus(1).first_day),
        )

    def _notices(self, expiry: Month, days: Calendar) -> dict[str, date]:
        schedule = self.schedule
        if schedule is None:
            return {}
        counts = {
            "factors_published": schedule.factors_published,
            "factors_frozen": schedule.factors_frozen,
            "first_notice_day": schedule.first_notice,
            "last_notice_day": schedule.last_notice,
        }
        first = expiry.first_day
        return {name: days.before(first, count) for name, count in counts.items()}


class Instrument(Terms, frozen=True, kw_only=True):
    """One listed expiry. Its msgspec encoding is also its form on the wire."""

    code: str
    expiry: str  # YYYY-MM, the delivery month
    version: date  # ``effective`` of its template
    multiplier: int  # GPU-hours of one lot
    tick_scale: int  # millionths of a dollar in one tick
    decimals: int  # number of decimals of a price
    last_trading_day: date
    delivery_start: datetime
    delivery_end: datetime  # the first instant after the delivery period
    listed_on: date | None = None  # first day in the listing cycle
    final_settlement_day: date | None = None  # the first business day after the delivery period
    # Physical products only
    factors_published: date | None = None
    factors_frozen: date | None = None
    first_notice_day: date | None = None
    last_notice_day: date | None = None

    @property
    def tick_value(self) -> int:
        """Value of one tick on one lot, in micro-dollars."""
        return self.multiplier * self.tick_scale

    def limits(self, *, settlement_micros: int) -> tuple[int, int]:
        """Return the lowest and highest order price in ticks, both on the price step.

        They are rounded inwards, so that no limit is wider than stated; the low one is at least one
        step. Raises ValueError if there is no price between them.
        """
        reach = settlement_micros * self.limit_percent // _PERCENT
        step = self.tick_scale * self.price_step
        low = -(-(settlement_micros - reach) // step)
        high = (settlement_micros + reach) // step
        if settlement_micros <= 0 or high < max(low, 1):
            raise ValueError(f"{self.code}: no price within limits of {settlement_micros} micros")
        return max(low, 1) * self.price_step, high * self.price_step

    def in_spot_month(self, on: date) -> bool:
        """Whether a day is in the spot month: from the first notice day or, without one, from
        delivery on."""
        return on >= (self.first_notice_day or self.delivery_start.date())

    def margin_rate(self, *, price_micros: int, on: date | None = None) -> int:
        """Return the initial margin of one lot at a clearing price, in micro-dollars, rounded up.

        If a business date is given and lies in the spot month, the spot month's rate applies.
        """
        percent = self.margin_percent
        if on is not None and self.in_spot_month(on):
            percent = max(percent, self.spot_margin_percent)
        return -(-abs(price_micros) * self.multiplier * percent // _PERCENT)

    def position_limit_on(self, on: date) -> int:
        """Return the position limit of one account on a business date, in lots: lower in the spot
        month."""
        if self.spot_month_limit and self.in_spot_month(on):
            return min(self.position_limit, self.spot_month_limit)
        return self.position_limit

    def to_json(self) -> str:
        """Return the text that is stored with the listing of this instrument."""
        return msgspec.json.encode(self).decode("ascii")

    @classmethod
    def from_json(cls, text: str) -> "Instrument":
        """Return the instrument of ``to_json``; raise msgspec.ValidationError for any other
        text."""
        return msgspec.json.decode(text, type=cls)


class Leg(msgspec.Struct, frozen=True):
    """One expiry of a combination: ``ratio`` lots of it per lot; negative if it is sold."""

    code: str
    ratio: int
    multiplier: int  # GPU-hours of one lot of the expiry


class Combination(msgspec.Struct, frozen=True, kw_only=True):
    """Expiries traded together at one price, all legs or none; of one product except for a ratio.

    A strip has a flat price: the same for every hour of its months, so the legs' cash flows are
    weighted by their hours. The price of any other combination is the sum of its legs' prices times
    their ratios, e.g. near month less far month for a spread. It may be negative.
    """

    code: str
    kind: CombinationKind
    product: str
    name: str
    legs: tuple[Leg, ...]
    tick: str
    tick_scale: int
    decimals: int
    price_step: int
    lot_step: int
    max_order: int
    calendar: str
    version: date
    listed_on: date  # the latest day on which a leg was listed
    last_trading_day: date  # the earliest last trading day of its legs

    @property
    def averaged(self) -> bool:
        """Whether the price is a flat price per hour of all legs, rather than a sum of leg
        prices."""
        return self.kind in ("quarter", "year")

    @property
    def net_hours(self) -> int:
        """GPU-hours that one lot buys, less those it sells."""
        return sum(leg.ratio * leg.multiplier for leg in self.legs)

    def to_json(self) -> str:
        """Return the text that is stored with the listing of this combination."""
        return msgspec.json.encode(self).decode("ascii")

    @classmethod
    def from_json(cls, text: str) -> "Combination":
        """Return the combination of ``to_json``; raise msgspec.ValidationError for any other
        text."""
        return msgspec.json.decode(text, type=cls)


Listed: TypeAlias = Instrument | Combination


def combination(code: symbol.Combined, legs: list[Instrument]) -> Combination:
    """Return the combination of a code; ``legs`` are in its order and have the same price grid."""
    first = legs[0]
    kind = _kind(code)
    return Combination(
        code=str(code),
        kind=kind,
        product=first.product,
        name=f"{' to '.join(dict.fromkeys(leg.product for leg in legs))} {_NAMES[kind]}"
        f" {' to '.join(dict.fromkeys((first.expiry, legs[-1].expiry)))}",
        legs=tuple(
            Leg(leg.code, ratio, leg.multiplier)
            for leg, ratio in zip(legs, code.ratios, strict=True)
        ),
        tick=first.tick,
        tick_scale=first.tick_scale,
        decimals=first.decimals,
        price_step=first.price_step,
        lot_step=first.lot_step,
        max_order=min(
            leg.max_order // abs(ratio) for leg, ratio in zip(legs, code.ratios, strict=True)
        ),
        calendar=first.calendar,
        version=max(leg.version for leg in legs),
        listed_on=max(leg.listed_on or leg.version for leg in legs),
        last_trading_day=min(leg.last_trading_day for leg in legs),
    )


_NAMES: Final[dict[CombinationKind, str]] = {
    "spread": "calendar spread",
    "quarter": "quarter",
    "year": "calendar year",
    "butterfly": "butterfly",
    "ratio": "ratio spread",
}


def _kind(code: symbol.Combined) -> CombinationKind:
    match code:
        case symbol.Spread():
            return "spread"
        case symbol.Butterfly():
            return "butterfly"
        case symbol.Ratio():
            return "ratio"
    return "year" if code.months == symbol.YEAR_MONTHS else "quarter"


def tick_decimals(tick: str) -> int:
    """Return the decimals of a tick: 3 for ``"0.001"``; raise ValueError if it is no power of
    ten."""
    decimals = len(tick) - len("0.")
    if not 1 <= decimals <= PRICE_DECIMALS or tick != "0." + "1".rjust(decimals, "0"):
        raise ValueError(f"tick {tick[:16]!a} is not a power of ten from 0.000001 to 0.1")
    return decimals
