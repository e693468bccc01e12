"""SET_PROTECTIONS, SET_BREAKER, SET_FEATURE: the commands that set what safety.pyx enforces."""

from exchange.engine.events cimport blank
from exchange.engine.instruments cimport refuse_outright
from exchange.engine.lifecycle cimport reject
from exchange.engine.months cimport withdraw_all
from exchange.engine.safety cimport clear_windows, watch_of
from exchange.engine.state cimport Event, Safety, WATCH_BREAKER, WATCH_LIMITS, Window, i64, u32
from exchange.engine.vocabulary cimport *

cdef u32 FEATURES = (
    1 << FEATURE_REDUCE_ONLY | 1 << FEATURE_GROUPS | 1 << FEATURE_STOPS | 1 << FEATURE_ICEBERGS
    | 1 << FEATURE_BANDS | 1 << FEATURE_CIRCUIT_BREAKER | 1 << FEATURE_VELOCITY
    | 1 << FEATURE_ACCOUNTABILITY | 1 << FEATURE_ORDER_VALUE | 1 << FEATURE_ALL_MONTHS_LIMIT
    | 1 << FEATURE_LOSS_LIMIT
)
cdef i64 SPAN_MOST = <i64>1 << 50  # ns: thirteen days


cdef void watch(Market* m, u32 instrument) noexcept nogil:
    cdef u32 others = ~<u32>(WATCH_BREAKER | WATCH_LIMITS)
    m.instruments[instrument].watched &= others
    m.instruments[instrument].watched |= watch_of(m, instrument)


cdef void set_protections(Market* m, Command* c) noexcept nogil:
    cdef i64 most = LIMIT_PRICE
    cdef i64 value = <i64>c.target_lo
    cdef i64 all_months = <i64>c.target_hi
    cdef Safety* s
    cdef Event* e
    if refuse_outright(m, c):
        return
    if (c.price < 0 or c.price > most or value < 0 or value > <i64>LIMIT_MONEY or all_months < 0
            or all_months > <i64>LIMIT_POSITION):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    s = &m.safety[c.instrument]
    s.band = c.price
    s.order_value = value
    s.all_months = all_months
    s.accountability = c.quantity
    watch(m, c.instrument)
    withdraw_all(m)
    e = blank(m, EVENT_KIND_PROTECTIONS_CHANGED, 0, 0, c.instrument, 0)
    e.price = c.price
    e.quantity = c.quantity
    e.a = value
    e.b = all_months


cdef void set_breaker(Market* m, Command* c) noexcept nogil:
    cdef i64 most = LIMIT_PRICE
    cdef i64 span = <i64>c.target_lo
    cdef i64 wait = <i64>c.target_hi
    cdef Window* w
    cdef Event* e
    if refuse_outright(m, c):
        return
    if (c.tif > BREAKER_VELOCITY or c.price < 0 or c.price > most or c.quantity > 1
            or span < LIMIT_WINDOW_PARTS or span > SPAN_MOST or wait < 0 or wait > SPAN_MOST):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    w = &m.safety[c.instrument].windows[c.tif]
    w.variation = c.price
    w.span = span
    w.halt = wait
    w.whole_product = c.quantity
    w.part = m.stamp / (span / LIMIT_WINDOW_PARTS)
    clear_windows(&m.safety[c.instrument])
    watch(m, c.instrument)
    e = blank(m, EVENT_KIND_BREAKER_CHANGED, 0, c.tif, c.instrument, 0)
    e.price = c.price
    e.quantity = c.quantity
    e.a = span
    e.b = wait


cdef void set_feature(Market* m, Command* c) noexcept nogil:
    cdef u32 bit
    cdef u32 i
    if c.tif > 31 or not FEATURES >> c.tif & 1 or c.quantity > 1:
        reject(m, c, REASON_PARAMETER_RANGE, 0, c.tif)
        return
    bit = <u32>1 << c.tif
    m.features_off = m.features_off & ~bit if c.quantity else m.features_off | bit
    for i in range(m.instrument_count):
        watch(m, i)
    withdraw_all(m)
    blank(m, EVENT_KIND_FEATURE_CHANGED, 0, c.tif, 0, 0).quantity = c.quantity
