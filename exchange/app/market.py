"""The market: everything constructed, started and stopped in one place.

One event loop runs the sequencer, the desk and the gateway. Clearing books in a thread of its own
and the sequencer never waits for it; a clearing house that lags or disagrees makes the market
cancel-only instead.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from contracts import registry
from exchange.app import admin, wishes
from exchange.app.desk import Desk
from exchange.app.operations import Operations
from exchange.clearing import Clearing
from exchange.engine import Engine
from exchange.gateway.auth import Keys, create_key
from exchange.gateway.hub import Hub
from exchange.gateway.operator import add_route
from exchange.gateway.server import Gateway
from exchange.journal.errors import NoSuchPosition
from exchange.journal.frame import EXCHANGE_ID_BYTES
from exchange.journal.head import read_head
from exchange.messages import HOUSE_ACCOUNT, Mode
from exchange.sequencer import Closed, QueueFull, Sequencer

LEDGER_NAME: Final = "ledger.db"
EXCHANGE_ID_NAME: Final = "exchange.id"
ADMIN_KEY_NAME: Final = "admin.key"
CLEARING_LAG_COMMANDS_MAX: Final = 500_000  # further behind, and the market is cancel-only
CLEARING_FRAMES: Final = 512  # of one transaction of the ledger
CLEARING_PAUSE_SECONDS: Final = 0.02  # gathers frames, so that the ledger's syncs stay few
POLL_SECONDS: Final = 0.001
WATCH_SECONDS: Final = 1.0
CHECKPOINT_SECONDS: Final = 30.0

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)


class Addresses(msgspec.Struct, frozen=True):
    """Where a serving market is reached."""

    ws: str
    http: str
    admin: str
    data: str
    admin_key: str


def exchange_id(directory: Path) -> bytes:
    """The identity of the exchange whose log is in ``directory``; made at its first start."""
    path = directory / EXCHANGE_ID_NAME
    try:
        return bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        directory.mkdir(parents=True, exist_ok=True)
        made = secrets.token_bytes(EXCHANGE_ID_BYTES)
        path.write_text(made.hex() + "\n")
        return made


def admin_key(directory: Path) -> Path:
    """The file with the operator's own key, of mode 0600; made at the first serve."""
    path = directory / ADMIN_KEY_NAME
    if not path.exists():
        key_id, secret = create_key(directory, HOUSE_ACCOUNT, "admin")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:
            file.write(msgspec.json.encode({"key_id": key_id, "secret": secret}) + b"\n")
    return path


