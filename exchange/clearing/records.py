"""Records: what only clearing can judge, as the text of a RECORD command.

A record is a JSON object tagged ``operation``. The engine passes it on as a RECORDED event without
reading it; the matter that names its type (``exchange.clearing.matters``) rules on it. Amounts are
integer micro-dollars, prices clearing units, dates yyyymmdd, times nanoseconds of log time.
"""

from functools import cache

import msgspec


class Record(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="operation", forbid_unknown_fields=True
):
    """What every record has: the tag ``operation``, and a nonce that makes each text unique."""

    nonce: str = ""


class Malformed(msgspec.Struct, frozen=True):
    """A record of a known operation whose text cannot be read."""

    operation: str
    why: str


class ProposePrice(Record, frozen=True, kw_only=True, tag="propose_price"):
    """A person proposes a settlement price in place of the computed one; another must approve."""

    instrument: int
    business_date: int
    cycle: int = 1
    price: int
    person: str
    reason: str
    correction: bool = False  # of a date that is settled already


class ApprovePrice(Record, frozen=True, kw_only=True, tag="approve_price"):
    """A second person approves the proposal that the event ``proposal`` (a number) recorded."""

    proposal: int
    person: str


class _Tag(msgspec.Struct):
    operation: str = ""


@cache
def kinds() -> dict[str, type[Record]]:
    """Every type of record by its operation; a matter's own file may define its records."""
    return {str(kind.__struct_config__.tag): kind for kind in Record.__subclasses__()}


def read(text: str) -> Record | Malformed | None:
    """The record in a RECORD command's text; None if it is not one that clearing judges."""
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


def write(record: Record) -> str:
    """The text of a record."""
    return msgspec.json.encode(record).decode()
