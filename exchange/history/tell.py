"""Describes an order's history in words: what happened at each step, and the rule behind it.

The rules are those of docs/reference/engine.md; each step names the section.
"""

from typing import Any, Final

from exchange.history.order import CORRECTED, TARGETED, Life, Step
from exchange.history.picture import Picture, money
from exchange.history.records import SPECIAL, EventRow
from exchange.history.walk import time_text
from exchange.history.words import (
    CANCELS,
    command_line,
    event_line,
    key_text,
    member_name,
    reject_words,
)
from exchange.messages import (
    INDEX_BITS,
    CancelReason,
    CommandKind,
    EventFlag,
    EventKind,
    SelfTrade,
    TradingState,
)

PRIORITY: Final = "engine.md, Price-time priority"
IDENTITY: Final = "engine.md, Orders and slots"
DORMANT: Final = "engine.md, Dormant orders"
AUCTIONS: Final = "engine.md, Auctions"
IMPLIED: Final = "engine.md, Combinations"
SPECIAL_ORDERS: Final = "engine.md, What is special about an order"
RISK: Final = "engine.md, Risk"
COMMANDS: Final = "engine.md, Commands"
CORRECTIONS: Final = "engine.md, Corrections"
REJECTS: Final = "rejects.md"

Told = dict[str, str]  # what, why, rule
_COLLECTING: Final = (TradingState.PRE_OPEN, TradingState.AUCTION)


def tell(life: Life, picture: Picture) -> dict[str, Any]:
    """Return the history as plain data: the order, its state, and every step with what, why and
    rule."""
    code = None if life.instrument is None else picture.code(life.instrument)
    return {
        "order_id": life.order_id,
        "account": life.account,
        "client_order_id_digest": key_text(*life.key),
        "instrument": code,
        "side": None if life.order_id is None else ("sell" if life.sell else "buy"),
        "state": life.state,
        "quantity": life.quantity,
        "executed": life.executed,
        "cancelled": life.cancelled,
        "leaves": life.leaves,
        "steps": [_step(step, life, picture) for step in life.steps],
        "steps_left_out": life.steps_left_out,
        "entered_again": life.entered_again,
    }


def _step(step: Step, life: Life, picture: Picture) -> dict[str, Any]:
    told: dict[str, Any] = {
        "sequence": step.sequence,
        "time": time_text(step.stamp),
        "received": time_text(step.ingress) if step.ingress else None,
        "command": command_line(step.command, picture, life.instrument),
        "by": "the order's owner" if step.own else _other(step, life),
    }
    told["happened"] = [_event(row, step, life, picture) for row in step.events]
    return told


def _other(step: Step, life: Life) -> str:
    """Return who sent the command of a step that does not name the order, or not by its owner."""
    kind, account = step.command.kind, step.command.account
    if kind in (CommandKind.BUST, CommandKind.ADJUST):  # whose account is one of the trade
        return "the market"
    if kind == CommandKind.ENTER or kind in TARGETED:
        same = account == life.account
        return f"another order of account {account}" if same else f"account {account}"
    return "the market" if account != life.account else "the order's owner"


def _event(row: EventRow, step: Step, life: Life, picture: Picture) -> Told:
    kind, flags = row[2], row[3]
    if flags & EventFlag.DUPLICATE:
        return {
            "what": "the first answer again",
            "why": "a repeat of a known id with the same fields changes nothing",
            "rule": IDENTITY,
        }
    if kind == EventKind.REJECTED:
        instrument = step.command.instrument if life.instrument is None else life.instrument
        return {
            "what": f"rejected: {reject_words(row, picture, instrument).partition(':')[0]}",
            "why": reject_words(row, picture, instrument).partition(": ")[2] + _means(step),
            "rule": REJECTS,
        }
    if kind == EventKind.ORDER_ACCEPTED:
        return _accepted(row, step, picture)
    if kind == EventKind.TRADE:
        return _traded(row, life, picture)
    if kind == EventKind.ORDER_REPLACED:
        return _replaced(row, step, picture)
    if kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
        return _cancelled(row, step)
    if kind == EventKind.ORDER_EXECUTED:
        return _executed(row, life, picture)
    if kind == EventKind.ORDER_DORMANT:
        return {
            "what": f"{row[10]:,} lots wait outside the book",
            "why": "the price limits moved and the order's price is beyond them; it keeps its hold"
            " and returns when they reach it again",
            "rule": DORMANT,
        }
    if kind in SPECIAL:
        return _special(row, step, picture)
    if kind in CORRECTED:
        return {
            "what": event_line(row, picture),
            "why": "the exchange corrected the trade; the order has executed these lots all the"
            " same, and they do not work again",
            "rule": CORRECTIONS,
        }
    return {
        "what": f"returned to the market with {row[9]:,} lots, {row[10]:,} rest",
        "why": f"the limits reach its price again; {_queue(row, step, picture)}",
        "rule": DORMANT,
    }


