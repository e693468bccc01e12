"""The native protocol's public market data messages; see ``wire``.

Channels are of two sorts. A picture (top of book, depth, queue, statistics) is complete as of its
``sequence``, names the message before it in ``previous_sequence`` and can be verified by its
``checksum``. Channels of single events (trades, states, settlement prices, fixings, factor tables)
send a ``mark`` after them, which does the same for all that one released batch had for the channel.
"""

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, TypeVar
from zlib import crc32

import msgspec

from exchange.messages.wire_auction import BreakerData
from exchange.messages.wire_base import InstrumentEvent, LogEvent, Request, Response, SideText
from exchange.messages.wire_base import Level as Level
from exchange.messages.wire_moves import CorrectionText

CHECKSUM_LEVELS: Final = 10  # a side's best levels, or orders, that a book's checksum covers
SNAPSHOT_ORDERS: Final = 4_096  # orders of a queue in one message; a longer queue is sent in parts
QUEUE_ORDERS: Final = 65_536  # longest queue that may be subscribed to
PICTURES: Final = 4_096  # pictures of limited levels or conflated, of all connections together
RESUME_MESSAGES: Final = 256  # messages of a channel, kept for resuming

DEPTH_TOPS: Final = (5, 10, 20, 50)  # numbers of best levels: ``depth.CODE.topN``
DEPTH_GROUPS: Final = (10, 100)  # ticks per level: ``depth.CODE.byN``
GROUP_LEVELS: Final = 50  # levels of a side of a grouped depth
PERIOD_MS: Final = 100  # between two ticks of the conflated channels
PERIODS: Final = {"100ms": 1, "1s": 10}  # of a conflated channel, in ticks

TopLevel: TypeAlias = tuple[str, str, int]  # price, quantity, orders
QueueEntry: TypeAlias = tuple[int, str, str]  # rank, price, quantity
_Whole = TypeVar("_Whole", "TopOfBook", "InstrumentStatistics")
SettlementText: TypeAlias = Literal["daily", "final"]


def text_checksum(parts: Iterable[str | int | None], seed: int = 0) -> int:
    """Return the CRC32 of the parts as text, each followed by a colon; None is an empty text."""
    text = "".join(":" if part is None else f"{part}:" for part in parts)
    return crc32(text.encode(), seed)


class Subscribe(Request, frozen=True, kw_only=True, tag="subscribe"):
    """Subscribes to public channels, by name. With ``after``, the last sequence seen, they continue
    from there if the messages since then are still kept."""

    request_id: str
    channels: list[str]
    after: int | None = None


class Unsubscribe(Request, frozen=True, kw_only=True, tag="unsubscribe"):
    """Ends subscriptions to public channels."""

    request_id: str
    channels: list[str]


class Subscribed(Response, frozen=True, kw_only=True, tag="subscribed"):
    """The channels are subscribed; their snapshots follow in the same frame, those beyond the first
    mebibyte and the parts of a long queue in frames of their own. Those in ``resumed`` continue
    after the given sequence, without a snapshot."""

    request_id: str
    channels: list[str]
    resumed: list[str] = msgspec.field(default_factory=list)


class Unsubscribed(Response, frozen=True, kw_only=True, tag="unsubscribed"):
    """The subscriptions ended; no more messages of these channels follow."""

    request_id: str
    channels: list[str]


class Picture(Response, frozen=True, kw_only=True):
    """Base of the pictures: the channel, the time, and what verifies it."""

    channel: str
    instrument: str
    sequence: int
    previous_sequence: int
    time: int
    checksum: int


class TopOfBook(Picture, frozen=True, kw_only=True, tag="top"):
    """The best level of both sides, complete: on subscribing, and whenever it changes."""

    bid: TopLevel | None = None
    ask: TopLevel | None = None

    def proof(self) -> int:
        """Return the checksum of its figures."""
        return text_checksum([*(self.bid or (None,) * 3), *(self.ask or (None,) * 3)])


class DepthSnapshot(Response, frozen=True, kw_only=True, tag="depth_snapshot"):
    """The whole depth as of ``sequence``, which the next delta repeats as ``previous_sequence``."""

    instrument: str
    sequence: int
    time: int
    bids: list[Level]  # best first
    asks: list[Level]  # best first
    checksum: int
    channel: str | None = None  # if its levels are limited or grouped, or it is conflated


class DepthDelta(Response, frozen=True, kw_only=True, tag="depth"):
    """Levels that changed since ``previous_sequence``; quantity ``"0"`` removes the level.

    ``checksum`` is of the book after the delta. Without levels, and with ``previous_sequence`` =
    ``sequence``, it is the channel's heartbeat.
    """

    instrument: str
    sequence: int
    previous_sequence: int
    time: int
    checksum: int
    bids: list[Level] = msgspec.field(default_factory=list)
    asks: list[Level] = msgspec.field(default_factory=list)
    channel: str | None = None


class QueueSnapshot(Response, frozen=True, kw_only=True, tag="queue_snapshot"):
    """Every order of the book as of ``sequence``, or one part of them."""

    channel: str
    instrument: str
    sequence: int
    time: int
    part: int  # from 1
    parts: int
    bids: list[QueueEntry]  # best price first, then by rank
    asks: list[QueueEntry]
    checksum: int  # of the whole queue


class QueueDelta(Picture, frozen=True, kw_only=True, tag="queue"):
    """Orders that were added, changed their lots or left (quantity ``"0"``) since
    ``previous_sequence``.

    Without orders, and with ``previous_sequence`` = ``sequence``, it is the channel's heartbeat.
    """

    bids: list[QueueEntry] = msgspec.field(default_factory=list)
    asks: list[QueueEntry] = msgspec.field(default_factory=list)


