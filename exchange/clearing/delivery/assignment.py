"""Delivery notices: checks of intents, and assignment of the oldest longs in whole delivery units.

Longs are ranked by the date they were opened, the oldest first, then in the order given. A unit is
a fixed number of lots of one account, and its age is that of its oldest lot: an account's lots form
units from the oldest on, and the youngest lots beyond its whole units are odd. Tenders are served
in order, each from the front of the line. A tender may have a larger unit, a multiple of the
line's: it skips accounts with too few lots for one such unit, which keep their places.

    cash-settled: odd lots, lots of accounts that may not receive, units that no tender reached
    assigned + unassigned = tendered        assigned + left = longs        per account and in sum
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from typing import NamedTuple

from exchange.clearing.refusals import Denial


class Long(NamedTuple):
    """Lots of one account that were opened on one day."""

    account: int | str
    lots: int
    day: int


class Round(NamedTuple):
    """The result of one tender: (account, lots) in order of age, and the lots not assigned."""

    assigned: list[tuple[int | str, int]]
    unassigned: int


class Assignment(NamedTuple):
    """The rounds of all tenders, and the lots of each account left for cash settlement."""

    rounds: list[Round]
    left: dict[int | str, int]


def denied(
    lots: int,
    at: int,
    factor_version: int,
    *,
    open_short: int,
    cutoff: int,
    published_version: int,
    unit: int = 1,
) -> tuple[Denial, int, int] | None:
    """Return why an intent to deliver is refused, with limit and observed value; None if it is not.

    ``open_short`` is the lots that the account is short and has not given notice of. ``at`` and
    ``cutoff`` are in one unit of time; an intent at the cutoff itself is in time.
    """
    if at > cutoff:
        return Denial.LATE, cutoff, at
    if lots > open_short:
        return Denial.EXCEEDS_SHORT, open_short, lots
    if factor_version != published_version:
        return Denial.FACTOR_VERSION, published_version, factor_version
    if lots <= 0 or lots % unit:
        return Denial.DELIVERY_UNIT, unit, lots
    return None


def assign(
    longs: Sequence[Long],
    tenders: Sequence[int],
    *,
    unit: int = 1,
    units: Sequence[int] | None = None,
    ineligible: AbstractSet[int | str] = frozenset(),
) -> Assignment:
    """Assign tenders of whole units to the oldest eligible longs.

    ``units`` is the unit of each tender in lots, a multiple of ``unit``, by default ``unit``.
    """
    ranked = sorted(longs, key=lambda long: long.day)  # stable: then the order given
    left: defaultdict[int | str, int] = defaultdict(int)
    for long in ranked:
        left[long.account] += long.lots
    places: defaultdict[int | str, deque[int]] = defaultdict(deque)
    for place, account in enumerate(_units(ranked, unit, ineligible)):
        places[account].append(place)
    line = [(own[0], account) for account, own in places.items()]  # by each account's oldest unit
    rounds = []
    for tendered, whole in zip(tenders, units or [unit] * len(tenders), strict=True):
        assigned: list[tuple[int | str, int]] = []
        for account in _served(line, places, tendered // whole, whole // unit):
            left[account] -= whole
            if assigned and assigned[-1][0] == account:
                assigned[-1] = account, assigned[-1][1] + whole
            else:
                assigned.append((account, whole))
        rounds.append(Round(assigned, tendered - sum(lots for _, lots in assigned)))
    given = sum(lots for found in rounds for _, lots in found.assigned)
    assert given + sum(left.values()) == sum(long.lots for long in longs), "lots are lost"
    assert all(lots >= 0 for lots in left.values()), "more assigned than held"
    return Assignment(rounds, {account: lots for account, lots in left.items() if lots})


def _served(
    line: list[tuple[int, int | str]],
    places: Mapping[int | str, deque[int]],
    count: int,
    size: int,
) -> Iterator[int | str]:
    """Take ``size`` units off the line, a heap, up to ``count`` times; yield their accounts."""
    passed = []
    while count and line:
        first = heappop(line)
        own = places[first[1]]
        if len(own) < size:
            passed.append(first)
            continue
        count -= 1
        for _ in range(size):
            own.popleft()
        if own:
            heappush(line, (own[0], first[1]))
        yield first[1]
    for first in passed:
        heappush(line, first)


def _units(
    ranked: Sequence[Long], unit: int, ineligible: AbstractSet[int | str]
) -> list[int | str]:
    """The account of every whole unit, in order of the age of the unit's oldest lot."""
    part: defaultdict[int | str, int] = defaultdict(int)  # lots of the account's unfinished unit
    begun: list[tuple[int | str, int]] = []  # (account, which of its units), in order of age
    units: defaultdict[int | str, int] = defaultdict(int)
    for account, lots, _ in ranked:
        if account in ineligible:
            continue
        held = part[account] + lots
        first = units[account] + (part[account] > 0)
        units[account] += held // unit
        part[account] = held % unit
        begun += [(account, n) for n in range(first, units[account] + (part[account] > 0))]
    return [account for account, number in begun if number < units[account]]


def aged(longs: Sequence[tuple[int, int]], net: int, day: int) -> list[tuple[int, int]]:
    """Return the (day, lots) of a long position that ``day`` left at ``net`` lots.

    A reduction takes the oldest lots first.
    """
    held = sum(lots for _, lots in longs)
    if net > held:
        return [*longs, (day, net - held)]
    close, kept = held - max(net, 0), []
    for opened, lots in longs:
        gone = min(lots, close)
        close -= gone
        if lots > gone:
            kept.append((opened, lots - gone))
    return kept
