"""The bases of the native protocol's messages; see ``wire``."""

from typing import Literal, TypeAlias

import msgspec

SideText: TypeAlias = Literal["buy", "sell"]
Level: TypeAlias = tuple[str, str]  # price, quantity


class Request(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="op",
    forbid_unknown_fields=True,
    omit_defaults=True,
    repr_omit_defaults=True,
):
    """Base of every request: the tag ``op``. Fields with their default value may be left out."""


class Response(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    omit_defaults=True,
    repr_omit_defaults=True,
):
    """Base of every response: the tag ``type``."""


class LogEvent(Response, frozen=True, kw_only=True):
    """Base of the private messages of a log event: its position in the released stream and its
    stamp."""

    sequence: int
    index: int
    time: int


class InstrumentEvent(Response, frozen=True, kw_only=True):
    """Base of the public messages of an instrument's event, with the same fields."""

    instrument: str
    sequence: int
    index: int
    time: int


class Rejected(Response, frozen=True, kw_only=True, tag="rejected"):
    """A request was refused and changed nothing. Without ``sequence`` it did not reach the
    sequencer."""

    number: int
    name: str
    op: str | None = None
    client_order_id: str | None = None
    request_id: str | None = None
    order_id: str | None = None
    instrument: str | None = None
    field: str | None = None
    detail: str | None = None
    limit: str | None = None
    observed: str | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    sequence: int | None = None
    index: int | None = None
    time: int | None = None
    tokens: int | None = None  # as in ``accepted``
