"""An operator's actions on instruments: states, auctions, combinations and protections."""

from collections.abc import Iterable
from typing import Any, Final

from contracts import registry, symbol
from contracts.calendar import CalendarError
from contracts.registry import UnknownContractError
from contracts.spec import Combination
from exchange.app import requests_market as requests
from exchange.app import wishes, wishes_market
from exchange.app.desk import Desk
from exchange.app.wishes import RequestRefused, Wish
from exchange.marketdata.instruments import Instrument, Protections, Window, micros_text
from exchange.marketdata.stream import signed
from exchange.messages import Breaker, HaltCause, Limit, TradingState
from exchange.messages.dates import number_of

BREAKER_HALTS: Final = (HaltCause.CIRCUIT_BREAKER, HaltCause.VELOCITY)
_MS: Final = 1_000_000
_MS_MAX: Final = 7 * 86_400_000  # longest span or halt of a breaker
_TRADING: Final = (TradingState.CONTINUOUS, TradingState.PRE_OPEN, TradingState.AUCTION)
_MATCHING: Final = (TradingState.CONTINUOUS, TradingState.AUCTION)
_COLLECTED: Final = (TradingState.PRE_OPEN, TradingState.AUCTION)


class Conduct:
    """Actions on a desk's instruments by one person; ``resumption`` is for two."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def perform(self, request: requests.ConductRequest) -> dict[str, Any]:
        """Perform a request and return its result. RequestRefused."""
        match request:
            case requests.Indicate():
                return await self._indicate(request)
            case requests.SetImplied():
                return await self._set_implied(request)
            case requests.Protect():
                return await self._protect(request)
            case requests.SetBreaker():
                return await self._set_breaker(request)
            case requests.SetLimits():
                return await self._set_limits(request)
            case requests.SetFeature():
                await self._desk.perform([wishes.set_feature(request)])
                return {"feature": request.feature, "on": request.on}
        return await self._change_state(request)

    # States

    def takes_two(self, request: requests.Resume) -> bool:
        """Whether a request ends a breaker's halt."""
        return bool(self._halted(request.code))

    def _halted(self, code: str) -> list[Instrument]:
        """Return what of a code a breaker has halted and may go on."""
        named = self._desk.named(code)
        return [one for one in named if self._by_breaker(one) and self.may_trade(one)]

    async def _change_state(self, request: requests.StateRequest) -> dict[str, Any]:
        """Move an instrument, or all of a product, to another trading state."""
        state, cause = _wished(request)
        chosen = self._chosen(request.code, state)
        self._check_day(state)
        for listed in chosen:
            if self._by_breaker(listed):
                raise RequestRefused(
                    f"{listed.code} was halted by {listed.cause.name}: two people let it go on, by"
                    f" `hourbook admin resume {request.code} --reason TEXT` and `approve`"
                )
        await self._desk.perform(_to_state(chosen, state, cause))
        return _told(request.code, state, chosen)

    def resumption(
        self, request: requests.Resume, upto: int | None = None, **names: str
    ) -> tuple[list[Wish], dict[str, object]]:
        """Return the commands that resume what a breaker halted, and the facts to report; of what
        was halted at or before the sequence ``upto`` if that is given. RequestRefused.
        """
        state, cause = _wished(request)
        halted = self._halted(request.code)
        if not halted:
            raise RequestRefused(f"nothing of {request.code} is halted by a breaker any more")
        self._check_day(state)
        chosen = [one for one in halted if upto is None or self._desk.moved(one) <= upto]
        if not chosen:
            raise RequestRefused(
                f"{halted[0].code} was halted again after this was proposed; propose it again"
            )
        facts = {"reason": request.reason, **names}
        about = {"operation": "resume", **_told(request.code, state, chosen), **facts}
        return _to_state(chosen, state, cause, **facts), about

    def _chosen(self, code: str, state: TradingState) -> list[Instrument]:
        """Return the instruments of a change of state: the one named, or those of a product that
        can change to it."""
        named = self._desk.named(code)
        if code in self._desk.instruments.by_code:
            if state in _TRADING and not self.may_trade(named[0]):
                raise RequestRefused(f"the last trading day of {code} is over: it can only expire")
            return named
        if state == TradingState.HALTED:
            named = [listed for listed in named if listed.state in _TRADING]
        if state in _COLLECTED:
            named = [listed for listed in named if not listed.legs]
        chosen = [
            one for one in named
            if one.state != state and (state == TradingState.CLOSED or self.may_trade(one))
        ]  # fmt: skip
        if not chosen:
            raise RequestRefused(f"nothing of {code} can be {state.name} now")
        return chosen

    def _check_day(self, state: TradingState) -> None:
        """Raise RequestRefused for a state that leads to trades while no business date is open:
        they would be on one that is settled, where nobody can bust them."""
        if state in _MATCHING and not self._desk.day_open:
            raise RequestRefused(
                "no business date is open, and nothing trades without one: `hourbook admin"
                " open-day` opens the next, as a market does itself that follows its calendar"
            )

    def may_trade(self, listed: Instrument) -> bool:
        """Whether a contract may trade on the business date: its last trading day is not over."""
        terms = self._desk.terms.get(listed.code) or self._desk.combinations.get(listed.code)
        return terms is None or self._desk.business_date <= number_of(terms.last_trading_day)

    @staticmethod
    def _by_breaker(listed: Instrument) -> bool:
        return listed.state == TradingState.HALTED and listed.cause in BREAKER_HALTS

    async def _indicate(self, request: requests.Indicate) -> dict[str, Any]:
        """Publish indicative prices now, and return them."""
        named = self._desk.named(request.code)
        if request.code in self._desk.instruments.products:
            named = [listed for listed in named if listed.state in _COLLECTED]
        outcomes = await self._desk.perform(
            [wishes_market.indicate(listed.code, listed.id) for listed in named]
        )
        found = zip(named, (outcome.events[0] for outcome in outcomes), strict=True)
        return {
            "indicative": [
                {
                    "code": listed.code,
                    "price": listed.price_text(event.price) if event.leaves else None,
                    "quantity": event.a,
                    "surplus": event.b,
                }
                for listed, event in found
            ]
        }

    # Combinations

    async def list_combination(self, code: str) -> dict[str, Any]:
        """List a combination of listed expiries; it trades at once if all of them do."""
        desk = self._desk
        combination = self._combination(code)
        legs = desk.instruments.by_code
        missing = [leg.code for leg in combination.legs if leg.code not in legs]
        if missing:
            raise RequestRefused(f"{code} needs {', '.join(missing)}, which is not listed")
        number = len(desk.instruments.by_id)
        todo = wishes_market.list_combination(combination, number, legs)
        states = {legs[leg.code].state for leg in combination.legs}
        if states == {TradingState.CONTINUOUS}:
            todo.append(wishes.set_state(code, number, TradingState.CONTINUOUS))
        await desk.perform(todo)
        return {
            "code": code,
            "instrument": number,
            "kind": combination.kind,
            "legs": {leg.code: leg.ratio for leg in combination.legs},
            "last_trading_day": combination.last_trading_day.isoformat(),
        }

    def _combination(self, code: str) -> Combination:
        try:
            found = registry.load().find(code, wishes.as_date(self._desk.business_date))
        except (symbol.CodeError, UnknownContractError, CalendarError) as error:
            raise RequestRefused(str(error)) from error
        assert isinstance(found, Combination), "its code is not an expiry's"
        return found

    def relimit_combinations(self, moved: Iterable[Wish]) -> list[Wish]:
        """Return commands that move the price limits of all combinations to those that follow from
        their legs' limits after ``moved``, the SET_LIMITS of legs."""
        listed = self._desk.instruments
        limits = {code: (one.low_ticks, one.high_ticks) for code, one in listed.by_code.items()}
        for wish in moved:
            command = wish.command
            code = listed.by_id[command.instrument].code
            limits[code] = (signed(command.target_lo), signed(command.target_hi))
        return [
            wishes_market.set_limits(
                code, listed.by_code[code].id, *wishes_market.combined_limits(combination, limits)
            )
            for code, combination in self._desk.combinations.items()
            if listed.by_code[code].state != TradingState.EXPIRED
        ]

    def rerate_combinations(self, moved: Iterable[Wish]) -> list[Wish]:
        """Return commands that give the combinations the limits of lots that follow from their
        terms and from their legs' limits after ``moved``, the SET_RISK of expiries; only for those
        that have others now. Credits stay."""
        listed = self._desk.instruments
        limits = {code: one.risk.position_limit for code, one in listed.by_code.items()}
        for wish in moved:
            limits[listed.by_id[wish.command.instrument].code] = wish.command.quantity
        todo = []
        for code, combination in self._desk.combinations.items():
            one = listed.by_code[code]
            figures = wishes_market.combined_risk(combination, limits)
            figures = figures._replace(credit=one.risk.credit)
            if one.state != TradingState.EXPIRED and figures != one.risk:
                todo.append(wishes_market.set_risk(code, one.id, figures))
        return todo

    async def _set_implied(self, request: requests.SetImplied) -> dict[str, Any]:
        """Turn implied prices of one combination, or of all, on or off."""
        if request.code:
            chosen = [self._desk.instrument(request.code)]
        else:
            by_code = self._desk.instruments.by_code
            listed = [by_code[code] for code in self._desk.combinations]
            chosen = [one for one in listed if one.state != TradingState.EXPIRED]
        await self._desk.perform(
            [wishes_market.set_implied(one.code, one.id, on=request.on) for one in chosen]
        )
        return {"implied": request.on, "changed": [one.code for one in chosen]}

    # Protections

    async def _protect(self, request: requests.Protect) -> dict[str, Any]:
        """Set instruments' protections to those of their terms, with the request's own values, or
        to none."""
        desk = self._desk
        named = desk.named(request.code) if request.code else desk.instruments.by_id.values()
        todo = []
        for listed in named:
            terms = desk.terms.get(listed.code)
            if terms is None or listed.state == TradingState.EXPIRED:
                continue
            price = listed.mark if listed.settlement_price is None else listed.settlement_price
            held_to = wishes_market.protections_of(terms, price) if request.on else Protections()
            todo.append(
                wishes_market.protect(listed.code, listed.id, _asked(request, listed, held_to))
            )
        if request.code and not todo:
            raise RequestRefused(f"nothing of {request.code} has protections of its own")
        await desk.perform(todo)
        return {"protected": len(todo) if request.on else 0}

    async def _set_breaker(self, request: requests.SetBreaker) -> dict[str, Any]:
        """Set a breaker of an instrument, or of all outrights of a product."""
        named = [listed for listed in self._desk.named(request.code) if not listed.legs]
        if not named:
            raise RequestRefused(f"{request.code} has no breaker of its own: set those of its legs")
        which = Breaker[request.window.upper()]
        todo = []
        for listed in named:
            variation = _distance("a variation", listed, request.variation)
            span = _bounded("a span in milliseconds", request.span_ms, _MS_MAX, least=1) * _MS
            halt = _bounded("a halt in milliseconds", request.halt_ms, _MS_MAX) * _MS
            window = Window(variation, request.product, span, halt)
            todo.append(wishes_market.set_breaker(listed.code, listed.id, which, window))
        await self._desk.perform(todo)
        return {"window": request.window, "variation": request.variation,
                "changed": [listed.code for listed in named]}  # fmt: skip

    async def _set_limits(self, request: requests.SetLimits) -> dict[str, Any]:
        """Change an instrument's price limits, its limits of an account's position or an order's
        size, or a spread's credit."""
        listed = self._desk.instrument(request.code)
        todo = []
        low = listed.low_ticks if request.low is None else _ticks(listed, request.low)
        high = listed.high_ticks if request.high is None else _ticks(listed, request.high)
        if (low, high) != (listed.low_ticks, listed.high_ticks):
            _check_limits(listed, low, high)
            todo.append(wishes_market.set_limits(listed.code, listed.id, low, high))
        risk = listed.risk
        if request.position_limit is not None:
            most = _bounded("a position limit", request.position_limit, Limit.QUANTITY)
            risk = risk._replace(position_limit=most)
        if request.max_order is not None:
            most = _bounded("an order's limit", request.max_order, Limit.QUANTITY)
            risk = risk._replace(max_order=most)
        if request.credit is not None:
            risk = risk._replace(credit=self._credit(listed, request.credit))
        if risk != listed.risk:
            todo.append(wishes_market.set_risk(listed.code, listed.id, risk))
        if not todo:
            raise RequestRefused(f"{request.code}: state a limit that is another than now")
        for wish in todo:  # one at a time: a refusal leaves the rest undone
            await self._desk.perform([wish])
        return {"code": listed.code, "low_limit": listed.price_text(low),
                "high_limit": listed.price_text(high), "position_limit": risk.position_limit,
                "max_order": risk.max_order, "credit": micros_text(risk.credit)}  # fmt: skip

    def _credit(self, spread: Instrument, text: str) -> int:
        """Return a spread's credit in micro-dollars, at most the hold of a lot of either leg."""
        credit = wishes.micros(text, "credit")
        legs = [self._desk.instruments.by_id[number] for number, _ in spread.legs]
        months = sorted(ratio for _, ratio in spread.legs) == [-1, 1]
        if not months or legs[0].product != legs[1].product:
            raise RequestRefused(f"{spread.code} is no spread of two months of one product")
        most = min(leg.rate for leg in legs)
        if not 0 <= credit <= most:
            raise RequestRefused(
                f"a credit is from 0 to what a lot of the cheaper leg holds, {micros_text(most)}"
            )
        return credit


