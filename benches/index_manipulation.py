"""How far one provider can move a month's mean, and how fast the index follows the market.

    hourbook bench index [--json] [--panel FILE] [--plot FOLDER] [--record]

Every estimator gets the same seeded panels of sticky quotes. The attack: one of k providers cuts or
raises its price by 30 % for the whole month, at once or gradually over ten days. The worst provider
and sign count; the figure is how far the month's mean fixing moves. The market: all providers
reprice by a fifth for good, on one day, or each on its own day of 30 or of 180. The figure is the
area between the index and the panel's mean change, in days of the whole move. ``--panel`` runs the
attack on real quotes through the real index (a CSV as for ``hourbook index fix``); ``--plot`` draws
the pictures of the documentation.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benches.rows import Row, row
from contracts.index.fixing import Rules, Seat, locate
from contracts.index.numbers import NANOS

Logs = NDArray[np.float64]  # days x providers, natural logarithms of prices
Track = NDArray[np.float64]  # days, log of the index
Estimator = Callable[[Logs, int], Track]

MEMORY: Final = 90  # days before the month
MONTH: Final = 30
ANCHOR: Final = 180  # days of history behind an anchor
SLOW: Final = 180  # days over which a slow repricing is spread
MOVE: Final = 0.30
REPRICING: Final = np.log(0.8)
CREEP: Final = 10
PANELS: Final = (3, 4, 5, 6, 9, 12, 18)
SHOWN: Final = 9
CHOSEN: Final = "anchored_3"
SEEDS: Final = 10
SPREAD: Final = 0.35  # standard deviation of the providers' levels, in logs


class Habit(NamedTuple):
    """How a seller changes its quote: probability per day, and deviation around its level."""

    chance: float
    sigma: float


# Estimated from the sellers of the four products on 49 days of 2026 (prices by gpurentalprices.com,
# CC BY 4.0; computed here). Of nine sellers, one lists whatever is offered to it that day, one
# converts from another currency, and the others change a rate card about once in 500 days, by a
# quarter.
HABITS: Final = (Habit(0.5, 0.2), Habit(0.75, 0.005), *[Habit(0.002, 0.25)] * 7)


def draw(providers: int, days: int, seed: int) -> Logs:
    """Return a panel of quotes around each provider's own level, without any common move."""
    random = np.random.default_rng(seed)
    habits = [HABITS[n % len(HABITS)] for n in range(providers)]
    levels = np.log(3.0) + SPREAD * random.standard_normal(providers)
    chances = np.array([habit.chance for habit in habits])
    sigmas = np.array([habit.sigma for habit in habits])
    changed = random.random((days, providers)) < chances
    drawn = sigmas * random.standard_normal((days, providers))
    offsets = np.zeros((days, providers))
    for day in range(1, days):
        offsets[day] = np.where(changed[day], drawn[day], offsets[day - 1])
    return np.asarray(levels + offsets)


def levels_mean(prices: Logs, start: int) -> Track:
    """Equal votes, arithmetic mean."""
    return np.asarray(np.log(np.exp(prices[start:]).mean(axis=1)))


def trimmed(share: float) -> Estimator:
    """Equal votes without the ``share`` lowest and highest, at least one each."""

    def path(prices: Logs, start: int) -> Track:
        cut = max(1, int(share * prices.shape[1]))
        ordered = np.sort(np.exp(prices[start:]), axis=1)[:, cut:-cut]
        return np.asarray(np.log(ordered.mean(axis=1)))

    return path


def levels_median(prices: Logs, start: int) -> Track:
    """Equal votes, median."""
    return np.asarray(np.median(prices[start:], axis=1))


def screened_mean(prices: Logs, start: int) -> Track:
    """Equal votes within three robust sigmas of the median, in logs."""
    logs = prices[start:]
    centre = np.median(logs, axis=1, keepdims=True)
    sigma = 1.4826 * np.median(np.abs(logs - centre), axis=1, keepdims=True)
    inside = np.abs(logs - centre) <= np.maximum(3 * sigma, 1e-9)
    return np.asarray(np.log((np.exp(logs) * inside).sum(axis=1) / inside.sum(axis=1)))


def chained(cap: float, location: Callable[..., Track] = np.mean) -> Estimator:
    """The day before, moved by the location of the providers' changes, each capped per day."""

    def path(prices: Logs, start: int) -> Track:
        changes = np.clip(np.diff(prices[start - 1 :], axis=0), -cap, cap)
        return np.asarray(np.log(3.0) + np.cumsum(location(changes, axis=1)))

    return path


def anchored(clip: float) -> Estimator:
    """Votes relative to monthly anchors, clipped around their median: the project's own index."""

    def path(prices: Logs, start: int) -> Track:
        nanos = np.rint(prices * NANOS).astype(np.int64)
        providers = prices.shape[1]
        rules = Rules(round(clip * NANOS), 1 << 60, 0, providers)
        index = [int(np.median(nanos[:start]))] * start
        anchors = np.zeros(providers, dtype=np.int64)
        for day in range(start, len(nanos)):
            if (day - start) % MONTH == 0:
                over = nanos[:day] - np.array(index, dtype=np.int64)[:, None]
                anchors = np.rint(np.median(over[-ANCHOR:], axis=0)).astype(np.int64)
            seats = [
                Seat("", int(log - anchor), 0, int(anchor), 1, False, 1)
                for log, anchor in zip(nanos[day], anchors, strict=True)
            ]
            index.append(locate(seats, rules).log)
        return np.array(index[start:], dtype=np.float64) / NANOS

    return path


