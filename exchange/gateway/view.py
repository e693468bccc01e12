"""The gateway's state at a position of the released stream, and its form as bytes.

A projection: a function of the released stream, rebuilt from its beginning if there are no bytes.
``pack`` and ``unpack`` are inverse within one build, which ``sources`` identifies.
"""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from exchange.gateway import accounts as accounts_module
from exchange.gateway import buckets, deadlines, resume
from exchange.gateway.accounts import Account, Accounts, Holding, Terms, order_of
from exchange.gateway.buckets import Bucket
from exchange.gateway.deadlines import Deadlines, Switch, read_hold
from exchange.gateway.resume import Epochs, Place
from exchange.marketdata import book, depth, feed, instruments, prints, queues, statistics
from exchange.marketdata.depth import Depth
from exchange.marketdata.feed import Feed
from exchange.marketdata.statistics import Statistics
from exchange.marketdata.stream import Row
from exchange.messages import EVENT, EVENT_BYTES, EventKind, KillScope

START: Final[Place] = (0, 0, 0)
_KIND: Final = 12  # offset of the kind byte in an event
# Events that are not kept: those whose number grows with orders, sessions and money. All others,
# also of kinds added later, are kept for good.
_PASSING: Final = bytes(
    {
        *range(EventKind.ORDER_ACCEPTED, EventKind.SESSION_OPENED),
        EventKind.ORDER_WAITING,
        EventKind.ORDER_ELECTED,
        EventKind.ORDER_REFILLED,
        EventKind.SESSION_OPENED,
        EventKind.SESSION_LOST,
        EventKind.SESSION_ENDED,
        EventKind.TIME_ADVANCED,
        EventKind.MASS_CANCELLED,
        EventKind.PROTECTION_CHANGED,
        EventKind.QUOTED,
        EventKind.POSITION_SETTLED,
        EventKind.DEPOSITED,
        EventKind.WITHDRAWN,
        EventKind.FEE_CHARGED,
        EventKind.DEFICIT_STARTED,
        EventKind.DEFICIT_ENDED,
        EventKind.CHECKPOINTED,
        EventKind.AUCTION_UNCROSSED,
        EventKind.AUCTION_INDICATED,
        EventKind.LEVEL_TAKEN,
        EventKind.TRADE_BUSTED,
        EventKind.TRADE_ADJUSTED,
        EventKind.LEG_TRADE,
        EventKind.ORDER_EXECUTED,
        EventKind.RESIDUAL_POSTED,
        EventKind.LEG_BUSTED,
        EventKind.LEG_ADJUSTED,
        EventKind.RESIDUAL_CORRECTED,
        EventKind.LOTS_TRANSFERRED,
        EventKind.LEG_STATED,
        EventKind.ACCOUNTABILITY_PASSED,
    }
)
# Events that replace the earlier ones of their kind for an instrument: only the last is kept.
_LAST: Final = frozenset(
    {
        EventKind.LIMITS_CHANGED,
        EventKind.RISK_CHANGED,
        EventKind.STATE_CHANGED,
        EventKind.MARKED,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.PROTECTIONS_CHANGED,
        EventKind.BREAKER_CHANGED,
        EventKind.IMPLIED_CHANGED,
    }
)
_SWITCHED: Final = frozenset({EventKind.KILLED, EventKind.RESUMED})
_SESSION_ENDED: Final = int(EventKind.SESSION_ENDED)
# The records that the desk and the publishers read. All others are for clearing.
READ_RECORDS: Final = frozenset({"record_fixing", "record_factors", "propose", "approved"})
_ROOT: Final = Path(__file__).parents[2]
_MODULES: Final = (
    accounts_module, buckets, deadlines, resume, book, depth, feed, instruments, prints, queues,
    statistics,
)  # fmt: skip

Throttle = tuple[int, int, int]  # interval, burst, tat
Levels = list[tuple[int, int]]  # price in ticks, lots


class Recorded(msgspec.Struct):
    """The operation of a record's text."""

    operation: str = ""


class _Kept(NamedTuple):
    """An event that is kept, with its sequence, log time and its command's text."""

    event: bytes
    sequence: int
    stamp: int
    text: str | None


