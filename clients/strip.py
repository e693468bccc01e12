"""A hedger's strip: a total of GPU-hours spread over the months of a curve, exactly.

One lot of a monthly contract is one GPU for every hour of the month, so months of 28, 30 and 31
days have different hours for the same GPUs. All figures are integers and nothing is lost in
rounding: the legs' hours sum to the total, and what whole lots cannot cover is stated.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from operator import index

import msgspec

from clients.decimals import checked_decimal, exact_sum
from clients.errors import ValueRefused


class Leg(msgspec.Struct, frozen=True):
    """One month. ``unhedged_hours`` = hours minus what the lots cover; negative: over-hedged."""

    instrument: str
    hours: int
    lots: int
    unhedged_hours: int

    @property
    def covered_hours(self) -> int:
        """GPU-hours of the lots."""
        return self.hours - self.unhedged_hours


class Strip(msgspec.Struct, frozen=True):
    """Legs in the order given. Their ``hours`` sum to the total."""

    legs: tuple[Leg, ...]

    @property
    def hours(self) -> int:
        """The total of GPU-hours."""
        return sum(leg.hours for leg in self.legs)

    @property
    def unhedged_hours(self) -> int:
        """GPU-hours not covered over the whole strip: at most half a lot of one month."""
        return sum(leg.unhedged_hours for leg in self.legs)

    def value(self, prices: Mapping[str, str | Decimal]) -> Decimal:
        """Return what the lots are worth in dollars at the prices per GPU-hour of each instrument,
        exactly. ValueRefused if one with lots has no price, or one that is no text or Decimal."""
        return exact_sum(
            (leg.covered_hours, _price_of(leg.instrument, prices)) for leg in self.legs if leg.lots
        )


def _price_of(instrument: str, prices: Mapping[str, str | Decimal]) -> Decimal:
    price = prices.get(instrument)
    if not isinstance(price, str | Decimal):
        raise ValueRefused(f"the price of {instrument} is {price!r}; it takes dollars as text")
    return checked_decimal(price, "price")


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
    hours = largest_remainder(total_hours, list(hours_per_lot.values()))
    return profile(dict(zip(hours_per_lot, hours, strict=True)), hours_per_lot)


def profile(hours: Mapping[str, int], hours_per_lot: Mapping[str, int]) -> Strip:
    """Return a strip of hours that differ from month to month, such as those of a fleet that grows.

    ``hours`` are by instrument, in the order of the legs; ``hours_per_lot`` may have further ones.
    Lots are chosen as in ``split``. ValueRefused if hours are negative or not an integer, or an
    instrument has no lot or one without hours.

    >>> [leg.lots for leg in profile({"H100F27": 7_440, "H100G27": 8_064},
    ...                              {"H100F27": 744, "H100G27": 672}).legs]
    [10, 12]
    """
    names, wanted = list(hours), [_whole(count) for count in hours.values()]
    sizes = [_whole(hours_per_lot.get(name, 0)) for name in names]
    for name, count, size in zip(names, wanted, sizes, strict=True):
        if size <= 0:
            raise ValueRefused(f"a lot of {name} has no hours")
        if count < 0:
            raise ValueRefused(f"{count} hours of {name}: a strip has one side")
    return _covered(names, wanted, sizes)


def _covered(names: list[str], hours: list[int], sizes: list[int]) -> Strip:
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
