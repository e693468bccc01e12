"""Reserves space on the disk before it is needed.

The log keeps at least RESERVE_BYTES allocated behind its end. When the disk cannot give more, the
log is ``full``: commands accepted by then still fit, new orders are refused, and the rest of the
reserve is kept for what lowers risk: cancels, reductions and halts. It ends when the disk has space
again.

The figures: the queue may hold QUEUE_COMMANDS (65,536) commands when the disk is found full. With a
client order id each takes at most COMMAND_COST bytes of the log, 8.5 MiB together. With an empty
queue the reserve is enough for 40,000 cancels, each in a frame of its own.
"""

from typing import Final

from exchange.journal.errors import out_of_space
from exchange.journal.storage import File
from exchange.messages import CommandKind

RESERVE_BYTES: Final = 12 << 20
STEP_BYTES: Final = 24 << 20  # allocated at a time
LEAST_BYTES: Final = 1 << 16  # with less than this a market does not start
COMMAND_COST: Final = 136  # 64 record, 8 ingress time, 64 the client's text
FRAME_COST: Final = 4_096  # header, notes, a due timer and the text of one operator
LOOK_SECONDS: Final = 1.0  # between two checks whether the disk has space again

# The commands accepted while the disk is full: the share of the reserve that must stay free after
# each, for more urgent ones.
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
    """Reserve space behind the file's end; return whether RESERVE_BYTES are reserved.

    If the disk does not give STEP_BYTES, half of it is tried, then a quarter, and so on down to
    LEAST_BYTES. Raises OSError for other errors of the disk.
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
    """Whether a full log accepts one more command of that kind behind ``queued`` others.

    ``room``: the bytes reserved.
    """
    share = _SHARE_LEFT.get(kind)
    if share is None:
        return False
    needed = (queued + 1) * COMMAND_COST + 2 * FRAME_COST
    return room - needed >= share * RESERVE_BYTES