class _Packed(msgspec.Struct, array_like=True):
    """A View as plain data. ``orders`` are in the order of their acceptance."""

    position: Place
    time: int
    epochs: list[tuple[int, int]]
    events: bytes
    texts: list[tuple[int, str]]
    stamps: list[tuple[int, int]]
    # id, member, self-trade group, cash, killed, throttle, holdings
    accounts: list[tuple[int, int, int, int, int, Throttle, list[tuple[int, int, int]]]]
    stopped: list[int]
    orders: list[Terms]
    finished: list[int]
    depths: list[tuple[int, int, int, Levels, Levels]]  # instrument, sequence, sent, bids, asks
    # instrument, the next ranks, orders: id, side, price, rank, lots
    queues: list[tuple[int, int, int, list[tuple[int, int, int, int, int]]]]
    marked: list[tuple[str, int]]
    # instrument, open, last, trades, lots by price
    days: list[tuple[int, int | None, int | None, int, Levels]]
    counted: list[tuple[int, int]]  # instrument, sequence
    day_first: int
    switches: list[Switch]
    thrown: list[Switch]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_read_record = msgspec.json.Decoder(Recorded).decode


def sources() -> int:
    """Return a number that differs between builds that might pack or unpack a View differently."""
    names = [__name__, *(module.__name__ for module in _MODULES)]
    paths = [_ROOT.joinpath(*name.split(".")) for name in names]
    files = [path.with_suffix(kind) for path in paths for kind in (".py", ".pxd")]
    text = b"".join(file.read_bytes() for file in files if file.exists())
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


class View:
    """Instruments, depth, accounts, orders, switches and epochs.

    ``position`` is that of the last event applied.

    ``events`` and ``texts`` are those of the stream that are still needed: listings, openings,
    records, the last change of each kind per instrument, and the last throw of each kill switch
    that is on. They grow with the instruments and not with the days, nor with what clients ask
    for. ``stamps`` are the log times of these events, by sequence.
    """

    def __init__(self) -> None:
        self.position = START
        self.feed = Feed()
        self.accounts = Accounts(self.feed.instruments)
        self.epochs = Epochs()
        self.deadlines = Deadlines()
        self._kept: dict[tuple[int, ...], _Kept] = {}  # in the order of the stream

    @property
    def events(self) -> bytes:
        """The events kept, in order."""
        return b"".join(one.event for one in self._kept.values())

    @property
    def texts(self) -> dict[int, str]:
        """The texts of the kept events' commands, by sequence."""
        return {one.sequence: one.text for one in self._kept.values() if one.text is not None}

    @property
    def stamps(self) -> dict[int, int]:
        """The log times of the kept events in ns, by sequence."""
        return {one.sequence: one.stamp for one in self._kept.values()}

    def take(self, epoch: int, stamp: int, events: bytes, texts: Mapping[int, str]) -> None:
        """Apply one released batch, as the hub does without connections."""
        rows: list[Row] = list(EVENT.iter_unpack(events))
        if epoch != self.position[0]:
            self.epochs.note(epoch, rows[0][0])
        self.feed.apply(rows, stamp, texts, ())
        self.accounts.now = stamp
        apply, text_of = self.accounts.apply, texts.get
        for row in rows:
            apply(row, text_of(row[0]))
        self.deadlines.take(stamp, events, texts)
        self.position = (epoch, rows[-1][0], rows[-1][1])
        kinds = events[_KIND::EVENT_BYTES]
        if _SESSION_ENDED in kinds or kinds.translate(None, _PASSING):
            self._keep(rows, stamp, events, texts)

    def _keep(self, rows: list[Row], stamp: int, events: bytes, texts: Mapping[int, str]) -> None:
        for number, row in enumerate(rows):
            if row[2] == _SESSION_ENDED:  # its kill switch ends with it
                self._kept.pop(_switch(KillScope.SESSION, row), None)
            if row[2] in _PASSING:
                continue
            text = texts.get(row[0])
            if row[2] != EventKind.RECORDED or _is_read(row, text):
                event = events[number * EVENT_BYTES : (number + 1) * EVENT_BYTES]
                self._put(row, _Kept(event, row[0], stamp, text))

    def _put(self, row: Row, one: _Kept) -> None:
        """Keep an event, in place of the one that it replaces."""
        kind: int = row[2]
        name: tuple[int, ...] = (row[0], row[1])
        if kind in _SWITCHED:
            name = _switch(row[4], row)
            if kind == EventKind.RESUMED:
                self._kept.pop(name, None)
                return
        elif kind in _LAST:
            one = one._replace(text=None)  # it repeats what the event says
            name = (kind, row[5], row[4] if kind == EventKind.BREAKER_CHANGED else 0)
            if kind == EventKind.INSTRUMENT_SETTLED and name in self._kept:
                name = (*name, 1)  # the first one stays: its place orders the settlement prices
        self._kept.pop(name, None)
        self._kept[name] = one

    def depths(self) -> dict[int, Depth]:
        """Return a copy of the depth of every instrument that had orders."""
        return {
            number: _depth(one.sequence, one.bids(), one.asks())
            for number, one in self.feed.depths.items()
            if one.sequence
        }

    def pack(self) -> bytes:
        """Return the whole state as bytes."""
        accounts, sent, statistics = self.accounts, self.feed.sent, self.feed.statistics
        packed = _Packed(
            self.position,
            self.feed.time,
            self.epochs.first,
            self.events,
            list(self.texts.items()),
            list(self.stamps.items()),
            [
                (
                    number, one.member, one.group, one.cash, one.killed, _throttle(one),
                    _held(one),
                )
                for number, one in accounts.by_id.items()
            ],
            sorted(accounts.stopped),
            [order.terms() for order in accounts.orders.values()],
            [order.id for order in accounts.finished],
            [
                (number, one.sequence, sent.get(number, 0), one.bids(), one.asks())
                for number, one in self.feed.depths.items()
            ],
            [
                (number, one.next_rank, one.next_market_rank, list(one.orders()))
                for number, one in self.feed.queues.items()
            ],
            sorted(self.feed.marked.items()),
            [
                (number, day.open, day.last, day.trades, sorted(day.lots.items()))
                for number, day in sorted(statistics.days.items())
                if day.open is not None
            ],
            sorted(statistics.sequences.items()),
            statistics.first,
            sorted(self.deadlines),
            list(self.deadlines.thrown),
        )  # fmt: skip
        return _encode(packed)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> "View":
        """Return the View that was packed. Raises msgspec.MsgspecError for other bytes."""
        packed, view = _decode(data), cls()
        view.position, view.feed.time = packed.position, packed.time
        view.epochs.first = packed.epochs
        view.deadlines = Deadlines(packed.switches, packed.thrown)
        texts, stamps = dict(packed.texts), dict(packed.stamps)
        for number, row in enumerate(EVENT.iter_unpack(packed.events)):
            event = packed.events[number * EVENT_BYTES : (number + 1) * EVENT_BYTES]
            one = _Kept(event, row[0], stamps[row[0]], texts.get(row[0]))
            view.feed.learn(row, one.stamp, one.text)
            view._put(row, one)
        for number, sequence, sent, bids, asks in packed.depths:
            view.feed.depths[number].fill(sequence, bids, asks)
            if sent:
                view.feed.sent[number] = sent
        for number, rank, market_rank, orders in packed.queues:
            queue = view.feed.queues[number]
            queue.next_rank, queue.next_market_rank = rank, market_rank
            for order in orders:
                queue.stand(*order)
        view.feed.marked.update(packed.marked)
        _fill(view.accounts, packed)
        _count(view.feed.statistics, packed)
        return view