def combines(code: str) -> bool:
    """Whether a code is that of a combination."""
    try:
        return not isinstance(symbol.parse(code), symbol.Outright)
    except symbol.CodeError:
        return False


def describe(listed: Instrument) -> dict[str, Any]:
    """Return an instrument's protections, as ``state`` shows them."""
    held = listed.protections
    return {
        "band": listed.price_text(held.band) if held.band else None,
        "order_value": micros_text(held.order_value) if held.order_value else None,
        "accountability": held.accountability or None,
        "all_months": held.all_months or None,
        "position_limit": listed.risk.position_limit,
        "max_order": listed.risk.max_order,
        "credit": micros_text(listed.risk.credit) if listed.risk.credit else None,
        "breakers": {
            which.name.lower(): listed.price_text(window.variation)
            for which, window in sorted(listed.breakers.items())
            if window.variation
        },
        "implied": listed.implied,
        "legs": {leg.code: leg.ratio for leg in listed.data.legs},
    }


def _wished(request: requests.StateRequest) -> tuple[TradingState, HaltCause]:
    match request:
        case requests.Halt():
            return TradingState.HALTED, HaltCause.NONE
        case requests.Close():
            return TradingState.CLOSED, HaltCause.NONE
        case requests.PreOpen():
            return TradingState.PRE_OPEN, HaltCause.OPENING
        case requests.Auction():
            return TradingState.AUCTION, HaltCause[request.cause.upper()]
        case requests.Resume(auction=True):
            return TradingState.AUCTION, HaltCause.VOLATILITY
    return TradingState.CONTINUOUS, HaltCause.NONE


