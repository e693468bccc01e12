cimport cython


cdef class Instrument:
    cdef readonly object id, multiplier, tick_scale, tick_value, product, price_step, lot_step
    cdef readonly object data, decimals, tick_units
    cdef readonly str code
    cdef readonly list legs
    cdef readonly tuple channels
    cdef readonly dict breakers
    cdef public object low_ticks, high_ticks, mark, anchor, rule, state, cause, resumes
    cdef public object risk, protections, implied, settlement_price
    cdef dict _price_texts

    @cython.locals(text=str)
    cpdef str price_text(self, ticks)
