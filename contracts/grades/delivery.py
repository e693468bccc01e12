"""The money of a delivery: invoice, true-up, and the cheapest site to deliver.

All arithmetic is exact and rounds once, half to even. Prices are millionths of a dollar per
GPU-hour, factors and shares integers at 1e-4, amounts cents.

    invoice  = price x hours x lots x factor
    true-up  = invoice x min(cap, max(0, 1 - delivered / fixed - tolerance))     seller to buyer
    failure  if delivered / fixed is below the floor: no true-up, the lots count as not delivered
    basis    = spot - futures price x factor; cheapest to deliver: the least spot / factor
"""

from collections.abc import Sequence
from fractions import Fraction

import msgspec

from contracts.calendar import Month, delivery_period
from contracts.goodput.account import Account
from contracts.grades import Rules
from contracts.refusals import Refusal, Refused
from contracts.spec import PAR_FACTOR

_MICROS_A_CENT = 10_000
_SECOND_NS = 10**9


class TrueUp(msgspec.Struct, frozen=True, kw_only=True):
    """The true-up of one delivery month; ``shortfall_e6`` is the charged share, at 1e-6."""

    failed: bool
    realized_e6: int  # delivered over fixed
    shortfall_e6: int
    cents: int


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A site's current spot price."""

    provider: str
    facility: str
    price_micros: int


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """One deliverable site compared with the futures price."""

    provider: str
    facility: str
    price_micros: int
    factor_e4: int
    normalized_micros: int  # price over factor, half to even
    basis_micros: int  # price minus futures price times factor, half to even


def invoice_cents(
    *, price_micros: int | Fraction, hours: int, lots: int, factor_e4: int = PAR_FACTOR
) -> int:
    """Return an invoice in cents for ``lots`` lots of ``hours`` GPU-hours, rounded once."""
    return round(_micros(price_micros, hours, lots, factor_e4) / _MICROS_A_CENT)


def _micros(price_micros: int | Fraction, hours: int, lots: int, factor_e4: int) -> Fraction:
    return Fraction(price_micros) * hours * lots * factor_e4 / PAR_FACTOR


def true_up(
    *,
    price_micros: int,
    hours: int,
    lots: int,
    factor_e4: int,
    fixed_e4: int,
    lost_ns: int,
    elapsed_ns: int,
    rules: Rules,
) -> TrueUp:
    """Return what the seller owes for the time it lost: ``lost_ns`` of ``elapsed_ns``.

    ``fixed_e4`` is the goodput that the site's factor assumes. Raises Refused TIME_ORDER for
    negative or no time, GOODPUT_RANGE for more lost than elapsed or ``fixed_e4`` not above 0 and up
    to 1.
    """
    if lost_ns < 0 or elapsed_ns <= 0:
        raise Refused(Refusal.TIME_ORDER, "time runs forward", seen=f"{lost_ns}/{elapsed_ns}")
    if lost_ns > elapsed_ns or not 0 < fixed_e4 <= PAR_FACTOR:
        raise Refused(Refusal.GOODPUT_RANGE, "shares lie between 0 and 1", seen=fixed_e4)
    realized = Fraction(elapsed_ns - lost_ns, elapsed_ns) * PAR_FACTOR / fixed_e4
    if realized * PAR_FACTOR < rules.failure_floor_e4:
        return TrueUp(failed=True, realized_e6=_e6(realized), shortfall_e6=0, cents=0)
    short = max(Fraction(0), 1 - realized - Fraction(rules.true_up_tolerance_e4, PAR_FACTOR))
    short = min(short, Fraction(rules.true_up_cap_e4, PAR_FACTOR))
    owed = _micros(price_micros, hours, lots, factor_e4) * short
    return TrueUp(
        failed=False,
        realized_e6=_e6(realized),
        shortfall_e6=_e6(short),
        cents=round(owed / _MICROS_A_CENT),
    )


def true_up_of(
    account: Account, *, price_micros: int, hours: int, lots: int, factor_e4: int,
    fixed_e4: int, rules: Rules,
) -> TrueUp:  # fmt: skip
    """Return the true-up of a log's account; raises as ``true_up`` does."""
    return true_up(
        price_micros=price_micros,
        hours=hours,
        lots=lots,
        factor_e4=factor_e4,
        fixed_e4=fixed_e4,
        lost_ns=account.seller_ns,
        elapsed_ns=account.elapsed_ns,
        rules=rules,
    )


def check_log(account: Account, provider: str, month: Month) -> None:
    """Check that a log is of this provider and lies within the delivery month.

    Raises Refused UNKNOWN_NODE or STALE.
    """
    if account.provider != provider:
        raise Refused(
            Refusal.UNKNOWN_NODE, "another provider's log", limit=provider, seen=account.provider
        )
    first, after = (int(moment.timestamp()) * _SECOND_NS for moment in delivery_period(month))
    if not first <= account.from_ns or account.to_ns > after:
        raise Refused(
            Refusal.STALE, "outside the delivery month", limit=f"{first} to {after}",
            seen=f"{account.from_ns} to {account.to_ns}",
        )  # fmt: skip


def by_cheapness(
    offers: Sequence[Offer], factors: dict[tuple[str, str], int], *, future_micros: int
) -> list[Basis]:
    """Return the offers of sites with a factor, the cheapest to deliver first.

    ``factors`` are at 1e-4, by (provider, facility). Ties are ordered by provider and facility.
    Offers of sites without a factor are left out: they cannot be delivered.
    """
    ranked = sorted(
        (offer for offer in offers if (offer.provider, offer.facility) in factors),
        key=lambda offer: (
            Fraction(offer.price_micros, factors[offer.provider, offer.facility]),
            offer.provider,
            offer.facility,
        ),
    )
    return [
        _basis(offer, factors[offer.provider, offer.facility], future_micros) for offer in ranked
    ]


def _basis(offer: Offer, factor: int, future_micros: int) -> Basis:
    price = Fraction(offer.price_micros)
    return Basis(
        provider=offer.provider,
        facility=offer.facility,
        price_micros=offer.price_micros,
        factor_e4=factor,
        normalized_micros=round(price * PAR_FACTOR / factor),
        basis_micros=round(price - Fraction(future_micros * factor, PAR_FACTOR)),
    )


def _e6(share: Fraction) -> int:
    return round(share * 1_000_000)
