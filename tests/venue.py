"""A small market for the gateway's tests: the real engine, sequencer, tape and hub, no sockets."""

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import astuple

from exchange.app.switches import Switches
from exchange.app.trial import Trial
from exchange.engine import Engine
from exchange.gateway import auth
from exchange.gateway.deadlines import Deadlines
from exchange.gateway.hub import Hub
from exchange.gateway.session import JSON, MSGPACK, Session
from exchange.journal.errors import NoSuchPosition
from exchange.messages import (
    COMMAND,
    Command,
    CommandFlag,
    CommandKind,
    Side,
    TimeInForce,
    TradingState,
    wire,
)
from exchange.messages.access import Scope
from exchange.sequencer import Closed, QueueFull, Sequencer

CODE: Final = "H100Z26"
OTHER: Final = "A100Z26"
HOURS: Final = 744
TICK_SCALE: Final = 1_000
LOW, HIGH, MARK = 2_000, 3_300, 2_650_000  # ticks, ticks, clearing units
DAY: Final = 20261120
LOTS_MAX: Final = 1_000
LOT_STEPS: Final = (1, 5)
START_NS: Final = 1_800_000_000_000_000_000
RICH, POOR, THIRD = 1, 2, 3

_responses = msgspec.json.Decoder(list[wire.AnyResponse]).decode
_responses_msgpack = msgspec.msgpack.Decoder(list[wire.AnyResponse]).decode


def listing(code: str) -> str:
    """The text of an instrument's listing."""
    data = wire.InstrumentData(
        code=code,
        product=code[:4],
        expiry="2026-12",
        multiplier=HOURS,
        tick="0.001",
        decimals=3,
    )
    return msgspec.json.encode(data).decode()


def opening() -> list[tuple[Command, str | None]]:
    """The commands that make the market: two instruments, three accounts, an open day."""
    wishes: list[tuple[Command, str | None]] = []
    for number, code in enumerate((CODE, OTHER)):
        listed = Command(
            kind=CommandKind.LIST, instrument=number, price=MARK, quantity=HOURS,
            session=TICK_SCALE, account=1, operator=LOT_STEPS[number],
            target_lo=LOW, target_hi=HIGH,
        )  # fmt: skip
        wishes.append((listed, listing(code)))
        risk = Command(
            kind=CommandKind.SET_RISK, instrument=number, price=150_000_000, quantity=20_000,
            session=LOTS_MAX, target_lo=150_000, target_hi=300_000,
        )  # fmt: skip
        wishes.append((risk, None))
    for account in (RICH, POOR, THIRD):
        wishes.append((open_account(account), None))
        cash = 100_000_000_000_000 if account != POOR else 2_000_000_000
        deposit = Command(
            kind=CommandKind.DEPOSIT, account=account, price=cash, key_lo=account, key_hi=7
        )
        wishes.append((deposit, None))
    wishes.append((Command(kind=CommandKind.OPEN_DAY, quantity=DAY), None))
    wishes += [(state(number, TradingState.CONTINUOUS), None) for number in (0, 1)]
    return wishes


def open_account(account: int, *, burst: int = 100_000, interval: int = 1_000) -> Command:
    """An account of its own member and self-trade group."""
    return Command(
        kind=CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account,
        tif=1, quantity=10_000, target_lo=interval, target_hi=burst,
    )  # fmt: skip


def state(instrument: int, wished: TradingState) -> Command:
    return Command(kind=CommandKind.SET_STATE, instrument=instrument, tif=wished)


