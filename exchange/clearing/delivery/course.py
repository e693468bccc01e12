"""The stages of one delivery, from its invoice to its end.

    assigned    > invoiced      the contract expired; the buyer's escrow is due
    invoiced    > delivering    the escrow was paid       > unpaid        it was not paid in time
    delivering  > delivered     every day is settled      > alternative   both sides signed
    delivering  > failing       no hours on FAIL_DAYS days running, or goodput under the floor
    failing     > failed        bought in at the next fixing, with the penalty

A day is settled as soon as seller and buyer agree within a hundredth of it, in what was available
and in that less what was lost, and otherwise ATTEST_DAYS after its end: by the seller's figure,
without one by the buyer's, without either as no hours. If the figures differ by more, the hold is
voided and the house decides; without a decision the buyer's figure counts ARBITER_DAYS after the
day's end. For a day that ended before the escrow was paid, when nobody could attest, both periods
run from the payment.
"""

import itertools
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts import grades
from contracts.grades.delivery import TrueUp, invoice_cents
from exchange.clearing.delivery import dvp
from exchange.clearing.delivery.records import Day
from exchange.clearing.delivery.slices import (
    DAY_HOURS,
    DAY_S,
    Slice,
    buy_in,
    quality,
    settle_day,
    sliced,
    week_days,
    week_of,
)
from exchange.clearing.delivery.terms import DAY_NS, Terms, day_of
from exchange.clearing.matters import At, Due, Dues, Ruling
from exchange.clearing.moves import MICROS_A_CENT, ask, pay, take
from exchange.messages.dates import number_of

if TYPE_CHECKING:
    from exchange.clearing.state import State

ATTEST_DAYS: Final = 2
ARBITER_DAYS: Final = 5
FAIL_DAYS: Final = 3
FIX_DAYS: Final = 5  # for the fixing at which a failed delivery is bought in
DISAGREEMENT_PART: Final = 100  # figures agree if they differ by at most 1/100 of the day
PERCENT: Final = 100
ENDED: Final = frozenset({"delivered", "unpaid", "alternative", "failed"})


class Delivery(msgspec.Struct):
    """The delivery of a number of lots from a seller's site to a buyer. Amounts are in cents."""

    id: int
    instrument: int
    seller: int
    buyer: int
    lots: int
    grade: str
    provider: str
    facility: str
    factor_e4: int
    fixed_e4: int
    factor_version: int
    stage: str = "assigned"
    price: int = 0
    invoice: int = 0
    escrow_by: int = 0  # log time: the month's start, at least a day after the invoice
    begun: int = 0  # log time of the escrow's payment
    parts: list[int] = []  # of the invoice, by day
    slices: list[Slice] = []
    days: dict[int, Day] = {}
    holds: dict[int, str] = {}  # by day: the tag of its hold
    attempts: int = 0
    lost: int = 0  # GPU-seconds lost of those available
    weeks: int = 0  # paid
    signed: list[int] = []  # accounts that consented to an alternative delivery
    agreement: str = ""  # its text
    former: list[Due] = []  # escrows requested of accounts from which the buyer was ported
    failed_on: int = 0  # yyyymmdd, UTC: fixings are of such days
    fix_by: int = 0  # log time by which the fixing is expected; 0: reported as overdue
    missing_hours: int = 0  # of each lot, to be bought in
    refund: int = 0  # cents that the seller of a delivery under the floor must give back
    known_until: int = 0  # log time at which an ended delivery is closed

    @property
    def next_day(self) -> int:
        """The day of the month that is settled next."""
        return len(self.slices) + 1

    def escrow_due(self) -> Due:
        """Return the due that takes the invoice from the buyer."""
        amount, id = self.invoice * MICROS_A_CENT, f"delivery {self.id} escrow"
        return Due(f"{id} {self.buyer}" if self.former else id, "withdraw", self.buyer, amount)


def told(delivery: Delivery, outcome: str, **facts: Any) -> Ruling:
    """Return a ruling on a delivery."""
    return Ruling("delivery", outcome, {"delivery": delivery.id, **facts})


def invoice(delivery: Delivery, terms: Terms, price: int, at: At, state: "State") -> Ruling:
    """Invoice the delivery at the final settlement ``price``; request the escrow and the fees."""
    delivery.price, delivery.stage = price, "invoiced"
    delivery.escrow_by = max(terms.begin_ns, at.stamp + DAY_NS)
    delivery.invoice = invoice_cents(
        price_micros=price, hours=terms.hours, lots=delivery.lots, factor_e4=delivery.factor_e4
    )
    delivery.parts = sliced(delivery.invoice, terms.days)
    ask(state, delivery.escrow_due())
    fee, id = delivery.lots * terms.fee, f"delivery {delivery.id}"
    ask(state, *take(f"{id} seller", delivery.seller, fee))
    ask(state, *take(f"{id} buyer", delivery.buyer, fee))
    return told(
        delivery, "invoiced", seller=delivery.seller, buyer=delivery.buyer, lots=delivery.lots,
        price=price, hours=terms.hours, factor=delivery.factor_e4,
        factor_version=delivery.factor_version, cents=delivery.invoice, fee=fee,
        deadline=delivery.escrow_by,
    )  # fmt: skip


