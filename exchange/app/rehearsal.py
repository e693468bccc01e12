"""A process beside a large market in which commands are tried, so that the market need not be
copied.

It follows the market's log with its own engine and forks for each trial, so that a trial has no
effect and nothing is copied. It is started by the first request, and ends after IDLE_SECONDS
without one, with the market, or at a log that it cannot follow.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from struct import Struct as Layout
from typing import BinaryIO, Final

import msgspec

from exchange.app import processors
from exchange.engine import Engine
from exchange.gateway.decode import Refused
from exchange.gateway.previews import Outcome, Tried
from exchange.journal.point import Point
from exchange.journal.shadow import Shadow
from exchange.messages import COMMAND, EVENT, CommandKind, EventKind, Side
from exchange.messages.access import GatewayReason

IDLE_SECONDS: Final = 600.0
LATE_SECONDS: Final = 10.0  # then the caller is told to ask again; the process continues
HUNG_SECONDS: Final = 600.0  # then the process is killed; a new one starts from the newest snapshot
_TICK: Final = COMMAND.pack(int(CommandKind.ADVANCE_TIME), *bytes(15))
_LENGTH: Final = Layout("<I")
_log = logging.getLogger(__name__)


class Question(msgspec.Struct, frozen=True, array_like=True):
    """A command of an account, to be tried no earlier than at ``stamp``."""

    account: int
    record: bytes
    stamp: int


_encode = msgspec.msgpack.Encoder().encode
_read_question = msgspec.msgpack.Decoder(Question).decode
_read_tried = msgspec.msgpack.Decoder(Tried).decode


def try_on(engine: Engine, sequence: int, asked: Question) -> Tried:
    """Apply a command to an engine after ``sequence`` commands; return its events and effects."""
    engine.apply(_TICK, sequence + 1, asked.stamp)  # what is due is processed first
    before = _money(engine, asked.account)
    events = engine.apply(asked.record, sequence + 2, asked.stamp)
    after = _money(engine, asked.account)
    leaves = _leaves(engine, sequence + 3, asked, events)
    return Tried(sequence, asked.stamp, events, before, after, leaves)


def _money(engine: Engine, account: int) -> tuple[int, int]:
    found = engine.account(account)
    return found["cash"], found["required"]


def _leaves(engine: Engine, sequence: int, asked: Question, events: bytes) -> int:
    """Return the lots that work of the order, or of the quote, to which ``events`` are the answer.

    The engine has no query for an order, and whoever follows the stream knows another moment than
    the copy's. So the order is cancelled on the copy, which is of no further use.
    """
    first = EVENT.unpack_from(events)
    kind, instrument, order_id = first[2], first[5], first[7]
    if kind == EventKind.REJECTED:
        return 0
    if kind == EventKind.QUOTED:  # a quote without sides withdraws both
        ending = COMMAND.pack(
            int(CommandKind.MASS_QUOTE), 0, 0, 0, instrument, asked.account, *bytes(10)
        )
    else:
        ending = COMMAND.pack(
            int(CommandKind.CANCEL), int(Side.UNSTATED), 0, 0, 0, asked.account, *bytes(6),
            order_id, *bytes(3),
        )  # fmt: skip
    rows = EVENT.iter_unpack(engine.apply(ending, sequence, asked.stamp))
    return sum(row[9] for row in rows if row[2] == EventKind.ORDER_CANCELLED)


class Rehearsal:
    """The process, as the market sees it. One trial at a time; it is not a part of the market."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None
        self._asking: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    def ask(self, question: Question, tell: Callable[[Outcome], None]) -> None:
        """Report what a command would do, once the process has caught up with the log."""
        if self._asking is not None and not self._asking.done():
            return tell(Refused(GatewayReason.REQUESTS_FULL, None, "at a time", limit="1"))
        self._asking = asyncio.create_task(self._ask(question, tell))

    async def _ask(self, question: Question, tell: Callable[[Outcome], None]) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop, waiting = asyncio.get_running_loop(), [tell]

        def answer(outcome: Outcome) -> None:
            while waiting:
                waiting.pop()(outcome)

        behind = Refused(GatewayReason.REQUESTS_FULL, None, "the copy catches up; ask again")
        late = loop.call_later(LATE_SECONDS, answer, behind)
        try:
            async with asyncio.timeout(HUNG_SECONDS):
                tried = await self._tried(question)
        except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            _log.exception("the process that tries orders is gone, the next preview starts another")
            self._end()
            return answer(Refused(GatewayReason.REQUESTS_FULL, None, "the copy is gone; ask again"))
        finally:
            late.cancel()
        self._idle = loop.call_later(IDLE_SECONDS, self._end)
        answer(tried)

    async def _tried(self, question: Question) -> Tried:
        """Ask the process, starting it if needed. TimeoutError is an OSError as well."""
        process = self._process or await self._start()
        assert process.stdin is not None and process.stdout is not None, "piped"
        body = _encode(question)
        process.stdin.write(_LENGTH.pack(len(body)) + body)
        (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
        return _read_tried(await process.stdout.readexactly(length))

    async def _start(self) -> asyncio.subprocess.Process:
        run = "import sys; from exchange.app.rehearsal import main; main(sys.argv[1])"
        pipe = asyncio.subprocess.PIPE
        self._process = await processors.start_child(
            sys.executable, "-c", run, str(self._directory), stdin=pipe, stdout=pipe
        )
        return self._process

    def _end(self) -> None:
        """Kill the process, if there is one; the next request starts another."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()  # it may hang, and there is nothing to lose
        self._process = None

    async def close(self) -> None:
        """Kill the process and wait for its end."""
        process = self._process
        if self._asking is not None:
            self._asking.cancel()
        if self._idle is not None:
            self._idle.cancel()
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()


def main(directory: str) -> None:
    """Run the process: questions on stdin, answers on stdout."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with stdin
    engine = Engine()
    shadow = Shadow(Path(directory), engine)
    shadow.catch_up()
    said, heard = sys.stdout.buffer, sys.stdin.buffer
    while (body := _next(heard)) is not None:
        shadow.advance()
        tried = _apart(engine, shadow.point, _read_question(body))
        said.write(_LENGTH.pack(len(tried)) + tried)
        said.flush()


def _next(heard: BinaryIO) -> bytes | None:
    head = heard.read(_LENGTH.size)
    return heard.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else None


def _apart(engine: Engine, point: Point, asked: Question) -> bytes:
    """Try a command in a fork of this process; return the encoded result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            late = msgspec.structs.replace(asked, stamp=max(asked.stamp, point.stamp))
            with open(writing, "wb") as out:
                out.write(_encode(try_on(engine, point.sequence, late)))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        tried = answer.read()
    os.waitpid(child, 0)
    return tried
