"""Defaults: declare, freeze, port, hedge or auction, allocate, replenish; each step in the log.

    declared    one person may; the member's own accounts are frozen (the kill switch), its cash now
                is its margin
    auctioned   sealed bids until a deadline; awards at the prices bid; poor bidders are junior
    allocated   proposed by one person and approved by another within APPROVAL_NS; the book must be
                empty. loss = margin at the declaration - cash at the end, shared by the waterfall
    replenished the next size_fund calls what was used, from everybody still there

The fund's money lies outside the engine, in the book of transfers: fund/MEMBER and capital. What a
layer bears is paid into the defaulter's accounts until they are at zero, so that the market's cash
is whole again: sum of layers = loss, and what went out of fund and capital = what came in.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from exchange.clearing.default.auction import Award, Bid, award, juniors
from exchange.clearing.default.fund import SCENARIOS_VERSION, size_by_stress
from exchange.clearing.default.payout import (
    CAPITAL,
    OUTSIDE,
    fund_of,
    move,
    named,
    open_fund,
    pay_layers,
)
from exchange.clearing.default.records import (
    ApproveAllocation,
    AuctionBid,
    DeclareDefault,
    OpenAuction,
    PayCapital,
    PortClient,
    ProposeAllocation,
    SizeFund,
)
from exchange.clearing.default.waterfall import Waterfall, waterfall
from exchange.clearing.delivery import dvp
from exchange.clearing.matters import ACCEPTED, At, Due, Matter, Ruling
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, refused
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.clearing.transfers import Account
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, Limit

if TYPE_CHECKING:
    from exchange.clearing.state import State

APPROVAL_NS: Final = 600 * 10**9
BIDS_MAX: Final = 1 << 12  # of one auction
AUCTION_NS_MAX: Final = 7 * 86_400 * 10**9


class Auction(msgspec.Struct):
    """One position on offer."""

    id: int
    default: int
    instrument: int
    net: int
    reference: int  # the mark when it was opened
    deadline: int
    bids: list[Bid] = []
    awards: list[Award] = []
    closed: bool = False


class Proposal(msgspec.Struct, frozen=True):
    """An allocation that waits for a second person."""

    person: str
    deadline: int
    gains: dict[int, int]
    assessment_cap_pct: int


class Default(msgspec.Struct):
    """One default. ``margin`` is what the member's own accounts held when it was declared."""

    id: int
    member: int
    accounts: list[int]
    margin: int
    stage: str = "declared"
    junior: list[int] = []
    ported: list[int] = []
    proposal: Proposal | None = None