def escrowed(delivery: Delivery, terms: Terms, at: At, state: "State") -> Ruling:
    """Book the buyer's payment into escrow. A payment that comes too late was called off and is
    returned (exchange.clearing.matters.Dues)."""
    if delivery.stage != "invoiced":
        return returned(delivery)
    dvp.begin(state.book, delivery.id, delivery.buyer)
    amount = delivery.invoice * MICROS_A_CENT
    outcome = dvp.move(
        state.book, f"escrow {delivery.id}", dvp.MARKET, f"escrow/{delivery.id}", amount, at.stamp
    )
    assert not outcome, f"escrow of delivery {delivery.id}: {outcome!r}"
    delivery.stage, delivery.begun = "delivering", at.stamp
    return told(delivery, "escrowed", cents=delivery.invoice, deadline=deadline(delivery, terms))


def returned(delivery: Delivery) -> Ruling:
    """Return the ruling on an escrow that was paid after it had been called off."""
    return told(delivery, "escrow_returned", cents=delivery.invoice)


def hand_over(delivery: Delivery, account: int, to: int, at: At, state: "State") -> None:
    """Replace ``account`` by ``to`` as seller or buyer.

    An escrow that is not paid yet is requested of ``to``. Hours that are delivered or held already
    stay with ``account``.
    """
    delivery.signed = [to if one == account else one for one in delivery.signed]
    if delivery.seller == account:
        delivery.seller = to
    if delivery.buyer != account:
        return
    old = delivery.escrow_due()
    delivery.buyer = to
    if delivery.stage == "invoiced":
        state.matters.get(Dues).call_off(old.id, at.stamp)
        delivery.former = [*delivery.former, old]
        ask(state, delivery.escrow_due())
    elif delivery.stage == "delivering":
        dvp.receive(state.book, to)


def deadline(delivery: Delivery, terms: Terms) -> int:
    """Return the log time at which the delivery advances without a record; 0: never."""
    if delivery.stage == "invoiced":
        return delivery.escrow_by
    if delivery.stage == "failing":
        return delivery.fix_by
    if delivery.stage != "delivering":
        return 0
    day = delivery.days.get(delivery.next_day)
    wait = ARBITER_DAYS if day is not None and day.disputed else ATTEST_DAYS
    return max(terms.day_end_ns(delivery.next_day), delivery.begun) + wait * DAY_NS


def is_agreed(delivery: Delivery) -> bool:
    """Return whether the next day can be settled at once: both sides attested it and agree."""
    day = delivery.days.get(delivery.next_day, Day())
    spoken = day.seller is not None and day.buyer is not None
    return delivery.stage == "delivering" and spoken and not day.disputed


def advance(delivery: Delivery, terms: Terms, at: At, state: "State") -> list[Ruling]:
    """Advance the delivery as far as log time and the attested figures allow."""
    if delivery.stage == "invoiced" and at.stamp >= delivery.escrow_by:
        return [_unpaid(delivery, terms, at, state)]
    if delivery.stage == "failing" and 0 < delivery.fix_by <= at.stamp:
        late, delivery.fix_by = delivery.fix_by, 0
        return [told(delivery, "overdue", step="fixing", deadline=late)]
    rulings: list[Ruling] = []
    while delivery.stage == "delivering":
        counts = _counts(delivery, terms, at)
        if counts is None:
            break
        rulings += _settle(delivery, terms, counts, at, state)
    return rulings


def attested(
    delivery: Delivery, day: int, side: str, figure: tuple[int, int], at: At, state: "State"
) -> str:
    """Take a side's figure of a day, (available, lost) GPU-seconds; the house's decides.

    Returns ``held``, ``agreed``, ``disputed``, ``noted`` or ``decided``. The seller's figure holds
    cash and hours in the book of transfers.
    """
    seen = delivery.days.setdefault(day, Day())
    if side == "house":
        _void(delivery, day, at, state)
        seen.seller = seen.buyer = figure
        seen.disputed = False
        return "decided"
    if side == "seller":
        seen.seller = figure
        _hold(delivery, day, figure[0], at, state)
    else:
        seen.buyer = figure
    if seen.seller is None or seen.buyer is None:
        return "held" if side == "seller" else "noted"
    # Hours that were not there cost the seller their slice, lost ones a true-up: two figures that
    # leave as much, one by the former and one by the latter, do not agree.
    there = seen.seller[0] - seen.buyer[0]
    apart = max(abs(there), abs(there - seen.seller[1] + seen.buyer[1]))
    if apart * DISAGREEMENT_PART <= delivery.lots * DAY_S:
        return "agreed"
    seen.disputed = True
    _void(delivery, day, at, state)
    return "disputed"


