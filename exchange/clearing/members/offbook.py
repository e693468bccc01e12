"""Off-book transfers of positions: give-ups, block trades, exchanges for physical (EFP).

    give-up    the executing account requests; its clearing member and the taker's must accept
    block      one side registers, the other signs within SIGN_NS; at least BLOCK_LOTS
    efp        as a block of any size, with the physical deal it is exchanged for

A member in default can neither give nor take lots; its clients are ported instead. A transfer is
``open`` until the last signature makes it ``final``, a refusal ``refused``, or the deadline
``expired``; no stage leads back, so lots never move twice. A final transfer is a ``Move``: the lots
at the price, from one account to the other. A due requests it from the engine for MOVE_NS; it is
``moved`` once the engine has moved the lots, otherwise ``unmoved``, and is then no longer
requested. The last ENDED_MAX that have ended are remembered; their rulings are in the ledger.
Transfers are no trades of the book: they do not affect settlement and last prices, and
their volume is reported separately.

Positions in a physical contract cannot be transferred after the last notice, since deliveries are
then assigned from the positions of both sides. Nothing is agreed in a cash-settled contract after
its last trading day, whose outcome is all but known; give-ups of its last trades go on.
"""

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import msgspec

from exchange.clearing.calling import Calls
from exchange.clearing.default.matter import Defaults
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.matters import ACCEPTED, At, Due, Dues, Lots, Matter, Ruling
from exchange.clearing.members.records import GiveUp, Register, Sign
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, refused
from exchange.clearing.prices import is_combination
from exchange.clearing.pricing import Prices
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, Limit, TransferKind

if TYPE_CHECKING:
    from exchange.clearing.state import State

SIGN_NS: Final = 900 * 10**9  # to sign a registered trade
GIVE_UP_NS: Final = 86_400 * 10**9  # to accept a give-up
MOVE_NS: Final = 86_400 * 10**9  # for the engine to move a final transfer
BLOCK_LOTS: Final = 50
PENDING_MAX: Final = 1 << 12  # transfers that are open or final
ENDED_MAX: Final = 1 << 10  # transfers remembered after their end
FAIR_PERCENT: Final = 10  # largest distance of a block's or EFP's price from the mark
PERCENT: Final = 100

Kind = Literal["give_up", "block", "efp"]
_ENDS: Final = {"open": "expired", "final": "unmoved"}  # stage -> stage after its deadline
_GIVEN: Final = ("final", "moved")


class Move(msgspec.Struct, frozen=True):
    """Lots at a clearing price: ``to`` gains them, ``source`` loses them."""

    id: int
    kind: Kind
    instrument: int
    source: int
    to: int
    lots: int  # > 0
    price: int


class Transfer(msgspec.Struct):
    """One transfer, its signatures and its stage."""

    move: Move
    deadline: int  # to be signed or, if final, moved; log time in ns
    needed: list[int]  # accounts that must sign
    signed: list[int] = []
    stage: str = "open"
    related: str = ""
    match_number: int = 0
    taker: int = 0  # the taker of a give-up; the account that registered a block or EFP

    @property
    def giver(self) -> int:
        """The other account than ``taker``: of a give-up, the one that hands its lots on."""
        return self.move.to if self.taker == self.move.source else self.move.source

    @property
    def due(self) -> Due:
        """The due that requests the transfer from the engine."""
        move, sells = self.move, self.taker == self.move.source
        lots = Lots(TransferKind[move.kind.upper()], self.giver, sells, move.instrument, move.price)
        return Due(f"transfer {move.id}", "transfer", self.taker, move.lots, lots)


