"""The double-entry ledger of what the engine did, in integer micro-dollars.

An entry has postings (debit, credit, amount). A posting adds its amount to the balance of the
account it debits and subtracts it from that of the account it credits, so every entry, and the
whole ledger, sums to zero. Balances are debit-positive: what the house owns is positive (``bank``),
what it owes is negative (a member's cash, which is a receivable if positive).

The ledger never refuses what the engine did. Amounts that nothing explains are posted to
``suspense``, which must be zero.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from hashlib import blake2b
from itertools import chain
from struct import Struct
from typing import Final, NamedTuple

from exchange.messages import HOUSE_ACCOUNT

OWNER_BITS: Final = 32
HASH_BYTES: Final = 32
GENESIS: Final = bytes(HASH_BYTES)

_HEAD: Final = "QBQIIqIIII"  # of what is hashed: an entry's fields and its number of postings
_LINE: Final = "QQq"
_FRESH: Final = blake2b(digest_size=HASH_BYTES)


class Code(IntEnum):
    """The chart of accounts. CASH has one account per trading account, the others one in all."""

    BANK = 1  # money held at the bank for everyone
    CASH = 2  # owed to the trading account; the house's own included
    HOUSE_FEES = 3  # fees earned; part of the house account's cash in the engine
    VM_CLEARING = 4  # variation margin on its way; zero after every settlement
    SUSPENSE = 5  # what nothing explains; must be zero


class EntryKind(IntEnum):
    """What caused a journal entry. The numbers are frozen: the store and its hashes have them."""

    DEPOSIT = 1
    WITHDRAWAL = 2
    FEE = 3
    TRADE = 4
    SETTLEMENT = 5
    EXPIRY = 6
    BUST = 7
    ADJUSTMENT = 8
    LEG = 9  # of a combination's trade; its price is a clearing price
    RESIDUAL = 10
    TRANSFER = 11  # off the book; its price is a clearing price
    # Cash that clearing has moved by deposits, withdrawals and fees of its own, by what for:
    INTEREST = 12
    DISCOUNT = 13  # of fees, by tier
    DELIVERY = 14
    DEFAULT = 15  # default fund, a default's layers and recoveries, cash a client is ported with
    LEG_BUST = 16  # of a combination's trade that was taken back; its price is a clearing price
    LEG_ADJUSTMENT = 17


# Entries that move lots, those of them that reverse a trade, and those that only change a price.
MOVING: Final = (
    EntryKind.TRADE, EntryKind.BUST, EntryKind.LEG, EntryKind.LEG_BUST, EntryKind.TRANSFER,
)  # fmt: skip
TAKEN_BACK: Final = (EntryKind.BUST, EntryKind.LEG_BUST)
ADJUSTING: Final = (EntryKind.ADJUSTMENT, EntryKind.LEG_ADJUSTMENT)


class Movement(IntEnum):
    """Why a trading account's cash moved: the lines of its statement. The numbers are frozen."""

    DEPOSITS = 1
    WITHDRAWALS = 2
    FEES = 3
    FEES_EARNED = 4
    VARIATION = 5
    INTEREST = 6
    FEE_DISCOUNTS = 7
    DELIVERY = 8
    DEFAULT_FUND = 9


PURPOSES: Final = {
    "interest": EntryKind.INTEREST,
    "discount": EntryKind.DISCOUNT,
    "delivery": EntryKind.DELIVERY,
    "penalty": EntryKind.DELIVERY,
    "fund": EntryKind.DEFAULT,
    "default": EntryKind.DEFAULT,
    "port": EntryKind.DEFAULT,
    "recovery": EntryKind.DEFAULT,
}  # by the first word of a due's id


Posting = tuple[int, int, int]  # (debit, credit, amount): ledger account ids and micro-dollars > 0


@cache
def ledger_name(account: int) -> str:
    """Return the name of a ledger account: ``bank``, ``cash/7``."""
    code, owner = Code(account >> OWNER_BITS), account & _OWNER
    return f"cash/{owner}" if code is Code.CASH else code.name.lower()


