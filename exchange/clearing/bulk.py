"""Inserts many rows of a table in few steps of SQLite.

sqlite3 gives the interpreter lock up for every step and takes it back after it: with a step for
each row, booking trades took a fifth longer.
"""

import re
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Final

Value = int | str | bytes
AT_ONCE: Final = (128, 16)  # rows in one statement; those left over go one by one
_PARTS: Final = re.compile(r"(.* values )(\([?, ]+\))(.*)")


@cache
def _of_rows(statement: str, count: int) -> str:
    """Return the statement for ``count`` rows at once."""
    parts = _PARTS.fullmatch(statement)
    assert parts is not None, f"not an insert of one row: {statement}"
    opening, values, closing = parts.groups()
    return f"{opening}{', '.join([values] * count)}{closing}"


def insert(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Value, ...]]
) -> None:
    """Do a statement that inserts one row (``insert ... values (?, ...)``, with or without a
    clause after it) for all rows, in their order, inside the caller's transaction."""
    at = 0
    for count in AT_ONCE:
        while len(rows) - at >= count:
            values = list(chain.from_iterable(rows[at : at + count]))
            connection.execute(_of_rows(statement, count), values)
            at += count
    if at < len(rows):
        connection.executemany(statement, rows[at:])
