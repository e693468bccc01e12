"""The vocabulary: commands (requests), events (facts), reject reasons and limits.

No logic lives here. Numbers are frozen: a released number never gets another meaning, new members
are only appended, and a layout changes only together with ``SCHEMA_VERSION``.
``exchange/engine/vocabulary.pxd`` repeats the enumerations for the compiled core; a test compares
the two member by member. What each command does: docs/reference/engine.md.

Units: prices are signed counts of ticks (``price_ticks``) or, for clearing prices, millionths of a
dollar per GPU-hour (``price_micros``); quantities are lots; money is micro-dollars; time is
nanoseconds since 1970, UTC.
"""

from enum import IntEnum, IntFlag
from struct import Struct as Layout
from typing import Final

import msgspec

SCHEMA_VERSION: Final = 1
RULES_VERSION: Final = 1

# One command is 64 bytes and one event 80, little-endian, without padding. Field names in order:
COMMAND_FIELDS: Final = (
    "kind", "side", "tif", "flags", "instrument", "account", "session", "price", "quantity",
    "operator", "stp", "spare", "target_lo", "target_hi", "key_lo", "key_hi",
)  # fmt: skip
COMMAND: Final = Layout("<BBBBIIIqIHBBQQQQ")
COMMAND_BYTES: Final = 64
EVENT_FIELDS: Final = (
    "sequence", "index", "kind", "flags", "reason", "instrument", "account", "order_id", "price",
    "quantity", "leaves", "key_lo", "key_hi", "a", "b",
)  # fmt: skip
EVENT: Final = Layout("<QIBBHIIQqIIQQqq")
EVENT_BYTES: Final = 80
# In a trade, and in what busts or adjusts one, bytes 48 to 64 (key_lo, key_hi) are its resting
# side:
TRADE: Final = Layout("<QIBBHIIQqIIQIIqq")
TRADE_FIELDS: Final = (
    "sequence", "index", "kind", "flags", "reason", "instrument", "account", "order_id", "price",
    "quantity", "leaves", "maker_order_id", "maker_account", "maker_leaves", "cash", "maker_cash",
)  # fmt: skip
INDEX_BITS: Final = 20  # match_number = sequence << INDEX_BITS | index

HOUSE_ACCOUNT: Final = 0  # the clearing house's own account, which receives the fees


class CommandKind(IntEnum):
    """What a command requests. The record's fields per kind: docs/reference/engine.md."""

    ENTER = 1
    CANCEL = 2
    REDUCE = 3
    REPLACE = 4
    MASS_CANCEL = 5
    KILL = 6
    RESUME = 7
    MASS_QUOTE = 8
    SET_PROTECTION = 9
    LOGON = 10
    LOGOFF = 11
    ADVANCE_TIME = 12
    RECOVERED = 13
    LIST = 20
    SET_LIMITS = 21
    SET_RISK = 22
    SET_STATE = 23
    MARK = 24
    SETTLE = 25
    EXPIRE = 26
    OPEN_ACCOUNT = 30
    DEPOSIT = 31
    WITHDRAW = 32
    FEE = 33
    SET_ACCOUNT = 34
    OPEN_DAY = 40
    CLOSE_DAY = 41
    UPGRADE = 42
    SET_MODE = 43
    RECORD = 44
    CHECKPOINT = 45
    INDICATE = 50
    BUST = 55
    ADJUST = 56
    SET_PROTECTIONS = 57
    SET_BREAKER = 58
    SET_FEATURE = 59
    LIST_COMBINATION = 60
    SET_IMPLIED = 61
    TRANSFER = 65


