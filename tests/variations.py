"""Random flows at the speed of NumPy: what a generator sent once, sent again in other ways.

``record(seed)`` has a ``Generator`` make a flow against an engine, and notes which order, session
or instrument each command names. A ``Play`` sends variations of it to an engine: other prices,
lots and sides, commands left out, repeated and moved, other batches, other times. What a command
names is what the same command was given in this run, so a variation is a market of its own, not a
list of rejects. Corrections are drawn from the trades of the run itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any, Final

import numpy as np
from generator import MIXED, START_NS, Generator
from generator_acts import correct, correct_legs
from numpy.typing import NDArray
from packing import COMMAND_ROWS, EVENT_ROWS

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    OrderFeature,
    Selection,
    TimeInForce,
)

FLOW_COMMANDS: Final = 20_000
SPREADS: Final = {**MIXED, "combine": 20, "imply": 20}  # what is implied seldom trades otherwise
# Less that stops a market, and more that opens it again.
CALM: Final = {**MIXED, "state": 90, "uncross": 40, "resume": 25, "kill": 0, "mode": 0, "risk": 1,
               "protect": 2, "set_account": 0, "wild": 3, "noise": 0, "churn": 0}  # fmt: skip
BATCHES: Final = (60, 400, 2_000)  # commands of a batch, about; a variation has one of these
REACHES: Final = (0, 2, 20)  # how many places a command moves at most
HEATS: Final = (0, 0.02, 0.3)  # the share of commands whose price is another; others follow it
LATER_NS: Final = (0, 1, 1_000_000, 1_000_000_000)
KEYS_OF_A_PASS: Final = 1 << 40  # so far are the keys of one pass from those of the next
DATES_OF_A_PASS: Final = 1_000

Rows = NDArray[np.void]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Kind = CommandKind

ORDERS: Final = (Kind.ENTER, Kind.CANCEL, Kind.REDUCE, Kind.REPLACE, Kind.MASS_QUOTE)
KEYED: Final = (*ORDERS, Kind.MASS_CANCEL, Kind.DEPOSIT, Kind.WITHDRAW, Kind.FEE, Kind.RECORD,
                Kind.TRANSFER)  # fmt: skip
TARGETED: Final = (Kind.CANCEL, Kind.REDUCE, Kind.REPLACE)
OF_SESSIONS: Final = (*ORDERS, Kind.MASS_CANCEL, Kind.KILL, Kind.RESUME, Kind.SET_PROTECTION,
                      Kind.LOGON, Kind.LOGOFF)  # fmt: skip
OF_INSTRUMENTS: Final = (
    Kind.ENTER, Kind.MASS_QUOTE, Kind.MASS_CANCEL, Kind.SET_LIMITS, Kind.SET_RISK, Kind.SET_STATE,
    Kind.MARK, Kind.SETTLE, Kind.EXPIRE, Kind.INDICATE, Kind.SET_PROTECTIONS, Kind.SET_BREAKER,
    Kind.SET_IMPLIED, Kind.TRANSFER,
)  # fmt: skip
LISTINGS: Final = (Kind.LIST, Kind.LIST_COMBINATION)
CORRECTIONS: Final = (Kind.BUST, Kind.ADJUST)
# Looked up for each batch: an enumeration's member costs a call.
ACCEPTED: Final = int(EventKind.ORDER_ACCEPTED)
OPENED: Final = int(EventKind.SESSION_OPENED)
LISTED: Final = int(EventKind.INSTRUMENT_LISTED)
DUPLICATE: Final = int(EventFlag.DUPLICATE)
SELL: Final = int(EventFlag.SELL)
# What a play's generator hears of: it draws nothing but corrections.
HEARD: Final = (EventKind.TRADE, EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED,
                EventKind.ORDER_EXECUTED, EventKind.INSTRUMENT_LISTED, EventKind.LEG_LISTED,
                EventKind.INSTRUMENT_EXPIRED, EventKind.STATE_CHANGED,
                EventKind.ACCOUNT_OPENED)  # fmt: skip


def among(values: NDArray[Any], kinds: tuple[int, ...]) -> Mask:
    """Where a kind is one of these; much faster than ``np.isin`` on bytes."""
    table = np.zeros(256, dtype=np.bool_)
    table[list(kinds)] = True
    found: Mask = table[values]
    return found


@dataclass(frozen=True)
class Flow:
    """What one generator sent, and what of it names what an earlier command was given."""

    seed: int
    commands: Rows
    stamps: Ints  # of each command's batch
    opening: int  # so many make the market; every variation begins with them
    # by field: the place that was given what stands there, 2 x row + side; -1: none was
    named: dict[str, Ints]
    listed_at: Ints  # rows that listed an instrument, in the order of its number
    generator: Generator  # as it was at the end: for what it had drawn of prices and lots

    @property
    def moves(self) -> Mask:
        """Commands that may be moved, left out or repeated: of orders, behind the opening."""
        found = among(self.commands["kind"], ORDERS)
        found[: self.opening] = False
        return found


def places_given(events: Rows, rows: Ints) -> tuple[NDArray[np.uint64], Ints]:
    """The ids that events give to orders and sessions, and whose they are: 2 x row + side."""
    kinds, flags = events["kind"], events["flags"]
    given = np.flatnonzero(((kinds == ACCEPTED) | (kinds == OPENED)) & (flags & DUPLICATE == 0))
    side = (flags[given] & SELL != 0) & (kinds[given] == ACCEPTED)
    return events["order_id"][given], 2 * rows[given] + side


def drawn_weights(random: Random) -> dict[str, int]:
    """How often each kind of step comes: as usual, or whatever."""
    usual = dict(random.choice((MIXED, SPREADS, CALM, CALM)))
    draw = random.random()
    if draw < 0.2:
        return {name: random.randint(0, 20) for name in MIXED}
    return usual | {"enter": random.randint(0, 2000)} if draw < 0.5 else usual


@lru_cache(maxsize=6)
def record(seed: int, commands: int = FLOW_COMMANDS) -> Flow:
    """What a generator sends to an engine, at least so many commands."""
    random = Random(seed)
    generator, engine = Generator(seed, drawn_weights(random)), Engine()
    size = random.choice((1, 7, 64, 64, 500))
    batch, sequence = generator.opening(), 1
    opening = len(batch) // COMMAND_BYTES
    parts, stamps, heard = [], [], []
    while sequence <= commands:
        events = engine.apply(batch, sequence, generator.stamp)
        heard.append(events)
        generator.learn(events)
        count = len(batch) // COMMAND_BYTES
        parts.append(batch)
        stamps.append(np.full(count, generator.stamp))
        sequence += count
        batch = generator.batch(size)
    rows = np.frombuffer(b"".join(parts), COMMAND_ROWS)
    told = np.frombuffer(b"".join(heard), EVENT_ROWS)
    ids, places = places_given(told, told["sequence"].astype("i8") - 1)
    listed_at = told["sequence"][told["kind"] == EventKind.INSTRUMENT_LISTED].astype("i8") - 1
    named = names(rows, ids, places)
    return Flow(seed, rows, np.concatenate(stamps), opening, named, listed_at, generator)


def names(rows: Rows, ids: NDArray[np.uint64], places: Ints) -> dict[str, Ints]:
    """By field, which place gave what each row has in it; -1 where none did."""
    kinds = rows["kind"]
    by_id = among(kinds, TARGETED) & (rows["flags"] & CommandFlag.BY_CLIENT_ID == 0)
    by_session = (kinds == Kind.MASS_CANCEL) & (rows["tif"] & Selection.SESSION != 0)
    grouped = (kinds == Kind.ENTER) & (rows["spare"] & OrderFeature.GROUPED != 0)
    holds = {"target_lo": by_id | by_session, "target_hi": grouped,
             "session": among(kinds, OF_SESSIONS)}  # fmt: skip
    order = np.argsort(ids, kind="stable")
    known = np.concatenate([np.zeros(1, "u8"), ids[order]])  # no id is 0
    whose = np.concatenate([np.full(1, -1), places[order]])
    found = {}
    for name, held in holds.items():
        at = np.minimum(np.searchsorted(known, rows[name]), len(known) - 1)
        found[name] = np.where(held & (known[at] == rows[name]), whose[at], -1)
    return found


def moved(flow: Flow, random: np.random.Generator) -> Ints:
    """Of each command of a variation, the row that it is of."""
    count, moves = len(flow.commands), flow.moves
    far = random.choice(REACHES)
    origin = np.argsort(np.arange(count) + moves * random.random(count) * far, kind="stable")
    origin = origin[~(moves[origin] & (random.random(count) < 0.02))]
    again = np.flatnonzero(moves[origin] & (random.random(len(origin)) < 0.02))
    origin[again] = origin[np.maximum(again - random.integers(1, 300, len(again)), 0)]
    return origin.astype("i8")


def vary(flow: Flow, random: np.random.Generator) -> Rows:
    """The flow's commands, some with another price, quantity, side, or one byte of any value."""
    rows, moves, count = flow.commands.copy(), flow.moves, len(flow.commands)
    heat, kinds, step = random.choice(HEATS), rows["kind"], flow.generator.step

    def some(share: float, *of: int) -> Ints:
        return np.flatnonzero(moves & among(kinds, of) & (random.random(count) < share))

    priced = some(heat, Kind.ENTER, Kind.REPLACE, Kind.MASS_QUOTE)
    priced = priced[rows["flags"][priced] & CommandFlag.MARKET == 0]
    ticks = np.rint(random.normal(0, flow.generator.spread / 2, len(priced))).astype("i8") * step
    rows["price"][priced] += ticks
    quotes = kinds[priced] == Kind.MASS_QUOTE
    rows["target_lo"][priced[quotes]] += ticks[quotes].astype("u8")
    sized = some(heat / 2, *ORDERS)
    rows["quantity"][sized] = random.integers(1, 13, len(sized)) * flow.generator.lot_step
    turned = some(heat / 4, Kind.ENTER)
    rows["side"][turned] ^= 1
    other = some(heat / 8, Kind.ENTER, Kind.REPLACE, Kind.MASS_QUOTE)
    rows["stp"][other] = random.integers(0, 4, len(other))
    timed = some(heat / 20, Kind.ENTER)
    rows["tif"][timed] = random.integers(0, len(TimeInForce), len(timed))
    wild = some(0.003, *ORDERS)
    as_bytes = rows.view("u1").reshape(count, COMMAND_BYTES)
    places = random.integers(1, COMMAND_BYTES, len(wild))
    as_bytes[wild, places] = random.integers(0, 256, len(wild))
    return rows


