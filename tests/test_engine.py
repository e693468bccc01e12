"""The compiled engine against the oracle: whole event bytes, views and invariants.

Rules: docs/reference/engine.md. ``make soak`` sets HOURBOOK_SOAK_SECONDS for a longer run.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from enum import EnumType
from hashlib import blake2b
from pathlib import Path
from random import Random
from struct import Struct

import pytest
from conftest import AGREED
from differences import Machine, Step, command_in_words, difference, first_difference, shrink
from generator import ACCOUNTS_MAX, EXPIRING, MIXED, Generator, pack
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as draws_from
from hypothesis import strategies as st
from oracle import Oracle

from exchange import messages
from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    EVENT_BYTES,
    SCHEMA_VERSION,
    CommandKind,
    EventKind,
)
from exchange.sim.flow import START_NS, fill_books, prepare

# Budget: 150 seconds for a million commands, most of them the oracle's.
SHARDS = 20
EXAMPLES_PER_SHARD = 10
COMMANDS_PER_EXAMPLE = 5_000
BATCHES_PER_LOOK = 5  # views and invariants are compared this often

BATCH_SIZES = (1, 7, 64, 500)
SOAK_SECONDS = float(os.environ.get("HOURBOOK_SOAK_SECONDS", "0"))


def compare_views(slow: Oracle, engine: Machine) -> None:
    """Every figure that the oracle can name is the engine's as well."""

    def same(expected: Mapping[str, int], found: Mapping[str, int]) -> None:
        assert expected == {name: found[name] for name in expected}

    engine.check()
    slow.check()
    assert engine.next_deadline() == slow.next_deadline()
    same(slow.counts(), engine.counts())
    for instrument in range(len(slow.market.instruments)):
        same(slow.instrument(instrument), engine.instrument(instrument))
        assert engine.book(instrument) == slow.book(instrument)
        assert engine.book(instrument, 2) == slow.book(instrument, 2)
        for account in range(ACCOUNTS_MAX + 1):
            same(slow.position(account, instrument), engine.position(account, instrument))
    for account in slow.market.accounts:
        same(slow.account(account), engine.account(account))


def report(steps: list[Step], words: str) -> str:
    """The first difference, and a short list of commands that leads to it."""
    short = shrink(steps, lambda some: bool(difference(some, Oracle(), Engine())))
    told = difference(short, Oracle(), Engine()) or words
    if len(short) > 60:
        return f"{words}\n(no short list of commands shows it)"
    lines = [f"  at {stamp}: {command_in_words(record[:64])}" for stamp, record in short]
    return "\n".join([told, "after:", *lines])


def run_both(seed: int, weights: Mapping[str, int], size: int, commands: int) -> int:
    """Drives oracle and engine with the same batches, compares everything; gives the commands."""
    generator, slow, fast = Generator(seed, weights), Oracle(), Engine()
    steps: list[Step] = []
    batch, sequence, number = generator.opening(), 1, 0
    while sequence <= commands:
        steps.append((generator.stamp, batch))
        expected = slow.apply(batch, sequence, generator.stamp)
        events = fast.apply(batch, sequence, generator.stamp)
        if events != expected:
            pytest.fail(report(steps, first_difference(batch, sequence, expected, events)))
        if number % BATCHES_PER_LOOK == 0 and (size > 1 or number % 100 == 0):
            compare_views(slow, fast)
        generator.learn(events)
        sequence += len(batch) // COMMAND_BYTES
        batch = generator.batch(size)
        number += 1
    compare_views(slow, fast)
    return sequence - 1


drawn_weights = st.one_of(
    st.just(MIXED),
    st.just(EXPIRING),
    st.fixed_dictionaries({name: st.integers(0, 20) for name in MIXED}),
    st.fixed_dictionaries(
        {**{name: st.just(weight) for name, weight in MIXED.items()}, "enter": st.integers(0, 2000)}
    ),
)


def walk(shard: int, agreed: list[int]) -> None:
    """What one shard draws: markets, each with its own mix; counts the commands that agreed."""

    @draws_from(shard)
    @settings(
        max_examples=EXAMPLES_PER_SHARD,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # `shrink` makes a market shorter; a smaller seed does not
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 1 << 32), weights=drawn_weights, size=st.sampled_from(BATCH_SIZES))
    def market(seed: int, weights: Mapping[str, int], size: int) -> None:
        agreed.append(run_both(seed, weights, size, COMMANDS_PER_EXAMPLE))

    market()


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_million_commands(shard: int, record_property: Callable[[str, object], None]) -> None:
    agreed: list[int] = []
    walk(shard, agreed)
    assert sum(agreed) * SHARDS >= 1_000_000
    record_property(AGREED, sum(agreed))


