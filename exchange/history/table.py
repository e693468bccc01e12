"""The log as one table: a row for every command and every event, as ``--export`` writes it.

Columns are the records' own fields under their own names; kinds and reasons are given by name. A
field that a kind of record does not have is None. Description: docs/reference/export.md.
"""

from typing import Any, Final, NamedTuple

from exchange.history.picture import Picture
from exchange.history.records import (
    COMMANDS_OF_INSTRUMENT,
    OF_INSTRUMENT,
    SPECIAL,
    TRANSFERRED,
    TWO_SIDED,
    command_at,
    command_column,
    event_column,
    event_row,
    kinds_of,
    names_instrument,
)
from exchange.history.words import Names, member_name
from exchange.journal.frame import Frame, unpack_texts
from exchange.messages import (
    COMMAND_BYTES,
    EVENT_BYTES,
    CancelReason,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    HaltCause,
    OrderFeature,
    Reason,
    Selection,
    SelfTrade,
    Side,
    TimeInForce,
)

SCHEMA: Final = 2  # version of the export; its history is in the page
_KEY_AT: Final = 48  # offset of the 16 bytes of a key, in commands and events alike
_ENTER, _MASS_CANCEL, _MASS_QUOTE = (
    int(CommandKind.ENTER), int(CommandKind.MASS_CANCEL), int(CommandKind.MASS_QUOTE),
)  # fmt: skip
_TARGET: Final = frozenset({CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE})


class Column(NamedTuple):
    """A column of the table. ``type``: u8, u16, u32, u64, i64, name (one of a few) or text."""

    name: str
    type: str


COLUMNS: Final = (
    Column("record", "name"),
    Column("epoch", "u32"),
    Column("sequence", "u64"),
    Column("index", "u32"),
    Column("time_ns", "i64"),
    Column("ingress_ns", "u64"),
    Column("kind", "name"),
    Column("flags", "name"),
    Column("reason", "name"),
    Column("code", "name"),
    Column("instrument", "u32"),
    Column("account", "u32"),
    Column("session", "u32"),
    Column("side", "name"),
    Column("tif", "name"),
    Column("stp", "name"),
    Column("operator", "u16"),
    Column("spare", "name"),
    Column("order_id", "u64"),
    Column("price", "i64"),
    Column("quantity", "u32"),
    Column("leaves", "u32"),
    Column("key", "text"),
    Column("target_lo", "u64"),
    Column("target_hi", "u64"),
    Column("maker_order_id", "u64"),
    Column("maker_account", "u32"),
    Column("maker_leaves", "u32"),
    Column("a", "i64"),
    Column("b", "i64"),
    Column("text", "text"),
)
Columns = list[list[Any]]  # in the order of COLUMNS, all of one length


def _flags(kind: Any) -> Names:
    return Names(lambda value: "|".join(str(flag.name) for flag in kind(value)))


def _reason(pair: tuple[int, int]) -> str:
    """Return a reason's name for (event kind, reason); the number if the kind uses it otherwise."""
    kind, value = pair
    if kind == EventKind.REJECTED:
        return member_name(Reason, value)
    if kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
        return member_name(CancelReason, value)
    if kind == EventKind.STATE_CHANGED:
        return member_name(HaltCause, value)
    return str(value)


_COMMAND_KINDS: Final = Names.of(CommandKind)
_EVENT_KINDS: Final = Names.of(EventKind)
_COMMAND_FLAGS: Final = _flags(CommandFlag)
_EVENT_FLAGS: Final = _flags(EventFlag)
_REASONS: Final = Names(_reason)
_SIDES: Final = Names.of(Side)
_TIFS: Final = Names.of(TimeInForce)
_STPS: Final = Names.of(SelfTrade)
_FEATURES: Final = _flags(OrderFeature)
_SELF_TRADING: Final = frozenset({_ENTER, _MASS_QUOTE, *_TARGET})
_SIDED: Final = frozenset(
    {_ENTER, _MASS_CANCEL, CommandKind.BUST, CommandKind.ADJUST, CommandKind.TRANSFER, *_TARGET}
)
_ONE_SIDED: Final = SPECIAL | {EventKind.ORDER_EXECUTED, TRANSFERRED}
_UNSURE: Final = frozenset({EventKind.REJECTED, EventKind.MASS_CANCELLED})  # of an instrument


def rows(frame: Frame, events: bytes, picture: Picture) -> Columns:
    """Return the rows of a batch as columns: its commands, then its events, each in order.

    ``picture`` has taken the batch already.
    """
    commands = _commands(frame, picture)
    happened = _events(frame, events, picture)
    return [first + second for first, second in zip(commands, happened, strict=True)]


