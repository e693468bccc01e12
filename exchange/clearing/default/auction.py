"""The auction of a defaulter's book: sealed bids, lots to the best price, poor bidders named.

A bid is for so many lots of one instrument at a clearing price per lot-hour. The book is long or
short: of a long one the highest bids win, of a short one the lowest. Equal prices go by who was
first. Everyone pays the price that was bid.

    expected of a member   its share of the lots by its fund contribution, largest remainder
    junior                 a member that bid for less than PARTICIPATION_PCT of that, counting only
                           bids within REACH_PCT of the reference price: its fund is used first
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from exchange.clearing.sharing import share

PERCENT: Final = 100
PARTICIPATION_PCT: Final = 50
REACH_PCT: Final = 20


class Bid(NamedTuple):
    """An offer to take over lots. ``number`` is the event that recorded it: the time order."""

    number: int
    member: int
    account: int
    lots: int
    price: int


class Award(NamedTuple):
    """Lots that one account takes over at the price it bid."""

    member: int
    account: int
    lots: int
    price: int


def award(net: int, bids: Sequence[Bid]) -> tuple[list[Award], int]:
    """Who takes how much of a position of ``net`` signed lots, and the lots that nobody takes."""
    left = abs(net)
    better = -1 if net > 0 else 1
    awards = []
    for bid in sorted(bids, key=lambda b: (better * b.price, b.number)):
        taken = min(left, bid.lots)
        if taken:
            awards.append(Award(bid.member, bid.account, taken, bid.price))
            left -= taken
    assert sum(a.lots for a in awards) + left == abs(net), "lots are lost"
    return awards, left


def result(net: int, reference: int, multiplier: int, awards: Sequence[Award]) -> int:
    """Micro-dollars that the defaulter's book gains against the reference price by its awards."""
    sign = 1 if net > 0 else -1
    return sum(sign * a.lots * (a.price - reference) * multiplier for a in awards)


def juniors(
    net: int, reference: int, bids: Sequence[Bid], fund: Mapping[int, int]
) -> frozenset[int]:
    """The members whose bids were too few or too far from the reference price.

    ``fund``: the contribution of every member that had to bid.
    """
    if not net or not sum(fund.values()):
        return frozenset()
    worst = reference * (PERCENT - REACH_PCT) if net > 0 else reference * (PERCENT + REACH_PCT)
    bid_for = dict.fromkeys(fund, 0)
    for bid in bids:
        fair = bid.price * PERCENT >= worst if net > 0 else bid.price * PERCENT <= worst
        if fair and bid.member in bid_for:
            bid_for[bid.member] += bid.lots
    expected = share(abs(net), fund)
    return frozenset(
        member
        for member, lots in expected.items()
        if bid_for[member] * PERCENT < lots * PARTICIPATION_PCT
    )
