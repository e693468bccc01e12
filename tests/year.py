"""Months of a market, a business day at a time, as fast as they will go: sessions by the calendar,
orders, fixings, settlement, expiries, new months, restarts. Each evening everything is added up
once more, from the released stream alone.

The clock jumps from step to step of the calendar. The market is the one that is served, but that
its disk promises at once, and its schedule looks when it is told to.
"""

import asyncio
import shutil
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from contracts import calendar, registry
from contracts.calendar import Month
from contracts.index.run import end_ns
from exchange.app import Market, requests, wishes
from exchange.app.market import LEDGER_NAME
from exchange.app.schedule import Schedule as Follower
from exchange.app.schedule import stamp_of
from exchange.app.settings import Limits, Schedule, Settings
from exchange.app.standby import Standby
from exchange.clearing import Clearing
from exchange.engine import Engine
from exchange.journal.frame import digest
from exchange.journal.replay import replay
from exchange.journal.syncer import Done, Log
from exchange.journal.tape import START
from exchange.marketdata.instruments import Instrument
from exchange.messages import (
    COMMAND,
    COMMAND_FIELDS,
    EVENT,
    EVENT_BYTES,
    TRADE,
    TRADE_FIELDS,
    Command,
    CommandKind,
    EventFlag,
    EventKind,
    Side,
    TimeInForce,
    Trade,
    TradingState,
)
from exchange.messages.dates import number_of

ACCOUNTS: Final = range(1, 7)
CASH_USD: Final = "900000000"
INDICES: Final = {
    "HBX-A100": "2.3", "HBX-B200": "6.7", "HBX-H100": "3.2", "HBX-H200": "4.4",
}  # fmt: skip
SETTINGS: Final = Settings(
    limits=Limits(watch_seconds=60, checkpoint_seconds=86_400, clearing_pause_seconds=0),
    schedule=Schedule(follow=True),
)
SOURCE: Final = 7  # of the orders, among the sequencer's
LINES: Final = ("opening", "deposits", "variation", "fees", "fees_earned", "interest", "closing")
_KIND: Final = 12  # offset of the kind byte in an event
_OPEN: Final = (TradingState.CONTINUOUS, TradingState.PRE_OPEN, TradingState.AUCTION)


