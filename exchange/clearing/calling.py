"""Collateral, margin calls and interest.

Collateral other than cash is held in the book of transfers, each asset in a ledger of its own, and
counts at its price less a haircut. It counts in margin calls; the engine's margin check of an order
uses cash alone. A call is for what an account lacks, with a deadline in log time. It is met by a
deposit or a pledge, or it is missed, which is a ground for declaring a default.
"""

from collections.abc import Collection, Container, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeAlias

import msgspec
from msgspec import Meta

from exchange.clearing.calls import Required, margin_call
from exchange.clearing.delivery import dvp
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.margin.matter import MarginVersions
from exchange.clearing.matters import ACCEPTED, At, Due, Matter, Ruling
from exchange.clearing.moves import ask, refused, take
from exchange.clearing.outcomes import Outcome, Transfer
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.clearing.transfers import AMOUNT_MAX, SECOND, Account
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind
from exchange.messages.dates import date_of

if TYPE_CHECKING:
    from exchange.clearing.state import State

CALL_SECONDS: Final = 7_200  # of a call, unless its record says otherwise
CALL_SECONDS_MAX: Final = 7 * 86_400
RATE_MAX: Final = 10_000  # basis points a year
DAYS_MAX: Final = 366
YEAR_DAYS: Final = 360
ASSET_CHARS: Final = 40  # so that the names of its accounts have no more than any (ID_CHARS)
Asset: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=ASSET_CHARS, pattern=r"^[ -~]+\Z")
]  # printable ASCII
_BP: Final = 10_000
_NOTHING: Final = Required(0, 0)


class ValueAsset(Record, frozen=True, kw_only=True, tag="value_asset"):
    """Lists an asset as collateral, or changes its price (micro-dollars a unit) and haircut."""

    asset: Asset
    price: int
    haircut_bp: int


class Pledge(Record, frozen=True, kw_only=True, tag="pledge"):
    """Units of an asset become an account's collateral. A repeat under the same ``id`` moves
    nothing."""

    id: str
    account: int
    asset: str
    units: int


class Release(Record, frozen=True, kw_only=True, tag="release"):
    """Units of collateral go back: as far as the requirement does not need them, or to be sold for
    what a member in default owes."""

    id: str
    account: int
    asset: str
    units: int


class CallMargin(Record, frozen=True, kw_only=True, tag="call_margin"):
    """Every account is called for the margin that it lacks, to be paid within a week at most."""

    within_seconds: int = CALL_SECONDS


class AccrueInterest(Record, frozen=True, kw_only=True, tag="accrue_interest"):
    """Interest is paid on cash and charged on negative cash, once a business date. Rates are basis
    points a year."""

    credit_bp: int
    debit_bp: int
    days: int = 1


class Valued(msgspec.Struct, frozen=True):
    """The value of an asset as collateral: micro-dollars a unit, and the haircut."""

    price: int
    haircut_bp: int


class Call(msgspec.Struct, frozen=True):
    """An open call: cash and collateral must reach ``level`` micro-dollars by ``deadline``."""

    amount: int
    level: int
    stamp: int
    deadline: int
    missed: bool = False


