"""How much of the engine's capacity is used: what a market may use up over the years, and what
comes back (docs/reference/operations.md).
"""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from exchange.messages import Limit

if TYPE_CHECKING:
    from exchange.app.desk import Desk

USED_MAX: Final = 0.8  # used part above which there is an alarm
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
    """An engine that reports what it holds."""

    def taken(self) -> dict[str, int]: ...


class Taken(NamedTuple):
    """The use of one capacity."""

    name: str
    number: int
    most: int

    @property
    def used(self) -> float:
        """The used part, 0 to 1."""
        return self.number / self.most

    def text(self) -> str:
        """Return a text for operators."""
        advice = _ADVICE.get(self.name, "begin another market in time")
        return f"{self.number:,} of {self.most:,} {_WHAT[self.name]}: {advice}"


def taken(engine: Sized, desk: "Desk") -> dict[str, Taken]:
    """Return the use of each capacity, by name. Its cost does not depend on the market's size."""
    now = engine.taken()
    found = (
        Taken("accounts", len(desk.accounts), Limit.ACCOUNTS),
        Taken("instruments", len(desk.instruments.by_id), Limit.INSTRUMENTS),
        Taken("orders", now["orders"], Limit.ORDERS),
        Taken("positions", now["positions"], Limit.POSITIONS),
    )
    return {one.name: one for one in found}
