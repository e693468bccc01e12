"""What takes two people: one proposes, another approves within ten minutes, and both are logged.

A person is the admin key that a request came under; whoever uses the market's own socket is one
person, too. A proposal is a record in the log, so it outlives a restart; so is its approval, and
what was proposed follows in the same breath, with both names and the reason in its text.
"""

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from exchange.app import requests, wishes
from exchange.app.desk import Desk, Proposal
from exchange.app.trades import Found, LegAlone, find_trade
from exchange.app.wishes import RequestRefused, Wish
from exchange.messages import INDEX_BITS
from exchange.messages.wire import Position

SOCKET_PERSON: Final = "socket"
EXPIRY_NS: Final = 600 * 1_000_000_000
PROPOSALS_MAX: Final = 1_000  # waiting at a time
_PERCENT: Final = 100

_decode = msgspec.json.Decoder(requests.TwoPersons).decode


class Approvals:
    """Proposals on a desk; ``clock`` gives nanoseconds since the epoch."""

    def __init__(self, desk: Desk, clock: Callable[[], int]) -> None:
        self._desk = desk
        self._clock = clock

    async def propose(self, request: requests.TwoPersons, person: str) -> dict[str, Any]:
        """Record what ``person`` proposes, once it is sure that it could be done now."""
        if not request.reason.strip():
            raise RequestRefused("state the reason: it goes into the log")
        if len(self.waiting()) >= PROPOSALS_MAX:
            raise RequestRefused(f"{PROPOSALS_MAX} proposals wait already; approve some")
        about = (await self._plan(request))[1]
        proposal, expires = secrets.token_hex(8), self._clock() + EXPIRY_NS
        text = msgspec.json.encode(request).decode()
        await self._desk.perform([wishes.propose(proposal, person, expires, text, about)])
        return {"proposal": proposal, "by": person, "expires": _time(expires), **about}

    async def approve(self, number: str, person: str) -> dict[str, Any]:
        """Do what another person proposed."""
        proposal = self._desk.proposals.get(number)
        if proposal is None:
            raise RequestRefused(f"no proposal {number} waits; `hourbook admin proposals`")
        if self._clock() >= proposal.expires:
            raise RequestRefused(
                f"proposal {number} expired at {_time(proposal.expires)}; propose it again"
            )
        if proposal.by == person:
            raise RequestRefused(f"{person} proposed this: another person must approve it")
        request = _decode(proposal.request)
        wish, about = await self._plan(
            request, proposal=number, proposed_by=proposal.by, approved_by=person
        )
        *_, outcome = await self._desk.perform([wishes.approve(number, person), wish])
        done = {"proposal": number, "proposed_by": proposal.by, "approved_by": person}
        return {**done, **about, "sequence": outcome.events[0].sequence}

    def waiting(self) -> list[dict[str, Any]]:
        """The proposals that may still be approved, oldest first."""
        now = self._clock()
        return [_shown(one) for one in self._desk.proposals.values() if now < one.expires]

    async def _plan(
        self, request: requests.TwoPersons, **names: str
    ) -> tuple[Wish, dict[str, object]]:
        """The command that a request becomes, and what to say of it."""
        found = await self._find(request.match_number)
        trade, desk = found.trade, self._desk
        listed = desk.instruments.by_id[trade.instrument]
        reference, width = self._range(found)
        about: dict[str, object] = {
            "operation": "bust" if isinstance(request, requests.Bust) else "adjust",
            "match_number": request.match_number,
            "code": listed.code,
            "quantity": trade.quantity,
            "price": listed.price_text(trade.price),
            "reference": listed.price_text(reference),
            "no_bust_range": listed.price_text(width),
            "reason": request.reason,
        }
        inside = abs(trade.price - reference) <= width
        if inside and not request.malfunction:
            raise RequestRefused(
                f"the trade stands: {about['price']} is within {about['no_bust_range']} of"
                f" {about['reference']}; only a malfunction of the market may undo it"
            )
        facts = {"reason": request.reason, "malfunction": request.malfunction, **names}
        if isinstance(request, requests.Bust):
            return wishes.bust(trade, **facts), about
        price, rest = divmod(wishes.micros(request.price), listed.tick_scale)
        if rest:
            raise RequestRefused(f"{request.price} is no multiple of the tick")
        if abs(price - reference) > width:
            raise RequestRefused(
                f"{request.price} is not within {about['no_bust_range']} of {about['reference']}"
            )
        about["new_price"] = listed.price_text(price)
        return wishes.adjust(trade, price, **facts), about

    async def _find(self, match_number: int) -> Found:
        desk = self._desk
        if not desk.day_open:
            raise RequestRefused("no day is open: a trade is corrected on its own day alone")
        opening = desk.epochs.place(Position(epoch=0, sequence=desk.day_first, index=0))
        found = None
        if desk.day_first < match_number >> INDEX_BITS <= desk.sequence:
            try:
                found = await asyncio.to_thread(find_trade, desk.tape, opening, match_number)
            except LegAlone as leg:
                raise RequestRefused(_alone(leg.whole)) from None
        if found is None:
            raise RequestRefused(f"no trade of the open day has match number {match_number}")
        return found

    def _range(self, found: Found) -> tuple[int, int]:
        """The price in ticks that a trade is held against, and how far from it a trade stands.

        The reference is the trade before in the same instrument, else the mark; the no-bust range
        is half the price band of the contract's terms, rounded down to the price step. That of a
        combination, whose price may be zero, is its last leg's at that leg's mark.
        """
        desk, trade = self._desk, found.trade
        listed = priced = desk.instruments.by_id[trade.instrument]
        reference = found.before
        if reference is None:
            reference = desk.instruments.value(listed) // listed.tick_value
        base = reference
        if listed.legs:
            priced = desk.instruments.by_id[listed.legs[-1][0]]
            base = priced.mark // priced.tick_scale
        terms = desk.terms.get(priced.code)
        percent = 0 if terms is None else terms.band_percent
        step = listed.price_step
        return reference, abs(base) * percent // (2 * _PERCENT) // step * step


def _alone(whole: int) -> str:
    """Why a leg is not corrected: ``whole`` is the match number of its trade, 0 if none is one."""
    if not whole:
        return "LEG_ALONE: a leg of a trade with an implied price is not corrected"
    return f"LEG_ALONE: it is a leg of match {whole}, which is corrected whole"


def _time(stamp: int) -> str:
    return datetime.fromtimestamp(stamp // 1_000_000_000, UTC).isoformat()


def _shown(proposal: Proposal) -> dict[str, Any]:
    return {
        "proposal": proposal.proposal,
        "by": proposal.by,
        "expires": _time(proposal.expires),
        "request": msgspec.json.decode(proposal.request),
    }
