"""The margin of a market: clearing's positions, the parameters in force and a business date in,
what every account must have out.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

import numpy as np

from exchange.clearing.calling import Calls
from exchange.clearing.calls import Required, margin_call
from exchange.clearing.expiry import Fixings
from exchange.clearing.margin import rules
from exchange.clearing.margin.parameters import LotRates, MarginParameters, lot_rates, root_of
from exchange.clearing.margin.scan import Credit, Ints, Margins, Rates, margins
from exchange.clearing.state import Instrument, State

PART_NAMES: Final = ("scan", "calendar", "delivery", "liquidity", "concentration")


@dataclass(frozen=True, slots=True)
class ProductPart:
    """What one product of an account asks for; micro-dollars."""

    product: str
    scan: int
    worst_scenario: int
    calendar: int
    delivery: int
    liquidity: int
    concentration: int

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.scan + self.calendar + self.delivery + self.liquidity + self.concentration


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one account must have; micro-dollars.

    ``requirement`` is the sum of the parts less ``credit``; ``maintenance`` the share of it below
    which a margin call follows. ``hold`` is what the engine asks for the same positions at its
    rates of the day, working orders apart; ``loss`` the loss since the last settlement;
    ``collateral`` what is pledged counts for; ``called`` whether a call is open.
    """

    account: int
    parts: list[ProductPart]
    credit: int
    requirement: int
    maintenance: int
    hold: int
    cash: int
    loss: int
    collateral: int = 0
    called: bool = False

    @property
    def balance(self) -> int:
        """Cash and collateral, less the loss that is not paid yet."""
        return self.cash + self.collateral - self.loss

    @property
    def excess(self) -> int:
        """What is left after the requirement; below zero the account is short."""
        return self.balance - self.requirement

    @property
    def call(self) -> int:
        """What a look at the account would call now: nothing down to maintenance; below it, and
        until a call that is open is met, all that is missing to the requirement."""
        required = Required(self.requirement, self.maintenance)
        return margin_call(self.balance, required, called=self.called)


class Priced(NamedTuple):
    """Every instrument's rates on a day, and the products they belong to."""

    products: tuple[str, ...]
    lots: dict[int, LotRates]  # by instrument
    rates: Rates  # by instrument number and by place in ``products``


def price(
    instruments: Mapping[int, Instrument],
    parameters: MarginParameters,
    on: date,
    withheld: Mapping[int, int],
) -> Priced:
    """The rates of all expiries that are listed, at their settlement prices.

    ``withheld``: days of its month without a fixing, by instrument that has any. What is no single
    expiry has no rates, nor has a product that the parameters do not cover. KeyError if none has.
    """
    root = {n: root_of(i.code) for n, i in sorted(instruments.items()) if not i.expired}
    covered = {terms.product for terms in parameters.products}
    root = {n: product for n, product in root.items() if product in covered}
    live = {n: instruments[n] for n in root}
    if not live:
        raise KeyError("no expiry is listed that could be margined")
    lots = {
        n: lot_rates(parameters, i.code, i.multiplier, i.settlement_price, on, withheld.get(n, 0))
        for n, i in live.items()
    }
    products = tuple(sorted(set(root.values())))
    place = {product: at for at, product in enumerate(products)}
    of = {p: [lots[n] for n in live if root[n] == p] for p in products}
    size = 1 + max(instruments, default=-1)

    def each(take: Callable[[LotRates], int]) -> Ints:
        column = [0] * size
        for number, lot in lots.items():
            column[number] = take(lot)
        return np.array(column, dtype=np.int64)

    def whole(take: Callable[[Sequence[LotRates]], int]) -> Ints:
        return np.array([take(of[p]) for p in products], dtype=np.int64)

    in_product = np.zeros(size, dtype=np.int64)
    for number in live:
        in_product[number] = place[root[number]]
    terms = [parameters.of(p) for p in products]
    rates = Rates(
        product=in_product,
        scan_range=each(lambda lot: lot.scan_range),
        liquidity=each(lambda lot: lot.liquidity),
        spot=each(lambda lot: int(lot.spot)),
        delivery=each(lambda lot: lot.delivery),
        # The dearest expiry's charge, so that nobody has to say which lots pair with which; but
        # no more than any leg's own scan, or the engine's hold might be short of it.
        spread=whole(lambda ls: min(max(x.spread for x in ls), min(x.scan_whole for x in ls))),
        relief=whole(lambda ls: min((x.relief for x in ls if x.spot), default=0)),
        daily_volume=np.array([t.daily_volume for t in terms], dtype=np.int64),
        participation=np.array([t.participation_percent for t in terms], dtype=np.int64),
        credits=tuple(
            Credit(place[o.a], place[o.b], o.ratio_a, o.ratio_b, o.percent)
            for o in parameters.offsets
            if o.a in place and o.b in place
        ),
    )
    return Priced(products, lots, rates)


