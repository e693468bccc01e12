"""Access to the fields of command and event records, one record or all at once.

A column is a strided view of the records' bytes: reading one field of a million records creates no
object per record. The views use the machine's byte order, as the engine's records do; the log is
little-endian, as is every machine that the engine is built for.
"""

import sys
from struct import Struct as Layout
from typing import Final

from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    EVENT_BYTES,
    EVENT_FIELDS,
    TRADE_FIELDS,
    Command,
    CommandKind,
    EventKind,
    KillScope,
    Selection,
)

assert sys.byteorder == "little", "the records' views need a little-endian machine"

Place = tuple[str, int]  # type code and offset in bytes


def _places(layout: Layout, names: tuple[str, ...]) -> dict[str, Place]:
    places, offset = {}, 0
    for name, code in zip(names, layout.format.lstrip("<"), strict=True):
        places[name] = (code, offset)
        offset += Layout(f"<{code}").size
    return places


COMMAND_PLACES: Final = _places(COMMAND, COMMAND_FIELDS)
# A trade's fields by their own names as well; its `key_hi` is the maker's account and leaves.
EVENT_PLACES: Final = _places(EVENT, EVENT_FIELDS) | {
    "maker_order_id": ("Q", 48),
    "maker_account": ("I", 56),
    "maker_leaves": ("I", 60),
    "cash": ("q", 64),
    "maker_cash": ("q", 72),
}
TRADE: Final = int(EventKind.TRADE)
# Events laid out as a trade, with an account on each side.
CORRECTIONS: Final = frozenset({int(EventKind.TRADE_BUSTED), int(EventKind.TRADE_ADJUSTED)})
LEGS: Final = frozenset(
    map(
        int,
        (
            EventKind.LEG_TRADE,
            EventKind.LEG_BUSTED,
            EventKind.LEG_ADJUSTED,
            EventKind.LEG_STATED,
        ),
    )
)
RESIDUALS: Final = frozenset(map(int, (EventKind.RESIDUAL_POSTED, EventKind.RESIDUAL_CORRECTED)))
# Events of stops and icebergs: each is of one order, as those before SESSION_OPENED are.
SPECIAL: Final = frozenset(
    map(int, (EventKind.ORDER_WAITING, EventKind.ORDER_ELECTED, EventKind.ORDER_REFILLED))
)
TRANSFERRED: Final = int(EventKind.LOTS_TRANSFERRED)  # the other account in ``order_id``
TWO_SIDED: Final = CORRECTIONS | LEGS | RESIDUALS | {TRADE}


_ORDERS: Final = {k for k in EventKind if k < EventKind.SESSION_OPENED}
_BOTH: Final = (
    _ORDERS | SPECIAL | TWO_SIDED | {
        EventKind.QUOTED, EventKind.MASS_CANCELLED, EventKind.POSITION_SETTLED,
        EventKind.ACCOUNTABILITY_PASSED, EventKind.ORDER_EXECUTED, TRANSFERRED,
    }
)  # fmt: skip
# Kinds whose instrument or account field holds one; in other kinds it holds something else.
OF_INSTRUMENT: Final = frozenset(map(int, _BOTH)) | {
    int(k) for k in EventKind
    if EventKind.INSTRUMENT_LISTED <= k < EventKind.ACCOUNT_OPENED
    or EventKind.AUCTION_UNCROSSED <= k <= EventKind.LEVEL_TAKEN
    or EventKind.PROTECTIONS_CHANGED <= k <= EventKind.BREAKER_CHANGED
    or k in (EventKind.LEG_LISTED, EventKind.IMPLIED_CHANGED)
}  # fmt: skip
OF_ACCOUNT: Final = frozenset(map(int, _BOTH)) | {
    int(k) for k in EventKind
    if EventKind.SESSION_OPENED <= k <= EventKind.SESSION_ENDED
    or EventKind.KILLED <= k <= EventKind.PROTECTION_CHANGED
    or EventKind.ACCOUNT_OPENED <= k <= EventKind.DEFICIT_ENDED
    or k in (EventKind.RECORDED, EventKind.LOSS_LIMIT_REACHED)
}  # fmt: skip
_WISHED_OF_BOTH: Final = (
    CommandKind.ENTER, CommandKind.MASS_CANCEL, CommandKind.MASS_QUOTE, CommandKind.BUST,
    CommandKind.ADJUST, CommandKind.TRANSFER,
)  # fmt: skip
COMMANDS_OF_INSTRUMENT: Final = frozenset(map(int, _WISHED_OF_BOTH)) | {
    int(k) for k in CommandKind
    if CommandKind.LIST <= k <= CommandKind.EXPIRE
    or k in (CommandKind.INDICATE, CommandKind.SET_PROTECTIONS, CommandKind.SET_BREAKER,
             CommandKind.LIST_COMBINATION, CommandKind.SET_IMPLIED)
}  # fmt: skip
COMMANDS_OF_ACCOUNT: Final = frozenset(map(int, _WISHED_OF_BOTH)) | {
    int(k) for k in CommandKind
    if k <= CommandKind.LOGOFF
    or CommandKind.OPEN_ACCOUNT <= k <= CommandKind.SET_ACCOUNT
    or k == CommandKind.RECORD
}  # fmt: skip
_KILLS: Final = (EventKind.KILLED, EventKind.RESUMED)
_KILLING: Final = (CommandKind.KILL, CommandKind.RESUME)
_WHOSE: Final = (KillScope.ACCOUNT, KillScope.SESSION)
_REJECTED, _MASS_CANCELLED = int(EventKind.REJECTED), int(EventKind.MASS_CANCELLED)
_MASS_CANCEL: Final = int(CommandKind.MASS_CANCEL)