class Market:
    """A running market. ``start`` and ``listen`` make one, ``stop`` ends it.

    Invariant: whatever a consumer here (desk, gateway, clearing) knows, it read from the released
    stream.
    """

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], int],
        progress: Progress | None,
        sequencing: dict[str, Any],
    ) -> None:
        """Take over what is on disk; ``start`` is the way to get a running market."""
        self.directory = directory
        self._clock = clock
        self.engine = Engine()
        self.sequencer = Sequencer.open(
            directory,
            self.engine,
            clock=clock,
            spec_hash=registry.load().spec_hash,
            exchange_id=exchange_id(directory),
            progress=progress,
            **sequencing,
        )
        self.tape = self.sequencer.tape
        self.clearing = self._open_clearing()
        self.desk = Desk(self.sequencer.submit, self.tape)
        self.operations = Operations(
            self.desk,
            self.clearing,
            directory=directory,
            key_revoked=lambda: self.hub.drop_revoked(),
            today=self._today,
        )
        self.hub = Hub(
            self.sequencer.submit,
            self.tape,
            Keys(directory),
            queue_full=(QueueFull, Closed),
            no_such_position=NoSuchPosition,
            now_ms=lambda: clock() // 1_000_000,
        )
        self.gateway: Gateway | None = None
        self._booking = ThreadPoolExecutor(1, thread_name_prefix="clearing")
        self._tasks: list[asyncio.Task[None]] = []
        self._sequencing: asyncio.Task[None] | None = None
        self._exits = contextlib.AsyncExitStack()

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        clock: Callable[[], int] = time.time_ns,
        progress: Progress | None = None,
        **sequencing: Any,
    ) -> Self:
        """Open a directory, or make one, and have it ready to trade; nothing listens yet.

        ``progress`` is called with (bytes done, bytes in all) while the log is replayed;
        ``sequencing`` are options of ``Sequencer.open``, for a simulation.
        Raises the journal's errors: DirectoryLocked, DamagedLog, NewerVersion, Diverged.
        """
        market = cls(directory, clock, progress, sequencing)
        market._sequencing = asyncio.create_task(market.sequencer.run(), name="sequencer")
        found = market.sequencer.recovered.last_sequence
        upto = found + 1 if found else 0  # after a restart, RECOVERED and the halts it brings
        ready = asyncio.Event()
        market._run(market.desk.run(upto, ready), "desk")
        market._run(market._clear(), "clearing")
        try:
            await market._while_running(ready.wait())
            await market._while_running(market.operations.prepare())
        except BaseException:
            await market.stop()
            raise
        market._run(market._watch(), "watch")
        return market

    async def listen(self, host: str, port: int) -> Addresses:
        """Serve clients on a TCP port (0: a free one) and operators on the admin socket."""
        key = admin_key(self.directory)
        self.gateway = Gateway(self.hub)
        add_route(self.gateway.app, self.hub.keys, self.hub.now_ms, self._answer_operator)
        self._run(self.gateway.run(), "gateway")
        while self.hub.sequence < self.tape.last[1]:
            await self._while_running(asyncio.sleep(POLL_SECONDS))
        port = await self.gateway.start(host, port)
        socket = await self._exits.enter_async_context(
            admin.serving(self.directory, self.operations)
        )
        return Addresses(
            ws=f"ws://{host}:{port}/ws",
            http=f"http://{host}:{port}/api/v1",
            admin=str(socket),
            data=str(self.directory),
            admin_key=str(key),
        )

    async def failed(self) -> None:
        """Wait until a part fails, and raise what it raised; ends when the market is stopped."""
        done, _ = await asyncio.wait(self._parts, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self) -> str:
        """Close every connection, finish what is queued, and return the final state's hash.

        Hex; empty if the log could not be closed in order.
        """
        await self._exits.aclose()
        if self.gateway is not None:
            await self.gateway.close()
        for task in self._tasks:
            if task.get_name() == "watch":
                task.cancel()
        try:
            await self.sequencer.close()
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._booking.shutdown()
            self.clearing.close()
        head = read_head(self.directory)
        return head.state_hash if head is not None else ""

    @property
    def _parts(self) -> list[asyncio.Task[None]]:
        assert self._sequencing is not None, "started"
        return [self._sequencing, *self._tasks]

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _while_running(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for ``work``, or raise the failure of a part that keeps it from ending."""
        task = asyncio.ensure_future(work)
        await asyncio.wait([task, *self._parts], return_when=asyncio.FIRST_COMPLETED)
        for part in self._parts:
            if part.done():
                task.cancel()
                part.result()
        await task

    async def _answer_operator(self, body: bytes) -> bytes:
        return msgspec.json.encode(await admin.answer_line(body, self.operations))

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock() // 1_000_000_000, UTC).date()

    # Clearing

    def _open_clearing(self) -> Clearing:
        """Open the ledger; one that is ahead of the log or of another log is rebuilt from it."""
        clearing = Clearing.open(self.directory / LEDGER_NAME)
        try:
            next(self.tape.read(*clearing.position), None)
        except NoSuchPosition as error:
            _log.warning("the ledger does not follow this log and is rebuilt: %s", error)
            clearing.rebuild(self.tape.read(0, 0, 0))
        return clearing

    async def _clear(self) -> None:
        """Have clearing book what is released, in its own thread, until the stream ends."""
        loop = asyncio.get_running_loop()
        async for released in self.tape.follow(self.clearing.position):
            while self.clearing.position[1] < released.last_sequence:
                await loop.run_in_executor(self._booking, self._book)
                await asyncio.sleep(CLEARING_PAUSE_SECONDS)

    def _book(self) -> None:
        following = self.tape.read(*self.clearing.position)
        self.clearing.apply(list(itertools.islice(following, CLEARING_FRAMES)))

    async def _watch(self) -> None:
        """Take checkpoints, and make the market cancel-only if clearing lags or disagrees."""
        checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
        compared = 0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._judge_clearing()
                if time.monotonic() >= checkpoint_due and self.desk.sequence > compared:
                    await self.operations.checkpoint()
                    compared = self.desk.sequence
                    checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
            except (QueueFull, TimeoutError) as error:
                _log.warning("the market is too busy to be watched, trying again: %s", error)

    async def _judge_clearing(self) -> None:
        lag = self.tape.last[1] - self.clearing.position[1]
        if lag > CLEARING_LAG_COMMANDS_MAX:
            await self._cancel_only(f"clearing is {lag} commands behind")
        elif self.clearing.divergences:
            await self._cancel_only(f"clearing differs: {self.clearing.divergences[0]}")

    async def _cancel_only(self, why: str) -> None:
        if self.desk.mode != Mode.CANCEL_ONLY:
            _log.error("the market is cancel-only: %s", why)
            await self.desk.perform([wishes.set_mode(Mode.CANCEL_ONLY, why)])
