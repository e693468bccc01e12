"""The proof at the end of a market day: figures from independent sources, compared."""

import asyncio
from collections import Counter
from typing import Any, Final, NamedTuple

import msgspec

from clients.aio import AsyncClient
from exchange.app import Market
from exchange.clearing.statements import dollars, table
from exchange.engine import Engine
from exchange.journal.frame import digest
from exchange.journal.replay import replay
from exchange.messages import EVENT, EventFlag, EventKind, Reason
from exchange.sim.participants import HEDGED_PRODUCT, months_of

CENT_MICROS: Final = 10_000


class Party(NamedTuple):
    """An account of the day: its client, and the GPUs of the H100 strip that it wanted to buy."""

    account: int
    name: str
    client: AsyncClient | None
    hedge_gpus: int


class Check(msgspec.Struct, frozen=True):
    """One statement of the proof: two figures from different sources that must be equal."""

    name: str
    expected: int | str
    found: int | str

    @property
    def holds(self) -> bool:
        """Whether the figures are equal."""
        return self.expected == self.found

    def text(self) -> str:
        """Return one line of text."""
        if self.holds:
            return f"  yes  {self.name}"
        return f"  NO   {self.name}: {self.expected} expected, {self.found} found"


class Result(msgspec.Struct, frozen=True):
    """One account's day in micro-dollars: ``profit`` = cash now - deposits + unrealized."""

    account: int
    name: str
    fees: int
    variation: int
    profit: int


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The results of the market day, and the checks that confirm them."""

    orders: int
    trades: int
    volume: int
    open_interest: int
    commands: int
    rejects: dict[str, int]
    curve: dict[str, dict[str, int]]  # product -> code -> settlement price in micros
    results: list[Result]
    state_hash: str
    checks: list[Check]
    holds: bool

    def text(self) -> str:
        """Return the proof as text."""
        refused = ", ".join(f"{name} {count}" for name, count in sorted(self.rejects.items()))
        lines = [
            f"{self.commands:,} commands, {self.orders:,} orders, {self.trades:,} trades of"
            f" {self.volume:,} lots, {self.open_interest:,} lots of open interest",
            f"rejected: {refused or 'none'}",
            "",
            "Forward curve: settlement prices in USD per GPU-hour",
            self._curve_text(),
            "",
            "Profit and loss of the day in USD",
            self._results_text(),
            "",
            "Proof",
            *(check.text() for check in self.checks),
        ]
        return "\n".join(lines)

    def _curve_text(self) -> str:
        months = [code[-3:] for code in next(iter(self.curve.values()))]
        rows = [
            (product, *(f"{price / 1_000_000:.3f}" for price in codes.values()))
            for product, codes in self.curve.items()
        ]
        return table(("", *months), rows)

    def _results_text(self) -> str:
        rows = [
            (f"{result.account} {result.name}", _cents(result.variation), _cents(result.fees),
             _cents(result.profit))
            for result in self.results
        ]  # fmt: skip
        return table(("account", "variation", "fees", "profit"), rows)


def _cents(micros: int) -> str:
    """Return dollars to the cent, rounded half to even."""
    cents, rest = divmod(micros, CENT_MICROS)
    if rest * 2 + cents % 2 > CENT_MICROS:
        cents += 1
    return dollars(cents * CENT_MICROS)[:-4]


async def prove(market: Market, parties: list[Party]) -> Proof:
    """Compare engine, clearing, clients and a replay of the log. The market must be at rest."""
    await market.operations.cleared()
    clearing, engine = market.clearing, market.engine
    interest = clearing.open_interest()
    orders, rejects, events = _count(market)
    results = [_result(market, party) for party in parties]
    balance = clearing.trial_balance()
    live_hash = digest(engine.state_bytes()).hex()
    report = await asyncio.to_thread(replay, market.directory, Engine)
    accounts = [party.account for party in parties]
    cash = {a: int(engine.account(a)["cash"]) for a in accounts}
    held = [line.instrument for line in interest]
    nets = {(a, i): int(engine.position(a, i)["net"]) for a in accounts for i in held}
    deposits = sum(clearing.statement(a).deposits for a in accounts)
    checks = [
        Check("ledger: debits equal credits, sum 0", 0, balance.debits - balance.credits),
        Check("profits of all accounts sum to 0", 0, sum(r.profit for r in results)),
        Check("clearing's cash is the engine's, in every account",
              _listed(cash.items()), _listed((a, clearing.cash(a)) for a in accounts)),
        Check("all cash is what was deposited", deposits, sum(cash.values())),
        Check("clearing's positions are the engine's",
              _listed(nets.items()), _listed((k, clearing.net(*k)) for k in nets)),
        Check("positions of every instrument sum to 0", "",
              _listed((i, n) for i in held if (n := sum(nets[a, i] for a in accounts)))),
        Check("clearing counted every trade of the stream",
              events[EventKind.TRADE], sum(line.trades for line in interest)),
        Check("clearing found no divergence", 0, len(clearing.divergences)),
        *_client_checks(market, parties),
        Check(f"replayed {report.commands:,} commands from the log: state hash equal",
              live_hash, report.state_hash.hex()),
        Check("every hash recorded in the log was met", "", str(report.divergence or "")),
    ]  # fmt: skip
    return Proof(
        orders=orders,
        trades=events[EventKind.TRADE],
        volume=sum(line.volume for line in interest),
        open_interest=sum(line.open_interest for line in interest),
        commands=report.commands,
        rejects=dict(rejects),
        curve=_curve(market),
        results=results,
        state_hash=live_hash,
        checks=checks,
        holds=all(check.holds for check in checks),
    )


def _listed(pairs: Any) -> str:
    """Return the non-zero figures as one text, so that a difference can be seen."""
    return ", ".join(f"{key}: {value}" for key, value in pairs if value)


def _count(market: Market) -> tuple[int, Counter[str], Counter[int]]:
    """Return (orders accepted, rejects by reason, events by kind) of the whole released stream."""
    orders, rejects, kinds = 0, Counter[str](), Counter[int]()
    for released in market.tape.read(0, 0, 0):
        for row in EVENT.iter_unpack(released.events):
            kind, flags, reason = row[2:5]
            kinds[kind] += 1
            if kind == EventKind.ORDER_ACCEPTED:
                orders += not flags & EventFlag.DUPLICATE
            elif kind == EventKind.REJECTED:
                rejects[Reason(reason).name] += 1
    return orders, rejects, kinds


def _result(market: Market, party: Party) -> Result:
    told = market.clearing.statement(party.account)
    fees = told.fees + told.fees_earned
    return Result(party.account, party.name, fees, told.variation, told.profit)


def _curve(market: Market) -> dict[str, dict[str, int]]:
    curve: dict[str, dict[str, int]] = {}
    for line in market.clearing.open_interest():
        product = market.desk.terms[line.code].product
        curve.setdefault(product, {})[line.code] = line.settlement_price
    return curve


def _client_checks(market: Market, parties: list[Party]) -> list[Check]:
    """Return the checks of the clients' positions against clearing's."""
    codes = {listed.code: listed.id for listed in market.desk.instruments.by_id.values()}
    believed, held, hedges = [], [], []
    for account, name, client, gpus in parties:
        if client is None:
            continue
        for code, number in codes.items():
            believed.append(((account, code), client.positions.get(code, 0)))
            held.append(((account, code), market.clearing.net(account, number)))
        if gpus:
            months = months_of(client, HEDGED_PRODUCT)
            wanted = _listed((code, gpus) for code in months)
            traded = _listed((code, client.positions.get(code, 0)) for code in months)
            did = "bought" if gpus > 0 else "sold"
            hedges.append(Check(f"the {name} {did} {abs(gpus)} GPUs for {len(months)} months",
                                wanted, traded))  # fmt: skip
    return [
        Check("every client's own positions are clearing's", _listed(held), _listed(believed)),
        *hedges,
    ]