def unknown(state: State, parameters: MarginParameters) -> dict[int, list[str]]:
    """The codes of what each account holds that the parameters do not cover."""
    covered, found = {terms.product for terms in parameters.products}, dict[int, list[str]]()
    for number in state.positions.instruments():
        code = state.instruments[number].code
        if root_of(code) not in covered:
            for account, position in state.positions.of_instrument(number).items():
                if position.net:
                    found.setdefault(account, []).append(code)
    return {account: sorted(codes) for account, codes in sorted(found.items())}


def requirements(
    state: State,
    parameters: MarginParameters,
    on: date,
    advance: Callable[[int, int], object] = lambda done, total: None,
    *,
    account: int | None = None,
    but: Container[int] = (),
) -> list[Requirement]:
    """What every account must have on a business date, by account; flat accounts are left out.

    ``account``: of this one alone, whatever the others hold; ``but``: those left out. ``advance``
    is told how many of how many positions are done. KeyError for a position in what has no rates.
    """
    rows = [row for row in _held(state, account) if row[0] not in but]
    if not rows:
        return []
    withheld = state.matters.get(Fixings).withheld(on)
    priced = price(state.instruments, parameters, on, withheld)
    held: dict[int, int] = {}
    for who, number, lots in rows:
        if number not in priced.lots:
            raise KeyError(f"no margin is known for {state.instruments[number].code}")
        held[who] = held.get(who, 0) + abs(lots) * priced.lots[number].hold
    accounts, instrument, net = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        advance(done, len(rows))

    found = margins(accounts, instrument, net, priced.rates, count)
    percent = {p: parameters.of(p).maintenance_percent for p in priced.products}
    return _named(state, found, percent, held)


def _held(state: State, account: int | None) -> Iterator[tuple[int, int, int]]:
    """(account, instrument, net) of all positions, or of one account's."""
    if account is not None:
        held = state.positions.of_account(account)
        yield from ((account, number, position.net) for number, position in held if position.net)
        return
    for number in state.positions.instruments():
        for who, position in state.positions.of_instrument(number).items():
            if position.net:
                yield who, number, position.net


def _named(
    state: State, found: Margins, percent: Mapping[str, int], held: Mapping[int, int]
) -> list[Requirement]:
    """``percent``: maintenance of the requirement by product, in the order of their places."""
    products, calls = list(percent), state.matters.get(Calls)
    parts: dict[int, list[ProductPart]] = {}
    for row in zip(*(column.tolist() for column in found.parts), strict=True):
        who, place, *figures = row
        parts.setdefault(who, []).append(ProductPart(products[place], *figures))
    answer = []
    columns = (column.tolist() for column in found[:3])
    for who, credit, total in zip(*columns, strict=True):
        loss = max(0, -sum(gain for _, _, gain in state.unrealized(who)))
        kept = sum(rules.up(p.total * percent[p.product], rules.PERCENT) for p in parts[who])
        answer.append(
            Requirement(
                account=who, parts=parts[who], credit=credit, requirement=total,
                maintenance=max(0, kept - credit), hold=held[who],
                cash=state.ledger.cash(who), loss=loss, called=who in calls.open,
                collateral=calls.collateral(who, state),
            )
        )  # fmt: skip
    return answer


def exposures(state: State) -> dict[int, dict[str, int]]:
    """The signed value of every account's positions by product, at the settlement prices."""
    found: dict[int, dict[str, int]] = {}
    for number in state.positions.instruments():
        listed = state.instruments[number]
        value, product = listed.settlement_price * listed.multiplier, root_of(listed.code)
        for account, position in state.positions.of_instrument(number).items():
            if position.net and product:
                held = found.setdefault(account, {})
                held[product] = held.get(product, 0) + position.net * value
    return found


def bound(parameters: MarginParameters, product: str, lots: int, limit_percent: int) -> int:
    """By how much, at 1e-4 of the hold, a requirement may pass it: the bound that is stated.

    For one product of at most ``lots`` lots a side, settled at most ``limit_percent`` away from the
    price at which the hold's rate was set (docs/reference/margin.md proves it).
    """
    terms = parameters.of(product)
    base = rules.BP * 10**8
    concentrated = base + rules.concentration(
        base, lots, terms.daily_volume, terms.participation_percent
    )
    moved = rules.up(concentrated * (rules.PERCENT + limit_percent), rules.PERCENT)
    return rules.up(moved - base, 10**8)
