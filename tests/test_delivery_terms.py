"""Deliveries: invoices, true-ups, the cheapest to deliver, and who may deliver and receive."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import attested
import msgspec
import pytest
from attested import SECOND, roster, rules, site

from contracts import goodput, grades
from contracts.grades import Grade, delivery, eligibility, table
from contracts.grades.delivery import Offer, invoice_cents, true_up
from contracts.grades.factors import soft_factor
from contracts.refusals import Refusal, Refused

HOUR = 3600 * SECOND


def grade() -> Grade:
    return grades.load().grade("H100-NODE")


def vectors(shared: Path, kind: str) -> list[dict[str, Any]]:
    cases = json.loads((shared / "vectors" / "delivery.json").read_text())["cases"]
    found = [case for case in cases if case["kind"] == kind]
    assert found
    return found


def test_the_invoices_of_the_vectors(shared: Path) -> None:
    for case in vectors(shared, "invoice"):
        given_ = case["inputs"]
        # A tick in tenths of a minor unit: a thousandth of a dollar, 1,000 micros, each.
        price = given_["price_ticks"] * given_["tick_tenth_minor"] * 1_000
        cents = invoice_cents(
            price_micros=price, hours=given_["hours_per_lot"], lots=given_["lots"],
            factor_e4=given_["factor_e4"],
        )  # fmt: skip
        assert cents == case["expected"]["amount"], case["id"]


def test_the_bond_invoice_of_the_vectors(shared: Path) -> None:
    for case in vectors(shared, "bond_invoice"):
        given_ = case["inputs"]
        cents = invoice_cents(
            price_micros=given_["price"] * 10_000, hours=1, lots=1, factor_e4=given_["factor_e4"]
        )
        assert cents + given_["accrued"] == case["expected"]["amount"]


def bond_factor(coupon: Fraction, years: int, months: int, family: str) -> Fraction:
    """CME's conversion factor of a Treasury, a published formula, as an exact fraction."""
    z = months - months % 3 if family == "long" else months
    v = z if z < 7 else 3 if family == "long" else z - 6
    half = coupon / 2
    a = 1 / (1 + 0.06 / 2) ** (v / 6)
    b = half * Fraction(6 - v, 6)
    n = 2 * years if z < 7 else 2 * years + 1
    c = 1 / Fraction(103, 100) ** n
    d = coupon / Fraction(6, 100) * (1 - c)
    return Fraction(a) * (half + c + d) - b


def test_factors_of_the_vectors_round_as_ours_do(shared: Path) -> None:
    """Four decimals, as bonds have them; with no threshold a ratio is its own factor."""
    for case in vectors(shared, "conversion_factor"):
        given_ = case["inputs"]
        coupon = Fraction(given_["coupon_milli_pct"], 100_000)
        exact = bond_factor(coupon, given_["years"], given_["months"], given_["family"])
        assert soft_factor(float(exact), 0) == case["expected"]["factor_e4"], case["id"]


def test_an_old_factor_version_is_refused_as_in_the_vectors(shared: Path) -> None:
    (case,) = vectors(shared, "intent")
    made = table.make(roster(site("alpha")), [], grade(), rules())
    par = msgspec.structs.replace(made.rows[0], factor_e4=10_000)
    published = msgspec.structs.replace(made, rows=(par,), version=case["inputs"]["factor_version"])
    for intent, result in zip(case["inputs"]["intents"], case["expected"]["results"], strict=True):
        version = intent["factor_version"]
        if result == "reject_factor_version":
            with pytest.raises(Refused) as caught:
                published.factor_of("alpha", "one", version=version)
            assert caught.value.reason is Refusal.FACTOR_VERSION
        else:
            assert published.factor_of("alpha", "one", version=version) == 10_000


def charged(lost: Fraction, **changes: Any) -> delivery.TrueUp:
    month = 720 * HOUR
    terms: dict[str, Any] = {
        "price_micros": 2_650_000, "hours": 720, "lots": 8, "factor_e4": 9_620, "fixed_e4": 9_750,
        "lost_ns": round(lost * month), "elapsed_ns": month, "rules": rules(),
    }  # fmt: skip
    return true_up(**{**terms, **changes})


def test_a_true_up_charges_what_the_seller_fell_short() -> None:
    assert invoice_cents(price_micros=2_650_000, hours=720, lots=8, factor_e4=9_620) == 1_468_397
    assert charged(Fraction(25, 1000)).cents == 0
    assert charged(Fraction(0)).cents == 0
    inside = 1 - Fraction(9_750, 10_000) * Fraction(9_951, 10_000)
    assert charged(inside).cents == 0  # within the tolerance
    short = charged(Fraction(8, 100))
    exact = 1 - Fraction(92, 100) / Fraction(975, 1000) - Fraction(5, 1000)
    owed = Fraction(2_650_000 * 720 * 8 * 9_620, 10_000) * exact / 10_000
    assert (short.cents, short.failed) == (round(owed), False)


