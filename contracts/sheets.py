"""The contract sheet: one instrument, combination or product as a hedger reads it."""

import textwrap
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from contracts.calendar import Calendar
from contracts.decimal_text import format_price
from contracts.rules import FACTOR_DECIMALS
from contracts.spec import PAR_FACTOR, PHYSICAL, Combination, Instrument, Listed, Terms

_MICROS: Final = 1_000_000
_LABEL_CHARS: Final = 18
_LINE_CHARS: Final = 100

Row = tuple[str, str]


def sheet(listed: Listed, days: Calendar) -> str:
    """Return all terms of one lot of an instrument or combination, one fact per line."""
    if isinstance(listed, Combination):
        return rows_text(f"{listed.code}: {listed.name}", _combination_rows(listed))
    rows = [
        *_delivery_rows(listed),
        ("one lot", _lot(listed)),
        *_date_rows(listed, days),
        *grade_rows(listed),
        *_trading_rows(listed),
        *protection_rows(listed),
    ]
    return rows_text(f"{listed.code}: {listed.name}", [*rows, ("terms as of", f"{listed.version}")])


def rows_text(title: str, rows: Iterable[Row]) -> str:
    """Return a title and one line per row: labels on the left, long values on several lines."""
    indent = " " * _LABEL_CHARS
    lines = [
        textwrap.fill(
            value,
            _LINE_CHARS,
            initial_indent=f"{label:<{_LABEL_CHARS}}",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, value in rows
    ]
    return "\n".join([title, "", *lines]) + "\n"


def _delivery_rows(listed: Instrument) -> list[Row]:
    start, end = (moment.astimezone(UTC) for moment in (listed.delivery_start, listed.delivery_end))
    hours = listed.multiplier // listed.contract_size
    return [
        ("delivery month", listed.expiry),
        ("delivery period", f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, {hours} hours"),
        ("settlement", settlement_rule(listed)),
        ("index", f"{listed.index}, methodology {listed.methodology}"),
    ]


def settlement_rule(terms: Terms) -> str:
    """Return in one sentence how a position ends."""
    if terms.settlement == PHYSICAL:
        return "Physical: last settlement price x conversion factor x hours, invoices to the cent"
    return f"Cash: mean of the month's daily {terms.index} fixings, rounded once to $0.000001"


def _lot(listed: Instrument) -> str:
    gpus = listed.contract_size
    hours = listed.multiplier // gpus
    return f"{gpus} GPU{'s' * (gpus > 1)} x {hours} hours = {listed.multiplier} GPU-hours"


def _date_rows(listed: Instrument, days: Calendar) -> list[Row]:
    rows = [
        ("listed", _day(listed.listed_on)),
        ("factors published", _day(listed.factors_published)),
        ("factors frozen", _day(listed.factors_frozen)),
        ("first notice day", _day(listed.first_notice_day)),
        ("last trading day", _day(listed.last_trading_day)),
        ("last notice day", f"{_day(listed.last_notice_day)}, until {listed.notice_cutoff}"),
        ("final settlement", _day(listed.final_settlement_day)),
    ]
    physical = ("factors published", "factors frozen", "first notice day", "last notice day")
    if listed.settlement != PHYSICAL:
        rows = [row for row in rows if row[0] not in physical]
    return [*rows, ("sessions", session_rule(days, listed.last_trading_day))]


def session_rule(days: Calendar, day: date) -> str:
    """Return the hours of a session in local time, and in UTC on one day."""
    session = days.session(day)
    place = days.time_zone
    zone = ZoneInfo(place)

    def clock(moment: datetime) -> str:
        return f"{moment.astimezone(zone):%H:%M}"

    return (
        f"{clock(session.opens)} the day before to {clock(session.closes)} {place}"
        f" ({session.opens:%H:%M} to {session.closes:%H:%M} UTC on the last trading day),"
        " daily settlement by the five minutes before the close"
    )


def grade_rows(terms: Terms) -> list[Row]:
    """Return rows on the quality of an hour, and on what may be delivered for it."""
    rows = [
        ("grade", f"{terms.gpu} ({terms.hardware})"),
        ("fabric", terms.fabric),
        ("cluster", f"{terms.cluster_low} to {terms.cluster_high} GPUs on one fabric"),
        ("factors", f"{_factor(terms.factor_low)} to {_factor(terms.factor_high)}"
         f", par {_factor(PAR_FACTOR)}"),
    ]  # fmt: skip
    if terms.settlement == PHYSICAL:
        tolerance, floor = _factor(terms.true_up_tolerance), _factor(terms.goodput_floor)
        rows += [
            ("deliverable", ", ".join(terms.grades)),
            ("delivered in", f"{terms.delivery_step} lots, {terms.node_gpus} GPUs a node"),
            ("true-up", f"goodput short by more than {tolerance}; under {floor} a failed delivery:"
             f" bought in, and {terms.failure_percent} % of its value"),
        ]  # fmt: skip
    return rows


def _trading_rows(listed: Instrument) -> list[Row]:
    step = format_price(listed.price_step, listed.decimals)
    step_value = listed.price_step * listed.tick_value
    lots = f"{listed.lot_step} lot{'s' * (listed.lot_step > 1)}"
    return [
        ("price", f"{listed.unit}, in steps of ${step}, {dollars(step_value)} a lot"),
        ("quantity", f"in steps of {lots}, at most {listed.max_order:,} an order"),
    ]


def protection_rows(terms: Terms) -> list[Row]:
    """Return the rows on limits, margins and fees."""
    ending = "delivered" if terms.settlement == PHYSICAL else "at final settlement"
    return [
        ("daily limits", f"{terms.limit_percent} % either side of the last settlement price"),
        ("price band", f"{terms.band_percent} % through the reference price"),
        ("order value", f"at most ${terms.order_value_limit:,}"),
        ("initial margin", f"at least {terms.margin_percent} % of the contract's value,"
         f" {terms.spot_margin_percent} % in the spot month"),
        ("maintenance", f"{terms.maintenance_percent} % of initial margin"),
        ("spread charge", f"{terms.spread_percent} % of the near leg's value"),
        ("position limits", f"{terms.position_limit:,} lots an expiry,"
         f" {terms.all_months_limit:,} over all, {terms.spot_month_limit:,} in the spot month,"
         f" there at most {terms.spot_supply_percent} % of attested supply"),
        ("accountability", f"{terms.accountability_level:,} lots an expiry are reported"),
        ("fees a lot", f"{dollars(terms.maker_fee)} to rest, {dollars(terms.taker_fee)} to take,"
         f" {dollars(terms.final_fee)} {ending}"),
    ]  # fmt: skip


def _combination_rows(listed: Combination) -> list[Row]:
    signs = {
        leg.code: f"{'buy' if leg.ratio > 0 else 'sell'} {abs(leg.ratio)}" for leg in listed.legs
    }
    rows = [
        (f"leg {place}", f"{signs[leg.code]} {leg.code}, {leg.multiplier} GPU-hours")
        for place, leg in enumerate(listed.legs, start=1)
    ]
    rule = "sum of the legs' prices times their lots, sold ones negative; may be negative"
    if listed.averaged:
        rule = "one flat price for every hour of the months"
    elif listed.kind == "spread":
        rule = "price of the near month less price of the far month; may be negative"
    step = format_price(listed.price_step, listed.decimals)
    return [
        *rows,
        ("one lot", f"{listed.net_hours} GPU-hours net, all legs or none"),
        ("price", f"{rule}, in steps of ${step}"),
        ("quantity", f"in steps of {listed.lot_step}, at most {listed.max_order:,} an order"),
        ("fees", "those of each leg"),
        ("listed", _day(listed.listed_on)),
        ("last trading day", _day(listed.last_trading_day)),
        ("terms as of", f"{listed.version}"),
    ]


def _day(day: date | None) -> str:
    return "" if day is None else f"{day:%A %Y-%m-%d}"


def dollars(micros: int) -> str:
    """Return an amount in dollars with two decimals, or as many as it needs."""
    whole, fraction = divmod(abs(micros), _MICROS)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}${whole:,}.{decimals}"


def _factor(value: int) -> str:
    return format_price(value, FACTOR_DECIMALS)
