"""Defaults of members, from the declaration to the end, and the default fund.

    declared    by one person; the member's own accounts are frozen; the cash that they hold, and
                what is paid in from now on less what is paid out, is its margin; its clients are
                ported
    closed      the positions were auctioned, or torn up, and all is settled; a default that holds
                something again, by a busted trade for example, is declared again
    allocated   by two persons: loss = margin - cash, shared by the waterfall; again if more becomes
                owed (exchange.clearing.default.loss)
    replenished the next size_fund has called what was used from all surviving members
    ended       by two persons: what is left repays those who bore the loss, what is still owed is
                written off (exchange.clearing.default.ending); the member stays in default

The money of the fund is outside the engine, in the book of transfers: fund/MEMBER and capital. What
the layers bear is paid into the defaulter's accounts until they are at zero: sum of layers = loss,
and what leaves fund and capital comes into the market's cash.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from exchange.clearing.default import closing, ending, loss, porting
from exchange.clearing.default.fund import SCENARIOS_VERSION, FundSize, size_by_stress
from exchange.clearing.default.payout import (
    CAPITAL,
    OUTSIDE,
    fund_of,
    move,
    named,
    open_fund,
)
from exchange.clearing.default.records import (
    Allocate,
    AuctionBid,
    CloseDefault,
    DeclareDefault,
    DistributeRecovery,
    OpenAuction,
    PayCapital,
    PortClient,
    SizeFund,
    TearUp,
)
from exchange.clearing.default.stages import DAY, Auction, Default
from exchange.clearing.delivery import dvp
from exchange.clearing.matters import ACCEPTED, At, Due, Dues, Matter, Ruling
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, refused
from exchange.clearing.records import ByTwo, Record
from exchange.clearing.refusals import Denial
from exchange.clearing.transfers import Account
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, KillScope, Limit

if TYPE_CHECKING:
    from exchange.clearing.state import State


class Call(msgspec.Struct):
    """A contribution to the fund that is not paid yet, due at the log time ``by``; 0 if it was
    reported as overdue."""

    due: Due
    member: int
    by: int


class Defaults(Matter):
    """The default fund and all defaults of a market. Records and their refusals are those of
    docs/reference/clearing.md."""

    name: ClassVar[str] = "defaults"
    records: ClassVar[tuple[type[Record], ...]] = (
        PayCapital, SizeFund, DeclareDefault, PortClient, OpenAuction, AuctionBid, TearUp, Allocate,
        CloseDefault, DistributeRecovery,
    )  # fmt: skip
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DEPOSITED,
        EventKind.WITHDRAWN,
        EventKind.FEE_CHARGED,
        EventKind.KILLED,
        EventKind.RESUMED,
        EventKind.LOTS_TRANSFERRED,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.INSTRUMENT_EXPIRED,
        EventKind.TRADE_BUSTED,
        EventKind.TRADE_ADJUSTED,
        EventKind.LEG_BUSTED,
        EventKind.LEG_ADJUSTED,
    )
    defaults: list[Default] = msgspec.field(default_factory=list)
    auctions: list[Auction] = msgspec.field(default_factory=list)
    calls: list[Call] = msgspec.field(default_factory=list)
    coming: list[Due] = msgspec.field(default_factory=list)  # repayments of the house's capital
    sized: int = 0  # how often the fund was sized

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Rule on a record."""
        operation = str(type(record).__struct_config__.tag)
        speaker = record.account if isinstance(record, AuctionBid) else HOUSE_ACCOUNT
        if at.account not in (HOUSE_ACCOUNT, speaker):
            return refused(operation, Denial.NOT_YOURS, at.account, speaker)
        match record:
            case PayCapital():
                return self._pay_capital(record, at, state)
            case SizeFund():
                return self._size(at, state)
            case DeclareDefault():
                return self._declare(record, at, state)
            case AuctionBid():
                return self._bid(record, at, state)
        default = self._find(record.default)
        if default is None:
            return refused(operation, Denial.UNKNOWN_DEFAULT, len(self.defaults), record.default)
        match record:
            case OpenAuction():
                return closing.open_auction(default, self.auctions, record, at, state)
            case ByTwo():
                ruling = self.would(record, at, state)
                if ruling.outcome == ACCEPTED:
                    self._by_two(default, record, at, state)
                return ruling
        raise AssertionError(f"{operation} is named and not ruled on")

    def would(self, record: Any, at: At, state: "State") -> Ruling:
        """Return the ruling that a record by two would get now."""
        operation, default = str(type(record).__struct_config__.tag), self._find(record.default)
        if default is None:
            return refused(operation, Denial.UNKNOWN_DEFAULT, len(self.defaults), record.default)
        if isinstance(record, PortClient):
            return porting.would(default, self.gone, record, state)
        if isinstance(record, TearUp):
            wrong = closing.refuse_tear_up(default, self.auctions, record, state)
            if wrong is not None:
                return wrong
            lost = closing.torn(default, record.instrument, state)
            mark = state.instruments[record.instrument].mark
            facts = {"default": default.id, "instrument": record.instrument, "price": mark,
                     "torn": named(lost)}  # fmt: skip
            return Ruling(operation, ACCEPTED, {"stage": "torn_up", **facts})
        if isinstance(record, Allocate):
            return loss.would(default, self._liable(state), record, state)
        return ending.would(default, record, state)

    def _by_two(self, default: Default, record: ByTwo, at: At, state: "State") -> None:
        """Carry out an accepted record by two."""
        match record:
            case PortClient():
                porting.port(default, record, at, state)
            case TearUp():
                closing.tear_up(default, record.instrument, at, state)
            case Allocate():
                if not porting.left(default, state):
                    default.steps.pop("port", None)
                loss.allocate(default, self._liable(state), record, at, state)
            case CloseDefault() | DistributeRecovery():
                back = ending.end(default, record, at, state)
                self.coming += [] if back is None else [back]

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling] | None:
        """Follow up an event: contributions that were paid, what goes on to ported clients' new
        accounts, books that are closed or reopened, losses that grew, and lifted switches."""
        if event.kind == EventKind.FEE_CHARGED:
            return self._charged(event, at, state)
        if event.kind == EventKind.DEPOSITED:
            self._paid(event, event.price)
        if event.kind == EventKind.WITHDRAWN:
            self._paid(event, -event.price)
            return self._contributed((event.key_lo, event.key_hi), at, state)
        if event.kind == EventKind.RESUMED:
            return self._freeze_again(event, state)
        rulings: list[Ruling] = []
        killed = event.kind == EventKind.KILLED
        for default in self.defaults:
            rulings += porting.follow(default, at, state)
            rulings += [] if killed else self._done(default, at, state)
            elsewhere = event.kind == EventKind.DEPOSITED and default not in self._of(event, state)
            rulings += [] if killed or elsewhere else loss.follow(default, at, state)
        return rulings

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Close auctions at their deadline, and report steps and contributions that are overdue."""
        rulings = []
        for auction in self.auctions:
            if not auction.closed and at.stamp >= auction.deadline:
                default = self.defaults[auction.default - 1]
                rulings.append(closing.close(default, auction, self.survivors(state), at, state))
        for default in self.defaults:
            for step, deadline in default.steps.items():
                if 0 < deadline <= at.stamp:
                    default.steps[step] = 0
                    facts = {"default": default.id, "step": step, "deadline": deadline}
                    rulings.append(Ruling("default", "overdue", facts))
        for call in self.calls:
            if 0 < call.by <= at.stamp:
                facts = {"member": call.member, "amount": call.due.amount, "deadline": call.by}
                rulings.append(Ruling("default_fund", "overdue", facts))
                call.by = 0
        return rulings

    def deadlines(self) -> list[int]:
        """Return the log times at which something is decided without a record."""
        times = [auction.deadline for auction in self.auctions if not auction.closed]
        times += [time for default in self.defaults for time in default.steps.values()]
        return [time for time in [*times, *(call.by for call in self.calls)] if time]

    @property
    def gone(self) -> frozenset[int]:
        """The members in default, ended or not."""
        return frozenset(default.member for default in self.defaults)

    # The fund

    def fund(self, state: "State") -> dict[int, int]:
        """Return what each member has in the fund, in micro-dollars."""
        members = state.matters.get(Registry).members(state)
        return {member: dvp.balance(state.book, fund_of(member)) for member in members}

    def survivors(self, state: "State") -> dict[int, int]:
        """Return what each member that is not in default has in the fund."""
        return {m: there for m, there in self.fund(state).items() if m not in self.gone}

    def _liable(self, state: "State") -> loss.Survivors:
        """Return the survivors' money in the fund, and with what they still owe to it: the calls
        that they have not paid, and what losses have used since the fund was last sized."""
        used = Counter[int]()
        for default in self.defaults:
            for one in default.allocations[default.renewed :]:
                used.update(one.junior_fund)
                used.update(one.survivors_fund)
        fund = self.survivors(state)
        owed = {m: there + self._asked(m) + used[m] for m, there in fund.items()}
        return loss.Survivors(fund, owed)

    def _pay_capital(self, record: PayCapital, at: At, state: "State") -> Ruling:
        held = dvp.balance(state.book, CAPITAL)
        if record.amount == 0 or held + record.amount < 0:
            return refused("pay_capital", Denial.AMOUNT, -held, record.amount)
        if record.amount < 0:  # it is at risk first, and may not leave others to bear a loss
            for default in self.defaults:
                if default.is_unshared:
                    seen = f"{default.id} {default.stage}"
                    return refused("pay_capital", Denial.DEFAULT_STATE, "allocated", seen)
        state.book.open(Account(OUTSIDE))
        state.book.open(Account(CAPITAL, "USD", "debits"))
        way = (OUTSIDE, CAPITAL) if record.amount > 0 else (CAPITAL, OUTSIDE)
        id = f"capital {at.number}"
        if dvp.move(state.book, id, *way, abs(record.amount), at.stamp):  # above the book's limit
            return refused("pay_capital", Denial.AMOUNT, int(Limit.MONEY), record.amount)
        return Ruling("pay_capital", ACCEPTED, {"capital": held + record.amount})

    def _contributed(self, key: tuple[int, int], at: At, state: "State") -> Sequence[Ruling]:
        """Book a contribution that was paid, or a repayment of the capital, by its request key."""
        for due in self.coming:
            if due.key == key:
                self.coming.remove(due)
                move(state, f"in {due.id}", dvp.MARKET, CAPITAL, due.amount, at)
                return (Ruling("default_fund", "capital_repaid", {"amount": due.amount}),)
        for call in self.calls:
            if call.due.key == key:
                self.calls.remove(call)
                open_fund(state, call.member)
                move(state, f"in {call.due.id}", dvp.MARKET, fund_of(call.member), call.due.amount,
                     at)  # fmt: skip
                facts = {"member": call.member, "amount": call.due.amount}
                return (Ruling("default_fund", "contributed", facts),)
        return ()

    def sizing(self, state: "State") -> FundSize:
        """Return the fund that present positions require of the members not in default."""
        registry = state.matters.get(Registry)
        members = [m for m in registry.members(state) if m not in self.gone]
        books = {
            member: [
                line
                for account in registry.accounts(member, state)
                for line in registry.exposures(account, state)
            ]
            for member in members
        }
        margin = {member: registry.gross_margin(member, state) for member in members}
        return size_by_stress(books, margin)

    def _size(self, at: At, state: "State") -> Ruling:
        """Size the fund: call what is missing, and return what is too much, of open calls first.

        While a loss is not shared nothing is returned: the fund without the defaulter's book may be
        smaller, and its survivors' contributions are what this loss falls on.
        """
        found, registry = self.sizing(state), state.matters.get(Registry)
        self.sized += 1
        for default in self.defaults:
            default.renewed = len(default.allocations)
        called, called_off, returned, deadline = {}, {}, {}, at.stamp + DAY
        bound, kept = any(default.is_unshared for default in self.defaults), {}
        there = self.fund(state)
        for member, wanted in found.contributions.items():
            id = f"fund {self.sized} {member}"
            account = registry.own(member, state)[0]
            asked = self._asked(member)
            missing = wanted - there[member] - asked
            if bound and missing < 0:
                kept[str(member)] = -missing
                continue
            if less := min(asked, max(0, -missing)):
                self._call_less(member, less, id, at, state)
                called_off[str(member)] = less
            if missing > 0:
                due = Due(id, "withdraw", account, missing)
                self.calls.append(Call(due, member, deadline))
                ask(state, due)
                called[str(member)] = missing
            if wanted < there[member]:
                back = there[member] - wanted
                move(state, f"back {id}", fund_of(member), dvp.MARKET, back, at)
                ask(state, Due(id, "deposit", account, back))
                returned[str(member)] = back
        again = [default for default in self.defaults if default.stage == "allocated"]
        for default in again:
            default.enter("replenished")
            default.note("replenished", at)
        facts = {
            "scenarios_version": SCENARIOS_VERSION, "scenario": found.scenario, "size": found.size,
            "uncovered": found.uncovered, "called": called, "called_off": called_off,
            "returned": returned, "kept": kept, "deadline": deadline,
            "replenishes": [default.id for default in again],
        }  # fmt: skip
        return Ruling("size_fund", ACCEPTED, facts)

    def _asked(self, member: int) -> int:
        """Return what a member is called for and has not paid."""
        return sum(call.due.amount for call in self.calls if call.member == member)

    def _call_less(self, member: int, less: int, id: str, at: At, state: "State") -> None:
        """Reduce a member's open calls by ``less``, the latest first.

        What is left of a call is requested under ``id``, by the same deadline. All calls of a
        member end when it is declared in default: its cash is then margin.
        """
        for call in [call for call in reversed(self.calls) if call.member == member]:
            taken = min(less, call.due.amount)
            if not taken:
                break
            less -= taken
            state.matters.get(Dues).call_off(call.due.id, at.stamp)
            rest = Due(id, "withdraw", call.due.account, call.due.amount - taken)
            if rest.amount:
                self.calls[self.calls.index(call)] = Call(rest, member, call.by)
                ask(state, rest)
            else:
                self.calls.remove(call)
        state.matters.touch(Dues)

    # A default

    def _find(self, number: int) -> Default | None:
        return self.defaults[number - 1] if 1 <= number <= len(self.defaults) else None

    def _declare(self, record: DeclareDefault, at: At, state: "State") -> Ruling:
        registry = state.matters.get(Registry)
        if record.member not in registry.members(state):
            return refused("declare_default", Denial.UNKNOWN_MEMBER, 0, record.member)
        if record.member in self.gone:
            return refused("declare_default", Denial.DUPLICATE, 0, record.member)
        own = registry.own(record.member, state)
        cash = sum(state.ledger.cash(account) for account in own)
        default = Default(
            len(self.defaults) + 1, record.member, own, max(0, cash), at.business_date
        )
        self.defaults.append(default)
        self._call_less(record.member, self._asked(record.member), "", at, state)
        for account in own:
            ask(state, closing.freeze(f"default {default.id} {account}", account))
        default.note("declared", at)
        facts = {
            "default": default.id, "member": record.member, "frozen": own,
            "clients": registry.clients(record.member, state), "margin": default.margin,
            "cash": cash, "reason": record.reason, **default.begin(at, "port", "close"),
        }  # fmt: skip
        return Ruling("declare_default", ACCEPTED, {"stage": "declared", **facts})

    def _bid(self, record: AuctionBid, at: At, state: "State") -> Ruling:
        if not 1 <= record.auction <= len(self.auctions):
            made = len(self.auctions)
            return refused("auction_bid", Denial.UNKNOWN_PROPOSAL, made, record.auction)
        return closing.bid(self.auctions[record.auction - 1], self.gone, record, at, state)

    def _paid(self, event: Event, amount: int) -> None:
        """Add what a defaulter's own account was paid to its margin, until its loss is shared; a
        withdrawal, such as one that was called off and is returned, is below 0."""
        for default in self.defaults:
            if not default.allocations and event.account in default.accounts:
                default.margin += amount

    def _charged(self, event: Event, at: At, state: "State") -> Sequence[Ruling] | None:
        """Follow up a fee, of a delivery for example: a defaulter may owe more than was shared."""
        theirs = self._of(event, state)
        return [one for default in theirs for one in loss.follow(default, at, state)] or None

    def _of(self, event: Event, state: "State") -> list[Default]:
        """Return the default of the member whose account an event names, if it is in default; the
        clearing house's own account has no member."""
        if event.account == HOUSE_ACCOUNT:
            return []
        member = state.matters.get(Registry).member_of(event.account, state)
        return [default for default in self.defaults if default.member == member]

    def _freeze_again(self, event: Event, state: "State") -> Sequence[Ruling]:
        """Freeze an account again whose kill switch was lifted, for a hedge for example."""
        if event.reason != KillScope.ACCOUNT:
            return ()
        for default in self._of(event, state):
            if closing.stays_frozen(default, event.account, state):
                default.frozen += 1
                id = f"default {default.id} {event.account} again {default.frozen}"
                ask(state, closing.freeze(id, event.account))
                facts = {"default": default.id, "account": event.account}
                return (Ruling("default", "frozen_again", facts),)
        return ()

    def _done(self, default: Default, at: At, state: "State") -> list[Ruling]:
        """End the steps that are done now: clients ported, the book closed; or reopen the book."""
        rulings = []
        if "port" in default.steps and not porting.left(default, state):
            del default.steps["port"]
            rulings.append(Ruling("default", "ported", {"default": default.id}))
        return [*rulings, *closing.follow(default, self.auctions, at, state)]
