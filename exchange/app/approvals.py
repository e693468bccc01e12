"""Actions that take two people: one proposes, another approves within ten minutes; both are logged.

A person is the admin key of a request, including the keys it was rotated from or to; requests over
the admin socket have no key and count as neither person. A proposal is a record in the log, so it
survives a restart, but it ends with its key. Its approval is a record as well, and the proposed
commands follow in the same batch, with both keys and the reason in their text. Corrections of
trades, the end of a breaker's halt or a kill switch, and the clearing records by two people go this
way.
"""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.app import requests, wishes
from exchange.app.clerk import Clerk, stamp_text
from exchange.app.conduct import Conduct
from exchange.app.desk import Desk, Proposal
from exchange.app.trades import Found, LegAlone, find_trade
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing.records import SetPrice, write
from exchange.gateway.access import Key
from exchange.gateway.auth import find_key, list_keys
from exchange.marketdata.instruments import micros_text
from exchange.messages import INDEX_BITS, CombinationRule, KillScope
from exchange.messages.wire import Position

SOCKET_PERSON: Final = "socket"
EXPIRY_NS: Final = 600 * 1_000_000_000
PROPOSALS_MAX: Final = 1_000  # waiting at a time
SET_PRICE: Final = str(SetPrice.__struct_config__.tag)
_PERCENT: Final = 100
_NS_IN_MS: Final = 1_000_000

_decode = msgspec.json.Decoder(requests.TwoPersons).decode


