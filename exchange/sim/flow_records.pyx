"""Converts raw order flow to the engine's command records, and adds up the engine's events.

A raw flow is a sequence of 32-byte little-endian records, laid out as ``RawRecord`` below and
described in docs/reference/benchmarks.md. Its orders have no owner, so an account is derived from
the order id: buys belong to accounts 1 to 64 and sells to accounts 65 to 128, so that two orders
that trade never share one. The order that a replace enters stays in the account of the order it
replaces.

Nothing here is timed: ``exchange.sim.flow`` converts before it starts the clock and adds up a
second run of the same records.
"""

from array import array

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from exchange.messages import (
    COMMAND_BYTES,
    EVENT_BYTES,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Limit,
    Reason,
    TimeInForce,
)

RAW_BYTES = 32
ACCOUNTS_PER_SIDE = 64

cdef packed struct RawRecord:
    uint8_t kind
    uint8_t side
    uint16_t symbol
    uint32_t quantity
    int64_t price
    uint64_t order_id
    uint64_t arg

cdef packed struct CommandRecord:
    uint8_t kind
    uint8_t side
    uint8_t tif
    uint8_t flags
    uint32_t instrument
    uint32_t account
    uint32_t session
    int64_t price
    uint32_t quantity
    uint16_t operator
    uint8_t stp
    uint8_t spare
    uint64_t target_lo
    uint64_t target_hi
    uint64_t key_lo
    uint64_t key_hi

cdef packed struct EventRecord:
    uint64_t sequence
    uint32_t index
    uint8_t kind
    uint8_t flags
    uint16_t reason
    uint32_t instrument
    uint32_t account
    uint64_t order_id
    int64_t price
    uint32_t quantity
    uint32_t leaves
    uint64_t key_lo
    uint32_t maker_account  # key_hi, of a TRADE
    uint32_t maker_leaves
    int64_t a
    int64_t b

cdef enum:
    RAW_SIZE = 32
    PER_SIDE = 64
    NEW = 1
    CANCEL = 2
    REDUCE = 3
    REPLACE = 4
    IOC = 5
    MARKET = 6

assert sizeof(CommandRecord) == COMMAND_BYTES
assert sizeof(EventRecord) == EVENT_BYTES

cdef uint8_t ENTER_COMMAND = CommandKind.ENTER
cdef uint8_t CANCEL_COMMAND = CommandKind.CANCEL
cdef uint8_t REDUCE_COMMAND = CommandKind.REDUCE
cdef uint8_t REPLACE_COMMAND = CommandKind.REPLACE
cdef uint8_t TIF_GTC = TimeInForce.GTC
cdef uint8_t TIF_IOC = TimeInForce.IOC
cdef uint8_t FLAG_MARKET = CommandFlag.MARKET
cdef uint8_t FLAG_NAMED = CommandFlag.BY_CLIENT_ID
cdef uint8_t FLAG_RENAMED = CommandFlag.BY_CLIENT_ID | CommandFlag.NEW_ID
cdef uint8_t ORDER_ACCEPTED = EventKind.ORDER_ACCEPTED
cdef uint8_t REJECTED = EventKind.REJECTED
cdef uint8_t TRADE = EventKind.TRADE
cdef uint8_t ORDER_CANCELLED = EventKind.ORDER_CANCELLED
cdef uint8_t ORDER_REDUCED = EventKind.ORDER_REDUCED
cdef uint8_t FLAG_DUPLICATE = EventFlag.DUPLICATE
cdef uint16_t NOT_FOUND = Reason.NOT_FOUND
cdef uint16_t TOO_LATE = Reason.TOO_LATE
cdef int64_t PRICE_MAX = Limit.PRICE
cdef uint32_t QUANTITY_MAX = Limit.QUANTITY
cdef uint64_t FNV_START = 0xCBF29CE484222325
cdef uint64_t FNV_PRIME = 0x100000001B3


cdef const RawRecord* records(const uint8_t[::1] raw, Py_ssize_t* count) except? NULL:
    if raw.shape[0] % RAW_SIZE:
        raise ValueError(f"{raw.shape[0]} bytes are not a whole number of {RAW_SIZE}-byte records")
    count[0] = raw.shape[0] // RAW_SIZE
    return <const RawRecord*>&raw[0] if raw.shape[0] else NULL


