"""The terms by which the legs of a combination traded when one of the day's trades was made.

The prices and fees of legs follow from their anchors, limits and fees, which only SET_LIMITS,
SET_RISK and SETTLE change. So the engine keeps no trades, only the terms that such commands of the
open day replaced, each with the command's sequence: a trade's terms are those of the first change
after it, or the present ones. Invariant: sequences ascend, none is before `legs_known`.
"""

from exchange.engine.combinations cimport has_living
from exchange.engine.state cimport Instrument
from exchange.engine.vocabulary cimport *


cdef LegTerms terms_now(Market* m, u32 instrument) noexcept nogil:
    cdef Instrument* leg = &m.instruments[instrument]
    cdef LegTerms terms
    terms.sequence = m.sequence
    terms.instrument = instrument
    terms.spare = 0
    terms.anchor = m.composites[instrument].anchor
    terms.low = leg.low
    terms.high = leg.high
    terms.maker_fee = leg.maker_fee
    terms.taker_fee = leg.taker_fee
    return terms


cdef LegTerms terms_then(Market* m, u32 instrument, u64 sequence) noexcept nogil:
    """A leg's terms as of a trade under this sequence of the day, after `legs_known`. A trade under
    the sequence of the change itself was a timer's, before the change."""
    cdef u32 i
    for i in range(m.leg_change_count):
        if m.leg_changes[i].sequence >= sequence and m.leg_changes[i].instrument == instrument:
            return m.leg_changes[i]
    return terms_now(m, instrument)


cdef void note_change(Market* m, u32 instrument) noexcept nogil:
    """Note an instrument's present terms, which are about to change, if it is a leg and the day is
    open. If there is no room, all noted before are forgotten."""
    if not m.day_open or not has_living(m, instrument):
        return
    if m.leg_change_count == LIMIT_LEG_CHANGES:
        m.leg_change_count = 0
        m.legs_known = m.sequence
    m.leg_changes[m.leg_change_count] = terms_now(m, instrument)
    m.leg_change_count += 1
