"""The end of a day at full size: settle, post and margin a million positions.

A market is built by trades in a real engine. Then every instrument is settled, clearing books the
variation of every position in durable transactions, and the margin of every account is computed. At
the end raw SQLite writes the same postings and positions for comparison; it comes last so that its
memory is not counted as the market's.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msgspec.structs import astuple

from benches.rows import Row, peak_mib, row
from contracts import symbol
from contracts.calendar import Month
from exchange.app.wishes import adopt_margin
from exchange.clearing import Clearing
from exchange.clearing.margin.parameters import Band, MarginParameters, ProductMargin
from exchange.cli.output import progress
from exchange.engine import Engine
from exchange.journal.tape import Released
from exchange.messages import (
    COMMAND,
    Command,
    CommandKind,
    Limit,
    Side,
    TimeInForce,
    TradingState,
)

DATE: Final = 20261210
MARK: Final = 2_500_000
SCALE: Final = 1_000
LOTS: Final = 3
DEPOSIT: Final = 10**14
PRODUCTS: Final = ("A100", "B200", "GB200", "H100", "H200", "MI300")
_LOW: Final = 1_000
_HIGH: Final = 4_000


@dataclass
class Feed:
    """An engine, and clearing behind it."""

    clearing: Clearing
    engine: Engine = field(default_factory=Engine)
    sequence: int = 0
    keys: int = 0

    def frame(self, *commands: Command, texts: list[tuple[int, str]] | None = None) -> Released:
        """Apply one batch to the engine; return what it releases."""
        first = self.sequence + 1
        self.sequence += len(commands)
        packed = b"".join(COMMAND.pack(*astuple(command)) for command in commands)
        stamp = 1_000_000_000 + self.sequence
        events = self.engine.apply(packed, first, stamp)
        told = [(first + place, text) for place, text in texts or []]
        return Released(1, first, len(commands), stamp, events, told)

    def key(self) -> int:
        self.keys += 1
        return self.keys


def codes_of(count: int) -> list[str]:
    """Return cash codes, by product and delivery month."""
    months = -(-count // len(PRODUCTS))
    first = Month(2026, 12)
    made = [symbol.code(p, first.plus(n)) for p in PRODUCTS for n in range(months)]
    return made[:count]


def parameters() -> MarginParameters:
    """Return margin parameters that cover every product."""
    products = tuple(
        ProductMargin(
            product=name, bands=(Band(0, 1_250), Band(6, 1_100)), floor_bp=1_000, spread_bp=400,
            delivery_bp=400, delivery_spread_bp=150, liquidity_bp=50, daily_volume=100_000,
            participation_percent=25,
        )
        for name in PRODUCTS
    )  # fmt: skip
    return MarginParameters(version=1, effective=DATE, inputs_hash="ab" * 32, products=products)


def opened(feed: Feed, accounts: int, codes: list[str]) -> Iterator[Released]:
    """Yield frames that open funded accounts, trading instruments, margin parameters and a day."""
    for low in range(1, accounts + 1, 1_000):
        commands = []
        for account in range(low, min(low + 1_000, accounts + 1)):
            commands += [
                Command(kind=CommandKind.OPEN_ACCOUNT, account=account, session=account,
                        instrument=account % int(Limit.MEMBERS), tif=1, quantity=1_000,
                        target_hi=1),
                Command(kind=CommandKind.DEPOSIT, account=account, price=DEPOSIT,
                        key_lo=feed.key()),
            ]  # fmt: skip
        yield feed.frame(*commands)
    for number, code in enumerate(codes):
        hours = symbol.parse_outright(code).expiry.hours
        yield feed.frame(
            Command(kind=CommandKind.LIST, instrument=number, price=MARK, quantity=hours,
                    session=SCALE, account=1, operator=1, target_lo=_LOW, target_hi=_HIGH),
            Command(kind=CommandKind.SET_RISK, instrument=number, price=1, quantity=1_000_000,
                    session=1_000),
            Command(kind=CommandKind.SET_STATE, instrument=number,
                    tif=TradingState.CONTINUOUS),
            texts=[(0, f'{{"code": "{code}"}}')],
        )  # fmt: skip
    wish = adopt_margin(parameters())
    yield feed.frame(wish.command, texts=[(0, wish.text)])
    yield feed.frame(Command(kind=CommandKind.OPEN_DAY, quantity=DATE))


def traded(feed: Feed, accounts: int, instruments: int) -> Iterator[Released]:
    """Yield frames in which every account trades every instrument once: odd ones sell, even ones
    buy."""
    for number in range(instruments):
        commands: list[Command] = []
        for seller in range(1, accounts, 2):
            price = 2_450 + (seller * 7 + number * 13) % 101
            order = {"instrument": number, "price": price, "quantity": LOTS}
            commands += [
                Command(kind=CommandKind.ENTER, side=Side.SELL, account=seller,
                        key_lo=feed.key(), **order),
                Command(kind=CommandKind.ENTER, side=Side.BUY, account=seller + 1,
                        tif=TimeInForce.IOC, key_lo=feed.key(), **order),
            ]  # fmt: skip
            if len(commands) >= 4_000:
                yield feed.frame(*commands)
                commands.clear()
        if commands:
            yield feed.frame(*commands)


def raw_seconds(folder: Path, ledger: Path) -> float:
    """Return the seconds of raw SQLite for the settlement's postings and positions, in a
    transaction."""
    source = sqlite3.connect(ledger)
    query = "select p.* from postings p join journal j using (number) where j.kind = 5"
    postings = source.execute(query).fetchall()
    positions = source.execute("select * from positions").fetchall()
    source.close()
    raw = sqlite3.connect(folder / "raw.db", isolation_level=None)
    raw.execute("pragma journal_mode = wal")
    raw.execute("pragma synchronous = full")
    raw.execute("create table postings (number integer, line integer, debit integer,"
                " credit integer, amount integer, primary key (number, line)) strict")  # fmt: skip
    raw.execute("create table positions (account integer, instrument integer, net integer,"
                " cost integer, primary key (account, instrument)) strict")  # fmt: skip
    started = time.perf_counter()
    raw.execute("begin immediate")
    raw.executemany("insert into postings values (?, ?, ?, ?, ?)", postings)
    raw.executemany("insert into positions values (?, ?, ?, ?)", positions)
    raw.execute("commit")
    took = time.perf_counter() - started
    raw.close()
    return took


def rows(accounts: int, instruments: int, disk: Path | None) -> Iterator[Row]:
    """Build the market, end its day, and yield the rows on speed and memory.

    Raises RuntimeError if clearing differs from the engine anywhere.
    """
    positions = accounts * instruments
    with tempfile.TemporaryDirectory(dir=disk) as name:
        folder = Path(name)
        feed = Feed(Clearing.open(folder / "ledger.db"))
        with progress("building") as bar:
            done = 0
            for frame in opened(feed, accounts, codes_of(instruments)):
                feed.clearing.apply([frame])
            for frame in traded(feed, accounts, instruments):
                feed.clearing.apply([frame])
                done += frame.count
                if bar is not None:
                    bar(done, positions, "trades")
        yield row("end_of_day.built", peak_mib(), "MiB peak")
        settle = engine = 0.0
        with progress("settling") as bar:
            for number in range(instruments):
                command = Command(kind=CommandKind.SETTLE, instrument=number, quantity=1,
                                  price=MARK + 1_234 * (number % 7))  # fmt: skip
                started = time.perf_counter()
                frame = feed.frame(command)
                engine += time.perf_counter() - started
                started = time.perf_counter()
                feed.clearing.apply([frame])
                settle += time.perf_counter() - started
                if bar is not None:
                    bar(number + 1, instruments, "instruments")
        feed.clearing.apply([feed.frame(Command(kind=CommandKind.CHECKPOINT))])
        if feed.clearing.divergences:
            raise RuntimeError(f"clearing differs: {feed.clearing.divergences[0]}")
        yield row("end_of_day.settled", peak_mib(), "MiB peak")
        with progress("margin") as bar:
            started = time.perf_counter()
            found = feed.clearing.margins(bar or (lambda done, total: None))
            margin = time.perf_counter() - started
        if len(found) != accounts:
            raise RuntimeError(f"{len(found)} requirements for {accounts} accounts")
        yield row("end_of_day.ended", peak_mib(), "MiB peak")
        raw, base = "end_of_day.raw_sqlite", positions / raw_seconds(folder, folder / "ledger.db")
        yield row(raw, base, "positions/s")
        whole = engine + settle + margin
        parts = {"engine": engine, "post": settle, "margin": margin, "whole": whole}
        for part, took in parts.items():
            yield row(f"end_of_day.{part}", positions / took, "positions/s", base, raw)
        feed.clearing.close()
