"""The clearing house's clerk at the operator's desk: settles, records, performs what is due.

Clearing decides from the log; the clerk puts requests into the log and reads the rulings.
"""

import asyncio
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec

from exchange.app import repeats, requests, wishes
from exchange.app.desk import Desk, Outcome, WishRejected
from exchange.app.expiry import BY_MARKET, final_price
from exchange.app.patience import Patience, Refused
from exchange.app.texts import resolve
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing, matters
from exchange.clearing.matters import ACCEPTED, Due
from exchange.clearing.prices import Priced
from exchange.clearing.records import takes_two
from exchange.clearing.refusals import Denial
from exchange.marketdata.instruments import Instrument, micros_text
from exchange.messages import HOUSE_ACCOUNT, TradingState
from exchange.messages.dates import number_of

CLEARING_SECONDS: Final = 60.0  # limit for clearing to catch up with the log
CAUGHT_UP_SECONDS: Final = 1.0  # limit for clearing to catch up before its dues are performed
DUES_AT_ONCE: Final = 256  # deposits or fees submitted at a time
_POLL_SECONDS: Final = 0.005
_NONE: Final[Mapping[str, Refused]] = MappingProxyType({})
_log = logging.getLogger(__name__)


class Clerk:
    """Operations on a desk and its clearing house, one request at a time."""

    def __init__(self, desk: Desk, clearing: Clearing) -> None:
        self._desk = desk
        self._clearing = clearing
        self._done = self._refused = 0  # commands for clearing's dues
        self._patience = Patience(lambda account: self._clearing.cash(account))
        self.refused: dict[str, str] = {}  # the reasons, by the due's id

    async def cleared(self, seconds: float = CLEARING_SECONDS) -> None:
        """Wait until clearing has booked all that the desk has seen. Raises TimeoutError."""
        sequence = self._desk.sequence
        async with asyncio.timeout(seconds):
            while self._clearing.position[1] < sequence:
                await asyncio.sleep(_POLL_SECONDS)
        self._clearing.refresh()

    # Records

    async def put_record(self, text: str, request_id: str = "") -> dict[str, Any]:
        """Journal a record, return the clearing house's rulings, and perform what is then due. Of a
        repeat under a known request id they are those on the first, ``recorded_before``.

        RequestRefused with the name and figures of a refused ruling, or for a record that takes two
        people.
        """
        text = resolve(text, self._desk, self._clearing)
        wish = wishes.put_record(text, request_id)
        operation = msgspec.json.decode(text)["operation"]
        if takes_two(operation):
            raise RequestRefused(f"{operation} takes two people: one proposes, another approves")
        before = await self.earlier(wish) if request_id else None
        if before is not None:
            first = await self.ruled(before.events[0].sequence, operation)
            return {**first, "recorded_before": True}
        (outcome,) = await self._desk.perform([wish])
        return await self.ruled(outcome.events[0].sequence, operation)

    async def earlier(self, wish: Wish) -> Outcome | None:
        """Return the outcome of what a wish repeats under its request id; None if it repeats
        nothing. RequestRefused if that was another request; TimeoutError."""
        return await repeats.earlier(wish, self._desk, self._clearing, self.cleared)

    def by_two(self, text: str, **names: str) -> tuple[str, Wish]:
        """Return (operation, command) of a record that takes two people, with their names in it.

        RequestRefused for any other record.
        """
        facts = msgspec.json.decode(resolve(text, self._desk, self._clearing))
        operation = str(facts.get("operation"))
        if not takes_two(operation):
            raise RequestRefused(f"{operation!a} is no record that takes two people")
        text = msgspec.json.encode({**facts, **names}).decode()
        return operation, wishes.put_record(text)

    async def ruled(self, sequence: int, operation: str) -> dict[str, Any]:
        """Return the rulings on the record of a sequence, and perform what is then due."""
        await self.cleared()
        rulings = self._clearing.rulings(sequence)  # rulings triggered by log time are included
        result: dict[str, Any] = {"sequence": sequence, "rulings": rulings}
        for ruling in (ruling for ruling in rulings if ruling["operation"] == operation):
            if ruling["outcome"] != ACCEPTED:
                raise _refusal(ruling["outcome"], ruling["facts"])
        if refused := await self._perform_dues():
            result["dues_refused"] = refused
        return result

    async def would(self, text: str) -> dict[str, Any]:
        """Return the ruling that a record by two would get now; RequestRefused if it would be
        refused."""
        await self.cleared()
        ruling = self._clearing.would(text)
        if ruling.outcome != ACCEPTED:
            raise _refusal(ruling.outcome, ruling.facts)
        return ruling.facts

    def check_member(self, member: int) -> None:
        """Raise RequestRefused for a member in default, be it ended: it opens no account."""
        self._clearing.recall()
        if member in self._clearing.gone():
            ruling = matters.refused("open_account", Denial.UNKNOWN_MEMBER, 0, member)
            raise _refusal(ruling.outcome, ruling.facts)

    async def perform_dues(self) -> int | None:
        """Perform clearing's dues, unless clearing is behind the log, for example while its ledger
        is rebuilt: what was due then may have been cancelled since. Dues refused before are tried
        at growing intervals.

        Returns the number of refused commands if a retry is useless while the log does not change;
        None otherwise.
        """
        try:
            await self.cleared(CAUGHT_UP_SECONDS)
        except TimeoutError:
            _log.warning("clearing is behind the log: what it asks for waits until it is not")
            return None
        done, refused = self._done, self._refused
        await self._perform_dues(self._patience.begin(self._clearing.dues()))
        self._patience.end()
        return self._refused - refused if self._done == done else None

    def stubborn(self) -> dict[str, str]:
        """Return the reasons, by id, of dues that were refused again and again."""
        return self._patience.stubborn()

    async def _perform_dues(self, pausing: Mapping[str, Refused] = _NONE) -> dict[str, str]:
        """Perform clearing's dues, each in a command of its own, so that one refusal holds up no
        other; return the refusals by the due's id.

        Two exceptions keep payments independent of where a crash happened. If money could not be
        taken from the house account (an id ``... out``), it is not paid out either. If the house
        lacks money, later withdrawals from it wait, and are retried when money has come in. A
        refused due stays due and is tried again next time; those ``pausing`` count as refused
        without a try, unless money has come in.
        """
        refused: dict[str, str] = {}
        dues = left = self._clearing.dues()
        again = bool(dues)
        while again:
            left, again = await self._perform(left, refused, pausing)
            pausing = _NONE
        if dues:
            await self.cleared()
        self.refused = refused
        return refused

    async def _perform(
        self, dues: Sequence[Due], refused: dict[str, str], pausing: Mapping[str, Refused]
    ) -> tuple[list[Due], bool]:
        """Try dues once; return those that wait for the house's money, and whether any came in
        after all."""
        waiting: list[Due] = []  # dues that the house could not pay
        lacking: list[str] = []  # id prefixes of dues without money
        short = came = False

        async def perform(asked: Due) -> bool:
            """Perform one due; return whether the house lacks the money for it."""
            found = pausing.get(asked.id) or await self._try(asked)
            if found is None:
                refused.pop(asked.id, None)
                return False
            refused[asked.id] = found.why
            if asked.id.endswith(" out"):
                lacking.append(asked.id.removesuffix("out"))
            return found.is_short

        for kind, group in itertools.groupby(dues, key=lambda due: due.kind):
            # Their refusals are independent of each other: submit them in a few batches
            if kind in ("deposit", "fee"):
                asked = list(group)
                without = tuple(lacking) if kind == "deposit" else ()
                given = [due for due in asked if not due.id.startswith(without)]
                waiting += [due for due in asked if due.id.startswith(without)]
                for at in range(0, len(given), DUES_AT_ONCE):
                    await asyncio.gather(*map(perform, given[at : at + DUES_AT_ONCE]))
                came |= short and kind == "fee" and any(d.id not in refused for d in given)
                continue
            for due in group:
                if short and due.kind == "withdraw" and due.account == HOUSE_ACCOUNT:
                    refused[due.id] = "the house lacks the money for what it is to pay before that"
                    lacking.append(due.id.removesuffix("out"))
                    waiting.append(due)
                elif await perform(due):
                    short = True
                    waiting.append(due)
        return waiting, came

    async def _try(self, asked: Due) -> Refused | None:
        """Do one due, unless it is refused: by the engine, or no command can carry it."""
        try:
            await self._desk.perform([wishes.due(asked)])
        except RequestRefused as rejected:
            self._refused += isinstance(rejected, WishRejected)
            _log.error("clearing asks for %s, and %s", asked.id, rejected)
            return self._patience.refused(asked, rejected)
        self._done += 1
        self._patience.done(asked.id)
        return None

    # The day

    async def settle(self) -> dict[str, Any]:
        """Close the day, settle every instrument once, compare engine and clearing, and call
        margin.

        May be repeated after a crash in the middle: what is done already is not done again.
        """
        desk = self._desk
        listed = desk.instruments.by_id.values()
        trading = [one for one in listed if _may_trade_on(one)]
        closing = [wishes.set_state(i.code, i.id, TradingState.CLOSED) for i in trading]
        if desk.day_open:
            closing.append(wishes.close_day(desk.business_date))
        await desk.perform(closing)
        await self.cleared()
        settled = self._clearing.settled()
        found = self._clearing.settlement_prices(await desk.quotes.read())
        prices = [priced for priced in found if priced.instrument not in settled]
        if not prices and not self._clearing.look_is_due():
            raise RequestRefused(
                f"business date {desk.business_date} is settled already; another price needs a"
                " correction that two persons want: hourbook clear propose-price --correction"
            )
        return await self._pay_variation(prices)

    async def run_cycle(self) -> dict[str, Any]:
        """Perform the intraday cycle that is due, or what a crash left of it."""
        await self.cleared()
        prices = self._clearing.cycle_prices()
        if not self._clearing.cycle_is_due():
            deadline = self._clearing.cycles().deadline
            following = (
                f"the next one is at {stamp_text(deadline)}" if deadline else "none is to come"
            )
            raise RequestRefused(f"no intraday cycle is due; {following}")
        return await self._pay_variation(prices)

    async def _pay_variation(self, prices: Sequence[Priced]) -> dict[str, Any]:
        """Settle instruments at prices, each as its next cycle; compare; call margin. Without
        prices, what follows a settlement is done."""
        next_cycle = self._clearing.next_cycle
        settling = [
            wishes.settle(p.code, p.instrument, p.price, next_cycle(p.instrument)) for p in prices
        ]
        await self._desk.perform([*settling, wishes.checkpoint()])
        await self.cleared()
        await self._perform_dues()
        return {
            "business_date": self._desk.business_date,
            "settlement_prices": {p.code: micros_text(p.price) for p in prices},
            "inputs": [_inputs(p) for p in prices],
            "divergences": len(self._clearing.divergences),
            **await self._call_margin(),
        }

    async def _call_margin(self) -> dict[str, Any]:
        """Call the margin that accounts lack after a settlement. A failure does not undo the
        settlement: it is reported."""
        try:
            answer = await self.put_record('{"operation":"call_margin"}')
        except RequestRefused as refused:
            _log.error("no margin was called: %s", refused)
            return {"margin_calls": {}, "margin_calls_refused": str(refused)}
        (called,) = (r for r in answer["rulings"] if r["operation"] == "call_margin")
        calls, unknown = called["facts"]["calls"], called["facts"].get("unknown", {})
        for account, codes in unknown.items():
            _log.error(
                "account %s was not looked at: no margin parameters cover %s", account,
                " ".join(codes),
            )  # fmt: skip
        return {
            "margin_calls": {account: micros_text(missing) for account, missing in calls.items()},
            "margin_unknown": unknown,
        }

    async def expire(self, request: requests.Expire, now_ns: int) -> dict[str, Any]:
        """Expire an instrument at its final settlement price, and perform what is then due."""
        desk, listed = self._desk, self._desk.instrument(request.code)
        terms = desk.terms.get(request.code)
        if terms is None or listed.state == TradingState.EXPIRED:
            raise RequestRefused(f"{request.code} has expired, or was listed without its terms")
        if wishes.as_date(desk.business_date) < terms.last_trading_day:
            raise RequestRefused(f"{request.code} trades until {terms.last_trading_day}")
        await self.cleared()
        price, facts = final_price(listed, terms, self._clearing, now_ns, request.at_settlement)
        last_day = desk.business_date == number_of(terms.last_trading_day)
        unsettled = last_day and listed.id not in self._clearing.settled()
        if unsettled and facts["rule"] in BY_MARKET:
            raise RequestRefused(
                f"{request.code} expires by its own settlement prices, and {desk.business_date},"
                " its last trading day, is not settled: settle it first"
            )
        todo = [wishes.expire(listed.code, listed.id, price), wishes.checkpoint()]
        if listed.state == TradingState.CONTINUOUS:
            todo.insert(0, wishes.set_state(listed.code, listed.id, TradingState.CLOSED))
        await desk.perform(todo)
        await self.cleared()
        await self._perform_dues()
        return {"code": listed.code, "price": micros_text(price), **facts}


def _may_trade_on(listed: Instrument) -> bool:
    """Whether an instrument trades, or is about to: an auction's orders trade when it ends, and a
    halt may end by itself. Left alone, either would trade on a date that is settled."""
    if listed.state == TradingState.HALTED:
        return bool(listed.resumes)
    return listed.state in (TradingState.CONTINUOUS, TradingState.AUCTION)


def _refusal(outcome: str, facts: dict[str, Any]) -> RequestRefused:
    """Return a refusal by clearing, with its number, limit and observed value."""
    told = ", ".join(f"{name} {fact}" for name, fact in facts.items())
    return RequestRefused(f"refused {outcome}: {told}")


def stamp_text(stamp: int) -> str:
    """Return a stamp as ISO 8601, to the second."""
    return datetime.fromtimestamp(stamp // 1_000_000_000, UTC).isoformat()


def _inputs(priced: Priced) -> dict[str, Any]:
    """Return a settlement price with its tier and its inputs; prices as decimal strings."""
    facts = asdict(priced) | {"rule": priced.rule}
    for name in ("price", "prior", "last", "bid", "ask", "preceding_change", "proposed"):
        facts[name] = None if facts[name] is None else micros_text(facts[name])
    return facts
