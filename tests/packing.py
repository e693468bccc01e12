"""Command records from their fields, as the tests write them."""

from typing import Final

import numpy as np

from exchange.messages import COMMAND, COMMAND_FIELDS, EVENT_FIELDS

MASK: Final = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFFFFFF, "Q": (1 << 64) - 1}
# Many records at once, as rows of NumPy.
_COMMAND: Final = "u1 u1 u1 u1 u4 u4 u4 i8 u4 u2 u1 u1 u8 u8 u8 u8"
_EVENT: Final = "u8 u4 u1 u1 u2 u4 u4 u8 i8 u4 u4 u8 u8 i8 i8"
COMMAND_ROWS: Final = np.dtype(list(zip(COMMAND_FIELDS, _COMMAND.split(), strict=True)))
EVENT_ROWS: Final = np.dtype(list(zip(EVENT_FIELDS, _EVENT.split(), strict=True)))


def pack(kind: int, **fields: int) -> bytes:
    """One command record; a negative target is written as its two's complement."""
    values = [kind, *(fields.get(name, 0) for name in COMMAND_FIELDS[1:])]
    for index in (12, 13):
        values[index] &= MASK["Q"]
    return COMMAND.pack(*values)
