"""One day's fixing: the location of the votes, the influence of one provider, the gates.

    residual_i = log price_i - anchor_i
    m          = weighted median of the residuals
    log index  = m + sum of weight_i x clip(residual_i - m, +-c) / total weight of the table

The sum is over the present votes that are no outliers; the weights are the month's. A change made
by more than half of the weight moves the median, and so the index, at once; the clipped sum limits
a single vote's own term to its weight x c. An absent vote counts as if its residual were m.

An outlier is a vote whose level is further than ``screen_sigmas`` robust standard deviations from
m + the panel's centre, in logs. The scale is that of the frozen table, so that nobody can widen it
on the day, and has a floor, since equal quotes have a scale of zero.

``influence`` is an upper bound of what one provider could do. While its vote takes every price the
median moves from m- to m+. The other votes' sum moves by at most m+ - m- (its slope in m is between
0 and 1), the provider's own term by at most 2 x weight x c, and each vote that enters or leaves the
screen by at most 2 x its weight x c. The bound holds within one window: a provider whose quote the
gates of the capture window need can withhold it, and so have the day fixed over the extension.
"""

import datetime
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from contracts.index.anchors import NANOS_OF_BP, AnchorTable
from contracts.index.methodology import AT_MOST, Index, Methodology
from contracts.index.numbers import Log, divide, price_micros, spread, weighted_median
from contracts.index.observations import Screen
from contracts.index.votes import Ballot, Day, Vote, ballot

GATE_MAX: Final = 10**9  # beyond any value of a gate
_ENDLESS: Final = 10**15  # larger than any logarithm of a price, in nanos


class State(Enum):
    """The state of a fixing."""

    PUBLISHED = "PUBLISHED"
    WITHHELD = "WITHHELD"  # no number; ``reason`` says why
    FALLBACK = "FALLBACK"  # a number from the extended window
    REVISED = "REVISED"  # a number that replaces an earlier fixing of the same day


NO_TABLE: Final = "NO_TABLE"  # the month has no anchor table: too few providers or days observed


class Fixing(msgspec.Struct, frozen=True, tag="fixing", kw_only=True):
    """One index on one day: a price in millionths of a dollar per GPU-hour, or why there is none.

    Logs are in billionths of a nat. With the anchor table the votes give the price again:
    ``run.recompute``.
    """

    index: str
    date: datetime.date
    revision: int
    state: State
    reason: str = ""
    step: int = 0  # of the ladder: 0 the capture window, 1 its extension
    price_micros: int | None = None
    log: Log | None = None  # location of the votes, whether published or not
    median: Log | None = None
    votes: tuple[Vote, ...]
    outliers: tuple[str, ...] = ()
    gates: dict[str, Annotated[int, Meta(ge=0, le=GATE_MAX)]] = {}
    screened: dict[str, int] = {}
    table_hash: str = ""
    rules_hash: str
    inputs_hash: str
    methodology_version: str

    @property
    def published(self) -> bool:
        """Whether there is a number."""
        return self.price_micros is not None


class Seat(NamedTuple):
    """A present vote with its anchor; logs and weight in billionths."""

    provider: str
    residual: int
    level: int  # log of the price: anchor + residual
    anchor: int
    weight: int
    restated: bool
    observations: int


class Rules(NamedTuple):
    """The parameters of the location: billionths of a nat, weight in billionths of the whole."""

    clip: int
    reach: int
    centre: int
    total_weight: int


class Location(NamedTuple):
    """The location of the votes, their weighted median (billionths), and the outliers."""

    log: int
    median: int
    outliers: frozenset[str]


def rules_of(index: Index, table: AnchorTable) -> Rules:
    """Return the parameters of the location under a month's table."""
    return Rules(
        clip=index.clip_bp * NANOS_OF_BP,
        reach=index.screen_sigmas * table.scale,
        centre=table.centre,
        total_weight=table.total_weight,
    )


def seats_of(table: AnchorTable, votes: Sequence[Vote]) -> list[Seat]:
    """Return the votes whose provider and series have an anchor in the table."""
    cast = {(vote.provider, vote.series): vote for vote in votes}
    seats = []
    for anchor in table.anchors:
        vote = cast.get((anchor.provider, anchor.series))
        if vote is not None:
            seats.append(
                Seat(
                    anchor.provider,
                    vote.log - anchor.log,
                    vote.log,
                    anchor.log,
                    anchor.weight,
                    anchor.restated,
                    vote.observations,
                )
            )
    return seats


def locate(seats: Sequence[Seat], rules: Rules) -> Location:
    """Return the robust location of the votes; ValueError if their total weight is zero."""
    middle = weighted_median((seat.residual, seat.weight) for seat in seats)
    clip, far, pulled = rules.clip, set(), 0
    for seat in seats:
        if abs(seat.level - middle - rules.centre) > rules.reach:
            far.add(seat.provider)
        else:
            pulled += seat.weight * max(-clip, min(clip, seat.residual - middle))
    return Location(middle + divide(pulled, rules.total_weight), middle, frozenset(far))


