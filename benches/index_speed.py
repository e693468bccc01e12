"""A month's indices from a hundred thousand observations, compared with reading those observations.

Both run in the same rounds on one seeded file: ``read`` parses and checks the CSV, ``fix`` makes
every day's fixing of all four indices. Fixing must take less than ten times as long as reading.
"""

import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Final

from benches.rows import Row, row
from contracts.index import methodology as rules
from contracts.index.methodology import Methodology
from contracts.index.observations import read
from contracts.index.run import end_ns, fix_through
from contracts.index.tape import Tape

OBSERVATIONS: Final = 100_000
DAYS: Final = 44  # fourteen days of history, then a month
FIRST: Final = date(2026, 1, 1)
ROUNDS: Final = 5


def observations_csv(count: int, methodology: Methodology) -> bytes:
    """Return a seeded file: all providers, all goods of the panel, captures spread over each
    day."""
    draw = random.Random(11)
    providers, gpus = sorted(methodology.providers), sorted(methodology.gpus)
    levels = {(p, g): 2 + draw.random() for p in providers for g in gpus}
    sold = [s.gpu for index in methodology.indices.values() for s in index.series]
    lines = ["provider,gpu,kind,usd_hr,fetched_at"]
    for n in range(count):
        day = FIRST + timedelta(days=n * DAYS // count)
        moment = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)
        moment += timedelta(milliseconds=n % 18_000_000)
        provider = draw.choice(providers)
        gpu = draw.choice(sold) if draw.random() < 0.5 else draw.choice(gpus)
        kind = "on-demand" if draw.random() < 0.6 else "spot"
        price = levels[provider, gpu] * (1 + 0.001 * draw.randrange(20))
        stamp = moment.isoformat(timespec="milliseconds")
        lines.append(f"{provider},{gpu},{kind},{price:.4f},{stamp}")
    return "\n".join(lines).encode()


def rows(count: int = OBSERVATIONS, rounds: int = ROUNDS) -> Iterator[Row]:
    """Yield the observations per second of reading and of fixing, and the ratio of their times."""
    methodology = rules.load()
    content = observations_csv(count, methodology)
    last = FIRST + timedelta(days=DAYS - 1)
    now_ns = end_ns(last)
    reading, fixing = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        batch = read(content, now_ns=now_ns, methodology=methodology)
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        _, fixings = fix_through(
            Tape(), methodology, batch, sorted(methodology.indices), last, recorded_ns=now_ns
        )
        fixing.append(time.perf_counter() - started)
        if sum(one.published for one in fixings) < DAYS:
            raise RuntimeError("the seeded panel did not give a month of fixings")
    ratio = median(a / b for a, b in zip(fixing, reading, strict=True))
    taken = len(batch.observations)
    yield row("index.read", taken / median(reading), "observations/s")
    fixed = row("index.fix", taken / median(fixing), "observations/s")
    yield Row(fixed.name, fixed.value, fixed.unit, float(f"{ratio:.4g}"), "the time of index.read")
