"""Writes the commonest order reports as JSON directly from their events, without report objects.

The text is byte for byte what ``reports.Reports`` and msgspec make of the same events: a test
compares them. All other reports, and MessagePack, are made by those.

Invariant: ``_used`` <= ``_room``; every function reserves room before it writes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy, strlen

from exchange.messages import (
    INDEX_BITS,
    CancelReason,
    EventFlag,
    OrderFeature,
    SelfTrade,
    TimeInForce,
)
from exchange.messages.wire import encode_json

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    unsigned char* PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    FIXED = 1024  # upper bound for a report without its texts: names, words and numbers
    TIMED = 48  # upper bound for ``,"time":-9223372036854775808,"order_id":"``
    KEPT = 1 << 16  # bytes of room that an empty page keeps

ctypedef unsigned long long u64

cdef int SELL = EventFlag.SELL, MARKET = EventFlag.MARKET, POST_ONLY = EventFlag.POST_ONLY
cdef int RESTING = EventFlag.RESTING, DUPLICATE = EventFlag.DUPLICATE, AUCTION = EventFlag.AUCTION
cdef int STOP = OrderFeature.STOP, ICEBERG = OrderFeature.ICEBERG
cdef int INDEX = INDEX_BITS
cdef tuple TIMES = tuple([one.name.encode() for one in TimeInForce])
cdef tuple SELF_TRADES = tuple([one.name.lower().encode() for one in SelfTrade])
cdef dict REASONS = {int(one): one.name.encode() for one in CancelReason}
cdef bytes REQUESTED = CancelReason.REQUESTED.name.encode()
cdef frozenset ASKED = frozenset((0, int(CancelReason.REQUESTED), int(CancelReason.REDUCED)))
cdef const char* PAIRS = (
    b"00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    b"40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    b"8081828384858687888990919293949596979899"
)


cdef inline void put(Page page, const char* text) noexcept:
    """Write text that needs no escape; the compiler knows the length of a literal."""
    cdef size_t size = strlen(text)
    memcpy(page._text + page._used, text, size)
    page._used += size


cdef inline void number(Page page, u64 value) noexcept:
    """Write an integer, two digits at a time."""
    cdef char[40] digits  # twice the maximum: a copy of a constant size needs no call
    cdef int at = 20
    while value >= 100:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * (value % 100), 2)
        value //= 100
    at -= 2
    memcpy(digits + at, PAIRS + 2 * value, 2)
    at += value < 10
    memcpy(page._text + page._used, digits + at, 20)
    page._used += 20 - at


cdef inline void integer(Page page, long long value) noexcept:
    if value < 0:
        put(page, b"-")
        number(page, 0 - <u64>value)
    else:
        number(page, value)


cdef int string(Page page, str text) except -1:
    """Write a text in quotes, and reserve room for the rest of the report."""
    if text is None:
        raise TypeError("a report without one of its texts")
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(text), n
    cdef unsigned char* read
    cdef unsigned char* write
    cdef bint plain = PyUnicode_IS_COMPACT_ASCII(text)
    page._grow(size + FIXED)
    if plain:
        read = PyUnicode_1BYTE_DATA(text)
        write = <unsigned char*>page._text + page._used
        write[0] = b'"'
        for n in range(size):
            plain &= read[n] >= 32 and read[n] != b'"' and read[n] != b"\\"
            write[n + 1] = read[n]
        write[size + 1] = b'"'
    if plain:
        page._used += size + 2
    else:
        encoded(page, encode_json(text))
    return 0


cdef int numeral(Page page, str text) except -1:
    """Write decimal text in quotes; it needs no escape."""
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(text)
    if not PyUnicode_IS_COMPACT_ASCII(text):
        raise ValueError("a number of other than digits")
    page._grow(size + FIXED)
    put(page, b'"')
    memcpy(page._text + page._used, PyUnicode_1BYTE_DATA(text), size)
    page._used += size
    put(page, b'"')
    return 0


cdef int encoded(Page page, bytes text) except -1:
    """Write encoded JSON unchanged."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    page._grow(size + FIXED)
    memcpy(page._text + page._used, PyBytes_AS_STRING(text), size)
    page._used += size
    return 0


