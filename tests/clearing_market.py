"""A small market for the tests of clearing and margin: an engine and the frames it releases."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import astuple

from exchange.engine import Engine
from exchange.journal.tape import Released
from exchange.messages import (
    COMMAND,
    Command,
    CommandFlag,
    CommandKind,
    Side,
    TimeInForce,
    TradingState,
)

ACCOUNTS: Final = range(1, 7)
INSTRUMENTS: Final = 3
LOW, HIGH = 1_000, 4_000  # daily limits in ticks
MULTIPLIER, TICK_SCALE = 720, 1_000
DAY: Final = 20261201
DEPOSIT: Final = 12_000_000_000  # micro-dollars, small enough for MARGIN rejects and deficits


def signed(value: int) -> int:
    """A signed number as an unsigned field carries it."""
    return value & (1 << 64) - 1


@dataclass
class TestMarket:
    """Drives an engine by commands and keeps what it releases."""

    __test__ = False

    engine: Engine = field(default_factory=Engine)
    epoch: int = 1
    sequence: int = 0
    stamp: int = 1_000_000_000
    keys: int = 0
    frames: list[Released] = field(default_factory=list)

    def apply(self, *commands: Command, texts: Sequence[tuple[int, str]] = ()) -> bytes:
        """Apply one batch; ``texts`` are (place in the batch, text)."""
        first = self.sequence + 1
        self.stamp += 1_000_000
        packed = b"".join(COMMAND.pack(*astuple(command)) for command in commands)
        events: bytes = self.engine.apply(packed, first, self.stamp)
        told = [(first + place, text) for place, text in texts]
        self.frames.append(Released(self.epoch, first, len(commands), self.stamp, events, told))
        self.sequence += len(commands)
        return events

    def key(self) -> int:
        """A key not used before."""
        self.keys += 1
        return self.keys

    def enter(self, account: int, side: Side, price: int, quantity: int, **more: int) -> Command:
        """A limit order, GTC and for instrument 0 unless ``more`` says otherwise."""
        return Command(
            kind=CommandKind.ENTER, account=account, side=side, price=price, quantity=quantity,
            key_lo=self.key(), **more,
        )  # fmt: skip

    def money(self, kind: CommandKind, account: int, amount: int) -> Command:
        """DEPOSIT, WITHDRAW or FEE."""
        return Command(kind=kind, account=account, price=amount, key_lo=self.key())

    def list_instrument(self, number: int, fees: tuple[int, int] = (-200_000, 700_000)) -> None:
        """List, give risk parameters and open one instrument. ``fees``: maker and taker."""
        low, high = signed(LOW), signed(HIGH)
        self.apply(
            Command(
                kind=CommandKind.LIST, instrument=number, price=2_500 * TICK_SCALE,
                quantity=MULTIPLIER, session=TICK_SCALE, account=1, operator=1,
                target_lo=low, target_hi=high,
            ),
            Command(
                kind=CommandKind.SET_RISK, instrument=number, price=150_000_000, quantity=400,
                session=50, target_lo=signed(fees[0]), target_hi=signed(fees[1]),
            ),
            Command(
                kind=CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS
            ),
            texts=[(0, f'{{"code": "H100-{number}"}}')],
        )  # fmt: skip

    def open_account(self, account: int, deposit: int = DEPOSIT) -> None:
        """Open an account of its own self-trade group and pay it in."""
        opened = Command(
            kind=CommandKind.OPEN_ACCOUNT, account=account, instrument=account % 3,
            session=account, tif=1, quantity=1_000, target_hi=1,
        )  # fmt: skip
        self.apply(opened, self.money(CommandKind.DEPOSIT, account, deposit))

    def open_day(self, date: int) -> Command:
        """The command that opens a business date."""
        return Command(kind=CommandKind.OPEN_DAY, quantity=date)

    def settle(self, instrument: int, price: int, cycle: int = 1) -> Command:
        """The command that settles an instrument at ``price`` clearing units."""
        return Command(kind=CommandKind.SETTLE, instrument=instrument, price=price, quantity=cycle)


def open_market(first: int = 0) -> TestMarket:
    """A market with accounts paid in, instruments open and a business date."""
    market = TestMarket()
    for account in ACCOUNTS:
        market.open_account(account)
    for number in range(first, first + INSTRUMENTS):
        market.list_instrument(number)
    market.apply(market.open_day(DAY))
    return market


def random_command(market: TestMarket, draw: random.Random) -> Command:
    """One command of a lively market around 2,500 ticks."""
    account, instrument = draw.choice(ACCOUNTS), draw.randrange(INSTRUMENTS)
    side, price = draw.choice((Side.BUY, Side.SELL)), round(draw.gauss(2_500, 25))
    chance = draw.random()
    if chance < 0.70:
        market_order = draw.random() < 0.1
        immediate = market_order or draw.random() < 0.2
        return market.enter(
            account, side, 0 if market_order else price, draw.randint(1, 12),
            instrument=instrument, stp=draw.randrange(4),
            tif=TimeInForce.IOC if immediate else TimeInForce.GTC,
            flags=CommandFlag.MARKET if market_order else 0,
        )  # fmt: skip
    target = draw.randint(1, market.keys)
    if chance < 0.92:
        kind = draw.choice((CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE))
        return Command(
            kind=kind, account=account, side=Side.UNSTATED, target_lo=target, price=price,
            quantity=draw.randint(1, 12), key_lo=market.key(), flags=CommandFlag.BY_CLIENT_ID,
        )  # fmt: skip
    if chance < 0.95:
        mark = round(draw.gauss(2_500, 90)) * TICK_SCALE + draw.randrange(TICK_SCALE)
        return Command(kind=CommandKind.MARK, instrument=instrument, price=mark)
    kinds = (CommandKind.DEPOSIT, CommandKind.WITHDRAW, CommandKind.FEE)
    key = target if draw.random() < 0.2 else market.key()  # a used key: a repeat, or a reject
    return Command(
        kind=draw.choice(kinds), account=account, price=draw.randint(1, 10**9), key_lo=key
    )


def random_day(market: TestMarket, draw: random.Random, batches: int, size: int = 20) -> None:
    """Random batches, then a settlement of every instrument, a checkpoint and the next day."""
    for _ in range(batches):
        market.apply(*(random_command(market, draw) for _ in range(size)))
    for instrument in range(INSTRUMENTS):
        price = round(draw.gauss(2_500, 40)) * TICK_SCALE + draw.randrange(TICK_SCALE)
        market.apply(market.settle(instrument, price))
    date = market.engine.counts()["business_date"]
    market.apply(
        Command(kind=CommandKind.CHECKPOINT),
        Command(kind=CommandKind.CLOSE_DAY, quantity=date),
        market.open_day(date + 1),
    )
