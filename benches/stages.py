"""The cost of a request between its frame and its report, stage by stage, for benches/access.py.

The parts of a market run in one thread, without sockets or syncs between them: the sessions take
frames, the sequencer journals and matches the batch, the hub releases it, and the sessions return
the frames that they would send.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from benches.calls import noted
from benches.path import Trader, logon
from benches.rows import Row, row
from benches.servers import open_market
from exchange.app import Market
from exchange.app.settings import Settings
from exchange.gateway.session import JSON

CONNECTIONS: Final = 8
REQUESTS: Final = 20  # of each connection in a batch: once through the mix
BATCHES: Final = 40  # of a round
COUNTED: Final = 5  # batches whose calls are counted: all are alike
STAGES: Final = ("receive", "match", "release", "take")


class Walk:
    """A market that is driven from stage to stage by hand."""

    def __init__(self, market: Market, facts: dict[str, Any]) -> None:
        self._hub, self._sequencer = market.hub, market.sequencer
        self._hub.metrics = market.metrics
        for released in market.tape.read(0, 0, 0):
            self._hub.release(released)
        self._sessions = [self._hub.connect(JSON, lambda: None) for _ in range(CONNECTIONS)]
        self.traders = [Trader(facts, number) for number in range(CONNECTIONS)]
        self.batch([[logon(*key)] for key in facts["keys"]])
        self.batch([trader.opening() for trader in self.traders])

    def requests(self) -> list[list[str]]:
        """Return a batch's requests for each connection."""
        return [trader.mixed(REQUESTS) for trader in self.traders]

    def batch(
        self, asked: list[list[str]], clock: Callable[[], int] = time.thread_time_ns
    ) -> list[int]:
        """Run the requests through all stages; return the difference of ``clock`` for each
        stage."""
        looks = [clock()]
        self._receive(asked)
        looks.append(clock())
        written = self._sequencer._write_next()
        assert written is not None, "there were requests"
        matched = self._sequencer._match(written)
        looks.append(clock())
        self._sequencer.durable_upto = matched.last_sequence
        self._sequencer.tape.append(matched.released, matched.texts)
        self._hub.release(matched.released)
        looks.append(clock())
        frames = [session.take() for session in self._sessions]
        looks.append(clock())
        assert not any(b'"rejected"' in frame for frame in frames)
        return [after - before for before, after in pairwise(looks)]

    def _receive(self, asked: list[list[str]]) -> None:
        longest = max(map(len, asked))
        for turn in range(longest):
            for session, requests in zip(self._sessions, asked, strict=True):
                session.receive(requests[turn], time.time_ns())

    def calls(self, asked: list[list[str]]) -> list[int]:
        """Return how many functions the interpreter calls in each stage, Python's and C's."""
        with noted() as names:
            return self.batch(asked, names.__len__)


async def stage_rows(folder: Path, rounds: int) -> Iterator[Row]:
    """Return the rows of ``stages``."""
    market, facts = await open_market(folder, CONNECTIONS, Settings())
    walk = Walk(market, facts)
    taken: Counter[str] = Counter()
    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
    requests = CONNECTIONS * REQUESTS
    for _ in range(rounds):
        batches = [walk.batch(walk.requests()) for _ in range(BATCHES)]
        for stage, each in zip(STAGES, zip(*batches, strict=True), strict=True):
            spent[stage].append(median(each) / requests)
    for _ in range(COUNTED):
        taken.update(dict(zip(STAGES, walk.calls(walk.requests()), strict=True)))
    await market.stop()
    return _rows({stage: median(found) for stage, found in spent.items()}, taken)


def _rows(spent: dict[str, float], taken: Counter[str]) -> Iterator[Row]:
    name, whole = "access.stages", sum(spent.values())
    for stage in STAGES:
        yield row(f"{name}.{stage}", spent[stage] / 1e3, "us CPU", whole / 1e3, f"{name}.whole")
        calls = taken[stage] / (COUNTED * CONNECTIONS * REQUESTS)
        yield row(f"{name}.{stage}.calls", calls, "calls/request")
    yield row(f"{name}.whole", whole / 1e3, "us CPU")
