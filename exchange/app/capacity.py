"""How much is taken of what an engine can hold and does not get back: what a market that lives for
years may run out of. docs/reference/operations.md says how many that are.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from exchange.messages import Limit

if TYPE_CHECKING:
    from exchange.app.desk import Desk

USED_MAX: Final = 0.8  # of one of them; more is an alarm
NAMES: Final = ("accounts", "instruments", "orders", "positions")
_RECORD_BYTES: Final = 64  # of an order and of a position in the engine's account of its memory
_WHAT: Final = {
    "accounts": "accounts are open, and none is closed",
    "instruments": "instruments were listed, and an expired one keeps its number",
    "orders": "order slots are taken, by working orders and the last 256 ids of each account: an"
    " account that has sent fewer will get none",
    "positions": "position records are taken, one for each instrument that an account ever had an"
    " order in: what an account has not traded before it will not be able to",
}


class Sized(Protocol):
    """An engine, as far as it says how large it is."""

    def memory(self) -> dict[str, int]: ...


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
        return f"{self.number:,} of {self.most:,} {_WHAT[self.name]}: begin another market in time"


def taken(engine: Sized, desk: "Desk") -> dict[str, Taken]:
    """How much of each is taken, by name. Costs little, however large the market."""
    memory = engine.memory()
    found = (
        Taken("accounts", len(desk.accounts), Limit.ACCOUNTS),
        Taken("instruments", len(desk.instruments.by_id), Limit.INSTRUMENTS),
        Taken("orders", memory["orders"] // _RECORD_BYTES, Limit.ORDERS),
        Taken("positions", memory["positions"] // _RECORD_BYTES, Limit.POSITIONS),
    )
    return {one.name: one for one in found}
