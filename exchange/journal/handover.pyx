"""Hands a file to a thread that syncs it, and the result back, without the interpreter's lock.

A Python thread would have to wait for the interpreter's lock, which the event loop holds until it
sleeps: the sync would begin late, and the loop would learn of its end late. Here each direction is
one eventfd, and the loop watches the second one as it watches its sockets.

Invariant: one sync at a time. From ``ask`` until the thread has signalled ``told``, the fields
belong to the thread.
"""

import os

from libc.errno cimport EINTR, errno
from libc.time cimport time_t


cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* found)

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int file)

cdef extern from "<sys/eventfd.h>" nogil:
    ctypedef unsigned long long eventfd_t
    int eventfd_read(int file, eventfd_t* value)
    int eventfd_write(int file, eventfd_t value)


cdef enum:
    BY_CALL = -1  # sync by the Python call
    NOTHING = -2  # no request is pending
    CLOSED = -1  # a closed descriptor: its number may be reused by now


cdef class Handover:
    """``told`` is an eventfd that becomes readable when a sync has ended; then call ``take``."""

    cdef readonly int told
    cdef int asked
    cdef int file  # the request: one word, so that it is read either whole or not at all
    cdef bint ends
    cdef int failed  # errno of the last sync, 0 if it succeeded
    cdef object error  # what the Python call raised
    cdef double seconds

    def __init__(self):
        """Open both eventfds. OSError if the process has no descriptor left."""
        self.file = NOTHING
        self.asked = os.eventfd(0, os.EFD_CLOEXEC)
        self.told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ask(self, int file):
        """Have the thread make the file's data durable; below zero: have it call ``sync``. OSError
        once closed."""
        self.file = BY_CALL if file < 0 else file
        say(self.asked)

    def serve(self, sync):
        """Serve requests in the calling thread until ``end`` is called."""
        cdef double begun
        cdef int file
        with nogil:
            while True:
                file = self.file
                if file == NOTHING:
                    if self.ends:
                        break
                    heard(self.asked)
                    continue
                self.file = NOTHING
                begun = now()
                if file >= 0:
                    self.failed = synced(file)
                else:
                    with gil:
                        self.error = outcome(sync)
                self.seconds = now() - begun
                say(self.told)

    def take(self):
        """Return the result of the sync that has ended: its errno, or 0; what the Python call
        raised, or None; and its duration in seconds."""
        heard(self.told)
        failed, error, self.failed, self.error = self.failed, self.error, 0, None
        return failed, error, self.seconds

    def end(self):
        """Let a pending request be served, then let ``serve`` return."""
        self.ends = True
        say(self.asked)

    def close(self):
        """Close both eventfds, after ``serve`` has returned."""
        os.close(self.asked)
        os.close(self.told)
        self.asked = self.told = CLOSED


cdef object outcome(sync):
    try:
        sync()
    except Exception as error:  # passed on whole: the loop raises it
        return error
    return None


cdef int say(int way) except -1 nogil:
    """Signal an eventfd. OSError if it is closed."""
    if eventfd_write(way, 1):
        with gil:
            raise OSError(errno, os.strerror(errno))
    return 0


cdef void heard(int way) noexcept nogil:
    """Wait for a signal and clear it. A Unix signal may end the wait early, with nothing read."""
    cdef eventfd_t value
    eventfd_read(way, &value)


cdef int synced(int file) noexcept nogil:
    while fdatasync(file):
        if errno != EINTR:
            return errno
    return 0


cdef double now() noexcept nogil:
    cdef timespec found
    clock_gettime(CLOCK_MONOTONIC, &found)
    return found.tv_sec + 1e-9 * found.tv_nsec
