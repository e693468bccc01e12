"""Instruments as the released stream describes them, and their prices as text.

Units: ``price_ticks`` counts the instrument's ticks; a clearing price (mark, settlement) counts
millionths of a dollar per GPU-hour. Both are converted to exact decimal strings, never to floats.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from exchange.marketdata.stream import Row
from exchange.messages import Breaker, CombinationRule, EventKind, HaltCause, TradingState
from exchange.messages.wire import InstrumentData, read_listing
from exchange.messages.wire_auction import RuleText

MICRO_DIGITS: Final = 6  # decimals of a clearing price and of money
CACHE_ENTRIES: Final = 65_536  # prices remembered as text per instrument


def decimal_text(units: int, digits: int) -> str:
    """Return ``units`` of 10**-digits as a decimal string with exactly ``digits`` decimals."""
    sign = "-" if units < 0 else ""
    if digits == 0:
        return f"{units}"
    whole, part = divmod(abs(units), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"


def micros_text(micros: int) -> str:
    """Return micro-dollars, or a clearing price, as dollars with six decimals."""
    return decimal_text(micros, MICRO_DIGITS)


class Protections(NamedTuple):
    """The protections of an instrument's orders; 0: not set."""

    band: int = 0  # largest distance from the reference price, in ticks
    accountability: int = 0  # lots
    order_value: int = 0  # micro-dollars
    all_months: int = 0  # lots


class Window(NamedTuple):
    """The window of a circuit breaker. A variation of 0 means that there is none."""

    variation: int = 0  # ticks
    product: bool = False  # the whole product halts
    span_ns: int = 0
    halt_ns: int = 0  # 0: until an operator resumes trading


class Risk(NamedTuple):
    """The figures of a SET_RISK, in its order."""

    rate: int = 0  # micro-dollars of hold per lot
    position_limit: int = 0
    max_order: int = 0
    maker_fee: int = 0
    taker_fee: int = 0
    credit: int = 0  # of a spread: micro-dollars that a pair of its legs need not hold


class Instrument:
    """One listed instrument: its listing and its present figures."""

    def __init__(self, row: Row, text: str | None) -> None:
        self.id = row[5]
        self.multiplier = row[9]
        self.tick_scale = row[10]  # clearing-price units per tick
        self.tick_value = self.multiplier * self.tick_scale  # micro-dollars of a tick per lot
        self.product = row[11]  # its number
        self.price_step = row[7]
        self.lot_step = row[4]
        self.low_ticks, self.high_ticks = row[13], row[14]
        self.mark = self.anchor = row[8]  # unused for a combination, see Instruments.mark
        self.legs: list[tuple[int, int]] = []  # instrument id, ratio; of a combination
        self.rule = CombinationRule.DIFFERENCE
        self.state = TradingState.CLOSED
        self.cause = HaltCause.NONE
        self.resumes = 0  # stamp at which the halt ends by itself; 0 if it does not
        self.risk = Risk()
        self.protections = Protections()
        self.breakers: dict[Breaker, Window] = {}
        self.implied = False
        self.settlement_price: int | None = None
        self.data = read_listing(text) if text else self._unnamed()
        self.code = self.data.code
        self.decimals = self.data.decimals
        unit: int = 10 ** (MICRO_DIGITS - self.decimals)
        if self.tick_scale % unit:
            raise ValueError(f"{self.code}: tick is finer than {self.decimals} decimals")
        self.tick_units = self.tick_scale // unit  # a tick in units of the last decimal
        self._price_texts: dict[int, str] = {}  # cache, by ticks
        self.channels = (f"depth.{self.code}", f"trades.{self.code}", f"state.{self.code}")

    def _unnamed(self) -> InstrumentData:
        """Return the data of a listing without text: it is named by its number."""
        return InstrumentData(
            code=f"I{self.id}",
            product="",
            expiry="",
            multiplier=self.multiplier,
            tick=micros_text(self.tick_scale),
            decimals=MICRO_DIGITS,
        )

    def price_text(self, ticks: int) -> str:
        """Return a price in ticks as dollars per GPU-hour."""
        text = self._price_texts.get(ticks)
        if text is None:
            if len(self._price_texts) >= CACHE_ENTRIES:
                self._price_texts.clear()
            text = decimal_text(ticks * self.tick_units, self.decimals)
            self._price_texts[ticks] = text
        return text

    def describe(self) -> InstrumentData:
        """Return the listing's data with the figures that have changed since."""
        data = self.data
        return InstrumentData(
            code=data.code,
            product=data.product,
            expiry=data.expiry,
            multiplier=self.multiplier,
            tick=data.tick,
            decimals=data.decimals,
            name=data.name,
            last_trading_day=data.last_trading_day,
            instrument_id=self.id,
            lot_step=self.lot_step,
            max_order=self.risk.max_order,
            state=self.state.name,
            legs=data.legs,
            price_rule=_RULES[self.rule] if self.legs else None,
            implied=self.implied,
        )

    @property
    def rate(self) -> int:
        """Micro-dollars of hold per lot."""
        return self.risk.rate


