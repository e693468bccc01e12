"""The end of a default: what is left or recovered goes back in reverse order of the waterfall.

A default ends when nothing of it is open any more. What its accounts and its fund hold then repays
those who bore the loss, the last loss first, each layer in full before the next:

    written off > haircuts > assessments > survivors' fund > juniors' fund > the house's capital

Within a layer in proportion to what each bore and has not got back, by largest remainder, ties by
member or account (exchange.clearing.sharing). What is left after that is the defaulter's own. What
the accounts still owe, which no layer has covered, is written off against the house's capital; what
is recovered after the end is distributed the same way, and pays that back before all else.
Asserted:

    cash + fund + written off = repaid + what is left          each gets back no more than it bore
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
    """What an end or a distribution comes to. Micro-dollars."""

    cash: dict[int, int]  # of the estate's accounts
    fund: int  # that the defaulter has left in the fund
    written_off: int
    repaid: dict[Layer, dict[int, int]]
    left: int  # the defaulter's own


def plan(default: Default, state: "State") -> Plan:
    """What the estate holds now, and whose it is."""
    cash, fund = estate(default, state), dvp.balance(state.book, fund_of(default.member))
    there = sum(cash.values()) + fund
    repaid = repay(max(0, there), claims(default))
    left = max(0, there) - sum(sum(parts.values()) for parts in repaid.values())
    return Plan(cash, fund, max(0, -there), repaid, left)


def repay(amount: int, owed: Mapping[Layer, Mapping[int, int]]) -> dict[Layer, dict[int, int]]:
    """An amount shared among claims, layer after layer; nobody gets more than it is owed."""
    repaid: dict[Layer, dict[int, int]] = {}
    for layer, parts in owed.items():
        paid = min(amount, sum(parts.values()))
        if paid:
            repaid[layer] = {who: part for who, part in share(paid, parts).items() if part}
        amount -= paid
    return repaid


def would(default: Default, record: CloseDefault | DistributeRecovery, state: "State") -> Ruling:
    """What the end of a default would come to now, or a recovery after it."""
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
    """What of a default is not over; checks in the order of docs/reference/clearing.md."""
    if default.stage != stage:
        return refused(operation, Denial.DEFAULT_STATE, stage, default.stage)
    for account, code, position in default.open_positions(state):
        return refused(operation, Denial.BOOK_NOT_EMPTY, f"{account} {code} 0", position.net)
    others, deliveries = clients(default, state), state.matters.get(Deliveries)
    for account in (*default.accounts, *others):
        for number in deliveries.under_way(account):
            there = deliveries.deliveries[number - 1].stage
            return refused(operation, Denial.DELIVERY_STATE, "ended", f"{number} {there}")
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
    """Lots or collateral that a client has with the house, and how much. Its cash is its own and
    keeps nothing open: the engine pays all of it out once the member owes no more."""
    for number, position in state.positions.of_account(account):
        if position.net or position.cost:
            return state.instruments[number].code, position.net
    for asset, _, units, _ in state.matters.get(Calls).pledges(account, state):
        return asset, units
    return None


def _waits(default: Default, state: "State") -> str:
    """The id of something that clearing asks for and that has not moved: a freeze, without which
    orders may work, money or lots of the defaulter's, a contribution that replenishes the fund."""
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
    """Do what ``would`` accepts. What the house's capital gets back comes with the due returned,
    and belongs into the capital once that is done."""
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
    if isinstance(record, CloseDefault):  # nobody trades any more under a member that is gone
        ask(state, *(freeze(f"{id} {account}", account) for account in clients(default, state)))
    if not capital:
        return None
    back = Due(f"{id} capital", "withdraw", HOUSE_ACCOUNT, capital)
    ask(state, back)
    return back


def _keep(default: Default, record: CloseDefault | DistributeRecovery, found: Plan, at: At) -> None:
    """What was repaid and written off, and the stage."""
    for layer, parts in found.repaid.items():
        before = default.repaid.get(layer, {})
        default.repaid[layer] = {
            who: before.get(who, 0) + parts.get(who, 0) for who in sorted({*before, *parts})
        }
    claims(default)  # asserts that nobody has got back more than it bore
    default.written_off += found.written_off
    default.uncovered = 0
    if isinstance(record, CloseDefault):
        default.stage, default.steps = "ended", {}
    default.note("ended" if isinstance(record, CloseDefault) else "recovery distributed", at)


def _into(repaid: Mapping[Layer, Mapping[int, int]], state: "State") -> defaultdict[int, int]:
    """What each account gets: a member on its first own one."""
    registry, into = state.matters.get(Registry), defaultdict[int, int](int)
    for layer, parts in repaid.items():
        for who, part in parts.items():
            if layer == "haircuts":
                into[who] += part
            elif layer not in HOUSES:
                into[registry.own(who, state)[0]] += part
    return into


def _houses(repaid: Mapping[Layer, Mapping[int, int]]) -> int:
    """What the house's capital gets back."""
    return sum(sum(repaid.get(layer, {}).values()) for layer in HOUSES)
