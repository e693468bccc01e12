"""The native protocol's public messages of a market's data; see ``wire``.

A channel's pictures (top of book, depth, queue, statistics) are whole as of their ``sequence``,
name the message before in ``previous_sequence`` and prove themselves by ``checksum``. What happens
once (trades, states, settlement prices, fixings, factor tables) is followed by a ``mark`` that
does the same for all that one released batch had to say.
"""

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, TypeVar
from zlib import crc32

import msgspec

from exchange.messages.wire_auction import BreakerData
from exchange.messages.wire_base import InstrumentEvent, LogEvent, Request, Response, SideText
from exchange.messages.wire_base import Level as Level
from exchange.messages.wire_moves import CorrectionText

CHECKSUM_LEVELS: Final = 10  # a side's best levels, or orders, under a book's checksum
SNAPSHOT_ORDERS: Final = 4_096  # of a queue in one message; more come in parts
QUEUE_ORDERS: Final = 65_536  # of a queue that may be joined
PICTURES: Final = 4_096  # pictures that are cut or conflated, of all connections
RESUME_MESSAGES: Final = 256  # of a channel, remembered for those who come back

DEPTH_TOPS: Final = (5, 10, 20, 50)  # best levels of ``depth.CODE.topN``
DEPTH_GROUPS: Final = (10, 100)  # ticks of one level of ``depth.CODE.byN``
GROUP_LEVELS: Final = 50  # of a side in groups
PERIOD_MS: Final = 100  # between two looks at the conflated channels
PERIODS: Final = {"100ms": 1, "1s": 10}  # of a conflated channel, in looks

TopLevel: TypeAlias = tuple[str, str, int]  # price, quantity, orders
QueueEntry: TypeAlias = tuple[int, str, str]  # rank, price, quantity
_Whole = TypeVar("_Whole", "TopOfBook", "InstrumentStatistics")
SettlementText: TypeAlias = Literal["daily", "final"]


def text_checksum(parts: Iterable[str | int | None], seed: int = 0) -> int:
    """Return the CRC32 of the parts as text, each with a colon behind it; None is no text."""
    text = "".join(":" if part is None else f"{part}:" for part in parts)
    return crc32(text.encode(), seed)


class Subscribe(Request, frozen=True, kw_only=True, tag="subscribe"):
    """Joins public channels, by name. With ``after``, the last sequence seen of them, they go on
    from there if what followed is still remembered."""

    request_id: str
    channels: list[str]
    after: int | None = None


class Unsubscribe(Request, frozen=True, kw_only=True, tag="unsubscribe"):
    """Leaves public channels."""

    request_id: str
    channels: list[str]


class Subscribed(Response, frozen=True, kw_only=True, tag="subscribed"):
    """The channels are joined; their snapshots follow in the same frame, one in parts a part a
    frame, as are those behind the first mebibyte. Those in ``resumed`` go on behind the sequence
    asked for, without one."""

    request_id: str
    channels: list[str]
    resumed: list[str] = msgspec.field(default_factory=list)


class Unsubscribed(Response, frozen=True, kw_only=True, tag="unsubscribed"):
    """The channels are left; nothing more comes from them."""

    request_id: str
    channels: list[str]


class Picture(Response, frozen=True, kw_only=True):
    """What a picture says of itself: whose it is, as of when, and what proves it whole."""

    channel: str
    instrument: str
    sequence: int
    previous_sequence: int
    time: int
    checksum: int


class TopOfBook(Picture, frozen=True, kw_only=True, tag="top"):
    """The best level of both sides, whole: on joining, and whenever it is another."""

    bid: TopLevel | None = None
    ask: TopLevel | None = None

    def proof(self) -> int:
        """Return the checksum that its figures have."""
        return text_checksum([*(self.bid or (None,) * 3), *(self.ask or (None,) * 3)])


class DepthSnapshot(Response, frozen=True, kw_only=True, tag="depth_snapshot"):
    """The whole depth as of ``sequence``; the next delta's ``previous_sequence`` equals it."""

    instrument: str
    sequence: int
    time: int
    bids: list[Level]  # best first
    asks: list[Level]  # best first
    checksum: int
    channel: str | None = None  # of one that is cut or conflated


