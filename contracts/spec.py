"""What a contract is: the template of a product (ContractSpec) and one expiry of it (Instrument).

Units. A price is dollars per GPU-hour, held as ticks (``_ticks``) or, where a clearing price is
meant, as millionths of a dollar per GPU-hour (``_micros``); a tick is ``tick_scale`` of those.
Money is micro-dollars. One lot is ``contract_size`` GPUs for every hour of the delivery month, so
``multiplier`` = contract_size x hours of the month, and one tick on one lot is worth
``tick_value`` = multiplier x tick_scale micro-dollars: a whole number, so margin never rounds it.
"""

from datetime import date, datetime
from typing import Final

import msgspec

from contracts import symbol
from contracts.calendar import Month, delivery_period, last_trading_day

PRICE_DECIMALS: Final = 6  # of a clearing price
PAR_FACTOR: Final = 10_000  # conversion factors are integers at 1e-4
_PERCENT: Final = 100


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms that a product and each of its expiries share."""

    product: str
    name: str
    gpu: str
    fabric: str
    cluster: str
    settlement: str
    contract_size: int  # GPUs of one lot
    tick: str  # dollars per GPU-hour, a power of ten
    price_step: int  # an order's price is a multiple of so many ticks
    lot_step: int  # and its quantity a multiple of so many lots
    limit_percent: int  # daily price limits, either side of the last settlement price
    margin_percent: int  # least initial margin, of the contract's value
    position_limit: int  # lots of one account, working orders counted
    max_order: int  # lots of one order
    maker_fee: int  # micro-dollars a lot; negative is a rebate
    taker_fee: int  # micro-dollars a lot
    factor_low: int  # deliverable conversion factors, at 1e-4
    factor_high: int


class ContractSpec(Terms, frozen=True, kw_only=True):
    """One version of a product's template.

    It is in force from ``effective``, for the expiries from ``first_expiry`` on; those listed
    before keep the version they were listed with.
    """

    effective: date
    first_expiry: Month
    listed_months: int

    def instrument(self, expiry: Month) -> "Instrument":
        """The expiry of this product for one delivery month."""
        start, end = delivery_period(expiry)
        terms = {name: getattr(self, name) for name in Terms.__struct_fields__}
        decimals = tick_decimals(self.tick)
        return Instrument(
            **terms,
            code=symbol.code(self.product, expiry),
            expiry=str(expiry),
            version=self.effective,
            multiplier=self.contract_size * expiry.hours,
            tick_scale=10 ** (PRICE_DECIMALS - decimals),
            decimals=decimals,
            last_trading_day=last_trading_day(expiry),
            delivery_start=start,
            delivery_end=end,
        )


class Instrument(Terms, frozen=True, kw_only=True):
    """One listed expiry. Encoded by msgspec as it stands, it is what the wire shows of it."""

    code: str
    expiry: str  # YYYY-MM, the delivery month
    version: date  # ``effective`` of its template
    multiplier: int  # GPU-hours of one lot
    tick_scale: int  # clearing units of one tick
    decimals: int  # of a price's text
    last_trading_day: date
    delivery_start: datetime
    delivery_end: datetime  # the first instant after the delivery period

    @property
    def tick_value(self) -> int:
        """Micro-dollars that one tick is worth on one lot."""
        return self.multiplier * self.tick_scale

    def limits(self, *, settlement_micros: int) -> tuple[int, int]:
        """Lowest and highest price of an order in ticks, both on the price step.

        Rounded inwards, so that no limit is wider than stated; the low one stays above zero.
        """
        reach = settlement_micros * self.limit_percent // _PERCENT
        step = self.tick_scale * self.price_step
        low = -(-(settlement_micros - reach) // step)
        high = (settlement_micros + reach) // step
        if settlement_micros <= 0 or high < max(low, 1):
            raise ValueError(f"{self.code}: no price within limits of {settlement_micros} micros")
        return max(low, 1) * self.price_step, high * self.price_step

    def margin_rate(self, *, price_micros: int) -> int:
        """Initial margin of one lot at a clearing price: micro-dollars, rounded up."""
        return -(-abs(price_micros) * self.multiplier * self.margin_percent // _PERCENT)

    def to_json(self) -> str:
        """The text that travels with the listing of this instrument."""
        return msgspec.json.encode(self).decode("ascii")

    @classmethod
    def from_json(cls, text: str) -> "Instrument":
        """The instrument of ``to_json``; msgspec.ValidationError if it is none."""
        return msgspec.json.decode(text, type=cls)


def tick_decimals(tick: str) -> int:
    """Decimals of a tick that is a power of ten: 3 of ``"0.001"``; ValueError for any other."""
    decimals = len(tick) - len("0.")
    if not 1 <= decimals <= PRICE_DECIMALS or tick != "0." + "1".rjust(decimals, "0"):
        raise ValueError(f"tick {tick[:16]!a} is not a power of ten from 0.000001 to 0.1")
    return decimals