class OffBook(Matter):
    """All off-book transfers of a market."""

    name: ClassVar[str] = "offbook"
    records: ClassVar[tuple[type[Record], ...]] = (GiveUp, Register, Sign)
    watches: ClassVar[tuple[EventKind, ...]] = (EventKind.LOTS_TRANSFERRED,)
    given: int = 0  # the last number of a transfer
    pending: dict[int, Transfer] = msgspec.field(default_factory=dict)  # open and final, by number
    ended: dict[int, Transfer] = msgspec.field(default_factory=dict)  # in the order of their ends
    soonest: int = 0  # earliest deadline of open and final transfers; 0 for none

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Rule on a record."""
        operation = str(type(record).__struct_config__.tag)
        if at.account not in (HOUSE_ACCOUNT, record.account):
            return refused(operation, Denial.NOT_YOURS, at.account, record.account)
        match record:
            case GiveUp():
                return self._give_up(record, at, state)
            case Register():
                return self._register(record, at, state)
            case Sign():
                return self._sign(record, at, state)
        raise AssertionError(f"{operation} is named and not ruled on")

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """End the transfers that were not signed or not moved in time."""
        if not self.soonest or at.stamp < self.soonest:
            return ()
        rulings = []
        for transfer in [one for one in self.pending.values() if at.stamp >= one.deadline]:
            if transfer.stage == "final":
                state.matters.get(Dues).call_off(transfer.due.id, at.stamp)
                state.matters.touch(Dues)
            self._end(transfer, _ENDS[transfer.stage])
            rulings.append(Ruling("transfer", transfer.stage, {"transfer": transfer.move.id}))
        self._plan()
        return rulings

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling] | None:
        """Match a move of lots with its transfer, which may just have become ``unmoved``."""
        for transfer in (*self.pending.values(), *self.ended.values()):
            if transfer.stage not in ("final", "unmoved"):
                continue
            due = transfer.due
            if (due.account, due.amount) == (event.account, event.quantity) and due.key == (
                event.key_lo, event.key_hi
            ):  # fmt: skip
                self._end(transfer, "moved")
                self._plan()
                return ()
        return None

    def _end(self, transfer: Transfer, stage: str) -> None:
        """End a transfer, maybe one that had ended otherwise; forget the one that ended first."""
        transfer.stage = stage
        self.pending.pop(transfer.move.id, None)
        self.ended[transfer.move.id] = transfer
        if len(self.ended) > ENDED_MAX:
            del self.ended[next(iter(self.ended))]

    def _plan(self) -> None:
        """Update the earliest deadline."""
        self.soonest = min((one.deadline for one in self.pending.values()), default=0)

    def _give_up(self, record: GiveUp, at: At, state: "State") -> Ruling:
        operation, taker = "give_up", record.taker
        wrong = _senseless(record.account, taker, record.instrument, record.lots, at, state)
        if wrong is not None:
            return refused(operation, *wrong)
        held = state.positions.get(record.account, record.instrument).net
        there = max(0, abs(held) - self._going(record)) if held * record.lots > 0 else 0
        if self._is_given(record) or abs(record.lots) > there:
            return refused(operation, Denial.QUANTITY, there if held > 0 else -there, record.lots)
        if not 0 < record.price <= Limit.PRICE:
            return refused(operation, Denial.PRICE_RANGE, int(Limit.PRICE), record.price)
        move = self._move("give_up", record.instrument, record.account, taker, record.lots,
                          record.price)  # fmt: skip
        poor = self._beyond(move, record.account, state)
        if poor is not None:
            return refused(operation, *poor)
        registry = state.matters.get(Registry)
        members = [registry.member_of(account, state) for account in (record.account, taker)]
        needed = sorted({registry.own(member, state)[0] for member in members})
        return self._begin(
            operation, move, needed, at.stamp + GIVE_UP_NS, record.account, at, state, taker=taker,
            match_number=record.match_number,
        )  # fmt: skip

    def _is_given(self, record: GiveUp) -> bool:
        """Whether this side of the trade has been given up to the taker, or is about to be."""
        return any(
            t.match_number == record.match_number and t.taker == record.taker
            for t in self._given(record, ("open", *_GIVEN))
        )

    def _going(self, record: GiveUp) -> int:
        """Lots of the account's side in transfers that are open or final."""
        given = self._given(record, ("open", "final"))
        return sum(t.move.lots for t in given if t.move.instrument == record.instrument)

    def _given(self, record: GiveUp, stages: Container[str]) -> Iterator[Transfer]:
        """The account's give-ups on the record's side in one of the stages, of any trade."""
        for transfer in (*self.pending.values(), *self.ended.values()):
            move = transfer.move
            giver = move.source if record.lots > 0 else move.to
            if move.kind != "give_up" or transfer.stage not in stages:
                continue
            if giver == record.account != transfer.taker:
                yield transfer

    def _beyond(
        self, move: Move, giver: int, state: "State"
    ) -> tuple[Denial, object, object] | None:
        """The refusal of a give-up whose price costs the giver more than it can lose; None if it
        does not.

        The engine asks for margin of the taker alone, so the house would pay what the giver cannot.
        It must have the margin of what it keeps; if that is missing before, it loses no more than
        the margin that goes, and no more than it has. What is agreed already counts as moved.
        """
        registry = state.matters.get(Registry)
        if _cost(move, giver, state) <= 0:
            return None
        before = {number: held.net for number, held in state.positions.of_account(giver)}
        after, lost, going = before.copy(), 0, [move]
        for one in self.pending.values():
            if one.stage == "final" and one.move.kind == "give_up" and one.giver == giver:
                going.append(one.move)
        for each in going:
            lost += max(0, _cost(each, giver, state))
            left = after.get(each.instrument, 0) - each.lots * _side(each, giver)
            after[each.instrument] = left
        gained = sum(gain for _, _, gain in state.unrealized(giver))
        there = state.matters.get(Calls).balance(giver, state) + gained
        kept = registry.needed(after)
        spare = max(0, there - kept, min(there, registry.needed(before) - kept))
        return (Denial.AMOUNT, spare, lost) if lost > spare else None

    def _register(self, record: Register, at: At, state: "State") -> Ruling:
        operation, other = "register_trade", record.other
        wrong = _senseless(record.account, other, record.instrument, record.lots, at, state)
        if wrong is not None:
            return refused(operation, *wrong)
        last = state.matters.get(Prices).last_days.get(record.instrument, state.business_date)
        if state.business_date > last and _is_cash_settled(record.instrument, state):
            return refused(operation, Denial.LATE, last, state.business_date)
        if record.kind == "block" and abs(record.lots) < BLOCK_LOTS:
            return refused(operation, Denial.QUANTITY, BLOCK_LOTS, abs(record.lots))
        if record.kind == "efp" and not record.related:
            return refused(operation, Denial.OPEN_POSITION, "the physical deal", "")
        registry = state.matters.get(Registry)
        if registry.member_of(record.account, state) == registry.member_of(other, state):
            return refused(operation, Denial.SAME_OWNER, record.account, other)
        mark = state.instruments[record.instrument].mark
        if abs(record.price - mark) * PERCENT > mark * FAIR_PERCENT:
            return refused(operation, Denial.PRICE_RANGE, mark, record.price)
        move = self._move(record.kind, record.instrument, other, record.account, record.lots,
                          record.price)  # fmt: skip
        return self._begin(
            operation, move, sorted((record.account, other)), at.stamp + SIGN_NS, record.account,
            at, state, taker=record.account, related=record.related,
        )  # fmt: skip

    def _move(
        self, kind: Kind, instrument: int, source: int, to: int, lots: int, price: int
    ) -> Move:
        """The next move; negative lots go from ``to`` to ``source``."""
        ends = (source, to) if lots > 0 else (to, source)
        return Move(self.given + 1, kind, instrument, *ends, abs(lots), price)

    def _begin(
        self, operation: str, move: Move, needed: list[int], deadline: int, by: int, at: At,
        state: "State", *, taker: int, related: str = "", match_number: int = 0,
    ) -> Ruling:  # fmt: skip
        if len(self.pending) >= PENDING_MAX:
            return refused(operation, Denial.FULL, PENDING_MAX, len(self.pending))
        deadline = _until(deadline, move.instrument, state)
        transfer = Transfer(
            move, deadline, needed, related=related, match_number=match_number, taker=taker
        )
        self.given = move.id
        self.pending[move.id] = transfer
        if by in needed:
            transfer.signed.append(by)
        stage = self._stage(transfer, at, state)
        facts = {
            "stage": stage, "transfer": move.id, "needed": needed, "signed": transfer.signed,
            "deadline": deadline,
        }  # fmt: skip
        return Ruling(operation, ACCEPTED, facts)

    def _sign(self, record: Sign, at: At, state: "State") -> Ruling:
        operation = "sign_transfer"
        transfer = self.pending.get(record.transfer) or self.ended.get(record.transfer)
        if transfer is None:
            return refused(operation, Denial.UNKNOWN_PROPOSAL, self.given, record.transfer)
        if transfer.stage != "open":
            return refused(operation, Denial.PROPOSAL_STATE, "open", transfer.stage)
        if record.account not in transfer.needed:
            return refused(operation, Denial.NOT_YOURS, transfer.needed, record.account)
        if record.account in transfer.signed and record.accept:
            return refused(operation, Denial.DUPLICATE, 0, record.account)
        if not record.accept:
            self._end(transfer, "refused")
            self._plan()
            return Ruling(operation, ACCEPTED, {"stage": "refused", "transfer": record.transfer})
        out = _in_default((transfer.move.source, transfer.move.to), state)
        if out is None and transfer.move.kind == "give_up":
            out = self._beyond(transfer.move, transfer.giver, state)
        if out is not None:
            return refused(operation, *out)
        transfer.signed.append(record.account)
        move = msgspec.to_builtins(transfer.move)
        stage = self._stage(transfer, at, state)
        facts = {"stage": stage, "move": move, "related": transfer.related}
        return Ruling(operation, ACCEPTED, facts)

    def _stage(self, transfer: Transfer, at: At, state: "State") -> str:
        """Make a transfer final and request it from the engine once all have signed."""
        if set(transfer.needed) <= set(transfer.signed):
            transfer.stage = "final"
            transfer.deadline = _until(at.stamp + MOVE_NS, transfer.move.instrument, state)
            ask(state, transfer.due)
        self._plan()
        return transfer.stage


