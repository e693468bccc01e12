"""The slow, obvious margin: one account at a time, one lot at a time where that says it best, in
exact fractions. It shares no line with ``exchange.clearing.margin``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

THIRDS = (0, 0, 1, 1, -1, -1, 2, 2, -2, -2, 3, 3, -3, -3)


@dataclass(frozen=True)
class Lot:
    """What a lot of one instrument costs."""

    product: int
    scan_range: int
    liquidity: int
    spot: bool
    delivery: int = 0


@dataclass(frozen=True)
class Product:
    """What a lot costs by its product."""

    spread: int
    relief: int
    daily_volume: int
    participation: int


class Part(NamedTuple):
    """One product of one account."""

    scan: int
    worst: int
    calendar: int
    delivery: int
    liquidity: int
    concentration: int


def losses(scan_range: int) -> list[int]:
    """What a lot held long loses, scenario by scenario; towards zero."""
    moves = [Fraction(n, 3) for n in THIRDS] + [Fraction(99, 100), Fraction(-99, 100)]
    return [-int(move * scan_range) for move in moves]


def pair(held: Sequence[tuple[int, bool]]) -> tuple[int, int]:
    """(spreads, spot lots in spreads), found by pairing single lots: first those outside the spot
    month with each other, then what is left with a lot of the spot month.
    """
    far = {1: 0, -1: 0}
    near = {1: 0, -1: 0}
    for net, spot in held:
        for _ in range(abs(net)):
            (near if spot else far)[1 if net > 0 else -1] += 1
    spreads = in_spreads = 0
    while far[1] and far[-1]:
        far[1], far[-1], spreads = far[1] - 1, far[-1] - 1, spreads + 1
    for side in (1, -1):
        while near[side] and far[-side]:
            near[side], far[-side] = near[side] - 1, far[-side] - 1
            spreads, in_spreads = spreads + 1, in_spreads + 1
    while near[1] and near[-1]:  # two lots of the spot month: one counts as the spread's
        near[1], near[-1] = near[1] - 1, near[-1] - 1
        spreads, in_spreads = spreads + 1, in_spreads + 1
    return spreads, in_spreads


def root_up(value: Fraction) -> int:
    """The smallest integer whose square is no less, by bisection."""
    low, high = 0, ceil(value) + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle * middle >= value else (middle + 1, high)
    return low


def part(held: Sequence[tuple[int, Lot]], product: Product) -> Part:
    """What one product asks for."""
    worst, scan = 1, 0
    for number in range(16):
        loss = sum(net * losses(lot.scan_range)[number] for net, lot in held)
        if loss > scan:
            worst, scan = number + 1, loss
    spreads, in_spreads = pair([(net, lot.spot) for net, lot in held])
    calendar = spreads * product.spread
    delivery = sum(abs(net) * lot.delivery for net, lot in held) - in_spreads * product.relief
    base = scan + calendar + delivery
    size = max(
        sum(net for net, _ in held if net > 0), -sum(net for net, _ in held if net < 0)
    )  # fmt: skip
    a_day = Fraction(product.daily_volume * product.participation, 100)
    days = max(Fraction(1), size / a_day)
    return Part(
        scan,
        worst,
        calendar,
        delivery,
        sum(abs(net) * lot.liquidity for net, lot in held),
        root_up(base * base * days) - base,
    )


def credit(
    deltas: Mapping[int, int], scans: Mapping[int, int], offered: Sequence[Sequence[int]]
) -> int:
    """What offsets between products spare, spread by spread."""
    left = dict(deltas)
    used: dict[tuple[int, int], int] = defaultdict(int)
    for number, (a, b, ratio_a, ratio_b, _) in enumerate(offered):
        while (
            abs(left.get(a, 0)) >= ratio_a
            and abs(left.get(b, 0)) >= ratio_b
            and (left[a] > 0) != (left[b] > 0)
        ):
            for side, ratio in ((a, ratio_a), (b, ratio_b)):
                left[side] -= ratio if left[side] > 0 else -ratio
                used[number, side] += ratio
    return sum(
        floor(Fraction(scans[side] * lots, abs(deltas[side])) * Fraction(offered[number][4], 100))
        for (number, side), lots in used.items()
    )


def margin(
    book: Mapping[int, int],
    lots: Sequence[Lot],
    products: Sequence[Product],
    offered: Sequence[Sequence[int]] = (),
) -> tuple[dict[int, Part], int, int]:
    """(part by product, credit, total) of one account's net lots by instrument."""
    held: dict[int, list[tuple[int, Lot]]] = defaultdict(list)
    for instrument, net in book.items():
        held[lots[instrument].product].append((net, lots[instrument]))
    parts = {number: part(rows, products[number]) for number, rows in sorted(held.items())}
    deltas = {number: sum(net for net, _ in rows) for number, rows in held.items()}
    spared = credit(deltas, {number: p.scan for number, p in parts.items()}, offered)
    total = sum(
        p.scan + p.calendar + p.delivery + p.liquidity + p.concentration for p in parts.values()
    )
    return parts, spared, total - spared