def influence(seats: Sequence[Seat], table: AnchorTable, rules: Rules) -> int:
    """Return an upper bound of how far any one provider could move the fixing, in nanos.

    Over all that it could quote or withhold that day, also for providers that are absent. Providers
    that share a route (an aggregator) count as one.
    """
    groups: dict[str, set[str]] = {}
    weights: dict[str, int] = {}
    for anchor in table.anchors:
        groups.setdefault(anchor.route, set()).add(anchor.provider)
        weights[anchor.route] = weights.get(anchor.route, 0) + anchor.weight
    most = 0
    for route, providers in groups.items():
        rest = [seat for seat in seats if seat.provider not in providers]
        votes = [(seat.residual, seat.weight) for seat in rest]
        low = weighted_median([*votes, (-_ENDLESS, weights[route])])
        high = weighted_median([*votes, (_ENDLESS, weights[route])])
        flips = sum(seat.weight for seat in rest if _flips(seat, low, high, rules))
        own = 2 * (weights[route] + flips) * rules.clip
        most = max(most, high - low - (-own // rules.total_weight))
    return most


def _flips(seat: Seat, low: int, high: int, rules: Rules) -> bool:
    """Whether a vote is inside the screen for one median of the range and outside for another;
    ``low`` and ``high`` are the range's ends."""
    at_low = seat.level - rules.centre - low
    at_high = seat.level - rules.centre - high
    furthest = max(abs(at_low), abs(at_high))
    nearest = 0 if at_high <= 0 <= at_low else min(abs(at_low), abs(at_high))
    return nearest <= rules.reach < furthest


def gate_values(
    seats: Sequence[Seat], location: Location | None, table: AnchorTable, rules: Rules
) -> dict[str, int]:
    """Return the value of each gate, in the unit of its name, rounded to the strict side."""
    used = [s for s in seats if location is not None and s.provider not in location.outliers]
    weight = sum(seat.weight for seat in used)
    squares = sum(seat.weight**2 for seat in used)
    restated = sum(seat.weight for seat in used if seat.restated)
    moved = influence(seats, table, rules) if seats else _ENDLESS
    return {
        "providers": len(used),
        "observations": sum(seat.observations for seat in used),
        "effective_tenths": 10 * weight * weight // squares if squares else 0,
        "coverage_percent": 100 * weight // rules.total_weight,
        "restated_percent": -(-100 * restated // weight) if weight else 0,
        "dispersion_bp": -(-table.scale // NANOS_OF_BP),
        "disagreement_bp": -(-spread([seat.residual for seat in used]) // NANOS_OF_BP),
        "influence_bp": min(-(-moved // NANOS_OF_BP), 10**6),
    }


def failed_gate(index: Index, values: Mapping[str, int], *, was_open: bool) -> str:
    """Return the name of the first gate that fails; empty if all pass.

    ``was_open`` says that the index had a number the day before. Then the easier threshold ``keep``
    applies, so that a value near one threshold does not open and close the gate every day.
    """
    for name, value in values.items():
        gate = getattr(index.gates, name)
        bound = gate.keep if was_open else gate.enter
        if value > bound if name in AT_MOST else value < bound:
            return name.upper()
    return ""


def fix(
    index: Index,
    methodology: Methodology,
    day: Day,
    table: AnchorTable | None,
    *,
    was_open: bool,
    revision: int = 0,
) -> Fixing:
    """Return the fixing of an index on a day, from its observations and the month's table.

    The capture window is tried first. If a gate fails, the extended window is tried (FALLBACK, step
    1); if that fails as well, the fixing is WITHHELD with the name of the gate. Without a table it
    is WITHHELD with ``NO_TABLE``. With ``revision`` above 0 a published fixing is REVISED.
    """
    first = ballot(index, methodology, day)
    tried = _try(index, methodology, day, table, first, 0, was_open, revision)
    if tried.published:
        return tried
    wider = ballot(index, methodology, day, extended=True)
    if wider.votes == first.votes:
        return tried
    again = _try(index, methodology, day, table, wider, 1, was_open, revision)
    return again if again.published or not first.votes else tried


def _try(
    index: Index,
    methodology: Methodology,
    day: Day,
    table: AnchorTable | None,
    cast: Ballot,
    step: int,
    was_open: bool,
    revision: int,
) -> Fixing:
    """The fixing of one ballot."""
    plain = Fixing(
        index=index.code,
        date=day.date,
        revision=revision,
        state=State.WITHHELD,
        reason=NO_TABLE,
        step=step,
        votes=cast.votes,
        screened=cast.screened,
        rules_hash=methodology.rules_hash(index.code).hex(),
        inputs_hash=cast.inputs_hash.hex(),
        methodology_version=index.methodology_version,
    )
    if table is None:
        return plain
    rules = rules_of(index, table)
    seats = seats_of(table, cast.votes)
    location = locate(seats, rules) if seats else None
    values = gate_values(seats, location, table, rules)
    reason = failed_gate(index, values, was_open=was_open)
    screened = dict(cast.screened)
    unseated = len(cast.votes) - len(seats)
    outliers = tuple(sorted(location.outliers)) if location else ()
    for screen, count in ((Screen.NO_ANCHOR, unseated), (Screen.OUTLIER, len(outliers))):
        if count:
            screened[screen.name] = count
    seen = msgspec.structs.replace(
        plain, reason=reason, gates=values, screened=screened, outliers=outliers,
        table_hash=table.table_hash, log=location.log if location else None,
        median=location.median if location else None,
    )  # fmt: skip
    if reason or location is None:
        return seen
    state = State.REVISED if revision else State.FALLBACK if step else State.PUBLISHED
    return msgspec.structs.replace(seen, state=state, price_micros=price_micros(location.log))
