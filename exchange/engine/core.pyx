"""The engine: applies batches of commands to a market and returns their events.

Rules: docs/reference/engine.md. One call is one batch. It runs without the GIL, unless it is a few
orders, which take less time than to release it. A broken invariant, an overflow or a lack of memory
stops the engine (see BROKEN): it applies nothing more and gives no snapshot.
"""

from cpython.buffer cimport (
    Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from exchange.engine.batch cimport apply_batch
from exchange.engine.book cimport occupied_above, occupied_below, price_of
from exchange.engine.check cimport check_market
from exchange.engine.events cimport lend_events
from exchange.engine.image cimport image_of
from exchange.engine.risk cimport hold_of, position_of, required_of
from exchange.engine.safety cimport next_resume
from exchange.engine.snapshot cimport image_in, image_out
from exchange.engine.stops cimport next_slice
from exchange.engine.state cimport (
    LOSS_REACHED, Account, Bucket, Command, Event, Instrument, Known, Level, Market, NO_ASK, NO_BID,
    Position, auction_of, collects, i32, i64, market_free, market_new, u32, u64, u8, unlikely,
    working_of,
)
from exchange.engine.vocabulary cimport (
    COMMAND_KIND_REPLACE, LIMIT_IDEMPOTENCY_WINDOW, LIMIT_QUANTITY,
)

import cython

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char*, Py_ssize_t)
    int resize_bytes "_PyBytes_Resize"(PyObject**, Py_ssize_t)

BROKEN = {1: "out of memory", 2: "money overflowed", 3: "cash is not deposits less withdrawals",
          4: "a settlement's variations do not sum to zero", 5: "an invariant"}

cdef enum:
    FEW = 98  # events there is room for in the engine itself, for batches of a few commands


cdef inline bint are_orders(const Command* c, u64 count) noexcept nogil:
    """Whether all are ENTER, CANCEL, REDUCE or REPLACE: the lowest kinds."""
    cdef u64 k
    for k in range(count):
        if c[k].kind > COMMAND_KIND_REPLACE:
            return False
    return True


cdef bytes take_events(Market* m):
    """The batch's events as bytes, which the caller owns; MemoryError without memory, and then the
    engine has stopped."""
    cdef PyObject* said = <PyObject*>m.lent
    cdef Py_ssize_t size = <char*>m.next_event - <char*>m.events
    if said == NULL:
        said = new_bytes(<char*>m.events, size)
    else:
        resize_bytes(&said, size)
    m.events = m.next_event = m.end_event = NULL
    m.lent = NULL
    m.set_aside = 0
    if said == NULL:
        m.broken = 1
        raise MemoryError("the events of a batch")
    out = <bytes>said
    Py_DECREF(out)  # the cast has counted it once more
    return out