cdef str fault(const RawRecord* record):
    """Return why a record cannot be run, or None."""
    if not NEW <= record.kind <= MARKET:
        return f"kind {record.kind} is unknown"
    if record.side > 1:
        return f"side {record.side} is neither 0 (buy) nor 1 (sell)"
    if record.order_id == 0 or (record.kind == REPLACE and record.arg == 0):
        return "an order id is 0"
    if record.kind in (NEW, REPLACE, IOC) and not 1 <= record.price <= PRICE_MAX:
        return f"price {record.price} is outside 1..{PRICE_MAX}"
    if record.kind != CANCEL and not 1 <= record.quantity <= QUANTITY_MAX:
        return f"quantity {record.quantity} is outside 1..{QUANTITY_MAX}"
    return None


cdef int64_t common_divisor(int64_t x, int64_t y) noexcept:
    while y:
        x, y = y, x % y
    return x


def scan(const uint8_t[::1] raw not None):
    """Return (low, high, step, largest quantity) of its records per symbol, from symbol 0.

    ``step`` is the greatest common divisor of its prices. A symbol without a price has (1, 1, 1,
    its largest quantity). Raises ValueError, naming the record, for an incomplete flow or a record
    that cannot be run.
    """
    cdef Py_ssize_t count, i
    cdef const RawRecord* record = records(raw, &count)
    cdef int64_t[::1] low = array("q", bytes(8 << 16))
    cdef int64_t[::1] high = array("q", bytes(8 << 16))
    cdef int64_t[::1] step = array("q", bytes(8 << 16))
    cdef int64_t[::1] largest = array("q", bytes(8 << 16))
    cdef int symbols = 0
    cdef int s
    for i in range(count):
        why = fault(record)
        if why is not None:
            raise ValueError(f"record {i}: {why}")
        s = record.symbol
        symbols = max(symbols, s + 1)
        if record.kind in (NEW, REPLACE, IOC):
            if step[s] == 0 or record.price < low[s]:
                low[s] = record.price
            high[s] = max(high[s], record.price)
            step[s] = common_divisor(record.price, step[s])
        if record.kind not in (CANCEL, REDUCE):
            largest[s] = max(largest[s], <int64_t>record.quantity)
        record += 1
    for s in range(symbols):
        if step[s] == 0:
            low[s] = high[s] = step[s] = 1
    return [(low[s], high[s], step[s], max(1, largest[s])) for s in range(symbols)]


cdef class Converter:
    """Converts raw records to command records. One converter per flow, fed in order."""

    cdef dict moved  # order id -> account, for orders made by replace, whose id does not give it
    cdef uint32_t[::1] sessions

    def __init__(self, sessions):
        """``sessions``: the session of each account, by account number from 0."""
        self.moved = {}
        self.sessions = array("I", sessions)

    def convert(self, const uint8_t[::1] raw not None, Py_ssize_t batch_commands):
        """Return the records as batches of at most ``batch_commands`` commands each."""
        cdef Py_ssize_t count, i, taken, done = 0
        cdef const RawRecord* record = records(raw, &count)
        cdef CommandRecord* command
        batches = []
        while done < count:
            taken = min(batch_commands, count - done)
            batch = PyBytes_FromStringAndSize(NULL, taken * sizeof(CommandRecord))
            command = <CommandRecord*>PyBytes_AS_STRING(batch)
            for i in range(taken):
                self.fill(command + i, record + done + i)
            batches.append(batch)
            done += taken
        return batches

    cdef int fill(self, CommandRecord* command, const RawRecord* record) except -1:
        cdef uint32_t usual = <uint32_t>(1 + record.side * PER_SIDE + record.order_id % PER_SIDE)
        memset(command, 0, sizeof(CommandRecord))
        command.side = record.side
        command.price = record.price
        command.quantity = record.quantity
        command.instrument = record.symbol
        command.account = usual
        if record.kind in (NEW, IOC, MARKET):
            command.kind = ENTER_COMMAND
            command.tif = TIF_GTC if record.kind == NEW else TIF_IOC
            command.flags = FLAG_MARKET if record.kind == MARKET else 0
            command.key_lo = record.order_id
        else:
            command.flags = FLAG_NAMED
            command.target_lo = record.order_id
            if record.kind == REDUCE:
                command.kind = REDUCE_COMMAND
                command.account = self.moved.get(record.order_id, usual)
            else:  # the named order ends with this, so its account need not be kept
                command.account = self.moved.pop(record.order_id, usual)
                command.kind = CANCEL_COMMAND
        if record.kind == REPLACE:
            command.kind = REPLACE_COMMAND
            command.flags = FLAG_RENAMED
            command.key_lo = record.arg
            self.moved[record.arg] = command.account
        command.session = self.sessions[command.account]
        return 0


