"""The expiries to list when a business date is opened, each with its first mark."""

import logging
from collections.abc import Iterator
from datetime import date, timedelta
from fractions import Fraction
from typing import Final

from contracts import prices, registry
from contracts.calendar import CalendarError
from contracts.compare import differences
from contracts.spec import Instrument as Terms
from exchange.app import wishes_market
from exchange.app.desk import Desk
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing
from exchange.messages import Limit
from exchange.messages.dates import number_of

_YEAR_DAYS: Final = 366
_INSTRUMENTS_MAX: Final = int(Limit.INSTRUMENTS)
_log = logging.getLogger(__name__)


def missing(desk: Desk, clearing: Clearing, day: date) -> list[Wish]:
    """Return the listings of the expiries opened on ``day`` that are not listed yet.
    RequestRefused.

    A listed expiry keeps the terms of its listing, whatever the files say now.
    """
    todo: list[Wish] = []
    parameters = clearing.margin_parameters(number_of(day))
    number = len(desk.instruments.by_id)
    products = dict(desk.instruments.products)  # numbers by name, from 1
    try:
        opening = registry.load().opening(day)
        for terms, mark in _first_marks(desk, opening):
            if number >= _INSTRUMENTS_MAX:
                _log.error("%s is not listed: no instrument has a number left", terms.code)
                continue
            product = products.setdefault(terms.product, len(products) + 1)
            todo += wishes_market.listing(terms, number, mark, day, parameters, product=product)
            number += 1
    except (CalendarError, ValueError) as error:
        raise RequestRefused(str(error)) from error
    _look_ahead(day)
    return todo


def _first_marks(desk: Desk, opening: list[Terms]) -> Iterator[tuple[Terms, int]]:
    """Yield the expiries to be listed, each with its first mark on its price step. RequestRefused.

    The mark continues from the last settlement price of the month before with an assumed slope
    (contracts/data/prices_2026.toml); a product's first month is at that file's spot level.
    """
    before: dict[str, Fraction] = {}  # by product, the price of the previous month
    for terms in opening:
        listed = desk.instruments.by_code.get(terms.code)
        if listed is not None:
            _say_what_differs(desk, terms)
            before[terms.product] = Fraction(desk.instruments.reference(listed))
            continue
        try:
            price = prices.following(terms.product, before.get(terms.product))
        except KeyError:
            raise RequestRefused(
                f"{terms.code} cannot be listed: {terms.product} has no price figures"
                " in contracts/data/"
            ) from None
        before[terms.product] = price
        step = terms.tick_scale * terms.price_step
        yield terms, round(price / step) * step


def _look_ahead(day: date) -> None:
    """Log a warning if the calendar ends within a year."""
    try:
        registry.load().opening(day + timedelta(days=_YEAR_DAYS))
    except CalendarError as error:
        _log.warning("from a year from now on no business date can be opened: %s", error)


def _say_what_differs(desk: Desk, terms: Terms) -> None:
    """Log a warning if a file was edited after its expiry was listed: listed terms never change."""
    listed = desk.terms.get(terms.code)
    if listed is None or listed == terms:
        return
    fields = ", ".join(
        f"{found.field} {found.before!r} not {found.after!r}"
        for found in differences(listed, terms)
    )
    _log.warning(
        "%s keeps the terms of its listing (%s): change terms by a new [[version]], for"
        " expiries not listed yet",
        terms.code,
        fields,
    )
