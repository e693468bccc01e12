"""The released stream as its consumers see it, however it is transported.

A released frame's ``events`` unpack with ``messages.EVENT`` for every kind; the last two key fields
of a trade hold its resting side, which ``maker_of`` decodes.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

# One event in the order of messages.EVENT_FIELDS.
Row: TypeAlias = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, int
]  # fmt: skip


class Released(Protocol):
    """One released batch: its commands' events, in order, and the texts of its commands."""

    @property
    def epoch(self) -> int: ...
    @property
    def first_sequence(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def stamp(self) -> int: ...
    @property
    def events(self) -> bytes: ...
    @property
    def texts(self) -> Sequence[tuple[int, str]]: ...


def maker_of(key_hi: int) -> tuple[int, int]:
    """Return (account, leaves in lots) of a trade's resting side."""
    return key_hi & 0xFFFF_FFFF, key_hi >> 32


def signed(word: int) -> int:
    """Return a 64-bit word read as a signed number."""
    return word - (1 << 64) if word >> 63 else word
