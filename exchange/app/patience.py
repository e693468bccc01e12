"""When a command that clearing asks for is tried again that the engine has refused.

Each try is a command in the log. So the pauses grow, counted in checkpoints, but where an account
has got money meanwhile, which may be what was lacking: then it is tried with the next one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from exchange.app.desk import WishRejected
from exchange.app.wishes import RequestRefused
from exchange.clearing.matters import Due
from exchange.messages import HOUSE_ACCOUNT, Reason

PAUSE_MAX: Final = 64  # checkpoints between two tries
LONG: Final = 3  # pauses; what is refused after so many is an alarm


class Refused(msgspec.Struct):
    """A due that is open and was refused."""

    due: Due
    why: str
    is_short: bool  # of the house's own money
    pauses: int = 0
    left: int = 0  # checkpoints until the next try
    cash: dict[int, int] = {}  # of its accounts after the last checkpoint

    def may_pass(self, cash: Callable[[int], int]) -> bool:
        """Whether money has come since then that may be enough."""
        due = self.due
        if not self.cash:
            return True
        if due.account == HOUSE_ACCOUNT:  # fees come to it all the time
            return self.cash[HOUSE_ACCOUNT] < due.amount <= cash(HOUSE_ACCOUNT)
        rose = any(cash(account) > before for account, before in self.cash.items())
        return rose and (due.kind != "withdraw" or cash(due.account) >= due.amount)


class Patience:
    """What was refused of the dues that are open, by id; ``cash`` gives an account's."""

    def __init__(self, cash: Callable[[int], int]) -> None:
        self._cash = cash
        self._known: dict[str, Refused] = {}

    def begin(self, dues: Sequence[Due]) -> Mapping[str, Refused]:
        """A checkpoint has come: what of these is not to be tried now."""
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
        """All that was to be tried has been, and clearing has booked it."""
        for one in self._known.values():
            lots = one.due.lots
            accounts = [one.due.account] if lots is None else [one.due.account, lots.other]
            one.cash = {account: self._cash(account) for account in accounts}

    def refused(self, due: Due, error: RequestRefused) -> Refused:
        """A due was tried and refused."""
        short = isinstance(error, WishRejected) and error.reason == Reason.FUNDS
        short &= due.account == HOUSE_ACCOUNT
        one = self._known.setdefault(due.id, Refused(due, "", short))
        one.why, one.is_short = str(error), short
        if one.left <= 0:
            one.left = min(1 << one.pauses, PAUSE_MAX)
            one.pauses = min(one.pauses + 1, PAUSE_MAX)
        return one

    def done(self, id: str) -> None:
        """A due was taken."""
        self._known.pop(id, None)

    def stubborn(self) -> dict[str, str]:
        """Why, by id, of what has been refused again and again."""
        return {id: one.why for id, one in self._known.items() if one.pauses > LONG}