class Instruments:
    """Every listed instrument, by number and by code, and the market's business date."""

    def __init__(self) -> None:
        self.by_id: dict[int, Instrument] = {}
        self.by_code: dict[str, Instrument] = {}
        self.combinations: dict[int, list[int]] = {}  # by leg
        self.business_date: int | None = None
        self.products: dict[str, int] = {}  # numbers by name
        self.product_names: dict[int, str] = {}

    def value(self, instrument: Instrument) -> int:
        """Return the value of one lot at the mark, in micro-dollars; a combination's from its legs.

        docs/reference/engine.md explains why a difference of unequal months uses its anchors.
        """
        if not instrument.legs:
            return instrument.mark * instrument.multiplier
        legs = [(self.by_id[number], ratio) for number, ratio in instrument.legs]
        worth = sum(ratio * leg.multiplier * leg.mark for leg, ratio in legs)
        if instrument.rule == CombinationRule.DIFFERENCE:
            last = legs[-1][0].multiplier
            worth -= sum(r * leg.anchor * (leg.multiplier - last) for leg, r in legs[:-1])
        return worth

    def mark(self, instrument: Instrument) -> int:
        """Return the mark as a clearing price; a combination's from its legs' marks."""
        return self._combined(instrument, lambda leg: leg.mark)

    def reference(self, instrument: Instrument) -> int:
        """Return the price that the day's change is measured from, as a clearing price;
        likewise."""
        return self._combined(instrument, lambda leg: leg.anchor)

    def _combined(self, instrument: Instrument, price: Callable[[Instrument], int]) -> int:
        """Return ``price`` of an instrument, or that of a combination computed from its legs'
        prices."""
        if not instrument.legs:
            return price(instrument)
        legs = [(self.by_id[number], ratio) for number, ratio in instrument.legs]
        if instrument.rule == CombinationRule.DIFFERENCE:
            return sum(ratio * price(leg) for leg, ratio in legs)
        worth = sum(ratio * leg.multiplier * price(leg) for leg, ratio in legs)
        return worth // instrument.multiplier

    def priced(self, number: int) -> Iterator[int]:
        """Yield an instrument's number and those of the combinations that it is a leg of."""
        yield number
        yield from self.combinations.get(number, ())

    def credit(self, leaning: Mapping[int, int]) -> int:
        """Return the spread credit in micro-dollars: the hold that opposite lots in both legs of a
        spread are spared.

        ``leaning`` is net lots by instrument; the rule is in docs/reference/engine.md.
        """
        left, total = dict(leaning), 0
        for amount, _, one, other in sorted(self._credits()):
            if left.get(one, 0) < 0:
                one, other = other, one
            pairs = min(left.get(one, 0), -left.get(other, 0))
            if pairs > 0:
                left[one] -= pairs
                left[other] += pairs
                total -= amount * pairs
        return total

    def _credits(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (-credit of a pair, number, both legs) of every live spread that has a credit."""
        for spread in self.by_id.values():
            if spread.risk.credit and spread.state != TradingState.EXPIRED:
                legs = [self.by_id[number] for number, _ in spread.legs]
                amount = min(spread.risk.credit, *(leg.rate for leg in legs))
                yield -amount, spread.id, legs[0].id, legs[1].id

    def apply(self, row: Row, text: str | None) -> Instrument | None:
        """Apply one event; return the instrument that it changed, if any. If its price changed,
        those of ``priced`` changed as well."""
        kind = row[2]
        if kind == EventKind.INSTRUMENT_LISTED:
            instrument = Instrument(row, text)
            self.by_id[instrument.id] = instrument
            self.by_code[instrument.code] = instrument
            if instrument.data.product and not instrument.data.legs:
                self.products.setdefault(instrument.data.product, instrument.product)
                self.product_names.setdefault(instrument.product, instrument.data.product)
            return instrument
        if kind == EventKind.DAY_OPENED:
            self.business_date = row[9]
            return None
        if kind not in _CHANGES:
            return None
        instrument = self.by_id[row[5]]
        if kind == EventKind.LIMITS_CHANGED:
            instrument.low_ticks, instrument.high_ticks = row[13], row[14]
        elif kind == EventKind.LEG_LISTED:
            instrument.legs.append((row[7], row[8]))
            self.combinations.setdefault(row[7], []).append(instrument.id)
            instrument.rule = CombinationRule(row[4])
        elif kind == EventKind.RISK_CHANGED:
            instrument.risk = Risk(row[8], row[9], row[10], row[13], row[14], row[11])
        elif kind == EventKind.STATE_CHANGED:
            instrument.state, instrument.cause = TradingState(row[9]), HaltCause(row[4])
            instrument.resumes = row[14] if instrument.state == TradingState.HALTED else 0
        elif kind == EventKind.PROTECTIONS_CHANGED:
            instrument.protections = Protections(row[8], row[9], row[13], row[14])
        elif kind == EventKind.BREAKER_CHANGED:
            window = Window(row[8], bool(row[9]), row[13], row[14])
            instrument.breakers[Breaker(row[4])] = window
        elif kind == EventKind.IMPLIED_CHANGED:
            instrument.implied = bool(row[9])
        else:
            instrument.mark = row[8]
            if kind != EventKind.MARKED:
                instrument.settlement_price = instrument.anchor = row[8]
            if kind == EventKind.INSTRUMENT_EXPIRED:
                instrument.state = TradingState.EXPIRED
        return instrument


_RULES: Final[dict[CombinationRule, RuleText]] = {
    CombinationRule.DIFFERENCE: "difference",
    CombinationRule.AVERAGE: "average",
}
_CHANGES: Final = frozenset(
    {
        EventKind.LIMITS_CHANGED,
        EventKind.LEG_LISTED,
        EventKind.RISK_CHANGED,
        EventKind.STATE_CHANGED,
        EventKind.PROTECTIONS_CHANGED,
        EventKind.BREAKER_CHANGED,
        EventKind.IMPLIED_CHANGED,
        EventKind.MARKED,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.INSTRUMENT_EXPIRED,
    }
)
