"""The market: everything is constructed, started and stopped here.

One event loop runs the sequencer, the desk and the gateway. Clearing books in a thread or process
of its own, and the sequencer never waits for it; if clearing lags or differs, the market becomes
cancel-only instead.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from contracts import registry
from exchange.app import (
    admin,
    asking,
    bookkeeping,
    figures,
    gateway_link,
    requests,
    standby,
    wishes,
)
from exchange.app.alarms import STALL_SECONDS_MAX, Alarms
from exchange.app.bookkeeping import LEDGER_NAME as LEDGER_NAME
from exchange.app.bookkeeping import STREAM_NAME
from exchange.app.capacity import Taken, taken
from exchange.app.desk import Desk
from exchange.app.door import Door, at
from exchange.app.front import POLL_SECONDS, Front, Inside
from exchange.app.gateways import Gateways
from exchange.app.identity import exchange_id
from exchange.app.operations import Operations
from exchange.app.rehearsal import Rehearsal
from exchange.app.schedule import Schedule
from exchange.app.settings import DEFAULTS, Settings
from exchange.app.switches import Switches
from exchange.app.trial import Trial
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.clearing.store import OtherVersion
from exchange.engine import Engine
from exchange.gateway.auth import Keys, create_key, find_key
from exchange.gateway.deadlines import Deadlines
from exchange.gateway.hub import Hub
from exchange.gateway.metrics import Metrics
from exchange.gateway.view import View
from exchange.journal import stream
from exchange.journal.errors import Diverged, JournalError, NoSuchPosition, NotReproduced
from exchange.journal.head import read_head
from exchange.journal.storage import LocalStorage, Storage, replace_file
from exchange.journal.syncer import Log, SyncThread
from exchange.journal.tapecheck import check_tape
from exchange.messages import HOUSE_ACCOUNT, Mode
from exchange.sequencer import Closed, QueueFull, Sequencer

ADMIN_KEY_NAME: Final = "admin.key"
NEEDED: Final = ("sequencer", "desk", "clearing")  # parts that a checkpoint needs
T = TypeVar("T")

Progress = Callable[[int, int], None]
_log = logging.getLogger(__name__)


class Addresses(msgspec.Struct, frozen=True):
    """The addresses of a serving market."""

    ws: str
    http: str
    admin: str
    data: str
    admin_key: str


class _OwnKey(msgspec.Struct):
    """The operator's key file."""

    key_id: str


def admin_key(directory: Path, now_ms: int) -> Path:
    """Return the file with the operator's own key, of mode 0600.

    It is created at the first serve, and again if its key is no longer valid at ``now_ms`` (since
    1970). A file that holds no key is left as it is, with a warning.
    """
    path = directory / ADMIN_KEY_NAME
    held = ""
    if path.exists():
        try:
            held = msgspec.json.decode(path.read_bytes(), type=_OwnKey).key_id
        except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
            _log.warning(
                "%s holds no key (%s): delete it, and the next serve makes it", path, error
            )
            return path
    if not held or find_key(directory, held, now_ms) is None:
        if held:
            _log.warning("key %r of %s is good no longer: another is made", held, path)
        key_id, secret = create_key(directory, HOUSE_ACCOUNT, "admin")
        own = msgspec.json.encode({"key_id": key_id, "secret": secret}) + b"\n"
        replace_file(path, own, 0o600)
    return path


def _sockets(settings: Settings) -> list[str]:
    """Return the names of the Unix sockets of a served market."""
    names, gateways = [asking.SOCKET_NAME], settings.serve.gateways
    if gateways:
        names += [gateway_link.SOCKET_NAME, gateway_link.OWN_NAME.format(gateways - 1)]
    if gateways or settings.serve.clearing == "process":
        names.append(STREAM_NAME)
    return names


def _told_once(before: str, error: Exception) -> str:
    """Log what keeps the watch from its work, unless that is ``before``; return it."""
    now = str(getattr(error, "reason", error))
    if now != before and isinstance(error, RequestRefused):
        _log.error("the intraday cycle stays due: %s", error)
    elif now != before:
        _log.warning("the market is too busy to be watched, trying again: %s", error)
    return now


