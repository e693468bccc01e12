"""The operator's desk: puts commands into the sequencer's queue and returns their outcomes.

It consumes the released stream and knows only what that contains: instruments, accounts, the
business date, the mode, and the quotes when a day is settled.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from contracts.spec import Combination
from contracts.spec import Instrument as Terms
from exchange.app.quotes import Quotes
from exchange.app.wishes import APPROVED, PROPOSE, RECORD_FACTORS, RequestRefused, Wish
from exchange.gateway.resume import Epochs
from exchange.gateway.view import Recorded, View
from exchange.intake import Item
from exchange.journal.tape import START, Released, Tape
from exchange.marketdata.instruments import Instrument, Instruments
from exchange.marketdata.stream import Row
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    EVENT_FIELDS,
    HOUSE_ACCOUNT,
    Event,
    EventKind,
    KillScope,
    Mode,
    Reason,
    TradingState,
)

ANSWER_SECONDS: Final = 30.0  # a command that is not released by then never will be
# An expired proposal is kept this long, so that an approval can be told that it expired
FORGOTTEN_NS: Final = 86_400 * 10**9
_KIND: Final = 12  # offset of the kind byte in an event
_ORDER_KINDS: Final = bytes(range(EventKind.ORDER_ACCEPTED, EventKind.SESSION_OPENED))


class _Factors(msgspec.Struct):
    """A recorded table of conversion factors."""

    grade: str
    expiry: str
    table: str


class _Approved(msgspec.Struct):
    """The record of an approval."""

    proposal: str


class Proposal(msgspec.Struct, frozen=True):
    """A recorded proposal; ``expires`` is in ns since 1970.

    ``business_date`` (yyyymmdd), ``recorded`` (stamp) and ``sequence`` are those of the record.
    """

    proposal: str
    by: str
    expires: int
    request: str  # JSON
    business_date: int = 0
    recorded: int = 0
    sequence: int = 0


class Outcome(NamedTuple):
    """The events of one command, in order."""

    events: tuple[Event, ...]

    @property
    def reason(self) -> Reason | None:
        """The reason if the command was rejected, otherwise None."""
        first = self.events[0]
        return Reason(first.reason) if first.kind == EventKind.REJECTED else None


class WishRejected(RequestRefused):
    """The engine rejected a command."""

    def __init__(self, wish: Wish, reason: Reason, event: Event) -> None:
        said = f", limit {event.a}, observed {event.b}" if event.a or event.b else ""
        super().__init__(f"rejected {reason.name} ({reason.value}){said}: {wish.text}")
        self.reason = reason


class Desk:
    """The state of the market as the stream gives it, and the way to change it. ``run`` is a
    task."""

    def __init__(
        self, submit: Callable[[list[Item]], None], tape: Tape, view: View | None = None
    ) -> None:
        """``submit`` queues commands, all or none, for one batch. ``view`` is what is already known
        of the stream, which is followed from its position on."""
        self._submit = submit
        self.tape = tape
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self.watchers: list[Callable[[Released], None]] = []  # called with each batch first
        self.instruments = Instruments()
        self.quotes = Quotes(tape)
        self.terms: dict[str, Terms] = {}
        self.combinations: dict[str, Combination] = {}
        self.changed: dict[int, int] = {}  # stamp of the last change of state, by instrument
        self._moved: dict[int, int] = {}  # sequence of that change
        self._listed_at: dict[int, int] = {}  # sequence of the listing, by instrument
        self.indicated = 0  # stamp of the last indicative price, or of a later start
        self.factors: dict[tuple[str, str], str] = {}  # the latest table by grade and expiry
        self.accounts = {HOUSE_ACCOUNT: 0}  # member by account
        # Kill switches that are on, by scope, number and session: sequence of the last throw
        self._killed: dict[tuple[int, int, int], int] = {}
        self.proposals: dict[str, Proposal] = {}  # open proposals by id, oldest first
        self.epochs = Epochs()
        self.day_first = 0  # sequence of the command that opened the day
        self._day_last = 0  # sequence of the command that closed the last day
        self.business_date = 0  # yyyymmdd, 0 before the first
        self.day_open = False
        self.mode = Mode.NORMAL
        self.sequence = self.stamp = 0  # of the last batch
        self.unanswered = False  # whether commands were given up that may still be queued
        self._handlers = {
            EventKind.ACCOUNT_OPENED: self._account_opened,
            EventKind.DAY_OPENED: self._day_opened,
            EventKind.DAY_CLOSED: self._day_closed,
            EventKind.MODE_CHANGED: self._mode_changed,
            EventKind.KILLED: self._switched,
            EventKind.RESUMED: self._switched,
            EventKind.SESSION_ENDED: self._session_ended,
        }
        self._begin = START if view is None else view.position
        if view is not None:
            self._know(view)

    def _know(self, view: View) -> None:
        """Take over the stream's content up to the view's position."""
        stamps, texts = view.stamps, view.texts
        for row in EVENT.iter_unpack(view.events):
            self._picture(row, stamps[row[0]], texts)
        self.epochs.first.extend(view.epochs.first)
        self.sequence = view.position[1]
        self.quotes.begin(view.position, view.depths())

    async def run(self, upto: int, ready: asyncio.Event) -> None:
        """Follow the stream until it is closed; set ``ready`` once ``upto`` has been read."""
        if upto == 0:
            ready.set()
        async for released in self.tape.follow(self._begin, patient=True):
            self._take(released)
            if released.last_sequence >= upto:
                ready.set()

    async def perform(self, wishes: Sequence[Wish]) -> list[Outcome]:
        """Submit commands in order, in one batch if they fit; return their outcomes once all are
        durable.

        Raises WishRejected for the first rejected one (those after it were submitted as well);
        RequestRefused if a figure fits into no command, and the sequencer's QueueFull (none was
        submitted then); TimeoutError if the market does not answer.
        """
        loop = asyncio.get_running_loop()
        items: list[Item] = [(wish.record, 0, wish.text) for wish in wishes]
        waiting: list[asyncio.Future[Outcome]] = []
        queued = False  # and not answered yet
        try:
            for wish in wishes:
                assert wish.text not in self._waiting, "every wish has a text of its own"
                self._waiting[wish.text] = future = loop.create_future()
                waiting.append(future)
            self._submit(items)
            queued = True
            async with asyncio.timeout(ANSWER_SECONDS):
                outcomes = [await future for future in waiting]
            queued = False
        finally:
            self.unanswered |= queued
            for wish in wishes:
                self._waiting.pop(wish.text, None)
        for wish, outcome in zip(wishes, outcomes, strict=True):
            if outcome.reason is not None:
                raise WishRejected(wish, outcome.reason, outcome.events[0])
        return outcomes

    def instrument(self, code: str) -> Instrument:
        """Return the listed instrument of that code; RequestRefused if there is none."""
        found = self.instruments.by_code.get(code)
        if found is None:
            raise RequestRefused(f"{code} is not listed; `hourbook contracts list` shows what is")
        return found

    def named(self, code: str) -> list[Instrument]:
        """Return the instrument of that code, or all instruments of a product that have not
        expired. RequestRefused if there is none."""
        if code not in self.instruments.products:
            return [self.instrument(code)]
        return [
            listed
            for listed in self.instruments.by_id.values()
            if listed.data.product == code and listed.state != TradingState.EXPIRED
        ]

    def killed_by(self, account: int) -> list[str]:
        """Return the scopes of the kill switches that are on for an account."""
        whom = {
            KillScope.ACCOUNT: account,
            KillScope.MEMBER: self.accounts.get(account),
            KillScope.EXCHANGE: 0,
        }
        return [s.name.lower() for s, number in whom.items() if (s, number, 0) in self._killed]

    def thrown(self, scope: KillScope, account: int, session: int, member: int) -> int:
        """Return the sequence at which a kill switch was last thrown; 0 if it is off."""
        return self._killed.get(_switch(scope, account, session, member), 0)

    def moved(self, listed: Instrument) -> int:
        """Return the sequence of an instrument's last change of state; 0 if there was none."""
        return self._moved.get(listed.id, 0)

    def left_closed(self) -> list[Instrument]:
        """Return the closed instruments that were listed before the open day and have not changed
        state since: its opening was interrupted."""
        listed, moved = self._listed_at, self._moved
        return [
            one for one in self.instruments.by_id.values()
            if self.day_open and one.state == TradingState.CLOSED
            and max(listed.get(one.id, 0), moved.get(one.id, 0)) < self.day_first
        ]  # fmt: skip

    def closed_before(self, listed: Instrument) -> bool:
        """Whether an instrument is closed, and was before the last business date began: what closed
        it was the end of an earlier one."""
        return listed.state == TradingState.CLOSED and self.moved(listed) < self.day_first

    def to_settle(self) -> set[int]:
        """Return the instruments that must be settled for the closed day."""
        return {
            one.id for one in self.instruments.by_id.values()
            if not one.legs and one.state != TradingState.EXPIRED
            and self._listed_at.get(one.id, 0) < self._day_last
        }  # fmt: skip

    def _take(self, released: Released) -> None:
        """Apply one batch: the state of the market, and the outcomes awaited."""
        for watch in self.watchers:
            watch(released)
        self.sequence, self.stamp = released.last_sequence, released.stamp
        if not self.epochs.first or self.epochs.first[-1][1] != released.epoch:
            self.epochs.note(released.epoch, released.first_sequence)
        kinds = released.events[_KIND::EVENT_BYTES]
        if not kinds.translate(None, _ORDER_KINDS) and not self._waiting:
            return
        texts = dict(released.texts)
        answers = {n: text for n, text in released.texts if text in self._waiting}
        events: dict[int, list[Event]] = {number: [] for number in answers}
        for row in EVENT.iter_unpack(released.events):
            if row[2] >= EventKind.SESSION_OPENED:
                self._picture(row, released.stamp, texts)
            if row[0] in events:
                events[row[0]].append(Event(**dict(zip(EVENT_FIELDS, row, strict=True))))
        for number, text in answers.items():
            future = self._waiting.pop(text)
            if not future.done():
                future.set_result(Outcome(tuple(events[number])))

    def _picture(self, row: Row, stamp: int, texts: dict[int, str]) -> None:
        kind = EventKind(row[2])
        text = texts.get(row[0])
        listed = self.instruments.apply(row, text)
        if kind == EventKind.INSTRUMENT_LISTED and listed is not None and text is not None:
            self._listed(listed, text)
            self._listed_at[listed.id] = row[0]
        elif kind == EventKind.STATE_CHANGED:
            self.changed[row[5]], self._moved[row[5]] = stamp, row[0]
        elif kind in (EventKind.AUCTION_INDICATED, EventKind.RECOVERED):
            self.indicated = stamp
        if kind == EventKind.RECORDED and text is not None:
            self._recorded(text, stamp, row[0])
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(row)

    def _listed(self, listed: Instrument, text: str) -> None:
        if listed.data.legs:
            self.combinations[listed.code] = Combination.from_json(text)
        else:
            self.terms[listed.code] = Terms.from_json(text)

    def _recorded(self, text: str, stamp: int, sequence: int) -> None:
        """Keep the latest factor tables and the proposals; other records do not concern the
        desk."""
        operation = msgspec.json.decode(text, type=Recorded).operation
        if operation == RECORD_FACTORS:
            with contextlib.suppress(msgspec.ValidationError):  # clearing rules on it
                factors = msgspec.json.decode(text, type=_Factors)
                self.factors[factors.grade, factors.expiry] = factors.table
        elif operation == PROPOSE:
            read = msgspec.json.decode(text, type=Proposal)
            known = {
                "business_date": self.business_date, "recorded": stamp, "sequence": sequence,
            }  # fmt: skip
            proposal = msgspec.structs.replace(read, **known)
            for number, old in list(self.proposals.items()):
                if old.expires + FORGOTTEN_NS >= stamp:
                    break
                del self.proposals[number]
            self.proposals[proposal.proposal] = proposal
        elif operation == APPROVED:
            self.proposals.pop(msgspec.json.decode(text, type=_Approved).proposal, None)

    def _account_opened(self, row: Row) -> None:
        self.accounts[row[6]] = row[5]

    def _switched(self, row: Row) -> None:
        switch = _switch(row[4], row[6], row[7], row[10])
        if row[2] == EventKind.KILLED:
            self._killed[switch] = row[0]
        else:
            self._killed.pop(switch, None)

    def _session_ended(self, row: Row) -> None:
        self._killed.pop(_switch(KillScope.SESSION, row[6], row[7], 0), None)

    def _day_opened(self, row: Row) -> None:
        self.business_date, self.day_open, self.day_first = row[9], True, row[0]

    def _day_closed(self, row: Row) -> None:
        self.day_open, self._day_last = False, row[0]

    def _mode_changed(self, row: Row) -> None:
        self.mode = Mode(row[9])


def _switch(scope: int, account: int, session: int, member: int) -> tuple[int, int, int]:
    """Return the key of a kill switch: its scope, number and session."""
    if scope == KillScope.EXCHANGE:
        return scope, 0, 0
    if scope == KillScope.MEMBER:
        return scope, member, 0
    return scope, account, session if scope == KillScope.SESSION else 0
