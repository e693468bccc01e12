"""The log as one table: a row for every command and every event, as ``--export`` writes it.

Columns carry the records' own fields under their own names; numbers of kinds and reasons become
names. A field that a kind of record does not have is None. docs/reference/export.md is the page.
"""

from typing import Any, Final, NamedTuple

from exchange.history.picture import Picture
from exchange.history.records import TRADE, command_column, event_column, kinds_of
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
    Reason,
    SelfTrade,
    Side,
    TimeInForce,
)

SCHEMA: Final = 1  # of the export; its History is in the page
_KEY_AT: Final = 48  # of the 16 bytes of a key, in commands and events alike
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
    """A reason's name by (event kind, reason); the number where the kind keeps something else."""
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
_ORDERS: Final = frozenset({CommandKind.ENTER, *_TARGET})


def rows(frame: Frame, events: bytes, picture: Picture) -> Columns:
    """The rows of a batch as columns: its commands, then their events, each in order.

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
            "quantity", "operator", "stp", "target_lo", "target_hi",
        )
    }  # fmt: skip
    kinds = column["kind"]
    codes = _codes(picture)
    sequences = list(range(opening.first_sequence, opening.first_sequence + count))
    entered = [kind in _ORDERS for kind in kinds]
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
            codes[n] if _has_code(k) else None
            for n, k in zip(column["instrument"], kinds, strict=True)
        ],
        column["instrument"],
        column["account"],
        column["session"],
        [_SIDES[v] if e else None for v, e in zip(column["side"], entered, strict=True)],
        [_TIFS[v] if k == 1 else str(v) for v, k in zip(column["tif"], kinds, strict=True)],
        [_STPS[v] if e else None for v, e in zip(column["stp"], entered, strict=True)],
        column["operator"],
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


def _has_code(kind: int) -> bool:
    return kind == CommandKind.ENTER or CommandKind.LIST <= kind <= CommandKind.EXPIRE


def _codes(picture: Picture) -> Names:
    return Names(picture.code)


def _keys(data: bytes, size: int) -> list[Any]:
    return [data[at : at + 16].hex() for at in range(_KEY_AT, len(data), size)]


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
    trades = [kind == TRADE for kind in kinds]
    traded: Columns = []
    for name in ("maker_order_id", "maker_account", "maker_leaves"):
        values = column[name]
        traded.append([v if t else None for v, t in zip(values, trades, strict=True)])
    order = [kind < EventKind.SESSION_OPENED for kind in kinds]
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
            codes[n] if o or EventKind.INSTRUMENT_LISTED <= k < EventKind.ACCOUNT_OPENED else None
            for n, k, o in zip(column["instrument"], kinds, order, strict=True)
        ],
        column["instrument"],
        column["account"],
        none,
        [
            ("SELL" if flags & sell else "BUY") if o else None
            for flags, o in zip(column["flags"], order, strict=True)
        ],
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
