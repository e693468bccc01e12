"""Deliveries of physical contracts: tenders until the last notice, assignment, then each delivery.

What is not delivered is settled in cash at the contract's expiry: odd lots of longs and shorts,
lots of accounts that may not receive, and units that no tender reached. A short that has not
tendered its whole units by the last notice pays the penalty of a failed delivery to the longs
without a delivery.
"""

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from contracts.grades import Jurisdiction, eligibility
from contracts.grades import table as factors
from contracts.grades.eligibility import Consignee
from contracts.hardware import gpu_class
from contracts.refusals import Refused
from exchange.clearing.delivery import course
from exchange.clearing.delivery.assignment import Long, assign, denied
from exchange.clearing.delivery.course import Delivery, told
from exchange.clearing.delivery.expiry import (
    Expiry,
    Factors,
    Notice,
    age,
    factors_of,
    hand_over,
    penalties,
    tenders,
)
from exchange.clearing.delivery.records import (
    Alternative,
    Attest,
    FactorsRecorded,
    NameConsignee,
    SetJurisdiction,
    Tender,
)
from exchange.clearing.delivery.slices import DAY_S
from exchange.clearing.delivery.terms import Terms, day_of, terms_of
from exchange.clearing.expiry import Fixings
from exchange.clearing.matters import ACCEPTED, MALFORMED, OFF_NS, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, TransferKind
from exchange.messages.dates import date_of

if TYPE_CHECKING:
    from exchange.clearing.state import State

NOTICES_MAX: Final = 1 << 14  # tenders of one expiry
CLOSED: Final = "closed"  # a delivery that ended, once no command of it can be on its way
_NOW: Final = 1  # a deadline that has passed: it is acted on at the next frame


