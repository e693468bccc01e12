"""Settlement prices approved by two persons, and the state of a date's settlement.

An approved price replaces the computed one at the next settlement of the date. For an instrument
that is settled already the record must say that it is a correction, which is settled as the next
cycle of that date. This matter also stores when the date closed and which cycles were settled.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import msgspec

from exchange.clearing.expiry import listing
from exchange.clearing.matters import ACCEPTED, At, Matter, Ruling, refused
from exchange.clearing.prices import is_combination
from exchange.clearing.records import Record, SetPrice
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, Limit
from exchange.messages.dates import number_of

if TYPE_CHECKING:
    from exchange.clearing.state import State


CORRECTIONS: Final = (EventKind.TRADE_BUSTED, EventKind.TRADE_ADJUSTED)


class Corrected(NamedTuple):
    """The correction of a trade: its new price in ticks, or None if it was busted."""

    number: int  # the event
    price: int | None


class Prices(Matter):
    """The prices at the beginning of a business date, the approved ones, the settled cycles, and
    the time of the close."""

    name: ClassVar[str] = "prices"
    records: ClassVar[tuple[type[Record], ...]] = (SetPrice,)
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DAY_CLOSED,
        EventKind.DAY_OPENED,
        EventKind.INSTRUMENT_LISTED,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.TRADE_BUSTED,
        EventKind.TRADE_ADJUSTED,
    )
    closed: int = 0  # stamp of the date's close; 0 while it is open
    approved: dict[int, int] = msgspec.field(default_factory=dict)  # instrument -> price
    cycles: dict[int, int] = msgspec.field(default_factory=dict)  # instrument -> last settled
    final: list[int] = msgspec.field(default_factory=list)  # settled since the close, in order
    corrected: dict[int, Corrected] = msgspec.field(default_factory=dict)  # by match number
    began: dict[int, int] = msgspec.field(default_factory=dict)  # instrument -> first price
    last_days: dict[int, int] = msgspec.field(default_factory=dict)  # of trading

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling]:
        """Follow up the opening and close of a date, listings, corrections and settlements.

        A settlement uses up an approved price only after the close: before, it is an intraday one.
        """
        if event.kind == EventKind.DAY_CLOSED:
            self.closed = at.stamp
        elif event.kind == EventKind.DAY_OPENED:
            self.closed, self.approved, self.cycles, self.final = 0, {}, {}, []
            self.corrected = {}
            self.began = {
                number: listed.settlement_price
                for number, listed in sorted(state.instruments.items())
                if not listed.expired and not is_combination(listed.code)
            }
        elif event.kind == EventKind.INSTRUMENT_LISTED:
            if not is_combination(state.instruments[event.instrument].code):
                self.began[event.instrument] = event.price
            listed = listing(at.text)
            if listed is not None:
                day = listed.last_trading_day
                self.last_days[event.instrument] = number_of(day)
        elif event.kind in CORRECTIONS:
            price = None if event.kind == EventKind.TRADE_BUSTED else event.price
            self.corrected[event.order_id] = Corrected(at.number, price)
        else:
            self.cycles[event.instrument] = event.quantity
            if self.closed:
                if event.instrument not in self.final:
                    self.final.append(event.instrument)
                self.approved.pop(event.instrument, None)
        return []

    def prior(self, state: "State") -> dict[int, int]:
        """Return the prior price of every expiry that has not expired, as the rules use it.

        It is the settlement price at the beginning of the date, without regard to intraday cycles;
        for an expiry listed since, its first mark.
        """
        return {n: price for n, price in self.began.items() if not state.instruments[n].expired}

    def ended(self, date: int) -> frozenset[int]:
        """Return the instruments past their last trading day on a business date."""
        return frozenset(number for number, last in self.last_days.items() if last < date)

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Store an approved price."""
        ruling = self.would(record, at, state)
        if ruling.outcome == ACCEPTED:
            self.approved[record.instrument] = record.price
        return ruling

    def would(self, record: Any, at: At, state: "State") -> Ruling:
        """Return the ruling that an approved price would get now."""
        operation, done = "set_price", record.instrument in self.final
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        listed = state.instruments.get(record.instrument)
        if listed is None or listed.expired or is_combination(listed.code):
            return refused(operation, Denial.UNKNOWN_INSTRUMENT, 0, record.instrument)
        if record.business_date != state.business_date:
            observed = record.business_date
            return refused(operation, Denial.SETTLED, state.business_date, observed)
        if not 0 < record.price <= Limit.PRICE:
            return refused(operation, Denial.PRICE_RANGE, int(Limit.PRICE), record.price)
        if record.correction != done:
            return refused(operation, Denial.SETTLED, int(done), int(record.correction))
        facts = {"instrument": record.instrument, "code": listed.code, "price": record.price,
                 "replaces": self.approved.get(record.instrument)}  # fmt: skip
        return Ruling(operation, ACCEPTED, facts)
