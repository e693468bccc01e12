"""The anchor table of a month: each provider's own level and the weight of its vote.

Prices of one GPU differ permanently between sellers by a factor of two to four, and sellers come
and go, so a mean of levels would move with every change of the panel. A provider therefore votes
with its *change*: the difference of its log price from its anchor, which is the median, over the
days before the table, of its log price minus the log index. A new provider votes from the first
month whose table has enough days of it. The table is made once, before its first fixing, and
frozen.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from contracts.calendar import Month
from contracts.index.methodology import Index, digest
from contracts.index.numbers import Log, Weight, capped_weights, median, spread, weighted_median
from contracts.index.votes import Vote

NANOS_OF_BP: Final = 100_000  # a basis point of a nat


class Anchor(msgspec.Struct, frozen=True):
    """One provider's anchor and weight in a month."""

    provider: str
    route: str  # source of its prices: itself, or an aggregator
    series: str  # the first of the schedule that was observed on enough days
    log: Log  # its level minus the index's, billionths of a nat
    weight: Weight  # billionths of the whole
    restated: bool
    days: int  # observed


class AnchorTable(msgspec.Struct, frozen=True, tag="anchors"):
    """The anchors of one index in one month, from ``first_day`` on. Levels are logs in billionths.

    Centre and scale include the excluded providers.
    """

    index: str
    month: str
    first_day: datetime.date
    level: Log | None  # of the index, if this table begins it; None otherwise
    centre: Log  # median of the providers' levels over the index
    scale: Log  # robust standard deviation of these levels, not below the floor
    anchors: Annotated[tuple[Anchor, ...], Meta(min_length=1)]
    excluded: tuple[str, ...]  # providers whose level is too far from the centre
    rules_hash: str

    @property
    def table_hash(self) -> str:
        """Digest (hex) of the whole table."""
        return digest(msgspec.json.encode(self)).hex()

    @property
    def total_weight(self) -> int:
        return sum(anchor.weight for anchor in self.anchors)


class Past(NamedTuple):
    """One earlier day: its votes and their log location; None if too little weight voted."""

    date: datetime.date
    votes: tuple[Vote, ...]
    log: int | None


def anchor_table(
    index: Index,
    routes: Mapping[str, str],
    first_day: datetime.date,
    past: Sequence[Past],
    rules_hash: str,
) -> AnchorTable | None:
    """Return the table of ``first_day``'s month, or None if no provider has enough days.

    ``past`` are the earlier days; those within ``anchor_days`` count. ``routes`` maps each provider
    that may have an anchor to the source of its prices.

    If none of these days has a location, the table begins the index: then it needs
    ``inception_days`` days with votes and as many providers as the gate ``providers.enter``, and
    the index's level is the weighted median of the providers' median levels.
    """
    window = [p for p in past if 0 < (first_day - p.date).days <= index.anchor_days]
    begins = all(day.log is None for day in window)
    if begins and sum(1 for day in window if day.votes) < index.inception_days:
        return None
    seats = [seat for seat in _seats(index, window, begins) if seat[0].provider in routes]
    if not seats:
        return None
    centre = median(log for _, log, _ in seats)
    floor = index.screen_floor_bp * NANOS_OF_BP
    scale = max(spread([log for _, log, _ in seats]), floor)
    reach = index.screen_sigmas * scale
    inside = [seat for seat in seats if abs(seat[1] - centre) <= reach]
    if begins and len(inside) < index.gates.providers.enter:
        return None
    tiers = {vote.provider: index.tier_weights[vote.tier] for vote, _, _ in inside}
    weights = capped_weights(tiers, routes, index.weight_cap_percent)
    level = None
    if begins:
        level = weighted_median([(log, weights[vote.provider]) for vote, log, _ in inside])
    anchors = [
        Anchor(
            provider=vote.provider,
            route=routes[vote.provider],
            series=vote.series,
            log=log - (level or 0),
            weight=weights[vote.provider],
            restated=vote.restated,
            days=days,
        )
        for vote, log, days in inside
    ]
    return AnchorTable(
        index=index.code,
        month=str(Month.of(first_day)),
        first_day=first_day,
        level=level,
        centre=centre - (level or 0),
        scale=scale,
        anchors=tuple(anchors),
        excluded=tuple(v.provider for v, log, _ in seats if abs(log - centre) > reach),
        rules_hash=rules_hash,
    )


def _seats(index: Index, window: Sequence[Past], begins: bool) -> list[tuple[Vote, int, int]]:
    """(latest vote, median level over the index, days) of each provider with enough days, sorted by
    name."""
    logs: dict[str, dict[str, list[int]]] = {}
    latest: dict[tuple[str, str], Vote] = {}
    for day in window:
        if day.log is None and not begins:
            continue
        for vote in day.votes:
            of_series = logs.setdefault(vote.provider, {}).setdefault(vote.series, [])
            of_series.append(vote.log - (day.log or 0))
            latest[vote.provider, vote.series] = vote
    seats = []
    for provider, by_series in sorted(logs.items()):
        for series in index.series:
            found = by_series.get(series.name, [])
            if len(found) >= index.anchor_least_days:
                seats.append((latest[provider, series.name], median(found), len(found)))
                break
    return seats