BANK: Final = Code.BANK << OWNER_BITS
HOUSE_FEES: Final = Code.HOUSE_FEES << OWNER_BITS
VM_CLEARING: Final = Code.VM_CLEARING << OWNER_BITS
SUSPENSE: Final = Code.SUSPENSE << OWNER_BITS
_CASH_CODE: Final = int(Code.CASH)
CASH: Final = _CASH_CODE << OWNER_BITS  # with a trading account's number: its cash
TRADE_ENTRY: Final = int(EntryKind.TRADE)
_OWNER: Final = (1 << OWNER_BITS) - 1
# Plain integers in a tuple: hashing a member of an enumeration costs more than a posting.
_MOVEMENT: Final = (
    0,
    int(Movement.DEPOSITS),
    int(Movement.WITHDRAWALS),
    int(Movement.FEES),  # a fee
    int(Movement.FEES),  # a trade's
    int(Movement.VARIATION),  # a settlement's
    int(Movement.VARIATION),  # an expiry's
    int(Movement.FEES),  # a bust's: those of its trade, back
    int(Movement.FEES),  # an adjustment's: none
    int(Movement.FEES),  # a leg's
    int(Movement.VARIATION),  # a residual: what the prices of legs leave of the one agreed
    int(Movement.FEES),  # a transfer's: none
    int(Movement.INTEREST),
    int(Movement.FEE_DISCOUNTS),
    int(Movement.DELIVERY),
    int(Movement.DEFAULT_FUND),
    int(Movement.FEES),  # a leg's, back
    int(Movement.FEES),  # an adjusted leg's: none
)  # by EntryKind
_FEES_EARNED: Final = int(Movement.FEES_EARNED)
_PURPOSED: Final = frozenset(map(int, PURPOSES.values()))  # what passes the fees is none there


def cash_of(account: int) -> int:
    """Return the id of a trading account's cash."""
    return CASH | account


def transfer(source: int, target: int, amount: int) -> list[Posting]:
    """Return the postings that move ``amount`` from one liability to another; a negative amount
    moves in the other direction, and 0 needs no posting."""
    if amount == 0:
        return []
    return [(source, target, amount)] if amount > 0 else [(target, source, -amount)]


class Entry(NamedTuple):
    """One journal entry: an event and its postings.

    ``number`` is the causing event: sequence << INDEX_BITS | index; of a trade it is the match
    number. ``quantity`` is lots of a trade and the cycle of a settlement. ``buyer`` and ``seller``
    are the two cleared legs of a trade, of one busted or adjusted, or of a transfer; every other
    kind names its one account in ``buyer``.
    """

    number: int
    kind: int  # an EntryKind
    stamp: int
    business_date: int
    instrument: int
    price: int
    quantity: int
    buyer: int
    seller: int
    postings: Sequence[Posting]


@cache
def _layout(postings: int) -> Struct:
    """Return the layout of an entry's hash input: the hash before it, its fields, its postings."""
    return Struct(f"<{HASH_BYTES}s{_HEAD}{_LINE * postings}")


def link(previous: bytes, entry: Entry) -> bytes:
    """Return an entry's hash, over the previous hash, all its fields and all its postings."""
    postings = entry.postings
    count = len(postings)
    digest = _FRESH.copy()  # cheaper than a new one
    digest.update(_layout(count).pack(previous, *entry[:-1], count, *chain.from_iterable(postings)))
    return digest.digest()


def movement(kind: int, account: int) -> tuple[int, int] | None:
    """Return (trading account, Movement) of a posting to a ledger account by an entry of ``kind``;
    None if the ledger account is not a trading account's."""
    if account == HOUSE_FEES:
        return HOUSE_ACCOUNT, _MOVEMENT[kind] if kind in _PURPOSED else _FEES_EARNED
    if account >> OWNER_BITS == _CASH_CODE:
        return account & _OWNER, _MOVEMENT[kind]
    return None


@dataclass(slots=True)
class Ledger:
    """Balances by ledger account, and the hash of the last entry."""

    balances: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    head: bytes = GENESIS

    def post(self, entry: Entry) -> bytes:
        """Post an entry and return its hash. AssertionError for an invalid posting."""
        balances = self.balances
        for debit, credit, amount in entry.postings:
            assert amount > 0 and debit != credit, f"not a posting: {debit, credit, amount}"
            balances[debit] += amount
            balances[credit] -= amount  # so it balances, and the sum of all stays zero
        self.head = link(self.head, entry)
        return self.head

    def cash(self, account: int) -> int:
        """Return a trading account's cash as in the engine: the house's includes its fees."""
        cash = -self.balances.get(cash_of(account), 0)
        if account == HOUSE_ACCOUNT:
            cash -= self.balances.get(HOUSE_FEES, 0)
        return cash

    def is_balanced(self) -> bool:
        """Return whether the sum of all balances, suspense and vm_clearing are zero."""
        return not sum(self.balances.values()) and not any(
            self.balances.get(account, 0) for account in (VM_CLEARING, SUSPENSE)
        )

    def check(self) -> None:
        """AssertionError unless the sum of all balances, suspense and vm_clearing are zero."""
        total = sum(self.balances.values())
        assert total == 0, f"the ledger is off by {total}"
        for account in (VM_CLEARING, SUSPENSE):
            balance = self.balances.get(account, 0)
            assert balance == 0, f"{ledger_name(account)} holds {balance}"
