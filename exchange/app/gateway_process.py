"""One gateway in its own process, started by ``exchange.app.gateways``; it ends with the market.

It knows the released stream and its clients' requests; it asks the market for what only that can
answer (operators' requests, figures, health).
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from exchange.app import collector, logs, standby
from exchange.app.asking import Answer
from exchange.app.bookkeeping import LEDGER_NAME, STREAM_NAME
from exchange.app.door import Door
from exchange.app.front import POLL_SECONDS, connections, unsent_bytes
from exchange.app.gateway_link import OWN_NAME as OWN_NAME
from exchange.app.gateway_link import (
    SOCKET_NAME,
    Ask,
    Beat,
    Close,
    Drain,
    Drained,
    Hello,
    KeysGone,
    Left,
    Listening,
    Seat,
    Status,
    Told,
    TurnedBack,
    Welcome,
    Wire,
)
from exchange.app.gateways import LIFE_BITS
from exchange.app.requests import AnyRequest
from exchange.clearing import Clearing
from exchange.gateway.auth import Keys
from exchange.gateway.decode import Refused
from exchange.gateway.hub import Hub
from exchange.gateway.metrics import Tally
from exchange.gateway.previews import Outcome
from exchange.gateway.seats import Owner, Seats
from exchange.journal.copy import Copy
from exchange.journal.errors import NoSuchPosition
from exchange.journal.storage import LocalStorage
from exchange.messages import Limit, Reason
from exchange.messages.access import GatewayReason
from exchange.sequencer import Closed, QueueFull

STATUS_SECONDS: Final = 0.5
# Commands not yet read by the market; beyond: QUEUE_FULL
QUEUED_BYTES: Final = 128 * Limit.QUEUE_COMMANDS
_log = logging.getLogger(__name__)


class MarketGone(Exception):
    """The market's process ended or no longer answers."""


class FarSeats(Seats):
    """The connection counts of all gateways, kept in the market's process."""

    def __init__(self, ward: "Ward") -> None:
        super().__init__()
        self._ward = ward

    def take(self, owner: Owner, told: Callable[[int], None]) -> None:
        """Count a connection, and report the owner's total once it is known."""
        self._ward.seat(owner, told)

    def leave(self, owner: Owner) -> None:
        """Remove a connection from the count."""
        self._ward.say(Left(owner))


class Ward:
    """The connection to the market: sends commands and questions, receives answers and
    instructions."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._wire: Wire | None = None
        self._asked: dict[int, asyncio.Future[Told]] = {}
        self._numbers = itertools.count(1)
        self._waiting: set[asyncio.Task[None]] = set()  # tasks that wait for answers
        self.welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self.closing = asyncio.Event()
        self.draining = False
        self.hub: Hub | None = None

    async def connect(self, path: Path) -> Welcome:
        """Connect and identify; return the market's welcome."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._begin(Wire(self)), str(path))
        self.say(Hello(self._number))
        return await self.welcome

    def _begin(self, wire: Wire) -> Wire:
        self._wire = wire
        return wire

    def say(self, message: Any) -> None:
        """Send a message, unless the market is gone."""
        if self._wire is not None:
            self._wire.say(message)

    def submit(
        self, source: int, record: bytes, *, ingress_ns: int = 0, text: str | None = None
    ) -> None:
        """Send a command towards the sequencer. Raises QueueFull, Closed."""
        wire = self._wire
        if wire is None:
            raise Closed("the market is gone")
        if wire.waiting_bytes > QUEUED_BYTES:
            raise QueueFull(QUEUED_BYTES, wire.waiting_bytes)
        wire.put(source, record, ingress_ns, text)

    def end(self) -> None:
        """Write what was sent, and disconnect."""
        if self._wire is not None:
            self._wire.close()

    # Queries to the market

    async def healthy(self) -> Mapping[str, bool]:
        """Whether each part of the market runs."""
        return (await self._ask(Ask(next(self._numbers), "healthy"))).checks or {}

    async def ready(self) -> Mapping[str, bool]:
        """Whether each condition for processing orders holds."""
        return (await self._ask(Ask(next(self._numbers), "ready"))).checks or {}

    async def metrics(self) -> bytes:
        """The market's figures, including those of all gateways."""
        return (await self._ask(Ask(next(self._numbers), "metrics"))).text

    async def perform(self, request: AnyRequest, person: str) -> Answer:
        """Have the market perform an operator's request."""
        told = await self._ask(Ask(next(self._numbers), "perform", request, person))
        return told.answer or Answer(False, error="the market did not answer")

    def seat(self, owner: Owner, tell: Callable[[int], None]) -> None:
        """Count one more connection; report the owner's total over all gateways."""
        question = Seat(next(self._numbers), owner)
        self._tell_later(question, lambda told: tell(told.count))

    def what_if(self, account: int, record: bytes, tell: Callable[[Outcome], None]) -> None:
        """Have a command tried on a copy of the market."""
        question = Ask(next(self._numbers), "try", account=account, record=record)

        def hear(told: Told) -> None:
            if told.tried is not None:
                return tell(told.tried)
            assert told.untried is not None, "a trial comes to something"
            number, detail, limit, observed = told.untried
            tell(Refused(GatewayReason(number), None, detail, limit=limit, observed=observed))

        self._tell_later(question, hear)

    def _tell_later(self, question: Ask | Seat, tell: Callable[[Told], None]) -> None:
        """Pass an answer on when it comes; never if the market is gone, since this process ends
        then."""

        async def hear() -> None:
            with contextlib.suppress(MarketGone):
                tell(await self._ask(question))

        task = asyncio.create_task(hear())
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _ask(self, question: Ask | Seat) -> Told:
        answer: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._asked[question.number] = answer
        self.say(question)
        try:
            return await answer
        finally:
            del self._asked[question.number]

    # The wire's end

    def heard(self, wire: Wire, message: Any) -> None:
        """Handle a message of the market."""
        hub = self.hub
        match message:
            case Welcome():
                self.welcome.set_result(message)
            case Told() if message.number in self._asked:
                self._asked[message.number].set_result(message)
            case TurnedBack() if hub is not None:
                refused = Refused(Reason(message.reason))
                hub.turned_back(message.record, message.text, refused)
            case Beat():
                wire.say(message)
            case KeysGone() if hub is not None:
                hub.drop_revoked()
            case Drain():
                self.draining = True
                if hub is not None:
                    hub.drain()
                wire.say(Drained())
            case Close():
                self.closing.set()

    def put(self, wire: Wire, source: int, record: bytes, ingress: int, text: str | None) -> None:
        """Do nothing: the market sends no commands."""

    def lost(self, wire: Wire) -> None:
        """Note that the market is gone, which ends this process."""
        self._wire = None
        self.closing.set()
        gone = MarketGone("its end of the socket is closed")
        if not self.welcome.done():
            self.welcome.set_exception(gone)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(gone)