def _side(move: Move, account: int) -> int:
    """1 if the account loses the lots of a move, -1 if it gains them; 0 if it is none of its."""
    return (account == move.source) - (account == move.to)


def _cost(move: Move, account: int, state: "State") -> int:
    """What a move costs an account against the mark, in micro-dollars."""
    listed = state.instruments[move.instrument]
    return (listed.mark - move.price) * move.lots * listed.multiplier * _side(move, account)


def _until(deadline: int, instrument: int, state: "State") -> int:
    """The earlier of a deadline and the end of the instrument's notices."""
    expiry = state.matters.get(Deliveries).expiries.get(instrument)
    return deadline if expiry is None else min(deadline, expiry.terms.cutoff_ns + 1)


def _is_cash_settled(instrument: int, state: "State") -> bool:
    return instrument not in state.matters.get(Deliveries).expiries


def _senseless(
    account: int, other: int, instrument: int, lots: int, at: At, state: "State"
) -> tuple[Denial, object, object] | None:
    """Why such a transfer is refused, with limit and observed value; None if it is not."""
    listed = state.instruments.get(instrument)
    if listed is None or listed.expired or is_combination(listed.code):
        return Denial.UNKNOWN_INSTRUMENT, len(state.instruments), instrument
    expiry = state.matters.get(Deliveries).expiries.get(instrument)
    if expiry is not None and expiry.assigned:
        return Denial.LATE, expiry.terms.cutoff_ns, at.stamp
    for one in (account, other):
        if one not in state.members or one == HOUSE_ACCOUNT:
            return Denial.UNKNOWN_ACCOUNT, 0, one
    out = _in_default((account, other), state)
    if out is not None:
        return out
    if account == other:
        return Denial.SAME_OWNER, account, other
    if not 0 < abs(lots) <= Limit.QUANTITY:
        return Denial.QUANTITY, int(Limit.QUANTITY), lots
    return None


def _in_default(accounts: Sequence[int], state: "State") -> tuple[Denial, object, object] | None:
    """The refusal for an account of a member in default; None if there is none."""
    registry, gone = state.matters.get(Registry), state.matters.get(Defaults).gone
    members = (registry.member_of(account, state) for account in accounts)
    out = next((member for member in members if member in gone), None)
    return None if out is None else (Denial.UNKNOWN_MEMBER, 0, out)