cdef class Tally:
    """Totals of an event stream; ``digest`` is FNV-1a 64 over its trades, by the flow's own ids.

    A trade is hashed as maker id, taker id, price (8 bytes each), quantity, symbol (4 each).
    ``surprise`` is the first answer that a valid flow never gets, or None.
    """

    cdef readonly uint64_t digest
    cdef readonly int64_t trades, volume, rejects, resting, resting_quantity
    cdef readonly object notional, surprise
    cdef uint64_t[::1] ids
    cdef uint32_t[::1] leaves

    def __init__(self, Py_ssize_t slots):
        """``slots``: the number of order slots of the engine."""
        self.digest = FNV_START
        self.notional = 0
        self.ids = array("Q", bytes(8 * slots))
        self.leaves = array("I", bytes(4 * slots))

    def feed(self, const uint8_t[::1] events not None):
        """Count the events of one batch."""
        cdef Py_ssize_t count = events.shape[0] // <Py_ssize_t>sizeof(EventRecord)
        cdef Py_ssize_t _
        cdef const EventRecord* event
        if count == 0:
            return
        event = <const EventRecord*>&events[0]
        for _ in range(count):
            if event.kind == TRADE:
                self.add_trade(event)
            elif event.kind == ORDER_ACCEPTED:
                self.ids[<uint32_t>event.order_id] = event.key_lo
                self.rest(<uint32_t>event.order_id, event.leaves)
                if event.flags & FLAG_DUPLICATE:
                    self.note(event, "an order id was used twice")
            elif event.kind == ORDER_CANCELLED:
                self.rest(<uint32_t>event.order_id, 0)
            elif event.kind == ORDER_REDUCED:
                self.rest(<uint32_t>event.order_id, event.leaves)
            elif event.kind == REJECTED:
                self.rejects += 1
                if event.reason not in (NOT_FOUND, TOO_LATE):
                    self.note(event, f"rejected {Reason(event.reason).name}")
            event += 1

    cdef int note(self, const EventRecord* event, str what) except -1:
        if self.surprise is None:
            self.surprise = f"sequence {event.sequence}: {what}"
        return 0

    cdef void rest(self, uint32_t slot, uint32_t leaves) noexcept:
        self.resting += (leaves > 0) - (self.leaves[slot] > 0)
        self.resting_quantity += <int64_t>leaves - self.leaves[slot]
        self.leaves[slot] = leaves

    cdef int add_trade(self, const EventRecord* event) except -1:
        cdef uint32_t maker = <uint32_t>event.key_lo
        self.trades += 1
        self.volume += event.quantity
        self.notional += <object>event.price * event.quantity
        self.mix(self.ids[maker], 8)
        self.mix(self.ids[<uint32_t>event.order_id], 8)
        self.mix(<uint64_t>event.price, 8)
        self.mix(event.quantity, 4)
        self.mix(event.instrument, 4)
        self.rest(maker, event.maker_leaves)
        return 0

    cdef void mix(self, uint64_t value, int size) noexcept:
        cdef int _
        for _ in range(size):
            self.digest = (self.digest ^ (value & 0xFF)) * FNV_PRIME
            value >>= 8


def apply_all(apply, list batches, uint64_t sequence, int64_t stamp):
    """Pass every batch to ``apply`` in turn and discard its events; return the sequence after.

    Only for benches/instructions.py, which counts instructions inside this symbol alone.
    """
    for batch in batches:
        apply(batch, sequence, stamp)
        sequence += len(batch) // sizeof(CommandRecord)
    return sequence


def access_floor(list batches, uint64_t[::1] table not None):
    """Read every command record and access ``table`` once for each, at an address that depends on
    the last value read: a lower bound for any engine whose state fills such a table.

    The table's length is a power of two, at least 8. Returns a number that depends on all accesses.
    """
    cdef uint64_t mask = table.shape[0] // 8 - 1  # one cache line holds 8
    cdef uint64_t last = 0
    cdef uint64_t at
    cdef const uint8_t[::1] batch
    cdef const CommandRecord* command
    cdef Py_ssize_t _
    for batch in batches:
        command = <const CommandRecord*>&batch[0]
        for _ in range(batch.shape[0] // <Py_ssize_t>sizeof(CommandRecord)):
            at = (((command.key_lo ^ command.target_lo ^ last) * FNV_PRIME) >> 20) & mask
            last = table[at * 8]
            table[at * 8] = last + command.price + command.quantity + command.side
            command += 1
    return last
