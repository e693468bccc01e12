"""Instruments in Deribit's form.

An ``instrument_name`` is the native code: ``H100Z26``, ``H100Z26-H100F27``. The base currency is
the product (``H100``, ``H100P``); all instruments are quoted and settled in USD; combinations have
the kind ``future_combo``.
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
_STATES: Final = {TradingState.CONTINUOUS: "open", TradingState.HALTED: "halted"}


def kind_of(instrument: Instrument) -> str:
    """Return an instrument's kind: ``future`` or ``future_combo``."""
    return COMBO if instrument.legs else FUTURE


def base_of(instrument: Instrument, instruments: Instruments) -> str:
    """Return an instrument's product, of a combination that of its first leg; its code if it has
    no product."""
    while instrument.legs:
        instrument = instruments.by_id[instrument.legs[0][0]]
    return instrument.data.product or instrument.code


def find(instruments: Instruments, name: str, param: str = "instrument_name") -> Instrument:
    """Return the instrument of that name; raises Failure, which names the ``param``."""
    found = instruments.by_code.get(name)
    if found is None:
        data = {
            "reason": Reason.UNKNOWN_INSTRUMENT.name,
            "number": int(Reason.UNKNOWN_INSTRUMENT),
            "param": param,
        }
        raise Failure(13020, "not_found", data)
    return found


def chosen(instruments: Instruments, currency: str, kind: str) -> list[Instrument]:
    """Return the instruments of a currency and a kind, in listing order.

    Raises Failure for an unknown currency or kind.
    """
    if kind not in KINDS:
        raise wrong_param("kind", Reason.PARAMETER_RANGE, " ".join(KINDS))
    if currency not in ("any", CURRENCY) and currency not in currencies(instruments):
        raise wrong_param("currency", Reason.NOT_FOUND, "no such currency")
    listed = instruments.by_id.values()
    return [one for one in listed if is_of(one, instruments, currency, kind)]


def is_of(instrument: Instrument, instruments: Instruments, currency: str, kind: str) -> bool:
    """Return whether an instrument is of a currency and a kind."""
    if kind != "any" and kind_of(instrument) != (COMBO if kind == "combo" else kind):
        return False
    return currency in ("any", CURRENCY) or base_of(instrument, instruments) == currency


def currencies(instruments: Instruments) -> list[str]:
    """Return USD, then every base currency in listing order."""
    bases = (base_of(one, instruments) for one in instruments.by_id.values())
    return list(dict.fromkeys((CURRENCY, *bases)))


def is_expired(instrument: Instrument) -> bool:
    """Return whether an instrument has expired."""
    return instrument.state == TradingState.EXPIRED


def expiration_ms(instrument: Instrument) -> int:
    """Return when an instrument expires, in ms since the epoch, UTC; 0 if it is not known.

    That is the last second of its last trading day or, if that is not known, of the month before
    its month of expiry.
    """
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
    """Return an instrument's terms; ``listed_ms`` is when it was listed, 0 if unknown."""
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
        "is_active": not is_expired(instrument),
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
    """Return an instrument's mark in micro-dollars by the given ``marks``, by instrument id.

    As ``Instruments.mark``, for another time. An instrument not in ``marks`` has its present mark.
    """
    if not instrument.legs:
        return marks.get(instrument.id, instrument.mark)
    parts = [(instruments.by_id[number], ratio) for number, ratio in instrument.legs]
    if instrument.rule == CombinationRule.DIFFERENCE:
        return sum(ratio * mark_by(leg, instruments, marks) for leg, ratio in parts)
    worth = sum(ratio * leg.multiplier * mark_by(leg, instruments, marks) for leg, ratio in parts)
    return worth // instrument.multiplier


def mark_text(instrument: Instrument, instruments: Instruments) -> str:
    """Return the mark as decimal text; a combination's is computed from its legs' marks."""
    return micros_text(instruments.mark(instrument))
