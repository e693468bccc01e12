"""Combinations in what follows the engine: the ledger, the private view and its requirement."""

from collections import Counter
from decimal import Decimal
from typing import Any, cast

import pytest
from differences import Machine
from generator import MIXED, Generator, pack
from test_engine_combinations import BUY, SELL, SPREAD, STRIP, Desk

from clients.portfolio import margin_of
from exchange.clearing.ledger import SUSPENSE, EntryKind
from exchange.clearing.projection import Projection
from exchange.clearing.state import State
from exchange.engine import Engine
from exchange.gateway.queries import Queries
from exchange.gateway.reports import Reports
from exchange.gateway.resume import reports_of
from exchange.gateway.view import View
from exchange.journal.tape import Released
from exchange.marketdata.stream import Row, maker_of
from exchange.messages import COMMAND_BYTES, EVENT, CommandKind, EventKind
from exchange.messages.wire import Execution, LegTraded, ResidualPosted

CREDITED = 27  # a seed whose market has accounts with a credit when they are looked at


class Followed:
    """An engine whose events clearing and the gateway read as they come."""

    def __init__(self) -> None:
        self.engine, self.state, self.view = Engine(), State(), View()
        self.entries: list[int] = []
        self.executed: Counter[int] = Counter()  # lots, by order
        self.promised: Counter[tuple[int, str]] = Counter()  # legs, by account and match
        self.told: Counter[tuple[int, str]] = Counter()
        self.credited = 0  # accounts that were seen with a credit

    def apply(self, commands: bytes, first_sequence: int, stamp_ns: int) -> bytes:
        events = self.engine.apply(commands, first_sequence, stamp_ns)
        count = len(commands) // COMMAND_BYTES
        projection = Projection(self.state)
        projection.apply(Released(1, first_sequence, count, stamp_ns, events, []))
        projection.changes.check()
        self.entries += [entry[1] for entry in projection.changes.journal]
        self.view.take(1, stamp_ns, events, {})
        for row in EVENT.iter_unpack(events):
            if row[2] in (EventKind.TRADE, EventKind.ORDER_EXECUTED):
                self.executed[row[7]] += row[9]
            if row[2] == EventKind.TRADE:
                self.executed[row[11]] += row[9]
            self.read(row)
        return events

    def read(self, row: Row) -> None:
        """Count the legs that executions promise each account, and those that it is told of."""
        reports = Reports(self.view.feed.instruments, self.view.accounts)
        for account in {row[6], row[12], maker_of(row[12])[0]}:
            for report in reports_of(row, account, reports, 0, None):
                key = account, getattr(report, "match_number", "")
                if isinstance(report, Execution) and report.legs:
                    assert not self.told[key], "legs come behind their execution"
                    self.promised[key] += report.legs
                elif isinstance(report, LegTraded):
                    self.told[key] += 1

    def check(self) -> None:
        """Cash and positions of all accounts are the engine's, and so is what is required."""
        self.engine.check()
        assert not self.state.divergences
        assert +self.told == self.promised
        for order in self.view.accounts.orders.values():  # those that ended among them
            assert order.quantity - order.leaves == self.executed[order.id]
        assert not self.state.ledger.balances[SUSPENSE]
        for number, account in self.view.accounts.by_id.items():
            figures = self.engine.account(number)
            assert self.state.ledger.cash(number) == figures["cash"] == account.cash
            exposures = self.view.accounts.exposures(account)
            hold = sum(self.view.accounts.hold(at, one) for at, one in exposures.items())
            credit = self.view.accounts.credit(exposures)
            assert (hold - credit, credit) == (figures["hold"], figures["credit"])
            shown = margin_of(Queries(self.view.feed, self.view.accounts).account(number, 1, "a"))
            loss = max(Decimal(0), -sum(shown.unrealized.values()))
            assert shown.required == sum(shown.holds.values()) - shown.credit + loss
            self.credited += shown.credit > 0
            for instrument in self.view.feed.instruments.by_id:
                net = self.engine.position(number, instrument)["net"]
                held = account.holdings.get(instrument)
                assert self.state.positions.get(number, instrument).net == net
                assert (held.net if held else 0) == net

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_legs_and_residual_are_booked_and_reported() -> None:
    followed = Followed()
    desk = Desk(cast(Machine, followed))
    desk.do(_settle(1, 2_651_001))
    for number, price in ((SPREAD, -40), (STRIP, 2660)):
        desk.enter(2, number, SELL, 2, price)
        events = desk.enter(1, number, BUY, 2, price)
    assert followed.entries.count(EntryKind.LEG) == 5
    assert followed.entries.count(EntryKind.RESIDUAL) == 1
    reports = Reports(followed.view.feed.instruments, followed.view.accounts)
    rows: list[Any] = [(*vars_of(event),) for event in events]
    legs: list[Any] = [
        reports.kinds[row[2]](row, 0, None) for row in rows if row[2] == EventKind.LEG_TRADE
    ]
    assert all(isinstance(leg, LegTraded) for leg in legs)
    match = str(rows[1][0] << 20 | rows[1][1])
    assert [(leg.place, leg.legs, leg.match_number) for leg in legs] == [
        (1, 3, match), (2, 3, match), (3, 3, match),
    ]  # fmt: skip
    other = reports.other(rows[2], 0)
    assert isinstance(other, LegTraded) and other.side == "sell" and other.fee == "0.000020"
    posted = [reports.other(row, 0) for row in rows if row[2] == EventKind.RESIDUAL_POSTED]
    assert isinstance(posted[0], ResidualPosted) and not posted[0].cash.startswith("-")


def vars_of(event: object) -> list[int]:
    return [getattr(event, name) for name in event.__struct_fields__]  # type: ignore[attr-defined]


def _settle(instrument: int, price: int) -> bytes:
    return pack(CommandKind.SETTLE, instrument=instrument, price=price, quantity=1)


@pytest.mark.parametrize("seed", [1, 5, 6, CREDITED])
def test_drawn_markets_are_followed(seed: int) -> None:
    """The whole mix, what trades on the house account and moves its cash included."""
    generator, followed, sequence = (
        Generator(seed, {**MIXED, "combine": 12, "credit": 40}),
        Followed(),
        1,
    )
    generator.tick_scale, generator.multiplier = 1000, 744  # a price has six decimals here
    generator.wealth, legs = 1 << 44, 0
    batch = generator.opening()
    for number in range(80):
        generator.learn(followed.apply(batch, sequence, generator.stamp))
        checkpoint = pack(CommandKind.CHECKPOINT, quantity=1)
        sequence += len(batch) // COMMAND_BYTES
        generator.learn(followed.apply(checkpoint, sequence, generator.stamp))
        if number % 8 == 0:
            followed.check()
        sequence += 1
        batch = generator.batch(64)
        legs = followed.entries.count(EntryKind.LEG)
    followed.check()
    assert legs > 3 and len(followed.told) > 3
    assert followed.credited or seed != CREDITED
