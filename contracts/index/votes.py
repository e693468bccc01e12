"""Screens a day's observations and combines them into one vote per provider and series."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from contracts.index.methodology import FACTOR_ONE, Index, Methodology, Tier, digest
from contracts.index.numbers import Log, divide, log_nanos, median
from contracts.index.observations import (
    NS_OF_DAY,
    Observation,
    Screen,
    administered,
    fresh,
)

_NS_OF_MINUTE: Final = 60 * 10**9
_TIERS: Final = tuple(Tier)  # the strongest first


class Vote(msgspec.Struct, frozen=True):
    """One provider's median price of one series on one day, restated to the index's good."""

    provider: str
    series: str
    log: Log  # billionths of a nat
    observations: int
    tier: Tier
    restated: bool


class Day(NamedTuple):
    """One day's observations, and the facts about them that all indices share."""

    date: datetime.date
    observations: Sequence[Observation]
    ages: Mapping[str, int]  # days since each provider's feed last changed
    administered: set[tuple[str, str]]  # (provider, kind)


class Ballot(NamedTuple):
    """A day's votes, screened-out observations by reason, and a digest of the accepted ones."""

    votes: tuple[Vote, ...]
    screened: dict[str, int]
    inputs_hash: bytes


class Feeds:
    """Tracks how long each provider's feed has had the same content."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, int]] = {}

    def note(self, day: datetime.date, prints: Mapping[str, bytes]) -> dict[str, int]:
        """Take a day's fingerprints; return the days since each feed changed, 0 if it did now."""
        ordinal = day.toordinal()
        for provider, found in prints.items():
            known = self._known.get(provider)
            if known is None or known[0] != found:
                self._known[provider] = (found, ordinal)
        return {provider: ordinal - self._known[provider][1] for provider in prints}


def day_of(
    on: datetime.date,
    observations: Sequence[Observation],
    prints: Mapping[str, bytes],
    feeds: Feeds,
) -> Day:
    """Return a day with its feeds' ages. Updates ``feeds``: call it in order of days."""
    return Day(on, observations, feeds.note(on, prints), administered(observations))


def ballot(index: Index, methodology: Methodology, day: Day, *, extended: bool = False) -> Ballot:
    """Return the votes of one index on one day, of the capture window or, with ``extended``, of the
    extended one."""
    screened: Counter[str] = Counter()
    taken: dict[tuple[str, str], list[Observation]] = {}
    schedule = {(series.gpu, series.kind): series for series in index.series}
    closes = index.extended_closes_minute if extended else index.window_closes_minute
    window = index.window_opens_minute * _NS_OF_MINUTE, closes * _NS_OF_MINUTE
    for seen in day.observations:
        if (seen.gpu, seen.kind) not in schedule:
            screened[Screen.OTHER_GOOD.name] += 1
            continue
        screen = _screen(index, methodology, day, seen, window)
        if screen is Screen.ACCEPTED:
            key = (seen.provider, schedule[seen.gpu, seen.kind].name)
            taken.setdefault(key, []).append(seen)
        else:
            screened[screen.name] += 1
    votes = []
    rows = []
    for (provider, name), group in sorted(taken.items()):
        series = schedule[group[0].gpu, group[0].kind]
        logs = [log_nanos(restated(seen.price_micros, series.factor_e4)) for seen in group]
        tier = max(series.tier, methodology.providers[provider].tier, key=_TIERS.index)
        judged = series.restated or tier is Tier.JUDGEMENT
        votes.append(Vote(provider, name, median(logs), len(group), tier, judged))
        rows.append((provider, name, sorted((s.price_micros, s.observed_ns) for s in group)))
    head = repr((index.code, day.date.isoformat(), window)).encode()
    inputs_hash = digest(head, repr(rows).encode())
    return Ballot(tuple(votes), dict(sorted(screened.items())), inputs_hash)


def restated(price_micros: int, factor_e4: int) -> int:
    """Return a price (millionths) times a factor (1e-4), rounded half to even, at least 1."""
    if factor_e4 == FACTOR_ONE:
        return price_micros
    return max(1, divide(price_micros * factor_e4, FACTOR_ONE))


def _screen(
    index: Index, methodology: Methodology, day: Day, seen: Observation, window: tuple[int, int]
) -> Screen:
    provider = methodology.providers[seen.provider]
    if provider.venue not in index.venues:
        return Screen.OTHER_VENUE
    if not fresh(seen):
        return Screen.CARRIED
    if not window[0] <= seen.observed_ns % NS_OF_DAY < window[1]:
        return Screen.OUTSIDE_WINDOW
    if (seen.provider, seen.kind) in day.administered:
        return Screen.ADMINISTERED
    if day.ages[seen.provider] > index.stale_days[provider.tier]:
        return Screen.STALE
    return Screen.ACCEPTED
