"""What the legs of a combination traded by when one of the day's trades was made.

Prices and fees of legs follow from anchors, limits and fees, which only commands change. So the
engine keeps no trades, only what such a command of the open day replaced: whoever takes one back
looks for the first change after it. Invariant: sequences ascend, none is before `legs_known`.
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
    """Of a trade under this sequence of the day, after `legs_known`. One under the sequence of the
    change itself was a timer's, and timers come before commands."""
    cdef u32 i
    for i in range(m.leg_change_count):
        if m.leg_changes[i].sequence >= sequence and m.leg_changes[i].instrument == instrument:
            return m.leg_changes[i]
    return terms_now(m, instrument)


cdef void note_change(Market* m, u32 instrument) noexcept nogil:
    """What a leg trades by is about to change. Where there is no room for it, all are forgotten."""
    if not m.day_open or not has_living(m, instrument):
        return
    if m.leg_change_count == LIMIT_LEG_CHANGES:
        m.leg_change_count = 0
        m.legs_known = m.sequence
    m.leg_changes[m.leg_change_count] = terms_now(m, instrument)
    m.leg_change_count += 1