class EventKind(IntEnum):
    """What happened."""

    ORDER_ACCEPTED = 1
    REJECTED = 2
    TRADE = 3
    ORDER_CANCELLED = 4
    ORDER_REDUCED = 5
    ORDER_REPLACED = 6
    ORDER_DORMANT = 7
    ORDER_RETURNED = 8
    SESSION_OPENED = 10
    SESSION_LOST = 11
    SESSION_ENDED = 12
    TIME_ADVANCED = 13
    RECOVERED = 14
    MASS_CANCELLED = 15
    KILLED = 16
    RESUMED = 17
    PROTECTION_CHANGED = 18
    QUOTED = 19
    INSTRUMENT_LISTED = 20
    LIMITS_CHANGED = 21
    RISK_CHANGED = 22
    STATE_CHANGED = 23
    MARKED = 24
    INSTRUMENT_SETTLED = 25
    POSITION_SETTLED = 26
    INSTRUMENT_EXPIRED = 27
    ACCOUNT_OPENED = 30
    DEPOSITED = 31
    WITHDRAWN = 32
    FEE_CHARGED = 33
    ACCOUNT_CHANGED = 34
    DEFICIT_STARTED = 35
    DEFICIT_ENDED = 36
    DAY_OPENED = 40
    DAY_CLOSED = 41
    UPGRADED = 42
    MODE_CHANGED = 43
    RECORDED = 44
    CHECKPOINTED = 45
    ORDER_WAITING = 50
    ORDER_ELECTED = 51
    ORDER_REFILLED = 52
    AUCTION_UNCROSSED = 55
    AUCTION_INDICATED = 56
    LEVEL_TAKEN = 57  # what an auction's trades removed from one price level
    TRADE_BUSTED = 60
    TRADE_ADJUSTED = 61
    PROTECTIONS_CHANGED = 62
    BREAKER_CHANGED = 63
    FEATURE_CHANGED = 64
    ACCOUNTABILITY_PASSED = 65
    LOSS_LIMIT_REACHED = 66
    LEG_TRADE = 70
    RESIDUAL_POSTED = 71
    LEG_LISTED = 72
    ORDER_EXECUTED = 73
    IMPLIED_CHANGED = 74
    LOTS_TRANSFERRED = 80
    LEG_BUSTED = 81
    LEG_ADJUSTED = 82
    RESIDUAL_CORRECTED = 83
    LEG_STATED = 84  # a leg of a correction that is not its last


class TransferKind(IntEnum):
    """Why lots are transferred off the book: ``tif`` of TRANSFER, ``reason`` of
    LOTS_TRANSFERRED."""

    GIVE_UP = 1
    BLOCK = 2
    EFP = 3  # exchange for physical
    PORTING = 4


class CombinationRule(IntEnum):
    """How the price of a combination follows from its legs' prices: the sum of ratio x price, or
    the average weighted by ratio x hours."""

    DIFFERENCE = 0
    AVERAGE = 1


class Side(IntEnum):
    """Side of an order. UNSTATED is used only where a command names an existing order."""

    BUY = 0
    SELL = 1
    UNSTATED = 2


class TimeInForce(IntEnum):
    """How long an order works: until cancelled, until the day closes, immediately or cancel, fill
    or kill, until a time, or for the auction being collected."""

    GTC = 0
    DAY = 1
    IOC = 2
    FOK = 3
    GTD = 4
    GFA = 5


class SelfTrade(IntEnum):
    """What happens when an incoming order meets a resting one of its own self-trade group."""

    CANCEL_NEWEST = 0
    CANCEL_OLDEST = 1
    CANCEL_BOTH = 2
    DECREMENT = 3


class CommandFlag(IntFlag):
    """Bits of a command's ``flags``."""

    POST_ONLY = 1
    MARKET = 2  # with a tif that rests: market-to-limit
    MANUAL = 4  # entered by a person; recorded, but no rule depends on it
    BY_CLIENT_ID = 8  # the target is a client order id digest, not an order id
    # REPLACE: the order continues as a new one with id ``key``, at the back of the queue
    NEW_ID = 16
    CANCEL_ON_DISCONNECT = 32  # LOGON
    KILLED = 64  # SET_ACCOUNT
    PROTECTED = 128  # MARKET: ``price`` is how many ticks beyond the best opposite price


