"""The manager of a default trades its book: one order on the defaulter's own account.

The account's kill switch is lifted for that order alone and thrown again behind it, in one breath;
clearing asks for that too the moment it is lifted, so a crash in between leaves nobody free.
"""

import secrets
from typing import Any

from exchange.app import requests, wishes
from exchange.app.clerk import Clerk
from exchange.app.desk import Desk
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing
from exchange.messages import Command, CommandFlag, CommandKind, EventKind, Side, TimeInForce


async def hedge(
    request: requests.Hedge, desk: Desk, clearing: Clearing, clerk: Clerk
) -> dict[str, Any]:
    """One order on a defaulter's own first account that holds the instrument: at once or not.

    RequestRefused where there is no such default, or its book is closed: nothing could sell again
    what it bought. WishRejected with the engine's reason.
    """
    stage, accounts = clearing.default_stage(request.default), clearing.defaulter(request.default)
    if not stage:
        raise RequestRefused(f"no default {request.default}; `clear default show` lists them")
    if stage != "declared":
        raise RequestRefused(f"default {request.default} is {stage}: its book is closed")
    listed = desk.instrument(request.code)
    held = [account for account in accounts if clearing.net(account, listed.id)]
    account = (held or accounts)[0]
    price, off = divmod(wishes.micros(request.price), listed.tick_scale)
    if off:
        raise RequestRefused(f"price {request.price} is not on {request.code}'s tick")
    side = Side[request.side.upper()]
    name = f"hedge-{request.default}-{secrets.token_hex(8)}"  # a client's id that nobody guesses
    entered = _enter(name, account, side, listed.id, price, request.lots)
    lifted = wishes.switch(requests.Kill(account=account, lift=True), on=False)
    thrown = wishes.switch(requests.Kill(account=account), on=True)
    try:
        _, outcome, _ = await desk.perform([lifted, entered, thrown])
    finally:
        await clerk.cleared()
        await clerk.perform_dues()
    traded = sum(e.quantity for e in outcome.events if e.kind == EventKind.TRADE)
    return {"default": request.default, "code": request.code, "account": account, "lots": traded}


def _enter(name: str, account: int, side: Side, instrument: int, price: int, lots: int) -> Wish:
    key_lo, key_hi = wishes.digest(name, b"order")
    command = Command(
        kind=CommandKind.ENTER, account=account, side=side, instrument=instrument, price=price,
        quantity=lots, tif=TimeInForce.IOC, flags=CommandFlag.MANUAL, key_lo=key_lo, key_hi=key_hi,
    )  # fmt: skip
    return Wish(command, name)
