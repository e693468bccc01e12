"""Ids that crowd into a few buckets of the id hash: they are put behind, found, forgotten, moved.

The engine's hash is inverted here: of any account come keys that belong into a few neighbouring
buckets, at the end of the table and at its beginning, with few tags, and keys of one hash. The
oracle knows of no hash, so each event list is compared with its own.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np
import pytest
from differences import first_difference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import Oracle
from packing import COMMAND_ROWS, pack

import exchange.engine
from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    TimeInForce,
    TradingState,
)

# Budget: 30 seconds on one core.
EXAMPLES = 12
STAMP = 1_000_000_000_000
SOURCES = Path(exchange.engine.__file__).parent
FACTOR, OF_ACCOUNT = 0x5851F42D, 0xCC9E2D51  # of `hash_of` in ids.pxd
BUCKETS = 1 << 14  # of a new engine: state.pyx
ROOM = 3 * BUCKETS  # ids, with which the table grows
ACCOUNTS = (1, 2, 3)
WINDOW = int(Limit.IDEMPOTENCY_WINDOW)
BY_ID = int(CommandFlag.BY_CLIENT_ID)
NEW_ID = int(CommandFlag.NEW_ID)
GTC, IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)


def key(account: int, bucket: int, tag: int) -> int:
    """The low half of a key of this account that belongs into a bucket, with this tag."""
    whole = 1 << 64
    wanted = tag << 32 | bucket << 6
    return (wanted - (account * OF_ACCOUNT & 0xFFFFFFFF)) * pow(FACTOR, -1, whole) % whole


class Pair:
    """The engine and the oracle, which get the same commands."""

    def __init__(self) -> None:
        self.engine, self.oracle, self.sequence = Engine(), Oracle(), 1
        self.sessions: dict[int, int] = {}

    def do(self, *commands: bytes) -> bytes:
        batch = b"".join(commands)
        expected = self.oracle.apply(batch, self.sequence, STAMP)
        events = self.engine.apply(batch, self.sequence, STAMP)
        if events != expected:
            pytest.fail(first_difference(batch, self.sequence, expected, events))
        self.sequence += len(batch) // COMMAND_BYTES
        return events

    def check(self) -> None:
        self.engine.check()
        assert self.engine.counts().items() >= self.oracle.counts().items()
        assert self.engine.book(0) == self.oracle.book(0)


def opened() -> Pair:
    """A pair with one market of ten prices and some accounts, each with a session."""
    pair = Pair()
    listing = {"price": 5, "quantity": 1, "session": 1, "account": 1, "operator": 1}
    pair.do(
        pack(CommandKind.LIST, target_lo=1, target_hi=10, **listing),
        pack(CommandKind.SET_RISK, quantity=1 << 30, session=1 << 20),
        pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
    )
    opening = {"quantity": Limit.ORDERS, "target_lo": 1, "target_hi": 1 << 30}
    pair.do(
        *[pack(CommandKind.OPEN_ACCOUNT, account=n, instrument=n, **opening) for n in ACCOUNTS],
        *[pack(CommandKind.DEPOSIT, account=n, price=1 << 50) for n in ACCOUNTS],
    )
    for account in ACCOUNTS:
        event = EVENT.unpack_from(pair.do(pack(CommandKind.LOGON, account=account)))
        assert event[2] == EventKind.SESSION_OPENED
        pair.sessions[account] = event[7]
    return pair


class Crowd:
    """Seeded commands about ids that belong into some buckets, with some tags."""

    def __init__(self, seed: int, sessions: Mapping[int, int], buckets: range, tags: int) -> None:
        self.random, self.sessions = Random(seed), sessions
        self.buckets, self.tags = buckets, tags
        self.known: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def new(self, account: int) -> tuple[int, int]:
        bucket = self.random.choice(self.buckets) % BUCKETS
        low = key(account, bucket, self.random.randrange(self.tags))
        self.known[account].append((low, len(self.known[account])))
        return self.known[account][-1]

    def some(self, account: int) -> tuple[int, int]:
        """An id of the account, mostly one that is remembered."""
        ids = self.known[account]
        if not ids or self.random.random() < 0.05:
            return self.new(account)
        return self.random.choice(ids if self.random.random() < 0.1 else ids[-WINDOW - 20 :])

    def command(self) -> bytes:
        draw, account = self.random.random(), self.random.choice(ACCOUNTS)
        own = {"account": account, "session": self.sessions[account]}
        price, side = self.random.randint(1, 10), self.random.randrange(2)
        if draw < 0.6:
            low, high = self.new(account) if draw < 0.5 else self.some(account)
            form = {"side": side, "tif": self.random.choice((GTC, GTC, GTC, IOC))}
            named = {"key_lo": low, "key_hi": high}
            return pack(CommandKind.ENTER, price=price, quantity=2, **form, **named, **own)
        low, high = self.some(account)
        own |= {"target_lo": low, "target_hi": high, "side": 2, "flags": BY_ID}
        if draw < 0.85:
            return pack(CommandKind.CANCEL, **own)
        if draw < 0.9:
            return pack(CommandKind.REDUCE, quantity=1, **own)
        own["flags"] |= NEW_ID
        low, high = self.new(account)
        return pack(CommandKind.REPLACE, price=price, quantity=3, key_lo=low, key_hi=high, **own)


def test_the_factors_are_the_engines() -> None:
    for number in (FACTOR, OF_ACCOUNT):
        assert f"0x{number:X}" in (SOURCES / "ids.pxd").read_text()
    assert "BUCKETS = 1 << 14" in (SOURCES / "state.pyx").read_text()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    seed=st.integers(0, 1 << 32),
    first=st.sampled_from((BUCKETS - 2, BUCKETS - 60, 5)),
    buckets=st.sampled_from((1, 3, 70)),
    tags=st.sampled_from((1, 3, 1 << 16)),
    size=st.sampled_from((1, 7, 64, 500)),
)
def test_crowded_ids_are_told_apart(
    seed: int, first: int, buckets: int, tags: int, size: int
) -> None:
    pair = opened()
    crowd = Crowd(seed, pair.sessions, range(first, first + buckets), tags)
    for turn in range(2400 // size + 3):
        pair.do(*[crowd.command() for _ in range(size)])
        if turn in (1, 800 // size):
            image = pair.engine.snapshot()
            pair.engine = Engine()
            pair.engine.restore(image)
        if turn % 8 == 0:
            pair.check()
    pair.check()


class Alone:
    """The engine without the oracle, which would take minutes for so many orders."""

    def __init__(self) -> None:
        pair = opened()
        self.engine, self.sequence = pair.engine, pair.sequence
        self.own = {"account": 1, "session": pair.sessions[1]}
        self.other = {"account": 2, "session": pair.sessions[2]}

    def do(self, kind: CommandKind, count: int, **fields: object) -> set[int]:
        """So many commands, a field being one number or an array; the kinds of their events."""
        batch = np.zeros(count, COMMAND_ROWS)
        batch["kind"] = kind
        for name, values in fields.items():
            batch[name] = values
        told: set[int] = set()
        for start in range(0, count, Limit.BATCH_COMMANDS):
            part = batch[start : start + Limit.BATCH_COMMANDS]
            events = self.engine.apply(part.tobytes(), self.sequence, STAMP)
            self.sequence += len(part)
            told |= {event[2] for event in EVENT.iter_unpack(events)}
        return told

    def cancel(self, lows: object, highs: object, count: int = 1) -> set[int]:
        named = {"side": 2, "flags": BY_ID, "target_lo": lows, "target_hi": highs}
        return self.do(CommandKind.CANCEL, count, **named, **self.own)


ACCEPTED, GONE, REJECTED = (
    {kind} for kind in (EventKind.ORDER_ACCEPTED, EventKind.ORDER_CANCELLED, EventKind.REJECTED)
)


def test_crowded_ids_are_found_when_the_table_has_grown() -> None:
    """Remembered ones, and orders that have outlived their window; tag 0 is stored as 1."""
    alone, many = Alone(), WINDOW + 60
    lows = [key(1, BUCKETS - 2 + n % 3, n % 2) for n in range(many)]
    named = {"price": 1, "quantity": 1, "key_lo": lows, "key_hi": np.arange(many)}
    assert alone.do(CommandKind.ENTER, many, **named, **alone.own) == ACCEPTED
    alone.engine.check()
    before = alone.engine.memory()["ids"]
    fields = {"price": 1, "quantity": 1, "key_lo": np.arange(1, ROOM + 1)}
    assert alone.do(CommandKind.ENTER, ROOM, **fields, **alone.other) == ACCEPTED
    assert alone.engine.memory()["ids"] == 2 * before
    alone.engine.check()
    assert alone.cancel(lows[0], 1 << 40) == REJECTED
    assert alone.cancel(lows, named["key_hi"], many) == GONE
    assert alone.cancel(lows, named["key_hi"], many) == REJECTED
    alone.engine.check()


@pytest.mark.parametrize("stay", [1, 3, 1 << 14])
def test_every_bucket_was_passed(stay: int) -> None:
    """Nine ids belong into each bucket, one after another round the table, so that some are put
    behind each. The last of every ``stay`` buckets' orders stay in the book; a search for an
    unknown id goes round, and corrects what the others left."""
    alone, count = Alone(), 9 * BUCKETS
    lows = np.array([key(1, bucket, 9) for bucket in range(BUCKETS)], "u8")
    highs = np.arange(count)
    times = np.where(highs % (9 * stay) == 8, GTC, IOC)  # IOC finds nothing, and is remembered
    form = {"price": 1, "quantity": 1, "tif": times, "key_lo": np.repeat(lows, 9), "key_hi": highs}
    assert alone.do(CommandKind.ENTER, count, **form, **alone.own) == ACCEPTED | GONE
    alone.engine.check()
    image, sequence = alone.engine.snapshot(), alone.sequence
    for home in range(70, 84):
        alone.engine, alone.sequence = Engine(), sequence
        alone.engine.restore(image)
        unknown = key(1, home, 5)
        assert alone.cancel(unknown, 1 << 40) == REJECTED
        alone.engine.check()
        named = {"price": 1, "quantity": 1, "key_lo": unknown, "key_hi": 1 << 40}
        assert alone.do(CommandKind.ENTER, 2, **named, **alone.own) == ACCEPTED  # and a duplicate
        assert alone.cancel(unknown, 1 << 40) == GONE
        assert alone.cancel(unknown, 1 << 40) == REJECTED
    resting = np.flatnonzero(times == GTC)
    assert alone.cancel(lows[resting // 9], highs[resting], len(resting)) == GONE
    alone.engine.check()
    assert alone.engine.counts()["orders"] == 0
