"""Delivery versus payment: cash out of escrow and GPU-seconds to the buyer, both or neither.

A day's hold is one linked chain over two ledgers: cash from the buyer's escrow to the seller and,
for hours that were not available, back to the buyer; and GPU-seconds from the site to the buyer.
Posting completes all three legs at once, voiding releases all three. If one leg of a chain fails,
none has any effect.

    escrow/ID      USD    paid in by the buyer and not used by a day yet      never overdrawn
    payable/ID     USD    earned by the seller, paid out weekly
    returned/ID    USD    not earned, returned to the buyer weekly
    site/ID        GPU-s  the source of the hours
    hours/ACCOUNT  GPU-s  delivered to an account
"""

from typing import Final

from exchange.clearing.outcomes import Outcome, Transfer, TransferKind
from exchange.clearing.transfers import Account, Book

MARKET: Final = "market"  # counterpart of money withdrawn from and deposited with the engine
USD: Final = "USD"
GPU_SECONDS: Final = "GPU-s"
_LEGS: Final = ("earned", "back", "hours")


def begin(book: Book, delivery: int, buyer: int) -> None:
    """Open the accounts of a delivery."""
    book.open(Account(MARKET, USD))
    book.open(Account(f"escrow/{delivery}", USD, "debits"))
    book.open(Account(f"payable/{delivery}", USD, "debits"))
    book.open(Account(f"returned/{delivery}", USD, "debits"))
    book.open(Account(f"site/{delivery}", GPU_SECONDS))
    receive(book, buyer)


def receive(book: Book, buyer: int) -> None:
    """Open the account of the GPU-seconds delivered to a buyer."""
    book.open(Account(f"hours/{buyer}", GPU_SECONDS))


def move(book: Book, id: str, debit: str, credit: str, amount: int, stamp: int) -> Outcome:
    """Apply one plain transfer; ``amount`` is in the unit of its ledger."""
    one = Transfer(id=id, debit=debit, credit=credit, amount=amount)
    (outcome,) = book.apply([one], stamp, own=True)
    return outcome


def hold(
    book: Book, delivery: int, tag: str, buyer: int, amounts: tuple[int, int, int], stamp: int
) -> bool:
    """Hold a day's micro-dollars earned and returned, and its GPU-seconds.

    Returns False if a leg failed; then nothing is held. ``tag`` names the attempt, so that a day
    that was voided can be held again.
    """
    escrow = f"escrow/{delivery}"
    sides = (
        (escrow, f"payable/{delivery}"),
        (escrow, f"returned/{delivery}"),
        (f"site/{delivery}", f"hours/{buyer}"),
    )
    chain = [
        Transfer(
            id=f"dvp {tag} {leg}", debit=debit, credit=credit, amount=amount,
            kind=TransferKind.PENDING, linked=leg != _LEGS[-1],
        )
        for leg, (debit, credit), amount in zip(_LEGS, sides, amounts, strict=True)
    ]  # fmt: skip
    return not any(book.apply(chain, stamp, own=True))


def end(book: Book, tag: str, stamp: int, *, post: bool) -> bool:
    """Post all three legs of a hold, or void them; False if that failed, and nothing changed."""
    verb, kind = ("post", TransferKind.POST) if post else ("void", TransferKind.VOID)
    chain = [
        Transfer(
            id=f"{verb} {tag} {leg}", pending_id=f"dvp {tag} {leg}", kind=kind,
            linked=leg != _LEGS[-1],
        )
        for leg in _LEGS
    ]  # fmt: skip
    return not any(book.apply(chain, stamp, own=True))


def balance(book: Book, account: str) -> int:
    """Return posted credits less posted debits; 0 for an account that was never opened."""
    found = book.accounts.get(account)
    return 0 if found is None else found.credits_posted - found.debits_posted