def _to_state(
    chosen: list[Instrument], state: TradingState, cause: HaltCause, **facts: object
) -> list[Wish]:
    return [wishes.set_state(one.code, one.id, state, cause, **facts) for one in chosen]


def _told(code: str, state: TradingState, chosen: list[Instrument]) -> dict[str, Any]:
    return {"code": code, "state": state.name, "changed": [listed.code for listed in chosen]}


def _asked(request: requests.Protect, listed: Instrument, held_to: Protections) -> Protections:
    """Return the protections with those that the request states replaced."""
    asked = held_to
    if request.band is not None:
        asked = asked._replace(band=_distance("a band", listed, request.band))
    if request.order_value is not None:
        value = _bounded(
            "an order's value", wishes.micros(request.order_value, "value"), Limit.MONEY
        )
        asked = asked._replace(order_value=value)
    if request.accountability is not None:
        lots = _bounded("an accountability level", request.accountability, Limit.QUANTITY)
        asked = asked._replace(accountability=lots)
    if request.all_months is not None:
        lots = _bounded("a limit over all months", request.all_months, Limit.POSITION)
        asked = asked._replace(all_months=lots)
    return asked


def _bounded(name: str, number: int, most: int, least: int = 0) -> int:
    if not least <= number <= most:
        raise RequestRefused(f"{name} is from {least} to {most}, not {number}")
    return number


