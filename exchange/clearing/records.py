"""Records: requests that only clearing can decide, as the text of a RECORD command.

A record is a JSON object tagged ``operation``. The engine passes it on as a RECORDED event without
reading it; the matter that names its type (``exchange.clearing.matters``) rules on it. Amounts are
integer micro-dollars, prices clearing units, dates yyyymmdd, times nanoseconds of log time. The
records are described in docs/reference/clearing.md.
"""

import re
from functools import cache
from typing import Final

import msgspec

DEPTH_MAX: Final = 64  # levels of arrays and objects in a record's text
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[][{}]")


class Record(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", forbid_unknown_fields=True
):
    """The base of all records: the tag ``operation``, and a nonce that makes each text unique."""

    nonce: str = ""


class Malformed(msgspec.Struct, frozen=True):
    """A record of a known operation whose text cannot be read."""

    operation: str
    why: str


class ByTwo(Record, frozen=True, kw_only=True):
    """A record that takes two people, named by their keys; without both it is FOUR_EYES."""

    proposed_by: str = ""
    approved_by: str = ""


class SetPrice(ByTwo, frozen=True, kw_only=True, tag="set_price"):
    """A settlement price that replaces the computed one at the next settlement."""

    instrument: int
    business_date: int
    price: int
    reason: str
    correction: bool = False  # the date is settled already


class _Tag(msgspec.Struct):
    operation: str = ""


@cache
def kinds() -> dict[str, type[Record]]:
    """Return every type of record by its operation."""
    found = [*Record.__subclasses__(), *ByTwo.__subclasses__()]
    return {str(kind.__struct_config__.tag): kind for kind in found if kind is not ByTwo}


def too_deep(text: str) -> bool:
    """Return whether a text nests more than DEPTH_MAX levels.

    How deep a decoder gets depends on its caller's stack; a ruling must not.
    """
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return False
    level = most = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        level += 1 if bracket in "[{" else -1
        most = max(most, level)
    return most > DEPTH_MAX


def read(text: str) -> Record | Malformed | None:
    """Return the record in a RECORD command's text; None if clearing does not rule on it: it is not
    JSON, of another operation, or nested more than DEPTH_MAX levels."""
    if too_deep(text):
        return None
    try:
        operation = msgspec.json.decode(text, type=_Tag).operation
    except msgspec.DecodeError:
        return None
    kind = kinds().get(operation)
    if kind is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        return Malformed(operation, str(error))


def takes_two(operation: str) -> bool:
    """Return whether records of an operation take two people."""
    return issubclass(kinds().get(operation, Record), ByTwo)


def write(record: Record) -> str:
    """Return the text of a record."""
    return msgspec.json.encode(record).decode()