class Approvals:
    """The proposals on a desk, with the keys of ``directory``; ``clock`` gives ns since 1970."""

    def __init__(
        self,
        desk: Desk,
        clerk: Clerk,
        conduct: Conduct,
        clock: Callable[[], int],
        directory: Path,
    ) -> None:
        self._desk = desk
        self._clerk = clerk
        self._conduct = conduct
        self._clock = clock
        self._directory = directory

    async def propose(self, request: requests.TwoPersons, person: str) -> dict[str, Any]:
        """Record what ``person`` proposes, after checking that it could be done now.
        RequestRefused."""
        self._key(person)
        if not request.reason.strip():
            raise RequestRefused("state the reason: it goes into the log")
        if len(self.waiting()) >= PROPOSALS_MAX:
            raise RequestRefused(f"{PROPOSALS_MAX} proposals wait already; approve some")
        about = (await self._plan(request))[1]
        proposal, expires = secrets.token_hex(8), self._clock() + EXPIRY_NS
        text = msgspec.json.encode(request).decode()
        await self._desk.perform([wishes.propose(proposal, person, expires, text, about)])
        return {"proposal": proposal, "by": person, "expires": stamp_text(expires), **about}

    async def approve(self, number: str, person: str) -> dict[str, Any]:
        """Perform what another person proposed. RequestRefused."""
        key = self._key(person)
        proposal = self._desk.proposals.get(number)
        if proposal is None:
            raise RequestRefused(f"no proposal {number} waits; `hourbook admin proposals`")
        if self._is_over(proposal, self._clock()):
            raise RequestRefused(
                f"proposal {number} expired at {stamp_text(proposal.expires)}; propose it again"
            )
        proposer = self._found(proposal.by)
        if proposer is None:
            raise RequestRefused(
                f"proposal {number} was made under key {proposal.by}, which has been revoked or has"
                " expired since; propose it again"
            )
        if proposer.person == key.person:
            raise RequestRefused(f"{proposal.by} proposed this: another person must approve it")
        request = _decode(proposal.request)
        self._check_date(proposal, request)
        self._check_switch(proposal, request)
        todo, about = await self._plan(
            request, proposal.sequence, proposal=number, proposed_by=proposal.by, approved_by=person
        )
        *_, outcome = await self._desk.perform([wishes.approve(number, person), *todo])
        done = {"proposal": number, "proposed_by": proposal.by, "approved_by": person, **about}
        sequence = outcome.events[0].sequence
        if isinstance(request, requests.ProposePrice | requests.ByTwo):
            return {**done, **await self._clerk.ruled(sequence, str(about["operation"]))}
        return {**done, "sequence": sequence}

    def _check_date(self, proposal: Proposal, request: requests.TwoPersons) -> None:
        """Raise RequestRefused for a price of a business date that is no longer the last."""
        then, now = proposal.business_date, self._desk.business_date
        if isinstance(request, requests.ProposePrice) and then != now:
            raise RequestRefused(
                f"proposal {proposal.proposal} is a price of business date {then}, and {now} has"
                " begun; propose it again"
            )

    def _check_switch(self, proposal: Proposal, request: requests.TwoPersons) -> None:
        """Raise RequestRefused to lift a kill switch that was thrown after it was proposed to: of
        that throw the proposer knew nothing."""
        if not isinstance(request, requests.Kill):
            return
        scope = KillScope[request.scope.upper()]
        thrown = self._desk.thrown(scope, request.account, request.session, request.member)
        if thrown > proposal.sequence:
            raise RequestRefused(
                f"the switch was thrown again after proposal {proposal.proposal}; propose it again"
            )

    def waiting(self) -> list[dict[str, Any]]:
        """Return the proposals that may still be approved, oldest first."""
        now = self._clock()
        good = {k.key_id for k in list_keys(self._directory) if k.is_good(now // _NS_IN_MS)}
        waiting = self._desk.proposals.values()
        return [_shown(one) for one in waiting if not self._is_over(one, now) and one.by in good]

    def _is_over(self, proposal: Proposal, now: int) -> bool:
        """Whether it has expired by the clock, or by the log's time, which may be ahead of the
        clock."""
        return now >= proposal.expires or self._desk.stamp - proposal.recorded >= EXPIRY_NS

    def _found(self, key_id: str) -> Key | None:
        return find_key(self._directory, key_id, self._clock() // _NS_IN_MS)

    def _key(self, person: str) -> Key:
        """Return the person's key; RequestRefused without one, or if it has ended meanwhile."""
        if person == SOCKET_PERSON:
            raise RequestRefused(
                "this takes two people, each under an admin key of their own: --url URL --key FILE"
                " (`hourbook keys create 0 --scope admin` makes one)"
            )
        key = self._found(person)
        if key is None:
            raise RequestRefused(f"key {person} is good no longer; ask again under another")
        return key

    async def _plan(
        self, request: requests.TwoPersons, proposed: int | None = None, **names: str
    ) -> tuple[list[Wish], dict[str, object]]:
        """Return the commands for a request, and the facts to report about it. ``proposed`` is the
        sequence of its proposal, if that is approved."""
        match request:
            case requests.Resume():
                return self._conduct.resumption(request, proposed, **names)
            case requests.Kill():
                of_one = request.scope in ("account", "session")
                if of_one and request.account not in self._desk.accounts:
                    raise RequestRefused(f"no account {request.account} is open")
                wish = wishes.switch(request, on=False, **names)
                whom = getattr(request, request.scope, None)  # the whole market has no number
                about = {"operation": "lift", "scope": request.scope, "whom": whom,
                         "reason": request.reason}  # fmt: skip
            case requests.ProposePrice():
                wish, about = await self._price(request, **names)
            case requests.ByTwo():
                wish, about = await self._record(request, **names)
            case _:
                return await self._correction(request, **names)
        return [wish], about

    async def _price(
        self, request: requests.ProposePrice, proposal: str = "", **names: str
    ) -> tuple[Wish, dict[str, object]]:
        """Return a settlement price as the record that clearing rules on."""
        listed = self._desk.instrument(request.code)
        price = SetPrice(
            instrument=listed.id,
            business_date=self._desk.business_date,
            price=wishes.micros(request.price),
            reason=request.reason,
            correction=request.correction,
            **names,
        )
        wish = wishes.put_record(write(price))
        facts = await self._clerk.would(write(price))
        return wish, {"operation": SET_PRICE, **facts, "price": micros_text(price.price),
                      "reason": request.reason}  # fmt: skip

    async def _record(
        self, request: requests.ByTwo, proposal: str = "", **names: str
    ) -> tuple[Wish, dict[str, object]]:
        """Return any other record by two people, and the ruling that it would get now."""
        operation, wish = self._clerk.by_two(request.record, **names)
        facts = await self._clerk.would(wish.text)
        return wish, {"operation": operation, **facts, "reason": request.reason}

    async def _correction(
        self, request: requests.Bust | requests.Adjust, **names: str
    ) -> tuple[list[Wish], dict[str, object]]:
        """Return the commands of a bust or an adjustment, if the rules for corrections allow it."""
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
            return self._commands(found, None, **facts), about
        price, rest = divmod(wishes.micros(request.price), listed.tick_scale)
        if rest:
            raise RequestRefused(f"{request.price} is no multiple of the tick")
        if abs(price - reference) > width:
            raise RequestRefused(
                f"{request.price} is not within {about['no_bust_range']} of {about['reference']}"
            )
        about["new_price"] = listed.price_text(price)
        return self._commands(found, price, **facts), about

    def _commands(self, found: Found, price: int | None, **facts: object) -> list[Wish]:
        """Return the commands that bust a trade, or adjust it to ``price`` ticks; for a trade with
        an implied price one command per leg."""
        trade = found.trade
        if not found.legs and price is None:
            return [wishes.bust(trade, **facts)]
        if not found.legs and price is not None:
            return [wishes.adjust(trade, price, **facts)]
        book = self._desk.instruments
        prices = [leg.price // book.by_id[leg.instrument].tick_scale for leg in found.legs]
        moved = [None] * len(prices) if price is None else self._moved(found, prices, price)
        number = trade.sequence << INDEX_BITS | trade.index
        return [
            wishes.correct_leg(leg, place, number, found.combination, old, new, **facts)
            for place, (leg, old, new) in enumerate(zip(found.legs, prices, moved, strict=True), 1)
        ]

    def _moved(self, found: Found, prices: list[int], price: int) -> list[int | None]:
        """Return the legs' new prices if the incoming order is to have traded at ``price``. If the
        order is in a leg, only that leg moves; if it is in the combination, all months of an
        average, otherwise its last leg."""
        trade, change = found.trade, price - found.trade.price
        combination = self._desk.instruments.by_id[found.combination]
        shifts = [change * (leg.instrument == trade.instrument) for leg in found.legs]
        if trade.instrument == found.combination and combination.rule == CombinationRule.AVERAGE:
            shifts = [change] * len(prices)
        elif trade.instrument == found.combination:
            shifts[-1], rest = divmod(change, combination.legs[-1][1])
            if rest:
                raise RequestRefused(f"a change of {change} ticks is not one of its last leg's")
        return [old + shift for old, shift in zip(prices, shifts, strict=True)]

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
        """Return a trade's reference price in ticks, and the no-bust range around it.

        The reference is the previous trade in the instrument, otherwise the mark. The range is half
        the price band of the contract's terms, rounded down to the price step. A combination's
        price may be zero, so its range is that of its last leg at that leg's mark.
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
    """Return the refusal to correct a single leg; ``whole`` is the match number of its trade."""
    return f"LEG_ALONE: it is a leg of match {whole}, which is corrected whole"


def _shown(proposal: Proposal) -> dict[str, Any]:
    return {
        "proposal": proposal.proposal,
        "by": proposal.by,
        "expires": stamp_text(proposal.expires),
        "business_date": proposal.business_date,
        "request": msgspec.json.decode(proposal.request),
    }
