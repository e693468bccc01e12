"""The manager of a default: its hedges, and the awards of its auction, taken to the book.

Award by award, at the price that was bid: the instrument is marked there, the winner's order
rests, the defaulter's lots hit it at once, and what of the winner's order is left is cancelled.
Whoever bids better meanwhile takes lots at that better price. The distance to the mark is thus a
loss of the position and not a hold of the order, so a book that is to be closed never lacks the
margin for it.
"""

from typing import Any

from exchange.app import requests, wishes
from exchange.app.desk import Desk, WishRejected
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing
from exchange.clearing.default.auction import Award
from exchange.messages import (
    Command,
    CommandFlag,
    CommandKind,
    EventKind,
    Reason,
    Side,
    TimeInForce,
    TradingState,
)


async def liquidate(auction_number: int, desk: Desk, clearing: Clearing) -> dict[str, Any]:
    """Carry out the awards of a closed auction; lots closed, and those still held.

    RequestRefused where there is nothing to carry out, or the market cannot trade; the defaulter's
    kill switch is thrown again however it ends.
    """
    found = clearing.auction(auction_number)
    if found is None or not found[0].closed:
        raise RequestRefused(f"auction {auction_number} is not closed; `clear defaults` lists them")
    auction, accounts = found
    listed = desk.instruments.by_id[auction.instrument]
    if listed.state != TradingState.CONTINUOUS:
        raise RequestRefused(f"{listed.code} is {listed.state.name}: open the day or resume it")
    mark, held = listed.mark, {a: clearing.net(a, listed.id) for a in accounts}
    before = sum(map(abs, held.values()))
    await desk.perform([_kill(account, killed=False) for account in accounts])
    try:
        for place, award in enumerate(auction.awards, start=1):
            name = f"award-{auction_number}-{place}"
            await _award(name, award, held, listed.id, listed.tick_scale, desk)
    finally:
        await desk.perform([_kill(account, killed=True) for account in accounts])
        await desk.perform([_mark(listed.id, mark)])
    left = sum(map(abs, held.values()))
    return {"auction": auction_number, "code": listed.code, "lots": before - left, "left": left}


async def hedge(request: requests.Hedge, desk: Desk, clearing: Clearing) -> dict[str, Any]:
    """One order of the manager's on a defaulter's own first account: at once or not at all.

    RequestRefused where there is no such default; WishRejected with the engine's reason.
    """
    accounts = clearing.defaulter(request.default)
    if not accounts:
        raise RequestRefused(f"no default {request.default}; `clear defaults` lists them")
    listed, account = desk.instrument(request.code), accounts[0]
    price, off = divmod(wishes.micros(request.price), listed.tick_scale)
    if off:
        raise RequestRefused(f"price {request.price} is not on {request.code}'s tick")
    side = Side[request.side.upper()]
    name = f"hedge-{request.default}-{desk.sequence}"
    entered = _enter(name, account, side, listed.id, price, request.lots, TimeInForce.IOC)
    await desk.perform([_kill(account, killed=False)])
    try:
        (outcome,) = await desk.perform([entered])
    finally:
        await desk.perform([_kill(account, killed=True)])
    traded = sum(e.quantity for e in outcome.events if e.kind == EventKind.TRADE)
    return {"default": request.default, "code": request.code, "account": account, "lots": traded}


async def _award(
    name: str, award: Award, held: dict[int, int], instrument: int, tick_scale: int,
    desk: Desk,
) -> None:  # fmt: skip
    """One award: lots of the defaulter's own accounts, in their order, against the winner's."""
    price, left = award.price // tick_scale, award.lots
    parts = []
    for account, net in held.items():
        lots = min(abs(net), left)
        left -= lots
        if lots:
            parts.append((account, lots))
    if not parts:
        return
    selling = held[parts[0][0]] > 0
    ours, theirs = (Side.SELL, Side.BUY) if selling else (Side.BUY, Side.SELL)
    wanted = award.lots - left
    rests = _enter(f"{name}-w", award.account, theirs, instrument, price, wanted)
    hits = [
        _enter(f"{name}-{n}", account, ours, instrument, price, lots, TimeInForce.IOC)
        for n, (account, lots) in enumerate(parts)
    ]
    _, _, *outcomes = await desk.perform([_mark(instrument, award.price), rests, *hits])
    for (account, _), outcome in zip(parts, outcomes, strict=True):
        traded = sum(e.quantity for e in outcome.events if e.kind == EventKind.TRADE)
        held[account] -= traded if selling else -traded
    try:
        await desk.perform([_cancel(name, award.account, rests)])
    except WishRejected as rejected:
        if rejected.reason is not Reason.TOO_LATE:  # it was filled, as it should be
            raise


def _kill(account: int, *, killed: bool) -> Wish:
    return wishes.set_account(requests.SetAccount(account=account, killed=killed))


def _mark(instrument: int, price: int) -> Wish:
    command = Command(kind=CommandKind.MARK, instrument=instrument, price=price)
    return Wish(command, wishes.note("mark", instrument=instrument))


def _enter(
    name: str, account: int, side: Side, instrument: int, price: int, lots: int,
    tif: TimeInForce = TimeInForce.DAY,
) -> Wish:  # fmt: skip
    key_lo, key_hi = wishes.digest(name, b"order")
    command = Command(
        kind=CommandKind.ENTER, account=account, side=side, instrument=instrument, price=price,
        quantity=lots, tif=tif, flags=CommandFlag.MANUAL, key_lo=key_lo, key_hi=key_hi,
    )  # fmt: skip
    return Wish(command, name)


def _cancel(name: str, account: int, entered: Wish) -> Wish:
    command = Command(
        kind=CommandKind.CANCEL, account=account, side=Side.UNSTATED,
        flags=CommandFlag.BY_CLIENT_ID, target_lo=entered.command.key_lo,
        target_hi=entered.command.key_hi,
    )  # fmt: skip
    return Wish(command, f"{name}-c")