def _distance(name: str, listed: Instrument, text: str) -> int:
    """Return a price distance in ticks; RequestRefused as ``_ticks``, and below 0."""
    ticks = _ticks(listed, text)
    if ticks < 0:
        raise RequestRefused(f"{name} is from 0 dollars on, not {text}")
    return ticks


def _check_limits(listed: Instrument, low: int, high: int) -> None:
    """Raise RequestRefused for price limits without a price between them, off the price step, or
    with more prices than a book can hold."""
    named = listed.price_text(low), listed.price_text(high)
    if low > high:
        raise RequestRefused(f"the lowest price, {named[0]}, is above the highest, {named[1]}")
    step = listed.price_step
    if low % step or high % step:
        steps = f"{listed.code} has prices in steps of {listed.price_text(step)}"
        raise RequestRefused(f"{steps}: {named[0]} or {named[1]} is none")
    if (levels := (high - low) // step + 1) > Limit.LADDER_LEVELS:
        most = f"{Limit.LADDER_LEVELS} prices is the most"
        raise RequestRefused(f"from {named[0]} to {named[1]} are {levels} prices; {most}")


def _ticks(listed: Instrument, text: str) -> int:
    """Return a price in ticks; RequestRefused if it is off the tick, or out of range."""
    ticks, rest = divmod(wishes.micros(text), listed.tick_scale)
    if abs(ticks) > Limit.PRICE:
        raise RequestRefused(f"{text} is no price: a tick count is at most {Limit.PRICE}")
    if rest:
        raise RequestRefused(f"{text} is no multiple of the tick of {listed.code}")
    return ticks
