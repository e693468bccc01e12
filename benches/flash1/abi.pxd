# The C interface of the flash1 matching-engine benchmark, from its documentation
# (github.com/flash1-dev/matching-engine-benchmark, docs/INTEGRATION.md). Layouts and names are
# part of the interface and must stay as they are.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct new_order_t:  # 32 bytes
    uint64_t order_id, sequence_number
    int64_t price_ticks
    uint32_t quantity
    uint8_t side, ioc
    uint8_t[2] reserved

cdef struct cancel_t:  # 16 bytes
    uint64_t order_id, sequence_number

cdef struct modify_t:  # 32 bytes
    uint64_t order_id, sequence_number
    int64_t new_price_ticks
    uint32_t new_quantity
    uint8_t side
    uint8_t[3] reserved

cdef struct me_msg_t:  # 40 bytes: a kind, then one of the three
    uint8_t type
    uint8_t[7] reserved
    uint64_t[4] payload

cdef enum:
    ORDER_ACK = 0
    TRADE = 1
    CANCEL_ACK = 2
    MODIFY_ACK = 3
    CANCEL_REJECT = 4
    MODIFY_REJECT = 5

cdef struct me_report_t:  # 64 bytes
    uint8_t type, side
    uint8_t[6] reserved
    uint64_t sequence_number, order_id
    int64_t price_ticks
    uint32_t quantity, reserved2
    uint64_t maker_order_id, taker_order_id, reserved3

cdef struct me_transport_t:
    void* (*create)(uint32_t capacity) noexcept nogil
    int (*push)(void* handle, const me_report_t* report) noexcept nogil
    uint32_t (*drain)(void* handle, me_report_t* out, uint32_t most) noexcept nogil
    void (*flush)(void* handle) noexcept nogil
    void (*destroy)(void* handle) noexcept nogil
