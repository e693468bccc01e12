"""The end of a default, and recoveries after it: repayment in reverse order of the waterfall.

A default ends when nothing of it is open any more. The cash of its accounts and its fund then repay
those who bore the loss, the last layer first, each layer in full before the next:

    written off > haircuts > assessments > survivors' fund > juniors' fund > the house's capital

Within a layer, by what each bore and has not been repaid, by largest remainder, ties by member or
account (exchange.clearing.sharing). The rest is the defaulter's own. What the accounts still owe,
which no layer has covered, is written off against the house's capital. What is recovered after the
end is distributed in the same order, beginning with what was written off. Asserted:

    cash + fund + written off = repaid + left to the defaulter      nobody gets more than it bore
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from exchange.clearing.calling import Calls
from exchange.clearing.default.closing import freeze
from exchange.clearing.default.loss import claims, clients, estate
from exchange.clearing.default.payout import CAPITAL, fund_of, move, named
from exchange.clearing.default.records import CloseDefault, DistributeRecovery
from exchange.clearing.default.stages import HOUSES, Default, Layer
from exchange.clearing.delivery import dvp
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.matters import ACCEPTED, At, Due, Dues, Ruling
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, refused, take
from exchange.clearing.refusals import Denial
from exchange.clearing.sharing import share
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State


class Plan(NamedTuple):
    """The result of an end or a distribution, in micro-dollars."""

    cash: dict[int, int]  # of the estate's accounts
    fund: int  # what the defaulter has in the fund
    written_off: int
    repaid: dict[Layer, dict[int, int]]
    left: int  # to the defaulter


def plan(default: Default, state: "State") -> Plan:
    """Return how what the estate holds now would be distributed."""
    cash, fund = estate(default, state), dvp.balance(state.book, fund_of(default.member))
    there = sum(cash.values()) + fund
    repaid = repay(max(0, there), claims(default))
    left = max(0, there) - sum(sum(parts.values()) for parts in repaid.values())
    return Plan(cash, fund, max(0, -there), repaid, left)


def repay(amount: int, owed: Mapping[Layer, Mapping[int, int]]) -> dict[Layer, dict[int, int]]:
    """Share ``amount`` among the claims of ``owed``, in the order of its layers; nobody gets more
    than its claim."""
    repaid: dict[Layer, dict[int, int]] = {}
    for layer, parts in owed.items():
        paid = min(amount, sum(parts.values()))
        if paid:
            repaid[layer] = {who: part for who, part in share(paid, parts).items() if part}
        amount -= paid
    return repaid


def would(default: Default, record: CloseDefault | DistributeRecovery, state: "State") -> Ruling:
    """Return the ruling that the end of a default, or a distribution after it, would get now."""
    operation = str(type(record).__struct_config__.tag)
    ends = isinstance(record, CloseDefault)
    if wrong := _open(default, operation, "replenished" if ends else "ended", state):
        return wrong
    found = plan(default, state)
    capital = dvp.balance(state.book, CAPITAL)
    for most in (default.uncovered, capital):
        if found.written_off > most:
            return refused(operation, Denial.AMOUNT, most, found.written_off)
    if not ends and not found.repaid:
        return refused(operation, Denial.AMOUNT, 1, 0)
    unpaid = {
        layer: sum(parts.values()) - sum(found.repaid.get(layer, {}).values())
        for layer, parts in claims(default).items()
    }
    facts = {
        "default": default.id, "cash": named(found.cash), "fund": found.fund,
        "repaid": {layer: named(parts) for layer, parts in found.repaid.items()},
        "unpaid": {layer: amount for layer, amount in unpaid.items() if amount},
        "written_off": found.written_off, "left": found.left,
    }  # fmt: skip
    return Ruling(operation, ACCEPTED, {"stage": "ended" if ends else "distributed", **facts})


def _open(default: Default, operation: str, stage: str, state: "State") -> Ruling | None:
    """Return the refusal that says what of a default is still open, or None; the checks are in the
    order of docs/reference/clearing.md."""
    if default.stage != stage:
        return refused(operation, Denial.DEFAULT_STATE, stage, default.stage)
    for account, code, position in default.open_positions(state):
        return refused(operation, Denial.BOOK_NOT_EMPTY, f"{account} {code} 0", position.net)
    others, deliveries = clients(default, state), state.matters.get(Deliveries)
    for account in (*default.accounts, *others):
        for one in deliveries.under_way(account):
            return refused(operation, Denial.DELIVERY_STATE, "ended", f"{one.id} {one.stage}")
    for account in others:
        if held := _holds(account, state):
            return refused(operation, Denial.ACCOUNT_NOT_EMPTY, f"{account} {held[0]}", held[1])
    for account in default.accounts:
        for asset, _, units, _ in state.matters.get(Calls).pledges(account, state):
            return refused(operation, Denial.ACCOUNT_NOT_EMPTY, f"{account} {asset}", units)
    if waits := _waits(default, state):
        return refused(operation, Denial.PROPOSAL_STATE, "moved", waits)
    return None


def _holds(account: int, state: "State") -> tuple[str, int] | None:
    """Return an instrument or asset that a client has with the house, and how much of it; or None.

    Its cash is its own and keeps no default open: the engine pays out all of it once the member
    owes nothing.
    """
    for number, position in state.positions.of_account(account):
        if position.net or position.cost:
            return state.instruments[number].code, position.net
    for asset, _, units, _ in state.matters.get(Calls).pledges(account, state):
        return asset, units
    return None


def _waits(default: Default, state: "State") -> str:
    """Return the id of an open due that keeps the default open, or an empty text: a freeze (orders
    may work without it), money or lots of the defaulter, a contribution to the fund."""
    accounts = {*default.accounts, *clients(default, state)}
    begin = tuple(f"{word} {default.id}{end}" for word in ("default", "recovery", "port")
                  for end in " .")  # fmt: skip
    for due in state.matters.get(Dues).open.values():
        other = None if due.lots is None else due.lots.other
        called = due.kind == "withdraw" and due.id.startswith("fund ")
        if called or accounts & {due.account, other} or due.id.startswith(begin):
            return due.id
    return ""


def end(
    default: Default, record: CloseDefault | DistributeRecovery, at: At, state: "State"
) -> Due | None:
    """Carry out what ``would`` accepts.

    Returns the due that takes what the house's capital gets back out of the market, or None if that
    is nothing; the amount is booked to the capital once the due is done.
    """
    found = plan(default, state)
    default.distributions += 1
    id, cash = f"recovery {default.id} {default.distributions}", dict(found.cash)
    if found.fund:
        move(state, f"{id} fund", fund_of(default.member), dvp.MARKET, found.fund, at)
        ask(state, Due(f"{id} fund", "deposit", default.accounts[0], found.fund))
        cash[default.accounts[0]] += found.fund
    if found.written_off:
        move(state, f"{id} written off", CAPITAL, dvp.MARKET, found.written_off, at)
    into, capital = _into(found.repaid, state), _houses(found.repaid)
    for account, amount in cash.items():
        if amount < 0:
            into[account] += -amount
    has = {account: amount for account, amount in cash.items() if amount > 0}
    taken = sum(into.values()) + capital - found.written_off
    assert sum(has.values()) - taken == found.left >= 0, "nothing comes from nowhere"
    for account, amount in share(taken, has).items():
        if amount:
            ask(state, *take(f"{id} from {account}", account, amount))
    ask(state, Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, taken - capital))
    for account, amount in sorted(into.items()):
        ask(state, Due(f"{id} to {account}", "deposit", account, amount))
    _keep(default, record, found, at)
    if isinstance(record, CloseDefault):  # nobody trades under this member any more
        ask(state, *(freeze(f"{id} {account}", account) for account in clients(default, state)))
    if not capital:
        return None
    back = Due(f"{id} capital", "withdraw", HOUSE_ACCOUNT, capital)
    ask(state, back)
    return back


def _keep(default: Default, record: CloseDefault | DistributeRecovery, found: Plan, at: At) -> None:
    """Store what was repaid and written off, and the stage."""
    for layer, parts in found.repaid.items():
        before = default.repaid.get(layer, {})
        default.repaid[layer] = {
            who: before.get(who, 0) + parts.get(who, 0) for who in sorted({*before, *parts})
        }
    claims(default)  # asserts that nobody was repaid more than it bore
    default.written_off += found.written_off
    default.uncovered = 0
    if isinstance(record, CloseDefault):
        default.stage, default.steps = "ended", {}
    default.note("ended" if isinstance(record, CloseDefault) else "recovery distributed", at)


def _into(repaid: Mapping[Layer, Mapping[int, int]], state: "State") -> defaultdict[int, int]:
    """Return what each account gets; a member gets its part on its first own account."""
    registry, into = state.matters.get(Registry), defaultdict[int, int](int)
    for layer, parts in repaid.items():
        for who, part in parts.items():
            if layer == "haircuts":
                into[who] += part
            elif layer not in HOUSES:
                into[registry.own(who, state)[0]] += part
    return into


def _houses(repaid: Mapping[Layer, Mapping[int, int]]) -> int:
    """Return what the house's capital gets back."""
    return sum(sum(repaid.get(layer, {}).values()) for layer in HOUSES)