class InstrumentStatistics(Picture, frozen=True, kw_only=True, tag="statistics"):
    """The statistics of an instrument's business day, complete: on subscribing, and on every
    change."""

    business_date: int | None = None  # yyyymmdd
    open: str | None = None
    high: str | None = None
    low: str | None = None
    last: str | None = None
    trades: int = 0
    volume: str = "0"  # lots
    notional: str = "0.000000"  # dollars
    vwap: str | None = None  # six decimals
    open_interest: str = "0"  # lots
    reference: str  # start of the day's change: the last settlement price, or the first mark

    def proof(self) -> int:
        """Return the checksum of its figures."""
        return text_checksum(
            [self.business_date, self.open, self.high, self.low, self.last, self.trades,
             self.volume, self.notional, self.vwap, self.open_interest, self.reference]
        )  # fmt: skip


class PublicTrade(InstrumentEvent, frozen=True, kw_only=True, tag="trade"):
    """One trade. ``aggressor`` is the incoming order's side; a trade in an auction has none."""

    match_number: str
    price: str
    quantity: str
    aggressor: SideText | None
    # Part of a match through the books of a combination and its legs: one trade in each
    implied: bool = False


class PublicCorrection(InstrumentEvent, frozen=True, kw_only=True, tag="trade_corrected"):
    """An earlier trade was cancelled (``bust``) or its price changed (``adjustment``)."""

    kind: CorrectionText
    match_number: str
    price: str
    quantity: str


class InstrumentState(Response, frozen=True, kw_only=True, tag="state"):
    """The state of an instrument, complete: on subscribing, and whenever a field changes."""

    instrument: str
    sequence: int
    time: int
    state: str  # name of messages.TradingState
    cause: str  # name of messages.HaltCause
    low_limit: str
    high_limit: str
    mark: str
    settlement_price: str | None = None
    business_date: int | None = None  # yyyymmdd
    resumes: int | None = None  # of a breaker's halt: the log time at which it ends by itself
    band: str | None = None  # how far beyond the reference price an order may be priced
    circuit_breaker: BreakerData | None = None
    velocity: BreakerData | None = None


class SettlementPrice(InstrumentEvent, frozen=True, kw_only=True, tag="settlement"):
    """An instrument was settled, daily or finally."""

    kind: SettlementText
    price: str  # six decimals
    business_date: int | None = None  # yyyymmdd
    cycle: int | None = None  # of the day, from 1; absent in the final settlement


class IndexFixing(LogEvent, frozen=True, kw_only=True, tag="fixing"):
    """An index was fixed for a day, or its fixing withheld; a later revision replaces it."""

    name: str  # of the index
    date: int  # yyyymmdd
    revision: int
    state: str
    price: str | None = None
    reason: str = ""
    inputs_hash: str = ""


class FactorData(msgspec.Struct, frozen=True, kw_only=True):
    """One site's row of a factor table."""

    provider: str
    facility: str
    state: str
    factor: str | None = None  # four decimals


class FactorsPublished(LogEvent, frozen=True, kw_only=True, tag="factors"):
    """A table of conversion factors was published; a later version replaces it."""

    grade: str
    expiry: str
    version: int
    digest: str
    rows: list[FactorData]


class ChannelMark(Response, frozen=True, kw_only=True, tag="mark"):
    """All that a released batch had for a channel has been sent. With ``count`` 0 it is the
    channel's heartbeat and, on subscribing, its position."""

    channel: str
    sequence: int
    previous_sequence: int
    time: int
    count: int = 0
    checksum: int = 0


def proven(message: _Whole) -> _Whole:
    """Return the message with the checksum of its figures."""
    return msgspec.structs.replace(message, checksum=message.proof())


def mark_parts(message: Response) -> list[str | int | None]:
    """Return what a mark's checksum covers of one message."""
    names = ("sequence", "index", "price", "quantity")
    return [getattr(message, name, None) for name in names]


class FixingNote(msgspec.Struct):
    """The log's text of a recorded fixing."""

    index: str
    date: int
    revision: int
    state: str
    price: str = ""
    reason: str = ""
    inputs_hash: str = ""


class FactorRowNote(msgspec.Struct):
    """A site in a recorded factor table; ``factor_e4`` in ten-thousandths."""

    provider: str
    facility: str
    state: str
    factor_e4: int | None = None


class FactorTableNote(msgspec.Struct):
    """The table inside the log's text of recorded factors."""

    grade: str
    expiry: str
    version: int
    rows: list[FactorRowNote]


class FactorsNote(msgspec.Struct):
    """The log's text of recorded factors; ``table`` is itself JSON."""

    digest: str
    table: str


class Note(msgspec.Struct):
    """The kind of a recorded text."""

    operation: str = ""


_read_note = msgspec.json.Decoder(Note).decode
_read_fixing = msgspec.json.Decoder(FixingNote).decode
_read_factors = msgspec.json.Decoder(FactorsNote).decode
_read_table = msgspec.json.Decoder(FactorTableNote).decode


def read_record(text: str) -> FixingNote | tuple[str, FactorTableNote] | None:
    """Return what a recorded text publishes: a fixing, or a digest with its factor table; else
    None.

    A malformed text publishes nothing. Whether the sender may record is checked elsewhere.
    """
    try:
        operation = _read_note(text).operation
        if operation == "record_fixing":
            return _read_fixing(text)
        if operation == "record_factors":
            facts = _read_factors(text)
            return facts.digest, _read_table(facts.table)
    except msgspec.MsgspecError:
        return None
    return None