class OrderFeature(IntFlag):
    """Special conditions of an order: ``spare`` of ENTER, and the third byte of ``b`` of its
    ORDER_ACCEPTED. GROUPED, STOP, ICEBERG and a minimum share the field ``target_hi``."""

    REDUCE_ONLY = 1  # it may only bring the position nearer to zero
    GROUPED = 2  # ``target_hi`` is another working order: a trade of one cancels the other
    STOP = 4  # ``target_hi`` is the trade price that elects it, as a signed number of ticks
    ICEBERG = 8  # ``target_hi``: most lots it shows at a time
    ALL_OR_NONE = 16  # always refused, with its own reason
    QUOTE = 32  # one side of a MASS_QUOTE; not allowed in ENTER


class Selection(IntFlag):
    """Which orders of an account a MASS_CANCEL cancels: its ``tif``; zero means all."""

    INSTRUMENT = 1  # ``instrument`` is one
    PRODUCT = 2  # ``instrument`` is the number of a product
    SESSION = 4  # ``target_lo`` is the session that they were entered in


class KillScope(IntEnum):
    """What a KILL stops and a RESUME releases: ``tif`` of both, ``reason`` of their events."""

    ACCOUNT = 0
    SESSION = 1
    MEMBER = 2
    EXCHANGE = 3


class EventFlag(IntFlag):
    """Bits of an event's ``flags``."""

    LAST_IN_COMMAND = 1
    SELL = 2  # the order's side; of a trade, the incoming order's; of a position, short
    DUPLICATE = 4  # a repeated first answer: nothing new happened
    RESTING = 8  # the order was in the book when lots were removed from it
    POST_ONLY = 16
    MARKET = 32
    AUCTION = 64  # of a TRADE: in an auction; both orders were resting, neither is the aggressor


class TradingState(IntEnum):
    """State of one instrument. Orders match only in CONTINUOUS, and are collected for an auction in
    PRE_OPEN and AUCTION; cancels work in every state."""

    CLOSED = 0
    PRE_OPEN = 1
    AUCTION = 2
    CONTINUOUS = 3
    HALTED = 4
    EXPIRED = 5


class HaltCause(IntEnum):
    """Why an instrument is HALTED, or the kind of its auction: ``reason`` of STATE_CHANGED."""

    NONE = 0
    OPERATOR = 1
    RECOVERY = 2
    CIRCUIT_BREAKER = 3
    VELOCITY = 4
    OPENING = 10
    CLOSING = 11
    VOLATILITY = 12


class Breaker(IntEnum):
    """The two windows of an instrument's trade prices: CIRCUIT the long, VELOCITY the short one.

    A trade too far from the other prices of either window halts the instrument.
    """

    CIRCUIT = 0
    VELOCITY = 1


class Feature(IntEnum):
    """What SET_FEATURE turns off and on. The first numbers are those of OrderFeature, by bit."""

    REDUCE_ONLY = 0
    GROUPS = 1
    STOPS = 2
    ICEBERGS = 3
    BANDS = 8
    CIRCUIT_BREAKER = 9
    VELOCITY = 10
    ACCOUNTABILITY = 11
    ORDER_VALUE = 12
    ALL_MONTHS_LIMIT = 13
    LOSS_LIMIT = 14


class Mode(IntEnum):
    """Mode of the whole market."""

    NORMAL = 0
    CANCEL_ONLY = 1


class AccountKind(IntEnum):
    """The kind of an account's holder."""

    HOUSE = 0
    CLIENT = 1
    BOX = 2


class Currency(IntEnum):
    """Settlement currency of an account."""

    USD = 0


class CancelReason(IntEnum):
    """Why lots were removed from an order untraded: ``reason`` of ORDER_CANCELLED and
    ORDER_REDUCED."""

    REQUESTED = 1
    IOC_REMAINDER = 2
    FOK_UNFILLED = 3
    MARKET_REMAINDER = 4
    SELF_TRADE = 5
    DAY_ENDED = 6
    DISCONNECTED = 7
    INSTRUMENT_EXPIRED = 8
    REDUCED = 9
    REPLACED = 10
    MINIMUM_UNFILLED = 11
    TIME_EXPIRED = 12
    MASS_CANCELLED = 13
    KILLED = 14
    GROUP = 15  # the other order of its group traded
    REDUCE_ONLY = 16  # there is no longer a position to reduce
    QUOTE = 17  # the next quote leaves this side out, or replaces it by a new order
    PROTECTION = 18  # the account's quotes traded more than it allows
    AUCTION_ENDED = 25
    LIMITS_MOVED = 26
    LOSS_LIMIT = 30


