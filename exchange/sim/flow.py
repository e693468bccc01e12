"""Runs a raw order flow through the engine as the market would, and times the engine alone.

The flow's order ids become client order ids, with deduplication on. 64 buying and 64 selling
accounts own the orders, each a member and a self-trade group of its own with a session online;
limits, positions, cash and throttle are set so wide that every check is executed and none fails. A
flow's replace is one REPLACE with NEW_ID. The price limits of a symbol are the lowest and highest
price in the file.

The clock runs over ``Engine.apply`` in batches, with the records built before; the totals of the
events come from a second, untimed run.
"""

import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Final, Protocol

import msgspec

from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    EVENT,
    EVENT_FIELDS,
    Command,
    CommandKind,
    EventKind,
    Limit,
    Reason,
    TradingState,
)
from exchange.sim.flow_records import ACCOUNTS_PER_SIDE, RAW_BYTES, Converter, Tally, scan

ACCOUNTS: Final = 2 * ACCOUNTS_PER_SIDE
CASH_MICROS: Final = 1 << 52
POSITION_LOTS: Final = (1 << 31) - 1
HOLD_RATE_MICROS: Final = 1000  # per lot
MAKER_FEE_MICROS: Final = 1
TAKER_FEE_MICROS: Final = 2
THROTTLE_INTERVAL_NS: Final = 1
THROTTLE_BURST: Final = 1 << 30
START_NS: Final = 1_700_000_000_000_000_000
BUSINESS_DATE: Final = 20231114  # of START_NS