def _commands(frame: Frame, picture: Picture) -> Columns:
    opening, data = frame.opening, frame.commands
    count = opening.count
    none: list[Any] = [None] * count
    texts = dict(unpack_texts(frame.texts))
    column = {
        name: command_column(data, name).tolist()
        for name in (
            "kind", "side", "tif", "flags", "instrument", "account", "session", "price",
            "quantity", "operator", "stp", "spare", "target_lo", "target_hi",
        )
    }  # fmt: skip
    kinds = column["kind"]
    codes = _codes(picture)
    sequences = list(range(opening.first_sequence, opening.first_sequence + count))
    sided = [kind in _SIDED for kind in kinds]
    return [
        ["command"] * count,
        [opening.epoch] * count,
        sequences,
        none,
        [opening.stamp] * count,
        memoryview(frame.ingress).cast("Q").tolist(),
        [_COMMAND_KINDS[kind] for kind in kinds],
        [_COMMAND_FLAGS[flags] for flags in column["flags"]],
        none,
        [
            codes[n] if _has_code(k, t) else None
            for n, k, t in zip(column["instrument"], kinds, column["tif"], strict=True)
        ],
        column["instrument"],
        column["account"],
        column["session"],
        [_SIDES[v] if s else None for v, s in zip(column["side"], sided, strict=True)],
        [
            _TIFS[v] if k in (_ENTER, _MASS_QUOTE) else str(v)
            for v, k in zip(column["tif"], kinds, strict=True)
        ],
        [
            _STPS[v] if k in _SELF_TRADING else None
            for v, k in zip(column["stp"], kinds, strict=True)
        ],
        column["operator"],
        [
            _FEATURES[v] if k == _ENTER else str(v)
            for v, k in zip(column["spare"], kinds, strict=True)
        ],
        none,
        column["price"],
        column["quantity"],
        none,
        _keys(data, COMMAND_BYTES),
        column["target_lo"],
        column["target_hi"],
        none,
        none,
        none,
        none,
        none,
        [texts.get(sequence) for sequence in sequences] if texts else none,
    ]


def _has_code(kind: int, tif: int) -> bool:
    if kind == _MASS_CANCEL:
        return bool(tif & Selection.INSTRUMENT)
    return kind in COMMANDS_OF_INSTRUMENT


def _codes(picture: Picture) -> Names:
    return Names(picture.code)


def _keys(data: bytes, size: int) -> list[Any]:
    return [data[at : at + 16].hex() for at in range(_KEY_AT, len(data), size)]


def _is_sure(frame: Frame, events: bytes, number: int) -> bool:
    """Whether an event names an instrument, where this depends on its command."""
    row = event_row(events, number)
    command = command_at(frame.commands, row[0] - frame.opening.first_sequence)
    return names_instrument(row, command.kind, command.tif)


def _events(frame: Frame, events: bytes, picture: Picture) -> Columns:
    opening, count = frame.opening, len(events) // EVENT_BYTES
    none: list[Any] = [None] * count
    column = {
        name: event_column(events, name).tolist()
        for name in (
            "sequence", "index", "flags", "reason", "instrument", "account", "order_id", "price",
            "quantity", "leaves", "a", "b", "maker_order_id", "maker_account", "maker_leaves",
        )
    }  # fmt: skip
    kinds = kinds_of(events)
    codes = _codes(picture)
    trades = [kind in TWO_SIDED for kind in kinds]
    traded: Columns = []
    for name in ("maker_order_id", "maker_account", "maker_leaves"):
        values = column[name]
        traded.append([v if t else None for v, t in zip(values, trades, strict=True)])
    sided = [k < EventKind.SESSION_OPENED or k in TWO_SIDED or k in _ONE_SIDED for k in kinds]
    sell = int(EventFlag.SELL)
    return [
        ["event"] * count,
        [opening.epoch] * count,
        column["sequence"],
        column["index"],
        [opening.stamp] * count,
        none,
        [_EVENT_KINDS[kind] for kind in kinds],
        [_EVENT_FLAGS[flags] for flags in column["flags"]],
        [_REASONS[pair] for pair in zip(kinds, column["reason"], strict=True)],
        [
            codes[n]
            if k in OF_INSTRUMENT and (k not in _UNSURE or _is_sure(frame, events, at))
            else None
            for at, (n, k) in enumerate(zip(column["instrument"], kinds, strict=True))
        ],
        column["instrument"],
        column["account"],
        none,
        [
            ("SELL" if flags & sell else "BUY") if s else None
            for flags, s in zip(column["flags"], sided, strict=True)
        ],
        none,
        none,
        none,
        none,
        column["order_id"],
        column["price"],
        column["quantity"],
        column["leaves"],
        [None if t else key for t, key in zip(trades, _keys(events, EVENT_BYTES), strict=True)],
        none,
        none,
        *traded,
        column["a"],
        column["b"],
        none,
    ]
