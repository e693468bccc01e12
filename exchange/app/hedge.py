"""The manager of a default trades its book: one order on the defaulter's own account.

One batch lifts the account's kill switch, records the hedge, enters the order and throws the switch
again. Clearing requests the switch as well as soon as it is lifted, so a crash in between leaves no
defaulter free to trade. Because of the record, a repeat under the same request id gets the first
outcome.
"""

import asyncio
import secrets
from typing import Any, Final

from exchange.app import requests, wishes
from exchange.app.clerk import Clerk
from exchange.app.desk import Desk, Outcome
from exchange.app.repeats import read
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing
from exchange.messages import (
    Command,
    CommandFlag,
    CommandKind,
    EventKind,
    Side,
    TimeInForce,
)

_TRADING: Final = (EventKind.TRADE, EventKind.ORDER_EXECUTED)  # with the incoming order's id


async def hedge(
    request: requests.Hedge, desk: Desk, clearing: Clearing, clerk: Clerk
) -> dict[str, Any]:
    """Enter an immediate-or-cancel order on the first of a defaulter's accounts that holds the
    instrument, and return what it traded.

    A known request id gets the first outcome again, marked ``traded_before``. RequestRefused: no
    such default, its book is closed (nothing could sell what the order bought), or another hedge
    has that id. WishRejected: the engine's reason.
    """
    if not request.request_id.isascii():
        raise RequestRefused("request_id must be ASCII")
    if request.request_id:
        # A hedge whose caller stopped waiting may still be queued: this comes after it.
        await desk.perform([wishes.checkpoint()])
    await clerk.cleared()
    before = await _before(request, desk, clearing)
    if before is not None:
        return before
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
    token = secrets.token_hex(8)
    name = f"hedge-{request.default}-{token}"  # a client order id that cannot be guessed
    noted = wishes.hedged(request, request.request_id or token, account)
    entered = _enter(name, account, side, listed.id, price, request.lots)
    lifted = wishes.switch(requests.Kill(account=account, lift=True), on=False)
    thrown = wishes.switch(requests.Kill(account=account), on=True)
    try:
        *_, outcome, _ = await desk.perform([lifted, noted, entered, thrown])
    finally:
        await clerk.cleared()
        await clerk.perform_dues()
    return _answer(request, request.request_id or token, account, outcome)


async def _before(request: requests.Hedge, desk: Desk, clearing: Clearing) -> dict[str, Any] | None:
    """Return the outcome of the earlier hedge under this request id; None if there was none, or it
    was rejected."""
    found = clearing.hedge(request.request_id) if request.request_id else None
    if found is None:
        return None
    sequence, facts = found
    outcome, _ = await asyncio.to_thread(read, desk, sequence)
    if outcome.reason is not None:
        return None
    for name in ("default", "code", "side", "lots", "price"):
        first, now = facts[name], getattr(request, name)
        if first != now and (name != "price" or wishes.micros(first) != wishes.micros(now)):
            raise RequestRefused(
                f"DUPLICATE_DIFFERENT: the hedge {request.request_id} was of {name} {facts[name]};"
                " another one takes an id of its own"
            )
    answer = _answer(request, request.request_id, facts["account"], outcome)
    return {**answer, "traded_before": True}


def _answer(
    request: requests.Hedge, request_id: str, account: int, outcome: Outcome
) -> dict[str, Any]:
    return {"default": request.default, "code": request.code, "account": account,
            "lots": _traded(outcome), "request_id": request_id}  # fmt: skip


def _traded(outcome: Outcome) -> int:
    """Return the lots that the order traded, at implied prices too. What stop orders traded that it
    triggered is in the same command, and is not its own."""
    entered = next(e.order_id for e in outcome.events if e.kind == EventKind.ORDER_ACCEPTED)
    return sum(e.quantity for e in outcome.events if e.kind in _TRADING and e.order_id == entered)


def _enter(name: str, account: int, side: Side, instrument: int, price: int, lots: int) -> Wish:
    key_lo, key_hi = wishes.digest(name, b"order")
    command = Command(
        kind=CommandKind.ENTER, account=account, side=side, instrument=instrument, price=price,
        quantity=lots, tif=TimeInForce.IOC, flags=CommandFlag.MANUAL, key_lo=key_lo, key_hi=key_hi,
    )  # fmt: skip
    return Wish(command, name)
