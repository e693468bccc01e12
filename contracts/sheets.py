"""The contract sheet: one instrument as a hedger reads it."""

from datetime import UTC
from typing import Final

from contracts.decimal_text import format_price
from contracts.spec import PAR_FACTOR, Instrument

_MICROS: Final = 1_000_000
_LABEL_CHARS: Final = 18


def sheet(instrument: Instrument) -> str:
    """Everything that one lot of an instrument promises and costs, a line a fact."""
    rows = _lot_rows(instrument) + _trading_rows(instrument)
    lines = [f"{label:<{_LABEL_CHARS}}{value}".rstrip() for label, value in rows]
    return "\n".join([f"{instrument.code}: {instrument.name}", "", *lines]) + "\n"


def _lot_rows(instrument: Instrument) -> list[tuple[str, str]]:
    gpus = instrument.contract_size
    start = instrument.delivery_start.astimezone(UTC)
    end = instrument.delivery_end.astimezone(UTC)
    hours = instrument.multiplier // gpus
    return [
        ("delivery month", instrument.expiry),
        ("delivery period", f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, {hours} hours"),
        ("last trading day", f"{instrument.last_trading_day:%A %Y-%m-%d}"),
        ("settlement", instrument.settlement),
        ("grade", instrument.gpu),
        ("fabric", instrument.fabric),
        ("cluster", instrument.cluster),
        ("factors", f"{_factor(instrument.factor_low)} to {_factor(instrument.factor_high)}"
         f", par {_factor(PAR_FACTOR)}"),
        ("one lot", f"{gpus} GPU{'s' * (gpus > 1)} x {hours} hours"
         f" = {instrument.multiplier} GPU-hours"),
    ]  # fmt: skip


def _trading_rows(instrument: Instrument) -> list[tuple[str, str]]:
    step = format_price(instrument.price_step, instrument.decimals)
    step_value = instrument.price_step * instrument.tick_value
    lots = f"{instrument.lot_step} lot{'s' * (instrument.lot_step > 1)}"
    return [
        ("price step", f"${step} per GPU-hour, {_dollars(step_value)} a lot"),
        ("quantity step", f"{lots}, at most {instrument.max_order:,} an order"),
        ("daily limits", f"{instrument.limit_percent} % either side of the last settlement price"),
        ("initial margin", f"at least {instrument.margin_percent} % of the contract's value"),
        ("position limit", f"{instrument.position_limit:,} lots an account"),
        ("fees a lot", f"{_dollars(instrument.maker_fee)} to rest,"
         f" {_dollars(instrument.taker_fee)} to take"),
        ("terms as of", f"{instrument.version}"),
    ]  # fmt: skip


def _dollars(micros: int) -> str:
    """Dollars with two decimals, or as many as the amount needs."""
    whole, fraction = divmod(abs(micros), _MICROS)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}${whole:,}.{decimals}"


def _factor(value: int) -> str:
    return f"{value // PAR_FACTOR}.{value % PAR_FACTOR:04d}"
