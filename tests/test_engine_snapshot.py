"""The engine's memory image: an engine restored from one cannot be told from the one it was taken
of, and bytes that are no image are refused by name.
"""

from collections.abc import Mapping
from random import Random

import pytest
from generator import EXPIRING, MIXED, Generator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.engine import Engine
from exchange.messages import COMMAND_BYTES

# Budget: 10 seconds on one core.
EXAMPLES = 30
HEADER_BYTES = 32
FLIPS = 150


def restored(image: bytes | bytearray | memoryview) -> Engine:
    engine = Engine()
    engine.restore(image)
    return engine


def grown(seed: int = 1, batches: int = 40, weights: Mapping[str, int] = MIXED) -> Engine:
    """An engine in the middle of a market."""
    generator, engine, sequence = Generator(seed, weights), Engine(), 1
    batch = generator.opening()
    for _ in range(batches):
        generator.learn(engine.apply(batch, sequence, generator.stamp))
        sequence += len(batch) // COMMAND_BYTES
        batch = generator.batch(64)
    return engine


drawn_weights = st.one_of(
    st.sampled_from((MIXED, EXPIRING)),
    st.fixed_dictionaries({name: st.integers(0, 20) for name in MIXED}),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    seed=st.integers(0, 1 << 32),
    weights=drawn_weights,
    size=st.sampled_from((1, 7, 64, 500)),
    before=st.integers(0, 25),
)
def test_a_restored_engine_goes_on_as_the_one_it_was_taken_of(
    seed: int, weights: Mapping[str, int], size: int, before: int
) -> None:
    generator, engine = Generator(seed, weights), Engine()
    other, sequence, batch = Engine(), 1, generator.opening()
    for number in range(before + 25):
        if number == before:
            image = engine.snapshot()
            other = restored(image)
            other.check()
            assert other.snapshot() == image
            assert other.state_bytes() == engine.state_bytes()
            assert other.next_deadline() == engine.next_deadline()
            assert other.counts() == engine.counts()
        events = engine.apply(batch, sequence, generator.stamp)
        if number >= before:
            assert other.apply(batch, sequence, generator.stamp) == events
        generator.learn(events)
        sequence += len(batch) // COMMAND_BYTES
        batch = generator.batch(size)
    other.check()
    assert other.state_bytes() == engine.state_bytes()
    assert other.snapshot() == engine.snapshot()


def test_an_image_is_the_same_wherever_its_engine_lies() -> None:
    """A pointer in it, or memory that nobody has written, would differ."""
    for seed in range(5):
        engines = [grown(seed) for _ in range(3)]
        assert len({engine.snapshot() for engine in engines}) == 1


def test_an_empty_engine_has_an_image() -> None:
    engine = restored(Engine().snapshot())
    assert engine.state_bytes() == Engine().state_bytes()
    engine.check()


def test_an_image_may_lie_at_an_odd_place() -> None:
    image = grown().snapshot()
    assert restored(memoryview(b"x" + image)[1:]).snapshot() == image


def test_a_refused_image_changes_nothing() -> None:
    engine = grown()
    image = engine.snapshot()
    with pytest.raises(ValueError, match="no engine image"):
        engine.restore(image[:-8])
    assert engine.snapshot() == image


def test_another_layout_is_named() -> None:
    image = bytearray(Engine().snapshot())
    image[8] ^= 1
    with pytest.raises(ValueError, match="another layout"):
        Engine().restore(image)


def test_every_length_but_the_right_one_is_refused() -> None:
    image = grown(batches=3).snapshot()
    for size in [*range(HEADER_BYTES + 64), *range(HEADER_BYTES + 64, len(image), 4_097)]:
        with pytest.raises(ValueError, match="no engine image"):
            Engine().restore(image[:size])
    with pytest.raises(ValueError, match="no engine image"):
        Engine().restore(image + bytes(8))


@pytest.mark.parametrize("seed, weights", [(0, MIXED), (1, MIXED), (2, EXPIRING)])
def test_whatever_bit_is_wrong_nothing_is_read_outside(
    seed: int, weights: Mapping[str, int]
) -> None:
    """The file's checksum tells that a bit is wrong; here it must only do no harm, and be told
    by the self-check or the state's hash if it is of any meaning.
    """
    draw, engine = Random(seed), grown(seed, weights=weights)
    image = engine.snapshot()
    meaning = [at for at in range(HEADER_BYTES, len(image)) if image[at]]
    refused = told = 0
    for at in [*range(16), *(draw.choice(meaning) for _ in range(FLIPS))]:
        wrong = bytearray(image)
        wrong[at] ^= 1 << draw.randrange(8)
        try:
            other = restored(wrong)
        except ValueError:
            refused += 1
            continue
        told += other.state_bytes() != engine.state_bytes()
    assert refused > FLIPS / 20
    assert told > FLIPS / 3
