"""Cash that clearing moves between trading accounts, as dues for the engine.

A fee has no guard of funds: what must be paid is paid, and an account that lacks it goes below
zero, which is its receivable. So a payment of one account to another is three dues in this order:
a fee from the payer to the house, out of the house's account, into the payee's. They sum to zero.
"""

from typing import TYPE_CHECKING, Final

from exchange.clearing.matters import Due, Dues
from exchange.clearing.matters import refused as refused
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

MICROS_A_CENT: Final = 10_000


def ask(state: "State", *dues: Due) -> list[str]:
    """Ask for dues in order, those of nothing left out; their ids."""
    matter, asked = state.matters.get(Dues), []
    for due in dues:
        if due.amount:
            matter.ask(due)
            asked.append(due.id)
    state.matters.touch(Dues)
    return asked


def take(id: str, account: int, amount: int) -> list[Due]:
    """What an account must pay the house, with funds or without."""
    return [Due(f"{id} fee", "fee", account, amount)]


def pay(id: str, payer: int, payee: int, amount: int) -> list[Due]:
    """What one trading account owes another."""
    return [
        *([] if payer == HOUSE_ACCOUNT else take(id, payer, amount)),
        Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, amount),
        Due(f"{id} in", "deposit", payee, amount),
    ]
