"""Two business dates of a lively market in a log, for the tests of what a log can be asked.

The real sequencer writes it. An engine beside it learns the order ids, so that cancels and
replacements name orders in both ways, and everything a log can say about an order occurs.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from recorded import NOON, SECOND, Clock, open_sequencer, record_of, until

from exchange.engine import Engine
from exchange.messages import (
    EVENT,
    EVENT_FIELDS,
    CommandFlag,
    CommandKind,
    EventKind,
    Side,
    TimeInForce,
    TradingState,
)
from exchange.sequencer import Sequencer

ACCOUNTS: Final = range(1, 7)
POOR: Final = 6
CODES: Final = ("H100Z26", "H200Z26")
DAYS: Final = (20261201, 20261202)
TIFS: Final = tuple(tif for tif in TimeInForce if tif != TimeInForce.GFA)  # no auction here
MULTIPLIER, TICK_SCALE, MARK = 744, 1_000, 2_500
LISTING: Final = (
    '{{"code":"{code}","product":"{product}","expiry":"2026-12","multiplier":744,'
    '"tick":"0.001","decimals":3}}'
)
Item = tuple[bytes, str | None]


@dataclass
class Script:
    """Commands in batches, as they are thought of; ``write`` puts them into a log."""

    seed: int = 1
    by_client: bool | None = None  # how orders are named; None: now so, now so
    batches: list[list[Item]] = field(default_factory=list)
    engine: Engine = field(default_factory=Engine)
    sequence: int = 0
    keys: int = 0
    working: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def say(self, *items: Item) -> list[dict[str, int]]:
        """Add a batch; what the engine beside it answers."""
        commands = b"".join(record for record, _ in items)
        events = self.engine.apply(commands, self.sequence + 1, self.stamp())
        self.sequence += len(items)
        self.batches.append(list(items))
        rows = [dict(zip(EVENT_FIELDS, row, strict=True)) for row in EVENT.iter_unpack(events)]
        self._learn(rows)
        return rows

    def stamp(self) -> int:
        return NOON + len(self.batches) * SECOND // 4

    def _learn(self, rows: list[dict[str, int]]) -> None:
        for row in rows:
            if row["kind"] == EventKind.ORDER_ACCEPTED and row["leaves"]:
                self.working.append(
                    (row["account"], row["order_id"], row["key_lo"], row["quantity"])
                )

    def key(self) -> int:
        self.keys += 1
        return self.keys

    def enter(self, account: int, side: int, price: int, lots: int, **more: int) -> Item:
        fields = {"key_lo": self.key(), "key_hi": 7, **more}
        record = record_of(
            CommandKind.ENTER, account=account, side=side, price=price, quantity=lots, **fields
        )
        return record, None

    def set_up(self) -> None:
        """Accounts, instruments, money and the first date."""
        for account in ACCOUNTS:
            opened = record_of(
                CommandKind.OPEN_ACCOUNT, account=account, instrument=(account + 1) // 2,
                session=account, tif=0 if account == 1 else 1, quantity=200, target_hi=1,
            )  # fmt: skip
            amount = 3_000_000_000 if account == POOR else 400_000_000_000
            paid = record_of(
                CommandKind.DEPOSIT, account=account, price=amount, key_lo=self.key(), key_hi=9
            )
            self.say((opened, f'{{"operation":"open_account","account":{account}}}'), (paid, None))
        for number, code in enumerate(CODES):
            listed = record_of(
                CommandKind.LIST, instrument=number, price=MARK * TICK_SCALE, quantity=MULTIPLIER,
                session=TICK_SCALE, account=1, operator=1, target_lo=2_000, target_hi=3_000,
            )  # fmt: skip
            risk = record_of(
                CommandKind.SET_RISK, instrument=number, price=150_000_000, quantity=120,
                session=50, target_lo=100_000, target_hi=300_000,
            )  # fmt: skip
            text = LISTING.format(code=code, product=code[:4])
            self.say((listed, text), (risk, None))
        self.say(
            *((record_of(CommandKind.LOGON, account=a, operator=40 + a), None) for a in (1, 2))
        )
        self.open_day(DAYS[0])

    def open_day(self, date: int, numbers: tuple[int, ...] = (0, 1)) -> None:
        states = [
            (record_of(CommandKind.SET_STATE, instrument=n, tif=TradingState.CONTINUOUS), None)
            for n in numbers
        ]
        self.say((record_of(CommandKind.OPEN_DAY, quantity=date), None), *states)

    def trade(self, batches: int) -> None:
        """Random orders around the mark."""
        for _ in range(batches):
            self.say(*(self._wish() for _ in range(self.random.randint(1, 6))))

    def _wish(self) -> Item:
        draw = self.random
        account, instrument = draw.choice(ACCOUNTS), draw.randrange(2)
        side = draw.choice((Side.BUY, Side.SELL))
        price = round(draw.gauss(MARK, 8))
        chance = draw.random()
        if chance < 0.62 or not self.working:
            tif = draw.choice((TimeInForce.GTC,) * 6 + TIFS)
            flags = draw.choice((0, 0, 0, CommandFlag.MANUAL))
            if chance < 0.05:
                tif, flags, price = TimeInForce.IOC, CommandFlag.MARKET, 0
            elif chance < 0.10 and tif in (TimeInForce.GTC, TimeInForce.DAY):
                flags |= CommandFlag.POST_ONLY
            lots = draw.choice((1, 2, 5, 12, 60)) if chance < 0.2 else draw.randint(1, 12)
            return self.enter(
                account, side, price, lots, instrument=instrument, tif=tif, flags=flags,
                stp=draw.randrange(4), operator=account,
            )  # fmt: skip
        owner, order_id, key, lots = draw.choice(self.working[-40:])
        by_client = draw.random() < 0.5
        by_client = by_client if self.by_client is None else self.by_client
        target = {"target_lo": key, "target_hi": 7} if by_client else {"target_lo": order_id}
        flags = CommandFlag.BY_CLIENT_ID if by_client else 0
        kind = draw.choice((CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE))
        if kind == CommandKind.REPLACE and draw.random() < 0.3:
            flags |= CommandFlag.NEW_ID
        quantity = draw.randint(1, 3) if kind == CommandKind.REDUCE else draw.randint(1, 12)
        record = record_of(
            kind, account=owner, side=Side.UNSTATED, flags=flags, price=price, quantity=quantity,
            key_lo=self.key(), key_hi=7, **target,
        )  # fmt: skip
        return record, None

    def settle(self, date: int, prices: tuple[int, ...]) -> None:
        """Close the date and settle, then compare."""
        closed = [
            (record_of(CommandKind.SET_STATE, instrument=n, tif=TradingState.CLOSED), None)
            for n in range(len(prices))
        ]
        self.say(*closed, (record_of(CommandKind.CLOSE_DAY, quantity=date), None))
        self.say(
            *(
                (record_of(CommandKind.SETTLE, instrument=n, price=p, quantity=1), None)
                for n, p in enumerate(prices)
            ),
            (record_of(CommandKind.CHECKPOINT), None),
        )

    def write(
        self, directory: Path, engine: object = None, stamps: Sequence[int] | None = None
    ) -> Path:
        """Have the real sequencer write the log; ``engine`` in place of this build's.

        ``stamps``: quarters of a second of each batch, one after another if absent.
        """
        quarters = range(len(self.batches)) if stamps is None else stamps

        async def session() -> None:
            clock, told = Clock(), 0
            # No test of what a log tells cuts the power
            sequencer = open_sequencer(directory, engine, clock=clock, sync=lambda handle: None)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(sequencer.run())
                for quarter, batch in zip(quarters, self.batches, strict=False):
                    clock.now = NOON + quarter * SECOND // 4
                    told += len(batch)
                    for record, text in batch:
                        ingress = clock.now - 1_500_000
                        sequencer.submit(1, record, ingress_ns=ingress, text=text)
                    await until(_released(sequencer, told))
                await sequencer.close()

        asyncio.run(session())
        return directory


def _released(sequencer: Sequencer, upto: int) -> Callable[[], bool]:
    return lambda: sequencer.tape.last[1] >= upto


def two_days(seed: int = 1, batches: int = 150, by_client: bool | None = None) -> Script:
    """A market of two dates: trading, limits that move, a settlement each, an expiry at the end."""
    script = Script(seed, by_client)
    script.set_up()
    script.trade(batches)
    script.settle(DAYS[0], (2_503_250, 2_497_000))
    moved = record_of(CommandKind.SET_LIMITS, instrument=0, target_lo=2_495, target_hi=2_510)
    script.say((moved, None))
    script.open_day(DAYS[1])
    script.trade(batches)
    wider = record_of(CommandKind.SET_LIMITS, instrument=0, target_lo=2_000, target_hi=3_000)
    script.say((wider, None))
    script.trade(batches // 3)
    script.settle(DAYS[1], (2_501_000, 2_499_500))
    script.say((record_of(CommandKind.EXPIRE, instrument=1, price=2_500_100), None))
    return script
