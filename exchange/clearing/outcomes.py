"""Transfers of the book and their outcomes. The numbers are frozen, since rows contain them."""

from enum import IntEnum
from typing import Final, Literal

import msgspec


class TransferKind(IntEnum):
    """What a transfer does. EXPIRE happens only by log time."""

    PLAIN = 0
    PENDING = 1  # holds the amount on both accounts
    POST = 2  # ends a hold: all of it or a part moves, the rest is free again
    VOID = 3  # ends a hold: nothing moves
    REVERSE = 4  # the mirror of a posted transfer
    EXPIRE = 5  # a hold whose time is over


class Outcome(IntEnum):
    """The outcome of a transfer. The numbers are in the order of precedence."""

    OK = 0
    LINKED_EVENT_FAILED = 1
    LINKED_EVENT_CHAIN_OPEN = 2
    ID_FORMAT = 3
    ID_ALREADY_FAILED = 4
    EXISTS_WITH_DIFFERENT_FLAGS = 5
    EXISTS_WITH_DIFFERENT_PENDING_ID = 6
    EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID = 7
    EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID = 8
    EXISTS_WITH_DIFFERENT_AMOUNT = 9
    EXISTS_WITH_DIFFERENT_TIMEOUT = 10
    EXISTS = 11
    LEDGER_FULL = 12
    PENDING_ID_MUST_NOT_BE_GIVEN = 13
    PENDING_ID_MUST_BE_GIVEN = 14
    PENDING_ID_MUST_BE_DIFFERENT = 15
    FLAGS_COMBINATION = 16
    AMOUNT_RANGE = 17
    ACCOUNTS_MUST_BE_DIFFERENT = 18
    TIMEOUT_RESERVED_FOR_PENDING_TRANSFER = 19
    DEBIT_ACCOUNT_NOT_FOUND = 20
    CREDIT_ACCOUNT_NOT_FOUND = 21
    ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER = 22
    PENDING_TRANSFER_NOT_FOUND = 23
    PENDING_TRANSFER_NOT_PENDING = 24
    PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID = 25
    PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID = 26
    EXCEEDS_PENDING_TRANSFER_AMOUNT = 27
    PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT = 28
    PENDING_TRANSFER_ALREADY_POSTED = 29
    PENDING_TRANSFER_ALREADY_VOIDED = 30
    PENDING_TRANSFER_EXPIRED = 31
    REVERSED_TRANSFER_NOT_FOUND = 32
    REVERSED_TRANSFER_NOT_POSTED = 33
    TRANSFER_ALREADY_REVERSED = 34
    OVERFLOWS_DEBITS_PENDING = 35
    OVERFLOWS_CREDITS_PENDING = 36
    OVERFLOWS_DEBITS_POSTED = 37
    OVERFLOWS_CREDITS_POSTED = 38
    OVERFLOWS_DEBITS = 39
    OVERFLOWS_CREDITS = 40
    OVERFLOWS_TIMEOUT = 41
    EXCEEDS_CREDITS = 42
    EXCEEDS_DEBITS = 43


# Refusals that a later state of the accounts might not repeat. Such an id stays refused, so that a
# transfer that was refused is never applied later.
SPENDS_ID: Final = frozenset(
    {
        Outcome.DEBIT_ACCOUNT_NOT_FOUND,
        Outcome.CREDIT_ACCOUNT_NOT_FOUND,
        Outcome.PENDING_TRANSFER_NOT_FOUND,
        Outcome.REVERSED_TRANSFER_NOT_FOUND,
        Outcome.EXCEEDS_CREDITS,
        Outcome.EXCEEDS_DEBITS,
    }
)


class Transfer(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A request to move ``amount`` from the account ``debit`` to the account ``credit``.

    The fields are those of docs/reference/ledger.md. POST, VOID and REVERSE name their transfer in
    ``pending_id`` and may omit accounts and amount. ``linked``: all or nothing with the next
    transfer. ``balancing``: at most what the debit account has free ("debit"), or what the credit
    account has room for ("credit").
    """

    id: str
    debit: str = ""
    credit: str = ""
    amount: int | None = None
    kind: int = 0  # a TransferKind up to REVERSE
    pending_id: str = ""
    timeout: int = 0  # seconds of log time; 0: a hold without end
    linked: bool = False
    balancing: Literal["", "debit", "credit"] = ""

    @property
    def flags(self) -> int:
        """Kind, ``linked`` and ``balancing`` as one number, which a repeat of the id must share."""
        if self.linked or self.balancing:
            return self.kind | self.linked << 3 | _BALANCING[self.balancing]
        return self.kind


_BALANCING: Final = {"": 0, "debit": 1 << 4, "credit": 1 << 5}