class Pass:
    """One variation on its way: its rows, and where in them is what is filled in as they go."""

    def __init__(self, flow: Flow, random: np.random.Generator, number: int, listed: int) -> None:
        self.flow, self.origin = flow, moved(flow, random)
        self.rows = vary(flow, random)[self.origin]
        self.given = np.zeros(2 * len(flow.commands), dtype="u8")  # by place
        self.numbers = np.arange(len(flow.listed_at), dtype="u4") + np.uint32(listed)
        kinds = self.rows["kind"]
        keys = np.uint64(number * KEYS_OF_A_PASS)  # none comes again
        self.rows["key_lo"][among(kinds, KEYED) & (self.rows["key_lo"] != 0)] += keys
        by_key = among(kinds, TARGETED) & (self.rows["flags"] & CommandFlag.BY_CLIENT_ID != 0)
        self.rows["target_lo"][by_key] += keys
        days = among(kinds, (Kind.OPEN_DAY, Kind.CLOSE_DAY))
        self.rows["quantity"][days] += np.uint32(number * DATES_OF_A_PASS)
        self.places = {name: places[self.origin] for name, places in flow.named.items()}
        self.naming = {name: np.flatnonzero(at >= 0) for name, at in self.places.items()}
        by_product = (kinds == Kind.MASS_CANCEL) & (self.rows["tif"] & Selection.PRODUCT != 0)
        booked = among(kinds, OF_INSTRUMENTS) & (self.rows["instrument"] < len(self.numbers))
        self.booked = np.flatnonzero(booked & ~by_product)
        until = (kinds == Kind.ENTER) & (self.rows["tif"] == TimeInForce.GTD)
        self.until = np.flatnonzero(until)
        self.corrected = np.flatnonzero(among(kinds, CORRECTIONS))

    def name(self, start: int, end: int, later: int, drawer: Generator) -> None:
        """What these commands name is what this run has given."""
        rows = self.rows
        for name, naming in self.naming.items():
            at = within(naming, start, end)
            ids = self.given[self.places[name][at]]
            rows[name][at[ids != 0]] = ids[ids != 0]
        at = within(self.booked, start, end)
        rows["instrument"][at] = self.numbers[rows["instrument"][at]]
        rows["target_lo"][within(self.until, start, end)] += np.uint64(later)
        at = within(self.corrected, start, end)
        if len(at):
            rows[at] = corrections(drawer, len(at))

    def name_listing(self, at: int, listed: int) -> None:
        """The next number, and the legs that the flow means."""
        one = self.rows[at : at + 1]
        if self.origin[at] in self.flow.listed_at:
            one["instrument"] = listed
        if one["kind"][0] == Kind.LIST_COMBINATION:
            word, ratios = int(one["key_lo"][0]), int(one["quantity"][0])
            used = sum(ratios >> 4 * place & 15 != 0 for place in range(4))
            legs = [word >> 16 * place & 0xFFFF for place in range(used)]
            shown = [int(self.numbers[leg]) if leg < len(self.numbers) else leg for leg in legs]
            one["key_lo"] = sum(leg << 16 * place for place, leg in enumerate(shown))

    def learn(self, events: Rows, first: int, start: int) -> None:
        """What was given to whom, by the batch of ``start`` whose first sequence was ``first``."""
        rows = self.origin[start + events["sequence"].astype("i8") - first]
        ids, places = places_given(events, rows)
        self.given[places] = ids
        for at in np.flatnonzero(events["kind"] == LISTED):
            number = int(np.searchsorted(self.flow.listed_at, rows[at]))
            if number < len(self.numbers) and self.flow.listed_at[number] == rows[at]:
                self.numbers[number] = events["instrument"][at]


