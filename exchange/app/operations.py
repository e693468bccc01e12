"""Carries out the operators' requests: turns each into commands and an answer.

Nothing here changes the market directly; every change is a command that the desk puts into the log.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from contracts import grades, registry
from contracts.calendar import CalendarError, Month
from contracts.grades import table as factors
from contracts.index.run import end_ns
from contracts.refusals import Refusal, Refused
from contracts.spec import Instrument as Terms
from exchange.app import business_date, listings, margin, requests, wishes, wishes_market
from exchange.app.approvals import SOCKET_PERSON, Approvals
from exchange.app.clerk import Clerk
from exchange.app.conduct import Conduct, combines, describe
from exchange.app.desk import Desk, WishRejected
from exchange.app.hedge import hedge
from exchange.app.requests_market import ConductRequest
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing
from exchange.clearing.margin.parameters import MarginParameters
from exchange.gateway.access import Key
from exchange.gateway.auth import create_key, find_key, list_keys, revoke_key, rotate_key
from exchange.marketdata.instruments import Instrument, micros_text
from exchange.messages import Event, HaltCause, Mode, TradingState
from exchange.messages.access import Right
from exchange.messages.dates import number_of
from exchange.sequencer import LogFull

_log = logging.getLogger(__name__)


class Operations:
    """Performs operators' requests by a desk and the clearing house.

    API keys are in ``directory``; ``key_revoked`` is called after each change of them. ``clock``
    returns nanoseconds since the epoch, for a business date that a request omits and for the time
    that a proposal is valid. In a ``scheduled`` market opening a day starts no trading: the
    schedule does.
    """

    def __init__(
        self,
        desk: Desk,
        clearing: Clearing,
        *,
        directory: Path,
        key_revoked: Callable[[], None],
        clock: Callable[[], int],
        scheduled: bool = False,
    ) -> None:
        self._desk = desk
        self._clearing = clearing
        self._directory = directory
        self._key_revoked = key_revoked
        self._clock = clock
        self._scheduled = scheduled
        self._house = Clerk(desk, clearing)
        self._conduct = Conduct(desk)
        self._approvals = Approvals(desk, self._house, self._conduct, clock, directory)
        self.one_at_a_time = asyncio.Lock()
        self.held_up = False  # whether a full disk left part of the start undone

    async def perform(
        self, request: requests.AnyRequest, person: str = SOCKET_PERSON
    ) -> dict[str, Any]:
        """Perform a person's request and return the answer as plain data.

        ``person`` is the key id if the request was signed with a key. Raises RequestRefused with
        the reason, and TimeoutError if the market does not answer.
        """
        async with self.one_at_a_time:
            match request:
                case requests.State():
                    return self.state(every=request.every)
                case requests.RunCycle():
                    return await self._house.run_cycle()
                case requests.Settle():
                    return await self._house.settle()
                case requests.PutRecord():
                    return await self._house.put_record(request.record, request.request_id)
                case requests.Expire():
                    return await self._house.expire(request, self._clock())
                case requests.Hedge():
                    return await hedge(request, self._desk, self._clearing, self._house)
                case requests.OpenDay():
                    return await self._open_day(request)
                case requests.ListContract():
                    return await self._list(request)
                case requests.Resume() if self._conduct.takes_two(request):
                    return await self._approvals.propose(request, person)
                case _ if isinstance(request, ConductRequest):
                    return await self._conduct.perform(request)
                case requests.Deposit() | requests.Withdraw():
                    return await self._move_cash(request)
                case requests.OpenAccount():
                    return await self._open_account(request)
                case requests.SetAccount():
                    await self._desk.perform([wishes.set_account(request)])
                    by = ["setting"] * request.killed + self._desk.killed_by(request.account)
                    return {"account": request.account, "killed": bool(by), "killed_by": by}
                case (
                    requests.Bust() | requests.Adjust() | requests.ProposePrice() | requests.ByTwo()
                ):
                    return await self._approvals.propose(request, person)
                case requests.Approve():
                    return await self._approvals.approve(request.proposal, person)
                case requests.ListProposals():
                    return {"proposals": self._approvals.waiting()}
                case requests.Kill(lift=True):
                    return await self._approvals.propose(request, person)
                case requests.Kill():
                    return await self._kill(request)
                case requests.CreateKey():
                    return await self._create_key(request, person)
                case requests.ListKeys():
                    return {"keys": msgspec.to_builtins(list_keys(self._directory))}
                case requests.RotateKey():
                    return self._rotate_key(request, person)
                case requests.RevokeKey():
                    return self._revoke_key(request.key_id)
                case requests.RecordFixing():
                    return await self._record_fixing(request)
                case requests.RecordFactors():
                    return await self._record_factors(request)
                case requests.AdoptMargin():
                    return await self._adopt_margin(request)
                case requests.SetMode():
                    return await self._set_mode(Mode[request.mode.upper()])

    async def _set_mode(self, mode: Mode) -> dict[str, Any]:
        await self._desk.perform([wishes.set_mode(mode, "operator")])
        return {"mode": mode.name}

    async def _create_key(self, request: requests.CreateKey, person: str) -> dict[str, Any]:
        """Create a key and open its account if needed; if either fails, neither is left.

        RequestRefused if the key's scope may propose and the request came over HTTP."""
        _check_machine(Key("", request.account, request.scope), person)
        if request.account not in self._desk.accounts:
            self._opening(requests.OpenAccount(account=request.account))  # refuses what cannot be
        try:
            made = create_key(
                self._directory, request.account, request.scope,
                addresses=request.addresses, public_key=request.public_key,
            )  # fmt: skip
        except ValueError as error:
            raise RequestRefused(f"no such key can be: {error}") from None
        try:
            await self._open_account(requests.OpenAccount(account=request.account, if_missing=True))
        except BaseException:
            self._revoke_key(made[0])
            raise
        return _shown(*made)

    def _rotate_key(self, request: requests.RotateKey, person: str) -> dict[str, Any]:
        now_ms = self._clock() // 1_000_000
        until_ms = now_ms + request.overlap_seconds * 1_000
        key = find_key(self._directory, request.key_id, now_ms)
        if key is None:
            raise _no_key(request.key_id)
        _check_machine(key, person)
        try:
            made = rotate_key(
                self._directory, request.key_id, until_ms, public_key=request.public_key
            )
        except LookupError:
            raise _no_key(request.key_id) from None
        except ValueError as error:
            raise RequestRefused(f"no such key can be: {error}") from None
        self._key_revoked()
        if key.expires_ms is not None:  # rotated before: it ends when that was said
            until_ms = min(until_ms, key.expires_ms)
        return {**_shown(*made), "replaces": request.key_id, "replaced_until_ms": until_ms}

    async def prepare(self, *, serving: bool = True) -> None:
        """Make the market ready to trade after a start; without ``serving`` only for queries.

        An empty market opens its first day. Instruments that the restart halted resume; those that
        an operator halted do not. An opening interrupted by a crash is finished. A closed day stays
        closed until its date has passed and it is settled. In a scheduled market the schedule does
        all of this but the first day. If a full disk refuses a command, the rest is left undone
        (``held_up``), with an error in the program's log.
        """
        desk = self._desk
        if not desk.instruments.by_id:
            await self._open_day(requests.OpenDay())
            return
        if self._scheduled:
            return
        try:
            await self._reopen()
            if serving:
                await self._go_on()
        except LogFull as full:
            self.held_up = serving
            _log.error("free some space, then what is halted or closed goes on by itself: %s", full)
        else:
            self.held_up = False

    async def go_on(self) -> None:
        """Do what a full disk left undone at the start, once it has room. Raises QueueFull and
        TimeoutError: call it again then."""
        async with self.one_at_a_time:
            try:
                await self.prepare()
            except RequestRefused as refused:
                self.held_up = False
                _log.error("`resume` what is halted, or `open-day`: %s", refused)

    async def _reopen(self) -> None:
        """Resume trading of the instruments that the restart halted."""
        await self._desk.perform(
            [
                wishes.set_state(listed.code, listed.id, TradingState.CONTINUOUS)
                for listed in self._desk.instruments.by_id.values()
                if listed.state == TradingState.HALTED and listed.cause == HaltCause.RECOVERY
            ]
        )

    async def _go_on(self) -> None:
        """Finish an interrupted opening of the day, or open today's if it is due."""
        desk = self._desk
        if any(self._conduct.may_trade(listed) for listed in desk.left_closed()):
            _log.warning("the opening of business date %d is finished", desk.business_date)
            await self._start_trading(desk.left_closed())
        if not desk.day_open and number_of(self._now().date()) > desk.business_date:
            if await self.unsettled():
                _log.error(
                    "business date %d is closed and not settled: settle it, then open the next",
                    desk.business_date,
                )
                return
            try:
                await self._open_day(requests.OpenDay())
            except WishRejected:
                raise
            except RequestRefused as refused:  # to correct it, the operator needs a running market
                _log.error("no business date is opened: %s", refused)

    async def unsettled(self) -> bool:
        """Whether the last business date is closed but not settled throughout; TimeoutError."""
        desk = self._desk
        if desk.day_open or not desk.business_date:
            return False
        await self.cleared()
        return not desk.to_settle() <= self._clearing.settled()

    async def checkpoint(self) -> int | None:
        """Compare engine and clearing at this point of the log, and carry out clearing's dues.

        Return the number of commands that this took, or None if another checkpoint is needed even
        if nothing else is added to the log."""
        await self._desk.perform([wishes.checkpoint()])
        async with self.one_at_a_time:
            refused = await self._house.perform_dues()
        return None if refused is None else 1 + refused

    async def cleared(self) -> None:
        """Wait until clearing has applied all that the desk has seen. Raises TimeoutError."""
        await self._house.cleared()

    @property
    def dues_refused(self) -> dict[str, str]:
        """Why the engine refused dues of clearing at the last try, by due id."""
        return self._house.refused

    def stubborn(self) -> dict[str, str]:
        """The same, of the dues that it has refused repeatedly."""
        return self._house.stubborn()

    def state(self, *, every: bool = False) -> dict[str, Any]:
        """Return the market's state; with ``every`` also of expired instruments."""
        desk, listed = self._desk, self._desk.instruments.by_id.values()
        shown = [one for one in listed if every or one.state != TradingState.EXPIRED]
        return {
            "sequence": desk.sequence,
            "mode": desk.mode.name,
            "business_date": desk.business_date,
            "day_open": desk.day_open,
            "accounts": len(desk.accounts),
            "clearing_sequence": self._clearing.position[1],
            "divergences": len(self._clearing.divergences),
            "dues_refused": self.dues_refused,
            "expired": sum(one.state == TradingState.EXPIRED for one in listed),
            "instruments": [
                {
                    "code": one.code,
                    "state": one.state.name,
                    "cause": one.cause.name,
                    "low_limit": one.price_text(one.low_ticks),
                    "high_limit": one.price_text(one.high_ticks),
                    "mark": micros_text(desk.instruments.mark(one)),
                    **describe(one),
                }
                for one in shown
            ],
        }

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock() // 1_000_000_000, UTC)

    def _revoke_key(self, key_id: str) -> dict[str, Any]:
        try:
            revoke_key(self._directory, key_id)
        except LookupError:
            raise _no_key(key_id) from None
        self._key_revoked()
        return {"key_id": key_id, "revoked": True}

    async def _kill(self, request: requests.Kill) -> dict[str, Any]:
        """Throw a kill switch; the answer has the number of cancelled orders."""
        (outcome,) = await self._desk.perform([wishes.switch(request, on=True)])
        event = outcome.events[0]
        return {
            "scope": request.scope,
            "killed": True,
            "orders": event.quantity,
            "sequence": event.sequence,
        }

    async def _open_account(self, request: requests.OpenAccount) -> dict[str, Any]:
        opened = not (request.if_missing and request.account in self._desk.accounts)
        if opened:
            await self._desk.perform([self._opening(request)])
        return {"account": request.account, "opened": opened}

    def _opening(self, request: requests.OpenAccount) -> Wish:
        """Return the command that opens an account. RequestRefused for a member in default."""
        self._house.check_member(request.of_member)
        return wishes.open_account(request)

    async def _move_cash(self, request: requests.Deposit | requests.Withdraw) -> dict[str, Any]:
        """Book a deposit or withdrawal; a deposit opens its account if needed."""
        movement = wishes.move_cash(request)
        before = await self._house.earlier(movement) if request.request_id else None
        if before is not None:
            return {**_moved(before.events[0]), "booked_before": True}
        opening: list[Wish] = []
        if isinstance(request, requests.Deposit) and request.account not in self._desk.accounts:
            opening = [self._opening(requests.OpenAccount(account=request.account))]
        outcomes = await self._desk.perform([*opening, movement])
        return _moved(outcomes[-1].events[0])

    async def _recorded(self, wish: Wish) -> tuple[Event, bool]:
        """Journal a record under its request id; return its event, and whether that is of an
        earlier request. RequestRefused if the id is of another record."""
        before = await self._house.earlier(wish)
        if before is not None:
            return before.events[0], True
        (outcome,) = await self._desk.perform([wish])
        return outcome.events[0], False

    async def _record_fixing(self, request: requests.RecordFixing) -> dict[str, Any]:
        """Journal an index's fixing; the answer says whether it is a repeat. RequestRefused for a
        day that is not over: a price for it would be the latest one until it comes."""
        wish = wishes.record_fixing(request)
        if self._clock() < end_ns(wishes.as_date(request.date)):
            raise RequestRefused(f"{request.date} is fixed when it is over, UTC")
        event, repeated = await self._recorded(wish)
        return {
            "index": request.index,
            "date": request.date,
            "revision": request.revision,
            "sequence": event.sequence,
            "recorded_before": repeated,
        }

    async def _record_factors(self, request: requests.RecordFactors) -> dict[str, Any]:
        """Journal a factor table, if the rules permit its publication today and the key is that of
        the version before."""
        try:
            table = factors.read(request.table.encode())
            latest = self._desk.factors.get((table.grade, table.expiry))
            before = None if latest is None else factors.read(latest.encode())
            if before is not None and before.key != table.key:
                raise Refused(Refusal.WRONG_KEY, "not the key of the version before")
            if before is None or before.digest != table.digest:  # a repeat is answered
                loaded = grades.load()
                month = Month.parse(table.expiry)
                rules, grade = loaded.rules_of(month), loaded.grade(table.grade, month)
                factors.check_publication(table, before, rules, grade, self._now().date())
        except Refused as refused:
            raise RequestRefused(str(refused)) from refused
        event, repeated = await self._recorded(wishes.record_factors(table, request.table))
        return {
            "grade": table.grade,
            "expiry": table.expiry,
            "version": table.version,
            "digest": table.digest,
            "sequence": event.sequence,
            "recorded_before": repeated,
        }

    async def _adopt_margin(self, request: requests.AdoptMargin) -> dict[str, Any]:
        """Journal a version of the margin parameters; set the margin rates if it is in force."""
        desk, parameters = self._desk, margin.read(request.parameters)
        await self.cleared()
        new = margin.judge(parameters, self._clearing, desk.terms, desk.business_date)
        if new:
            await desk.perform([wishes.adopt_margin(parameters)])
            await self.cleared()
        if desk.business_date and parameters == self._clearing.margin_parameters():
            # Also after a repeat: there may have been a crash between the record and the rates.
            await desk.perform(self._rerate(parameters))
        adopted = self._clearing.margin_versions()
        return {
            "version": parameters.version,
            "effective": parameters.effective,
            "inputs_hash": parameters.inputs_hash,
            "adopted": parameters in adopted,
            "adopted_before": not new,
        }

    async def _open_day(self, request: requests.OpenDay) -> dict[str, Any]:
        """Open a business date: list new expiries, set limits around the last settlement prices,
        start trading."""
        desk = self._desk
        if desk.day_open:
            raise RequestRefused(f"business date {desk.business_date} is open; settle it first")
        if await self.unsettled():
            raise RequestRefused(
                f"business date {desk.business_date} is closed and not settled; settle it first"
            )
        last, now = desk.business_date, self._now()
        number = request.date
        if number is None:
            number = business_date.following(last, now, scheduled=self._scheduled)
        day = wishes.as_date(number)
        await self.cleared()  # clearing decides which margin parameters are in force
        limits, rates = self._relimit(), self._rates(day)
        todo = [*limits, *self._conduct.relimit_combinations(limits)]
        todo += [*rates, *self._conduct.rerate_combinations(rates), *self._protections()]
        todo += listings.missing(desk, self._clearing, day)
        business_date.check(day, last, now)
        await desk.perform([*todo, wishes.open_day(number)])
        return {
            "business_date": number,
            "opened": await self._start_trading(desk.instruments.by_id.values()),
        }

    async def _start_trading(self, listed: Iterable[Instrument]) -> int:
        """Start trading of the closed instruments, unless the schedule does that; return their
        number."""
        closed = [
            wishes.set_state(one.code, one.id, TradingState.CONTINUOUS)
            for one in listed
            if one.state == TradingState.CLOSED
            and self._conduct.may_trade(one)
            and not self._scheduled
        ]
        await self._desk.perform(closed)
        return len(closed)

    async def _list(self, request: requests.ListContract) -> dict[str, Any]:
        """List an expiry of the cycle, or a combination. If the day is open, its trading starts."""
        desk = self._desk
        if request.code in desk.instruments.by_code:
            raise RequestRefused(f"{request.code} is listed already")
        if combines(request.code):
            return await self._conduct.list_combination(request.code)
        day = wishes.as_date(desk.business_date)
        try:
            cycle = {terms.code: terms for terms in registry.load().listing(day)}
        except CalendarError as error:
            raise RequestRefused(str(error)) from error
        terms = cycle.get(request.code)
        if terms is None:
            raise RequestRefused(
                f"{request.code} is not in the listing cycle of {day}; `hourbook contracts list`"
                " shows what is"
            )
        if not request.price:
            raise RequestRefused(f"state the first mark of {request.code}: dollars, as in 2.650")
        await self.cleared()
        number, price = len(desk.instruments.by_id), wishes.micros(request.price)
        parameters = self._clearing.margin_parameters(desk.business_date)
        try:
            product = desk.instruments.products.get(terms.product, 0)
            product = product or max(desk.instruments.product_names, default=0) + 1
            todo = wishes_market.listing(terms, number, price, day, parameters, product=product)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        if desk.day_open and not self._scheduled and day <= terms.last_trading_day:
            todo.append(wishes.set_state(terms.code, number, TradingState.CONTINUOUS))
        await desk.perform(todo)
        return {
            "code": terms.code,
            "instrument": number,
            "last_trading_day": terms.last_trading_day.isoformat(),
        }

    def _relimit(self) -> list[Wish]:
        """Return wishes for the price limits of the listed instruments, around their settlement
        prices."""
        try:
            return [
                wishes_market.limits(terms, listed.id, price)
                for listed, terms, price in self._settled()
            ]
        except ValueError as error:
            raise RequestRefused(
                f"{error}; two persons set another settlement price:"
                " hourbook clear propose-price --correction"
            ) from error

    def _protections(self) -> list[Wish]:
        """Return wishes for the protections of the listed instruments, with bands around their
        settlement prices."""
        return [
            wishes_market.protect(
                listed.code, listed.id, wishes_market.protections_of(terms, price)
            )
            for listed, terms, price in self._settled()
        ]

    def _rates(self, day: date) -> list[Wish]:
        """Return wishes for the margin rates of the listed instruments, by the parameters in force
        on a day."""
        parameters = self._clearing.margin_parameters(number_of(day))
        return [
            wishes_market.risk(terms, listed.id, price, day, parameters)
            for listed, terms, price in self._settled()
        ]

    def _rerate(self, parameters: MarginParameters) -> list[Wish]:
        """Return wishes for the margin rates of what is listed by these parameters, now. The limits
        that operators set for the day stay."""
        day = wishes.as_date(self._desk.business_date)
        todo = []
        for listed, terms, price in self._settled():
            rate = wishes_market.rate_of(terms, price, day, parameters)
            figures = listed.risk._replace(rate=rate)
            todo.append(wishes_market.set_risk(listed.code, listed.id, figures))
        return todo

    def _settled(self) -> Iterator[tuple[Instrument, Terms, int]]:
        """Yield each instrument that has not expired, with its terms and last settlement price in
        micro-dollars."""
        for listed in self._desk.instruments.by_id.values():
            terms = self._desk.terms.get(listed.code)
            if terms is not None and listed.state != TradingState.EXPIRED:
                price = listed.mark if listed.settlement_price is None else listed.settlement_price
                yield listed, terms, price


def _moved(event: Event) -> dict[str, Any]:
    """Return the answer for money that was moved; ``cash`` is what the account had then."""
    return {
        "account": event.account,
        "amount": micros_text(event.price),
        "cash": micros_text(event.b),
        "sequence": event.sequence,
    }


def _check_machine(key: Key, person: str) -> None:
    """Raise RequestRefused if a key may make proposals and its creation is requested over HTTP: one
    person could then act as two."""
    if key.may(Right.CLEAR) and person != SOCKET_PERSON:
        raise RequestRefused(
            f"a key of scope {key.scope} is made on the market's own machine: `hourbook keys create"
            f" ACCOUNT --scope {key.scope} --data DIR`, or `rotate`"
        )


def _no_key(key_id: str) -> RequestRefused:
    return RequestRefused(f"no key {key_id} that is good; `hourbook keys list` shows them")


def _shown(key_id: str, secret: str) -> dict[str, Any]:
    """Return the answer for a new key. The secret is shown only here; a public key has none."""
    return {"key_id": key_id, "secret": secret} if secret else {"key_id": key_id}
