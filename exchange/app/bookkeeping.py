"""Runs clearing in its own process, so that it takes no time from the process that serves orders.

The child follows the released stream over ``DIR/stream.sock``, books it into ``DIR/ledger.db`` and
ends with the stream; signals do not end it earlier. The serving process reads the ledger directly.

If a server is killed its child stays until it has booked what is left. Therefore the ledger's
writer holds ``DIR/ledger.lock``, and the next server waits for it. A server that books in a thread
holds the lock only while it stops; before that the directory's lock is enough.
"""

import asyncio
import fcntl
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from exchange.app import processors
from exchange.clearing import Clearing
from exchange.clearing.store import Damaged
from exchange.journal import stream
from exchange.journal.tape import Released, Tape

LEDGER_NAME: Final = "ledger.db"
LOCK_NAME: Final = "ledger.lock"
STREAM_NAME: Final = "stream.sock"
LOOK_SECONDS: Final = 0.05  # between two checks of the child's progress
FULL_SECONDS: Final = 1.0  # between two tries while the disk is full
UNUSABLE: Final = 3  # exit code of a child that cannot write the ledger
_log = logging.getLogger(__name__)


class ClearingDied(Exception):
    """The clearing process ended before the stream."""


async def keep(directory: Path, tape: Tape, clearing: Clearing, frames: int, pause: float) -> None:
    """Run the child until the stream ends, which must be served already. ``clearing`` is the
    ledger, opened for reading; ``frames`` and ``pause`` are the arguments of ``book``.

    Raises ClearingDied; Damaged if the child could not use the ledger, which it has logged.
    """
    run = f"import sys; from {__name__} import main; main(*sys.argv[1:])"
    arguments = ("-c", run, str(directory), str(frames), str(pause), str(os.getpid()))
    child = await processors.start_child(
        sys.executable, *arguments, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    ended = asyncio.create_task(child.wait())
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=LOOK_SECONDS)
            await asyncio.to_thread(clearing.look)
    finally:
        ended.cancel()
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == UNUSABLE:
        raise Damaged("the clearing process cannot go on with it")
    if child.returncode != 0 or clearing.position[1] < tape.last[1]:
        raise ClearingDied(f"the clearing process ended with exit code {child.returncode}")


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the ledger's lock, after waiting for its present holder."""
    with open(directory / LOCK_NAME, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def booked(clearing: Clearing, frames: Sequence[Released], waited: bool = False) -> bool:
    """Book the frames. Return False, with nothing booked, if the disk is full.

    Logs when the disk becomes full and when it no longer is; ``waited`` says whether it was full
    before. Raises Damaged.
    """
    try:
        clearing.apply(frames)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        if not waited:
            _log.error("clearing waits for room on the disk: %s", error)
        return False
    except sqlite3.IntegrityError as error:
        raise Damaged(f"it has what is to be booked: {error}") from error
    if waited:
        _log.warning("clearing goes on: there is room on the disk again")
    return True


def book(directory: Path, frames_max: int, pause: float) -> None:
    """Book the stream until it ends, at most ``frames_max`` batches per transaction.

    It sleeps ``pause`` seconds after every transaction, so that transactions are larger and fewer.
    """
    with closing(Clearing.open(directory / LEDGER_NAME)) as clearing:
        following = stream.Subscription(directory / STREAM_NAME, clearing.position)
        with closing(following):
            while come := following.come(frames_max):
                for at in range(0, len(come), frames_max):
                    waits = False
                    while waits := not booked(clearing, come[at : at + frames_max], waits):
                        time.sleep(FULL_SECONDS)
                    time.sleep(pause)


def main(directory: str, frames: str, pause: str, server: str) -> None:
    """Run the child of the server with process id ``server``. An orphan books nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the stream
    with alone(Path(directory)):
        if os.getppid() == int(server):
            try:
                book(Path(directory), int(frames), float(pause))
            except sqlite3.DatabaseError as error:
                _log.critical("%s: %s", Path(directory) / LEDGER_NAME, error)
                sys.exit(UNUSABLE)