@pytest.mark.skipif(not SOAK_SECONDS, reason="HOURBOOK_SOAK_SECONDS is not set")
def test_soak(capsys: pytest.CaptureFixture[str]) -> None:
    """Other seeds each time; the one that fails is in the message."""
    random = Random(time.time_ns())
    end, commands = time.monotonic() + SOAK_SECONDS, 0
    while time.monotonic() < end:
        seed, size = random.getrandbits(32), random.choice(BATCH_SIZES)
        with capsys.disabled():
            print(f"seed {seed} size {size}", flush=True)
        run_both(seed, MIXED, size, 4 * COMMANDS_PER_EXAMPLE)
        commands += 4 * COMMANDS_PER_EXAMPLE
    with capsys.disabled():
        print(f"{commands} commands agreed")


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("seed", range(5))
def test_batches_do_not_matter(machine: type[Machine], seed: int) -> None:
    """The same commands under the same stamps, cut differently: the same events and state.

    A timer that becomes due within its own batch (grace 0) would fire at the next batch, so the
    stream here has none: sessions are left out.
    """
    weights = {**MIXED, "session": 0, "recovered": 0, "again": 0, "altered": 0, "wild": 0}
    generator, whole = Generator(seed, weights), machine()
    random = Random(seed)
    cut = machine()
    batch, sequence = generator.opening(), 1
    for _ in range(30):
        events = whole.apply(batch, sequence, generator.stamp)
        pieces, at = b"", 0
        while at < len(batch):
            end = at + random.randint(1, 40) * COMMAND_BYTES
            piece = batch[at:end]
            pieces += cut.apply(piece, sequence + at // COMMAND_BYTES, generator.stamp)
            at = end
        assert pieces == events
        assert cut.state_bytes() == whole.state_bytes()
        generator.learn(events)
        sequence += len(batch) // COMMAND_BYTES
        batch = generator.batch(64)


def test_state_tells_apart() -> None:
    """Engine and oracle agree on which commands changed the state and which did not."""
    generator, slow, fast = Generator(3), Oracle(), Engine()
    batch, sequence = generator.opening(), 1
    before = [b"", b""]
    for _ in range(500):
        generator.learn(slow.apply(batch, sequence, generator.stamp))
        fast.apply(batch, sequence, generator.stamp)
        sequence += len(batch) // COMMAND_BYTES
        after = [slow.state_bytes(), fast.state_bytes()]
        changed = [old != new for old, new in zip(before, after, strict=True)]
        assert changed[0] == changed[1], command_in_words(batch[:COMMAND_BYTES])
        before, batch = after, generator.batch(1)


def test_state_without_sequence_and_stamp() -> None:
    """Neither is part of the state: the same commands later give the same bytes.

    But for the sequence at which the day began: by it a correction is judged.
    """
    generator = Generator(11, {"enter": 1})
    batch = generator.opening()
    early, late = Engine(), Engine()
    early.apply(batch, 1, 5)
    late.apply(batch, 1000, 500)
    day_began = slice(120, 128)
    for buckets in (True, False):
        first, second = bytearray(early.state_bytes(buckets)), bytearray(late.state_bytes(buckets))
        began = [int.from_bytes(one[day_began], "little") for one in (first, second)]
        assert began[1] - began[0] == 999
        first[day_began] = second[day_began]
        assert first == second


def test_golden_digest_of_a_run() -> None:
    """The same log gives the same bytes, on any machine: the digest of one fixed run."""
    digests = []
    for machine in (Oracle(), Engine()):
        generator, digest = Generator(20261121), blake2b(digest_size=16)
        batch, sequence = generator.opening(), 1
        for _ in range(40):
            events = machine.apply(batch, sequence, generator.stamp)
            digest.update(events)
            generator.learn(events)
            sequence += len(batch) // COMMAND_BYTES
            batch = generator.batch(64)
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]


def test_the_generator_reaches_every_event() -> None:
    """A kind of event that random commands never cause would be compared by nobody."""
    # rules version 1 is the first: nothing can be upgraded yet
    expected, seen = set(EventKind) - {EventKind.UPGRADED}, set[int]()
    spreads = {**MIXED, "combine": 20, "imply": 20}  # what is implied seldom trades otherwise
    for seed in range(40):
        generator, machine, sequence = Generator(seed, (spreads, MIXED)[seed % 2]), Oracle(), 1
        batch = generator.opening()
        for _ in range(30):
            events = machine.apply(batch, sequence, generator.stamp)
            seen.update(event[2] for event in EVENT.iter_unpack(events))
            generator.learn(events)
            sequence += len(batch) // COMMAND_BYTES
            batch = generator.batch(64)
        if seen == expected:
            break
    assert seen == expected