def within(positions: Ints, start: int, end: int) -> Ints:
    """Those from start to before end, of ascending ones."""
    low, high = np.searchsorted(positions, (start, end))
    return positions[low:high]


@dataclass
class Play:
    """Sends passes of flows to ``apply(batch, first sequence, stamp) -> events``, one after another
    to the same market."""

    apply: Callable[[bytes, int, int], bytes]
    seed: int
    sequence: int = 1  # of the next command
    stamp: int = START_NS
    listed: int = 0  # instruments
    passes: int = 0
    random: np.random.Generator = field(init=False)
    drawer: Generator = field(init=False)  # of corrections; it learns what trades

    def __post_init__(self) -> None:
        self.random, self.drawer = np.random.default_rng(self.seed), Generator(self.seed)

    def send(self, flow: Flow) -> Iterator[tuple[Rows, Rows]]:
        """One pass: a variation of the flow, its batches and their events as they come."""
        one = Pass(flow, self.random, self.passes, self.listed)
        for name in ("tick_scale", "step", "spread", "wealth"):
            setattr(self.drawer, name, getattr(flow.generator, name))
        later = self.stamp - START_NS
        for start, end in self._cuts(one.rows["kind"]):
            later += int(self.random.choice(LATER_NS)) if self.random.random() < 0.05 else 0
            one.name(start, end, later, self.drawer)
            if one.rows["kind"][start] in LISTINGS:
                one.name_listing(start, self.listed)
            self.stamp = max(self.stamp, int(np.max(flow.stamps[one.origin[start:end]])) + later)
            batch = one.rows[start:end]
            answer = self.apply(batch.tobytes(), self.sequence, self.stamp)
            events = np.frombuffer(answer, EVENT_ROWS)
            one.learn(events, self.sequence, start)
            heard = events[among(events["kind"], HEARD)]
            if len(heard):
                self.drawer.learn(heard.tobytes())
            self.listed = self.drawer.listed
            self.sequence += end - start
            yield batch, events
        self.passes += 1

    def _cuts(self, kinds: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
        """Where batches begin and end; a listing is one of its own, since it takes the next
        number."""
        middle, count = int(self.random.choice(BATCHES)), len(kinds)
        sizes = self.random.integers(1, 2 * middle, 2 * count // middle + 10)
        ends = np.cumsum(sizes)
        alone = np.flatnonzero(among(kinds, LISTINGS))
        cuts = np.unique(np.concatenate([[0], ends[ends < count], alone, alone + 1, [count]]))
        yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)


def corrections(drawer: Generator, count: int) -> Rows:
    """So many corrections of what traded in this run, of single trades and of legs in a row."""
    out = b""
    while len(out) < count * COMMAND_BYTES:
        out += drawer.random.choice((correct, correct, correct_legs))(drawer)
    return np.frombuffer(out, COMMAND_ROWS)[:count]
