"""The state of clearing, which is a function of the released stream alone."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from exchange.clearing.docket import MATTERS
from exchange.clearing.ledger import Entry, Ledger, movement
from exchange.clearing.matters import Matters
from exchange.clearing.novation import Positions
from exchange.clearing.transfers import Book
from exchange.messages import INDEX_BITS

Point = tuple[int, int, int]  # (epoch, sequence, index) of the last event applied
START: Final[Point] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Divergence:
    """A difference between the engine and clearing, found at one event.

    It is a value, not an exception: clearing books what the engine did and continues, and the
    market becomes cancel-only. ``ours`` and ``engine`` are the two figures of ``what``.
    """

    sequence: int
    index: int
    what: str
    account: int
    instrument: int
    ours: int
    engine: int


@dataclass(slots=True)
class Instrument:
    """A listed instrument. ``mark`` and ``settlement_price`` are clearing prices (1e-6 USD)."""

    instrument: int
    code: str
    multiplier: int
    tick_scale: int
    price_step: int
    mark: int
    settlement_price: int
    settlement_date: int = 0  # 0: never settled, the price is the first mark
    expired: int = 0

    @property
    def tick_value(self) -> int:
        """Micro-dollars per lot and price tick."""
        return self.multiplier * self.tick_scale


@dataclass(slots=True)
class Trading:
    """One instrument's trades of one business date. ``value`` = sum of price ticks x lots."""

    trades: int = 0
    volume: int = 0
    value: int = 0
    last_price: int = 0


@dataclass(slots=True)
class Activity:
    """One account's trades of one business date.

    Lots, and the fees that it paid, less what busts gave back; rebates do not count. ``first`` and
    ``last`` are the numbers of the first and last journal entry that moved its lots, off the book
    too.
    """

    lots: int = 0
    maker_fees: int = 0
    taker_fees: int = 0
    first: int = 0
    last: int = 0


@dataclass(slots=True)
class State:
    """All that clearing holds in memory; the store has the same and the journal."""

    point: Point = START
    business_date: int = 0
    entries: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    positions: Positions = field(default_factory=Positions)
    members: dict[int, tuple[int, int]] = field(default_factory=dict)  # account -> member, kind
    instruments: dict[int, Instrument] = field(default_factory=dict)
    trading: dict[int, Trading] = field(default_factory=dict)  # of the business date
    activity: dict[int, Activity] = field(default_factory=dict)  # of the business date, by account
    divergences: list[Divergence] = field(default_factory=list)
    # Signed lots by account of the contract that expires, while the matters see its expiry
    ended: dict[int, int] = field(default_factory=dict)
    matters: Matters = field(default_factory=lambda: Matters(MATTERS))
    book: Book = field(default_factory=Book)  # fund, escrow and GPU-seconds: outside the engine

    @property
    def number(self) -> int:
        """The number of the last event applied: no entry has a higher one."""
        return self.point[1] << INDEX_BITS | self.point[2]

    def unrealized(self, account: int) -> Iterator[tuple[Instrument, int, int]]:
        """Yield (instrument, net, gain at the mark since the last settlement) of an account."""
        for number, position in self.positions.of_account(account):
            listed = self.instruments[number]
            yield listed, position.net, position.variation(listed.mark, listed.multiplier)


@dataclass(slots=True)
class Changes:
    """What a batch of frames adds to the store: rows to append, and the keys of changed rows."""

    accounts: set[int] = field(default_factory=set)
    instruments: set[int] = field(default_factory=set)
    journal: list[tuple[Any, ...]] = field(default_factory=list)
    postings: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    positions: set[tuple[int, int]] = field(default_factory=set)
    moved: defaultdict[tuple[int, int], defaultdict[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )  # by business date and entry kind: what each ledger account was credited
    trading: dict[tuple[int, int], Trading] = field(default_factory=dict)
    activity: dict[tuple[int, int], Activity] = field(default_factory=dict)
    divergences: list[Divergence] = field(default_factory=list)
    rulings: list[tuple[Any, ...]] = field(default_factory=list)
    steps: list[tuple[int, int, int]] = field(default_factory=list)  # of calls: see ``concerned``
    lines: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))  # by number
    requests: list[tuple[int, bytes, int]] = field(default_factory=list)  # as their table has them

    def book(self, entry: Entry, digest: bytes) -> None:
        """Add a posted entry."""
        number, postings = entry.number, entry.postings
        self.journal.append((*entry[:-1], digest))
        if not postings:
            return
        moved = self.moved[entry.business_date, entry.kind]
        for line, (debit, credit, amount) in enumerate(postings):
            self.postings.append((number, line, debit, credit, amount))
            moved[debit] -= amount
            moved[credit] += amount

    def check(self) -> None:
        """AssertionError unless the credits sum to zero, for each date and kind of entry."""
        for place, accounts in self.moved.items():
            total = sum(accounts.values())
            assert total == 0, f"entries of {place} do not balance: {total}"

    def movements(self) -> dict[tuple[int, int, int], int]:
        """Return the cash movements by business date, trading account and Movement."""
        return gather(self.moved)


def gather(
    moved: Mapping[tuple[int, int], Mapping[int, int]],
) -> defaultdict[tuple[int, int, int], int]:
    """Return the lines of statements, by business date, trading account and Movement, from the
    credits by (business date, entry kind) and ledger account."""
    found: defaultdict[tuple[int, int, int], int] = defaultdict(int)
    for (date, kind), accounts in moved.items():
        for account, delta in accounts.items():
            named = movement(kind, account)
            if named is not None:
                found[date, *named] += delta
    return found
