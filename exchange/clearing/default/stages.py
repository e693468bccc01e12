"""What is known of a default, stage by stage, and how long each may take on the log's time.

    declared > closed > allocated > replenished > ended

A step that is not done by its deadline is said to be overdue, once, as an event; it may still be
done. An auction closes at its deadline.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from exchange.clearing.default.auction import Award, Bid
from exchange.clearing.matters import At
from exchange.clearing.novation import Position
from exchange.messages import INDEX_BITS

if TYPE_CHECKING:
    from exchange.clearing.state import State

SECOND: Final = 10**9
DAY: Final = 86_400 * SECOND
AUCTION_SECONDS_MAX: Final = 7 * 86_400
BIDS_MAX: Final = 1 << 12  # of one auction

Layer: TypeAlias = Literal[
    "own_capital", "junior_fund", "survivors_fund", "assessments", "haircuts", "written_off"
]
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)  # others' money, in the order in which it bears
HOUSES: Final[tuple[Layer, ...]] = ("own_capital", "written_off")  # of the house's capital
SHARED: Final = ("allocated", "replenished", "ended")  # stages

Step: TypeAlias = Literal["port", "close", "allocate", "replenish"]
TIMES: Final[dict[Step, int]] = {
    "port": DAY,  # the clients are with other members
    "close": 3 * DAY,  # the book is empty, and nothing of it is unsettled
    "allocate": DAY,  # the loss is shared
    "replenish": 5 * DAY,  # the fund is sized again
}


class Auction(msgspec.Struct):
    """One position on offer."""

    id: int
    default: int
    instrument: int
    net: int
    reference: int  # the mark when it was opened
    deadline: int
    bids: list[Bid] = []
    awards: list[Award] = []
    unsold: int = 0
    junior: list[int] = []
    closed: bool = False


class Port(msgspec.Struct):
    """A client on its way to another member's account; ``rests`` counts what followed later."""

    account: int
    to: int
    rests: int = 0
    moving: dict[int, str] = {}  # instrument -> the due that moves its lots


class Stage(msgspec.Struct, frozen=True):
    """Something that happened to a default: for who looks at it later."""

    stage: str
    stamp: int
    sequence: int


class Allocation(msgspec.Struct, frozen=True):
    """What every layer bore when a loss was shared: by member, haircuts by account."""

    loss: int
    defaulter_margin: int
    defaulter_fund: int
    own_capital: int
    junior_fund: dict[int, int]
    survivors_fund: dict[int, int]  # of those who are not junior
    assessments: dict[int, int]
    haircuts: dict[int, int]
    uncovered: int


class Default(msgspec.Struct):
    """One default. ``margin`` is what the member's own accounts held when it was declared, and
    what was paid into them until the loss was first shared.
    """

    id: int
    member: int
    accounts: list[int]
    margin: int
    date: int  # business date of the declaration
    stage: str = "declared"
    steps: dict[Step, int] = {}  # deadlines of what is to be done; 0: said to be overdue
    junior: list[int] = []
    ported: list[Port] = []
    frozen: int = 0  # how often it was frozen again
    liable: dict[int, int] = {}  # survivors' contributions when the loss was first shared
    allocations: list[Allocation] = []
    uncovered: int = 0  # of the last one, and not written off
    written_off: int = 0
    repaid: dict[Layer, dict[int, int]] = {}
    distributions: int = 0  # the end, and recoveries after it
    history: list[Stage] = []

    def begin(self, at: At, *steps: Step) -> dict[str, int]:
        """The next steps' deadlines run from now."""
        found: dict[Step, int] = {step: at.stamp + TIMES[step] for step in steps}
        self.steps.update(found)
        return {f"{step}_by": deadline for step, deadline in found.items()}

    def note(self, stage: str, at: At) -> None:
        """Something happened."""
        self.history.append(Stage(stage, at.stamp, at.number >> INDEX_BITS))

    def held(self, instrument: int, state: "State") -> dict[int, int]:
        """Signed lots of its own accounts, those that hold none left out."""
        nets = {a: state.positions.get(a, instrument).net for a in self.accounts}
        return {account: net for account, net in nets.items() if net}

    def open_positions(self, state: "State") -> Iterator[tuple[int, str, Position]]:
        """(account, code, position) of what its own accounts hold or have not settled."""
        for account in self.accounts:
            for number, position in state.positions.of_account(account):
                if position.net or position.cost:
                    yield account, state.instruments[number].code, position