@pytest.mark.parametrize("most", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_a_bound_that_binds_nobody_is_none(most: int) -> None:
    """Of an account's largest order: what no order can pass is no bound, in the views as well."""
    slow, fast = Oracle(), Engine()
    command = pack(CommandKind.SET_ACCOUNT, quantity=most)
    assert slow.apply(command, 1, 1) == fast.apply(command, 1, 1)
    compare_views(slow, fast)


def test_whole_records_only() -> None:
    for machine in (Oracle(), Engine()):
        with pytest.raises(ValueError, match="63 bytes"):
            machine.apply(bytes(63), 1, 1)
        assert machine.apply(b"", 1, 1) == b""


def test_a_buffer_with_gaps_is_refused_and_nothing_is_applied() -> None:
    wide = memoryview(bytes(2 * COMMAND_BYTES))
    engine, untouched = Engine(), Engine()
    with pytest.raises(BufferError):
        engine.apply(wide[::2], 1, 1)
    engine.check()
    assert engine.state_bytes() == untouched.state_bytes()
    assert engine.apply(wide, 1, 1) == untouched.apply(bytes(wide), 1, 1)


@pytest.mark.parametrize("size", [2, 17, 18, 60])
def test_plain_orders_have_room_behind_any_number_of_trades(size: int) -> None:
    """A batch asks for three events a command and some; whoever trades more makes room, and what
    comes next does not look for any."""
    record = Struct("<BBHIqQQ").pack
    new, replace, market = 1, 4, 6
    for trades in range(3 * size + 5, 3 * size + 16):
        asks = [record(new, 1, 0, 1, 200, 1_000 + k, 0) for k in range(trades)]
        bids = [record(new, 0, 0, 5, 100, 1 + k, 0) for k in range(size - 1)]
        moves = [record(replace, 0, 0, 5, 101, 1 + k, 500 + k) for k in range(size - 1)]
        taker = record(market, 0, 0, trades, 0, 9_999, 0)
        flow = prepare(b"".join([*asks, *bids, taker, *moves]), trades + size - 1)
        whole, cut = Engine(), Engine()
        sequence = fill_books(flow, whole)
        assert fill_books(flow, cut) == sequence
        (batch,) = flow.timed
        singles = (
            cut.apply(batch[at : at + COMMAND_BYTES], sequence + at // COMMAND_BYTES, START_NS)
            for at in range(0, len(batch), COMMAND_BYTES)
        )
        events = whole.apply(batch, sequence, START_NS)
        assert events == b"".join(singles)
        assert len(events) == (1 + trades + 2 * (size - 1)) * EVENT_BYTES
        assert whole.state_bytes() == cut.state_bytes()


def test_vocabulary_is_the_messages_vocabulary() -> None:
    """exchange/engine/vocabulary.pxd repeats every enumeration of messages, member by member.

    One that an int cannot hold has a negative member beside: since GCC 13 each member has the type
    of the whole, and if that were unsigned, -1 would be more than any limit.
    """
    source = Path(__file__).parents[1] / "exchange" / "engine" / "vocabulary.pxd"
    text = re.sub(r"#.*", "", source.read_text())
    found: dict[str, int] = {}
    for body in re.findall(r"cdef enum \w+:\n((?:[ \t]+.*\n|\s*\n)+)", text + "\n"):
        values = []
        for name, value in re.findall(r"(\w+)\s*=\s*(.+)", body):
            found[name] = int(eval(value.strip().rstrip(","), {"__builtins__": {}}, dict(found)))
            values.append(found[name])
        assert max(values) < 1 << 31 or min(values) < 0
    assert found.pop("LIMIT_SIGNED") == -1
    expected = {"VERSION_SCHEMA": SCHEMA_VERSION, "VERSION_RULES": messages.RULES_VERSION}
    for name in dir(messages):
        kind = getattr(messages, name)
        if isinstance(kind, EnumType) and kind.__module__ == messages.__name__:
            prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
            members: Mapping[str, int] = kind.__members__
            expected |= {f"{prefix}_{member}": int(v) for member, v in members.items()}
    assert found == expected
