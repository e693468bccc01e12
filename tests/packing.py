"""Command records from their fields, as the tests write them."""

from typing import Final

from exchange.messages import COMMAND, COMMAND_FIELDS

MASK: Final = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFFFFFF, "Q": (1 << 64) - 1}


def pack(kind: int, **fields: int) -> bytes:
    """One command record; a negative target is written as its two's complement."""
    values = [kind, *(fields.get(name, 0) for name in COMMAND_FIELDS[1:])]
    for index in (12, 13):
        values[index] &= MASK["Q"]
    return COMMAND.pack(*values)