EventRow = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]


def _column(data: bytes, place: Place, size: int) -> "memoryview[int]":
    code, offset = place
    width = Layout(code).size
    view: memoryview[int] = memoryview(data).cast(code)  # type: ignore[call-overload]
    return view[offset // width :: size // width]


def event_column(events: bytes, field: str) -> "memoryview[int]":
    """Return a field of every event, in order. KeyError: no such field."""
    return _column(events, EVENT_PLACES[field], EVENT_BYTES)


def command_column(commands: bytes, field: str) -> "memoryview[int]":
    """Return a field of every command, in order. KeyError: no such field."""
    return _column(commands, COMMAND_PLACES[field], COMMAND_BYTES)


def kinds_of(events: bytes) -> bytes:
    """Return the kind of every event, one byte each."""
    return events[EVENT_PLACES["kind"][1] :: EVENT_BYTES]


def where(data: bytes, needle: int, size: int, *places: Place) -> list[int]:
    """Return the numbers of the ``size``-byte records with ``needle`` in one of the 64-bit fields,
    ascending.

    The raw bytes are searched first, since most batches do not contain it at all.
    """
    if needle.to_bytes(8, "little") not in data:
        return []
    numbers: set[int] = set()
    for place in places:
        values, at = _column(data, place, size).tolist(), -1
        for _ in range(values.count(needle)):
            at = values.index(needle, at + 1)
            numbers.add(at)
    return sorted(numbers)


def event_row(events: bytes, number: int) -> EventRow:
    """Return event ``number``, in the order of EVENT_FIELDS."""
    row: EventRow = EVENT.unpack_from(events, number * EVENT_BYTES)
    return row


def command_at(commands: bytes, number: int) -> Command:
    """Return command ``number`` as a Command."""
    row = COMMAND.unpack_from(commands, number * COMMAND_BYTES)
    return Command(**dict(zip(COMMAND_FIELDS, row, strict=True)))


def names_instrument(row: EventRow, wish: int, tif: int) -> bool:
    """Whether an event's instrument field holds one; ``wish`` and ``tif`` are the kind and ``tif``
    of its command."""
    kind = row[2]
    if kind == _MASS_CANCELLED or (kind == _REJECTED and wish == _MASS_CANCEL):
        return bool(tif & Selection.INSTRUMENT)
    return kind in OF_INSTRUMENT and (kind != _REJECTED or wish in COMMANDS_OF_INSTRUMENT)


def names_account(row: EventRow, wish: int, tif: int) -> bool:
    """Whether an event's account field holds one; arguments as for ``names_instrument``."""
    kind = row[2]
    if kind in _KILLS or (kind == _REJECTED and wish in _KILLING):
        return tif in _WHOSE
    return kind in OF_ACCOUNT and (kind != _REJECTED or wish in COMMANDS_OF_ACCOUNT)


def event_fields(row: EventRow, data: bytes, number: int) -> dict[str, int]:
    """Return the event's fields by the names they have for its kind."""
    if row[2] not in TWO_SIDED:
        return dict(zip(EVENT_FIELDS, row, strict=True))
    places = {name: EVENT_PLACES[name] for name in TRADE_FIELDS}
    at = number * EVENT_BYTES
    return {
        name: Layout(f"<{code}").unpack_from(data, at + offset)[0]
        for name, (code, offset) in places.items()
    }
