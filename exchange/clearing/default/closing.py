"""Closing out a defaulter's positions: by auction, and by tear-up of lots without a bid.

Lots move by the engine's TRANSFER of kind PORTING, each under an id of its own, so that no crash
and no repeat moves them twice:

    offset     own accounts long and short of one instrument are netted at the mark
    award      at the price bid; a winner without the margin for it gets nothing
    tear-up    accounts on the other side lose lots at the mark, in proportion to the lots they
               hold, by largest remainder
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from exchange.clearing.default.auction import Bid, award, juniors
from exchange.clearing.default.records import AuctionBid, OpenAuction, TearUp
from exchange.clearing.default.stages import (
    AUCTION_SECONDS_MAX,
    BIDS_MAX,
    SECOND,
    Auction,
    Default,
)
from exchange.clearing.matters import ACCEPTED, At, Due, Dues, Lots, Ruling
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, refused
from exchange.clearing.refusals import Denial
from exchange.clearing.sharing import share
from exchange.messages import HOUSE_ACCOUNT, Limit, TransferKind

if TYPE_CHECKING:
    from exchange.clearing.state import State


def transfer(
    id: str, giver: int, taker: int, instrument: int, lots: int, price: int, *, sells: bool
) -> Due:
    """Return the due that moves lots from ``giver`` to ``taker`` at a clearing price; the taker
    buys them, or if ``sells`` sells them."""
    moved = Lots(int(TransferKind.PORTING), giver, sells, instrument, price)
    return Due(id, "transfer", taker, lots, moved)


def freeze(id: str, account: int) -> Due:
    """Return the due that throws an account's kill switch, which cancels its working orders."""
    return Due(f"{id} freeze", "kill", account, 1)


def stays_frozen(default: Default, account: int, state: "State") -> bool:
    """Return whether an account of a member in default is frozen again if its switch is lifted.

    The member's own accounts always are. A client's account is once the client was ported or the
    default has ended, unless it holds lots, which it may have to close.
    """
    if account in default.accounts:
        return True
    ported = any(one.account == account for one in default.ported)
    held = any(position.net for _, position in state.positions.of_account(account))
    return (ported or default.stage == "ended") and not held


def open_auction(
    default: Default, auctions: list[Auction], record: OpenAuction, at: At, state: "State"
) -> Ruling:
    """Open the auction of the defaulter's position in an instrument.

    Lots that an earlier auction awarded or a tear-up assigned, and that the engine has not moved,
    are called off and offered again.
    """
    operation, number = "open_auction", record.instrument
    if default.stage != "declared":
        return refused(operation, Denial.DEFAULT_STATE, "declared", default.stage)
    if not 0 < record.within_seconds <= AUCTION_SECONDS_MAX:
        return refused(operation, Denial.EXPIRED, AUCTION_SECONDS_MAX, record.within_seconds)
    held = default.held(number, state)
    net = sum(held.values())
    if not held:
        return refused(operation, Denial.OPEN_POSITION, 1, 0)
    own = [a for a in auctions if a.default == default.id and a.instrument == number]
    if any(not auction.closed for auction in own):
        return refused(operation, Denial.DUPLICATE, 0, number)
    _drop([*map(_awarded, own), _torn(default, number)], at, state)
    mark = state.instruments[number].mark
    deadline = at.stamp + record.within_seconds * SECOND
    auction = Auction(len(auctions) + 1, default.id, number, net, mark, deadline)
    auctions.append(auction)
    for place, (long, short, lots) in enumerate(_offsets(held), start=1):
        id = f"offset {auction.id} {place}"
        ask(state, transfer(id, long, short, number, lots, mark, sells=False))
    default.note("auction opened", at)
    facts = {"auction": auction.id, "instrument": number, "net": net, "reference": mark,
             "deadline": deadline}  # fmt: skip
    return Ruling(operation, ACCEPTED, {"stage": "opened", **facts})


def bid(
    auction: Auction, gone: AbstractSet[int], record: AuctionBid, at: At, state: "State"
) -> Ruling:
    """Take a sealed bid; ``gone`` are the members in default, which may not bid."""
    operation = "auction_bid"
    if auction.closed:
        return refused(operation, Denial.EXPIRED, auction.deadline, at.stamp)
    unknown = record.account == HOUSE_ACCOUNT or record.account not in state.members
    if unknown or state.members[record.account][0] in gone:
        return refused(operation, Denial.UNKNOWN_ACCOUNT, 0, record.account)
    if not 0 < record.lots <= abs(auction.net):
        return refused(operation, Denial.QUANTITY, abs(auction.net), record.lots)
    listed = state.instruments[auction.instrument]
    step = listed.tick_scale * listed.price_step
    if not 0 < record.price <= Limit.PRICE or record.price % step:
        return refused(operation, Denial.PRICE_RANGE, step, record.price)
    if len(auction.bids) >= BIDS_MAX:
        return refused(operation, Denial.FULL, BIDS_MAX, len(auction.bids))
    member = state.matters.get(Registry).member_of(record.account, state)
    auction.bids.append(Bid(at.number, member, record.account, record.lots, record.price))
    return Ruling(operation, ACCEPTED, {"auction": auction.id, "lots": record.lots})


