"""Named seeded order flows of the project's own, with the totals of a correct engine.

A workload is a raw flow (docs/reference/benchmarks.md: 32-byte records), so that an external engine
can be given the same bytes. It is drawn against a small exact book of heaps. This keeps the number
of resting orders near its target, names orders that exist, and knows every trade: the expected
totals come from it, not from the engine under test. The same name, seed and length give the same
bytes: all draws are integers from ``random.Random``.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from exchange.sim.flow import Totals

RAW: Final = Struct("<BBHIqQQ")  # kind, side, symbol, quantity, price, order_id, arg
FILL: Final = Struct("<QQqII")  # maker, taker, price, quantity, symbol
NEW, CANCEL, REDUCE, REPLACE, IOC, MARKET = range(1, 7)
MIDDLE: Final = 10_000
FNV_START: Final = 0xCBF29CE484222325
FNV_PRIME: Final = 0x100000001B3
# One in so many named orders is drawn from all earlier ones, most of which are gone
DEAD_NAMED_OF: Final = 100


@dataclass(frozen=True, slots=True)
class Profile:
    """How a flow is drawn. ``mix``: percent of each kind, in the order of the kinds."""

    seed: int
    mix: tuple[int, int, int, int, int, int]
    resting: int  # target in all books together; as many new orders fill the books first
    spread_levels: int  # new orders lie up to so many levels behind the middle
    symbols: int = 1
    crossing: int = 8  # percent of new orders and replacements that may trade at once
    taking_lots: int = 60  # largest IOC or market order
    id_gap: int = 1  # largest distance between two ids
    middle: int = MIDDLE
    steady: bool = True  # whether the number of resting orders is kept near its target


PROFILES: Final = {
    "single": Profile(11, (45, 40, 5, 5, 3, 2), 1_000, 300),
    "xc": Profile(12, (9, 6, 0, 82, 3, 0), 1_000, 800, crossing=4),
    "multi": Profile(13, (45, 40, 5, 5, 3, 2), 100_000, 300, symbols=1_000),
    "deep": Profile(14, (47, 43, 0, 0, 6, 4), 40_000, 4, crossing=0),
    "sweep": Profile(15, (49, 48, 2, 0, 1, 0), 2_000, 1_000, taking_lots=2_500),
    "storm": Profile(16, (8, 92, 0, 0, 0, 0), 160_000, 300, crossing=0, steady=False),
    "wide": Profile(17, (45, 40, 5, 5, 3, 2), 20_000, 2_000_000, middle=2_000_100),
    "sparse": Profile(18, (45, 40, 5, 5, 3, 2), 1_000, 300, id_gap=1 << 40),
    "one_price": Profile(19, (45, 40, 5, 5, 3, 2), 20_000, 1, crossing=0),
}
LOTS: Final = 50  # largest new order


@dataclass(frozen=True, slots=True)
class Workload:
    """A flow, how many of its commands only fill the books, and its totals."""

    name: str
    raw: bytes
    prefill: int
    expected: Totals


@dataclass(slots=True)
class Order:
    side: int
    symbol: int
    price: int
    leaves: int


@dataclass(slots=True)
class Books:
    """Price-time priority in its simplest form: a heap of (price, arrival, id) per symbol and
    side."""

    orders: dict[int, Order] = field(default_factory=dict)
    heaps: dict[tuple[int, int], list[tuple[int, int, int]]] = field(default_factory=dict)
    arrivals: int = 0
    trades: int = 0
    volume: int = 0
    notional: int = 0
    rejects: int = 0
    digest: int = FNV_START

    def apply(self, record: tuple[int, int, int, int, int, int, int]) -> None:
        kind, side, symbol, quantity, price, order_id, arg = record
        if kind in (NEW, IOC, MARKET):
            self.enter(order_id, Order(side, symbol, price, quantity), kind)
            return
        order = self.orders.get(order_id)
        if order is None:
            self.rejects += 1
        elif kind == REDUCE and quantity < order.leaves:
            order.leaves -= quantity
        else:
            del self.orders[order_id]
            if kind == REPLACE:
                self.enter(arg, Order(side, symbol, price, quantity), NEW)

    def enter(self, taker_id: int, taker: Order, kind: int) -> None:
        # Heaps hold the smallest first: a seller's best price is the highest
        sign = -1 if taker.side else 1
        heap = self.heaps.setdefault((taker.symbol, 1 - taker.side), [])
        while heap and taker.leaves:
            ranked, _, maker_id = heap[0]
            maker = self.orders.get(maker_id)
            if maker is None:
                heapq.heappop(heap)
                continue
            if kind != MARKET and ranked > taker.price * sign:
                break
            self.trade(maker_id, maker, taker_id, taker)
        if taker.leaves and kind == NEW:
            self.orders[taker_id] = taker
            own = self.heaps.setdefault((taker.symbol, taker.side), [])
            heapq.heappush(own, (-taker.price * sign, self.arrivals, taker_id))
            self.arrivals += 1

    def trade(self, maker_id: int, maker: Order, taker_id: int, taker: Order) -> None:
        lots = min(maker.leaves, taker.leaves)
        maker.leaves -= lots
        taker.leaves -= lots
        if not maker.leaves:
            del self.orders[maker_id]
        self.trades += 1
        self.volume += lots
        self.notional += lots * maker.price
        digest = self.digest
        for byte in FILL.pack(maker_id, taker_id, maker.price, lots, maker.symbol):
            digest = (digest ^ byte) * FNV_PRIME & 0xFFFFFFFFFFFFFFFF
        self.digest = digest

    def totals(self, commands: int) -> Totals:
        return Totals(
            n=commands,
            trades=self.trades,
            volume=self.volume,
            notional=self.notional,
            rejects=self.rejects,
            resting=len(self.orders),
            resting_qty=sum(order.leaves for order in self.orders.values()),
            fills_fnv64=f"{self.digest:016x}",
        )


class Draw:
    """Draws the commands of one profile against the books that result from them."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self.random = random.Random(seed)
        self.books = Books()
        self.next_id = 1
        self.known: list[int] = []  # ids that rested when entered; gone ones leave when drawn
        self.kinds = [kind for kind, parts in enumerate(profile.mix, NEW) for _ in range(parts)]

    def records(self, commands: int) -> Iterator[bytes]:
        """Yield the prefill, then ``commands`` more, each applied to the books as it is drawn."""
        for number in range(self.profile.resting + commands):
            kind = NEW if number < self.profile.resting else self.kind()
            named = 0 if kind in (NEW, IOC, MARKET) else self.pick()
            record = self.name(kind, named) if named else self.new(kind)
            self.books.apply(record)
            entered = record[6] or (0 if named else record[5])
            if entered in self.books.orders:
                self.known.append(entered)
            yield RAW.pack(*record)

    def kind(self) -> int:
        """Return a kind of the mix, adjusted to hold the number of resting orders."""
        kind = self.random.choice(self.kinds)
        if not self.profile.steady:
            return kind
        excess = len(self.books.orders) - self.profile.resting
        if kind == NEW and excess > self.profile.resting // 50:
            return CANCEL
        if kind in (CANCEL, IOC, MARKET) and excess < -self.profile.resting // 50:
            return NEW
        return kind

    def pick(self) -> int:
        """Return the id of a resting order, sometimes of any earlier one; 0 if none is known."""
        if self.random.randrange(DEAD_NAMED_OF) == 0:
            return self.random.randrange(1, self.next_id)
        while self.known:
            at = self.random.randrange(len(self.known))
            order_id = self.known[at]
            if order_id in self.books.orders:
                return order_id
            self.known[at] = self.known[-1]
            self.known.pop()
        return 0

    def name(self, kind: int, order_id: int) -> tuple[int, int, int, int, int, int, int]:
        order = self.books.orders.get(order_id)
        side, symbol = (order.side, order.symbol) if order else (0, 0)
        if kind == CANCEL:
            return kind, side, symbol, 0, 0, order_id, 0
        if kind == REDUCE:
            return kind, side, symbol, self.lots(LOTS // 2), 0, order_id, 0
        return kind, side, symbol, self.lots(LOTS), self.price(side), order_id, self.fresh()

    def new(self, kind: int) -> tuple[int, int, int, int, int, int, int]:
        side = self.random.randrange(2)
        symbol = min(self.random.randrange(self.profile.symbols) for _ in range(2))
        if kind in (IOC, MARKET):
            lots = self.lots(self.profile.taking_lots)
            reach = self.profile.spread_levels if kind == IOC else 0
            price = self.profile.middle + (-reach if side else reach) if reach else 0
        else:
            kind, lots, price = NEW, self.lots(LOTS), self.price(side)
        return kind, side, symbol, lots, price, self.fresh(), 0

    def price(self, side: int) -> int:
        """Return a price behind the middle, nearer levels more often; for the crossing part, across
        it."""
        levels = self.profile.spread_levels
        behind = 1 + min(self.random.randrange(levels), self.random.randrange(levels))
        if self.random.randrange(100) < self.profile.crossing:
            behind = -min(behind, 5)
        return self.profile.middle + (behind if side else -behind)

    def lots(self, most: int) -> int:
        return self.random.randrange(1, most + 1)

    def fresh(self) -> int:
        fresh, gap = self.next_id, self.profile.id_gap
        self.next_id += 1 if gap == 1 else self.random.randrange(1, gap + 1)
        return fresh


def workload(name: str, commands: int, *, seed: int | None = None) -> Workload:
    """Return the named profile's flow with ``commands`` commands after its prefill.

    Raises KeyError for a name that is not in PROFILES.
    """
    profile = PROFILES[name]
    draw = Draw(profile, profile.seed if seed is None else seed)
    raw = b"".join(draw.records(commands))
    return Workload(name, raw, profile.resting, draw.books.totals(profile.resting + commands))
