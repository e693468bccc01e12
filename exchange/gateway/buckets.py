"""The accounts' throttles, computed from the released stream: how many tokens each has left.

The engine decides, on log time (docs/reference/engine.md); this repeats its arithmetic so that
replies can state what is left. One case is ambiguous in the stream and counts as free: a replace at
price 0 that is rejected for its quantity looks like a reduce.
"""

from typing import Final

from exchange.gateway.decode import ORDER, digest, is_id
from exchange.marketdata.stream import Row
from exchange.messages import EventKind, Reason

_REJECTED: Final = int(EventKind.REJECTED)
_BEHIND: Final = frozenset(  # rejects that come after THROTTLED in the engine's precedence
    map(
        int,
        (
            Reason.QUANTITY_RANGE, Reason.ACCOUNT_MAX_QUANTITY, Reason.ORDER_VALUE,
            Reason.NOTIONAL, Reason.TICK, Reason.LOT, Reason.PRICE_LIMIT, Reason.FEATURE_OFF,
            Reason.PRICE_BAND, Reason.NOT_IN_AUCTION, Reason.POST_ONLY, Reason.MINIMUM,
            Reason.EXPIRY, Reason.AUCTION_ONLY, Reason.TRIGGER, Reason.DISPLAY,
            Reason.NOT_OUTRIGHT, Reason.GROUP, Reason.REDUCE_ONLY, Reason.QUOTES_BLOCKED,
            Reason.CROSSED, Reason.OPEN_ORDERS, Reason.ALL_MONTHS_LIMIT, Reason.POSITION_LIMIT,
            Reason.MARGIN, Reason.MEMBER_MARGIN, Reason.BOOK_FULL, Reason.ORDERS_FULL,
            Reason.POSITIONS_FULL, Reason.ICEBERGS_FULL, Reason.REDUCING_FULL,
            Reason.GROUPS_FULL,
        ),
    )
)  # fmt: skip
_OF_REDUCE: Final = frozenset({int(Reason.QUANTITY_RANGE), int(Reason.LOT)})


class Bucket:
    """One account's throttle (GCRA): ``tat`` is when all tokens are back; ns of log time."""

    __slots__ = ("burst", "interval", "tat")

    def __init__(self, interval: int = 0, burst: int = 1, tat: int = 0) -> None:
        self.interval, self.burst, self.tat = interval, burst, tat

    def spend(self, now: int) -> None:
        """Take one token."""
        self.tat = (self.tat if self.tat > now else now) + self.interval

    def left(self, now: int) -> int:
        """Return the whole tokens left."""
        ahead = self.tat - now
        if ahead <= 0 or not self.interval:
            return self.burst
        return self.burst - -(-ahead // self.interval)


def spends(row: Row, text: str | None) -> bool:
    """Return whether the command of a REJECTED or QUOTED event spent a token.

    The event is not a duplicate's; ``text`` came with the command.
    """
    if row[2] == _REJECTED:
        return row[4] in _BEHIND and _is_dear(row, text)
    return row[9] > 0 or row[10] > 0


def _is_dear(row: Row, text: str | None) -> bool:
    """Whether a reject with a reason after THROTTLED is of a client's request that spends tokens.

    A client's request has its id as text.
    """
    if text is not None:
        if not is_id(text):
            return False
        key = row[11].to_bytes(8, "little") + row[12].to_bytes(8, "little")
        if key == digest(text, ORDER):
            return True
    return row[4] != Reason.NOT_OUTRIGHT and (row[8] != 0 or row[4] not in _OF_REDUCE)