def close(
    default: Default, auction: Auction, fund: Mapping[int, int], at: At, state: "State"
) -> Ruling:
    """Close an auction: award lots, request their transfers, and name the junior members.

    ``fund`` has the contribution of each member that is not in default; bids of others are void.
    Awards are limited to what the defaulter still holds on the auction's side.
    """
    auction.closed = True
    held = default.held(auction.instrument, state)
    now = sum(held.values())
    net = min(now, auction.net, key=abs) if now * auction.net > 0 else 0
    bids = [one for one in auction.bids if one.member in fund]
    auction.awards, auction.unsold = award(net, bids)
    poor = juniors(auction.net, auction.reference, bids, fund)
    auction.junior = sorted(poor)
    default.junior = sorted({*default.junior, *poor})
    givers = _parts(held, net)
    place = 0
    for won in auction.awards:
        for giver, lots in _take(givers, won.lots):
            place += 1
            id = f"{_awarded(auction)}{place}"
            ask(state, transfer(id, giver, won.account, auction.instrument, lots, won.price,
                                sells=net < 0))  # fmt: skip
    default.note("auction closed", at)
    facts = {
        "auction": auction.id, "instrument": auction.instrument, "net": net,
        "awards": [a._asdict() for a in auction.awards], "unsold": auction.unsold,
        "junior": auction.junior,
    }  # fmt: skip
    return Ruling("auction", "closed", facts)


def refuse_tear_up(
    default: Default, auctions: list[Auction], record: TearUp, state: "State"
) -> Ruling | None:
    """Return the refusal of a tear-up, or None: only lots that an auction has left can be torn up,
    once its awards have moved."""
    operation, number = "tear_up", record.instrument
    if default.stage != "declared":
        return refused(operation, Denial.DEFAULT_STATE, "declared", default.stage)
    own = [a for a in auctions if a.default == default.id and a.instrument == number]
    if not own or not own[-1].closed:
        return refused(operation, Denial.PROPOSAL_STATE, "auctioned", "open" if own else "no")
    names = [*map(_awarded, own), _torn(default, number)]
    if waiting := _waiting(names, state):
        return refused(operation, Denial.PROPOSAL_STATE, "moved", waiting[0])
    if not sum(default.held(number, state).values()):
        return refused(operation, Denial.OPEN_POSITION, 1, 0)
    return None


def torn(default: Default, instrument: int, state: "State") -> dict[int, int]:
    """Return the lots that each account on the other side loses."""
    net = sum(default.held(instrument, state).values())
    others = {
        account: abs(position.net)
        for account, position in state.positions.of_instrument(instrument).items()
        if position.net * net < 0 and account not in default.accounts
    }
    return {account: lots for account, lots in share(abs(net), others).items() if lots}


def tear_up(default: Default, instrument: int, at: At, state: "State") -> None:
    """Request the transfers that end the position: accounts on the other side lose lots, at the
    mark.

    In the TRANSFER those accounts are the givers: they must still hold the lots and need no margin.
    """
    held = default.held(instrument, state)
    net, place = sum(held.values()), 0
    mark, givers = state.instruments[instrument].mark, _parts(held, net)
    for account, gone in torn(default, instrument, state).items():
        for giver, lots in _take(givers, gone):
            place += 1
            id = f"{_torn(default, instrument)}{at.number} {place}"
            ask(state, transfer(id, account, giver, instrument, lots, mark, sells=net > 0))
    default.note("torn up", at)


def follow(default: Default, auctions: list[Auction], at: At, state: "State") -> list[Ruling]:
    """Set the stage to ``closed`` or back to ``declared`` as the defaulter's positions require.

    The book is closed once nothing is held and everything is settled; lots that have not moved by
    then are called off. If something is held again, by a busted trade for example, the default is
    ``declared`` again at any later stage, since only then can the position be auctioned.
    """
    held = any(default.open_positions(state))
    if held == (default.stage == "declared"):
        return []
    default.stage, stage = ("declared", "reopened") if held else ("closed", "closed")
    for step in ("allocate", "replenish") if held else ("close",):
        default.steps.pop(step, None)
    if not held:
        own = [auction for auction in auctions if auction.default == default.id]
        names = [f"{what} {auction.id} " for auction in own for what in ("award", "offset")]
        _drop([*names, f"tear-up {default.id} "], at, state)
    facts = {"default": default.id, **default.begin(at, "close" if held else "allocate")}
    default.note(stage, at)
    return [Ruling("default", stage, facts)]


def _drop(names: list[str], at: At, state: "State") -> None:
    """Call off the open dues whose ids begin with one of ``names``."""
    dues = state.matters.get(Dues)
    for id in _waiting(names, state):
        dues.call_off(id, at.stamp)
    state.matters.touch(Dues)


def _awarded(auction: Auction) -> str:
    """Return the beginning of the ids of an auction's awards."""
    return f"award {auction.id} "


def _torn(default: Default, instrument: int) -> str:
    """Return the beginning of the ids of a tear-up's transfers."""
    return f"tear-up {default.id} {instrument} "


def _waiting(names: list[str], state: "State") -> list[str]:
    """Return the ids of open dues that begin with one of ``names``."""
    return [id for id in state.matters.get(Dues).open if id.startswith(tuple(names))]


def _parts(held: Mapping[int, int], net: int) -> list[list[int]]:
    """Return [account, lots] of the accounts on the side of ``net``, by account."""
    return [[account, abs(lots)] for account, lots in sorted(held.items()) if lots * net > 0]


def _take(givers: list[list[int]], lots: int) -> Iterator[tuple[int, int]]:
    """Yield (account, lots) that sum to ``lots``, and take them off ``givers``."""
    while lots:
        account, there = givers[0]
        part = min(there, lots)
        lots -= part
        givers[0][1] -= part
        if not givers[0][1]:
            givers.pop(0)
        yield account, part


def _offsets(held: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """Yield (long account, short account, lots) that net the accounts against each other."""
    longs, shorts = _parts(held, 1), _parts(held, -1)
    for short, owed in shorts:
        left = min(owed, sum(lots for _, lots in longs))
        for long, lots in _take(longs, left):
            yield long, short, lots