async def serve(directory: Path, number: int) -> None:
    """Serve clients until the market asks for the end, or is gone."""
    ward = Ward(number)
    welcome = await ward.connect(directory / SOCKET_NAME)
    settings = welcome.settings.serve
    logs.configure(settings.log_format, settings.log_level)
    copy = Copy(directory, directory / STREAM_NAME, welcome.standing, welcome.exchange_id)
    ward.hub = hub = Hub(
        ward.submit,
        copy,
        Keys(directory),
        queue_full=(QueueFull, Closed),
        no_such_position=NoSuchPosition,
        view=standby.recover_view(LocalStorage(directory), copy),
        what_if=ward.what_if,
        seats=FarSeats(ward),
        first_connection=welcome.life << LIFE_BITS,
    )
    clearing = Clearing.open(directory / LEDGER_NAME, read_only=True)
    door = Door(hub, copy, clearing, directory, ward, settings, apart=True)
    tally = Tally()
    following = asyncio.create_task(door.gateway.run())
    telling = asyncio.create_task(_tell(ward, hub, tally))  # reports progress as well
    while hub.sequence < welcome.standing.last[1]:
        if following.done():
            following.result()
            raise MarketGone("its stream has ended")
        await asyncio.sleep(POLL_SECONDS)
    hub.metrics = tally
    collector.calm_collector()
    collector.short_turns()
    if ward.draining:
        hub.drain()
    await door.listen(welcome.host, welcome.port, shared=True)
    own = directory / OWN_NAME.format(number)
    await door.gateway.start_unix(own)
    ward.say(Listening())
    ending = asyncio.create_task(ward.closing.wait())
    try:
        done, _ = await asyncio.wait(
            [following, telling, ending], return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
    finally:
        own.unlink(missing_ok=True)
        await door.close()
        for task in (following, telling, ending):
            task.cancel()
        ward.end()
        clearing.close()


async def _tell(ward: Ward, hub: Hub, tally: Tally) -> None:
    """Send this gateway's status periodically; continually while it drains."""
    while True:
        rejects, closed = tally.take()
        ward.say(Status(hub.sequence, unsent_bytes(hub), connections(hub), rejects, closed))
        await asyncio.sleep(POLL_SECONDS if ward.draining else STATUS_SECONDS)


def main(directory: str, number: str) -> None:
    """Run the child process."""
    collector.give_back_tables()
    try:
        asyncio.run(serve(Path(directory), int(number)))
    except (MarketGone, ConnectionError) as error:
        _log.error("gateway %s ends: %s", number, error)
        raise SystemExit(1) from error