class Defaults(Matter):
    """The default fund and all defaults of a market."""

    name: ClassVar[str] = "defaults"
    records: ClassVar[tuple[type[Record], ...]] = (
        PayCapital, SizeFund, DeclareDefault, PortClient, OpenAuction, AuctionBid,
        ProposeAllocation, ApproveAllocation,
    )  # fmt: skip
    watches: ClassVar[tuple[EventKind, ...]] = (EventKind.WITHDRAWN,)
    defaults: list[Default] = msgspec.field(default_factory=list)
    auctions: list[Auction] = msgspec.field(default_factory=list)
    calls: list[tuple[Due, int]] = msgspec.field(default_factory=list)  # unpaid, by member
    sized: int = 0  # fund sizes so far

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Decide on a record."""
        operation = str(type(record).__struct_config__.tag)
        speaker = getattr(record, "account", HOUSE_ACCOUNT)
        if at.account not in (HOUSE_ACCOUNT, speaker):
            return refused(operation, Denial.NOT_YOURS, at.account, speaker)
        match record:
            case PayCapital():
                return self._pay_capital(record, at, state)
            case SizeFund():
                return self._size(at, state)
            case DeclareDefault():
                return self._declare(record, state)
            case PortClient():
                return self._port(record, state)
            case OpenAuction():
                return self._open_auction(record, at, state)
            case AuctionBid():
                return self._bid(record, at, state)
            case ProposeAllocation():
                return self._propose(record, at, state)
            case ApproveAllocation():
                return self._approve(record, at, state)
        raise AssertionError(f"{operation} is named and not ruled on")

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling]:
        """A contribution has come in."""
        key = event.key_lo, event.key_hi
        for due, member in self.calls:
            if due.key == key:
                self.calls.remove((due, member))
                open_fund(state, member)
                move(state, f"in {due.id}", dvp.MARKET, fund_of(member), due.amount, at)
                facts = {"member": member, "amount": due.amount}
                return (Ruling("default_fund", "contributed", facts),)
        return ()

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Close the auctions whose time is over, and forget proposals that nobody approved."""
        rulings = []
        for auction in self.auctions:
            if not auction.closed and at.stamp >= auction.deadline:
                rulings.append(self._close(auction, state))
        for default in self.defaults:
            if default.proposal is not None and at.stamp >= default.proposal.deadline:
                default.proposal = None
                rulings.append(Ruling("allocation", "expired", {"default": default.id}))
        return rulings

    def deadlines(self) -> list[int]:
        """Log times at which something is decided by itself."""
        times = [auction.deadline for auction in self.auctions if not auction.closed]
        return times + [d.proposal.deadline for d in self.defaults if d.proposal is not None]

    # The fund

    def fund(self, state: "State") -> dict[int, int]:
        """What each member has in the fund."""
        members = state.matters.get(Registry).members(state)
        return {member: dvp.balance(state.book, fund_of(member)) for member in members}

    def _pay_capital(self, record: PayCapital, at: At, state: "State") -> Ruling:
        held = dvp.balance(state.book, CAPITAL)
        if record.amount == 0 or held + record.amount < 0:
            return refused("pay_capital", Denial.AMOUNT, -held, record.amount)
        state.book.open(Account(OUTSIDE))
        state.book.open(Account(CAPITAL, "USD", "debits"))
        way = (OUTSIDE, CAPITAL) if record.amount > 0 else (CAPITAL, OUTSIDE)
        id = f"capital {at.number}"
        if dvp.move(state.book, id, *way, abs(record.amount), at.stamp):  # past all bounds
            return refused("pay_capital", Denial.AMOUNT, int(Limit.MONEY), record.amount)
        return Ruling("pay_capital", ACCEPTED, {"capital": held + record.amount})

    def _size(self, at: At, state: "State") -> Ruling:
        """The fund that today's books ask for; differences are called or given back."""
        registry = state.matters.get(Registry)
        gone = {default.member for default in self.defaults}
        members = [m for m in registry.members(state) if m not in gone]
        books = {
            member: [
                line
                for account in registry.accounts(member, state)
                for line in registry.exposures(account, state)
            ]
            for member in members
        }
        margin = {member: registry.gross_margin(member, state) for member in members}
        found = size_by_stress(books, margin)
        self.sized += 1
        called, returned = {}, {}
        there = self.fund(state)
        asked = {m: sum(d.amount for d, of in self.calls if of == m) for m in members}
        for member, wanted in found.contributions.items():
            id = f"fund {self.sized} {member}"
            account = registry.own(member, state)[0]
            missing = wanted - there[member] - asked[member]
            if missing > 0:
                due = Due(id, "withdraw", account, missing)
                self.calls.append((due, member))
                ask(state, due)
                called[str(member)] = missing
            elif wanted < there[member]:
                back = there[member] - wanted
                move(state, f"back {id}", fund_of(member), dvp.MARKET, back, at)
                ask(state, Due(id, "deposit", account, back))
                returned[str(member)] = back
        facts = {
            "scenarios_version": SCENARIOS_VERSION, "scenario": found.scenario, "size": found.size,
            "uncovered": found.uncovered, "called": called, "returned": returned,
        }  # fmt: skip
        return Ruling("size_fund", ACCEPTED, facts)

    # A default

    def _find(self, number: int) -> Default | None:
        return self.defaults[number - 1] if 1 <= number <= len(self.defaults) else None

    def _declare(self, record: DeclareDefault, state: "State") -> Ruling:
        registry = state.matters.get(Registry)
        if record.member not in registry.members(state):
            return refused("declare_default", Denial.UNKNOWN_MEMBER, 0, record.member)
        if any(d.member == record.member for d in self.defaults):
            return refused("declare_default", Denial.DUPLICATE, 0, record.member)
        own = registry.own(record.member, state)
        cash = sum(state.ledger.cash(account) for account in own)
        default = Default(len(self.defaults) + 1, record.member, own, max(0, cash))
        self.defaults.append(default)
        facts = {
            "default": default.id, "member": record.member, "freeze": own,
            "clients": registry.clients(record.member, state), "margin": default.margin,
            "cash": cash, "reason": record.reason,
        }  # fmt: skip
        return Ruling("declare_default", ACCEPTED, {"stage": "declared", **facts})

    def _port(self, record: PortClient, state: "State") -> Ruling:
        operation, default = "port_client", self._find(record.default)
        if default is None:
            return refused(operation, Denial.UNKNOWN_DEFAULT, len(self.defaults), record.default)
        registry = state.matters.get(Registry)
        if record.account not in registry.clients(default.member, state):
            return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, record.account)
        if record.person == record.accepted_by:
            return refused(operation, Denial.FOUR_EYES, record.person, record.accepted_by)
        gone = {other.member for other in self.defaults}
        if record.member in gone or record.member not in registry.members(state):
            return refused(operation, Denial.UNKNOWN_MEMBER, 0, record.member)
        if state.ledger.cash(record.account) < 0:
            return refused(operation, Denial.AMOUNT, 0, state.ledger.cash(record.account))
        registry.ported[record.account] = record.member
        state.matters.touch(Registry)
        default.ported.append(record.account)
        facts = {"default": default.id, "account": record.account, "member": record.member,
                 "margin": registry.margin(record.account, state)}  # fmt: skip
        return Ruling(operation, ACCEPTED, {"stage": "ported", **facts})

    def _open_auction(self, record: OpenAuction, at: At, state: "State") -> Ruling:
        operation, default = "open_auction", self._find(record.default)
        if default is None:
            return refused(operation, Denial.UNKNOWN_DEFAULT, len(self.defaults), record.default)
        if default.stage != "declared":
            return refused(operation, Denial.DEFAULT_STATE, "declared", default.stage)
        if not at.stamp < record.deadline <= at.stamp + AUCTION_NS_MAX:
            return refused(operation, Denial.EXPIRED, at.stamp, record.deadline)
        net = sum(state.positions.get(a, record.instrument).net for a in default.accounts)
        if not net:
            return refused(operation, Denial.OPEN_POSITION, 1, 0)
        if any(not a.closed and a.instrument == record.instrument for a in self.auctions):
            return refused(operation, Denial.DUPLICATE, 0, record.instrument)
        mark = state.instruments[record.instrument].mark
        auction = Auction(
            len(self.auctions) + 1, default.id, record.instrument, net, mark, record.deadline
        )
        self.auctions.append(auction)
        facts = {"auction": auction.id, "instrument": record.instrument, "net": net,
                 "reference": mark, "deadline": record.deadline}  # fmt: skip
        return Ruling(operation, ACCEPTED, {"stage": "opened", **facts})

    def _bid(self, record: AuctionBid, at: At, state: "State") -> Ruling:
        if not 1 <= record.auction <= len(self.auctions):
            return refused("auction_bid", Denial.UNKNOWN_PROPOSAL, 0, record.auction)
        auction = self.auctions[record.auction - 1]
        if auction.closed:
            return refused("auction_bid", Denial.EXPIRED, auction.deadline, at.stamp)
        default = self.defaults[auction.default - 1]
        if record.account not in state.members or record.account in default.accounts:
            return refused("auction_bid", Denial.UNKNOWN_ACCOUNT, 0, record.account)
        if not 0 < record.lots <= abs(auction.net):
            return refused("auction_bid", Denial.QUANTITY, abs(auction.net), record.lots)
        listed = state.instruments[auction.instrument]
        step = listed.tick_scale * listed.price_step
        if not 0 < record.price <= Limit.PRICE or record.price % step:
            return refused("auction_bid", Denial.PRICE_RANGE, step, record.price)
        if len(auction.bids) >= BIDS_MAX:
            return refused("auction_bid", Denial.FULL, BIDS_MAX, len(auction.bids))
        member = state.matters.get(Registry).member_of(record.account, state)
        auction.bids.append(Bid(at.number, member, record.account, record.lots, record.price))
        return Ruling("auction_bid", ACCEPTED, {"auction": auction.id, "lots": record.lots})

    def _close(self, auction: Auction, state: "State") -> Ruling:
        """The bids are opened: awards, and who bid too little or too far off."""
        default = self.defaults[auction.default - 1]
        auction.closed = True
        auction.awards, left = award(auction.net, auction.bids)
        fund = {m: there for m, there in self.fund(state).items() if m != default.member}
        poor = juniors(auction.net, auction.reference, auction.bids, fund)
        default.junior = sorted({*default.junior, *poor})
        facts = {
            "auction": auction.id, "instrument": auction.instrument, "net": auction.net,
            "awards": [a._asdict() for a in auction.awards], "unsold": left,
            "junior": sorted(poor),
        }  # fmt: skip
        return Ruling("auction", "closed", facts)

    # The loss

    def _propose(self, record: ProposeAllocation, at: At, state: "State") -> Ruling:
        operation, default = "propose_allocation", self._find(record.default)
        if default is None:
            return refused(operation, Denial.UNKNOWN_DEFAULT, len(self.defaults), record.default)
        wrong = self._not_ready(default, state)
        if wrong is not None:
            return refused(operation, *wrong)
        strange = record.gains.keys() - (state.members.keys() - set(default.accounts))
        if strange:
            return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, min(strange))
        default.proposal = Proposal(
            record.person, at.stamp + APPROVAL_NS, record.gains, record.assessment_cap_pct
        )
        found = self._waterfall(default, default.proposal, state)
        facts = {"default": default.id, "person": record.person,
                 "deadline": default.proposal.deadline, "loss": found.loss,
                 "layers": dict(found.layers())}  # fmt: skip
        return Ruling(operation, ACCEPTED, {"stage": "proposed", **facts})

    def _approve(self, record: ApproveAllocation, at: At, state: "State") -> Ruling:
        operation, default = "approve_allocation", self._find(record.default)
        if default is None:
            return refused(operation, Denial.UNKNOWN_DEFAULT, len(self.defaults), record.default)
        proposal = default.proposal
        if proposal is None:
            return refused(operation, Denial.PROPOSAL_STATE, "proposed", default.stage)
        if proposal.person == record.person:
            return refused(operation, Denial.FOUR_EYES, proposal.person, record.person)
        wrong = self._not_ready(default, state)
        if wrong is not None:
            return refused(operation, *wrong)
        found = self._waterfall(default, proposal, state)
        pay_layers(default.id, default.member, default.accounts, found, at, state)
        default.stage, default.proposal = "allocated", None
        facts = {
            "default": default.id, "loss": found.loss, "layers": dict(found.layers()),
            "survivors_fund": named(found.survivors_fund),
            "assessments": named(found.assessments), "haircuts": named(found.haircuts),
            "junior": default.junior,
        }  # fmt: skip
        return Ruling(operation, ACCEPTED, {"stage": "allocated", **facts})

    def _not_ready(self, default: Default, state: "State") -> tuple[Denial, object, object] | None:
        """Why the loss cannot be shared yet."""
        if default.stage != "declared":
            return Denial.DEFAULT_STATE, "declared", default.stage
        for account in default.accounts:
            for number, position in state.positions.of_account(account):
                if position.net or position.cost:
                    code = state.instruments[number].code
                    return Denial.BOOK_NOT_EMPTY, f"{account} {code} 0", position.net
        return None

    def _waterfall(self, default: Default, proposal: Proposal, state: "State") -> Waterfall[int]:
        """The loss since the declaration, in its layers."""
        cash = sum(state.ledger.cash(account) for account in default.accounts)
        fund = self.fund(state)
        gone = {other.member for other in self.defaults}
        return waterfall(
            max(0, default.margin - cash),
            defaulter_margin=default.margin,
            defaulter_fund=fund.get(default.member, 0),
            own_capital=dvp.balance(state.book, CAPITAL),
            survivors_fund={m: there for m, there in fund.items() if m not in gone},
            assessment_cap_pct=proposal.assessment_cap_pct,
            junior=frozenset(default.junior),
            gains=proposal.gains,
        )