class Core(Protocol):
    """The part of an engine that a flow needs; the tests' reference implementation has it as
    well."""

    def apply(self, commands: bytes, first_sequence: int, stamp_ns: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Flow:
    """A prepared flow: batches of commands, to be applied in this order from sequence 1."""

    setup: list[bytes]
    prefix: list[bytes]
    timed: list[bytes]
    commands: int  # of prefix and timed together
    timed_commands: int

    @property
    def setup_commands(self) -> int:
        return sum(map(len, self.setup)) // COMMAND_BYTES


@dataclass(frozen=True, slots=True)
class Timing:
    """One timed run: nanoseconds per command, of wall time and of this thread's CPU time."""

    ns_per_command: float
    cpu_ns_per_command: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of a flow. Quantities in lots; notional = sum of price x quantity."""

    n: int
    trades: int
    volume: int
    notional: int
    rejects: int
    resting: int
    resting_qty: int
    fills_fnv64: str  # FNV-1a 64 of the trades in order, 16 hexadecimal digits


@dataclass(frozen=True, slots=True)
class FlowResult(Totals):
    """Totals and the median timing."""

    ns_per_command: float
    cpu_ns_per_command: float

    def as_dict(self) -> dict[str, int | float | str]:
        """Return the fields by name, as ``hourbook flow --json`` prints them."""
        return asdict(self)


def run(
    path: str | Path,
    skip: int = 0,
    *,
    repeats: int = 1,
    batch_commands: int = Limit.BATCH_COMMANDS,
    new_engine: Callable[[], Core] = Engine,
) -> FlowResult:
    """Run the file; the first ``skip`` commands are applied but not timed.

    Raises OSError if the file cannot be read and ValueError if it is no order flow.
    """
    flow = prepare(Path(path).read_bytes(), skip, batch_commands)
    timings = [time_once(flow, new_engine()) for _ in range(repeats)]
    totals = tally(flow, new_engine())
    return FlowResult(
        **asdict(totals),
        ns_per_command=round(median(t.ns_per_command for t in timings), 2),
        cpu_ns_per_command=round(median(t.cpu_ns_per_command for t in timings), 2),
    )


def prepare(
    raw: bytes | memoryview, skip: int = 0, batch_commands: int = Limit.BATCH_COMMANDS
) -> Flow:
    """Return the commands of a raw flow. Raises ValueError for a bad record or too large a
    ``skip``."""
    ranges = scan(raw)
    commands = len(raw) // RAW_BYTES
    if not commands:
        raise ValueError("there is no command in it")
    if not 0 <= skip < commands:
        raise ValueError(f"cannot skip {skip} of {commands} commands")
    converter = Converter(_session(account) for account in range(ACCOUNTS + 1))
    cut = skip * RAW_BYTES
    view = memoryview(raw)
    return Flow(
        setup=_batched(opening_commands(ranges), batch_commands),
        prefix=converter.convert(view[:cut], batch_commands),
        timed=converter.convert(view[cut:], batch_commands),
        commands=commands,
        timed_commands=commands - skip,
    )


def open_market(flow: Flow, engine: Core) -> int:
    """Apply the setup to an empty engine; return the next sequence.

    Raises ValueError if the engine refuses a symbol, for example because its prices are too far
    apart, and RuntimeError if it numbers sessions in another way than expected.
    """
    sequence = 1
    opened = array("I", [0])
    for batch in flow.setup:
        for record in EVENT.iter_unpack(engine.apply(batch, sequence, START_NS)):
            event = dict(zip(EVENT_FIELDS, record, strict=True))
            if event["kind"] == EventKind.REJECTED:
                raise ValueError(
                    f"symbol {event['instrument']} cannot be listed:"
                    f" {Reason(event['reason']).name} of its prices' range"
                )
            if event["kind"] == EventKind.SESSION_OPENED:
                opened.append(event["order_id"])
        sequence += len(batch) // COMMAND_BYTES
    if list(opened[1:]) != [_session(account) for account in range(1, ACCOUNTS + 1)]:
        raise RuntimeError("the engine numbers sessions in another way than the flow expects")
    return sequence


def fill_books(flow: Flow, engine: Core) -> int:
    """Apply setup and prefix to an empty engine; return the next sequence."""
    sequence = open_market(flow, engine)
    _apply(engine, flow.prefix, _first_sequences(flow.prefix, sequence))
    return sequence + flow.commands - flow.timed_commands


def time_once(flow: Flow, engine: Core) -> Timing:
    """Time the flow on an empty engine; setup and prefix are not timed."""
    sequences = _first_sequences(flow.timed, fill_books(flow, engine))
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    _apply(engine, flow.timed, sequences)
    cpu, wall = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return Timing(wall / flow.timed_commands, cpu / flow.timed_commands)


def tally(flow: Flow, engine: Core) -> Totals:
    """Run the flow on an empty engine and add up its events.

    Raises ValueError for an answer that no valid flow gets.
    """
    sequence = open_market(flow, engine)
    sums = Tally(Limit.ORDERS)
    for batches in (flow.prefix, flow.timed):
        for batch in batches:
            sums.feed(engine.apply(batch, sequence, START_NS))
            sequence += len(batch) // COMMAND_BYTES
    if sums.surprise is not None:
        raise ValueError(f"the flow cannot be run: {sums.surprise}")
    return Totals(
        n=flow.commands,
        trades=sums.trades,
        volume=sums.volume,
        notional=sums.notional,
        rejects=sums.rejects,
        resting=sums.resting,
        resting_qty=sums.resting_quantity,
        fills_fnv64=f"{sums.digest:016x}",
    )


def _first_sequences(batches: list[bytes], sequence: int) -> list[int]:
    """Return the sequence of each batch's first command."""
    return list(accumulate((len(b) // COMMAND_BYTES for b in batches[:-1]), initial=sequence))


def _apply(engine: Core, batches: list[bytes], sequences: list[int]) -> None:
    """Apply each batch from its sequence on, and discard its events."""
    apply = engine.apply
    for batch, sequence in zip(batches, sequences, strict=False):
        apply(batch, sequence, START_NS)


def _session(account: int) -> int:
    """Return the session that an empty engine gives to the account that logs on as number
    ``account``."""
    return 1 << 16 | account


def _batched(commands: Iterable[Command], batch_commands: int) -> list[bytes]:
    records = b"".join(COMMAND.pack(*msgspec.structs.astuple(c)) for c in commands)
    step = batch_commands * COMMAND_BYTES
    return [records[at : at + step] for at in range(0, len(records), step)]


def opening_commands(ranges: list[tuple[int, int, int, int]]) -> Iterable[Command]:
    """Yield commands that open the day, the accounts and, for each (low, high, step, largest
    order), the symbol."""
    yield Command(kind=CommandKind.OPEN_DAY, quantity=BUSINESS_DATE)
    for account in range(1, ACCOUNTS + 1):
        yield Command(
            kind=CommandKind.OPEN_ACCOUNT,
            account=account,
            instrument=account,  # its member
            session=account,  # its self-trade group
            quantity=Limit.ORDERS,
            target_lo=THROTTLE_INTERVAL_NS,
            target_hi=THROTTLE_BURST,
        )
        yield Command(kind=CommandKind.DEPOSIT, account=account, price=CASH_MICROS, key_hi=1)
    for account in range(1, ACCOUNTS + 1):
        yield Command(kind=CommandKind.LOGON, account=account)
    for symbol, (low, high, step, largest) in enumerate(ranges):
        yield Command(
            kind=CommandKind.LIST,
            instrument=symbol,
            price=(low + high) // 2,
            quantity=1,
            session=1,
            account=step,
            operator=1,
            target_lo=low,
            target_hi=high,
        )
        yield Command(
            kind=CommandKind.SET_RISK,
            instrument=symbol,
            price=HOLD_RATE_MICROS,
            quantity=POSITION_LOTS,
            session=largest,
            target_lo=MAKER_FEE_MICROS,
            target_hi=TAKER_FEE_MICROS,
        )
        yield Command(kind=CommandKind.SET_STATE, instrument=symbol, tif=TradingState.CONTINUOUS)
