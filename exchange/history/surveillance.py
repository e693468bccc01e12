"""Detects patterns of abuse in the log. Every pattern has an exact definition.

Every finding names sequences, so that ``hourbook log why`` and ``replay --until`` show what was
done. A finding is a question to its account, not a verdict. Definitions: docs/reference/audit.md.
Time is the stamp of the frame.
"""

from typing import Any, Final

from exchange.history.patterns import (
    Closes,
    Finding,
    OneOwner,
    RoundTrips,
    Stuffing,
    Thresholds,
    leg_match,
    match_of,
)
from exchange.history.picture import Picture
from exchange.history.records import TRADE, EventRow, event_row, kinds_of
from exchange.history.spoofing import WITHDRAWN, Spoofing
from exchange.history.walk import time_text
from exchange.journal.frame import Frame
from exchange.messages import EventFlag, EventKind

PATTERNS: Final = ("one_owner", "round_trip", "spoofing", "marking_the_close", "stuffing")
_BY_AUCTION: Final = 2  # reason of an ORDER_REPLACED that the market made
_ENDED: Final = frozenset({EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED})
_TOLD: Final = frozenset(
    {
        TRADE,
        EventKind.ORDER_ACCEPTED,
        EventKind.ORDER_REPLACED,
        EventKind.ORDER_ELECTED,
        EventKind.ORDER_DORMANT,
        EventKind.ORDER_EXECUTED,
        EventKind.LEG_TRADE,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.STATE_CHANGED,
        EventKind.DAY_OPENED,
        EventKind.DAY_CLOSED,
        *_ENDED,
    }
)


def is_own(row: EventRow, kind: int) -> bool:
    """Whether an event of an order answers a command of its account: not what the market does to
    the order, such as ending it with the day."""
    if kind in _ENDED:
        return row[4] in WITHDRAWN
    return kind == EventKind.ORDER_ACCEPTED or row[4] != _BY_AUCTION


class Surveillance:
    """Runs all patterns over a log. Call ``take`` with every batch, then ``finish``.

    ``findings`` are in the order of the log.
    """

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        of = thresholds or Thresholds()
        self.picture = Picture()
        self.findings: list[Finding] = []
        self._one_owner = OneOwner(self.picture.accounts)
        self._round_trips, self._spoofing = RoundTrips(of), Spoofing(of)
        self._closes, self._stuffing = Closes(of), Stuffing(of)
        self._date = 0  # of the event in hand
        self._implied = (0, 0)  # sequence and index of the last trade with an implied price

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
        date, report = self._date, self.findings.append
        if kind == TRADE:
            match = match_of(row, stamp)
            self._one_owner.traded(match, date, report)
            self._round_trips.traded(match, date, report)
            self._spoofing.traded(match)
            self._closes.traded(match)
            self._stuffing.traded(match, date, report)
        elif kind == EventKind.ORDER_EXECUTED:
            if not row[4]:
                self._implied = row[:2]
            self._spoofing.executed(row, stamp)
            self._stuffing.dealt(row[5], row[6], stamp, date, report)
        elif kind == EventKind.LEG_TRADE:
            self._leg(row, stamp)
        elif kind == EventKind.ORDER_ELECTED:
            self._spoofing.elected(row, stamp)
        elif kind == EventKind.ORDER_DORMANT:
            self._spoofing.hidden(row)
        elif kind == EventKind.INSTRUMENT_SETTLED:
            self._closes.settled(row, stamp, date, report)
        elif kind == EventKind.STATE_CHANGED:
            self._closes.changed(row, stamp)
        elif kind == EventKind.DAY_CLOSED:
            self._closes.day_closed(stamp)
        elif kind == EventKind.DAY_OPENED:
            self._date = row[9]
            self._closes.day_opened()
        else:
            self._of_order(row, kind, stamp)

    def _leg(self, row: EventRow, stamp: int) -> None:
        """Apply a leg of a trade with an implied price. Of a combination's own trade the trade
        counts, and not its legs."""
        listed = self.picture.listed(row[5])
        if (row[0], row[10]) == self._implied and listed is not None:
            date, report = self._date, self.findings.append
            match = leg_match(row, stamp, listed.tick_scale)
            self._one_owner.traded(match, date, report)
            self._round_trips.traded(match, date, report)

    def _of_order(self, row: EventRow, kind: int, stamp: int) -> None:
        date, report = self._date, self.findings.append
        if is_own(row, kind):
            self._stuffing.said(row, stamp, date, report)
        shows = {
            EventKind.ORDER_ACCEPTED: self._spoofing.accepted,
            EventKind.ORDER_REPLACED: self._spoofing.replaced,
            EventKind.ORDER_REDUCED: self._spoofing.reduced,
            EventKind.ORDER_CANCELLED: self._spoofing.cancelled,
        }
        shows[EventKind(kind)](row, stamp, date, report)

    def finish(self) -> None:
        """End the search at the end of the log."""
        self._stuffing.finish(self.findings.append)
        # A second is judged when the next one begins, which may be much later
        self.findings.sort(key=lambda found: found.last_sequence)

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
