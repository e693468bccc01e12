"""The scan: the loss of each portfolio in sixteen scenarios, and the other parts of its margin.

All positions are margined in one pass over arrays. Per account and product

    scan           the largest loss over SCENARIOS, all expiries moving together, never below zero
    calendar       spreads x charge; spreads = min(lots long, lots short)
    delivery       lots of the spot month x rate, less a relief for each of them in a spread
    liquidity      lots x the cost of closing one
    concentration  rules.concentration of scan + calendar + delivery for max(lots long, lots short)

and per account the sum of these less the credits between products. Units: lots, and micro-dollars
per lot. All arithmetic is exact: if 64 bits might overflow, the same code runs on Python's
integers.

Invariants: every part >= 0; credit <= the sum of the parts (asserted); no positions, no margin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exchange.clearing.margin import rules

Ints: TypeAlias = NDArray[Any]  # int64, or Python integers if these might overflow

EXTREME_MULTIPLE: Final = 3  # scan ranges of the extreme move
EXTREME_COVER: Final = 33  # percent of its loss that is charged
# Price moves in scan ranges, as fractions. Each of the first seven is there twice, for a rise and a
# fall of volatility, which does not affect futures: the scenarios keep their usual numbers.
SCENARIOS: Final = (
    (0, 1), (0, 1), (1, 3), (1, 3), (-1, 3), (-1, 3), (2, 3), (2, 3), (-2, 3), (-2, 3),
    (1, 1), (1, 1), (-1, 1), (-1, 1),
    (EXTREME_MULTIPLE * EXTREME_COVER, rules.PERCENT),
    (-EXTREME_MULTIPLE * EXTREME_COVER, rules.PERCENT),
)  # fmt: skip
CHUNK: Final = 1 << 16  # positions per step, so that its arrays fit a core's cache
_SAFE: Final = float(1 << 58)  # of an account's gross margin: no product of the scan passes 2**63


def risk_array(scan_range: int) -> list[int]:
    """Return the loss of one long lot in each scenario; that of a short lot is its negative.

    Rounded towards zero. The losses of a full scan range need no rounding.
    """
    losses = []
    for numerator, denominator in SCENARIOS:
        size = abs(numerator) * scan_range // denominator
        losses.append(-size if numerator > 0 else size)
    return losses


class Credit(NamedTuple):
    """An offset between two products: ``ratio_a`` lots of a against ``ratio_b`` lots of b."""

    a: int
    b: int
    ratio_a: int
    ratio_b: int
    percent: int  # of the scans that offset each other


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates per lot in micro-dollars, indexed by instrument id or by product."""

    # by instrument
    product: Ints
    scan_range: Ints
    liquidity: Ints
    spot: Ints  # 1 in the spot month, else 0
    delivery: Ints  # per lot of the spot month; 0 for any other
    # by product
    spread: Ints  # per calendar spread
    relief: Ints  # per lot of the spot month in a spread; at most its ``delivery``
    daily_volume: Ints  # lots
    participation: Ints  # percent of it that may be closed in a day
    credits: tuple[Credit, ...] = ()  # in order of precedence

    def __post_init__(self) -> None:
        relieved = (self.delivery < self.relief[self.product]) & (self.spot == 1)
        assert not relieved.any(), "a relief beyond the charge"
        assert all(a != b for a, b, *_ in self.credits), "a credit of a product with itself"

    def gross(self) -> Ints:
        """Return an upper bound of each instrument's margin per lot, without concentration."""
        extreme = self.scan_range * EXTREME_MULTIPLE
        return np.asarray(extreme + self.liquidity + self.delivery + self.spread[self.product])


class Parts(NamedTuple):
    """The parts of each account and product, as arrays; ``worst`` counts scenarios from 1."""

    account: Ints  # as given
    product: Ints
    scan: Ints
    worst: Ints
    calendar: Ints
    delivery: Ints
    liquidity: Ints
    concentration: Ints


class Margins(NamedTuple):
    """The margins of all accounts, in ascending order of account."""

    account: Ints
    credit: Ints
    total: Ints
    parts: Parts


def margins(
    account: Ints,
    instrument: Ints,
    net: Ints,
    rates: Rates,
    advance: Callable[[int], object] = lambda done: None,
) -> Margins:
    """Return the requirement of every account with positions.

    The three arrays have one element per position, each pair of account and instrument once, in any
    order; ``net`` is signed lots. ``advance`` is called with the number of positions done since its
    last call.
    """
    if not len(net):
        none = np.zeros(0, dtype=np.int64)
        return Margins(none, none, none, Parts(*(none,) * len(Parts._fields)))
    order = np.lexsort((rates.product[instrument], account))
    account, instrument, net = account[order], instrument[order], net[order]
    rates = _wide(account, instrument, net, rates)
    net = net.astype(rates.scan_range.dtype)
    table = np.array([risk_array(size) for size in rates.scan_range.tolist()], dtype=net.dtype).T
    firsts = np.flatnonzero(np.diff(account, prepend=-1))
    found: list[Margins] = []
    begin = 0
    for end in [*firsts[1:].tolist(), len(account)]:
        if end - begin >= CHUNK or end == len(account):
            cut = slice(begin, end)
            found.append(_margins(account[cut], instrument[cut], net[cut], rates, table))
            advance(end - begin)
            begin = end
    parts = Parts(*map(np.concatenate, zip(*(one.parts for one in found), strict=True)))
    accounts, credit, whole = map(np.concatenate, zip(*(m[:3] for m in found), strict=True))
    return Margins(accounts, credit, whole, parts)


