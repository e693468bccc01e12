"""Sharing the loss of a default by the waterfall, once or several times.

The first time the loss is margin - cash. What the accounts come to owe after that, from a failed
delivery or a busted trade for example, is shared by the same waterfall. All allocations together
take no more than one would:

    a survivor's fund    up to what it had there when the loss was first shared
    its assessments      up to its cap of its contribution then, paid in or not: what it had there,
                         was called for, and other losses had used since the fund was sized
    haircuts of a gain   up to the gain

A member answers for its clients: what a client without positions and collateral owes is part of the
loss.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from exchange.clearing.calling import Calls
from exchange.clearing.default.payout import CAPITAL, fund_of, named, pay_layers
from exchange.clearing.default.records import Allocate
from exchange.clearing.default.stages import HOUSES, LAYERS, SHARED, Allocation, Default, Layer
from exchange.clearing.default.waterfall import PERCENT, Waterfall, waterfall
from exchange.clearing.delivery import dvp
from exchange.clearing.matters import ACCEPTED, At, Dues, Ruling
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import refused
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State


def clients(default: Default, state: "State") -> list[int]:
    """Return the member's other accounts that were not ported, in order."""
    own = {*default.accounts, *(one.account for one in default.ported)}
    found = state.matters.get(Registry).accounts(default.member, state)
    return [account for account in found if account not in own]


def estate(default: Default, state: "State") -> dict[int, int]:
    """Return the cash of the member's own accounts, and of its clients that owe and have neither
    positions nor collateral; micro-dollars by account."""
    calls = state.matters.get(Calls)
    owing = [
        account
        for account in clients(default, state)
        if is_flat_and_owes(account, state) and not any(calls.pledges(account, state))
    ]
    return {account: state.ledger.cash(account) for account in [*default.accounts, *owing]}


def is_flat_and_owes(account: int, state: "State") -> bool:
    """Return whether an account holds no lots, has nothing unsettled, and has negative cash."""
    held = state.positions.of_account(account)
    return state.ledger.cash(account) < 0 and not any(p.net or p.cost for _, p in held)


def may_sell(default: Default, account: int, state: "State") -> bool:
    """Return whether an account's collateral may be released to be sold for what is owed: of an own
    account once all own accounts are flat, of a client that is flat, owes and was not ported."""
    if account in default.accounts:
        return not any(default.open_positions(state))
    return account in clients(default, state) and is_flat_and_owes(account, state)


def moving(default: Default, state: "State") -> str:
    """Return the id of an open due that pays a layer of the default, or an empty text."""
    begin = f"default {default.id} ", f"default {default.id}."
    dues = state.matters.get(Dues).open.values()
    return next((d.id for d in dues if d.kind != "kill" and d.id.startswith(begin)), "")


class Survivors(NamedTuple):
    """The members not in default: what each has in the fund, and what it owes to it in all, in
    micro-dollars."""

    fund: dict[int, int]
    contributions: dict[int, int]


def would(default: Default, survivors: Survivors, record: Allocate, state: "State") -> Ruling:
    """Return the ruling that sharing the loss would get now."""
    operation, again = "allocate", default.stage in SHARED
    cash = estate(default, state)
    if again and min(cash.values()) >= 0:
        return refused(operation, Denial.DEFAULT_STATE, "closed", default.stage)
    for account, code, position in default.open_positions(state):
        return refused(operation, Denial.BOOK_NOT_EMPTY, f"{account} {code} 0", position.net)
    if default.allocations and (waits := moving(default, state)):
        return refused(operation, Denial.PROPOSAL_STATE, "moved", waits)
    strange = record.gains.keys() - (state.members.keys() - set(default.accounts))
    if strange:
        return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, min(strange))
    found = shared(default, survivors, record, state)
    facts = {
        "default": default.id, "loss": found.loss, "layers": dict(found.layers()),
        "survivors_fund": named(found.survivors_fund), "assessments": named(found.assessments),
        "haircuts": named(found.haircuts), "junior": default.junior,
        "allocation": len(default.allocations) + 1,
    }  # fmt: skip
    return Ruling(operation, ACCEPTED, {"stage": "allocated", **facts})


