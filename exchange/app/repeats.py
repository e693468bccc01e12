"""Finds what an operator's request repeats, by its request id.

The engine knows an id while it is among its account's last accepted ones, orders included: a busy
account forgets that of a deposit within a second. Clearing's store has all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from exchange.app import wishes
from exchange.app.desk import Desk, Outcome
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing
from exchange.messages import EVENT, EVENT_FIELDS, Event, EventKind
from exchange.messages.wire import Position


async def earlier(
    wish: Wish, desk: Desk, clearing: Clearing, cleared: Callable[[], Awaitable[None]]
) -> Outcome | None:
    """Return the outcome of the command that was accepted under a wish's request id, however long
    ago; None if there is none.

    ``cleared`` waits until clearing has booked what is released; TimeoutError. RequestRefused if
    that command was of other content, or a figure fits into no command.
    """
    command = wish.command
    _ = wish.record  # a figure that fits into no command is refused before anything waits
    if desk.unanswered:  # what was given up may still be queued: this comes after it
        await desk.perform([wishes.checkpoint()])
        desk.unanswered = False
    await cleared()
    sequence = clearing.request(command.account, command.key_lo, command.key_hi)
    if sequence is None:
        return None
    outcome, text = await asyncio.to_thread(read, desk, sequence)
    first = outcome.events[0]
    moved = first.kind in (EventKind.DEPOSITED, EventKind.WITHDRAWN)
    if _content(text) != _content(wish.text) or (moved and first.price != command.price):
        raise RequestRefused(
            f"DUPLICATE_DIFFERENT: the request id is of another request, sequence {sequence};"
            " another one takes an id of its own"
        )
    return outcome


def read(desk: Desk, sequence: int) -> tuple[Outcome, str]:
    """Return the events of one released command, and its text."""
    events: list[Event] = []
    text = ""
    for released in desk.tape.read(*desk.epochs.place(Position(0, sequence - 1, 0))):
        for row in EVENT.iter_unpack(released.events):
            if row[0] == sequence:
                events.append(Event(**dict(zip(EVENT_FIELDS, row, strict=True))))
        text = dict(released.texts).get(sequence, text)
        if released.last_sequence >= sequence:
            break
    return Outcome(tuple(events)), text


def _content(text: str) -> dict[str, Any]:
    """Return what the text of a wish says, without what makes it unique."""
    facts = msgspec.json.decode(text, type=dict[str, Any]) if text else {}
    facts.pop("nonce", None)
    return facts
