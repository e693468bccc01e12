"""Freezing accounts: their kill switch is thrown, then everything they have working is cancelled.

Cancels pass a kill switch, so the order of the two leaves no moment in which a new order slips in.
"""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from exchange.app import requests, wishes
from exchange.app.desk import Desk
from exchange.app.wishes import Wish
from exchange.journal.tape import Tape
from exchange.messages import EVENT, Command, CommandKind, EventFlag, EventKind, Side

_DUPLICATE = int(EventFlag.DUPLICATE)
_GONE = frozenset({EventKind.ORDER_CANCELLED})
_BACK_IN = frozenset({EventKind.ORDER_REPLACED, EventKind.ORDER_RETURNED})


async def freeze(accounts: Sequence[int], desk: Desk) -> int:
    """Freeze the accounts; how many orders were cancelled."""
    kills = [
        wishes.set_account(requests.SetAccount(account=account, killed=True))
        for account in accounts
    ]
    await desk.perform(kills)
    orders = await asyncio.to_thread(working_orders, desk.tape, frozenset(accounts))
    await desk.perform([_cancel(account, order_id) for account, order_id in orders])
    return len(orders)


def working_orders(tape: Tape, accounts: AbstractSet[int]) -> list[tuple[int, int]]:
    """(account, order id) of what the accounts have working, dormant orders too, in order.

    Read from the beginning of the stream: seconds per million commands.
    """
    working: dict[int, int] = {}
    for released in tape.read(0, 0, 0):
        for row in EVENT.iter_unpack(released.events):
            kind, account, order_id, leaves = row[2], row[6], row[7], row[10]
            if row[3] & _DUPLICATE:
                continue
            if kind == EventKind.TRADE:
                maker_id, maker_leaves = row[11], row[12] >> 32  # as TRADE has these bytes
                if not maker_leaves:
                    working.pop(maker_id, None)
            elif account in accounts:
                if kind == EventKind.ORDER_ACCEPTED and leaves:
                    working[order_id] = account
                elif kind in _GONE or (kind in _BACK_IN and not leaves):
                    working.pop(order_id, None)
    return sorted((account, order_id) for order_id, account in working.items())


def _cancel(account: int, order_id: int) -> Wish:
    command = Command(
        kind=CommandKind.CANCEL, account=account, side=Side.UNSTATED, target_lo=order_id
    )
    return Wish(command, wishes.note("freeze", account=account, order_id=order_id))
