"""Detects patterns of abuse in the log. Every pattern has an exact definition.

Every finding names sequences, so that ``hourbook log why`` and ``replay --until`` show what was
done. A finding is a question to its account, not a verdict. Definitions: docs/reference/audit.md.
Time is the stamp of the frame; prices are in ticks.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from exchange.history.picture import Picture
from exchange.history.records import TRADE, EventRow, event_row, kinds_of
from exchange.history.walk import NS, time_text
from exchange.journal.frame import Frame
from exchange.messages import CancelReason, EventFlag, EventKind

# Cancel reasons that mean that the owner withdrew the order.
WITHDRAWN: Final = frozenset({CancelReason.REQUESTED, CancelReason.MASS_CANCELLED})
PATTERNS: Final = ("round_trip", "spoofing", "marking_the_close", "stuffing")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which a pattern is reported. Times in seconds of the log."""

    round_trip_seconds: int = 60  # at most, between a trade and the reverse trade
    round_trip_ticks: int = 1  # largest difference of their prices
    spoofing_seconds: int = 5  # from entry to the trade, and from the trade to the cancel
    spoofing_ratio: int = 4  # least lots shown and cancelled per lot traded on the other side
    close_seconds: int = 30  # before the date's last settlement
    close_share: int = 60  # least per cent of the window's volume on one side
    close_ticks: int = 3  # least move of the price in that direction
    close_lots: int = 10  # least volume of the window
    stuffing_messages: int = 200  # least number in an instrument within a second
    stuffing_share: int = 1  # most per cent of them that traded


class Finding(NamedTuple):
    """One occurrence: the account, the sequences and a description.

    ``lots`` is the number of messages for ``stuffing``.
    """

    pattern: str
    instrument: int
    account: int
    business_date: int
    stamp: int
    first_sequence: int
    last_sequence: int
    lots: int
    words: str


Report = Callable[[Finding], None]


class Match(NamedTuple):
    """A trade, with buyer and seller."""

    stamp: int
    sequence: int
    instrument: int
    price: int
    lots: int
    parties: tuple[int, int]  # buyer, seller
    orders: tuple[int, int]


def match_of(row: EventRow, stamp: int) -> Match:
    """Return a TRADE event as a Match."""
    taker, maker = (row[6], row[7]), (row[12] & 0xFFFF_FFFF, row[11])
    buyer, seller = (maker, taker) if row[3] & EventFlag.SELL else (taker, maker)
    parties, orders = (buyer[0], seller[0]), (buyer[1], seller[1])
    return Match(stamp, row[0], row[5], row[8], row[9], parties, orders)