@cython.final
cdef class Engine:
    """A market: its whole state, changed only by `apply`.

    Prices in ticks, quantities in lots, money in micro-dollars, time in nanoseconds.
    """

    cdef Market* m
    cdef Event[FEW] few  # events of a few commands: to copy them is cheaper than to shrink bytes

    def __cinit__(self):
        self.m = market_new()

    def __dealloc__(self):
        if self.m != NULL:
            market_free(self.m)

    def apply(self, commands not None, u64 first_sequence, i64 stamp_ns):
        """Apply n × 64 bytes of commands under one stamp; return their events, m × 80 bytes.

        Raises ValueError if the bytes are not whole records, BufferError if the object does not
        give them in one piece; then nothing was applied. AssertionError, or MemoryError for the
        events: see above, the engine may have stopped.
        """
        cdef Py_buffer view
        if type(commands) is bytes:
            return self._apply(PyBytes_AS_STRING(commands), PyBytes_GET_SIZE(commands),
                               first_sequence, stamp_ns)
        PyObject_GetBuffer(commands, &view, PyBUF_SIMPLE)
        try:
            if <size_t>view.buf % sizeof(u64):  # not aligned: commands are read by the word
                aligned = PyBytes_FromStringAndSize(<const char*>view.buf, view.len)
                return self._apply(PyBytes_AS_STRING(aligned), view.len, first_sequence, stamp_ns)
            return self._apply(<const char*>view.buf, view.len, first_sequence, stamp_ns)
        finally:
            PyBuffer_Release(&view)

    cdef bytes _apply(self, const char* records, u64 size, u64 first, i64 stamp):
        cdef Market* m = self.m
        cdef u64 count = size // sizeof(Command)
        cdef u64 room = 3 * count + 13
        if unlikely(count * sizeof(Command) != size):
            raise ValueError(f"{size} bytes are not whole records of 64")
        if unlikely(m.broken):
            raise AssertionError(f"the engine has stopped: {BROKEN[m.broken]}")
        if unlikely(count == 0):
            return b""
        m.set_aside = <u32>(2 * count)
        if room + m.set_aside <= FEW:
            m.events = self.few
            m.end_event = m.events + FEW - m.set_aside
        elif not lend_events(m, room):
            raise MemoryError("the events of a batch")
        if m.lent == NULL and are_orders(<const Command*>records, count):
            apply_batch(m, <const u8*>records, count, first, stamp)
        else:
            with nogil:
                apply_batch(m, <const u8*>records, count, first, stamp)
        out = take_events(m)
        if unlikely(m.broken):
            raise AssertionError(f"the engine has stopped: {BROKEN[m.broken]}")
        return out

    def next_deadline(self):
        """The stamp at which something is next due: a session's end, a GTD order's, elected stops,
        the end of a halt; 0 if nothing is."""
        cdef Market* m = self.m
        cdef i64 due = m.timers[0].due if m.timer_count else 0
        cdef Instrument* book = next_slice(m)
        if m.expiry_count and (due == 0 or m.expiries[0].due < due):
            due = m.expiries[0].due
        if book != NULL and (due == 0 or m.stops[book - m.instruments].due < due):
            due = m.stops[book - m.instruments].due
        book = next_resume(m)
        if book != NULL and (due == 0 or m.safety[book - m.instruments].resume_at < due):
            due = m.safety[book - m.instruments].resume_at
        return due

    def state_bytes(self, bint buckets=True):
        """The canonical bytes of all state that can change a later event; see image.pyx.

        `buckets` False leaves out what the throttles have spent, as a reject may change it.
        """
        return image_of(self.m, buckets)

    def snapshot(self):
        """The whole state as this build's memory image, for `restore`. See snapshot.pyx.

        Raises AssertionError if the engine has stopped.
        """
        if self.m.broken:
            raise AssertionError(f"the engine has stopped: {BROKEN[self.m.broken]}")
        return image_out(self.m)

    def restore(self, const u8[::1] image not None):
        """Become the engine that `image` was taken of.

        Raises ValueError if it is no image of this build, MemoryError without memory; then nothing
        has changed. Every index read is checked to be within its table; whether the state is right,
        `state_bytes` and `check` tell.
        """
        cdef Market* m = image_in(image)
        market_free(self.m)
        self.m = m

    def check(self):
        """Verify every invariant from first principles; AssertionError names the broken one."""
        check_market(self.m)

    def account(self, u32 account_id):
        """Money and limits of an account; KeyError if it is not open."""
        cdef Account* a
        if account_id >= self.m.account_capacity or not self.m.accounts[account_id].is_open:
            raise KeyError(account_id)
        a = &self.m.accounts[account_id]
        return {
            "cash": a.cash, "hold": hold_of(a), "credit": a.credit, "unrealized": a.unrealized,
            "required": required_of(a), "open_orders": a.open_orders, "member": a.member_id,
            "group": a.group, "kind": a.kind, "currency": a.currency,
            "killed": bool(a.killed & ~LOSS_REACHED), "loss_reached": bool(a.killed & LOSS_REACHED),
            "in_deficit": bool(a.in_deficit), "max_open_orders": a.max_open_orders,
            "max_order": 0 if a.max_order == LIMIT_QUANTITY else a.max_order,
        }

    def position(self, u32 account_id, u32 instrument_id):
        """Lots and amounts of an account in an instrument; zeros if it has no record there."""
        cdef Position* p = &self.m.positions[0]
        if account_id < self.m.account_top:
            p = &self.m.positions[position_of(&self.m.accounts[account_id], instrument_id)]
        return {
            "net": p.net, "working_buy": working_of(p, 0),
            "working_sell": working_of(p, 1),
            "adverse": p.adverse, "cost": p.cost, "hold": p.hold,
        }

    def instrument(self, u32 instrument_id):
        """State and parameters of an instrument; KeyError if it was never listed."""
        cdef Instrument* i
        if instrument_id >= self.m.instrument_count:
            raise KeyError(instrument_id)
        i = &self.m.instruments[instrument_id]
        return {
            "state": i.state, "halt_cause": i.halt_cause, "mark": i.mark, "low": i.low,
            "high": i.high, "price_step": i.price_step, "lot_step": i.lot_step,
            "multiplier": i.multiplier, "tick_scale": i.tick_scale, "rate": i.rate,
            "position_limit": i.position_limit, "max_order": i.max_order,
            "maker_fee": i.maker_fee, "taker_fee": i.taker_fee,
            "working_orders": i.working_orders, "last_settled": i.last_settled,
            "product": i.product, "credit": self.m.composites[instrument_id].credit,
        }

    def book(self, u32 instrument_id, u32 levels=0):
        """(bids, asks), each [(price_ticks, lots, orders)] best first; `levels` 0 = all."""
        cdef Instrument* i
        if instrument_id >= self.m.instrument_count:
            raise KeyError(instrument_id)
        i = &self.m.instruments[instrument_id]
        return self._side(i, 0, levels), self._side(i, 1, levels)

    cdef list _side(self, Instrument* i, int side, u32 levels):
        cdef Instrument* ladder = i
        cdef Level* market
        cdef Level* level
        cdef i32 at
        cdef list out = []
        if collects(i):
            market = &auction_of(self.m, i).market[side]
            ladder = &auction_of(self.m, i).asks if side else i
            if market.head:  # market orders are shown at the day's far limit
                out.append((i.low if side else i.high, market.quantity, self._count(market)))
        at = ladder.best[side]
        while NO_BID < at < NO_ASK and (levels == 0 or len(out) <= levels):
            level = &ladder.levels[at]
            price, lots, orders = price_of(i, at), level.quantity, self._count(level)
            if out and out[len(out) - 1][0] == price:  # no index wraps here
                _, more_lots, more_orders = out.pop()
                lots, orders = lots + more_lots, orders + more_orders
            out.append((price, lots, orders))
            at = occupied_above(ladder, at) if side else occupied_below(ladder, at)
        return out[:levels] if levels else out

    cdef u32 _count(self, Level* level):
        cdef u32 slot = level.head
        cdef u32 orders = 0
        while slot:
            orders += 1
            slot = self.m.orders[slot].next
        return orders

    def counts(self):
        """How many orders, slots, accounts and so on there are, and the business day."""
        cdef Market* m = self.m
        cdef u32 i
        cdef u32 free_slots = 0
        working = sum(m.instruments[i].working_orders for i in range(m.instrument_count))
        i = m.order_free
        while i:
            free_slots += 1
            i = m.orders[i].next
        return {
            "orders": working, "slots": m.order_top - 1 - free_slots,
            "accounts": sum(m.accounts[i].is_open for i in range(m.account_top)),
            "instruments": m.instrument_count, "positions": m.position_top - 1 - m.vacant,
            "sessions": sum((m.sessions[i].standing & 0xFFFF) != 0 for i in range(m.session_top)),
            "timers": m.timer_count, "business_date": m.business_date,
            "day_open": bool(m.day_open), "rules_version": m.rules_version, "mode": m.mode,
            "deposits": m.deposits, "stamp": m.stamp,
        }

    def taken(self):
        """How many order slots have been taken at once at the most, and how many position records
        are now; both with the one that stands for none."""
        return {"orders": self.m.order_top, "positions": self.m.position_top - self.m.vacant}

    def memory(self):
        """Bytes in use by structure, counting what has been touched, not what is reserved."""
        cdef Market* m = self.m
        cdef u32 i
        ladders = 0
        for i in range(m.instrument_count):
            ladders += m.instruments[i].slots * 16 + m.instruments[i].slots // 8
        return {
            "orders": m.order_top * 64, "ids": m.bucket_mask + sizeof(Bucket),
            "positions": m.position_top * 64, "ladders": ladders,
            "accounts":
                m.account_top * (sizeof(Account) + sizeof(Known) * LIMIT_IDEMPOTENCY_WINDOW),
        }
