"""Instruments as Deribit shows them.

An ``instrument_name`` is the native code, unchanged: ``H100Z26``, ``H100Z26-H100F27``. Its base
currency is the product (``H100``, ``H100P``), everything is quoted and settled in USD, and
combinations are of kind ``future_combo``.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from exchange.gateway.dialects.deribit.numbers import exact
from exchange.gateway.dialects.deribit.rpc import Failure, wrong_param
from exchange.marketdata.instruments import Instrument, Instruments, micros_text
from exchange.messages import CombinationRule, Reason, TradingState

CURRENCY: Final = "USD"
FUTURE, COMBO = "future", "future_combo"
KINDS: Final = ("any", "combo", "spot", "option", "option_combo", FUTURE, COMBO)
_ENDED: Final = (TradingState.EXPIRED,)
_STATES: Final = {TradingState.CONTINUOUS: "open", TradingState.HALTED: "halted"}


def kind_of(instrument: Instrument) -> str:
    """Return an instrument's kind."""
    return COMBO if instrument.legs else FUTURE


def base_of(instrument: Instrument, instruments: Instruments) -> str:
    """Return what an instrument is a future on; of a combination what its first leg is."""
    while instrument.legs:
        instrument = instruments.by_id[instrument.legs[0][0]]
    return instrument.data.product or instrument.code


def find(instruments: Instruments, name: str) -> Instrument:
    """Return the instrument of that name; raises Failure."""
    found = instruments.by_code.get(name)
    if found is None:
        data = {
            "reason": Reason.UNKNOWN_INSTRUMENT.name,
            "number": int(Reason.UNKNOWN_INSTRUMENT),
            "param": "instrument_name",
        }
        raise Failure(13020, "not_found", data)
    return found


def chosen(instruments: Instruments, currency: str, kind: str) -> list[Instrument]:
    """Return the instruments that a currency and a kind choose, in listing order.

    Raises Failure for a currency or kind that there is not.
    """
    if kind not in KINDS:
        raise wrong_param("kind", Reason.PARAMETER_RANGE, " ".join(KINDS))
    if currency not in ("any", CURRENCY) and currency not in currencies(instruments):
        raise wrong_param("currency", Reason.NOT_FOUND, "no such currency")
    listed = instruments.by_id.values()
    return [one for one in listed if is_of(one, instruments, currency, kind)]


def is_of(instrument: Instrument, instruments: Instruments, currency: str, kind: str) -> bool:
    """Return whether a currency and a kind choose an instrument."""
    if kind != "any" and kind_of(instrument) != (COMBO if kind == "combo" else kind):
        return False
    return currency in ("any", CURRENCY) or base_of(instrument, instruments) == currency


def currencies(instruments: Instruments) -> list[str]:
    """Return USD, then every base currency in listing order."""
    bases = (base_of(one, instruments) for one in instruments.by_id.values())
    return list(dict.fromkeys((CURRENCY, *bases)))


def expiration_ms(instrument: Instrument) -> int:
    """Return the last second of the last trading day in UTC; of its month where none is known."""
    data = instrument.data
    if data.last_trading_day:
        day = datetime.fromisoformat(data.last_trading_day).replace(tzinfo=UTC)
        end = day + timedelta(days=1)
    elif data.expiry:
        end = datetime.fromisoformat(f"{data.expiry[:7]}-01").replace(tzinfo=UTC)
    else:
        return 0
    return (int(end.timestamp()) - 1) * 1_000


def describe(instrument: Instrument, instruments: Instruments, listed_ms: int) -> dict[str, Any]:
    """Return what a client must know to trade an instrument."""
    base = base_of(instrument, instruments)
    return {
        "instrument_name": instrument.code,
        "instrument_id": instrument.id,
        "instrument_type": "linear",
        "kind": kind_of(instrument),
        "base_currency": base,
        "quote_currency": CURRENCY,
        "counter_currency": CURRENCY,
        "settlement_currency": CURRENCY,
        "price_index": f"{base.lower()}_usd",
        "settlement_period": "month",
        "creation_timestamp": listed_ms,
        "expiration_timestamp": expiration_ms(instrument),
        "is_active": instrument.state not in _ENDED,
        "state": book_state(instrument),
        "contract_size": instrument.multiplier,
        "min_trade_amount": instrument.lot_step,
        "tick_size": exact(instrument.price_text(max(1, instrument.price_step))),
        "tick_size_steps": [],
        "maker_commission": 0,
        "taker_commission": 0,
        "rfq": False,
    }


def book_state(instrument: Instrument) -> str:
    """Return ``open``, ``halted`` or ``closed``."""
    return _STATES.get(instrument.state, "closed")


def mark_by(instrument: Instrument, instruments: Instruments, marks: Mapping[int, int]) -> int:
    """Return the mark as a clearing price as of ``marks``, by instrument: ``Instruments.mark`` of
    another time. Of an instrument that is not in them its present one counts."""
    if not instrument.legs:
        return marks.get(instrument.id, instrument.mark)
    parts = [(instruments.by_id[number], ratio) for number, ratio in instrument.legs]
    if instrument.rule == CombinationRule.DIFFERENCE:
        return sum(ratio * mark_by(leg, instruments, marks) for leg, ratio in parts)
    worth = sum(ratio * leg.multiplier * mark_by(leg, instruments, marks) for leg, ratio in parts)
    return worth // instrument.multiplier


def mark_text(instrument: Instrument, instruments: Instruments) -> str:
    """Return the mark as decimal text; of a combination what its legs' marks come to."""
    return micros_text(instruments.mark(instrument))
