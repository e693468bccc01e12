"""A clearing house behind a real engine, for the tests of deliveries, defaults and members."""

import json
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import msgspec
from attested import key_of, roster, rules, site
from clearing_market import HIGH, LOW, TestMarket, signed

from contracts import grades, registry
from contracts.grades import table
from contracts.spec import Instrument
from exchange.app import wishes
from exchange.app.reads import Books
from exchange.clearing import Clearing
from exchange.clearing.delivery.records import FactorsRecorded
from exchange.clearing.matters import ACCEPTED, Due, Dues
from exchange.clearing.records import Record, write
from exchange.clearing.statements import Statement
from exchange.marketdata.instruments import micros_text
from exchange.messages import (
    EVENT,
    Command,
    CommandKind,
    EventKind,
    Side,
    TimeInForce,
    TradingState,
)

FACTOR = 9_620
RATE = 150_000_000  # micro-dollars of margin a lot
PRICE = 2_500_000  # first mark, clearing price


def factors(version: int = 1, grade: str = "H100-NODE", **changes: Any) -> FactorsRecorded:
    """A signed table of one site, alpha/one."""
    terms = grades.load().grade(grade)
    made = table.make(roster(site("alpha"), grade=grade), [], terms, rules())
    made = msgspec.structs.replace(made, **changes)
    row = msgspec.structs.replace(made.rows[0], factor_e4=FACTOR, fixed_e4=9_750)
    published = table.sign(msgspec.structs.replace(made, rows=(row,), version=version), key_of("x"))
    return FactorsRecorded(
        grade=published.grade, expiry=published.expiry, digest=published.digest,
        table=msgspec.json.encode(published).decode(),
    )  # fmt: skip