class RoundTrips:
    """Two accounts trade, and soon trade the same lots back at about the same price."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._within = thresholds.round_trip_seconds * NS
        self._ticks = thresholds.round_trip_ticks
        self._open: defaultdict[tuple[int, int, int], deque[Match]] = defaultdict(deque)

    def traded(self, match: Match, date: int, report: Report) -> None:
        """Report this trade if it reverses an earlier one; otherwise remember it."""
        buyer, seller = match.parties
        there = self._open[match.instrument, seller, buyer]
        here = self._open[match.instrument, buyer, seller]
        for old in (there, here):
            while old and match.stamp - old[0].stamp > self._within:
                old.popleft()
        for first in there:
            if first.lots == match.lots and abs(first.price - match.price) <= self._ticks:
                there.remove(first)
                words = f"sold {match.lots} lots to account {buyer} that it had bought from it"
                report(
                    Finding(
                        "round_trip", match.instrument, seller, date, match.stamp, first.sequence,
                        match.sequence, match.lots, words,
                    )
                )  # fmt: skip
                return
        here.append(match)


@dataclass(slots=True)
class Shown:
    """A resting order that has not traded."""

    side: int
    lots: int
    stamp: int
    sequence: int


@dataclass(slots=True)
class Suspicion:
    """An account traded while it showed much more on the other side, and may now cancel that."""

    match: Match  # the first
    side: int  # of what was shown
    shown: dict[int, Shown]
    traded: int
    cancelled: int = 0


class Spoofing:
    """Large orders are shown shortly before the account trades on the other side, then
    cancelled."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._within = thresholds.spoofing_seconds * NS
        self._ratio = thresholds.spoofing_ratio
        self._shown: defaultdict[tuple[int, int], dict[int, Shown]] = defaultdict(dict)
        self._suspicions: dict[tuple[int, int], Suspicion] = {}

    def accepted(self, row: EventRow, stamp: int) -> None:
        """Remember an order that rests."""
        if row[10]:
            side = 1 if row[3] & EventFlag.SELL else 0
            self._shown[row[5], row[6]][row[7]] = Shown(side, row[10], stamp, row[0])

    def changed(self, row: EventRow) -> None:
        """Note how many lots a reduced or replaced order still shows."""
        shown = self._shown[row[5], row[6]].get(row[7])
        if shown is not None:
            shown.lots = row[10]

    def traded(self, match: Match) -> None:
        """Drop the orders that traded; begin or extend a suspicion of either account."""
        for side, party in enumerate(match.parties):
            key = match.instrument, party
            shown = self._shown[key]
            shown.pop(match.orders[side], None)
            suspicion = self._suspicion(key, match.stamp)
            if suspicion is None:
                fresh = {
                    order_id: one
                    for order_id, one in shown.items()
                    if one.side != side and match.stamp - one.stamp <= self._within
                }
                if sum(one.lots for one in fresh.values()) >= self._ratio * match.lots:
                    self._suspicions[key] = Suspicion(match, 1 - side, fresh, match.lots)
            elif suspicion.side == side:
                suspicion.shown.pop(match.orders[side], None)
            else:
                suspicion.traded += match.lots

    def _suspicion(self, key: tuple[int, int], stamp: int) -> Suspicion | None:
        suspicion = self._suspicions.get(key)
        if suspicion is not None and stamp - suspicion.match.stamp > self._within:
            del self._suspicions[key]
            return None
        return suspicion

    def cancelled(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Count a cancelled order towards its account's suspicion; report if that is complete."""
        key = row[5], row[6]
        self._shown[key].pop(row[7], None)
        suspicion = self._suspicion(key, stamp)
        if suspicion is None:
            return
        shown = suspicion.shown.pop(row[7], None)
        if shown is None or row[4] not in WITHDRAWN:
            return
        suspicion.cancelled += shown.lots
        if suspicion.cancelled < self._ratio * suspicion.traded:
            return
        del self._suspicions[key]
        words = (
            f"showed {suspicion.cancelled} lots to {('buy', 'sell')[suspicion.side]},"
            f" {('sold', 'bought')[suspicion.side]} {suspicion.traded}, cancelled what it had shown"
        )
        report(
            Finding(
                "spoofing", row[5], row[6], date, stamp,
                min(shown.sequence, suspicion.match.sequence), row[0], suspicion.cancelled, words,
            )
        )  # fmt: skip


class Closes:
    """One account has most of a side just before a settlement, and the price moves its way."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._of = thresholds
        self._trades: defaultdict[int, deque[Match]] = defaultdict(deque)
        self._before: dict[int, int] = {}  # the last price before the window

    def _forget(self, instrument: int, stamp: int) -> None:
        trades = self._trades[instrument]
        while trades and stamp - trades[0].stamp > self._of.close_seconds * NS:
            self._before[instrument] = trades.popleft().price

    def traded(self, match: Match) -> None:
        """Add a trade to the window."""
        self._forget(match.instrument, match.stamp)
        self._trades[match.instrument].append(match)

    def settled(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Evaluate the window that ends with this settlement."""
        instrument = row[5]
        self._forget(instrument, stamp)
        window = self._trades.pop(instrument, deque())
        before = self._before.get(instrument)
        if window:
            self._before[instrument] = window[-1].price
        volume = sum(match.lots for match in window)
        if before is None or volume < self._of.close_lots:
            return
        for side, sign in ((0, 1), (1, -1)):
            moved = sign * (window[-1].price - before)
            if moved < self._of.close_ticks:
                continue
            lots: defaultdict[int, int] = defaultdict(int)
            for match in window:
                lots[match.parties[side]] += match.lots
            account, most = max(lots.items(), key=lambda one: (one[1], -one[0]))
            if most * 100 >= self._of.close_share * volume:
                words = (
                    f"{('bought', 'sold')[side]} {most} of {volume} lots before the settlement;"
                    f" the price went {moved} ticks its way"
                )
                report(
                    Finding(
                        "marking_the_close", instrument, account, date, stamp, window[0].sequence,
                        row[0], most, words,
                    )
                )  # fmt: skip


@dataclass(slots=True)
class Second:
    """Messages and trades of an account in an instrument within one second of the log."""

    second: int = -1
    first_sequence: int = 0
    last_sequence: int = 0
    messages: int = 0
    traded: int = 0


@dataclass(slots=True)
class Stuffing:
    """Very many orders, changes and cancels within a second, almost none of which trade."""

    thresholds: Thresholds
    _seconds: dict[tuple[int, int], Second] = field(default_factory=dict)

    def _now(self, key: tuple[int, int], stamp: int, date: int, report: Report) -> Second:
        now = self._seconds.setdefault(key, Second())
        if now.second != stamp // NS:
            self._judge(key, now, date, report)
            now = self._seconds[key] = Second(stamp // NS)
        return now

    def said(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Count an order that was accepted, replaced, reduced or cancelled."""
        now = self._now((row[5], row[6]), stamp, date, report)
        now.first_sequence = now.first_sequence or row[0]
        now.last_sequence = row[0]
        now.messages += 1

    def traded(self, match: Match, date: int, report: Report) -> None:
        """Count a trade for both accounts."""
        for party in match.parties:
            self._now((match.instrument, party), match.stamp, date, report).traded += 1

    def finish(self, date: int, report: Report) -> None:
        """Evaluate the current seconds at the end of the log."""
        for key, now in sorted(self._seconds.items()):
            self._judge(key, now, date, report)
        self._seconds.clear()

    def _judge(self, key: tuple[int, int], now: Second, date: int, report: Report) -> None:
        most = self.thresholds.stuffing_share * now.messages
        if now.messages < self.thresholds.stuffing_messages or now.traded * 100 > most:
            return
        words = f"{now.messages} messages within a second, {now.traded} trades"
        report(
            Finding(
                "stuffing", key[0], key[1], date, now.second * NS, now.first_sequence,
                now.last_sequence, now.messages, words,
            )
        )  # fmt: skip


_SAID: Final = frozenset(
    {
        EventKind.ORDER_ACCEPTED,
        EventKind.ORDER_CANCELLED,
        EventKind.ORDER_REDUCED,
        EventKind.ORDER_REPLACED,
    }
)
_TOLD: Final = frozenset({TRADE, EventKind.INSTRUMENT_SETTLED, *_SAID})


class Surveillance:
    """Runs all patterns over a log. Call ``take`` with every batch, then ``finish``.

    ``findings`` are in the order of the log.
    """

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        of = thresholds or Thresholds()
        self.picture = Picture()
        self.findings: list[Finding] = []
        self._round_trips, self._spoofing = RoundTrips(of), Spoofing(of)
        self._closes, self._stuffing = Closes(of), Stuffing(of)

    def take(self, frame: Frame, events: bytes) -> None:
        """Apply a batch."""
        self.picture.take(frame, events)
        stamp = frame.opening.stamp
        for number, kind in enumerate(kinds_of(events)):
            if kind in _TOLD:
                row = event_row(events, number)
                if not row[3] & EventFlag.DUPLICATE:
                    self._apply(row, kind, stamp)

    def _apply(self, row: EventRow, kind: int, stamp: int) -> None:
        date, report = self.picture.business_date, self.findings.append
        if kind == TRADE:
            match = match_of(row, stamp)
            self._round_trips.traded(match, date, report)
            self._spoofing.traded(match)
            self._closes.traded(match)
            self._stuffing.traded(match, date, report)
        elif kind == EventKind.INSTRUMENT_SETTLED:
            self._closes.settled(row, stamp, date, report)
        else:
            self._stuffing.said(row, stamp, date, report)
            if kind == EventKind.ORDER_ACCEPTED:
                self._spoofing.accepted(row, stamp)
            elif kind == EventKind.ORDER_CANCELLED:
                self._spoofing.cancelled(row, stamp, date, report)
            else:
                self._spoofing.changed(row)

    def finish(self) -> None:
        """End the search at the end of the log."""
        self._stuffing.finish(self.picture.business_date, self.findings.append)

    def rows(self, patterns: tuple[str, ...] = PATTERNS) -> list[dict[str, Any]]:
        """Return the findings of these patterns as rows for tables and files."""
        return [
            {
                "pattern": found.pattern,
                "business_date": found.business_date,
                "time": time_text(found.stamp),
                "instrument": self.picture.code(found.instrument),
                "account": found.account,
                "member": self.picture.accounts[found.account].member,
                "first_sequence": found.first_sequence,
                "last_sequence": found.last_sequence,
                "lots": found.lots,
                "what": found.words,
            }
            for found in self.findings
            if found.pattern in patterns
        ]
