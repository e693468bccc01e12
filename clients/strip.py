"""A hedger's strip: a total of GPU-hours spread over the months of a curve, exactly.

One lot of a monthly contract is one GPU for every hour of the month, so months of 28, 30 and 31
days have different hours for the same GPUs. All figures are integers and nothing is lost in
rounding: the legs' hours sum to the total, and what whole lots cannot cover is stated.
"""

from collections.abc import Mapping, Sequence
from operator import index

import msgspec

from clients.errors import ValueRefused


class Leg(msgspec.Struct, frozen=True):
    """One month. ``unhedged_hours`` = hours minus what the lots cover; negative: over-hedged."""

    instrument: str
    hours: int
    lots: int
    unhedged_hours: int


class Strip(msgspec.Struct, frozen=True):
    """Legs in the order given. Their ``hours`` sum to the total that was split."""

    legs: tuple[Leg, ...]

    @property
    def hours(self) -> int:
        """The total of GPU-hours."""
        return sum(leg.hours for leg in self.legs)

    @property
    def unhedged_hours(self) -> int:
        """GPU-hours not covered over the whole strip: at most half a lot of one month."""
        return sum(leg.unhedged_hours for leg in self.legs)


def _whole(hours: int) -> int:
    """Return an integer of any kind as an int; ValueRefused for a float, a Decimal or text."""
    try:
        return index(hours)
    except TypeError:
        raise ValueRefused(f"{hours!r} is not an integer: hours are whole") from None


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Return ``total`` in shares proportional to ``weights``; they sum to ``total`` exactly.

    Every share is rounded down, then one unit each goes to the largest remainders; of equal ones to
    the earlier first. ValueRefused if ``total`` or a weight is negative or not an integer, or no
    weight is positive.
    """
    total, weights = _whole(total), [_whole(weight) for weight in weights]
    whole = sum(weights)
    if total < 0 or whole <= 0 or min(weights) < 0:
        raise ValueRefused(f"cannot split {total} by weights {list(weights)}")
    parts = [divmod(total * weight, whole) for weight in weights]
    shares = [share for share, _ in parts]
    order = sorted(range(len(parts)), key=lambda i: (-parts[i][1], i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def split(total_hours: int, hours_per_lot: Mapping[str, int]) -> Strip:
    """Return ``total_hours`` as a strip over instruments, each with the hours of one lot (672 to
    744).

    Hours are proportional to the month's length, so the number of GPUs is the same throughout.
    Lots: whole lots first, then one more for the largest remainders while at least half a lot of
    hours is still open. ValueRefused as in ``largest_remainder``, and if a lot would have no hours.

    >>> split(7 * 744 + 7 * 672, {"H100F27": 744, "H100G27": 672}).legs[1].lots
    7
    """
    names, sizes = list(hours_per_lot), [_whole(size) for size in hours_per_lot.values()]
    if 0 in sizes:
        raise ValueRefused(f"a lot of {names[sizes.index(0)]} has no hours")
    hours = largest_remainder(total_hours, sizes)
    lots = [want // size for want, size in zip(hours, sizes, strict=True)]
    left = [want % size for want, size in zip(hours, sizes, strict=True)]
    open_hours = sum(left)
    for i in sorted(range(len(names)), key=lambda i: (-left[i], i)):
        if 2 * open_hours < sizes[i]:
            break
        lots[i] += 1
        open_hours -= sizes[i]
    legs = zip(names, hours, lots, sizes, strict=True)
    return Strip(tuple(Leg(name, want, n, want - n * size) for name, want, n, size in legs))