@dataclass
class House:
    """Every command goes to the engine, every event to clearing; dues go back as commands."""

    clearing: Clearing
    market: TestMarket = field(default_factory=TestMarket)

    def __post_init__(self) -> None:
        self.clearing._store._connection.execute("pragma synchronous = off")  # a test may lose it

    def send(self, *commands: Command, texts: list[tuple[int, str]] | None = None) -> bytes:
        """One batch; AssertionError if the engine refuses any of it."""
        events = self.market.apply(*commands, texts=texts or [])
        self.book()
        for row in EVENT.iter_unpack(events):
            assert row[2] != EventKind.REJECTED, f"rejected {row[4]}: {commands}"
        return events

    def book(self) -> None:
        """Have clearing book the newest batch."""
        self.clearing.apply(self.market.frames[-1:])

    def reopen(self) -> None:
        """Close the store and open it again: nothing that clearing knows was in memory alone."""
        path = self.clearing._store.path
        self.clearing.close()
        self.clearing = Clearing.open(path)
        self.__post_init__()

    def at(self, stamp: int) -> None:
        """Let log time pass to ``stamp`` at least, and be seen."""
        self.market.stamp = max(self.market.stamp, stamp - 1_000_000)
        self.send(Command(kind=CommandKind.ADVANCE_TIME))

    def record(self, record: Record, account: int = 0) -> tuple[str, dict[str, Any]]:
        """Record it; the facts of its ruling, and their stage, or else the outcome."""
        command = Command(kind=CommandKind.RECORD, account=account, key_lo=self.market.key())
        self.send(command, texts=[(0, write(record))])
        operation = str(type(record).__struct_config__.tag)
        found = self.rulings(operation, newest=1)
        assert found, f"nobody ruled on {record}"
        _, outcome, facts = found[-1]
        return (facts.get("stage", outcome) if outcome == ACCEPTED else outcome), facts

    def rulings(self, operation: str, newest: int = -1) -> list[tuple[str, str, dict[str, Any]]]:
        """(operation, outcome, facts) of the rulings on an operation, oldest first."""
        query = (
            f"select * from rulings where operation = '{operation}'"
            f" order by number desc, line desc limit {newest}"
        )
        rows = list(self.clearing._store.rows(query))
        return [(r["operation"], r["outcome"], json.loads(r["facts"])) for r in reversed(rows)]

    def dues(self) -> list[Due]:
        """What clearing asks for now."""
        return list(self.clearing._state.matters.get(Dues).open.values())

    def pay(self, *, but: tuple[str, ...] = ()) -> None:
        """Carry out all dues, but those whose id begins with one of ``but``."""
        while todo := [due for due in self.dues() if not due.id.startswith(but or ("\0",))]:
            for due in todo:
                self.send(wishes.due(due).command)

    def pay_what_is_there(self) -> None:
        """Try every due once; one that the engine refuses stays open."""
        for due in self.dues():
            self.market.apply(wishes.due(due).command)
            self.book()

    def open(self, account: int, member: int, kind: int, deposit: int) -> None:
        """Open an account and pay it in."""
        opened = Command(
            kind=CommandKind.OPEN_ACCOUNT, account=account, instrument=member, session=account,
            tif=kind, quantity=1_000, target_hi=1,
        )  # fmt: skip
        paid = [self.market.money(CommandKind.DEPOSIT, account, deposit)] if deposit else []
        self.send(opened, *paid)

    def list(self, number: int, code: str, on: date) -> Instrument:
        """List a contract of the registry, with margin and open for trading; its terms."""
        terms = registry.load().instrument(code, on)
        self.send(
            Command(
                kind=CommandKind.LIST, instrument=number, price=PRICE, quantity=terms.multiplier,
                session=terms.tick_scale, account=1, operator=1, target_lo=signed(LOW),
                target_hi=signed(HIGH),
            ),
            Command(
                kind=CommandKind.SET_RISK, instrument=number, price=RATE, quantity=100_000,
                session=10_000,
            ),
            Command(
                kind=CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS
            ),
            texts=[(0, terms.to_json())],
        )  # fmt: skip
        return terms

    def trade(self, buyer: int, seller: int, lots: int, ticks: int, number: int = 0) -> None:
        """``seller`` rests, ``buyer`` takes."""
        self.send(self.market.enter(seller, Side.SELL, ticks, lots, instrument=number))
        self.send(
            self.market.enter(buyer, Side.BUY, ticks, lots, instrument=number, tif=TimeInForce.IOC)
        )

    def day(self, number: int) -> None:
        """Open a business date."""
        self.send(self.market.open_day(number))

    def close(self, number: int) -> None:
        """Close it."""
        self.send(Command(kind=CommandKind.CLOSE_DAY, quantity=number))

    def statement(self, account: int, date: int | None = None) -> Statement:
        """An account's statement, of which HTTP says the same under the same names."""
        found = self.clearing.statement(account, date)
        said = Books(self.clearing, self.clearing._store.path).statement(account, date)
        told, known = msgspec.to_builtins(said), asdict(found)
        assert told.pop("type") == "statement"
        for holding in known["holdings"]:
            holding["instrument"] = holding.pop("code")  # as on the wire
        same(told, known)
        return found

    def agree(self) -> None:
        """Engine and clearing hold the same, and every ledger balances."""
        self.send(Command(kind=CommandKind.CHECKPOINT))
        assert self.clearing.divergences == ()
        assert self.clearing.is_balanced()
        self.clearing._state.book.check()
        for account in self.clearing._state.members:
            assert self.clearing.cash(account) == self.market.engine.account(account)["cash"]


def same(told: Any, known: Any) -> None:
    """AssertionError unless plain data are the same; figures may be told as text, in dollars."""
    if isinstance(known, dict):
        assert told.keys() == known.keys()
        for name, value in known.items():
            same(told[name], value)
    elif isinstance(known, list):
        for one, other in zip(told, known, strict=True):
            same(one, other)
    elif told != known:
        assert isinstance(known, int) and told in (str(known), micros_text(known)), (told, known)
