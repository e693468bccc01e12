"""The margin requirement of every account, from clearing's positions and deliveries, the parameters
in force and a business date.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from exchange.clearing.calling import Calls
from exchange.clearing.calls import Required, margin_call
from exchange.clearing.expiry import Fixings
from exchange.clearing.margin import rules, undelivered
from exchange.clearing.margin.parameters import LotRates, MarginParameters, lot_rates, root_of
from exchange.clearing.margin.scan import Credit, Ints, Rates, margins
from exchange.clearing.members.registry import Registry
from exchange.clearing.state import Instrument, State


@dataclass(frozen=True, slots=True)
class ProductPart:
    """One product's part of an account's requirement, in micro-dollars."""

    product: str
    scan: int
    worst_scenario: int
    calendar: int
    delivery: int
    liquidity: int
    concentration: int
    undelivered: int = 0  # of deliveries that have not ended, whose positions are gone

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return (
            self.scan + self.calendar + self.delivery + self.liquidity + self.concentration
            + self.undelivered
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Requirement:
    """One account's requirement and balance, in micro-dollars.

    ``requirement`` is the sum of the parts less ``credit``; a balance below ``maintenance`` leads
    to a margin call. ``hold`` is what the engine holds for the same positions at its rates of the
    day, without working orders; ``loss`` the loss since the last settlement; ``collateral`` the
    value of what is pledged after haircuts; ``called`` whether a call is open.
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
        """Cash and collateral, less the loss that is not settled yet."""
        return self.cash + self.collateral - self.loss

    @property
    def excess(self) -> int:
        """The balance less the requirement; negative if margin is missing."""
        return self.balance - self.requirement

    @property
    def call(self) -> int:
        """The margin call if one were made now.

        It is 0 as long as the balance is at least ``maintenance`` and no call is open, otherwise
        what is missing to the requirement.
        """
        required = Required(self.requirement, self.maintenance)
        return margin_call(self.balance, required, called=self.called)


class Priced(NamedTuple):
    """The rates of all instruments on a day, and their products."""

    products: tuple[str, ...]
    lots: dict[int, LotRates]  # by instrument
    rates: Rates  # by instrument id and by index in ``products``


def price(
    instruments: Mapping[int, Instrument],
    parameters: MarginParameters,
    on: date,
    withheld: Mapping[int, int],
) -> Priced:
    """Return the rates of all listed expiries at their settlement prices.

    ``withheld`` is the number of days without a fixing in an instrument's month, by instrument; 0
    by default. Combinations, and products that the parameters do not cover, have no rates. KeyError
    if no instrument has.
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
        # The largest charge of any expiry, so that lots need not be paired; but no more than the
        # least scan, otherwise the engine's hold might not cover it.
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
    """Return the codes of each account's positions and deliveries that the parameters do not
    cover."""
    covered, found = {terms.product for terms in parameters.products}, dict[int, list[str]]()
    for number in state.positions.instruments():
        code = state.instruments[number].code
        if root_of(code) not in covered:
            for account, position in state.positions.of_instrument(number).items():
                if position.net:
                    found.setdefault(account, []).append(code)
    for delivery, terms in undelivered.promised(state):
        if root_of(terms.code) not in covered:
            for side in undelivered.bound(delivery):
                found.setdefault(side, []).append(terms.code)
    return {account: sorted({*codes}) for account, codes in sorted(found.items())}


def requirements(
    state: State,
    parameters: MarginParameters,
    on: date,
    advance: Callable[[int, int], object] = lambda done, total: None,
    *,
    account: int | None = None,
    but: Container[int] = (),
) -> list[Requirement]:
    """Return the requirement of every account with positions, or with deliveries that have not
    ended, on a business date, by account.

    ``account`` limits the result to one account, ``but`` excludes some. ``advance(done, total)``
    reports the positions done. KeyError for a position or delivery without rates.
    """
    rows = [row for row in _held(state, account) if row[0] not in but]
    promised = undelivered.charges(state, parameters, account=account, but=but)
    if not rows:
        return _named(state, parameters, {}, {}, promised)
    withheld = state.matters.get(Fixings).withheld(on)
    priced = price(state.instruments, parameters, on, withheld)
    for _, number, _ in rows:
        if number not in priced.lots:
            raise KeyError(f"no margin is known for {state.instruments[number].code}")
    held = _engine_holds(state, rows, priced)
    accounts, instrument, net = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        advance(done, len(rows))

    found = margins(accounts, instrument, net, priced.rates, count)
    parts: dict[int, list[ProductPart]] = {}
    for row in zip(*(column.tolist() for column in found.parts), strict=True):
        who, place, *figures = row
        parts.setdefault(who, []).append(ProductPart(priced.products[place], *figures))
    credit = dict(zip(found.account.tolist(), found.credit.tolist(), strict=True))
    return _named(state, parameters, parts, credit, promised, held)


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


def _engine_holds(
    state: State, rows: Sequence[tuple[int, int, int]], priced: Priced
) -> dict[int, int]:
    """What the engine would hold by account for positions alone, at the day's rates."""
    registry, rates = state.matters.get(Registry), {n: lot.hold for n, lot in priced.lots.items()}
    net: dict[int, dict[int, int]] = {}
    for who, number, lots in rows:
        net.setdefault(who, {})[number] = lots
    return {
        who: sum(abs(lots) * rates[n] for n, lots in own.items()) - registry.credit(own, rates)
        for who, own in net.items()
    }


