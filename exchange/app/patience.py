"""Decides when a due that the engine has refused is tried again.

Each try is a command in the log, so the pauses between tries grow: 1, 2, 4 and so on up to
PAUSE_MAX checkpoints. If an account of the due has received money since the last try, which may be
what was missing, the due is tried at the next checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from exchange.app.desk import WishRejected
from exchange.app.wishes import RequestRefused
from exchange.clearing.matters import Due
from exchange.messages import HOUSE_ACCOUNT, Reason

PAUSE_MAX: Final = 64  # checkpoints between two tries
LONG: Final = 3  # pauses; a due refused after more than that is an alarm


class Refused(msgspec.Struct):
    """An open due that was refused."""

    due: Due
    why: str
    is_short: bool  # whether the house account lacks the money
    pauses: int = 0
    left: int = 0  # checkpoints until the next try
    cash: dict[int, int] = {}  # of the due's accounts, after the last checkpoint

    def may_pass(self, cash: Callable[[int], int]) -> bool:
        """Whether money has come in since then that may be enough."""
        due = self.due
        if not self.cash:
            return True
        if due.account == HOUSE_ACCOUNT:  # it receives fees all the time
            return self.cash[HOUSE_ACCOUNT] < due.amount <= cash(HOUSE_ACCOUNT)
        rose = any(cash(account) > before for account, before in self.cash.items())
        return rose and (due.kind != "withdraw" or cash(due.account) >= due.amount)


class Patience:
    """The refused dues, by id. ``cash`` returns the cash of an account."""

    def __init__(self, cash: Callable[[int], int]) -> None:
        self._cash = cash
        self._known: dict[str, Refused] = {}

    def begin(self, dues: Sequence[Due]) -> Mapping[str, Refused]:
        """Begin a checkpoint; return those of ``dues`` that are not to be tried at it."""
        still = {due.id for due in dues}
        self._known = {id: one for id, one in self._known.items() if id in still}
        for one in self._known.values():
            one.left -= 1
        return {
            id: one
            for id, one in self._known.items()
            if one.left > 0 and not one.may_pass(self._cash)
        }

    def end(self) -> None:
        """End a checkpoint, after all tries are done and clearing has booked them."""
        for one in self._known.values():
            lots = one.due.lots
            accounts = [one.due.account] if lots is None else [one.due.account, lots.other]
            one.cash = {account: self._cash(account) for account in accounts}

    def refused(self, due: Due, error: RequestRefused) -> Refused:
        """Note that a due was tried and refused, and set its next pause."""
        short = isinstance(error, WishRejected) and error.reason == Reason.FUNDS
        short &= due.account == HOUSE_ACCOUNT
        one = self._known.setdefault(due.id, Refused(due, "", short))
        one.why, one.is_short = str(error), short
        if one.left <= 0:
            one.left = min(1 << one.pauses, PAUSE_MAX)
            one.pauses = min(one.pauses + 1, PAUSE_MAX)
        return one

    def done(self, id: str) -> None:
        """Forget a due that was accepted."""
        self._known.pop(id, None)

    def stubborn(self) -> dict[str, str]:
        """Return the reasons, by id, of dues refused after more than LONG pauses."""
        return {id: one.why for id, one in self._known.items() if one.pauses > LONG}
