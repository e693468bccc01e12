"""The flows of ``bench features``: for each feature of the core one that uses it.

All but the auctions' are based on the flow ``single``. Some features are used by an extra trader
after every tenth command of the flow: a probe. Others are active in the market while the flow runs.
Each flow is applied while it is built, so that a probe sees the book; any refusal ends the bench.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import msgspec

from benches import auction
from benches.workloads import workload
from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    EVENT_FIELDS,
    Command,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    OrderFeature,
    Selection,
    Side,
    TimeInForce,
)
from exchange.sim.flow import CASH_MICROS, START_NS, Flow, prepare

COMMANDS: Final = 6_000
EVERY: Final = 10  # commands of the flow per use of a probe
FLOW_ACCOUNTS: Final = range(1, 129)
TRADER, OTHER = 129, 130  # extra accounts, not of the flow
KEY: Final = 1 << 60  # ids of the extra orders are above this
REQUEST: Final = 1 << 31  # offset of request ids, above the number of all extra orders
FAR_NS: Final = START_NS + 86_400 * 10**9
MASS: Final = 10  # orders cancelled together
AUCTION_ORDERS: Final = 10_000
NO_FIELDS: Final[dict[str, int]] = {}
Event = dict[str, int]


@dataclass(frozen=True, slots=True)
class Built:
    """Batches that prepare an engine, batches that are counted, and how often these use the
    feature."""

    ready: list[bytes]
    counted: list[bytes]
    uses: int


@dataclass(slots=True)
class Market:
    """An engine that the flow runs through, and the state of the extra accounts."""

    setup: list[Command]  # of the flow
    engine: Engine = field(default_factory=Engine)
    applied: list[bytes] = field(default_factory=list)
    sequence: int = 1
    keys: int = KEY
    kept: list[Command] = field(default_factory=list)  # by a probe, for its next use

    def run(self, records: bytes) -> Event:
        """Apply a batch and keep it; return its first event."""
        self.applied.append(records)
        events = self.engine.apply(records, self.sequence, START_NS)
        self.sequence += len(records) // COMMAND_BYTES
        return dict(zip(EVENT_FIELDS, EVENT.unpack_from(events), strict=True))

    def do(self, command: Command) -> Event:
        """Apply an extra command; raise RuntimeError if it is refused."""
        event = self.run(COMMAND.pack(*msgspec.structs.astuple(command)))
        if event["kind"] == EventKind.REJECTED:
            raise RuntimeError(f"the engine refused {command}: reason {event['reason']}")
        return event

    def cut(self) -> list[bytes]:
        """Return what was applied since the last cut, in full batches."""
        records = b"".join(self.applied)
        self.applied.clear()
        size = Limit.BATCH_COMMANDS * COMMAND_BYTES
        return [records[at : at + size] for at in range(0, len(records), size)]

    def order(self, side: Side, price: int, account: int = TRADER, **fields: int) -> Command:
        """Return a limit order of one lot, unless ``fields`` override that."""
        self.keys += 1
        return Command(
            side=side, price=price, account=account, session=1 << 16 | account,
            key_lo=self.keys, **{"kind": CommandKind.ENTER, "quantity": 1} | fields,
        )  # fmt: skip

    @property
    def listed(self) -> Command:
        return next(c for c in self.setup if c.kind == CommandKind.LIST)

    @property
    def low(self) -> int:
        return self.listed.target_lo

    @property
    def high(self) -> int:
        return self.listed.target_hi

    @property
    def step(self) -> int:
        return self.listed.account

    @property
    def ask(self) -> int:
        """The best sell price."""
        return int(self.engine.book(0, 1)[1][0][0])

    @property
    def inside(self) -> int | None:
        """A price between the best bid and ask; None if there is no room."""
        bids, _ = self.engine.book(0, 1)
        inside = self.ask - self.step
        return inside if inside > bids[0][0] else None


Probe = Callable[[Market], Generator[Command, Event]]
Fields = Callable[[Market], dict[str, int]]
Before = Callable[[Market], Iterable[Command]]
Build = Callable[[], Built]


def cancelled(order: Command, request: int = 0) -> Command:
    """Return the CANCEL of an order by its client order id."""
    return Command(
        kind=CommandKind.CANCEL, side=order.side, flags=CommandFlag.BY_CLIENT_ID,
        account=order.account, session=order.session, target_lo=order.key_lo, key_lo=request,
    )  # fmt: skip


# --- how a flow is built


@cache
def single() -> Flow:
    drawn = workload("single", COMMANDS)
    return prepare(drawn.raw, drawn.prefill)


def commands_of(batches: list[bytes]) -> list[Command]:
    return [
        Command(**dict(zip(COMMAND_FIELDS, fields, strict=True)))
        for batch in batches
        for fields in COMMAND.iter_unpack(batch)
    ]


def opened(before: Before) -> Market:
    """Return the flow's market with its book filled, ``before`` and two extra accounts, both
    long."""
    flow = single()
    market = Market(commands_of(flow.setup))
    for batch in (*flow.setup, *flow.prefix):
        market.run(batch)
    for account in (TRADER, OTHER):
        market.do(Command(kind=CommandKind.OPEN_ACCOUNT, account=account, instrument=account,
                          session=account, quantity=Limit.ORDERS, target_lo=1,
                          target_hi=1 << 30))  # fmt: skip
        market.do(Command(kind=CommandKind.DEPOSIT, account=account, price=CASH_MICROS, key_hi=1))
        market.do(Command(kind=CommandKind.LOGON, account=account))
        taken: dict[str, int] = {
            "flags": CommandFlag.MARKET,
            "tif": TimeInForce.IOC,
            "quantity": 10,
        }
        market.do(market.order(Side.BUY, 0, account, **taken))
    for command in before(market):
        market.do(command)
    return market


def nothing(market: Market) -> Iterable[Command]:
    return ()


def watched(before: Before = nothing) -> Build:
    """Return the unchanged flow, in a market prepared by ``before``; each command is a use."""

    def build() -> Built:
        market = opened(before)
        ready = market.cut()
        for batch in single().timed:
            market.run(batch)
        return Built(ready, market.cut(), COMMANDS)

    return build


def with_requests() -> Built:
    """Build the flow with an id for every request, as a gateway sends it; each command is a use."""
    market = opened(nothing)
    ready = market.cut()
    flow = commands_of(single().timed)
    for number, command in enumerate(flow):
        if command.kind == CommandKind.CANCEL:
            flow[number] = msgspec.structs.replace(command, key_lo=KEY + REQUEST + number)
    records = b"".join(COMMAND.pack(*msgspec.structs.astuple(command)) for command in flow)
    size = Limit.BATCH_COMMANDS * COMMAND_BYTES
    for at in range(0, len(records), size):
        market.run(records[at : at + size])
    return Built(ready, market.cut(), COMMANDS)


def probed(probe: Probe, before: Before = nothing, *, alone: bool = False) -> Build:
    """Return the flow with the probe at intervals; ``alone``: the probe without the flow."""

    def build() -> Built:
        market = opened(before)
        ready = market.cut()
        uses = 0
        for number, fields in enumerate(COMMAND.iter_unpack(b"".join(single().timed))):
            if not alone:
                market.run(COMMAND.pack(*fields))
            if number % EVERY == 0:
                uses += use(market, probe)
        return Built(ready, market.cut(), uses)

    return build


def use(market: Market, probe: Probe) -> bool:
    """Run a probe once; return whether it sent any command."""
    acts = probe(market)
    command = next(acts, None)
    used = command is not None
    while command is not None:
        event = market.do(command)
        try:
            command = acts.send(event)
        except StopIteration:
            command = None
    return used


def uncrossed() -> Built:
    """Build a separate auction; each trade is a use."""
    orders, _ = auction.crossed(AUCTION_ORDERS, spread=20.0)
    engine, sequence = auction.collected(orders)
    trades = auction.trades_in(engine.apply(auction.ending(), sequence, START_NS))
    return Built([auction.opening(), orders], [auction.ending()], trades)


# --- probes


def plain(market: Market) -> dict[str, int]:
    return {}


def rest(fields: Fields = plain, *, asked: bool = False) -> Probe:
    """Return a probe: an order at the far limit, and its cancel; ``asked``: with a request id."""

    def probe(market: Market) -> Generator[Command, Event]:
        order = market.order(Side.SELL, **{"price": market.high} | fields(market))
        yield order
        yield cancelled(order, market.keys + REQUEST if asked else 0)

    return probe


def move(flags: int = 0) -> Probe:
    """Return a probe: an order at the far limit moves one step closer and is cancelled."""

    def probe(market: Market) -> Generator[Command, Event]:
        order = market.order(Side.SELL, market.high)
        yield order
        moved = market.order(
            Side.SELL, market.high - market.step, kind=CommandKind.REPLACE,
            flags=flags | CommandFlag.BY_CLIENT_ID, target_lo=order.key_lo,
        )  # fmt: skip
        yield moved
        yield cancelled(moved if flags & CommandFlag.NEW_ID else order)

    return probe


def lessen(*, asked: bool = False) -> Probe:
    """Return a probe: an order of two lots is reduced to one and cancelled."""

    def probe(market: Market) -> Generator[Command, Event]:
        order = market.order(Side.SELL, market.high, quantity=2)
        yield order
        less = cancelled(order, market.keys + REQUEST if asked else 0)
        yield msgspec.structs.replace(less, kind=CommandKind.REDUCE, quantity=1)
        yield cancelled(order)

    return probe


def take(**fields: int) -> Probe:
    """Return a probe: an order that takes one lot at the best price."""

    def probe(market: Market) -> Generator[Command, Event]:
        price = 0 if fields.get("flags", 0) & CommandFlag.MARKET else market.ask
        yield market.order(Side.BUY, **{"price": price} | fields)

    return probe


def meet(
    made: dict[str, int] = NO_FIELDS,
    taking: dict[str, int] = NO_FIELDS,
    *,
    same_owner: bool = False,
) -> Probe:
    """Return a probe: an order between the best prices, and one that trades with it alone."""

    def probe(market: Market) -> Generator[Command, Event]:
        price = market.inside
        if price is None:
            return
        yield market.order(Side.SELL, price, TRADER if same_owner else OTHER, **made)
        yield market.order(Side.BUY, price, tif=TimeInForce.IOC, **taking)

    return probe


def meet_spread(market: Market) -> Generator[Command, Event]:
    """Like ``meet``, in a calendar spread."""
    spread = {"instrument": 2}
    yield market.order(Side.SELL, 0, OTHER, **spread)
    yield market.order(Side.BUY, 0, tif=TimeInForce.IOC, **spread)


def take_twice(market: Market) -> Generator[Command, Event]:
    for _ in range(2):
        yield market.order(Side.BUY, market.ask, tif=TimeInForce.IOC)


def elect(market: Market) -> Generator[Command, Event]:
    """A stop, and an order that takes one lot at its trigger."""
    price = market.ask
    stop = {"spare": OrderFeature.STOP, "target_hi": price, "flags": CommandFlag.MARKET}
    yield market.order(Side.BUY, 0, tif=TimeInForce.IOC, **stop)
    yield market.order(Side.BUY, price, tif=TimeInForce.IOC)


def trade_one_of_two(market: Market) -> Generator[Command, Event]:
    """One of two orders trades, and the other is cancelled."""
    order = market.order(Side.SELL, market.high)
    yield order
    yield market.order(Side.BUY, market.ask)
    yield cancelled(order)


def trade_one_of_group(market: Market) -> Generator[Command, Event]:
    accepted = yield market.order(Side.SELL, market.high)
    group = {"spare": OrderFeature.GROUPED, "target_hi": accepted["order_id"]}
    yield market.order(Side.BUY, market.ask, **group)


def cancel_each(market: Market) -> Generator[Command, Event]:
    orders = [market.order(Side.SELL, market.high) for _ in range(MASS)]
    for order in orders:
        yield order
    for order in orders:
        yield cancelled(order)


def cancel_together(market: Market) -> Generator[Command, Event]:
    for _ in range(MASS):
        order = market.order(Side.SELL, market.high)
        yield order
    yield Command(
        kind=CommandKind.MASS_CANCEL, side=Side.UNSTATED, tif=Selection.INSTRUMENT,
        account=TRADER, session=order.session,
    )  # fmt: skip


def two_sides(market: Market) -> list[Command]:
    """Return a bid and an ask at the limits, one step closer every other time."""
    off = market.step * (market.keys // 2 % 2)
    return [
        market.order(Side.BUY, market.low + off),
        market.order(Side.SELL, market.high - off),
    ]


def replace_both(market: Market) -> Generator[Command, Event]:
    old, market.kept = market.kept, two_sides(market)
    renamed = CommandFlag.BY_CLIENT_ID | CommandFlag.NEW_ID
    for number, order in enumerate(market.kept):
        if not old:
            yield order
            continue
        yield msgspec.structs.replace(
            order, kind=CommandKind.REPLACE, flags=renamed, target_lo=old[number].key_lo
        )


def quoted(bid: Command, ask: Command) -> Command:
    return Command(
        kind=CommandKind.MASS_QUOTE, account=bid.account, session=bid.session, price=bid.price,
        quantity=1, target_lo=ask.price, target_hi=1, key_lo=bid.key_lo,
    )  # fmt: skip


def quote_both(market: Market) -> Generator[Command, Event]:
    yield quoted(*two_sides(market))


def hit_quote(market: Market) -> Generator[Command, Event]:
    price = market.inside
    if price is None:
        return
    yield quoted(market.order(Side.BUY, market.low), market.order(Side.SELL, price))
    yield market.order(Side.BUY, price, OTHER, tif=TimeInForce.IOC)
