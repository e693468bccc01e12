"""Detects lots that an account shows, and withdraws as soon as it has traded on the other side."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from exchange.history.patterns import Finding, Match, Report, Thresholds
from exchange.history.records import EventRow
from exchange.history.walk import NS
from exchange.messages import CancelReason, EventFlag

# Cancel reasons that mean that the owner withdrew the lots.
WITHDRAWN: Final = frozenset(
    {
        CancelReason.REQUESTED,
        CancelReason.MASS_CANCELLED,
        CancelReason.REDUCED,
        CancelReason.QUOTE,
    }
)
_REPLACED: Final = int(CancelReason.REPLACED)


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

    stamp: int  # of the first trade
    sequence: int
    side: int  # of what was shown
    shown: dict[int, Shown]
    traded: int
    cancelled: int = 0


class Spoofing:
    """Large orders are shown shortly before the account trades on the other side, then
    withdrawn."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._within = thresholds.spoofing_seconds * NS
        self._ratio = thresholds.spoofing_ratio
        # By instrument and account: orders by id, in the order of their stamps
        self._shown: defaultdict[tuple[int, int], dict[int, Shown]] = defaultdict(dict)
        self._suspicions: dict[tuple[int, int], Suspicion] = {}
        # The last command that traded, by instrument, account and side, and its lots so far
        self._taken: dict[tuple[int, int, int], tuple[int, int]] = {}
        # An order that gives way to another under a new id: sequence, order id, what it showed
        self._moved: tuple[int, int, Shown] | None = None

    def accepted(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Remember an order that rests; one under a new id is still the order that it replaces."""
        key = row[5], row[6]
        moved, self._moved = self._moved, None
        if moved is not None and moved[0] == row[0]:
            self._renamed(key, moved[1], row[7])
            self._fewer(key, row, moved[2], row[9], stamp, date, report)
        if row[10]:
            side = 1 if row[3] & EventFlag.SELL else 0
            self._shown[key][row[7]] = Shown(side, row[10], stamp, row[0])

    def _renamed(self, key: tuple[int, int], before: int, after: int) -> None:
        suspicion = self._suspicions.get(key)
        if suspicion is not None and before in suspicion.shown:
            suspicion.shown[after] = suspicion.shown.pop(before)

    def reduced(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Note how many lots a reduced order still shows."""
        shown = self._shown[row[5], row[6]].get(row[7])
        if shown is None:
            return
        if row[4] in WITHDRAWN:
            gone = min(row[9] - row[14], shown.lots)  # without an iceberg's hidden lots
            self._withdrawn(shown, gone, row, stamp, date, report)
        shown.lots = min(shown.lots, row[10])

    def replaced(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Note what a replaced order shows; one that lost its place is shown anew."""
        key = row[5], row[6]
        shown = self._shown[key].get(row[7])
        if shown is None:
            return
        self._fewer(key, row, shown, row[9], stamp, date, report)
        shown.lots = row[10]
        if not row[4]:
            shown.stamp, shown.sequence = stamp, row[0]
            self._shown[key][row[7]] = self._shown[key].pop(row[7])

    def _fewer(
        self, key: tuple[int, int], row: EventRow, shown: Shown, lots: int, stamp: int, date: int,
        report: Report,
    ) -> None:  # fmt: skip
        """Lots that a replacement leaves out are withdrawn."""
        if lots < shown.lots:
            self._withdrawn(shown, shown.lots - lots, row, stamp, date, report)

    def executed(self, row: EventRow, stamp: int) -> None:
        """Drop an order that traded through an implied price; begin or extend a suspicion."""
        side = 1 if row[3] & EventFlag.SELL else 0
        self._dealt((row[5], row[6]), side, row[7], row[9], stamp, row[0])

    def _real(self, key: tuple[int, int], order_id: int) -> None:
        self._shown[key].pop(order_id, None)
        suspicion = self._suspicions.get(key)
        if suspicion is not None:
            suspicion.shown.pop(order_id, None)

    def traded(self, match: Match) -> None:
        """Drop the orders that traded; begin or extend a suspicion of either account."""
        for side, party in enumerate(match.parties):
            key = match.instrument, party
            self._dealt(key, side, match.orders[side], match.lots, match.stamp, match.sequence)

    def _dealt(
        self, key: tuple[int, int], side: int, order_id: int, lots: int, stamp: int, sequence: int
    ) -> None:
        """Note lots that an account's order traded."""
        self._real(key, order_id)
        last, before = self._taken.get((*key, side), (0, 0))
        together = lots + (before if last == sequence else 0)
        self._taken[(*key, side)] = sequence, together
        suspicion = self._suspicion(key, stamp)
        if suspicion is None:
            fresh = self._fresh(key, 1 - side, stamp)
            if sum(one.lots for one in fresh.values()) >= self._ratio * together:
                self._suspicions[key] = Suspicion(stamp, sequence, 1 - side, fresh, together)
        elif suspicion.side != side:
            suspicion.traded += lots

    def _fresh(self, key: tuple[int, int], side: int, stamp: int) -> dict[int, Shown]:
        """Return what an account began to show on a side a short while ago: the youngest come last,
        so however many it shows in all, no others are looked at."""
        fresh = {}
        for order_id, one in reversed(self._shown[key].items()):
            if stamp - one.stamp > self._within:
                break
            if one.side == side:
                fresh[order_id] = one
        return fresh

    def _suspicion(self, key: tuple[int, int], stamp: int) -> Suspicion | None:
        suspicion = self._suspicions.get(key)
        if suspicion is not None and stamp - suspicion.stamp > self._within:
            del self._suspicions[key]
            return None
        return suspicion

    def cancelled(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Count a cancelled order towards its account's suspicion."""
        key = row[5], row[6]
        shown = self._shown[key].pop(row[7], None)
        if shown is None:
            return
        if row[4] == _REPLACED:
            self._moved = row[0], row[7], shown
        elif row[4] in WITHDRAWN:
            self._withdrawn(shown, shown.lots, row, stamp, date, report)
        else:
            self._real(key, row[7])

    def _withdrawn(
        self, shown: Shown, lots: int, row: EventRow, stamp: int, date: int, report: Report
    ) -> None:
        """Count withdrawn lots towards the account's suspicion; report if that is complete."""
        key = row[5], row[6]
        suspicion = self._suspicion(key, stamp)
        if suspicion is None or row[7] not in suspicion.shown:
            return
        suspicion.cancelled += lots
        if suspicion.cancelled < self._ratio * suspicion.traded:
            return
        del self._suspicions[key]
        words = (
            f"showed {suspicion.cancelled} lots to {('buy', 'sell')[suspicion.side]},"
            f" {('sold', 'bought')[suspicion.side]} {suspicion.traded}, withdrew what it had shown"
        )
        report(
            Finding(
                "spoofing", row[5], row[6], date, stamp,
                min(shown.sequence, suspicion.sequence), row[0], suspicion.cancelled, words,
            )
        )  # fmt: skip