class Calls(Matter):
    """The assets taken as collateral, and the open calls by account."""

    name: ClassVar[str] = "calls"
    records: ClassVar[tuple[type[Record], ...]] = (ValueAsset, Pledge, Release, CallMargin)
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DEPOSITED,
        EventKind.INSTRUMENT_SETTLED,
    )
    assets: dict[str, Valued] = msgspec.field(default_factory=dict)
    open: dict[int, Call] = msgspec.field(default_factory=dict)
    look_due: bool = False  # variation was paid, and no ``call_margin`` has followed

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Rule on a record, which only the operator may send."""
        operation = str(record.__struct_config__.tag)
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        if isinstance(record, ValueAsset):
            return self._value(record, operation, state)
        try:
            if isinstance(record, CallMargin):
                return self._call(record, at, state)
            return self._move(record, operation, at, state)
        except KeyError as uncovered:  # the parameters do not cover a position
            return refused(operation, Denial.UNKNOWN_INSTRUMENT, 0, str(uncovered))

    def passed(self, at: At, state: "State") -> list[Ruling]:
        """Report calls past their deadline as missed, once, or as met by what a port brought."""
        rulings: list[Ruling] = []
        due = [a for a, c in self.open.items() if c.deadline <= at.stamp and not c.missed]
        for account in sorted(due):
            call = self.open[account]
            if met := self._met(account, state):
                rulings += met
                continue
            self.open[account] = msgspec.structs.replace(call, missed=True)
            missing = call.level - self.balance(account, state)
            rulings.append(_about("missed", account, missing, call))
        return rulings

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling]:
        """Check after a deposit whether the account's call is met; note that variation was paid."""
        if event.kind == EventKind.INSTRUMENT_SETTLED:
            self.look_due = True
            return []
        return self._met(event.account, state)

    def deadlines(self) -> list[int]:
        """Return the deadlines of calls, except for missed ones."""
        return [call.deadline for call in self.open.values() if not call.missed]

    def collateral(self, account: int, state: "State") -> int:
        """Return the value of an account's collateral in micro-dollars, each asset rounded down."""
        return sum(counts for *_, counts in self.pledges(account, state))

    def pledges(self, account: int, state: "State") -> Iterator[tuple[str, Valued, int, int]]:
        """Yield (asset, value of a unit, units, value of the units) of an account."""
        for asset, valued in sorted(self.assets.items()):
            units = _units(account, asset, state)
            if units:
                yield asset, valued, units, units * valued.price * (_BP - valued.haircut_bp) // _BP

    def balance(self, account: int, state: "State") -> int:
        """Return the cash and the collateral value of an account, in micro-dollars."""
        return state.ledger.cash(account) + self.collateral(account, state)

    def carry(self, id: str, account: int, to: int, at: At, state: "State") -> dict[str, int]:
        """Move all pledges of an account to account ``to`` in one chain, all or none.

        Returns the units by asset. AssertionError if a unit was created, lost or left behind.
        """
        units = {asset: there for asset, _, there, _ in self.pledges(account, state)}
        if not units:  # as for every client ported ever, at nearly every event
            return units
        before = {asset: _units(to, asset, state) + there for asset, there in units.items()}
        chain = [
            Transfer(f"{id} {place}", _pledged(account, asset), _pledged(to, asset), there,
                     linked=place < len(units))
            for place, (asset, there) in enumerate(units.items(), start=1)
        ]  # fmt: skip
        for asset in units:
            state.book.open(Account(_pledged(to, asset), asset, "debits"))
        outcomes = state.book.apply(chain, at.stamp, own=True)
        assert not any(outcomes), f"{id}: {outcomes}"
        assert before == {asset: _units(to, asset, state) for asset in units}, id
        assert not any(_units(account, asset, state) for asset in units), id
        return units

    def _value(self, record: ValueAsset, operation: str, state: "State") -> Ruling:
        if not 0 < record.price <= AMOUNT_MAX:
            return refused(operation, Denial.PRICE_RANGE, AMOUNT_MAX, record.price)
        if not 0 <= record.haircut_bp <= _BP:
            return refused(operation, Denial.AMOUNT, _BP, record.haircut_bp)
        self.assets[record.asset] = Valued(record.price, record.haircut_bp)
        state.book.open(Account(_custody(record.asset), record.asset))
        return Ruling(operation, ACCEPTED, msgspec.structs.asdict(self.assets[record.asset]))

    def _move(self, record: Pledge | Release, operation: str, at: At, state: "State") -> Ruling:
        """Move units from custody to the account's pledge, or back."""
        account, asset, valued = record.account, record.asset, self.assets.get(record.asset)
        if account not in state.members:
            return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, account)
        if valued is None:
            return refused(operation, Denial.ASSET_MISMATCH, sorted(self.assets), asset)
        if not 0 < record.units <= AMOUNT_MAX:
            return refused(operation, Denial.QUANTITY, AMOUNT_MAX, record.units)
        pledged, custody = _pledged(account, asset), _custody(asset)
        state.book.open(Account(pledged, asset, "debits"))
        debit, credit = (custody, pledged) if isinstance(record, Pledge) else (pledged, custody)
        known = state.book.find(f"{operation} {record.id}") is not None
        if isinstance(record, Release) and not known:
            less = record.units * valued.price * (_BP - valued.haircut_bp) // _BP
            spare = self.balance(account, state) - self.required(account, state)
            if less > max(spare, 0) and not _is_estate(account, state):
                return refused(operation, Denial.AMOUNT, max(spare, 0), less)
        asked = Transfer(f"{operation} {record.id}", debit, credit, record.units)
        (outcome,) = state.book.apply([asked], at.stamp, own=isinstance(record, Release))
        if outcome == Outcome.LEDGER_FULL:
            full = state.book.count + state.book.left
            return refused(operation, Denial.FULL, full, state.book.count)
        if outcome not in (Outcome.OK, Outcome.EXISTS):
            return refused(operation, Denial.AMOUNT, record.units, outcome.name.lower())
        facts = {"account": account, "collateral": self.collateral(account, state),
                 "met": bool(self._met(account, state))}  # fmt: skip
        return Ruling(operation, ACCEPTED, facts | {"outcome": outcome.name.lower()})

    def asks(self, state: "State") -> bool:
        """Return whether margin parameters are in force."""
        return state.matters.get(MarginVersions).in_force(state.business_date) is not None

    def required(self, account: int, state: "State") -> int:
        """Return the margin required of an account, 0 without parameters. KeyError if they do not
        cover one of its positions or deliveries."""
        return self.levels(state, account).get(account, _NOTHING).initial

    def unknown(self, state: "State") -> dict[int, list[str]]:
        """Return the codes, by account, of positions and deliveries that the parameters do not
        cover."""
        parameters = state.matters.get(MarginVersions).in_force(state.business_date)
        if parameters is None or not _is_anything_promised(state):
            return {}
        from exchange.clearing.margin import book  # noqa: PLC0415 - numpy, only when asked

        return book.unknown(state, parameters)

    def levels(
        self, state: "State", account: int | None = None, but: Container[int] = ()
    ) -> dict[int, Required]:
        """Return the initial and maintenance requirement of accounts with positions or deliveries:
        of all except ``but``, or of one ``account``. KeyError as for ``required``."""
        parameters = state.matters.get(MarginVersions).in_force(state.business_date)
        if parameters is None or not _is_anything_promised(state):
            held = [state.positions.of_instrument(n) for n in state.positions.instruments()]
            return dict.fromkeys((a for book in held for a, p in book.items() if p.net), _NOTHING)
        from exchange.clearing.margin import book  # noqa: PLC0415 - numpy, only when asked

        on = date_of(state.business_date)
        return {
            r.account: Required(int(r.requirement + r.loss), int(r.maintenance + r.loss))
            for r in book.requirements(state, parameters, on, account=account, but=but)
        }

    def _call(self, record: CallMargin, at: At, state: "State") -> Ruling:
        """Call every account for the margin that it lacks.

        An open call keeps its deadline and takes the new level. If the requirement of an account is
        not known, an open call keeps its level, and otherwise negative cash alone is called.
        """
        if not 0 < record.within_seconds <= CALL_SECONDS_MAX:
            observed = record.within_seconds
            return refused("call_margin", Denial.EXPIRED, CALL_SECONDS_MAX, observed)
        self.look_due, unknown = False, self.unknown(state)
        deadline = at.stamp + record.within_seconds * SECOND
        negative = (a for a in state.members if a != HOUSE_ACCOUNT and state.ledger.cash(a) < 0)
        owing = dict.fromkeys(negative, _NOTHING)
        for account in unknown.keys() & self.open.keys():
            owing[account] = Required(self.open[account].level, self.open[account].level)
        levels = self.levels(state, but=unknown)
        calls: dict[int, int] = {}
        for account, required in sorted((owing | levels).items()):
            before, level = self.open.get(account), required.initial
            balance = self.balance(account, state)
            if missing := margin_call(balance, required, called=before is not None):
                kept = deadline if before is None else before.deadline
                missed = before is not None and before.missed
                self.open[account] = Call(missing, level, at.stamp, kept, missed)
                calls[account] = missing
        closed = sorted(set(self.open) - set(calls))
        for account in closed:
            del self.open[account]
        deadlines = {account: self.open[account].deadline for account in calls}
        facts = {"calls": calls, "deadlines": deadlines, "closed": closed}
        facts |= {"unknown": unknown} if unknown else {}
        return Ruling("call_margin", ACCEPTED, facts)

    def _met(self, account: int, state: "State") -> list[Ruling]:
        call = self.open.get(account)
        if call is None or self.balance(account, state) < call.level:
            return []
        del self.open[account]
        return [_about("met", account, 0, call)]