cdef class Page:
    """A buffer of ``count`` JSON objects, with a comma after each."""

    def __dealloc__(self):
        PyMem_Free(self._text)

    cdef int _grow(self, Py_ssize_t size) except -1:
        """Reserve room for ``size`` more bytes."""
        cdef char* text
        if self._room - self._used >= size:
            return 0
        text = <char*>PyMem_Realloc(self._text, 2 * (self._used + size))
        if text == NULL:
            raise MemoryError
        self._text, self._room = text, 2 * (self._used + size)
        return 0

    cdef void _stamp(self, long long time) noexcept:
        """Write the time of a batch. Its digits are computed once and then copied."""
        if time != self._time or not self._time_size:
            self._time, self._time_size = time, self._used
            put(self, b',"time":')
            integer(self, time)
            put(self, b',"order_id":"')
            self._time_size = self._used - self._time_size
            memcpy(self._time_text, self._text + self._used - self._time_size, self._time_size)
        else:
            memcpy(self._text + self._used, self._time_text, TIMED)
            self._used += self._time_size

    cdef int _begin(
        self, const char* kind, tuple row, long long time, order_id, str text, str code, bint sell
    ) except -1:
        """Write the fields with which every order report begins."""
        self.count += 1
        self._grow(FIXED)
        put(self, b'{"type":"')
        put(self, kind)
        put(self, b'","sequence":')
        number(self, row[0])
        put(self, b',"index":')
        number(self, row[1])
        self._stamp(time)
        number(self, order_id)
        put(self, b'","client_order_id":')
        string(self, text)
        put(self, b',"instrument":')
        string(self, code)
        put(self, b',"side":"sell"' if sell else b',"side":"buy"')
        return 0

    cpdef accepted(
        self, tuple row, long long time, str text, str code, str price, long long tokens
    ):
        """Write the report of an ORDER_ACCEPTED; ``price`` is None if the order has none."""
        cdef int flags = row[3]
        cdef long long terms = row[14]
        self._begin(b"accepted", row, time, row[7], text, code, flags & SELL)
        put(self, b',"quantity":"')
        number(self, row[9])
        put(self, b'","leaves_quantity":"')
        number(self, row[10])
        put(self, b'"')
        if price is not None:
            put(self, b',"price":')
            numeral(self, price)
        if flags & MARKET:
            put(self, b',"order_type":"market"')
        if terms & 0xFF:
            put(self, b',"time_in_force":"')
            put(self, <bytes>TIMES[terms & 0xFF])
            put(self, b'"')
        if flags & POST_ONLY:
            put(self, b',"post_only":true')
        put(self, b',"self_trade":"')
        put(self, <bytes>SELF_TRADES[terms >> 8 & 0xFF])
        put(self, b'"')
        if row[13]:
            put(self, b',"session":')
            integer(self, row[13])
        if flags & DUPLICATE:
            put(self, b',"duplicate":true')
        if terms >> 16 & STOP:
            put(self, b',"stop":true')
        if terms >> 16 & ICEBERG:
            put(self, b',"display_quantity":"')
            integer(self, terms >> 32)
            put(self, b'"')
        put(self, b',"tokens":')
        integer(self, tokens)
        put(self, b"},")

    cpdef execution(
        self, tuple row, long long time, bint made, str text, str code, str price, str fee
    ):
        """Write one side's report of a TRADE; with ``made`` the resting side's."""
        cdef int flags = row[3]
        cdef u64 sequence = row[0], index = row[1], maker = row[12]
        cdef bint sold = flags & SELL != 0
        self._begin(b"execution", row, time, row[11] if made else row[7], text, code, sold != made)
        put(self, b',"match_number":"')
        number(self, sequence << INDEX | index)
        put(self, b'","price":')
        numeral(self, price)
        put(self, b',"quantity":"')
        number(self, row[9])
        put(self, b'","leaves_quantity":"')
        number(self, maker >> 32 if made else row[10])
        if flags & AUCTION:
            put(self, b'","liquidity":"auction","fee":')
        elif made:
            put(self, b'","liquidity":"maker","fee":')
        else:
            put(self, b'","liquidity":"taker","fee":')
        numeral(self, fee)
        if row[4]:
            put(self, b',"legs":')
            number(self, row[4])
        put(self, b"},")

    cpdef cancelled(
        self, tuple row, long long time, str text, str code, str price, str request_id
    ):
        """Write the report of an ORDER_CANCELLED; ``request_id`` is that of its command."""
        cdef int flags = row[3]
        self._begin(b"cancelled", row, time, row[7], text, code, flags & SELL)
        put(self, b',"quantity":"')
        number(self, row[9])
        put(self, b'","reason":"')
        put(self, <bytes>REASONS.get(row[4], REQUESTED))
        put(self, b'","price":')
        numeral(self, price)
        if request_id is not None and row[4] in ASKED:
            put(self, b',"request_id":')
            string(self, request_id)
        if flags & RESTING:
            put(self, b',"resting":true')
        if flags & DUPLICATE:
            put(self, b',"duplicate":true')
        put(self, b"},")

    cpdef add(self, bytes report):
        """Write an encoded report."""
        self.count += 1
        encoded(self, report)
        put(self, b",")

    cpdef bytes take(self):
        """Return everything written, separated by commas, and clear the page."""
        cdef bytes text = PyBytes_FromStringAndSize(self._text, max(0, self._used - 1))
        self._used = self.count = 0
        if self._room > KEPT:
            PyMem_Free(self._text)
            self._text, self._room = NULL, 0
        return text
