"""Packs a command record in C, with the same result as ``decode.RECORD``.

The record is little-endian, like the engine's and like every machine that this is built for.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

ctypedef unsigned char u8
ctypedef unsigned short u16
ctypedef unsigned int u32
ctypedef long long i64

cdef enum:
    ID_BYTES = 16

cdef packed struct Record:
    u8 kind, side, tif, flags
    u32 instrument, account, session
    i64 price
    u32 quantity
    u16 operator
    u8 stp, features
    char target[ID_BYTES]
    char key[ID_BYTES]


cpdef bytes pack_command(
    u8 kind, u8 side, u8 tif, u8 flags, u32 instrument, u32 account, u32 session,
    i64 price, u32 quantity, u8 stp, u8 features, bytes target, bytes key,
):
    """Return the record. Raises OverflowError for a number that does not fit into its field, and
    ValueError for an id of another size."""
    cdef Record record
    if len(target) != ID_BYTES or len(key) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes")
    record.kind, record.side, record.tif, record.flags = kind, side, tif, flags
    record.instrument, record.account, record.session = instrument, account, session
    record.price, record.quantity, record.operator = price, quantity, 0
    record.stp, record.features = stp, features
    memcpy(record.target, <char*>target, ID_BYTES)
    memcpy(record.key, <char*>key, ID_BYTES)
    return PyBytes_FromStringAndSize(<char*>&record, sizeof(Record))