class Venue:
    """The market and the gateway's hub on it, with a clock that a test moves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_ns = START_NS
        self.engine = Engine()
        self.sequencer = Sequencer.open(
            directory,
            self.engine,
            clock=lambda: self.now_ns,
            spec_hash=bytes(32),
            exchange_id=bytes(16),
        )
        self.full = False  # a test's wish that the queue have no room
        self.submitted = self.sequencer.durable_upto
        if self.submitted:
            self.submitted += 1  # RECOVERED
        self.keys = auth.Keys(directory)
        self.hub = Hub(
            self.submit,
            self.sequencer.tape,
            self.keys,
            queue_full=(QueueFull, Closed),
            no_such_position=NoSuchPosition,
            now_ms=lambda: self.now_ns // 1_000_000,
            what_if=Trial(self.engine, self.sequencer, lambda: self.now_ns),
        )
        self.switches = Switches(self.submit, Deadlines(), lambda: self.now_ns)
        self.nonce = 0
        self._secrets: dict[tuple[int, str], tuple[str, str]] = {}

    def submit(
        self, source: int, record: bytes, *, ingress_ns: int = 0, text: str | None = None
    ) -> None:
        if self.full:
            raise QueueFull(1, 1)
        self.submitted += 1
        self.sequencer.submit(source, record, ingress_ns=ingress_ns, text=text)

    async def follow(self) -> None:
        async for released in self.hub.follow():
            self.hub.release(released)
            self.switches.take(released)

    async def settle(self) -> None:
        """Wait until all that was submitted is released and reported."""
        async with asyncio.timeout(10):
            while self.hub.sequence < self.submitted:
                await asyncio.sleep(0)

    async def order(self, command: Command, text: str | None = None) -> None:
        """Have an operator's command done."""
        self.submit(0, COMMAND.pack(*astuple(command)), text=text)
        await self.settle()

    def hash(self) -> bytes:
        """The state hash, without what a reject may spend."""
        return hashlib.blake2b(self.engine.state_bytes(False), digest_size=32).digest()

    # Connections

    def connect(self, codec: int = JSON) -> Session:
        return self.hub.connect(codec, lambda: None)

    async def say(self, session: Session, *requests: Any) -> list[wire.AnyResponse]:
        """Send frames (a dict as an object, str and bytes as they are); return the answers."""
        for request in requests:
            data = request
            if isinstance(request, dict):
                packed = session.codec == MSGPACK
                data = msgspec.msgpack.encode(request) if packed else json.dumps(request)
            session.receive(data, 0)
        await self.settle()
        return self.heard(session)

    def heard(self, session: Session) -> list[wire.AnyResponse]:
        """What waits for a connection."""
        frame = session.take()
        if not frame:
            return []
        return _responses_msgpack(frame) if session.codec == MSGPACK else _responses(frame)

    def logon(self, account: int, scope: Scope = "trade", **fields: Any) -> dict[str, Any]:
        """A signed logon of the account's key of that scope, made when first asked for."""
        if (account, scope) not in self._secrets:
            key = auth.create_key(self.directory, account, scope)
            self._secrets[account, scope] = key
        key_id, secret = self._secrets[account, scope]
        self.nonce += 1
        logon = {
            "op": "logon",
            "key_id": key_id,
            "timestamp_ms": self.now_ns // 1_000_000,
            "nonce": self.nonce,
            **fields,
        }
        text = wire.signed_text(
            logon["timestamp_ms"], logon["nonce"], key_id, logon.get("resume_session", 0)
        )
        return {"signature": auth.sign(secret, text), **logon}

    async def trader(self, account: int, codec: int = JSON, **fields: Any) -> Session:
        """A connection that has logged on with a trading key."""
        session = self.connect(codec)
        answers = await self.say(session, self.logon(account, **fields))
        assert isinstance(answers[-1], wire.LoggedOn), answers
        return session


def enter(client_order_id: str, **fields: Any) -> dict[str, Any]:
    """A buy of ten lots at 2.650, but for what is said otherwise."""
    return {
        "op": "enter",
        "client_order_id": client_order_id,
        "instrument": CODE,
        "side": "buy",
        "quantity": "10",
        "price": "2.650",
        **fields,
    }


async def reject(venue: Venue, session: Any, request: Any) -> wire.Rejected:
    """Send a request, expect one reject and no change."""
    before = venue.hash()
    (told,) = await venue.say(session, request)
    assert isinstance(told, wire.Rejected), told
    assert venue.hash() == before
    return told


def flow(seed: int, count: int) -> Iterator[Command]:
    """Random orders, cancels, reductions, replacements and moving limits."""
    chance = random.Random(seed)
    for key in range(1, count + 1):
        kind = chance.choices(
            [CommandKind.ENTER, CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE,
             CommandKind.SET_LIMITS], [60, 12, 10, 17, 1],
        )[0]  # fmt: skip
        number = chance.randrange(2)
        if kind == CommandKind.SET_LIMITS:
            low, high = chance.choice([(2_000, 3_300), (2_645, 2_655)])
            yield Command(kind=kind, instrument=number, target_lo=low, target_hi=high)
            continue
        yield Command(
            kind=kind,
            side=chance.randrange(2) if kind == CommandKind.ENTER else Side.UNSTATED,
            tif=chance.choice([TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK])
            if kind == CommandKind.ENTER
            else 0,
            flags=0 if kind == CommandKind.ENTER else CommandFlag.BY_CLIENT_ID,
            instrument=number,
            account=chance.choice([RICH, RICH, THIRD]),
            price=chance.randrange(2_640, 2_661),
            quantity=chance.randrange(1, 6) * LOT_STEPS[number],
            stp=chance.randrange(4) if kind == CommandKind.ENTER else 0,
            target_lo=0
            if kind == CommandKind.ENTER
            else chance.randrange(max(1, key - 40), key + 1),
            key_lo=key,
        )


@asynccontextmanager
async def running(directory: Path, *, fresh: bool = True) -> AsyncIterator[Venue]:
    """A venue whose sequencer runs; ``fresh`` opens the market first."""
    venue = Venue(directory)
    tasks = [asyncio.create_task(venue.sequencer.run()), asyncio.create_task(venue.follow())]
    try:
        if fresh:
            for command, text in opening():
                venue.submit(0, COMMAND.pack(*astuple(command)), text=text)
        await venue.settle()
        yield venue
    finally:
        await venue.sequencer.close()
        await asyncio.gather(*tasks)


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """An open market of a test's own."""
    async with running(tmp_path) as opened:
        yield opened
