"""Patterns of abuse in trades, and in the number of an account's commands.

``Thresholds`` holds the limits of every pattern; definitions: docs/reference/audit.md. Prices are
in ticks. What an account shows and withdraws: exchange.history.spoofing.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from exchange.history.picture import Holder
from exchange.history.records import EventRow
from exchange.history.walk import NS
from exchange.messages import AccountKind, EventFlag, TradingState


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which a pattern is reported. Times in seconds of the log."""

    round_trip_seconds: int = 60  # at most, between a trade and the reverse trade
    round_trip_ticks: int = 1  # largest difference of their prices
    spoofing_seconds: int = 5  # from entry to the trade, and from the trade to the cancel
    spoofing_ratio: int = 4  # least lots shown and cancelled per lot traded on the other side
    close_seconds: int = 30  # before trading ends for a settlement
    close_share: int = 60  # least per cent of the window's volume on one side
    close_ticks: int = 3  # least move of the price in that direction
    close_lots: int = 10  # least volume of the window
    stuffing_messages: int = 200  # least number of commands in an instrument within a second
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


def leg_match(row: EventRow, stamp: int, tick_scale: int) -> Match:
    """Return a LEG_TRADE event as a Match; its price is a clearing price, ``tick_scale`` a tick."""
    taker, maker = row[6], row[12]
    sold = row[3] & EventFlag.SELL
    parties = (maker, taker) if sold else (taker, maker)
    orders = (row[11], row[7]) if sold else (row[7], row[11])
    return Match(stamp, row[0], row[5], row[8] // tick_scale, row[9], parties, orders)


class OneOwner:
    """Two house accounts of one member trade with each other: both belong to that member."""

    def __init__(self, accounts: Mapping[int, Holder]) -> None:
        self._accounts = accounts

    def traded(self, match: Match, date: int, report: Report) -> None:
        """Report this trade if both of its accounts have one owner."""
        buyer, seller = (self._accounts[party] for party in match.parties)
        if buyer.member != seller.member or {buyer.kind, seller.kind} != {AccountKind.HOUSE}:
            return
        words = f"bought {match.lots} lots from account {match.parties[1]} of the same member"
        report(
            Finding(
                "one_owner", match.instrument, match.parties[0], date, match.stamp,
                match.sequence, match.sequence, match.lots, words,
            )
        )  # fmt: skip


class Way(NamedTuple):
    """Who buys what of whom, and at which price."""

    instrument: int
    buyer: int
    seller: int
    price: int


@dataclass(slots=True)
class Going:
    """A trade that may be reversed, and how many of its lots have not gone back."""

    match: Match
    left: int


class RoundTrips:
    """Two accounts trade, and soon trade the same lots back at about the same price, at once or in
    parts."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._within = thresholds.round_trip_seconds * NS
        self._ticks = thresholds.round_trip_ticks
        # Trades of the last minute that may be reversed, by number, oldest first; the numbers of
        # those of as many lots; and all trades, as they came
        self._open: dict[Way, OrderedDict[int, Going]] = {}
        self._equal: dict[tuple[Way, int], deque[int]] = {}
        self._recent: deque[tuple[int, Match]] = deque()
        self._count = 0

    def traded(self, match: Match, date: int, report: Report) -> None:
        """Report this trade if an earlier one of as many lots is reversed by it, or earlier ones
        are with the last of their lots. Unless it is as large as one, remember it too."""
        self._forget(match.stamp)
        buyer, seller = match.parties
        prices = range(match.price - self._ticks, match.price + self._ticks + 1)
        keys = [Way(match.instrument, seller, buyer, price) for price in prices]
        equal = [(self._equal[key, match.lots][0], key) for key in keys
                 if (key, match.lots) in self._equal]  # fmt: skip
        if equal:
            number, key = min(equal)
            reversed_now = [self._take(key, number)]
        else:
            reversed_now = self._give_back(keys, match.lots)
            self._remember(match)
        if not reversed_now:
            return
        lots = sum(one.lots for one in reversed_now)
        words = f"sold {lots} lots to account {buyer} that it had bought from it"
        report(
            Finding(
                "round_trip", match.instrument, seller, date, match.stamp,
                reversed_now[0].sequence, match.sequence, lots, words,
            )
        )  # fmt: skip

    def _remember(self, match: Match) -> None:
        self._count += 1
        key = Way(match.instrument, *match.parties, match.price)
        self._open.setdefault(key, OrderedDict())[self._count] = Going(match, match.lots)
        self._equal.setdefault((key, match.lots), deque()).append(self._count)
        self._recent.append((self._count, match))

    def _give_back(self, keys: list[Way], lots: int) -> list[Match]:
        """Count lots that go back, of the oldest of these trades first; remove and return those
        that are back whole."""
        whole = []
        while lots and (
            oldest := [(next(iter(self._open[k])), k) for k in keys if k in self._open]
        ):
            number, key = min(oldest)
            going = self._open[key][number]
            back = min(lots, going.left)
            going.left -= back
            lots -= back
            if not going.left:
                whole.append(self._take(key, number))
        return whole

    def _take(self, key: Way, number: int) -> Match:
        """Remove the oldest trade of its price and lots."""
        trades = self._open[key]
        match = trades.pop(number).match
        if not trades:
            del self._open[key]
        numbers = self._equal[key, match.lots]
        assert numbers[0] == number, "of equal trades the oldest goes first"
        numbers.popleft()
        if not numbers:
            del self._equal[key, match.lots]
        return match

    def _forget(self, stamp: int) -> None:
        """Remove what is older than the time within which a trade is reversed."""
        while self._recent and stamp - self._recent[0][1].stamp > self._within:
            number, match = self._recent.popleft()
            key = Way(match.instrument, *match.parties, match.price)
            if number in self._open.get(key, ()):
                self._take(key, number)


class Closes:
    """One account has most of a side just before trading ends for a settlement, and the price moves
    its way."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._of = thresholds
        self._trades: defaultdict[int, deque[Match]] = defaultdict(deque)
        self._before: dict[int, int] = {}  # the last price before the window
        self._closed: dict[int, int] = {}  # stamp at which an instrument closed, while it is closed
        self._day_closed: int | None = None

    def _forget(self, instrument: int, stamp: int) -> None:
        trades = self._trades[instrument]
        while trades and stamp - trades[0].stamp > self._of.close_seconds * NS:
            self._before[instrument] = trades.popleft().price

    def traded(self, match: Match) -> None:
        """Add a trade to the window."""
        self._forget(match.instrument, match.stamp)
        self._trades[match.instrument].append(match)

    def day_opened(self) -> None:
        """A business date has begun."""
        self._day_closed = None

    def day_closed(self, stamp: int) -> None:
        """The business date is closed."""
        self._day_closed = stamp

    def changed(self, row: EventRow, stamp: int) -> None:
        """Note when an instrument closes, and that it trades again."""
        if row[9] == TradingState.CLOSED:
            self._closed[row[5]] = stamp
        else:
            self._closed.pop(row[5], None)

    def settled(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Evaluate the window before trading ended, or before this settlement of a date that goes
        on."""
        instrument = row[5]
        ends = (self._closed.get(instrument), self._day_closed, stamp)
        self._forget(instrument, min(end for end in ends if end is not None))
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
    """Commands and trades of an account in an instrument within one second of the log."""

    second: int = -1
    date: int = 0  # the business date then
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
            self._judge(key, now, report)
            now = self._seconds[key] = Second(stamp // NS, date)
        return now

    def said(self, row: EventRow, stamp: int, date: int, report: Report) -> None:
        """Count a command that entered, changed or cancelled orders: once, whatever its events."""
        now = self._now((row[5], row[6]), stamp, date, report)
        if now.last_sequence != row[0]:
            now.first_sequence = now.first_sequence or row[0]
            now.last_sequence = row[0]
            now.messages += 1

    def traded(self, match: Match, date: int, report: Report) -> None:
        """Count a trade for both accounts."""
        for party in match.parties:
            self.dealt(match.instrument, party, match.stamp, date, report)

    def dealt(self, instrument: int, party: int, stamp: int, date: int, report: Report) -> None:
        """Count a trade for one account."""
        self._now((instrument, party), stamp, date, report).traded += 1

    def finish(self, report: Report) -> None:
        """Evaluate the current seconds at the end of the log."""
        for key, now in sorted(self._seconds.items()):
            self._judge(key, now, report)
        self._seconds.clear()

    def _judge(self, key: tuple[int, int], now: Second, report: Report) -> None:
        most = self.thresholds.stuffing_share * now.messages
        if now.messages < self.thresholds.stuffing_messages or now.traded * 100 > most:
            return
        words = f"{now.messages} messages within a second, {now.traded} trades"
        report(
            Finding(
                "stuffing", key[0], key[1], now.date, now.second * NS, now.first_sequence,
                now.last_sequence, now.messages, words,
            )
        )  # fmt: skip
