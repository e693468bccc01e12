"""Room on the disk, promised before it is needed.

The log keeps at least RESERVE_BYTES allocated ahead of itself. When the disk has no more, the log
is ``full``: what was taken by then still fits, new orders are refused, and what is left serves
those who want less: cancels, reductions and halts. It ends when the disk has room again.

Why these figures: the queue may hold QUEUE_COMMANDS (65,536) commands when the disk turns out to be
full. With a client order id each is COMMAND_COST bytes of the log at most, 8.5 MiB together. While
the queue is empty the reserve is 40,000 cancels, each in a frame of its own.
"""

from typing import Final

from exchange.journal.errors import out_of_space
from exchange.journal.storage import File
from exchange.messages import CommandKind

RESERVE_BYTES: Final = 12 << 20
STEP_BYTES: Final = 24 << 20  # allocated at a time
LEAST_BYTES: Final = 1 << 16  # a market that cannot have this much does not start
COMMAND_COST: Final = 136  # 64 record, 8 ingress time, 64 the text that comes with a client's
FRAME_COST: Final = 4_096  # header, notes, a due timer and the text of one operator
LOOK_SECONDS: Final = 1.0  # between two looks whether the disk has room again

# What is taken while the disk is full, and how much of the room must stay for the more urgent.
_SHARE_LEFT: Final[dict[int, float]] = {
    CommandKind.CANCEL: 0.0,
    CommandKind.REDUCE: 0.0,
    CommandKind.MASS_CANCEL: 0.0,
    CommandKind.KILL: 0.0,
    CommandKind.RESUME: 0.0,
    CommandKind.SET_STATE: 0.0,
    CommandKind.SET_MODE: 0.0,
    CommandKind.SET_ACCOUNT: 0.0,
    CommandKind.LOGON: 0.5,
    CommandKind.LOGOFF: 0.25,
}


def make_room(file: File) -> bool:
    """Have the reserve behind the file's end; return whether the disk gave it.

    A full disk gives what it has, in halves. Other errors of the disk pass through as OSError.
    """
    if file.room >= RESERVE_BYTES:
        return True
    wanted = STEP_BYTES
    while wanted >= LEAST_BYTES and wanted > file.room:
        try:
            file.reserve(wanted)
        except OSError as error:
            if not out_of_space(error):
                raise
            wanted //= 2
        else:
            break
    return file.room >= RESERVE_BYTES


def admits(kind: int, room: int, queued: int) -> bool:
    """Whether a full log takes one more command of that kind behind ``queued`` others."""
    share = _SHARE_LEFT.get(kind)
    if share is None:
        return False
    needed = (queued + 1) * COMMAND_COST + 2 * FRAME_COST
    return room - needed >= share * RESERVE_BYTES
