"""Dues by which clearing moves cash between trading accounts.

The engine charges a fee whatever the account's funds, so that its cash may become negative. A
payment from one account to another is therefore three dues, in this order: a fee from the payer to
the house, a withdrawal from the house's account, and a deposit to the payee's. They sum to zero.
"""

from typing import TYPE_CHECKING, Final

from exchange.clearing.matters import Due, Dues
from exchange.clearing.matters import refused as refused
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

MICROS_A_CENT: Final = 10_000


def ask(state: "State", *dues: Due) -> list[str]:
    """Request dues in order, except for those of amount 0; return their ids."""
    matter, asked = state.matters.get(Dues), []
    for due in dues:
        if due.amount:
            matter.ask(due)
            asked.append(due.id)
    state.matters.touch(Dues)
    return asked


def take(id: str, account: int, amount: int) -> list[Due]:
    """Return the due of what an account must pay to the house, whatever its funds."""
    return [Due(f"{id} fee", "fee", account, amount)]


def pay(id: str, payer: int, payee: int, amount: int) -> list[Due]:
    """Return the dues of a payment from one trading account to another."""
    return [
        *([] if payer == HOUSE_ACCOUNT else take(id, payer, amount)),
        Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, amount),
        Due(f"{id} in", "deposit", payee, amount),
    ]
