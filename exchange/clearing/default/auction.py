"""The auction of one position of a defaulter: awards of sealed bids, and the junior members.

A bid is for a number of lots of one instrument at a clearing price. The highest bids win a long
position, the lowest a short one; of equal prices the earlier bid wins. Each winner pays the price
that it bid.

    expected of a member   its share of the lots by its fund contribution, largest remainder
    junior                 a member that bid for less than PARTICIPATION_PCT of its expected lots,
                           counting only bids within REACH_PCT of the reference price; its fund
                           contribution is used before the others'
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from exchange.clearing.sharing import share

PERCENT: Final = 100
PARTICIPATION_PCT: Final = 50
REACH_PCT: Final = 20


class Bid(NamedTuple):
    """An offer to take over lots. ``number`` is that of the event that recorded it: bids are
    ordered by it in time."""

    number: int
    member: int
    account: int
    lots: int
    price: int


class Award(NamedTuple):
    """Lots that an account takes over at the price that it bid."""

    member: int
    account: int
    lots: int
    price: int


def award(net: int, bids: Sequence[Bid]) -> tuple[list[Award], int]:
    """Return the awards of a position of ``net`` signed lots, and the lots without a bid."""
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


def juniors(
    net: int, reference: int, bids: Sequence[Bid], fund: Mapping[int, int]
) -> frozenset[int]:
    """Return the members that bid for too few lots, or too far from the reference price.

    ``fund`` has the contribution of every member that had to bid.
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