def test_a_true_up_is_capped_and_below_the_floor_it_is_a_failure() -> None:
    capped = charged(Fraction(15, 100))
    assert (capped.failed, capped.shortfall_e6) == (False, 100_000)
    invoice = Fraction(2_650_000 * 720 * 8 * 9_620, 10_000) / 10_000
    assert capped.cents == round(invoice / 10)
    floor = 1 - Fraction(975, 1000) * Fraction(85, 100)
    assert not charged(floor).failed
    failed = charged(floor + Fraction(1, 10_000))
    assert (failed.failed, failed.cents) == (True, 0)


def test_the_buyers_own_losses_are_never_charged(tmp_path: Path) -> None:
    events = attested.job(count=10)
    later = [msgspec.structs.replace(events[-1], at=events[-1].at + 100 * HOUR)]
    account = goodput.compute(attested.write(tmp_path / "log", [*events[:-1], *later])).account
    assert account.goodput_e4 < 100
    found = delivery.true_up_of(
        account, price_micros=2_650_000, hours=720, lots=8, factor_e4=10_000, fixed_e4=9_750,
        rules=rules(),
    )  # fmt: skip
    assert (found.cents, found.failed) == (0, False)


def test_the_cheapest_to_deliver() -> None:
    offers = [
        Offer(provider="a", facility="one", price_micros=2_700_000),
        Offer(provider="b", facility="one", price_micros=2_500_000),
        Offer(provider="c", facility="one", price_micros=1_000_000),  # has no factor
        Offer(provider="d", facility="one", price_micros=2_700_000),
    ]
    known = {("a", "one"): 10_800, ("b", "one"): 9_000, ("d", "one"): 10_800}
    ranked = delivery.by_cheapness(offers, known, future_micros=2_450_000)
    assert [found.provider for found in ranked] == ["a", "d", "b"]
    assert ranked[0].normalized_micros == 2_500_000
    assert ranked[0].basis_micros == 2_700_000 - 2_646_000
    assert ranked[2].normalized_micros == 2_777_778


# Eligibility


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"gpu_class": "H200-SXM"}, [Refusal.UNKNOWN_GPU]),
        ({"form_factor": "PCIe"}, [Refusal.FORM_FACTOR]),
        ({"fabric": "ethernet"}, [Refusal.FABRIC]),
        ({"fabric_gbps": 399}, [Refusal.FABRIC]),
        ({"gpus": 7}, [Refusal.CLUSTER_SIZE]),
        ({"tenancy": "shared"}, [Refusal.TENANCY]),
        ({"availability_e4": 9_499}, [Refusal.SERVICE_LEVEL]),
        ({"gpus": 1, "tenancy": "spot"}, [Refusal.CLUSTER_SIZE, Refusal.TENANCY]),
    ],
)
def test_who_may_deliver(changes: dict[str, Any], reasons: list[Refusal]) -> None:
    found = eligibility.faults(site("alpha", 1, **changes), grade())
    assert [fault.reason for fault in found] == reasons


def test_a_grade_of_one_region() -> None:
    here = msgspec.structs.replace(grade(), regions=("us",))
    (fault,) = eligibility.faults(site("alpha", 1), here)
    assert fault.reason is Refusal.REGION


def test_the_jurisdiction_is_off_until_somebody_turns_it_on() -> None:
    consignee = eligibility.Consignee(country="XA", parent_country="XB", end_use="military")
    shipped = grades.load().jurisdiction
    assert eligibility.may_receive(consignee, "H100-SXM", 100_000, shipped) == []
    on = grades.Jurisdiction(
        enabled=True, denied_countries=("XB",), denied_end_uses=("military",),
        tpp_per_consignee=1_000_000,
    )  # fmt: skip
    found = eligibility.may_receive(consignee, "H100-SXM", 64, on)
    assert [fault.reason for fault in found] == [Refusal.JURISDICTION] * 3
    clean = eligibility.Consignee(country="XC", parent_country="XC")
    assert eligibility.may_receive(clean, "H100-SXM", 63, on) == []
    used = eligibility.Consignee(country="XC", parent_country="XC", tpp_received=990_000)
    assert len(eligibility.may_receive(used, "H100-SXM", 8, on)) == 1