def _executed(row: EventRow, life: Life, picture: Picture) -> Told:
    """Describe lots that traded through an implied price."""
    verb, combination = "sold" if life.sell else "bought", picture.code(row[14])
    resting = row[3] & EventFlag.RESTING
    why = (
        f"with others of {combination} and its legs, this order implied a price that one coming in"
        " reached"
        if resting
        else f"prices of {combination} and of its legs imply one that is better than any order of"
        " the book has"
    )
    what = f"{verb} {row[9]:,} at {picture.price(row[5], row[8])}; {row[10]:,} left"
    return {"what": what, "why": why, "rule": IMPLIED}


def _special(row: EventRow, step: Step, picture: Picture) -> Told:
    """Describe a stop that waits or is elected, or an iceberg that shows its next part."""
    price = picture.price(row[5], row[8])
    if row[2] == EventKind.ORDER_REFILLED:
        return {
            "what": f"shows {row[10]:,} of its {row[9]:,} lots at {price}",
            "why": "all that it showed has traded: the next part stands behind all of its price",
            "rule": SPECIAL_ORDERS,
        }
    trigger = picture.price(row[5], row[14])
    direction = "at or below" if row[3] & EventFlag.SELL else "at or above"
    if row[2] == EventKind.ORDER_WAITING:
        return {
            "what": f"{row[9]:,} lots wait for a trade {direction} {trigger}, limit {price}",
            "why": "a stop is in no book until a trade elects it; it keeps its hold",
            "rule": SPECIAL_ORDERS,
        }
    rests = f", {row[10]:,} rest, {_queue(row, step, picture)}" if row[10] else ""
    return {
        "what": f"came in with {row[9]:,} lots at {price}{rests}",
        "why": f"a trade {direction} its trigger {trigger} elected it",
        "rule": SPECIAL_ORDERS,
    }


def _means(step: Step) -> str:
    """Return the account's cash and requirement, for its own rejected order; else an empty
    text."""
    account = (step.before or {}).get("account")
    asked = step.own and step.command.kind in (CommandKind.ENTER, CommandKind.REPLACE)
    if account is None or not asked:
        return ""
    return f"; it had {money(account['cash'])} USD in cash, {money(account['required'])} required"


def _queue(row: EventRow, step: Step, picture: Picture, own: int = 0) -> str:
    """Return the order's place in the queue at its price. ``own``: lots that the order itself had
    there before, 0 if none."""
    side = "asks" if row[3] & EventFlag.SELL else "bids"
    levels = (step.before or {}).get(side, [])
    lots, orders = next(((q, n) for price, q, n in levels if price == row[8]), (0, 0))
    lots, orders = lots + step.moved[0] - own, orders + step.moved[1] - bool(own)
    price = picture.price(row[5], row[8])
    if orders <= 0 or lots <= 0:
        return f"alone at {price}"
    owners = "1 order" if orders == 1 else f"{orders:,} orders"
    return f"behind {lots:,} lots of {owners} at {price}, which came before it"


def _accepted(row: EventRow, step: Step, picture: Picture) -> Told:
    account = (step.before or {}).get("account")
    has = (
        f"; before it the account had {money(account['cash'])} USD in cash,"
        f" {money(account['required'])} required"
        if account
        else ""
    )
    place = _queue(row, step, picture)
    state = (step.before or {}).get("instrument", {}).get("state")
    if row[3] & EventFlag.MARKET and state in _COLLECTING:
        place = "at any price, ahead of all that have a limit"
    rests = f"; {row[10]:,} lots rest, {place}" if row[10] else ""
    return {
        "what": f"accepted as order {row[7]}{rests}",
        "why": f"it passed every guard in its order, the margin last{has}",
        "rule": f"{COMMANDS}; {RISK}" if not row[10] else f"{COMMANDS}; {RISK}; {PRIORITY}",
    }


