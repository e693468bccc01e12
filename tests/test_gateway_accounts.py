"""The gateway's own view of accounts and orders, from events alone, equals the engine's."""

import random

import pytest
import venue as market
from msgspec.structs import astuple
from venue import POOR, RICH, THIRD, flow

from exchange.engine import Engine
from exchange.gateway.accounts import Accounts
from exchange.gateway.queries import Queries
from exchange.marketdata.feed import Feed
from exchange.marketdata.stream import Row
from exchange.messages import COMMAND, EVENT, Command, CommandFlag, CommandKind


class View:
    """An engine, and the gateway's view of it."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.feed = Feed()
        self.accounts = Accounts(self.feed.instruments)
        self.queries = Queries(self.feed, self.accounts)
        self.sequence = 0
        self.apply([command for command, _ in market.opening()])

    def apply(self, commands: list[Command]) -> None:
        records = b"".join(COMMAND.pack(*astuple(command)) for command in commands)
        events = self.engine.apply(records, self.sequence + 1, self.sequence + 1)
        self.sequence += len(commands)
        rows: list[Row] = list(EVENT.iter_unpack(events))
        self.feed.apply(rows, 1, {}, ())
        for row in rows:
            self.accounts.apply(row, str(row[11]))

    def check(self) -> None:
        for number, account in self.accounts.by_id.items():
            told = self.engine.account(number)
            exposures = self.accounts.exposures(account)
            assert account.cash == told["cash"]
            assert len(account.orders) == told["open_orders"]
            assert self.queries.required(account, exposures) == told["required"]
            for order in account.orders.values():
                assert (order.account, account.ids[order.text]) == (number, order.id)
            for instrument, exposure in exposures.items():
                position = self.engine.position(number, instrument)
                assert exposure.net == position["net"]
                assert exposure.cost == position["cost"]
                assert self.accounts.hold(instrument, exposure) == position["hold"]


def figures(chance: random.Random, cycle: int) -> list[Command]:
    """Operators at work: a mark, a settlement, a fee, a killed account and back."""
    price = chance.randrange(2_600, 2_700) * market.TICK_SCALE
    number = chance.randrange(2)
    return chance.choice(
        [
            [Command(kind=CommandKind.MARK, instrument=number, price=price)],
            [Command(kind=CommandKind.SETTLE, instrument=number, price=price, quantity=cycle)],
            [Command(kind=CommandKind.FEE, account=RICH, price=1_000_000, key_lo=cycle, key_hi=3)],
            [
                Command(kind=CommandKind.SET_ACCOUNT, account=THIRD, flags=CommandFlag.KILLED),
                Command(kind=CommandKind.SET_ACCOUNT, account=THIRD),
            ],
        ]
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_view_equals_the_engine_after_every_batch(seed: int) -> None:
    view = View()
    chance = random.Random(seed)
    commands = list(flow(seed, 1_500))
    cycle = 0
    while commands:
        size = chance.randrange(1, 25)
        view.apply(commands[:size])
        commands = commands[size:]
        if chance.random() < 0.2:
            cycle += 1
            view.apply(figures(chance, cycle))
        view.check()
    assert view.accounts.finished and view.accounts.orders
    assert POOR in view.accounts.by_id