class DepthDelta(Response, frozen=True, kw_only=True, tag="depth"):
    """Levels that changed since ``previous_sequence``; quantity ``"0"`` removes the level.

    Without levels, ``previous_sequence`` = ``sequence``: the channel's heartbeat.
    ``checksum`` is of the book after the delta.
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
    """Every order of the book as of ``sequence``, or one of the parts of that."""

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
    """Orders that came, changed their lots or left (quantity ``"0"``) since ``previous_sequence``.

    Without orders, ``previous_sequence`` = ``sequence``: the channel's heartbeat.
    """

    bids: list[QueueEntry] = msgspec.field(default_factory=list)
    asks: list[QueueEntry] = msgspec.field(default_factory=list)


class InstrumentStatistics(Picture, frozen=True, kw_only=True, tag="statistics"):
    """The business day of an instrument so far, whole: on joining, and whenever it is another."""

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
    reference: str  # what the day is measured from: the last settlement price, or the first mark

    def proof(self) -> int:
        """Return the checksum that its figures have."""
        return text_checksum(
            [self.business_date, self.open, self.high, self.low, self.last, self.trades,
             self.volume, self.notional, self.vwap, self.open_interest, self.reference]
        )  # fmt: skip


class PublicTrade(InstrumentEvent, frozen=True, kw_only=True, tag="trade"):
    """One trade. ``aggressor`` is the incoming order's side; of an auction's there is none."""

    match_number: str
    price: str
    quantity: str
    aggressor: SideText | None
    implied: bool = False  # one match through the books of a combination and its legs: one of each


class PublicCorrection(InstrumentEvent, frozen=True, kw_only=True, tag="trade_corrected"):
    """A trade of before was taken back (``bust``) or got another price (``adjustment``)."""

    kind: CorrectionText
    match_number: str
    price: str
    quantity: str


class InstrumentState(Response, frozen=True, kw_only=True, tag="state"):
    """Where an instrument stands, whole: sent on subscribing and whenever a field changes."""

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
    band: str | None = None  # how far through the reference price an order may be priced
    circuit_breaker: BreakerData | None = None
    velocity: BreakerData | None = None


class SettlementPrice(InstrumentEvent, frozen=True, kw_only=True, tag="settlement"):
    """An instrument was settled: for the day, or for good."""

    kind: SettlementText
    price: str  # six decimals
    business_date: int | None = None  # yyyymmdd
    cycle: int | None = None  # of the day, from 1; the final settlement has none


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
    """All that a released batch had for a channel has been sent. With ``count`` 0, the channel's
    heartbeat and, on joining, where it stands."""

    channel: str
    sequence: int
    previous_sequence: int
    time: int
    count: int = 0
    checksum: int = 0


def proven(message: _Whole) -> _Whole:
    """Return the message with the checksum that its figures have."""
    return msgspec.structs.replace(message, checksum=message.proof())


def mark_parts(message: Response) -> list[str | int | None]:
    """Return what a mark's checksum covers of a message before it."""
    names = ("sequence", "index", "price", "quantity")
    return [getattr(message, name, None) for name in names]


class FixingNote(msgspec.Struct):
    """What the log's text of a recorded fixing says."""

    index: str
    date: int
    revision: int
    state: str
    price: str = ""
    reason: str = ""
    inputs_hash: str = ""


class FactorRowNote(msgspec.Struct):
    """What a recorded factor table says of a site; ``factor_e4`` in ten-thousandths."""

    provider: str
    facility: str
    state: str
    factor_e4: int | None = None


class FactorTableNote(msgspec.Struct):
    """What the table inside the log's text of recorded factors says."""

    grade: str
    expiry: str
    version: int
    rows: list[FactorRowNote]


class FactorsNote(msgspec.Struct):
    """What the log's text of recorded factors says; ``table`` is JSON itself."""

    digest: str
    table: str


class Note(msgspec.Struct):
    """What kind of text it is."""

    operation: str = ""


_read_note = msgspec.json.Decoder(Note).decode
_read_fixing = msgspec.json.Decoder(FixingNote).decode
_read_factors = msgspec.json.Decoder(FactorsNote).decode
_read_table = msgspec.json.Decoder(FactorTableNote).decode


def read_record(text: str) -> FixingNote | tuple[str, FactorTableNote] | None:
    """Return what a recorded text publishes: a fixing, or a table with its digest; None of others.

    A text that only claims to be one of these publishes nothing either: who may record is judged
    before, and by others.
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
