"""Detects lots that an account shows, and withdraws as soon as it has traded on the other side."""

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Final, NamedTuple

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
Key = tuple[int, int, int]  # instrument, account, side


class Since(NamedTuple):
    """When an order was entered or moved. ``number`` counts these moments and suspicions alike, so
    that of two it says which came first."""

    stamp: int
    sequence: int
    number: int


@dataclass(slots=True)
class Shown:
    """A resting order that has not traded.

    ``since``, oldest first: its last entry or move, and those before it that a suspicion of that
    time goes by.
    """

    lots: int
    since: list[Since]


@dataclass(slots=True)
class Suspicion:
    """A command traded while its account showed much more on the other side, and the account may
    now withdraw that."""

    stamp: int
    sequence: int
    number: int
    traded: int
    withdrawn: int = 0


class Spoofing:
    """Large orders are shown shortly before the account trades on the other side, then
    withdrawn."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._within = thresholds.spoofing_seconds * NS
        self._ratio = thresholds.spoofing_ratio
        # Orders by id, in the order of their stamps
        self._shown: defaultdict[Key, dict[int, Shown]] = defaultdict(dict)
        # By the side of what was shown: the last trades on the other side, oldest first
        self._suspicions: defaultdict[Key, deque[Suspicion]] = defaultdict(deque)
        # The last command that traded, and its lots so far
        self._taken: dict[Key, tuple[int, int]] = {}
        # An order that gives way to another under a new id: sequence, what it showed
        self._moved: tuple[int, Shown] | None = None
        self._count = 0

    def _now(self, stamp: int, sequence: int) -> Since:
        self._count += 1
        return Since(stamp, sequence, self._count)

    def accepted(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Remember an order that rests; one under a new id is still the order that it replaces."""
        key, shown = _key(row), Shown(row[10], [])
        moved, self._moved = self._moved, None
        if moved is not None and moved[0] == row[0]:
            shown.since = moved[1].since
            self._fewer(key, row, moved[1], stamp, date, report)
        if row[10]:
            self._anew(key, shown, stamp, row[0])
            self._shown[key][row[7]] = shown

    def elected(self, row: EventRow, stamp: int) -> None:
        """Remember a stop that rests: until now nobody saw it."""
        if row[10]:
            shown = self._shown[_key(row)][row[7]] = Shown(row[10], [])
            self._anew(_key(row), shown, stamp, row[0])

    def hidden(self, row: EventRow) -> None:
        """Drop an order that waits outside the book: nobody sees it any more."""
        self._shown[_key(row)].pop(row[7], None)

    def _anew(self, key: Key, shown: Shown, stamp: int, sequence: int) -> None:
        """Note that an order was entered or moved now. When it was before is still of account for
        suspicions that are as old."""
        live, since = self._live(key, stamp), shown.since
        if not live:
            since.clear()
        elif since and since[-1].number > live[-1].number:
            since.pop()  # no suspicion goes by it
        while len(since) > 1 and since[1].number < live[0].number:
            del since[0]
        since.append(self._now(stamp, sequence))

    def reduced(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Note how many lots a reduced order still shows."""
        key = _key(row)
        shown = self._shown[key].get(row[7])
        if shown is None:
            return
        if row[4] in WITHDRAWN:
            gone = min(row[9] - row[14], shown.lots)  # without an iceberg's hidden lots
            self._withdrawn(key, shown, gone, row, stamp, date, report)
        shown.lots = min(shown.lots, row[10])

    def replaced(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Note what a replaced order shows; one that lost its place is shown anew."""
        key = _key(row)
        shown = self._shown[key].get(row[7])
        if shown is None:
            return
        self._fewer(key, row, shown, stamp, date, report)
        shown.lots = row[10]
        if not row[4]:
            self._anew(key, shown, stamp, row[0])
            self._shown[key][row[7]] = self._shown[key].pop(row[7])

    def _fewer(
        self, key: Key, row: EventRow, shown: Shown, stamp: int, date: int, report: Report
    ) -> None:
        """Lots that a replacement leaves out are withdrawn."""
        if row[9] < shown.lots:
            self._withdrawn(key, shown, shown.lots - row[9], row, stamp, date, report)

    def executed(self, row: EventRow, stamp: int) -> None:
        """Drop an order that traded through an implied price; suspect its account."""
        self._dealt(_key(row), row[7], row[9], stamp, row[0])

    def traded(self, match: Match) -> None:
        """Drop the orders that traded; suspect both accounts."""
        for side, party in enumerate(match.parties):
            key = match.instrument, party, side
            self._dealt(key, match.orders[side], match.lots, match.stamp, match.sequence)

    def _dealt(self, key: Key, order_id: int, lots: int, stamp: int, sequence: int) -> None:
        """Note lots that an account's order traded."""
        self._shown[key].pop(order_id, None)
        last, before = self._taken.get(key, (0, 0))
        together = lots + (before if last == sequence else 0)
        self._taken[key] = sequence, together
        other = key[0], key[1], 1 - key[2]
        live = self._live(other, stamp)
        if live and live[-1].sequence == sequence:
            live[-1].traded = together
        elif self._shows(other, stamp, self._ratio * together):
            live.append(Suspicion(*self._now(stamp, sequence), together))

    def _shows(self, key: Key, stamp: int, lots: int) -> bool:
        """Whether an account began to show that many lots a short while ago: the youngest come
        last, so however many it shows in all, no others are looked at."""
        for one in reversed(self._shown[key].values()):
            if lots <= 0 or stamp - one.since[-1].stamp > self._within:
                break
            lots -= one.lots
        return lots <= 0

    def _live(self, key: Key, stamp: int) -> deque[Suspicion]:
        """Return the suspicions that what is withdrawn now may still confirm."""
        live = self._suspicions[key]
        while live and stamp - live[0].stamp > self._within:
            live.popleft()
        return live

    def cancelled(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Count a cancelled order towards its account's suspicions."""
        key = _key(row)
        shown = self._shown[key].pop(row[7], None)
        if shown is None:
            return
        if row[4] == _REPLACED:
            self._moved = row[0], shown
        elif row[4] in WITHDRAWN:
            self._withdrawn(key, shown, shown.lots, row, stamp, date, report)

    def _withdrawn(
        self, key: Key, shown: Shown, lots: int, row: EventRow, stamp: int, date: int,
        report: Report,
    ) -> None:  # fmt: skip
        """Count withdrawn lots towards each suspicion that goes by this order; report the oldest
        one that is now complete, and drop the others: they are of the same lots."""
        live, at, first = self._live(key, stamp), len(shown.since) - 1, 0
        complete: Suspicion | None = None
        for suspicion in reversed(live):
            while at >= 0 and shown.since[at].number > suspicion.number:
                at -= 1
            if at < 0:
                break
            if suspicion.stamp - shown.since[at].stamp > self._within:
                continue
            suspicion.withdrawn += lots
            if self._is_complete(suspicion):
                complete, first = suspicion, shown.since[at].sequence
        if complete is None:
            return
        self._suspicions[key] = deque(one for one in live if not self._is_complete(one))
        words = (
            f"showed {complete.withdrawn} lots to {('buy', 'sell')[key[2]]},"
            f" {('sold', 'bought')[key[2]]} {complete.traded}, withdrew what it had shown"
        )
        report(
            Finding(
                "spoofing", row[5], row[6], date, stamp, min(first, complete.sequence), row[0],
                complete.withdrawn, words,
            )
        )  # fmt: skip

    def _is_complete(self, suspicion: Suspicion) -> bool:
        return suspicion.withdrawn >= self._ratio * suspicion.traded


def _key(row: EventRow) -> Key:
    return row[5], row[6], 1 if row[3] & EventFlag.SELL else 0