class Within:
    """The market as the gateway in its own process sees it."""

    def __init__(self, market: "Market") -> None:
        self._market = market

    async def healthy(self) -> dict[str, bool]:
        """As ``Market.healthy``."""
        return self._market.healthy()

    async def ready(self) -> dict[str, bool]:
        """As ``Market.ready``."""
        return self._market.ready()

    async def metrics(self) -> bytes:
        """The market's figures in Prometheus' text format."""
        return self._market.metrics.text()

    async def perform(self, request: requests.AnyRequest, person: str) -> asking.Answer:
        """Perform an operator's request."""
        return await admin.answer(request, self._market.operations, person)


class Market:
    """A running market. ``start`` and ``listen`` start it, ``stop`` ends it.

    Invariant: whatever a consumer here (desk, gateway, clearing) knows, it has read from the
    released stream.
    """

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], int],
        progress: Progress | None,
        settings: Settings,
        sequencing: dict[str, Any],
    ) -> None:
        """Recover what is on disk; use ``start`` to get a running market."""
        self.directory = directory
        self._clock = clock
        self.settings = settings
        self.metrics = Metrics()
        self.balanced = True  # as of the last check of the ledger
        self.stopping = False
        self.engine = Engine()
        try:
            self.sequencer = Sequencer.open(
                directory,
                self.engine,
                clock=clock,
                spec_hash=registry.load().spec_hash,
                exchange_id=exchange_id(directory),
                progress=progress,
                heads=Path(settings.serve.heads) if settings.serve.heads else None,
                **{"syncer": self._timed_syncer, **sequencing},
            )
        except Diverged as diverged:
            raise NotReproduced(directory, diverged) from diverged
        self.tape = self.sequencer.tape
        self.alarms = Alarms(
            directory, self.sequencer, self.taken, lambda: self.operations.stubborn()
        )
        with contextlib.ExitStack() as unless_built:
            unless_built.callback(self.sequencer.abandon)
            view, self.clearing = self._recover(
                sequencing.get("storage") or LocalStorage(directory)
            )
            unless_built.callback(self.clearing.close)
            self._build(view)
            unless_built.pop_all()
        self._booking = ThreadPoolExecutor(1, thread_name_prefix="clearing")
        self._tasks: list[asyncio.Task[None]] = []
        self._told: set[asyncio.Task[None]] = set()  # parts whose end has been reported
        self._sequencing: asyncio.Task[None] | None = None
        self._exits = contextlib.AsyncExitStack()
        self._streaming: asyncio.Server | None = None

    def _build(self, view: View | None) -> None:
        """Create the consumers of the stream. Raises what opening the keys raises."""
        directory, clock, settings = self.directory, self._clock, self.settings
        self.desk = Desk(self.sequencer.submit_all, self.tape, view)
        deadlines = Deadlines() if view is None else view.deadlines
        self.switches = Switches(self.sequencer.submit, deadlines, clock)
        self.desk.watchers.append(self.switches.take)
        self.operations = Operations(
            self.desk,
            self.clearing,
            directory=directory,
            key_revoked=lambda: self.front.drop_revoked(),
            clock=self._clock,
            scheduled=settings.schedule.follow,
        )
        self.listening = False
        self._rehearsal = Rehearsal(directory)
        beside = self._rehearsal if settings.limits.previews_apart else None
        self.trial = Trial(self.engine, self.sequencer, clock, beside)
        self.front: Front
        if settings.serve.gateways:
            self.front = Gateways(self)
        else:
            self.hub = Hub(
                self.sequencer.submit,
                self.tape,
                Keys(directory),
                queue_full=(QueueFull, Closed),
                no_such_position=NoSuchPosition,
                now_ms=lambda: clock() // 1_000_000,
                view=view,
                what_if=self.trial,
            )
            self.front = Inside(self.hub, self.tape, self.metrics, self._open_door)

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        clock: Callable[[], int] = time.time_ns,
        progress: Progress | None = None,
        settings: Settings = DEFAULTS,
        serving: bool = True,
        **sequencing: Any,
    ) -> Self:
        """Open a directory, or create it, and prepare the market for trading; nothing listens yet.

        ``progress`` is called with (bytes done, bytes in all) while the log is replayed. Without
        ``serving`` no day but the first is opened. ``sequencing`` are options of
        ``Sequencer.open``, for simulations.

        Raises the journal's errors: DirectoryLocked, DamagedLog, NewerVersion, NotReproduced,
        DamagedTape; and BadExchangeId; if ``serving`` RequestRefused for a path too long for a
        socket.
        """
        names = _sockets(settings)
        if serving and not all(asking.fits_socket(directory / name) for name in names):
            raise RequestRefused(
                f"the path of {directory} is too long for its sockets: name it from nearer by, or"
                " take a shorter one"
            )
        market = cls(directory, clock, progress, settings, sequencing)
        if market._apart or settings.serve.gateways:
            try:
                market._streaming = await stream.serve(
                    market.tape, directory / STREAM_NAME, patient=not settings.serve.gateways
                )
            except BaseException:
                market.sequencer.abandon()
                raise
        market._sequencing = asyncio.create_task(market.sequencer.run(), name="sequencer")
        found = market.sequencer.recovered.last_sequence
        upto = found + 1 if found else 0  # after a restart, including RECOVERED and its halts
        ready = asyncio.Event()
        market._run(market.desk.run(upto, ready), "desk")
        market._run(market._clear(), "clearing")
        try:
            await market._while_running(ready.wait())
            await market._while_running(market.operations.prepare(serving=serving))
            if settings.schedule.follow:
                await market._follow_calendar(settings.schedule.settle)
        except BaseException:
            await market.stop()
            raise
        market._run(market._watch(), "watch")
        market._run(market.switches.run(), "switches")
        return market

    async def _follow_calendar(self, settles: bool) -> None:
        """Keep every instrument in the state of its session, now and from now on."""
        schedule = Schedule(self.desk, self.operations, self._clock, settles=settles)
        self._run(schedule.run(), "schedule")
        await self._while_running(schedule.looked.wait())

    async def listen(self, host: str, port: int) -> Addresses:
        """Serve clients on a TCP port (0: a free one) and operators on the admin socket."""
        key, front = admin_key(self.directory, self._clock() // 1_000_000), self.front
        front.prepare()
        self.listening = True
        self._run(front.run(), front.name)
        await self._while_running(front.caught_up())
        figures.add(self.metrics, self)
        port = await self._while_running(front.listen(host, port))
        socket = await self._exits.enter_async_context(
            admin.serving(self.directory, self.operations)
        )
        tls = "s" if self.settings.serve.tls_certificate else ""
        return Addresses(
            ws=f"ws{tls}://{at(host, port)}/ws",
            http=f"http{tls}://{at(host, port)}/api/v1",
            admin=str(socket),
            data=str(self.directory),
            admin_key=str(key),
        )

    async def failed(self) -> None:
        """Wait until a part fails, and raise its error; returns when the market is stopped."""
        await asyncio.wait(self._parts, return_when=asyncio.FIRST_EXCEPTION)
        for part in self._parts:  # in order: if several failed, the sequencer's error is the cause
            if part.done():
                self._tell(part)

    def healthy(self) -> dict[str, bool]:
        """Whether each part runs; if one does not, the process should be replaced."""
        return {part.get_name(): not part.done() for part in self._parts}

    def ready(self) -> dict[str, bool]:
        """Whether each condition for processing orders holds."""
        return {
            "running": all(self.healthy().values()),
            "staying": not self.stopping,
            "mode_normal": self.desk.mode == Mode.NORMAL,
            "clearing_near": self.clearing_lag <= self.settings.limits.clearing_lag_commands_max,
            "clearing_agrees": not self.clearing.divergences,
            "ledger_balanced": self.balanced,
            "disk_has_room": not self.sequencer.full,
            "disk_answers": self.sequencer.stalled_seconds < STALL_SECONDS_MAX,
        }

    def taken(self) -> dict[str, Taken]:
        """The use of the engine's capacities, by name."""
        return taken(self.engine, self.desk)

    @property
    def clearing_lag(self) -> int:
        """Number of commands released and not yet booked."""
        return max(0, self.tape.last[1] - self.clearing.position[1])

    async def stop(self) -> str:
        """Stop in order and return the hash of the final state.

        No new orders are accepted; queued ones are matched and reported; connections are closed; if
        the market was served, a last checkpoint compares engine and clearing. The hash is hex, or
        empty if the log could not be closed in order. Raises a part's failure that has not been
        reported yet.
        """
        self.stopping = True
        await self._exits.aclose()
        if self.listening:
            await self._drain()
        await self._rehearsal.close()
        for task in self._tasks:
            if task.get_name() in ("watch", "schedule", "switches"):
                task.cancel()
        with self._ledger_lock():  # the directory's lock is released before all is booked
            try:
                await self.sequencer.close()
            finally:
                await asyncio.gather(*self._tasks, return_exceptions=True)
                if self._streaming is not None:
                    self._streaming.close()
                    (self.directory / STREAM_NAME).unlink(missing_ok=True)
                self._booking.shutdown()
                self.clearing.close()
        for part in self._parts:
            if part not in self._told and not part.cancelled():
                self._tell(part)
        head = read_head(self.directory)
        closed = head is not None and head.sequence == self.sequencer.sequence
        return head.state_hash if head is not None and closed else ""

    @property
    def _all_reported(self) -> bool:
        return not self.sequencer.queued and self.front.has_told(self.sequencer.sequence)

    async def _drain(self) -> None:
        """End the gateway's work in order, if the market still works."""
        self.front.drain()
        running = all(self.healthy().values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.limits.drain_seconds):
                while running and not self._all_reported:
                    await asyncio.sleep(POLL_SECONDS)
        await self.front.close()
        if running:
            await self._checkpoint_last()

    async def _checkpoint_last(self) -> None:
        """Have engine and clearing compared once more, unless a part needed for that has ended."""
        needed = [part for part in self._parts if part.get_name() in NEEDED]
        taking = asyncio.create_task(self.operations.checkpoint())
        await asyncio.wait([taking, *needed], return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            taking.cancel()
            await asyncio.wait([taking])
        try:
            if not taking.cancelled():
                taking.result()
                return
            ended = [part.get_name() for part in needed if part.done()]
            _log.warning("no last checkpoint: %s ended", " and ".join(ended))
        except (RequestRefused, QueueFull, Closed, TimeoutError) as error:
            _log.warning("no last checkpoint: %s", error)

    @property
    def _parts(self) -> list[asyncio.Task[None]]:
        assert self._sequencing is not None, "started"
        return [self._sequencing, *self._tasks]

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _while_running(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, or raise the failure of a part that prevents its end."""
        task = asyncio.ensure_future(work)
        await asyncio.wait([task, *self._parts], return_when=asyncio.FIRST_COMPLETED)
        for part in self._parts:
            if part.done():
                task.cancel()
                self._tell(part)
        return await task

    def _tell(self, part: asyncio.Task[None]) -> None:
        """Raise the failure of a part that has ended, if there is one."""
        self._told.add(part)
        part.result()

    def _open_door(self) -> Door:
        serve = self.settings.serve
        return Door(self.hub, self.tape, self.clearing, self.directory, Within(self), serve)

    def _timed_syncer(self, log: Log) -> SyncThread:
        """Return a sync thread that reports durations to the metrics."""
        return SyncThread(log, self.metrics.fsync.observe)

    # Clearing

    def _recover(self, storage: Storage) -> tuple[View | None, Clearing]:
        """Return what gateway, desk and clearing already know of the stream. Raises DamagedTape."""
        try:
            return standby.recover_view(storage, self.tape), self._open_clearing()
        except JournalError:
            check_tape(self.directory, log=storage)  # raises the damage, with what to do
            raise

    def _open_clearing(self) -> Clearing:
        """Open the ledger, after waiting for a previous server's writer.

        A ledger that is missing, ahead of the log, of another log or of another build's layout is
        rebuilt from the log, and the reason is logged.
        """
        path = self.directory / LEDGER_NAME
        with bookkeeping.alone(self.directory):
            if self.tape.last[1] and not path.exists():
                _log.warning("%s is missing; it is rebuilt from the log", path)
            try:
                clearing = Clearing.open(path)
            except OtherVersion as error:
                _log.warning("%s", error)
                clearing = Clearing.anew(path)
                clearing.rebuild(self.tape.read(0, 0, 0))
            try:
                next(self.tape.read(*clearing.position), None)
            except NoSuchPosition as error:
                _log.warning("the ledger does not follow this log and is rebuilt: %s", error)
                clearing.rebuild(self.tape.read(0, 0, 0))
            if self._apart:
                clearing.close()
                clearing = Clearing.open(path, read_only=True)
        return clearing

    def _ledger_lock(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that locks the ledger against the next server; a clearing process locks
        it itself."""
        return contextlib.nullcontext() if self._apart else bookkeeping.alone(self.directory)

    @property
    def _apart(self) -> bool:
        return self.settings.serve.clearing == "process"

    async def _clear(self) -> None:
        """Book what is released until the stream ends, in a thread or a process as set."""
        limits = self.settings.limits
        if self._apart:
            frames, pause = limits.clearing_frames, limits.clearing_pause_seconds
            await bookkeeping.keep(self.directory, self.tape, self.clearing, frames, pause)
            return
        loop = asyncio.get_running_loop()
        done = True
        async for released in self.tape.follow(self.clearing.position, patient=True):
            while self.clearing.position[1] < released.last_sequence:
                done = await loop.run_in_executor(self._booking, self._book, not done)
                pause = limits.clearing_pause_seconds if done else bookkeeping.FULL_SECONDS
                await asyncio.sleep(pause)

    def _book(self, waited: bool) -> bool:
        """Book the next batches; False if the disk is full. ``waited``: it was full before."""
        following = self.tape.read(*self.clearing.position)
        frames = list(itertools.islice(following, self.settings.limits.clearing_frames))
        return bookkeeping.booked(self.clearing, frames, waited)

    async def _watch(self) -> None:
        """Take checkpoints, and make the market cancel-only if clearing lags or differs."""
        limits = self.settings.limits
        checkpoint_due = time.monotonic() + limits.checkpoint_seconds
        loop, compared = asyncio.get_running_loop(), 0
        tried: frozenset[str] = frozenset()  # dues at the last checkpoint
        refused: frozenset[str] = frozenset()  # dues that it left, if nothing else was written then
        obstacle = ""  # logged once, not at every retry
        while True:
            await asyncio.sleep(limits.watch_seconds)
            self.alarms.look()
            try:
                await self._judge_clearing(limits.clearing_lag_commands_max)
                await loop.run_in_executor(self._booking, self.clearing.recall)
                if self.operations.held_up and not self.sequencer.full:
                    await self.operations.go_on()
                late = 0 < self.clearing.deadline() <= self._clock()
                asked = self._asked()
                news = self.desk.sequence > compared or bool(asked - refused)
                if late or asked - tried or (time.monotonic() >= checkpoint_due and news):
                    tried, before = asked, self.desk.sequence
                    commands = await self.operations.checkpoint()
                    compared = self.desk.sequence
                    idle = commands is not None and compared == before + commands
                    refused = self._asked() if idle else frozenset()
                    checkpoint_due = time.monotonic() + limits.checkpoint_seconds
                if self.clearing.cycle_is_due():
                    await self.operations.perform(requests.RunCycle())
                obstacle = ""
            except (RequestRefused, QueueFull, TimeoutError) as error:
                obstacle = _told_once(obstacle, error)

    def _asked(self) -> frozenset[str]:
        """Return the ids of clearing's dues."""
        return frozenset(due.id for due in self.clearing.dues())

    async def _judge_clearing(self, lag_max: int) -> None:
        loop = asyncio.get_running_loop()
        self.balanced = await loop.run_in_executor(self._booking, self.clearing.is_balanced)
        if self.clearing_lag > lag_max:
            await self._cancel_only(f"clearing is {self.clearing_lag} commands behind")
        elif self.clearing.divergences:
            await self._cancel_only(f"clearing differs: {self.clearing.divergences[0]}")
        elif not self.balanced:
            await self._cancel_only("the ledger does not balance")

    async def _cancel_only(self, why: str) -> None:
        if self.desk.mode != Mode.CANCEL_ONLY:
            _log.error("the market is cancel-only: %s", why)
            await self.desk.perform([wishes.set_mode(Mode.CANCEL_ONLY, why)])