def shared(
    default: Default, survivors: Survivors, record: Allocate, state: "State"
) -> Waterfall[int]:
    """Return the layers of the loss that is not shared yet."""
    # Below 0 if more was paid out than there was, out of gains since the declaration.
    margin = 0 if default.allocations else max(0, default.margin)
    liable = default.liable if default.allocations else survivors.fund
    owed = default.contributions if default.allocations else survivors.contributions
    borne, per_cent = bore(default), record.assessment_cap_pct
    used = {m: borne["junior_fund"].get(m, 0) + borne["survivors_fund"].get(m, 0) for m in liable}
    fund = {m: min(there, liable.get(m, 0) - used.get(m, 0)) for m, there in survivors.fund.items()}
    caps = {
        m: max(0, owed.get(m, 0) * per_cent // PERCENT - borne["assessments"].get(m, 0))
        for m in survivors.fund
    }
    cash = estate(default, state)
    broke = {account for account in clients(default, state) if state.ledger.cash(account) <= 0}
    gains = {
        account: max(0, won - borne["haircuts"].get(account, 0))
        for account, won in record.gains.items()
        if account not in broke  # a cut of its gain would be its member's loss
    }
    return waterfall(
        max(0, margin - sum(cash.values())),
        defaulter_margin=margin,
        defaulter_fund=dvp.balance(state.book, fund_of(default.member)),
        own_capital=dvp.balance(state.book, CAPITAL),
        survivors_fund=fund,
        junior=frozenset(default.junior),
        gains=gains,
        caps=caps,
    )


def allocate(
    default: Default, survivors: Survivors, record: Allocate, at: At, state: "State"
) -> None:
    """Share the loss as ``would`` says, store what each bears, and request the payments."""
    found = shared(default, survivors, record, state)
    if not default.allocations:
        default.liable, default.contributions = survivors
    junior = {m: part for m, part in found.survivors_fund.items() if m in default.junior}
    others = {m: part for m, part in found.survivors_fund.items() if m not in default.junior}
    borne = Allocation(
        found.loss, found.defaulter_margin, found.defaulter_fund, found.own_capital, junior,
        others, found.assessments, found.haircuts, found.uncovered,
    )  # fmt: skip
    default.allocations.append(borne)
    default.uncovered = found.uncovered
    times = len(default.allocations)
    id = f"default {default.id}" + (f".{times}" if times > 1 else "")
    pay_layers(id, default.member, estate(default, state), found, at, state)
    default.enter("allocated")
    default.begin(at, "replenish")
    default.note("allocated", at)


def follow(default: Default, at: At, state: "State") -> list[Ruling]:
    """Set or end the deadline of another allocation.

    If the accounts owe more than the last allocation left uncovered, the ruling ``owes`` says so
    once. Nothing begins while payments of the layers are still open.
    """
    if default.stage not in SHARED:
        return []
    owed = -sum(estate(default, state).values())
    if owed <= default.uncovered:
        default.steps.pop("allocate", None)
        return []
    if "allocate" in default.steps or moving(default, state):
        return []
    facts = {"default": default.id, "owed": owed, "uncovered": default.uncovered}
    return [Ruling("default", "owes", {**facts, **default.begin(at, "allocate")})]


def bore(default: Default) -> dict[Layer, dict[int, int]]:
    """Return what each layer has borne, by member, or by account for haircuts; the house is 0."""
    found: dict[Layer, defaultdict[int, int]] = {layer: defaultdict(int) for layer in LAYERS}
    for one in default.allocations:
        found["own_capital"][HOUSE_ACCOUNT] += one.own_capital
        members: dict[Layer, dict[int, int]] = {
            "junior_fund": one.junior_fund, "survivors_fund": one.survivors_fund,
            "assessments": one.assessments, "haircuts": one.haircuts,
        }  # fmt: skip
        for layer, parts in members.items():
            for who, part in parts.items():
                found[layer][who] += part
    found["written_off"][HOUSE_ACCOUNT] += default.written_off
    return {layer: {who: part for who, part in by.items() if part} for layer, by in found.items()}


def claims(default: Default) -> dict[Layer, dict[int, int]]:
    """Return what each layer has borne and has not been repaid, the last layer first. Layers and
    parts of nothing are left out. AssertionError if more was repaid than borne."""
    found: dict[Layer, dict[int, int]] = {}
    borne = bore(default)
    for layer in reversed(LAYERS):
        repaid = default.repaid.get(layer, {})
        left = {who: part - repaid.get(who, 0) for who, part in sorted(borne[layer].items())}
        assert all(part >= 0 for part in left.values()), f"{layer}: more is repaid than was borne"
        if any(left.values()):
            found[layer] = {who: part for who, part in left.items() if part}
    return found


@dataclass(frozen=True, slots=True)
class Share:
    """What an account bore of a default in one layer, and was repaid, in micro-dollars."""

    default: int
    layer: Layer
    borne: int
    repaid: int


def shares(defaults: Sequence[Default], account: int, state: "State") -> list[Share]:
    """Return what an account bore of all defaults: its haircuts; if it is its member's first own
    account, the member's part; if it is the house's, the part of the house's capital."""
    registry = state.matters.get(Registry)
    member = registry.member_of(account, state)
    first = account != HOUSE_ACCOUNT and registry.own(member, state)[0] == account
    found = []
    for default in defaults:
        for layer, parts in bore(default).items():
            named = account if layer == "haircuts" or layer in HOUSES else member if first else None
            if named in parts:
                repaid = default.repaid.get(layer, {}).get(named, 0)
                found.append(Share(default.id, layer, parts[named], repaid))
    return found


class Losses(NamedTuple):
    """What was borne and repaid of a default: micro-dollars by layer, in the waterfall's order, and
    by member, or by account for haircuts; the house is 0."""

    borne: dict[Layer, dict[int, int]]
    repaid: dict[Layer, dict[int, int]]
    uncovered: int
    estate: int  # cash and fund of the defaulter; negative if it owes


def losses(default: Default, state: "State") -> Losses:
    """Return who has borne the loss of a default so far, and what the estate holds now."""
    fund = dvp.balance(state.book, fund_of(default.member))
    held = sum(estate(default, state).values()) + fund
    borne = {layer: parts for layer, parts in bore(default).items() if parts}
    return Losses(borne, default.repaid, default.uncovered, held)