class Reason(IntEnum):
    """Why a command was rejected.

    The order of precedence is that of the numbers within a command kind's list in
    docs/reference/rejects.md. Bands: 1xx session, 2xx syntax, 3xx identity, 4xx state, 5xx order
    fields, 6xx risk, 7xx capacity, 8xx operation.
    """

    AUTH_REQUIRED = 101
    BAD_SIGNATURE = 102
    TIMESTAMP = 103
    NONCE = 104
    SCOPE = 105
    KEY_LOCKED = 106
    SESSION_LIVE = 107
    SESSION_UNKNOWN = 108
    ACCOUNT_KILLED = 109
    UNKNOWN_ACCOUNT = 110
    SESSION_KILLED = 111
    MEMBER_KILLED = 112
    EXCHANGE_KILLED = 113

    SYNTAX = 201
    DUPLICATE_FIELD = 202
    UNKNOWN_FIELD = 203
    MISSING_FIELD = 204
    ID_FORMAT = 205
    COMBINATION = 206
    UNKNOWN_COMMAND = 207

    DUPLICATE_DIFFERENT = 301
    NOT_FOUND = 302
    TOO_LATE = 303
    SIDE_MISMATCH = 304
    QUOTE = 305
    GROUP = 306

    UNKNOWN_INSTRUMENT = 401
    NOT_TRADING = 402
    STATE = 403
    CANCEL_ONLY = 404
    NOT_OUTRIGHT = 410
    NOT_IMPLIED = 411
    LEG_ALONE = 415

    THROTTLED = 501
    QUANTITY_RANGE = 502
    ACCOUNT_MAX_QUANTITY = 503
    NOTIONAL = 504
    TICK = 505
    LOT = 506
    PRICE_LIMIT = 507
    POST_ONLY = 508
    MINIMUM = 509
    EXPIRY = 510
    REDUCE_ONLY = 511
    QUOTES_BLOCKED = 512
    CROSSED = 513
    PROTECTIONS_FULL = 514
    TRIGGER = 515
    DISPLAY = 516
    AUCTION_ONLY = 520
    NOT_IN_AUCTION = 521
    ALL_OR_NONE = 522
    FEATURE_OFF = 525
    PRICE_BAND = 526
    ORDER_VALUE = 527

    OPEN_ORDERS = 601
    POSITION_LIMIT = 602
    MARGIN = 603
    MEMBER_MARGIN = 604
    FUNDS = 605
    ALL_MONTHS_LIMIT = 606
    LOSS_LIMIT = 607

    QUEUE_FULL = 701
    ORDERS_FULL = 702
    POSITIONS_FULL = 703
    ACCOUNTS_FULL = 704
    INSTRUMENTS_FULL = 705
    BOOK_FULL = 706
    SESSIONS_FULL = 707
    SUBSCRIPTIONS_FULL = 708
    LOG_FULL = 709
    ICEBERGS_FULL = 710
    SPREADS_FULL = 711
    CREDITS_FULL = 712
    REDUCING_FULL = 713
    GROUPS_FULL = 714

    ALREADY_SETTLED = 801
    DAY_STATE = 802
    RULES_VERSION = 803
    ASSET_MISMATCH = 804
    PARAMETER_RANGE = 805
    ACCOUNT_EXISTS = 806
    MONEY_RANGE = 807
    TRADE_UNKNOWN = 808
    ALREADY_CORRECTED = 809
    CORRECTIONS_FULL = 810
    NOT_HELD = 820
    HOUSE_ACCOUNT = 821
    TRADE_DIFFERENT = 822
    LEGS_FORGOTTEN = 823