def _counts(delivery: Delivery, terms: Terms, at: At) -> tuple[int, int] | None:
    """Return the figure by which the next day is settled; None while it is open."""
    number = delivery.next_day
    day = delivery.days.get(number, Day())
    late = at.stamp >= deadline(delivery, terms)
    if day.seller is not None and day.buyer is not None:
        if not day.disputed:
            return day.seller
        return day.buyer if late else None
    return (day.seller or day.buyer or (0, 0)) if late else None


def _hold(delivery: Delivery, day: int, seconds: int, at: At, state: "State") -> Slice:
    """Hold a day's cash and hours; return the day's slice."""
    found = settle_day(day, delivery.parts[day - 1], seconds, delivery.lots)
    delivery.attempts += 1
    tag = f"{delivery.id}.{day}.{delivery.attempts}"
    amounts = found.payable * MICROS_A_CENT, found.returned * MICROS_A_CENT, seconds
    done = dvp.hold(state.book, delivery.id, tag, delivery.buyer, amounts, at.stamp)
    assert done, f"the escrow of delivery {delivery.id} holds every day's slice"
    delivery.holds[day] = tag
    return found


def _void(delivery: Delivery, day: int, at: At, state: "State") -> None:
    """Release a day's hold of cash and hours, if there is one."""
    tag = delivery.holds.pop(day, "")
    assert not tag or dvp.end(state.book, tag, at.stamp, post=False), f"hold {tag} is open"


def _settle(
    delivery: Delivery, terms: Terms, counts: tuple[int, int], at: At, state: "State"
) -> list[Ruling]:
    """Settle the next day, delivery versus payment; pay its week and finish the month if it is
    the last day of them."""
    day = delivery.next_day
    seen = delivery.days.pop(day, Day())
    if day in delivery.holds and seen.seller != counts:
        _void(delivery, day, at, state)
    if day not in delivery.holds:
        _hold(delivery, day, counts[0], at, state)
    tag = delivery.holds.pop(day)
    assert dvp.end(state.book, tag, at.stamp, post=True), f"hold {tag} is open"
    found = settle_day(day, delivery.parts[day - 1], counts[0], delivery.lots)
    delivery.slices.append(found)
    delivery.lost += counts[1]
    rest = {"deadline": deadline(delivery, terms)} if day < terms.days else {}
    rulings = [told(delivery, "slice", **found._asdict(), lost_s=counts[1], **rest)]
    if day == week_days(week_of(day), terms.days)[-1]:
        rulings.append(_pay_week(delivery, terms.days, at, state))
    absent = delivery.slices[-FAIL_DAYS:]
    if len(absent) == FAIL_DAYS and not any(one.attested_s for one in absent):
        hours = (terms.days - day + FAIL_DAYS) * DAY_HOURS
        rulings.append(_finish(delivery, terms, hours, at, state))
    elif day == terms.days:
        rulings.append(_finish(delivery, terms, 0, at, state))
    return rulings


def _pay_week(delivery: Delivery, days: int, at: At, state: "State") -> Ruling:
    """Pay the seller what the days of the next week earned, and return the rest to the buyer."""
    first = week_days(delivery.weeks, days)[0]
    due = delivery.slices[first - 1 :]
    paid, back = sum(one.payable for one in due), sum(one.returned for one in due)
    id = f"delivery {delivery.id} week {delivery.weeks + 1}"
    _out(state, f"{id} earned", f"payable/{delivery.id}", delivery.seller, paid, at)
    _out(state, f"{id} back", f"returned/{delivery.id}", delivery.buyer, back, at)
    delivery.weeks += 1
    return told(delivery, "week_paid", week=delivery.weeks, cents=paid, returned=back)


def _out(state: "State", id: str, source: str, account: int, cents: int, at: At) -> None:
    """Pay cents from one of the delivery's accounts of the book to a trading account."""
    if cents:
        outcome = dvp.move(state.book, id, source, dvp.MARKET, cents * MICROS_A_CENT, at.stamp)
        assert not outcome, f"{id}: {outcome!r}"
        ask(state, _deposit(id, account, cents))


def _deposit(id: str, account: int, cents: int) -> Due:
    return Due(id, "deposit", account, cents * MICROS_A_CENT)


