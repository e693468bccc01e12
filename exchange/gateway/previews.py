"""Previews: what an order would do if it were sent now, tried on a copy of the market."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol, TypeAlias

from exchange.gateway.accounts import Accounts
from exchange.gateway.decode import Recorder, Refused
from exchange.gateway.http import Flood
from exchange.gateway.mass import MassRecorder
from exchange.gateway.rejects import from_event
from exchange.marketdata.instruments import Instrument, micros_text
from exchange.marketdata.stream import Row
from exchange.messages import EVENT, EventFlag, EventKind
from exchange.messages.access import GatewayReason
from exchange.messages.wire import Enter, Preview, Previewed, Replace
from exchange.messages.wire_mass import Quote

PREVIEWS_A_SECOND: Final = 10  # per account
WAITING: Final = 1_000  # answers held while the log's disk is slow
_TRADING: Final = frozenset((int(EventKind.TRADE), int(EventKind.ORDER_EXECUTED)))


class Tried(NamedTuple):
    """The result of a command on a copy: its events, the account's (cash, requirement) before and
    after, in micro-dollars, and the lots of the order, or of the quote, that work then.

    All of it is the copy's: what the gateway knows of the order may be of an earlier or a later
    moment.
    """

    sequence: int  # of the last command in the copy
    stamp: int
    events: bytes
    before: tuple[int, int]
    after: tuple[int, int]
    leaves: int


Outcome: TypeAlias = Tried | Refused


class WhatIf(Protocol):
    """Tries an account's command on a copy of the current market and calls ``tell`` with the
    outcome, at once or later: Refused if the market is too busy."""

    def __call__(self, account: int, record: bytes, tell: Callable[[Outcome], None], /) -> None: ...


class Previews:
    """The previews of one gateway. An answer is held until its copy's state has been released."""

    def __init__(
        self, recorder: Recorder, mass: MassRecorder, accounts: Accounts, what_if: WhatIf | None
    ) -> None:
        self._recorder = recorder
        self._mass = mass
        self._accounts = accounts
        self._what_if = what_if
        self._flood = Flood()
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._released = 0

    def ask(
        self,
        request: Preview,
        account: int,
        session: int,
        tell: Callable[[Previewed | Refused], None],
    ) -> None:
        """Try an order and call ``tell`` with the preview, or with the Refused of the trial.

        Raises Refused for an invalid order, and REQUESTS_FULL.
        """
        order = request.order
        if isinstance(order, Enter):
            record = self._recorder.enter(order, account, session)
            instrument = self._recorder.instrument(order.instrument)
        elif isinstance(order, Quote):
            record = self._mass.quote(order, account, session)
            instrument = self._recorder.instrument(order.instrument)
        else:
            known = self._accounts.target_instrument(order, account)
            record = self._recorder.replace(order, account, session, known)
            instrument = known or self._recorder.instrument(order.instrument or "")
        if self._what_if is None:
            raise Refused(GatewayReason.REQUESTS_FULL, None, "no previews at this gateway")
        if len(self._waiting) >= WAITING:
            why = "waiting for the log"
            raise Refused(GatewayReason.REQUESTS_FULL, None, why, limit=str(WAITING))
        self._flood.count(str(account), PREVIEWS_A_SECOND)

        def take(tried: Outcome) -> None:
            if isinstance(tried, Refused):
                return tell(tried)
            self._waiting.append(
                (tried.sequence, lambda: tell(previewed(request, instrument, tried)))
            )
            self.release(self._released)

        self._what_if(account, record, take)

    def release(self, sequence: int) -> None:
        """Send the answers whose copies had no command after ``sequence``."""
        self._released = sequence
        while self._waiting and self._waiting[0][0] <= sequence:
            self._waiting.popleft()[1]()


def previewed(request: Preview, instrument: Instrument, tried: Tried) -> Previewed:
    """Return the preview of a trial's result."""
    rows: list[Row] = list(EVENT.iter_unpack(tried.events))
    first, refused = rows[0], None
    if first[2] == EventKind.REJECTED:
        text = _text(request.order)
        refused = from_event(first, tried.stamp, text, instrument, None)
    trades = [] if refused or first[3] & EventFlag.DUPLICATE else [*_trades(rows, first[7])]
    executed = sum(lots for _, lots in trades)
    (before, required_before), (cash, required) = tried.before, tried.after
    band = instrument.protections.band
    return Previewed(
        request_id=request.request_id,
        sequence=tried.sequence,
        time=tried.stamp,
        refused=refused,
        duplicate=bool(first[3] & EventFlag.DUPLICATE),
        executions=[(instrument.price_text(price), str(lots)) for price, lots in trades],
        executed_quantity=str(executed),
        leaves_quantity=str(tried.leaves),
        cash=micros_text(cash),
        cash_change=micros_text(cash - before),
        required=micros_text(required),
        required_before=micros_text(required_before),
        free=micros_text(cash - required),
        instrument=instrument.code,
        low_limit=instrument.price_text(instrument.low_ticks),
        high_limit=instrument.price_text(instrument.high_ticks),
        band=instrument.price_text(band) if band else None,
    )


def _text(order: Enter | Replace | Quote) -> str:
    """Return the id by which an order, a replacement or a quote is answered."""
    return order.client_order_id if isinstance(order, Enter) else order.request_id


def _trades(rows: list[Row], order_id: int) -> Iterator[tuple[int, int]]:
    """Yield an incoming order's immediate trades: price in ticks and lots, summed by price.

    Of what is left of it, a stop order that these trades elect may take more in the same command.
    """
    at, lots = 0, 0
    for row in rows:
        resting = row[11] if row[2] == EventKind.TRADE else row[7]
        if row[2] in _TRADING and order_id in (row[7], resting):
            if lots and row[8] != at:
                yield at, lots
                lots = 0
            at, lots = row[8], lots + row[9]
    if lots:
        yield at, lots