def _switch(scope: int, row: Row) -> tuple[int, ...]:
    """Return the name of a kill switch: its scope, account, session and member. Clients throw
    theirs as often as they like."""
    return int(EventKind.KILLED), scope, row[6], row[7], row[10]


def _is_read(row: Row, text: str | None) -> bool:
    """Whether a record is one of ``READ_RECORDS``; a dead man's switch is not."""
    if text is None or read_hold(row, text) is not None:
        return False
    try:
        return _read_record(text).operation in READ_RECORDS
    except msgspec.MsgspecError:
        return False


def _throttle(account: Account) -> Throttle:
    bucket = account.bucket
    return (bucket.interval, bucket.burst, bucket.tat)


def _held(account: Account) -> list[tuple[int, int, int]]:
    return [(number, one.net, one.cost) for number, one in account.holdings.items()]


def _fill(accounts: Accounts, packed: _Packed) -> None:
    by_id, orders = accounts.by_id, accounts.orders
    accounts.stopped = set(packed.stopped)
    accounts.now = packed.time
    for number, member, group, cash, killed, throttle, holdings in packed.accounts:
        account = by_id[number] = Account(member, Bucket(*throttle), group)
        account.cash, account.killed = cash, killed
        for instrument, net, cost in holdings:
            holding = account.holdings[instrument] = Holding()
            holding.net, holding.cost = net, cost
    ended = set(packed.finished)
    for terms in packed.orders:
        order = order_of(terms)
        order_id, account = order.id, by_id[order.account]
        orders[order_id] = order
        account.ids[order.text] = order_id
        if order_id not in ended:
            account.orders[order_id] = order
    accounts.finished.extend(orders[order_id] for order_id in packed.finished)


def _count(counted: Statistics, packed: _Packed) -> None:
    counted.first = packed.day_first
    counted.sequences.update(packed.counted)
    for number, opened, last, trades, lots in packed.days:
        day = counted.days[number]
        day.open, day.last, day.trades = opened, last, trades
        day.lots.update(dict(lots))
    for account, *_, holdings in packed.accounts:
        for instrument, net, _ in holdings:
            if net:
                counted.move(instrument, account, net)


def _depth(sequence: int, bids: Levels, asks: Levels) -> Depth:
    depth = Depth()
    depth.fill(sequence, bids, asks)
    return depth