def _wide(account: Ints, instrument: Ints, net: Ints, rates: Rates) -> Rates:
    """The rates with an integer type in which no product or sum of these positions overflows."""
    starts = np.flatnonzero(np.diff(account, prepend=-1))
    gross = np.abs(net.astype(float)) * rates.gross().astype(float)[instrument]
    kind: type = np.int64 if np.add.reduceat(gross, starts).max() < _SAFE else object
    wide = {
        name: getattr(rates, name).astype(kind)
        for name in ("scan_range", "liquidity", "delivery", "spread", "relief")
    }
    kept = {name: getattr(rates, name) for name in Rates.__slots__ if name not in wide}
    return Rates(**wide, **kept)


def _margins(account: Ints, instrument: Ints, net: Ints, rates: Rates, table: Ints) -> Margins:
    """The margins of whole accounts, whose positions are sorted by account and product."""
    product = rates.product[instrument]
    starts = np.flatnonzero(np.diff(account, prepend=-1) | np.diff(product, prepend=-1))
    in_product = product[starts]

    def total(values: Ints) -> Ints:
        return np.asarray(np.add.reduceat(values, starts))

    scan, worst = _scan(net, instrument, table, total)
    spot, long, short = rates.spot[instrument] == 1, np.maximum(net, 0), np.maximum(-net, 0)
    bought, sold = total(long), total(short)
    spreads = np.minimum(bought, sold)
    # Spreads between other months are formed first, so that as many lots as possible of the spot
    # month count as outright.
    far = np.minimum(total(np.where(spot, 0, long)), total(np.where(spot, 0, short)))
    near = total(np.where(spot, long + short, 0))
    in_spreads = np.minimum(near, spreads - far)
    delivery = total((long + short) * rates.delivery[instrument])
    delivery = delivery - in_spreads * rates.relief[in_product]
    calendar = spreads * rates.spread[in_product]
    liquidity = total((long + short) * rates.liquidity[instrument])
    size = np.maximum(bought, sold)
    extra = _concentration(scan + calendar + delivery, size, in_product, rates)
    parts = Parts(account[starts], in_product, scan, worst, calendar, delivery, liquidity, extra)
    return _summed(parts, bought - sold, rates)


def _scan(
    net: Ints, instrument: Ints, table: Ints, total: Callable[[Ints], Ints]
) -> tuple[Ints, Ints]:
    """The largest loss of every group, at least zero, and its scenario."""
    largest: Ints = total(net * table[0][instrument])
    worst = np.ones(len(largest), dtype=np.int64)
    for number, losses in enumerate(table[1:], 2):
        loss = total(net * losses[instrument])
        more = loss > largest
        largest, worst = np.where(more, loss, largest), np.where(more, number, worst)
    assert (largest >= 0).all(), "the first scenario loses nothing"
    return largest, worst


def _concentration(margin: Ints, lots: Ints, product: Ints, rates: Rates) -> Ints:
    volume, share = rates.daily_volume[product], rates.participation[product]
    add = [0] * len(lots)
    for place in np.flatnonzero(lots * rules.PERCENT > volume * share).tolist():
        add[place] = rules.concentration(
            int(margin[place]), int(lots[place]), int(volume[place]), int(share[place])
        )
    return np.array(add, dtype=object if max(add) >= _SAFE else margin.dtype)


def _summed(parts: Parts, delta: Ints, rates: Rates) -> Margins:
    """The sum of the parts by account, less its credits."""
    whole = parts.scan + parts.calendar + parts.delivery + parts.liquidity + parts.concentration
    starts = np.flatnonzero(np.diff(parts.account, prepend=-1))
    accounts, whole = parts.account[starts], np.add.reduceat(whole, starts)
    credit = np.zeros_like(whole)
    if rates.credits:
        ends = [*starts[1:].tolist(), len(parts.account)]
        for place, (begin, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
            if end - begin > 1:
                cut = slice(begin, end)
                credit[place] = credits(
                    parts.product[cut].tolist(), delta[cut].tolist(), parts.scan[cut].tolist(),
                    rates.credits,
                )  # fmt: skip
    assert (credit >= 0).all() and (credit <= whole).all(), "credit beyond the scans"
    return Margins(accounts, credit, whole - credit, parts)


def credits(
    products: Sequence[int], deltas: Sequence[int], scans: Sequence[int], offered: Sequence[Credit]
) -> int:
    """Return one account's credit for offsets between products, in micro-dollars.

    Only opposite net lots offset each other, in whole spreads; lots used by one credit are not
    available to the next.
    """
    delta, scan = dict(zip(products, deltas, strict=True)), dict(zip(products, scans, strict=True))
    left, spared = delta.copy(), dict.fromkeys(products, 0)
    for a, b, ratio_a, ratio_b, percent in offered:
        if left.get(a, 0) * left.get(b, 0) >= 0:
            continue
        spreads = min(abs(left[a]) // ratio_a, abs(left[b]) // ratio_b)
        for side, ratio in ((a, ratio_a), (b, ratio_b)):
            used = spreads * ratio
            left[side] -= used if left[side] > 0 else -used
            spared[side] += rules.spread_credit(scan[side], used, abs(delta[side]), percent)
    return sum(min(spared[side], scan[side]) for side in products)