def _finish(delivery: Delivery, terms: Terms, missing: int, at: At, state: "State") -> Ruling:
    """End the settlement of days: with the true-up of the attested hours, or as failing, of all
    hours under the floor, otherwise of the ``missing`` ones of a seller that has stopped."""
    found = judged(delivery, terms)
    if found.failed:
        return _failing(delivery, terms.hours, at, state, refund=_earned(delivery))
    id = f"delivery {delivery.id} true-up"
    ask(state, *pay(id, delivery.seller, delivery.buyer, found.cents * MICROS_A_CENT))
    if missing:
        return _failing(delivery, missing, at, state, true_up=found.cents)
    delivery.stage = "delivered"
    return told(delivery, "delivered", realized_e6=found.realized_e6, true_up=found.cents)


def judged(delivery: Delivery, terms: Terms) -> TrueUp:
    """Return the true-up of the hours attested so far, or that they are under the floor."""
    return quality(
        delivery.slices, delivery.lost, price_micros=delivery.price, factor_e4=delivery.factor_e4,
        fixed_e4=delivery.fixed_e4, rules=grades.load().rules_of(terms.expiry),
    )  # fmt: skip


def _earned(delivery: Delivery) -> int:
    """The cents that the settled days have earned the seller."""
    return sum(one.payable for one in delivery.slices)


def to_make_good(delivery: Delivery, terms: Terms) -> tuple[int, int]:
    """Return what the seller of an invoiced delivery would answer for if it stopped now, or does
    since it stopped: the hours of each lot to be bought in, and the cents that it owes besides."""
    if delivery.stage == "failing":
        return delivery.missing_hours, delivery.refund
    found = judged(delivery, terms)
    if found.failed:
        return terms.hours, _earned(delivery)
    absent = itertools.takewhile(lambda one: not one.attested_s, reversed(delivery.slices))
    days = terms.days - len(delivery.slices) + sum(1 for _ in absent)
    return days * DAY_HOURS, found.cents


def _failing(
    delivery: Delivery, hours: int, at: At, state: "State", *, refund: int = 0, true_up: int = 0
) -> Ruling:
    """Begin the failure of the seller: return the rest of the escrow, and wait for the fixing that
    prices ``hours`` of each lot. ``refund`` is the cents that the seller must then give back,
    ``true_up`` those that it owes already."""
    end(delivery, at, state)
    delivery.stage, delivery.refund, delivery.missing_hours = "failing", refund, hours
    delivery.failed_on = number_of(day_of(at.stamp))
    delivery.fix_by = at.stamp + FIX_DAYS * DAY_NS
    return told(
        delivery, "failing", hours=hours, refund=refund, true_up=true_up, deadline=delivery.fix_by
    )


def end(delivery: Delivery, at: At, state: "State") -> None:
    """End the settlement of days: pay what was earned, and return what is left in escrow."""
    for day in sorted(delivery.holds):
        _void(delivery, day, at, state)
    escrow = f"escrow/{delivery.id}"
    rest = dvp.balance(state.book, escrow)
    if rest:
        back = f"returned/{delivery.id}"
        outcome = dvp.move(state.book, f"rest {delivery.id}", escrow, back, rest, at.stamp)
        assert not outcome, f"rest of delivery {delivery.id}: {outcome!r}"
    for source, account in (("payable", delivery.seller), ("returned", delivery.buyer)):
        cents = dvp.balance(state.book, f"{source}/{delivery.id}") // MICROS_A_CENT
        id = f"delivery {delivery.id} end {source}"
        _out(state, id, f"{source}/{delivery.id}", account, cents, at)


def bought_in(delivery: Delivery, terms: Terms, fixing: int, state: "State") -> Ruling:
    """Buy in the missing hours at a fixing, in millionths of a dollar per GPU-hour.

    The seller pays what they cost above the delivery's price, the penalty, and the refund.
    """
    found = buy_in(
        price_micros=delivery.price, fixing_micros=fixing, hours=delivery.missing_hours,
        lots=delivery.lots, factor_e4=delivery.factor_e4, penalty_percent=terms.penalty_percent,
    )  # fmt: skip
    owed = delivery.refund + found.dearer + found.penalty
    id = f"delivery {delivery.id} buy-in"
    ask(state, *pay(id, delivery.seller, delivery.buyer, owed * MICROS_A_CENT))
    delivery.stage = "failed"
    return told(
        delivery, "bought_in", fixing=fixing, dearer=found.dearer, penalty=found.penalty,
        refund=delivery.refund,
    )  # fmt: skip


def _unpaid(delivery: Delivery, terms: Terms, at: At, state: "State") -> Ruling:
    """End a delivery whose escrow was not paid in time; the buyer owes the seller the penalty."""
    state.matters.get(Dues).call_off(delivery.escrow_due().id, at.stamp)
    delivery.stage = "unpaid"
    penalty = delivery.invoice * terms.penalty_percent // PERCENT
    id = f"delivery {delivery.id} unpaid"
    ask(state, *pay(id, delivery.buyer, delivery.seller, penalty * MICROS_A_CENT))
    return told(delivery, "unpaid", penalty=penalty)
