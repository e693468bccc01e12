"""Memory for events: bytes that become the caller's, without a copy."""

from cpython.object cimport PyObject
from libc.string cimport memcpy

from exchange.engine.state cimport i64

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char*, Py_ssize_t)
    char* bytes_of "PyBytes_AS_STRING"(PyObject*)
    void clear_error "PyErr_Clear"()
    void let_go "Py_XDECREF"(PyObject*)


cdef bint lend_events(Market* m, u64 room) noexcept:
    """Lend a new bytes object with room for `room` events; events already emitted move there. False
    without memory: then nothing has changed."""
    cdef PyObject* fresh = new_bytes(NULL, (room + m.set_aside) * sizeof(Event))
    cdef u64 said = m.next_event - m.events
    if fresh == NULL:
        clear_error()
        return False
    if said:
        memcpy(bytes_of(fresh), m.events, said * sizeof(Event))
    let_go(<PyObject*>m.lent)
    m.lent = fresh
    m.events = <Event*>bytes_of(fresh)
    m.next_event = m.events + said
    m.end_event = m.events + room
    return True


cdef void make_room(Market* m, u64 events) noexcept nogil:
    """Make room for so many more events; without memory the engine stops."""
    cdef u64 said = m.next_event - m.events
    cdef bint made = True
    if m.end_event - m.next_event < <i64>events:
        with gil:
            made = lend_events(m, said + events)
    if not made:
        m.broken = 1


cdef void grow_events(Market* m) noexcept nogil:
    """Quadruple the buffer, which is full: so this is rare."""
    make_room(m, 3 * <u64>(m.end_event - m.events))
    if m.broken:
        m.next_event = m.end_event - 1  # overwrite the last event: nobody will read it
