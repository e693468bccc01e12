"""Margin of deliveries that have not ended: what a side could owe that does not perform.

When a physical contract expires, its positions are gone, and with them scan, variation and hold.
What remains is a promise, of the hours and of their price. Until a side has kept it, it must have
what an outright lot of the spot month must have, on the same value:

    rate     the product's scan range of the nearest band + delivery_bp, at least the penalty
    buyer    rate x invoice, until the invoice is in escrow: then it owes nothing
    seller   rate x value of the hours that would be missing if it stopped now
             + what these hours cost more at the latest fixing
             + what it owes already: true-up, or under the floor everything earned

A contract that has not expired is margined by its positions. Money is in micro-dollars, rounded up
once for each side of each delivery.
"""

from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Final

from contracts.grades.delivery import invoice_cents
from exchange.clearing.delivery import course
from exchange.clearing.delivery.course import Delivery
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.delivery.slices import buy_in
from exchange.clearing.delivery.terms import Terms
from exchange.clearing.expiry import Fixings
from exchange.clearing.margin.matter import MarginVersions
from exchange.clearing.margin.parameters import MarginParameters, root_of
from exchange.clearing.margin.rules import BP, PERCENT, up
from exchange.clearing.moves import MICROS_A_CENT

if TYPE_CHECKING:
    from exchange.clearing.state import State

_OPEN: Final = ("invoiced", "delivering", "failing")  # stages of a promise without a position


def charges(
    state: "State",
    parameters: MarginParameters,
    *,
    account: int | None = None,
    but: Container[int] = (),
) -> dict[int, dict[str, int]]:
    """Return the margin of every account's deliveries, by account and product.

    ``account`` limits the result to one account, ``but`` excludes some. KeyError for a delivery of
    a product that the parameters do not cover.
    """
    found: dict[int, dict[str, int]] = {}
    fixings = state.matters.get(Fixings)
    for delivery, terms in promised(state):
        for place, side in enumerate(bound(delivery)):
            if side in but or account not in (None, side):
                continue
            product, rate_bp = root_of(terms.code), _rate_bp(parameters, terms)
            if place == 0:
                amount = _sellers(delivery, terms, rate_bp, fixings.latest(terms.index))
            else:
                amount = up(delivery.invoice * MICROS_A_CENT * rate_bp, BP)
            by_product = found.setdefault(side, {})
            by_product[product] = by_product.get(product, 0) + amount
    return found


def bound(delivery: Delivery) -> list[int]:
    """Return the accounts that have not kept their side of a delivery: the seller, and the buyer
    until it has paid. They may be one account, that of a ported client."""
    return [delivery.seller] + [delivery.buyer] * (delivery.stage == "invoiced")


def of_account(state: "State", account: int) -> int:
    """Return the margin of one account's deliveries: 0 while no parameters are in force, and for
    products that they do not cover."""
    parameters = state.matters.get(MarginVersions).in_force(state.business_date)
    if parameters is None:
        return 0
    try:
        by_product = charges(state, parameters, account=account).get(account, {})
    except KeyError:
        return 0
    return sum(by_product.values())


def promised(state: "State") -> Iterator[tuple[Delivery, Terms]]:
    """Yield every delivery, with its contract's terms, that has no position any more and has not
    ended."""
    matter = state.matters.get(Deliveries)
    for delivery in matter.deliveries:
        if delivery.stage in _OPEN:
            yield delivery, matter.expiries[delivery.instrument].terms


def _rate_bp(parameters: MarginParameters, terms: Terms) -> int:
    product = parameters.of(root_of(terms.code))
    return max(product.scan_bp(0) + product.delivery_bp, terms.penalty_percent * BP // PERCENT)


def _sellers(delivery: Delivery, terms: Terms, rate_bp: int, fixing: int | None) -> int:
    hours, owed = course.to_make_good(delivery, terms)
    now = delivery.price if fixing is None else fixing
    dearer = buy_in(
        price_micros=delivery.price, fixing_micros=now, hours=hours, lots=delivery.lots,
        factor_e4=delivery.factor_e4, penalty_percent=0,
    ).dearer  # fmt: skip
    value = invoice_cents(
        price_micros=delivery.price, hours=hours, lots=delivery.lots, factor_e4=delivery.factor_e4
    )
    return (owed + dearer) * MICROS_A_CENT + up(value * MICROS_A_CENT * rate_bp, BP)
