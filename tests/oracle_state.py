"""What the oracle knows: the market as plain dicts and lists, and the rows of events it writes.

Slow and obvious on purpose. Sums are never kept, only computed; the state's canonical bytes are
the text of nested tuples in a fixed order. Rules: docs/reference/engine.md.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from exchange.messages import (
    EVENT,
    RULES_VERSION,
    AccountKind,
    EventFlag,
    EventKind,
    Feature,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TradingState,
)

Key = tuple[int, int]
NO_KEY: Key = (0, 0)
SLOT_BITS = 32
U64 = (1 << 64) - 1


class Record(NamedTuple):
    """One command, as unpacked from its 64 bytes."""

    kind: int
    side: int
    tif: int
    flags: int
    instrument: int
    account: int
    session: int
    price: int
    quantity: int
    operator: int
    stp: int
    spare: int
    target_lo: int
    target_hi: int
    key_lo: int
    key_hi: int

    @property
    def key(self) -> Key:
        return self.key_lo, self.key_hi

    @property
    def target(self) -> Key:
        return self.target_lo, self.target_hi


def signed(word: int) -> int:
    """The 64 bits of ``word`` read as a signed number."""
    return word - (1 << 64) if word >> 63 else word


class Rejected(Exception):
    """A guard failed: nothing has changed yet."""

    def __init__(self, reason: Reason, a: int = 0, b: int = 0) -> None:
        super().__init__(reason.name, a, b)
        self.reason, self.a, self.b = reason, a, b
        self.told: Record | None = None  # what it is told of, where that is not the whole command


@dataclass(slots=True)
class Row:
    """One event before it has its sequence and index."""

    kind: int
    flags: int = 0
    reason: int = 0
    instrument: int = 0
    account: int = 0
    order_id: int = 0
    price: int = 0
    quantity: int = 0
    leaves: int = 0
    key: Key = NO_KEY
    a: int = 0
    b: int = 0

    def pack(self, sequence: int, index: int, last: bool) -> bytes:
        flags = self.flags | (EventFlag.LAST_IN_COMMAND if last else 0)
        return EVENT.pack(
            sequence, index, self.kind, flags, self.reason, self.instrument, self.account,
            self.order_id, self.price, self.quantity, self.leaves, *self.key, self.a, self.b,
        )  # fmt: skip


class Place(Enum):
    """Where an order is."""

    INCOMING = "incoming"
    BOOK = "book"
    DORMANT = "dormant"
    WAITING = "waiting"  # a stop
    MARKET = "market"  # waits for an auction, at any price
    FILLED = "filled"
    CANCELLED = "cancelled"


WORKING = (Place.BOOK, Place.DORMANT, Place.WAITING, Place.MARKET)


@dataclass(slots=True, eq=False)
class Order:
    """An order, working or finished and still remembered. ``price`` of one that was entered to
    trade at the market and not to rest is 0."""

    order_id: int
    account: int
    instrument: int
    side: int
    price: int
    leaves: int
    tif: int
    stp: int
    session: int
    key: Key
    fingerprint: tuple[int, ...]
    limit: int  # the price it trades up to
    minimum: int = 0  # lots it must be able to trade at once when it is entered
    expiry: int = 0  # stamp at which it is cancelled, of a GTD order
    features: int = 0  # bits of OrderFeature that still say something
    trigger: int = 0  # of a stop: the trade price that elects it
    age: int = 0  # of a stop that waits: lower is older
    market: bool = False  # of a stop: it trades at the market; ``price`` is its worst
    ticks: int | None = None  # of a PROTECTED stop
    display: int = 0  # of an iceberg: most lots it shows
    hidden: int = 0  # of an iceberg in the book: lots of ``leaves`` that it does not show
    executed: int = 0
    partner: "Order | None" = None  # the other order of its group
    serial: int = 0  # which of all orders it is
    place: Place = Place.INCOMING
    in_window: bool = True

    def part(self) -> "Order | None":
        """Neither is bound to the other any more; gives the other."""
        other, self.partner = self.partner, None
        if other is not None:
            other.partner = None
        return other

    @property
    def slot(self) -> int:
        return self.order_id & ((1 << SLOT_BITS) - 1)

    @property
    def shown(self) -> int:
        return self.leaves - self.hidden


@dataclass(slots=True, eq=False)
class Receipt:
    """An accepted request, remembered for its id, with the answer it got."""

    order_id: int
    account: int
    key: Key
    fingerprint: tuple[int, ...]
    answer: Row
    in_window: bool = True


@dataclass(slots=True, eq=False)
class Position:
    """One account in one instrument: ``cost`` is micro-dollars since last settled."""

    net: int = 0
    cost: int = 0
    accountable: bool = False  # beyond the level of accountability, as was told
    orders: dict[int, Order] = field(default_factory=dict)  # working and dormant, by order id


@dataclass(slots=True)
class Protection:
    """Lots that the quotes of an account may trade in a product within a window of log time."""

    lots: int  # 0 = any
    window: int
    start: int = 0
    traded: int = 0
    blocked: bool = False


@dataclass(slots=True, eq=False)
class Account:
    member: int
    group: int
    kind: int
    currency: int
    max_open: int
    interval: int
    burst: int
    cash: int = 0
    tat: int = 0
    max_order: int = 0
    killed: bool = False  # by SET_ACCOUNT
    stopped: bool = False  # by KILL
    loss_limit: int = 0
    loss_base: int = 0  # cash and unrealized amount that the day's loss is counted from
    loss_reached: bool = False
    in_deficit: bool = False  # as the last DEFICIT event said
    positions: dict[int, Position] = field(default_factory=dict)
    protections: dict[int, Protection] = field(default_factory=dict)  # by product
    window: deque[Order | Receipt] = field(default_factory=deque)  # oldest accepted first
    known: dict[Key, Order | Receipt] = field(default_factory=dict)

    def pay(self, amount: int) -> None:
        """Cash comes in, or goes out if negative; a sum beyond 64 bits stops the machine."""
        self.cash += amount
        assert -(1 << 63) <= self.cash < 1 << 63, "an amount overflowed"

    def open_orders(self) -> int:
        return sum(len(position.orders) for position in self.positions.values())


@dataclass(slots=True, eq=False)
class Window:
    """Trades of the last ``span`` ns as (part of time, price); ``variation`` 0: it is not used."""

    variation: int = 0
    span: int = 0
    halt: int = 0
    whole_product: bool = False
    trades: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Instrument:
    number: int
    mark: int
    multiplier: int
    tick_scale: int
    price_step: int
    lot_step: int
    low: int
    high: int
    product: int = 0
    state: int = TradingState.CLOSED
    rate: int = 0
    position_limit: int = 0
    max_order: int = 0
    maker_fee: int = 0
    taker_fee: int = 0
    bound: int = 1  # most lots any rule has ever allowed: keeps products inside 64 bits
    last_settled: int = 0  # business date x 100 + cycle
    due: int = 0  # stamp at which the next elected stops come in, if there are any
    anchor: int = 0  # the last settlement price, or the first mark
    rule: int = 0  # of a combination
    legs: tuple[tuple[int, int], ...] = ()  # instrument, ratio; of a combination, else none
    implied: bool = False
    credit: int = 0  # of a spread: micro-dollars a pair need not hold
    collected: bool = False  # for an auction: bids and asks may be crossed
    band: int = 0
    order_value: int = 0
    all_months: int = 0
    accountability: int = 0
    last: int | None = None  # price of the last trade since settled
    resume_at: int = 0  # stamp at which a halt ends by itself
    windows: list[Window] = field(default_factory=lambda: [Window(), Window()])
    bids: list[Order] = field(default_factory=list)  # best first, then oldest first
    asks: list[Order] = field(default_factory=list)
    dormant: list[Order] = field(default_factory=list)
    stops: list[Order] = field(default_factory=list)  # they wait for a price
    elected: list[Order] = field(default_factory=list)  # first to come in first
    market: list[Order] = field(default_factory=list)  # for an auction, oldest first

    @property
    def tick_value(self) -> int:
        return self.multiplier * self.tick_scale

    def side(self, side: int) -> list[Order]:
        return self.bids if side == Side.BUY else self.asks

    def rest(self, order: Order) -> None:
        """Behind all of its price: ``insort`` puts an equal to the right."""
        order.place = Place.BOOK
        sign = -1 if order.side == Side.BUY else 1
        insort(self.side(order.side), order, key=lambda other: sign * other.price)


class LegTerms(NamedTuple):
    """What a leg of a combination trades by, until the command with this sequence changed it."""

    sequence: int
    number: int
    anchor: int
    low: int
    high: int
    maker_fee: int
    taker_fee: int


class Correction(NamedTuple):
    """Of a trade with an implied price, as far as the commands for its legs have come."""

    match: int
    kind: int
    combination: int
    lots: int
    legs: list[Record]


@dataclass(slots=True, eq=False)
class Session:
    session_id: int
    account: int
    cancel_on_disconnect: bool
    grace_ms: int
    online: bool = True
    due: int = 0  # stamp of its timer, while it is not online
    killed: bool = False

    @property
    def slot(self) -> int:
        return self.session_id & 0xFFFF


class Market:
    """The whole state, and the rows of the command in hand."""

    def __init__(self) -> None:
        house = Account(0, 0, AccountKind.HOUSE, 0, Limit.ORDERS, 0, 1)
        self.accounts: dict[int, Account] = {0: house}
        self.instruments: list[Instrument] = []
        self.slots: dict[int, Order | Receipt] = {}
        self.generations: list[int] = [0]  # by slot, of those ever used; slot 0 is none
        self.free_slots: list[int] = []  # the last is taken first
        self.sessions: dict[int, Session] = {}  # online or waiting for their timer, by id
        self.session_generations: list[int] = [0]
        self.ended_slots: deque[int] = deque()  # the first is taken first
        self.business_date = 0
        self.day_open = False
        self.mode = 0
        self.accepted = 0  # orders so far
        self.killed = False
        self.killed_members: set[int] = set()
        self.rules_version = int(RULES_VERSION)
        self.deposited = 0  # deposits less withdrawals
        self.stops = 0  # ever made to wait
        self.stamp = 0
        self.sequence = 0  # of the command in hand
        self.features_off: frozenset[Feature] = frozenset()
        self.day_first = 0  # of the command that opened the day
        self.corrected: set[int] = set()  # match numbers busted or adjusted since then
        self.leg_changes: list[LegTerms] = []  # since then, or since too many were forgotten
        self.legs_known = 0  # sequence after which all changes are there
        self.stated: Correction | None = None  # whose last leg has not been stated
        self.rows: list[Row] = []

    # --- events

    def emit(self, kind: EventKind, **fields: int | Key) -> Row:
        row = Row(kind, **fields)  # type: ignore[arg-type]
        self.rows.append(row)
        return row

    def tell(self, kind: EventKind, order: Order, quantity: int, **fields: int) -> Row:
        """An event of one order, with the fields that all of them share."""
        flags = (EventFlag.SELL if order.side == Side.SELL else 0) | fields.pop("flags", 0)
        if order.place in (Place.BOOK, Place.MARKET):
            flags |= EventFlag.RESTING
        row = Row(
            kind,
            flags=flags,
            instrument=order.instrument,
            account=order.account,
            order_id=order.order_id,
            price=fields.pop("price", order.price),
            quantity=quantity,
            key=order.key,
            a=fields.pop("a", order.session),
            **fields,
        )
        self.rows.append(row)
        return row

    # --- slots and remembered ids

    def slots_full(self, account: Account) -> bool:
        """Whether none is there for one more id of the account: that of the oldest it would forget
        will do, if it has ended."""
        if self.free_slots or len(self.generations) < Limit.ORDERS:
            return False
        if len(account.window) < Limit.IDEMPOTENCY_WINDOW:
            return True
        oldest = account.window[0]
        return isinstance(oldest, Order) and oldest.place in WORKING

    def take_known_slot(self, account: Account) -> int:
        """``take_slot`` for an id that will be remembered: when the account's window is full the
        oldest leaves it first, and what it was the id of has ended or goes on without it."""
        if len(account.window) == Limit.IDEMPOTENCY_WINDOW:
            oldest = account.window.popleft()
            oldest.in_window = False
            self.forget_if_finished(oldest)
        return self.take_slot()

    def take_slot(self) -> int:
        """A free slot with its next generation: the new order id."""
        if self.free_slots:
            slot = self.free_slots.pop()
        else:
            slot = len(self.generations)
            self.generations.append(0)
        self.generations[slot] += 1
        return self.generations[slot] << SLOT_BITS | slot

    def remember(self, entry: Order | Receipt) -> None:
        """The id joins its account's window."""
        account = self.accounts[entry.account]
        self.slots[entry.order_id & ((1 << SLOT_BITS) - 1)] = entry
        account.known[entry.key] = entry
        account.window.append(entry)

    def forget_if_finished(self, entry: Order | Receipt) -> None:
        """Finished and out of the window: the id is forgotten and the slot is free."""
        if entry.in_window or (isinstance(entry, Order) and entry.place in WORKING):
            return
        slot = entry.order_id & ((1 << SLOT_BITS) - 1)
        if not (isinstance(entry, Order) and entry.features & OrderFeature.QUOTE):
            del self.accounts[entry.account].known[entry.key]
        del self.slots[slot]
        self.free_slots.append(slot)

    def orders_by_slot(self) -> list[Order]:
        """Working and dormant orders of all books."""
        entries = (self.slots[slot] for slot in sorted(self.slots))
        return [e for e in entries if isinstance(e, Order) and e.place in WORKING]

    def holders(self, instrument: int) -> list[int]:
        """Accounts with a position record in the instrument, in order."""
        return [n for n in sorted(self.accounts) if instrument in self.accounts[n].positions]

    def position(self, account: int, instrument: int) -> Position:
        """The position, or an empty one that is not kept."""
        return self.accounts[account].positions.get(instrument) or Position()