RETRYABLE: Final = frozenset(
    {
        Reason.THROTTLED,
        Reason.QUEUE_FULL,
        Reason.LOG_FULL,
        Reason.CANCEL_ONLY,
        Reason.NOT_TRADING,
    }
)


class Limit(IntEnum):
    """Every capacity of the market. Powers of two unless a business figure."""

    ORDERS = 1 << 21  # slots of the order slab: working orders and remembered ids
    # Working orders of an outright (keeps index below 2**20); of a combination legs + 3 times fewer
    BOOK_ORDERS = 1_000_000
    POSITIONS = 1 << 20  # (account, instrument) pairs
    ACCOUNTS = 1 << 16
    MEMBERS = 1 << 12
    INSTRUMENTS = 1 << 16
    PRODUCTS = 1 << 16
    PROTECTIONS = 32  # products for which one account has a quote protection
    SESSIONS = 1 << 16
    LADDER_LEVELS = 1 << 24  # price levels between one instrument's limits
    IDEMPOTENCY_WINDOW = 256  # accepted ids remembered per account
    QUANTITY = (1 << 31) - 1  # lots of one order
    POSITION = 1 << 40  # lots, net or working, of one account in one instrument
    PRICE = 1 << 47  # absolute price in ticks or in clearing units
    MONEY = 1 << 60  # absolute micro-dollars of one amount, balance or notional
    BATCH_COMMANDS = 4096
    QUEUE_COMMANDS = 65_536
    FRAME_BYTES = 16_384  # one WebSocket message from a client
    CLIENT_ID_CHARS = 36
    SUBSCRIPTIONS = 256  # channels of one connection
    WINDOW_PARTS = 16  # parts of a breaker's window
    CORRECTIONS = 4096  # trades busted or adjusted in one business day
    REDUCING = 1024  # REDUCE_ONLY orders of one account in one instrument
    GROUPS = 8192  # orders of one instrument grouped with another's (keeps index below 2**20)
    ICEBERGS = 256  # live orders of one instrument that show a part of their lots
    REFILLS = 63  # refills of one iceberg: each makes two events (keeps index below 2**20)
    ELECTIONS = 1024  # stops of one instrument elected under one command
    AUCTION_ROUNDS = 64  # rounds of an auction: each elects stops and determines the price again
    ELECTION_NS = 500_000  # log time until the next round of elections
    LEGS = 12  # of one combination
    LEG_SPREADS = 16  # combinations with implied prices in which one instrument is a leg
    # Trades of one incoming order with implied prices (keeps index below 2**20)
    IMPLIED_TRADES = 1024
    LEG_CHANGES = 4096  # changes of anchors, limits and fees of legs, kept for a business day
    CREDITS = 256  # spreads that have a credit


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command, as in the engine's record; unused fields are zero.

    ``COMMAND.pack(*msgspec.structs.astuple(command))`` gives its 64 bytes.
    """

    kind: int
    side: int = 0
    tif: int = 0
    flags: int = 0
    instrument: int = 0
    account: int = 0
    session: int = 0
    price: int = 0
    quantity: int = 0
    operator: int = 0
    stp: int = 0
    spare: int = 0
    target_lo: int = 0
    target_hi: int = 0
    key_lo: int = 0
    key_hi: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event, as in the engine's record."""

    sequence: int
    index: int
    kind: int
    flags: int
    reason: int
    instrument: int
    account: int
    order_id: int
    price: int
    quantity: int
    leaves: int
    key_lo: int
    key_hi: int
    a: int
    b: int


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """A TRADE event with its resting side's fields named; ``cash`` is minus the fee paid."""

    sequence: int
    index: int
    kind: int
    flags: int
    reason: int
    instrument: int
    account: int
    order_id: int
    price: int
    quantity: int
    leaves: int
    maker_order_id: int
    maker_account: int
    maker_leaves: int
    cash: int
    maker_cash: int
