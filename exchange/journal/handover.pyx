"""Hands a file to a thread that syncs it, and the outcome back, without the interpreter.

A thread that needs the interpreter's lock wakes twice, for its work and for the lock, which the
event loop keeps until it sleeps: the disk would begin late, and the loop hear late of its end.
Here each way is one eventfd, and the loop watches the second as it watches its sockets.

Invariant: one sync at a time. From ``ask`` until the thread has told, the fields are the thread's.
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
    BY_CALL = -1  # of Python
    NOTHING = -2  # waits to be begun
    CLOSED = -1  # where a descriptor was, whose number may be another's by now


cdef class Handover:
    """``told`` is the eventfd that can be read once a sync has ended; then call ``take``."""

    cdef readonly int told
    cdef int asked
    cdef int file  # what is to be synced: one word, so that all of a wish is seen, or none of it
    cdef bint ends
    cdef int failed  # errno of the sync, 0 if there was none
    cdef object error  # what the call raised
    cdef double seconds

    def __init__(self):
        """Make both ways. OSError where the process has no descriptor left."""
        self.file = NOTHING
        self.asked = os.eventfd(0, os.EFD_CLOEXEC)
        self.told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ask(self, int file):
        """Have the thread make the file's data durable; below zero: have it call ``sync``. OSError
        once closed.
        """
        self.file = BY_CALL if file < 0 else file
        say(self.asked)

    def serve(self, sync):
        """Do what is asked, in the thread that calls this, until the end."""
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
        """Return how the sync that has ended did: its errno, or 0; what the call raised, or None;
        and how many seconds it took.
        """
        heard(self.told)
        failed, error, self.failed, self.error = self.failed, self.error, 0, None
        return failed, error, self.seconds

    def end(self):
        """Let what was asked for be done, and ``serve`` return."""
        self.ends = True
        say(self.asked)

    def close(self):
        """Close both ways, once nobody serves any more."""
        os.close(self.asked)
        os.close(self.told)
        self.asked = self.told = CLOSED


cdef object outcome(sync):
    try:
        sync()
    except Exception as error:  # handed over whole, for the loop to raise
        return error
    return None


cdef int say(int way) except -1 nogil:
    """Wake who waits for it. OSError where the way is closed."""
    if eventfd_write(way, 1):
        with gil:
            raise OSError(errno, os.strerror(errno))
    return 0


cdef void heard(int way) noexcept nogil:
    """Wait for what is written, and read it; a signal may wake it sooner, with nothing."""
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