class Interest(Matter):
    """Interest; ``paid`` is the last business date for which it was accrued."""

    name: ClassVar[str] = "interest"
    records: ClassVar[tuple[type[Record], ...]] = (AccrueInterest,)
    paid: int = 0

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Request the interest of the business date, which the house pays and receives."""
        operation = "accrue_interest"
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        for rate in (record.credit_bp, record.debit_bp):
            if not 0 <= rate <= RATE_MAX:
                return refused(operation, Denial.AMOUNT, RATE_MAX, rate)
        if not 1 <= record.days <= DAYS_MAX:
            return refused(operation, Denial.QUANTITY, DAYS_MAX, record.days)
        if self.paid >= at.business_date:
            return refused(operation, Denial.DUPLICATE, self.paid, at.business_date)
        self.paid = at.business_date
        due: list[Due] = []
        charged, id = 0, f"interest {at.business_date}"
        free = _shared(state)
        for account in sorted(state.members):
            cash = state.ledger.cash(account)
            if account == HOUSE_ACCOUNT or not cash or (cash < 0 and account in free):
                continue
            rate = record.credit_bp if cash > 0 else record.debit_bp
            amount = interest(abs(cash), rate, record.days)
            if cash > 0:
                due.append(Due(f"{id} {account}", "deposit", account, amount))
            else:
                ask(state, *take(f"{id} {account}", account, amount))
                charged += amount
        paid = sum(one.amount for one in due)
        ask(state, Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, paid), *due)
        return Ruling(operation, ACCEPTED, {"paid": paid, "charged": charged})


def concerned(ruling: Ruling) -> Collection[int]:
    """Return the accounts of whose margin calls a ruling is a step, as a statement shows them."""
    facts: dict[str, Any] = ruling.facts
    match ruling.operation:
        case "call_margin":
            return {*facts.get("calls", ()), *facts.get("closed", ())}
        case "margin_call":
            return (facts["account"],)
        case "declare_default":
            return tuple(facts.get("frozen", ()))
        case "pledge" | "release":
            return (facts["account"],) if facts.get("met") else ()
        case "port_client":
            return (facts["account"],) if ruling.outcome == ACCEPTED else ()
    return ()


def interest(cash: int, rate_bp: int, days: int) -> int:
    """Return the interest on ``cash`` for ``days`` of a year of 360 days, rounded down."""
    return cash * rate_bp * days // (_BP * YEAR_DAYS)


def _custody(asset: str) -> str:
    return f"custody/{asset}"


def _pledged(account: int, asset: str) -> str:
    return f"pledged/{account}/{asset}"


def _is_anything_promised(state: "State") -> bool:
    """Return whether there are positions, or deliveries, that may need margin."""
    return bool(state.positions.instruments() or state.matters.get(Deliveries).deliveries)


def _is_estate(account: int, state: "State") -> bool:
    """Return whether an account's collateral may be released to be sold for what a member in
    default owes."""
    from exchange.clearing.default import loss  # noqa: PLC0415 - which imports this
    from exchange.clearing.default.matter import Defaults  # noqa: PLC0415 - likewise

    found = state.matters.get(Defaults).defaults
    return any(loss.may_sell(default, account, state) for default in found)


def _shared(state: "State") -> set[int]:
    """Return the accounts of members in default whose loss was shared, clients' whose debts were
    part of it too: what they still owe bears no interest, since it would only be a further loss."""
    from exchange.clearing.default import loss  # noqa: PLC0415 - which imports this
    from exchange.clearing.default.matter import Defaults  # noqa: PLC0415 - likewise

    defaults = state.matters.get(Defaults).defaults
    return {account for one in defaults if one.allocations for account in loss.estate(one, state)}


def _units(account: int, asset: str, state: "State") -> int:
    return dvp.balance(state.book, _pledged(account, asset))


def _about(outcome: str, account: int, missing: int, call: Call) -> Ruling:
    facts = {"account": account, "missing": missing, "level": call.level, "called": call.amount,
             "deadline": call.deadline}  # fmt: skip
    return Ruling("margin_call", outcome, facts)
