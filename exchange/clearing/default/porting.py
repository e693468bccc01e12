"""Porting a defaulter's client to an account of another member.

The client's old account is frozen. Its pledges move to the new account in one chain of transfers,
all or none. Its cash moves before its positions, since the new account needs the margin for them;
the positions move at their last settlement price. Deliveries that have not ended, and later
assignments, become the new account's.

What comes to the old account later follows: the next settlement's variation, once the account is
flat; later pledges; and lots of a trade made before the freeze, or busted after it. Nothing is
netted, and nobody else pays.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from exchange.clearing.calling import Calls
from exchange.clearing.default.closing import freeze, transfer
from exchange.clearing.default.records import PortClient
from exchange.clearing.default.stages import Default, Port
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.matters import ACCEPTED, At, Due, Dues, Ruling
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, pay, refused
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State


def would(default: Default, gone: AbstractSet[int], record: PortClient, state: "State") -> Ruling:
    """Return the ruling that porting would get now, with what would move; ``gone`` are the members
    in default, which take no client."""
    operation, account, to = "port_client", record.account, record.to
    registry, cash = state.matters.get(Registry), state.ledger.cash(record.account)
    if account not in registry.clients(default.member, state):
        return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, account)
    if any(one.account == account for one in default.ported):
        return refused(operation, Denial.DUPLICATE, 0, account)
    if to not in state.members or to == HOUSE_ACCOUNT:
        return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, to)
    if registry.member_of(to, state) in gone:
        return refused(operation, Denial.UNKNOWN_MEMBER, 0, registry.member_of(to, state))
    if cash < 0:
        return refused(operation, Denial.AMOUNT, 0, cash)
    if number := state.matters.get(Deliveries).barred(account, to):
        return refused(operation, Denial.BARRED, number, to)
    held = state.positions.of_account(account)
    lots = {state.instruments[n].code: position.net for n, position in held if position.net}
    pledges = state.matters.get(Calls).pledges(account, state)
    facts = {"default": default.id, "account": account, "to": to, "cash": cash, "lots": lots,
             "collateral": {asset: units for asset, _, units, _ in pledges},
             "deliveries": [d.id for d in state.matters.get(Deliveries).under_way(account)],
             "member": registry.member_of(to, state)}  # fmt: skip
    return Ruling(operation, ACCEPTED, {"stage": "ported", **facts})


def port(default: Default, record: PortClient, at: At, state: "State") -> None:
    """Port a client that ``would`` accepts: collateral and deliveries move at once, cash and lots
    are requested of the engine."""
    account, to, id = record.account, record.to, f"port {default.id} {record.account}"
    cash = state.ledger.cash(account)
    ask(state, freeze(id, account), *pay(f"{id} cash", account, to, cash))
    ported = Port(account, to)
    _move_lots(id, ported, "", at, state)
    state.matters.get(Deliveries).port(account, to, at, state)
    calls = state.matters.get(Calls)
    calls.carry(f"{id} pledge", account, to, at, state)
    calls.open.pop(account, None)  # a margin call ends
    state.matters.touch(Calls)
    default.ported.append(ported)
    default.note("client ported", at)


def follow(default: Default, at: At, state: "State") -> list[Ruling]:
    """Move on what has come to ported clients' old accounts since: lots and collateral at once,
    cash once nothing is held there and no due of the port is open."""
    rulings, calls = [], state.matters.get(Calls)
    for one in default.ported:
        cash, id = state.ledger.cash(one.account), f"port {default.id} {one.account}"
        if lots := _move_lots(id, one, f" {at.number}", at, state):
            came = {"account": one.account, "to": one.to, "lots": lots}
            rulings.append(Ruling("port_client", "rest", came))
        held = (p.net or p.cost for _, p in state.positions.of_account(one.account))
        if cash and not any(held) and not _is_moving(id, state):
            one.rests += 1
            rest = f"{id} rest {one.rests}"
            dues: Sequence[Due]
            if cash > 0:
                dues = pay(rest, one.account, one.to, cash)
            else:
                dues = pay(rest, one.to, one.account, -cash)
            ask(state, *dues)
            facts = {"account": one.account, "to": one.to, "cash": cash}
            rulings.append(Ruling("port_client", "rest", facts))
        if units := calls.carry(f"{id} pledge {at.number}", one.account, one.to, at, state):
            moved = {"account": one.account, "to": one.to, "collateral": units}
            rulings.append(Ruling("port_client", "rest", moved))
    return rulings


def _move_lots(id: str, ported: Port, again: str, at: At, state: "State") -> dict[str, int]:
    """Request the transfers of lots that are held and not requested yet; return them as signed lots
    by code.

    A due for more lots than are still held is called off, since the engine would never move it.
    """
    dues, asked = state.matters.get(Dues), {}
    account, moving = ported.account, ported.moving
    for number, position in state.positions.of_account(account):
        due = dues.open.get(moving.get(number, ""))
        if due is not None and due.lots is not None:
            if due.amount <= (-position.net if due.lots.sells else position.net):
                continue
            dues.call_off(due.id, at.stamp)
            state.matters.touch(Dues)
        moving.pop(number, None)
        if position.net:
            listed, there = state.instruments[number], abs(position.net)
            (moving[number],) = ask(
                state, transfer(f"{id} {number}{again}", account, ported.to, number, there,
                                listed.settlement_price, sells=position.net < 0)
            )  # fmt: skip
            asked[listed.code] = position.net
    return asked


def left(default: Default, state: "State") -> list[int]:
    """Return the clients that still have cash, collateral or positions with the defaulter."""
    return [
        account
        for account in state.matters.get(Registry).clients(default.member, state)
        if state.ledger.cash(account)
        or any(state.matters.get(Calls).pledges(account, state))
        or any(p.net or p.cost for _, p in state.positions.of_account(account))
    ]


def _is_moving(id: str, state: "State") -> bool:
    return any(due.startswith(f"{id} ") for due in state.matters.get(Dues).open)