class Deliveries(Matter):
    """All physical contracts and deliveries of a market. Records and their refusals are those of
    docs/reference/clearing.md."""

    name: ClassVar[str] = "deliveries"
    records: ClassVar[tuple[type[Record], ...]] = (
        Tender, Attest, Alternative, NameConsignee, SetJurisdiction, FactorsRecorded,
    )  # fmt: skip
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.INSTRUMENT_LISTED,
        EventKind.DAY_CLOSED,
        EventKind.INSTRUMENT_EXPIRED,
        EventKind.WITHDRAWN,
        EventKind.RECORDED,
        EventKind.LOTS_TRANSFERRED,
    )
    expiries: dict[int, Expiry] = msgspec.field(default_factory=dict)
    factors: dict[str, Factors] = msgspec.field(default_factory=dict)  # by grade and expiry
    consignees: dict[int, Consignee] = msgspec.field(default_factory=dict)
    years: dict[int, int] = msgspec.field(default_factory=dict)  # account -> of tpp_received
    jurisdiction: Jurisdiction = Jurisdiction()
    deliveries: list[Delivery] = msgspec.field(default_factory=list)  # those not closed, by id
    begun: int = 0  # deliveries so far
    heirs: dict[int, int] = msgspec.field(default_factory=dict)  # ported account -> new account
    deadline: int = 0  # log time of the next deadline; 0: none

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Rule on a record."""
        operation = str(type(record).__struct_config__.tag)
        speaker = getattr(record, "account", HOUSE_ACCOUNT)
        if at.account not in (HOUSE_ACCOUNT, speaker):
            return refused(operation, Denial.NOT_YOURS, at.account, speaker)
        match record:
            case Tender():
                ruling = self._tender(record, at, state)
            case Attest():
                ruling = self._attest(record, at, state)
            case Alternative():
                ruling = self._alternative(record, at, state)
            case NameConsignee() if record.account not in state.members:
                return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, record.account)
            case NameConsignee():
                self.consignees[record.account] = msgspec.convert(
                    {k: getattr(record, k) for k in Consignee.__struct_fields__}, Consignee
                )
                year = at.business_date // 10_000 or day_of(at.stamp).year
                self.years[record.account] = year
                ruling = Ruling(operation, ACCEPTED, {"account": record.account})
            case SetJurisdiction():
                self.jurisdiction = msgspec.convert(
                    {k: getattr(record, k) for k in Jurisdiction.__struct_fields__}, Jurisdiction
                )
                ruling = Ruling(operation, ACCEPTED, {"enabled": record.enabled})
            case FactorsRecorded():
                ruling = self._factors(record)
        self._plan(at)
        return ruling

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling] | None:
        """Follow up a listing, a closed date, an expiry, a withdrawal that may be an escrow's, a
        record that may be a fixing, or a transfer of lots.

        Returns None for the many records and withdrawals that concern no delivery.
        """
        rulings: list[Ruling] = []
        match event.kind:
            case EventKind.INSTRUMENT_LISTED:
                terms = terms_of(at.text)
                if terms is not None:
                    self.expiries[event.instrument] = Expiry(terms)
            case EventKind.DAY_CLOSED:
                for number, expiry in self.expiries.items():
                    if not expiry.assigned:
                        age(expiry, number, at, state)
            case EventKind.INSTRUMENT_EXPIRED:
                if event.instrument in self.expiries:
                    rulings = self._expired(event.instrument, event.price, at, state)
            case EventKind.WITHDRAWN:
                rulings = self._withdrawn((event.key_lo, event.key_hi), at, state)
            case EventKind.RECORDED:
                rulings = self._buy_in(state)
            case EventKind.LOTS_TRANSFERRED:
                return self._inherited(event, state)
        if not rulings and event.kind in (EventKind.WITHDRAWN, EventKind.RECORDED):
            return None
        self._plan(at)
        return rulings

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Assign contracts whose last notice has passed, advance deliveries, and close old ones."""
        if not self.deadline or at.stamp < self.deadline:
            return ()
        rulings: list[Ruling] = []
        for number, expiry in self.expiries.items():
            if not expiry.assigned and at.stamp > expiry.terms.cutoff_ns:
                rulings += self._assign(number, expiry, at, state)
        for delivery in self.deliveries:
            if delivery.stage not in course.ENDED:
                rulings += course.advance(delivery, self._terms(delivery), at, state)
        rulings += self._close(at)
        self._plan(at)
        return rulings

    def _close(self, at: At) -> list[Ruling]:
        """Close deliveries that ended OFF_NS ago: the ruling keeps everything known of them."""
        over = [one for one in self.deliveries if 0 < one.known_until <= at.stamp]
        if over:
            gone = {one.id for one in over}
            self.deliveries = [one for one in self.deliveries if one.id not in gone]
        return [told(one, CLOSED, **self.known(one)) for one in over]

    def known(self, delivery: Delivery) -> dict[str, Any]:
        """Return a delivery and its ``terms`` as plain data."""
        text = msgspec.json.encode({"known": delivery, "terms": self._terms(delivery)})
        found: dict[str, Any] = msgspec.json.decode(text)
        return {**found.pop("known"), **found}

    def _terms(self, delivery: Delivery) -> Terms:
        return self.expiries[delivery.instrument].terms

    def _plan(self, at: At) -> None:
        """Update the next deadline."""
        for delivery in self.deliveries:
            if delivery.stage in course.ENDED and not delivery.known_until:
                delivery.known_until = at.stamp + OFF_NS
        times = [delivery.known_until for delivery in self.deliveries]
        times += [e.terms.cutoff_ns + 1 for e in self.expiries.values() if not e.assigned]
        times += [
            _NOW if course.is_agreed(delivery) else course.deadline(delivery, self._terms(delivery))
            for delivery in self.deliveries
        ]
        self.deadline = min((time for time in times if time), default=0)

    # Notice and assignment

    def _tender(self, record: Tender, at: At, state: "State") -> Ruling:
        """Rule on a short's intent; the checks are in the order of docs/reference/clearing.md."""
        if record.instrument not in state.instruments:
            return refused("tender", Denial.UNKNOWN_INSTRUMENT, 0, record.instrument)
        expiry = self.expiries.get(record.instrument)
        if expiry is None:
            return refused("tender", Denial.NOT_PHYSICAL, 0, record.instrument)
        terms = expiry.terms
        if at.stamp < terms.notice_from_ns:
            return refused("tender", Denial.EARLY, terms.notice_from_ns, at.stamp)
        noticed = sum(n.lots for n in expiry.notices if n.account == record.account)
        short = max(0, -state.positions.get(record.account, record.instrument).net)
        table = self.factors.get(f"{record.grade}/{terms.month}")
        unit = terms.unit if table is None else lcm(terms.unit, table.unit)
        found = denied(
            record.lots, at.stamp, record.factor_version, open_short=short - noticed,
            cutoff=terms.cutoff_ns, published_version=0 if table is None else table.version,
            unit=unit,
        )  # fmt: skip
        if found is not None:
            return refused("tender", *found)
        site = None if table is None else table.sites.get(f"{record.provider}/{record.facility}")
        if site is None or record.grade not in terms.grades:
            return refused("tender", Denial.FACTOR_BOUNDS, observed=record.facility)
        if len(expiry.notices) >= NOTICES_MAX:
            return refused("tender", Denial.FULL, NOTICES_MAX, len(expiry.notices))
        expiry.notices.append(
            Notice(record.account, record.lots, record.grade, record.provider, record.facility,
                   *site, record.factor_version, unit)
        )  # fmt: skip
        facts = {"account": record.account, "lots": record.lots, "deadline": terms.cutoff_ns}
        return Ruling("tender", ACCEPTED, facts)

    def _assign(self, number: int, expiry: Expiry, at: At, state: "State") -> list[Ruling]:
        """Assign the tenders, in their order, to the oldest eligible longs."""
        expiry.assigned = True
        age(expiry, number, at, state)
        unit = expiry.terms.unit
        longs = [
            Long(account, lots, day)
            for account, held in sorted(expiry.longs.items())
            for day, lots in held
        ]
        barred = {a for a in expiry.longs if self._barred(a, expiry, unit)}
        tendered, expiry.untendered = tenders(expiry, state.positions.of_instrument(number))
        whole = [notice.unit for notice in expiry.notices]
        found = assign(longs, tendered, unit=unit, units=whole, ineligible=barred)
        rulings = []
        for notice, one in zip(expiry.notices, found.rounds, strict=True):
            for account, lots in one.assigned:
                rulings.append(self._begin(number, notice, int(account), lots, expiry.terms))
        expiry.unassigned = {
            int(account): lots // unit * unit
            for account, lots in found.left.items()
            if account not in barred and lots >= unit
        }
        cash = {str(account): lots for account, lots in found.left.items()}
        facts = {"instrument": number, "cash": cash, "barred": sorted(barred),
                 "untendered": {str(a): n for a, n in expiry.untendered.items()}}  # fmt: skip
        return [*rulings, Ruling("assignment", "assigned", facts)]

    def _barred(self, account: int, expiry: Expiry, unit: int) -> bool:
        """Return whether the jurisdiction in force bars an account from what it would receive."""
        if not self.jurisdiction.enabled:
            return False
        consignee = self._consignee(self._heir(account), expiry.terms)
        if consignee is None:
            return True
        lots = sum(lots for _, lots in expiry.longs[account]) // unit * unit
        return bool(
            eligibility.may_receive(consignee, expiry.terms.hardware, lots, self.jurisdiction)
        )

    def _consignee(self, account: int, terms: Terms) -> Consignee | None:
        """Return an account's consignee with the total that it received in the year of a contract's
        month, 0 if the stored total is of another year; None without a consignee."""
        found = self.consignees.get(account)
        if found is None or self.years.get(account) == terms.expiry.year:
            return found
        return msgspec.structs.replace(found, tpp_received=0)

    def _begin(self, number: int, notice: Notice, buyer: int, lots: int, terms: Terms) -> Ruling:
        """Begin a delivery, and add it to the total that its buyer's consignee has received."""
        self.begun += 1
        delivery = Delivery(
            self.begun, number, self._heir(notice.account), self._heir(buyer), lots,
            notice.grade, notice.provider, notice.facility, notice.factor_e4, notice.fixed_e4,
            notice.factor_version,
        )  # fmt: skip
        self.deliveries.append(delivery)
        self._count(delivery.buyer, lots, terms)
        return told(
            delivery, "assigned", instrument=number, seller=delivery.seller, buyer=delivery.buyer,
            lots=lots, deadline=terms.begin_ns,
        )  # fmt: skip

    def _count(self, buyer: int, lots: int, terms: Terms) -> None:
        """Add lots to the total that a buyer's consignee has received in the contract's year."""
        consignee = self._consignee(buyer, terms)
        if consignee is not None:
            self.years[buyer] = terms.expiry.year
            received = consignee.tpp_received + gpu_class(terms.hardware).tpp * lots
            self.consignees[buyer] = msgspec.structs.replace(consignee, tpp_received=received)

    def _expired(self, number: int, price: int, at: At, state: "State") -> list[Ruling]:
        """Invoice the deliveries of an expired contract at its price, and drop the state that only
        its assignment needed."""
        expiry = self.expiries[number]
        rulings = self._settled(number, expiry, price, at, state)
        self.expiries[number] = Expiry(expiry.terms, assigned=True, expired=True)
        living = [e.terms for e in self.expiries.values() if not e.expired]
        kept = {f"{grade}/{terms.month}" for terms in living for grade in terms.grades}
        for grade in expiry.terms.grades:
            if f"{grade}/{expiry.terms.month}" not in kept:
                self.factors.pop(f"{grade}/{expiry.terms.month}", None)
        return rulings

    def _settled(
        self, number: int, expiry: Expiry, price: int, at: At, state: "State"
    ) -> list[Ruling]:
        if not expiry.assigned:
            facts = {"instrument": number, "notices": len(expiry.notices)}
            return [Ruling("assignment", "settled_in_cash", facts)]
        rulings = [
            course.invoice(delivery, expiry.terms, price, at, state)
            for delivery in self.deliveries
            if delivery.instrument == number and delivery.stage == "assigned"
        ]
        return [*rulings, *penalties(number, expiry, price, state)]

    # Clients that are ported

    def under_way(self, account: int) -> list[Delivery]:
        """Return the deliveries of an account, as either side, that have not ended."""
        return [d for d in self.deliveries
                if d.stage not in course.ENDED and account in (d.seller, d.buyer)]  # fmt: skip

    def barred(self, account: int, to: int) -> int:
        """Return the number of the first delivery to ``account`` that the jurisdiction in force
        would bar ``to`` from taking over, 0 for none. Without a consignee of its own, ``to`` has
        that of ``account``, whose total counts the deliveries already."""
        if not self.jurisdiction.enabled:
            return 0
        whose, lots = to if to in self.consignees else account, dict[int, int]()  # by year
        for delivery in self.under_way(account):
            if delivery.buyer != account:
                continue
            terms, consignee = self._terms(delivery), self._consignee(whose, self._terms(delivery))
            year = terms.expiry.year
            lots[year] = lots.get(year, 0) + (delivery.lots if whose == to else 0)
            if consignee is None or eligibility.may_receive(
                consignee, terms.hardware, lots[year], self.jurisdiction
            ):
                return delivery.id
        return 0

    def port(self, account: int, to: int, at: At, state: "State") -> None:
        """Hand over the deliveries of a ported ``account`` to ``to``; later assignments follow.

        Notices and dates of lots follow with the lots. The client's consignee becomes that of the
        new account, unless it has one, whose total then grows.
        """
        self.heirs[account] = to
        if to not in self.consignees and account in self.consignees:
            self.consignees[to], self.years[to] = self.consignees[account], self.years[account]
        else:
            for delivery in self.under_way(account):
                if delivery.buyer == account:
                    self._count(to, delivery.lots, self._terms(delivery))
        for delivery in self.under_way(account):
            course.hand_over(delivery, account, to, at, state)
        state.matters.touch(Deliveries)

    def _heir(self, account: int) -> int:
        """Return the account that takes an account's assignments after all ports. The chain ends,
        since clients are ported from members in default, and to no such member."""
        while account in self.heirs:
            account = self.heirs[account]
        return account

    def _inherited(self, event: Event, state: "State") -> Sequence[Ruling] | None:
        """Hand over notices and dates once the last lots of a ported client have moved."""
        account, to, expiry = event.order_id, event.account, self.expiries.get(event.instrument)
        ported = self.heirs.get(account) == to and event.reason == TransferKind.PORTING
        if not ported or expiry is None or state.positions.get(account, event.instrument).net:
            return None
        hand_over(expiry, account, to)
        return ()

    # The course of deliveries

    def _find(self, number: int) -> Delivery | None:
        return next((one for one in self.deliveries if one.id == number), None)

    def _none(self, operation: str, number: int) -> Ruling:
        """Return the refusal for a delivery that is closed or never existed."""
        if 1 <= number <= self.begun:
            return refused(operation, Denial.DELIVERY_STATE, "delivering", CLOSED)
        return refused(operation, Denial.UNKNOWN_DELIVERY, self.begun, number)

    def _attest(self, record: Attest, at: At, state: "State") -> Ruling:
        """Rule on one side's figures of a day."""
        delivery = self._find(record.delivery)
        if delivery is None:
            return self._none("attest", record.delivery)
        sides = {delivery.buyer: "buyer", delivery.seller: "seller", HOUSE_ACCOUNT: "house"}
        side = sides.get(record.account)
        if side is None:
            return refused("attest", Denial.NOT_YOURS, delivery.seller, record.account)
        if delivery.stage != "delivering":
            return refused("attest", Denial.DELIVERY_STATE, "delivering", delivery.stage)
        terms = self._terms(delivery)
        ended = (at.stamp - terms.begin_ns) // (terms.day_end_ns(1) - terms.begin_ns)
        last = min(ended, terms.days)
        if not delivery.next_day <= record.day <= last:
            return refused("attest", Denial.DAY_RANGE, last, record.day)
        seen = delivery.days.get(record.day)
        spoken = seen is not None and {"seller": seen.seller, "buyer": seen.buyer}.get(side)
        if spoken:
            return refused("attest", Denial.DUPLICATE, record.day, record.available)
        most = delivery.lots * DAY_S
        if not 0 <= record.lost <= record.available <= most:
            return refused("attest", Denial.HOURS_RANGE, most, record.available)
        figure = record.available, record.lost
        said = course.attested(delivery, record.day, side, figure, at, state)
        facts = {
            "delivery": delivery.id, "day": record.day, "said": said, "side": side,
            "available": record.available, "lost": record.lost, "digest": record.digest,
        }  # fmt: skip
        return Ruling("attest", ACCEPTED, facts)

    def _alternative(self, record: Alternative, at: At, state: "State") -> Ruling:
        """Rule on one side's consent to an alternative delivery.

        The second consent, to the same text, ends the delivery. A side that has signed alone may
        sign another text instead.
        """
        operation, delivery = "alternative_delivery", self._find(record.delivery)
        if delivery is None:
            return self._none(operation, record.delivery)
        if record.account not in (delivery.seller, delivery.buyer):
            return refused(operation, Denial.NOT_YOURS, delivery.seller, record.account)
        if delivery.stage not in ("assigned", "delivering"):
            return refused(operation, Denial.DELIVERY_STATE, "delivering", delivery.stage)
        first, same = record.account not in delivery.signed, record.agreement == delivery.agreement
        if not first and same:
            return refused(operation, Denial.DUPLICATE, observed=record.account)
        if first and delivery.signed and not same:
            return refused(operation, Denial.TERMS, delivery.agreement, record.agreement)
        if not first or not delivery.signed:
            delivery.signed, delivery.agreement = [record.account], record.agreement
            facts = {"delivery": delivery.id, "signed": delivery.signed, "terms": record.agreement}
            return Ruling(operation, ACCEPTED, facts)
        delivery.signed.append(record.account)
        if delivery.stage == "delivering":
            course.end(delivery, at, state)
        delivery.stage = "alternative"
        facts = {"stage": "agreed", "delivery": delivery.id, "terms": record.agreement}
        return Ruling(operation, ACCEPTED, facts)

    def _withdrawn(self, key: tuple[int, int], at: At, state: "State") -> list[Ruling]:
        """Follow up a withdrawal: an escrow, if its request key is that of one."""
        rulings = []
        for delivery in self.deliveries:
            if delivery.stage in ("invoiced", "unpaid") and delivery.escrow_due().key == key:
                rulings.append(course.escrowed(delivery, self._terms(delivery), at, state))
            rulings += [course.returned(delivery) for due in delivery.former if due.key == key]
        return rulings

    def _factors(self, record: FactorsRecorded) -> Ruling:
        """Store the latest factors of a grade and expiry; the desk has verified the signature."""
        try:
            table = factors.read(record.table.encode())
            found = factors_of(table)
        except (Refused, ValueError) as wrong:
            return Ruling("record_factors", MALFORMED, {"why": str(wrong)})
        self.factors[f"{table.grade}/{table.expiry}"] = found
        facts = {"grade": table.grade, "expiry": table.expiry, "version": table.version}
        return Ruling("record_factors", ACCEPTED, facts)

    def _buy_in(self, state: "State") -> list[Ruling]:
        """Buy in failed deliveries at the first fixing of the day of failure or later."""
        rulings = []
        for delivery in self.deliveries:
            if delivery.stage == "failing":
                terms, day = self._terms(delivery), date_of(delivery.failed_on)
                fixing = state.matters.get(Fixings).since(terms.index, day)
                if fixing is not None and fixing.price_micros is not None:
                    price = fixing.price_micros
                    rulings.append(course.bought_in(delivery, terms, price, state))
        return rulings