def _named(
    state: State,
    parameters: MarginParameters,
    parts: Mapping[int, list[ProductPart]],
    credits: Mapping[int, int],
    promised: Mapping[int, Mapping[str, int]],
    held: Mapping[int, int] = MappingProxyType({}),
) -> list[Requirement]:
    """The requirements of the ``parts`` of positions and the charges ``promised`` on deliveries,
    both by account, less the ``credits``."""
    calls, answer = state.matters.get(Calls), []
    for who in sorted({*parts, *promised}):
        products = _with_deliveries(parts.get(who, ()), promised.get(who, {}))
        credit, total = credits.get(who, 0), sum(part.total for part in products)
        loss = max(0, -sum(gain for _, _, gain in state.unrealized(who)))
        kept = sum(
            rules.up(p.total * parameters.of(p.product).maintenance_percent, rules.PERCENT)
            for p in products
        )
        answer.append(
            Requirement(
                account=who, parts=products, credit=credit, requirement=total - credit,
                maintenance=max(0, kept - credit), hold=held.get(who, 0),
                cash=state.ledger.cash(who), loss=loss, called=who in calls.open,
                collateral=calls.collateral(who, state),
            )
        )  # fmt: skip
    return answer


def _with_deliveries(
    parts: Sequence[ProductPart], promised: Mapping[str, int]
) -> list[ProductPart]:
    """The parts of one account's products, by product, with the charges on its deliveries."""
    found = {part.product: part for part in parts}
    for product, amount in promised.items():
        before = found.get(product, ProductPart(product, 0, 1, 0, 0, 0, 0))
        found[product] = replace(before, undelivered=amount)
    return [found[product] for product in sorted(found)]


def exposures(state: State) -> dict[int, dict[str, int]]:
    """Return the signed value of every account's positions by product, at settlement prices, in
    micro-dollars."""
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
    """Return the stated bound of how far a requirement may exceed its hold, at 1e-4 of the hold.

    It is for one product with at most ``lots`` lots a side, settled at most ``limit_percent`` away
    from the price at which the hold's rate was set. Proof: docs/reference/margin.md.
    """
    terms = parameters.of(product)
    base = rules.BP * 10**8
    concentrated = base + rules.concentration(
        base, lots, terms.daily_volume, terms.participation_percent
    )
    moved = rules.up(concentrated * (rules.PERCENT + limit_percent), rules.PERCENT)
    return rules.up(moved - base, 10**8)
