"""Tries a command on a copy of the market: what it would do, by the engine's own rules."""

import time
from collections.abc import Callable
from typing import Final

from exchange.app.rehearsal import Question, Rehearsal, try_on
from exchange.engine import Engine
from exchange.gateway.decode import Refused
from exchange.gateway.previews import Outcome
from exchange.messages.access import GatewayReason
from exchange.sequencer import Sequencer

MARKET_SHARE: Final = 20
STATE_BYTES: Final = 16 << 20  # largest state that is copied, since the market waits for the copy


class Trial:
    """Tries commands on copies of an engine, each as the next command of its log.

    A copy is made for every trial, and the market waits while its state is copied; all trials
    together take at most one in ``MARKET_SHARE`` of the market's time. No copy is larger than
    ``STATE_BYTES``: commands of a larger market are tried by ``beside``, a process that follows its
    log.
    """

    def __init__(
        self,
        engine: Engine,
        sequencer: Sequencer,
        clock: Callable[[], int],
        beside: Rehearsal | None = None,
    ) -> None:
        self._engine = engine
        self._sequencer = sequencer
        self._clock = clock
        self._beside = beside
        self._free_ns = 0  # no trial before this time, on the monotonic clock

    def __call__(self, account: int, record: bytes, tell: Callable[[Outcome], None]) -> None:
        """Report what a command would do to an open account, without changing anything."""
        question = Question(account, record, max(self._sequencer.stamp, self._clock()))
        held = sum(self._engine.memory().values())
        if held > STATE_BYTES:
            if self._beside is not None:
                return self._beside.ask(question, tell)
            limit, observed = str(STATE_BYTES), str(held)
            large = GatewayReason.STATE_TOO_LARGE
            return tell(Refused(large, None, "a preview", limit=limit, observed=observed))
        begun = time.monotonic_ns()
        if begun < self._free_ns:
            limit = f"1/{MARKET_SHARE} of the time"
            return tell(Refused(GatewayReason.REQUESTS_FULL, None, "previews", limit=limit))
        copy = Engine()
        copy.restore(self._engine.snapshot())
        tried = try_on(copy, self._sequencer.sequence, question)
        ended = time.monotonic_ns()
        self._free_ns = ended + (MARKET_SHARE - 1) * (ended - begun)
        tell(tried)