ESTIMATORS: Final[dict[str, Estimator]] = {
    "mean": levels_mean,
    "trimmed_10": trimmed(0.10),
    "trimmed_25": trimmed(0.25),
    "median": levels_median,
    "screened_mean": screened_mean,
    "chained": chained(10.0),
    "chained_5": chained(0.05),
    "chained_3": chained(0.03),
    "chained_1": chained(0.01),
    "chained_median": chained(10.0, np.median),
    "anchored_mean": anchored(10.0),
    "anchored_10": anchored(0.10),
    "anchored_5": anchored(0.05),
    "anchored_3": anchored(0.03),
    "anchored_2": anchored(0.02),
    "anchored_1": anchored(0.01),
    "anchored_median": anchored(0.0),
}


def attacks(days: int) -> Iterator[tuple[bool, NDArray[np.float64]]]:
    """Yield (whether it is gradual, what the attacker adds to its log price on each day of the
    month)."""
    for end in (np.log(1 - MOVE), np.log(1 + MOVE)):
        yield False, np.full(days, end)
        yield True, end * np.minimum(1.0, np.arange(1, days + 1) / CREEP)


class Moved(NamedTuple):
    """How far the month's mean was moved, as a share of it, by the worst attackers."""

    leap: float  # one provider, at once
    any_way: float  # one provider, at once or gradually
    two: float  # two providers together


def manipulation(estimator: Estimator, prices: Logs, start: int) -> Moved:
    """Return how far the worst providers move the month's mean."""
    honest = np.exp(estimator(prices, start)).mean()
    providers = range(prices.shape[1])

    def worst(groups: Sequence[tuple[int, ...]], creeping: bool) -> float:
        most = 0.0
        for group in groups:
            for creeps, pushed in attacks(len(prices) - start):
                if creeps > creeping:
                    continue
                moved = prices.copy()
                moved[start:, list(group)] += pushed[:, None]
                most = max(most, abs(np.exp(estimator(moved, start)).mean() / honest - 1))
        return most

    alone = [(one,) for one in providers]
    pairs = [(one, (one + 1) % len(providers)) for one in providers]
    return Moved(worst(alone, False), worst(alone, True), worst(pairs, True))


class Follow(NamedTuple):
    """How an index follows a repricing of the whole market: days behind the panel's mean."""

    sudden: float  # all on one day
    staggered: float  # each on its own day of 30
    slow: float  # each on its own day of 180
    missing: float  # share of the slow move that is not in the index at the end


def follow(estimator: Estimator, providers: int, seed: int) -> Follow:
    """Return the days behind a repricing of the whole market, and the share that never arrives."""
    random = np.random.default_rng(seed + 1_000)
    areas, missing = [], 0.0
    for spread_days in (1, MONTH, SLOW):
        after = spread_days + MONTH
        still = np.repeat(draw(providers, 1, seed), MEMORY + after, axis=0)
        when = np.linspace(0, spread_days - 1, providers).astype(int)
        random.shuffle(when)
        prices = still.copy()
        prices[MEMORY:] += np.where(np.arange(after)[:, None] >= when, REPRICING, 0.0)
        path = estimator(prices, MEMORY) - estimator(still, MEMORY)
        truth = (prices - still)[MEMORY:].mean(axis=1)
        areas.append(float(np.abs(path - truth).sum() / -REPRICING))
        missing = 1 - path[-1] / REPRICING
    return Follow(areas[0], areas[1], areas[2], missing)


class Point(NamedTuple):
    """One estimator on the curve: medians over the seeds."""

    name: str
    moved: Moved
    follow: Follow
    noise: float  # standard deviation of daily changes in an unchanged market


def point(name: str, providers: int, seeds: int = SEEDS) -> Point:
    """Return one estimator's point on panels of one size."""
    estimator = ESTIMATORS[name]
    moved, follows, noise = [], [], []
    for seed in range(seeds):
        prices = draw(providers, MEMORY + MONTH, seed)
        moved.append(manipulation(estimator, prices, MEMORY))
        follows.append(follow(estimator, providers, seed))
        noise.append(float(np.diff(estimator(prices, MEMORY)).std()))
    return Point(
        name,
        Moved(*(median(part) for part in zip(*moved, strict=True))),
        Follow(*(median(part) for part in zip(*follows, strict=True))),
        median(noise),
    )


def points(seeds: int = SEEDS) -> list[Point]:
    """Return every estimator's point, on panels of SHOWN providers."""
    return [point(name, SHOWN, seeds) for name in ESTIMATORS]


def rows(curve: Sequence[Point], seeds: int = SEEDS) -> Iterator[Row]:
    """Yield the curve's rows, and how the chosen estimator depends on the number of providers."""
    for one in curve:
        name, moved, behind = f"index.{one.name}", one.moved, one.follow
        yield row(f"{name}.moved", 100 * moved.any_way, "% of the month's mean")
        yield row(f"{name}.moved_at_once", 100 * moved.leap, "% of the month's mean")
        yield row(f"{name}.moved_by_two", 100 * moved.two, "% of the month's mean")
        yield row(f"{name}.behind_sudden", behind.sudden, "days")
        yield row(f"{name}.behind_staggered", behind.staggered, "days")
        yield row(f"{name}.behind_slow", behind.slow, "days")
        yield row(f"{name}.never_arrives", 100 * behind.missing, "% of the move")
        yield row(f"{name}.noise", 100 * one.noise, "% a day")
    for providers in PANELS:
        one = point(CHOSEN, providers, seeds)
        name = f"index.{CHOSEN}.of_{providers}"
        yield row(f"{name}.moved", 100 * one.moved.any_way, "% of the month's mean")
        yield row(f"{name}.moved_by_two", 100 * one.moved.two, "% of the month's mean")