class Promises:
    """The place of the sync thread: all is durable as soon as it was written."""

    def __init__(self, log: Log) -> None:
        """Of a log that is not synced."""

    def begin(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        loop.call_soon(done, None)

    def stop(self) -> None:
        """Nothing to end."""


async def _look_once(self: Follower) -> None:
    """In place of ``Schedule.run``."""
    await self.look()
    self.looked.set()
    await asyncio.Event().wait()


class Book:
    """Everybody's cash and positions, by what the stream says of money and lots."""

    def __init__(self) -> None:
        self.cash: defaultdict[int, int] = defaultdict(int)
        self.nets: defaultdict[tuple[int, int], int] = defaultdict(int)  # account, instrument
        self._position = START

    def read(self, market: Market) -> None:
        """Add what was released since the last time."""
        for released in market.tape.read(*self._position):
            for at in range(0, len(released.events), EVENT_BYTES):
                kind = released.events[at + _KIND]
                if kind in (EventKind.TRADE, EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED):
                    fields = TRADE.unpack_from(released.events, at)
                    self._traded(Trade(**dict(zip(TRADE_FIELDS, fields, strict=True))))
                else:
                    self._moved(EVENT.unpack_from(released.events, at))
            row = EVENT.unpack_from(released.events, at)
            self._position = (released.epoch, row[0], row[1])

    def _traded(self, trade: Trade) -> None:
        self.cash[trade.account] += trade.cash
        self.cash[trade.maker_account] += trade.maker_cash
        self.cash[0] -= trade.cash + trade.maker_cash  # fees; what legs leave over sums to zero
        if trade.kind == EventKind.RESIDUAL_POSTED or (
            trade.kind == EventKind.TRADE and trade.reason
        ):
            return  # of a combination: its legs say what moved
        lots = -trade.quantity if trade.flags & EventFlag.SELL else trade.quantity
        self.nets[trade.account, trade.instrument] += lots
        self.nets[trade.maker_account, trade.instrument] -= lots

    def _moved(self, row: tuple[int, ...]) -> None:
        kind, account = row[2], row[6]
        if row[3] & EventFlag.DUPLICATE:
            return
        if kind == EventKind.DEPOSITED:
            self.cash[account] += row[8]
        elif kind == EventKind.WITHDRAWN:
            self.cash[account] -= row[8]
        elif kind == EventKind.FEE_CHARGED:
            self.cash[account] -= row[8]
            self.cash[0] += row[8]
        elif kind == EventKind.POSITION_SETTLED:
            self.cash[account] += row[13]
        elif kind == EventKind.INSTRUMENT_EXPIRED:
            for key in [key for key in self.nets if key[1] == row[5]]:
                del self.nets[key]


class Year:
    """A market whose days are lived one after another; ``begin`` it first, ``end`` it last."""

    def __init__(self, folder: Path, seed: int, first: date, orders: int) -> None:
        """From the business day ``first`` on, with so many orders a day."""
        self.folder, self.days = folder, calendar.load()
        self.next = self.days.at_or_after(first)
        self.statements: dict[tuple[int, int], list[int]] = {}  # by account and date
        self._orders, self._random, self._key = orders, Random(f"year/{seed}"), 0
        self._now = stamp_of(self.days.session(self.next).pre_opens)
        self._book, self._fixed = Book(), self.next.replace(day=1)
        self._told = self.next - timedelta(days=1)
        self.market: Market

    def clock_ns(self) -> int:
        """The time, which goes on by a microsecond whenever somebody looks."""
        self._now += 1_000
        return self._now

    async def begin(self) -> None:
        """Start the market, or start it again, and wait until clearing is there."""
        with patch.object(Follower, "run", _look_once):
            self.market = await Market.start(
                self.folder, clock=self.clock_ns, settings=SETTINGS, syncer=Promises
            )
        self._schedule = Follower(
            self.market.desk, self.market.operations, self.clock_ns, settles=True
        )
        await self.market.operations.cleared()

    async def found(self) -> None:
        """Open the accounts."""
        for account in (0, *ACCOUNTS):
            await self._ask(requests.Deposit(account=account, amount=CASH_USD))

    async def live(self) -> None:
        """One business day with all of its sessions; it is checked in the evening."""
        day = self.next
        await self.open()
        await self.trade(self._orders)
        await self.close()
        self.next = self.days.after(day, 1)

    async def open(self) -> None:
        """The pre-open, the opening auction and the open."""
        session = self.days.session(self.next)
        await self.at(session.pre_opens)
        await self._list_months()
        await self.trade(self._orders // 10)
        await self.at(session.opening_auction)
        await self.at(session.opens)
        await self._fix()

    async def close(self) -> None:
        """The closing auction, the close with its settlement, and what expires."""
        session = self.days.session(self.next)
        await self.at(session.closing_auction)
        await self.trade(self._orders // 10)
        await self.at(session.closes)
        await self._expire()
        await self.check()

    async def at(self, moment: datetime) -> None:
        """Time passes, and the schedule looks."""
        self.turn(moment)
        await self._schedule.look()

    def turn(self, moment: datetime) -> None:
        """Time passes, and nobody looks."""
        self._now = max(self._now, stamp_of(moment))

    async def _ask(self, request: requests.AnyRequest) -> Any:
        return await self.market.operations.perform(request)

    # What members and operators do

    async def trade(self, count: int) -> None:
        """So many orders around the marks, in anything that takes them."""
        desk, draw = self.market.desk, self._random
        open_now = [i for i in desk.instruments.by_id.values() if i.state in _OPEN]
        for _ in range(count):
            listed = draw.choice(open_now)
            self._key += 1
            command = Command(
                kind=CommandKind.ENTER, instrument=listed.id, account=draw.choice(ACCOUNTS),
                side=draw.choice((Side.BUY, Side.SELL)), quantity=draw.randint(1, 9),
                tif=draw.choice((TimeInForce.GTC, TimeInForce.DAY)),
                price=self._middle(listed) + draw.randint(-2, 2), key_lo=self._key,
            )  # fmt: skip
            record = COMMAND.pack(*(getattr(command, name) for name in COMMAND_FIELDS))
            self.market.sequencer.submit(SOURCE, record)
        await self._rest()

    def _middle(self, listed: Instrument) -> int:
        mark = self.market.desk.instruments.mark(listed)
        return mark // listed.tick_scale if not listed.legs else mark // 1_000

    async def _rest(self) -> None:
        sequencer, desk = self.market.sequencer, self.market.desk
        while sequencer.queued or desk.sequence < sequencer.sequence:
            await asyncio.sleep(0)

    async def _list_months(self) -> None:
        """The spreads of H100's months that are not listed yet, with implied prices."""
        codes = self.market.desk.instruments.by_code
        living = {code for code, one in codes.items() if one.state != TradingState.EXPIRED}
        for one in registry.load().combinations(self.next):
            wanted = one.kind == "spread" and one.product == "H100" and one.code not in codes
            if wanted and {leg.code for leg in one.legs} <= living:
                await self._ask(requests.ListContract(code=one.code))
                await self._ask(requests.SetImplied(code=one.code))

    async def _fix(self) -> None:
        """Every index's fixings of the days that are over, a few of them withheld."""
        while end_ns(self._fixed) <= self._now:
            for index, level in INDICES.items():
                price = "" if self._random.random() < 0.03 else level
                await self._ask(
                    requests.RecordFixing(
                        index=index, date=number_of(self._fixed), price=price,
                        state="PUBLISHED" if price else "WITHHELD",
                        reason="" if price else "PROVIDERS",
                        inputs_hash="ab" * 32, tape_hash="cd" * 32,
                    )
                )  # fmt: skip
            self._fixed += timedelta(days=1)

    async def _expire(self) -> None:
        """What had its last day and has its fixings."""
        desk = self.market.desk
        for code, terms in desk.terms.items():
            over = Month.parse(terms.expiry).last_day < self._fixed
            if over and desk.instruments.by_code[code].state != TradingState.EXPIRED:
                await self._ask(requests.Expire(code=code))

    # Restarts

    async def kill(self) -> None:
        """End the market where it stands: nothing is closed in order."""
        market = self.market
        assert market._sequencing is not None, "started"
        parts = [*market._tasks, market._sequencing]
        for part in parts:
            part.cancel()
        market.sequencer.abandon()
        await asyncio.gather(*parts, return_exceptions=True)
        market._booking.shutdown()
        market.clearing.close()

    def snapshot(self) -> None:
        """Take one, while nobody serves or beside who does."""
        shadow = Standby(self.folder, Engine())
        shadow.catch_up()
        shadow.write(prove=Engine())

    # What must hold

    async def check(self) -> None:
        """Engine, clearing and the stream added up agree, and what is listed is what should be."""
        market = self.market
        await market.operations.cleared()
        clearing, engine = market.clearing, market.engine
        engine.check()
        states = [one.state for one in market.desk.instruments.by_id.values()]
        living = len(states) - states.count(TradingState.EXPIRED)
        assert engine.counts()["positions"] <= living * len(ACCOUNTS)
        assert clearing.is_balanced() and not clearing.divergences, clearing.divergences
        self._book.read(market)
        for account in (0, *ACCOUNTS):
            cash = self._book.cash[account]
            assert (int(engine.account(account)["cash"]), clearing.cash(account)) == (cash, cash)
        for listed in market.desk.instruments.by_id.values():
            if not listed.legs:
                self._compare(listed)
        self._judge_listing()
        self._tell()

    def _compare(self, listed: Instrument) -> None:
        held = [self._book.nets[account, listed.id] for account in ACCOUNTS]
        engine, clearing = self.market.engine, self.market.clearing
        assert sum(held) == 0 and (listed.state != TradingState.EXPIRED or not any(held))
        assert [int(engine.position(a, listed.id)["net"]) for a in ACCOUNTS] == held, listed.code
        assert [clearing.net(a, listed.id) for a in ACCOUNTS] == held, listed.code

    def _judge_listing(self) -> None:
        desk, day = self.market.desk, wishes.as_date(self.market.desk.business_date)
        codes = desk.instruments.by_code
        assert {terms.code for terms in registry.load().opening(day)} <= codes.keys()
        for code, listed in codes.items():
            assert int(self.market.engine.instrument(listed.id)["state"]) == listed.state, code
            terms = desk.terms.get(code) or desk.combinations[code]
            gone = listed.state == TradingState.EXPIRED
            assert listed.state == TradingState.CLOSED or gone, (code, listed.state)
            assert not gone or terms.last_trading_day <= day, code

    def _tell(self) -> None:
        """Keep the statements since the last evening: each goes on where the one before ended."""
        today = wishes.as_date(self.market.desk.business_date)
        for day in self.days.business_days(self._told + timedelta(days=1), today):
            for account in (0, *ACCOUNTS):
                told = self.market.clearing.statement(account, number_of(day))
                before = self.statements.get((account, number_of(self._told)))
                assert before is None or told.opening == before[-1], (account, day)
                lines = [getattr(told, line) for line in LINES]
                self.statements[account, number_of(day)] = lines
            self._told = day

    def retold(self, clearing: Clearing) -> None:
        """Every statement of every day is what it was."""
        for (account, number), lines in self.statements.items():
            told = clearing.statement(account, number)
            assert [getattr(told, line) for line in LINES] == lines, (account, number)

    async def end(self) -> None:
        """Stop; the log alone gives the same state, and the same books, byte for byte."""
        market = self.market
        await market.operations.cleared()
        self.retold(market.clearing)
        books, state = market.clearing.ledger_hash, digest(market.engine.state_bytes())
        again = Clearing.anew(self.folder / f"again-{LEDGER_NAME}")
        again.rebuild(market.tape.read(*START))
        again.audit()
        assert again.ledger_hash == books
        self.retold(again)
        again.close()
        await market.stop()
        replayed = replay(self.folder, Engine)
        assert (replayed.divergence, replayed.state_hash) == (None, state)


def forget(folder: Path, *names: str) -> None:
    """Delete what a start can make again: ``ledger.db``, ``snapshots``, ``tape``."""
    for name in names:
        for path in folder.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def moment(text: str) -> datetime:
    """A time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
