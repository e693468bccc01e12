"""A command tried on a copy of the market: what it would do, by the engine's own rules."""

import time
from collections.abc import Callable
from typing import Final

from exchange.engine import Engine
from exchange.gateway.decode import Refused
from exchange.gateway.previews import Outcome, Tried
from exchange.messages import COMMAND, CommandKind
from exchange.messages.access import GatewayReason
from exchange.sequencer import Sequencer

MARKET_SHARE: Final = 20
STATE_BYTES: Final = 16 << 20  # what a copy may hold at most: the market waits for it
_TICK: Final = COMMAND.pack(int(CommandKind.ADVANCE_TIME), *bytes(15))


class Trial:
    """Tries commands on copies of an engine, each as the next command of its log.

    A copy is made and dropped every time, and the market waits while its state is copied; all of
    that together takes a ``MARKET_SHARE``-th of the market's time at most. No copy is larger than
    ``STATE_BYTES``.
    """

    def __init__(self, engine: Engine, sequencer: Sequencer, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._sequencer = sequencer
        self._clock = clock
        self._free_ns = 0  # no trial before; on the machine's own clock

    def __call__(self, account: int, record: bytes, tell: Callable[[Outcome], None]) -> None:
        """Tell what a record would do to an account that is open. Nothing else changes."""
        begun = time.monotonic_ns()
        if begun < self._free_ns:
            limit = f"1/{MARKET_SHARE} of the time"
            return tell(Refused(GatewayReason.REQUESTS_FULL, None, "previews", limit=limit))
        held = sum(self._engine.memory().values())
        if held > STATE_BYTES:
            limit, observed = str(STATE_BYTES), str(held)
            large = GatewayReason.STATE_TOO_LARGE
            return tell(Refused(large, None, "a preview", limit=limit, observed=observed))
        tried = self._try(account, record)
        ended = time.monotonic_ns()
        self._free_ns = ended + (MARKET_SHARE - 1) * (ended - begun)
        tell(tried)

    def _try(self, account: int, record: bytes) -> Tried:
        copy = Engine()
        copy.restore(self._engine.snapshot())
        sequence = self._sequencer.sequence
        stamp = max(self._sequencer.stamp, self._clock())
        copy.apply(_TICK, sequence + 1, stamp)  # what is due comes before it
        before = _money(copy, account)
        events = copy.apply(record, sequence + 2, stamp)
        return Tried(sequence, stamp, events, before, _money(copy, account))


def _money(engine: Engine, account: int) -> tuple[int, int]:
    found = engine.account(account)
    return found["cash"], found["required"]
