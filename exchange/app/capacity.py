"""How much is taken of what an engine can hold: what a market that lives for years may run out of.
docs/reference/operations.md says how many that are, and what comes back.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from exchange.messages import Limit

if TYPE_CHECKING:
    from exchange.app.desk import Desk

USED_MAX: Final = 0.8  # of one of them; more is an alarm
NAMES: Final = ("accounts", "instruments", "orders", "positions")
_WHAT: Final = {
    "accounts": "accounts are open, and none is closed",
    "instruments": "instruments were listed, and an expired one keeps its number",
    "orders": "order slots are taken, by working orders and the last 256 ids of each account: an"
    " account that has sent fewer will get none",
    "positions": "position records are taken, one for each account and instrument that it had an"
    " order in: what an account has not traded before it will not be able to",
}
_ADVICE: Final = {"positions": "expire what is due, which gives its records back"}


class Sized(Protocol):
    """An engine, as far as it says how large it is."""

    def taken(self) -> dict[str, int]: ...


class Taken(NamedTuple):
    """So many of so many."""

    name: str
    number: int
    most: int

    @property
    def used(self) -> float:
        """0 to 1."""
        return self.number / self.most

    def text(self) -> str:
        """What it means, for an operator."""
        advice = _ADVICE.get(self.name, "begin another market in time")
        return f"{self.number:,} of {self.most:,} {_WHAT[self.name]}: {advice}"


def taken(engine: Sized, desk: "Desk") -> dict[str, Taken]:
    """How much of each is taken, by name. Costs little, however large the market."""
    now = engine.taken()
    found = (
        Taken("accounts", len(desk.accounts), Limit.ACCOUNTS),
        Taken("instruments", len(desk.instruments.by_id), Limit.INSTRUMENTS),
        Taken("orders", now["orders"], Limit.ORDERS),
        Taken("positions", now["positions"], Limit.POSITIONS),
    )
    return {one.name: one for one in found}
