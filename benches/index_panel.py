"""The attack of ``index_manipulation`` on real quotes, through the real index.

Every observation of one provider in the attacked month is changed, and all days of the file are
fixed again with all screens, anchors and gates. For comparison, equal votes and a capped chain are
computed from the same votes.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benches.index_manipulation import CREEP, MOVE
from benches.rows import Row, row
from contracts.index import methodology as rules
from contracts.index.methodology import Methodology
from contracts.index.observations import Batch, Observation, read
from contracts.index.run import end_ns, fix_through
from contracts.index.tape import Tape

FAR_NS: Final = 4_000_000_000 * 10**9  # a clock after every panel
CAP: Final = 0.03

Votes = NDArray[np.float64]  # days x providers, logs, NaN where there is no vote
Location = Callable[[Votes], NDArray[np.float64]]


class Panel(NamedTuple):
    """One index on every day of a file."""

    code: str
    days: list[date]
    fixings: NDArray[np.float64]  # dollars, NaN where withheld
    providers: list[str]
    votes: Votes


def load(path: Path) -> tuple[Methodology, Batch]:
    """Return the shipped rules, and the observations of a file under them."""
    methodology = rules.load()
    return methodology, read(path.read_bytes(), now_ns=FAR_NS, methodology=methodology)


def run(methodology: Methodology, batch: Batch, code: str) -> Panel:
    """Return the panel with every day of the file fixed."""
    last = batch.days[-1]
    _, fixings = fix_through(
        Tape(), methodology, batch, [code], last, recorded_ns=max(FAR_NS, end_ns(last))
    )
    providers = sorted({vote.provider for fixing in fixings for vote in fixing.votes})
    votes = np.full((len(fixings), len(providers)), np.nan)
    ranks = {series.name: n for n, series in enumerate(methodology.index(code).series)}
    for day, fixing in enumerate(fixings):
        for vote in sorted(fixing.votes, key=lambda vote: -ranks[vote.series]):
            votes[day, providers.index(vote.provider)] = vote.log / 1e9
    prices = [np.nan if f.price_micros is None else f.price_micros / 1e6 for f in fixings]
    return Panel(code, [f.date for f in fixings], np.array(prices), providers, votes)


def equal_mean(votes: Votes) -> NDArray[np.float64]:
    return np.asarray(np.nanmean(np.exp(votes), axis=1))


def equal_median(votes: Votes) -> NDArray[np.float64]:
    return np.asarray(np.exp(np.nanmedian(votes, axis=1)))


def capped_chain(votes: Votes) -> NDArray[np.float64]:
    changes = np.clip(np.diff(votes, axis=0), -CAP, CAP)
    return np.asarray(np.exp(np.concatenate([[0.0], np.cumsum(np.nanmean(changes, axis=1))])))


RIVALS: Final[dict[str, Location]] = {
    "mean": equal_mean,
    "median": equal_median,
    "chained_3": capped_chain,
}


def pushed(batch: Batch, provider: str, first: int, factor: float, creep: int) -> Batch:
    """Return the batch with one provider's prices changed from a day on, over ``creep`` days."""

    def change(seen: Observation) -> Observation:
        if seen.provider != provider or seen.day < first:
            return seen
        share = min(1.0, (seen.day - first + 1) / creep)
        return seen._replace(price_micros=max(1, round(seen.price_micros * factor**share)))

    return batch._replace(observations=[change(seen) for seen in batch.observations])


def attack_rows(methodology: Methodology, batch: Batch, honest: Panel) -> Iterator[Row]:
    """Yield how far the worst provider moves the mean of the file's last month."""
    code, first = honest.code, honest.days[-1].replace(day=1)
    month = np.array([day >= first for day in honest.days]) & ~np.isnan(honest.fixings)
    before = honest.fixings[month].mean()
    worst, worst_of = 0.0, dict.fromkeys(RIVALS, 0.0)
    for provider in honest.providers:
        for factor, creep in product((1 - MOVE, 1 + MOVE), (1, CREEP)):
            attacked = pushed(batch, provider, first.toordinal(), factor, creep)
            again = run(methodology, attacked, code)
            worst = max(worst, abs(np.nanmean(again.fixings[month]) / before - 1))
            for name, rival in RIVALS.items():
                ratio = _month_mean(rival, again, month) / _month_mean(rival, honest, month)
                worst_of[name] = max(worst_of[name], abs(ratio - 1))
    yield row(f"panel.{code}.index.moved", 100 * worst, "% of the month's mean")
    for name, moved in worst_of.items():
        yield row(f"panel.{code}.{name}.moved", 100 * moved, "% of the month's mean")


def _month_mean(rival: Location, panel: Panel, month: NDArray[np.bool_]) -> float:
    began = int(np.flatnonzero(~np.isnan(panel.fixings))[0])
    return float(rival(panel.votes[began:])[month[began:]].mean())


def noise_rows(panel: Panel) -> Iterator[Row]:
    """Yield the standard deviation of daily changes on the days on which the index was
    published."""
    known = ~np.isnan(panel.fixings)
    own = _noise(panel.fixings[known])
    yield row(f"panel.{panel.code}.index.noise", own, "% a day")
    for name, rival in RIVALS.items():
        noise = _noise(rival(panel.votes[known]))
        yield row(f"panel.{panel.code}.{name}.noise", noise, "% a day")


def _noise(prices: NDArray[np.float64]) -> float:
    return float(100 * np.diff(np.log(prices)).std())


def rows(path: Path, codes: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of every index."""
    methodology, batch = load(path)
    for code in codes or sorted(methodology.indices):
        honest = run(methodology, batch, code)
        if np.isnan(honest.fixings).all():
            continue  # withheld every day: too few sellers
        yield from attack_rows(methodology, batch, honest)
        yield from noise_rows(honest)
