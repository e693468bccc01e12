"""The data of a default and its auctions, its stages, and the deadlines of its steps in log time.

    declared > closed > allocated > replenished > ended

A step that is not done by its deadline is reported as overdue once; it may still be done. An
auction closes at its deadline.
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
LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)  # of others' money, in the waterfall's order
HOUSES: Final[tuple[Layer, ...]] = ("own_capital", "written_off")  # borne by the house's capital
SHARED: Final = ("allocated", "replenished", "ended")  # stages

Step: TypeAlias = Literal["port", "close", "allocate", "replenish"]
TIMES: Final[dict[Step, int]] = {
    "port": DAY,  # no client has anything with the member any more
    "close": 3 * DAY,  # the own accounts are flat and settled
    "allocate": DAY,  # the loss is shared
    "replenish": 5 * DAY,  # the fund is sized again
}


class Auction(msgspec.Struct):
    """The auction of one position; ``net`` is signed lots."""

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
    """A client that was ported; ``rests`` counts the payments that followed later."""

    account: int
    to: int
    rests: int = 0
    moving: dict[int, str] = {}  # instrument -> the due that moves its lots


class Stage(msgspec.Struct, frozen=True):
    """A line of a default's history."""

    stage: str
    stamp: int
    sequence: int


class Allocation(msgspec.Struct, frozen=True):
    """What each layer bore when a loss was shared: by member, or by account for haircuts."""

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
    """One default. ``margin`` is the cash of the member's own accounts when it was declared, and
    what was paid into them, less what was paid out, until the loss was first shared; micro-dollars.
    """

    id: int
    member: int
    accounts: list[int]
    margin: int
    date: int  # business date of the declaration
    stage: str = "declared"
    steps: dict[Step, int] = {}  # deadlines of the steps to be done; 0: reported as overdue
    junior: list[int] = []
    ported: list[Port] = []
    frozen: int = 0  # how often accounts were frozen again
    # When the loss was first shared: what the survivors had in the fund, and what they owed to it
    liable: dict[int, int] = {}
    contributions: dict[int, int] = {}  # with what was called, and what losses had used since
    renewed: int = 0  # allocations that the last sizing of the fund has called again
    allocations: list[Allocation] = []
    uncovered: int = 0  # of the last allocation, less what was written off
    written_off: int = 0
    repaid: dict[Layer, dict[int, int]] = {}
    distributions: int = 0  # the end counts as one, like each recovery after it
    history: list[Stage] = []

    @property
    def is_unshared(self) -> bool:
        """Whether there may be a loss that no allocation has shared."""
        return self.stage not in SHARED or "allocate" in self.steps

    def begin(self, at: At, *steps: Step) -> dict[str, int]:
        """Begin steps; return their deadlines by name, as in the facts of a ruling."""
        found: dict[Step, int] = {step: at.stamp + TIMES[step] for step in steps}
        self.steps.update(found)
        return {f"{step}_by": deadline for step, deadline in found.items()}

    def enter(self, stage: str) -> None:
        """Begin a stage: its predecessors' steps are done, but clients may still have to move, and
        what has come to be owed is shared by an allocation alone."""
        left = ("port",) if stage == "allocated" else ("port", "allocate")
        self.stage = stage
        self.steps = {step: by for step, by in self.steps.items() if step in left}

    def note(self, stage: str, at: At) -> None:
        """Add a line to the history."""
        self.history.append(Stage(stage, at.stamp, at.number >> INDEX_BITS))

    def held(self, instrument: int, state: "State") -> dict[int, int]:
        """Return the signed lots of the own accounts that hold an instrument."""
        nets = {a: state.positions.get(a, instrument).net for a in self.accounts}
        return {account: net for account, net in nets.items() if net}

    def open_positions(self, state: "State") -> Iterator[tuple[int, str, Position]]:
        """Yield (account, code, position) of all that the own accounts hold or have not settled."""
        for account in self.accounts:
            for number, position in state.positions.of_account(account):
                if position.net or position.cost:
                    yield account, state.instruments[number].code, position
