"""Fixings, and the final settlement prices of cash contracts: the mean of their month's fixings.

Fixings are recorded in the log, and each counts from the stamp of its record on, so the price of a
month is a function of the log. The rules for withheld days are those of contracts.index.settlement.
The final settlement price of a physical contract is its last settlement price.
"""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from contracts.calendar import Month
from contracts.decimal_text import parse_price
from contracts.index import methodology
from contracts.index.settlement import FinalPrice, final_price
from contracts.spec import PHYSICAL, Instrument
from exchange.clearing.matters import ACCEPTED, MALFORMED, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, Limit
from exchange.messages.dates import date_of

if TYPE_CHECKING:
    from exchange.clearing.state import State

PRICE_DECIMALS: Final = 6


class FixingRecorded(Record, frozen=True, kw_only=True, tag="record_fixing"):
    """An index's fixing of a day; ``price`` is in dollars, empty if it was withheld."""

    index: str
    date: int
    revision: int
    state: str
    reason: str = ""
    price: str = ""
    inputs_hash: str = ""
    tape_hash: str = ""


class Fixing(msgspec.Struct, frozen=True):
    """A recorded fixing; ``known_ns`` is the stamp of its record."""

    date: datetime.date
    revision: int
    price_micros: int | None
    inputs_hash: str
    known_ns: int

    @property
    def content(self) -> str:
        """The price, and the hash of its inputs."""
        return f"{self.price_micros} {self.inputs_hash}"


def fixing_of(record: FixingRecorded, known_ns: int) -> Fixing:
    """Return the fixing of a record. ValueError, OverflowError: its date, revision or price is
    none."""
    day = date_of(record.date)
    price = parse_price(record.price, PRICE_DECIMALS) if record.price else None
    if record.revision < 0 or (price is not None and not 0 < price <= Limit.PRICE):
        raise ValueError(f"revision {record.revision} or price {price} is out of range")
    return Fixing(day, record.revision, price, record.inputs_hash, known_ns)


class Average(msgspec.Struct, frozen=True):
    """What a cash contract settles on: the mean of an index over a month."""

    index: str
    month: str


def listing(text: str) -> Instrument | None:
    """Return the terms in a listing's text; None if it is not that of a contract."""
    try:
        return Instrument.from_json(text)
    except msgspec.DecodeError:
        return None


class Fixings(Matter):
    """The index of each listed cash contract, and the fixings that may still be needed: of the last
    month, of months not settled yet, and for deliveries to be bought in."""

    name: ClassVar[str] = "fixings"
    records: ClassVar[tuple[type[Record], ...]] = (FixingRecorded,)
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.INSTRUMENT_LISTED,
        EventKind.INSTRUMENT_EXPIRED,
    )
    by_index: dict[str, list[Fixing]] = msgspec.field(default_factory=dict)
    averages: dict[int, Average] = msgspec.field(default_factory=dict)  # by instrument, of cash

    def saw(self, event: Event, at: At, state: "State") -> tuple[Ruling, ...]:
        """Note a listed contract's index; after an expiry drop what is not needed any more."""
        if event.kind == EventKind.INSTRUMENT_EXPIRED:
            self.averages.pop(event.instrument, None)
            self._forget(at, state)
            return ()
        listed = listing(at.text)
        if listed is not None and listed.settlement != PHYSICAL:
            self.averages[event.instrument] = Average(listed.index, listed.expiry)
        return ()

    def _forget(self, at: At, state: "State") -> None:
        """Drop fixings of months before the last one that no contract or buy-in needs."""
        from exchange.clearing.delivery.matter import Deliveries  # noqa: PLC0415 - imports this

        deliveries = state.matters.get(Deliveries).deliveries
        days = [at.business_date]
        days += [one.failed_on for one in deliveries if one.stage == "failing"]
        months = [str(Month(day // 10_000, day // 100 % 100).plus(-1)) for day in days if day]
        first = min([*months, *(average.month for average in self.averages.values())], default="")
        for index, fixings in list(self.by_index.items()):
            self.by_index[index] = [one for one in fixings if str(Month.of(one.date)) >= first]
            if not self.by_index[index]:
                del self.by_index[index]

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Store a fixing. A revision of a day has one price and one hash of its inputs: the engine
        remembers its request for a while, this for as long as the fixing may be needed."""
        assert isinstance(record, FixingRecorded)
        if at.account != HOUSE_ACCOUNT:
            return refused("record_fixing", Denial.NOT_YOURS, at.account, HOUSE_ACCOUNT)
        try:
            fixing = fixing_of(record, at.stamp)
        except (ValueError, OverflowError) as wrong:
            return Ruling("record_fixing", MALFORMED, {"why": str(wrong)})
        facts = {"index": record.index, "date": record.date}
        fixings = self.by_index.setdefault(record.index, [])
        for one in fixings:
            if (one.date, one.revision) == (fixing.date, fixing.revision):
                if one.content == fixing.content:
                    return Ruling("record_fixing", ACCEPTED, facts | {"before": True})
                return refused("record_fixing", Denial.DUPLICATE, one.content, fixing.content)
        fixings.append(fixing)
        return Ruling("record_fixing", ACCEPTED, facts)

    def fixing(self, index: str, day: datetime.date, known_ns: int) -> Fixing | None:
        """Return the highest revision of a day's fixing that was recorded by ``known_ns``."""
        found = [
            f for f in self.by_index.get(index, ()) if f.date == day and f.known_ns <= known_ns
        ]
        return max(found, key=lambda fixing: fixing.revision, default=None)

    def withheld(self, on: datetime.date) -> dict[int, int]:
        """Return the number of days, by contract, up to ``on`` in its month whose latest fixing is
        withheld."""
        latest = {index: self._latest(index) for index in self.by_index}
        found = {
            number: sum(
                day <= on and fixing.price_micros is None and str(Month.of(day)) == average.month
                for day, fixing in latest.get(average.index, {}).items()
            )
            for number, average in self.averages.items()
        }
        return {number: count for number, count in found.items() if count}

    def since(self, index: str, day: datetime.date) -> Fixing | None:
        """Return the fixing of the first day on or after ``day`` whose latest revision has a price,
        or None."""
        found = [f for on, f in self._latest(index).items() if on >= day and f.price_micros]
        return min(found, key=lambda fixing: fixing.date, default=None)

    def latest(self, index: str) -> int | None:
        """Return the price of the last day whose latest revision has one, or None."""
        priced = {on: f.price_micros for on, f in self._latest(index).items() if f.price_micros}
        return priced[max(priced)] if priced else None

    def _latest(self, index: str) -> dict[datetime.date, Fixing]:
        """Return the highest revision of every day's fixing."""
        latest: dict[datetime.date, Fixing] = {}
        for one in self.by_index.get(index, ()):
            if one.date not in latest or latest[one.date].revision <= one.revision:
                latest[one.date] = one
        return latest

    def final(self, index: str, month: str, market_micros: Sequence[int]) -> FinalPrice:
        """Return the final settlement price of a month; ``market_micros`` as in ``final_price``.

        MonthIncomplete if a day's fixing is missing; LookupError: no such index.
        """
        return final_price(methodology.load().index(index), Month.parse(month), self, market_micros)