def _traded(row: EventRow, life: Life, picture: Picture) -> Told:
    incoming = row[7] == life.order_id
    price, match = picture.price(row[5], row[8]), row[0] << INDEX_BITS | row[1]
    maker_account, maker_leaves = row[12] & 0xFFFF_FFFF, row[12] >> 32
    if incoming:
        left, fee = row[10], -row[13]
        other = f"order {row[11]} of account {maker_account}"
    else:
        left, fee = maker_leaves, -row[14]
        other = f"order {row[7]} of account {row[6]}"
    verb = "sold" if life.sell else "bought"
    what = f"{verb} {row[9]:,} at {price} with {other}"
    ends = f"; {left:,} left, fee {money(fee)} USD, match {match}"
    if row[3] & EventFlag.AUCTION:
        why = "both orders were collected for an auction: all its trades are at one price"
        return {"what": what + ends, "why": why, "rule": AUCTIONS}
    if incoming:
        best = "bid" if life.sell else "offer"
        why = f"that order was the oldest at the best {best}; a trade is at the resting price"
    else:
        what += ", which came in"
        best = "offer" if life.sell else "bid"
        why = (
            f"this order was the oldest at the best {best}, and the incoming one reached its price"
        )
    return {"what": what + ends, "why": why, "rule": PRIORITY}


def _replaced(row: EventRow, step: Step, picture: Picture) -> Told:
    old = picture.price(row[5], row[13])
    same = row[8] == row[13]
    own = row[14] & 0xFFFF_FFFF if same and row[3] & EventFlag.RESTING else 0
    change = "more lots, or not in the book" if same else "another price"
    why = (
        "same price and no larger: it keeps its place"
        if row[4] == 1
        else f"{change}: it goes to the back; {_queue(row, step, picture, own)}"
    )
    return {
        "what": f"now {row[9]:,} lots in all at {picture.price(row[5], row[8])}, {row[10]:,} rest"
        f" (was {(row[14] & 0xFFFF_FFFF) + (row[14] >> 32):,} left at {old})",
        "why": why,
        "rule": PRIORITY,
    }


def _cancelled(row: EventRow, step: Step) -> Told:
    taken = "cancelled" if row[2] == EventKind.ORDER_CANCELLED else "reduced"
    name = member_name(CancelReason, row[4])
    try:
        why = CANCELS[CancelReason(row[4])]
    except ValueError:
        why = name
    if row[4] == CancelReason.SELF_TRADE:
        why += f" ({member_name(SelfTrade, step.command.stp)})"
    rested = "in the book" if row[3] & EventFlag.RESTING else "not in the book"
    what = f"{taken}: {row[9]:,} lots off, {row[10]:,} left ({name}, {rested})"
    return {"what": what, "why": why, "rule": PRIORITY if row[4] != 1 else COMMANDS}


def text(told: dict[str, Any]) -> str:
    """Return the history as a page of text."""
    who = f"account {told['account']}"
    head = (
        f"never accepted, {who}, client id digest {told['client_order_id_digest']}"
        if told["order_id"] is None
        else f"order {told['order_id']} of {who}: {told['side']} {told['quantity']:,}"
        f" {told['instrument']}, {told['state']}"
    )
    lines = [
        head,
        f"{told['quantity']:,} = {told['executed']:,} executed + {told['cancelled']:,} cancelled"
        f" + {told['leaves']:,} working",
    ]
    for step in told["steps"]:
        lines += ["", f"#{step['sequence']}  {step['time']}  {step['command']}  (by {step['by']})"]
        for happened in step["happened"]:
            lines += [f"    {happened['what']}", f"      because {happened['why']}"
                      f" [{happened['rule']}]"]  # fmt: skip
    if told["steps_left_out"]:
        lines += ["", f"{told['steps_left_out']:,} more steps are counted above and not shown"]
    if told["entered_again"]:
        ids = ", ".join(map(str, told["entered_again"]))
        lines += ["", f"the same client id was used again later, for another order: {ids}"]
    return "\n".join(lines)
