"""A command's record as C packs it is what the layout says."""

from collections.abc import Callable
from random import Random

import pytest

from exchange.gateway.decode import RECORD
from exchange.gateway.records import pack_command

pack: Callable[..., bytes] = pack_command
WIDTHS = [8, 8, 8, 8, 32, 32, 32, 64, 32, 8, 8]  # bits of the figures; the price has a sign
PRICE = 7


def drawn(chance: Random) -> list[int]:
    """Figures, each at an end of its range half the time."""
    figures = [
        chance.choice(
            [0, (1 << bits) - 1, chance.randrange(1 << bits), chance.randrange(1 << bits)]
        )
        for bits in WIDTHS
    ]
    figures[PRICE] -= 1 << 63
    return figures


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_layouts(seed: int) -> None:
    chance = Random(seed)
    for _ in range(500):
        figures, target, key = drawn(chance), chance.randbytes(16), chance.randbytes(16)
        packed = pack(*figures, target, key)
        assert packed == RECORD.pack(*figures[:9], 0, *figures[9:], target, key)


@pytest.mark.parametrize("place", range(len(WIDTHS)))
def test_what_does_not_fit_is_refused(place: int) -> None:
    figures = [0] * len(WIDTHS)
    least = -1 << 63 if place == PRICE else 0
    for wrong in (least - 1, least + (1 << WIDTHS[place])):
        figures[place] = wrong
        with pytest.raises(OverflowError):
            pack(*figures, bytes(16), bytes(16))


@pytest.mark.parametrize("target, key", [(15, 16), (16, 17), (0, 16)])
def test_an_id_has_sixteen_bytes(target: int, key: int) -> None:
    with pytest.raises(ValueError):
        pack(*[0] * len(WIDTHS), bytes(target), bytes(key))
