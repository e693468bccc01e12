"""Statistics of every instrument's business day, and its open interest, from events alone.

A day begins with DAY_OPENED. Trades of the instrument's own book count, those of an auction
included; transfers off the book and the legs of a combination's trade are not trades of the day,
but change open interest. A bust removes its lots and value, and an adjustment moves them to the
other price, if the trade is of the current day; ``open`` and ``last`` stay as they were printed.

Invariants: volume = sum of the lots by price; the positions in an instrument sum to zero.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from exchange.marketdata.instruments import Instrument, Instruments
from exchange.marketdata.stream import Row, maker_of, signed
from exchange.messages import INDEX_BITS, EventFlag, EventKind

_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_SELL: Final = int(EventFlag.SELL)
_LEG_TRADE: Final = int(EventKind.LEG_TRADE)
_BUSTED: Final = int(EventKind.TRADE_BUSTED)
_ADJUSTED: Final = int(EventKind.TRADE_ADJUSTED)
_LEG_BUSTED: Final = int(EventKind.LEG_BUSTED)
_TRANSFERRED: Final = int(EventKind.LOTS_TRANSFERRED)
_EXPIRED: Final = int(EventKind.INSTRUMENT_EXPIRED)
_SETTLED: Final = int(EventKind.INSTRUMENT_SETTLED)
_DAY_OPENED: Final = int(EventKind.DAY_OPENED)
# All kinds that may change a figure, except trades.
COUNTED_KINDS: Final = frozenset(
    (_LEG_TRADE, _BUSTED, _ADJUSTED, _LEG_BUSTED, _TRANSFERRED, _EXPIRED, _SETTLED, _DAY_OPENED)
)


class Day:
    """One instrument's trades of a business day. Prices in ticks."""

    def __init__(self) -> None:
        self.open: int | None = None
        self.last: int | None = None
        self.trades = 0
        self.lots: dict[int, int] = {}  # by price

    @property
    def volume(self) -> int:
        """Lots traded."""
        return sum(self.lots.values())

    @property
    def tick_lots(self) -> int:
        """The sum of price x lots, price in ticks."""
        return sum(price * lots for price, lots in self.lots.items())

    def trade(self, price: int, lots: int) -> None:
        """Count a trade."""
        if self.open is None:
            self.open = price
        self.last = price
        self.trades += 1
        self.move(price, lots)

    def move(self, price: int, lots: int) -> None:
        """Add lots at a price; negative lots are removed."""
        new = self.lots.get(price, 0) + lots
        if new:
            self.lots[price] = new
        else:
            self.lots.pop(price, None)


class Statistics:
    """Days and open interest by instrument id, and the sequence of each instrument's last
    change."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self.days: defaultdict[int, Day] = defaultdict(Day)
        self.open_interest: dict[int, int] = {}
        self._nets: dict[int, dict[int, int]] = {}  # by account
        self.sequences: dict[int, int] = {}  # of the last change, by instrument
        self.first = 0  # sequence of the event that opened the day

    def trade(self, row: Row) -> None:
        """Apply a TRADE."""
        if row[3] & _DUPLICATE:
            return
        day = self.days[row[5]]
        day.trade(row[8], row[9])
        if not row[4]:  # a combination has no positions; its LEG_TRADEs have
            self._book(row, maker_of(row[12])[0], row[9])
        self.sequences[row[5]] = row[0]

    def apply(self, row: Row) -> Iterable[int]:
        """Apply an event of ``COUNTED_KINDS``; return the ids of the instruments it may change."""
        kind = row[2]
        if row[3] & _DUPLICATE:
            return ()
        changed: Iterable[int] = (row[5],)
        if kind == _LEG_TRADE:
            self._book(row, row[12], row[9])
        elif kind == _TRANSFERRED:
            self._book(row, row[7], row[9])
        elif kind == _LEG_BUSTED:
            self._book(row, row[12], -row[9])
        elif kind in (_BUSTED, _ADJUSTED):
            self._correct(row)
        elif kind == _DAY_OPENED:
            self.first = row[0]
            self.days.clear()
            changed = self._instruments.by_id
        else:  # settled, daily or finally
            if kind == _EXPIRED:
                self._nets.pop(row[5], None)
                self.open_interest.pop(row[5], None)
            changed = tuple(self._instruments.priced(row[5]))
        for number in changed:
            self.sequences[number] = row[0]
        return changed

    def _correct(self, row: Row) -> None:
        """Remove lots at the price they traded at; an adjustment adds them at its new price."""
        busted = row[2] == _BUSTED
        if busted and not row[4]:
            self._book(row, row[12], -row[9])
        if row[7] >> INDEX_BITS < self.first:
            return  # of an earlier day
        day = self.days[row[5]]
        if busted:
            day.trades -= 1
            day.move(row[8], -row[9])
        else:
            day.move(signed(row[11]), -row[9])
            day.move(row[8], row[9])

    def _book(self, row: Row, other: int, lots: int) -> None:
        """Move lots between two accounts: the event's own account buys, unless it says SELL."""
        bought = -lots if row[3] & _SELL else lots
        self.move(row[5], row[6], bought)
        self.move(row[5], other, -bought)

    def move(self, instrument: int, account: int, lots: int) -> None:
        """Change a position; open interest is the sum of the long positions."""
        nets = self._nets.setdefault(instrument, {})
        old = nets.get(account, 0)
        new = old + lots
        if new:
            nets[account] = new
        else:
            nets.pop(account, None)
        interest = self.open_interest.get(instrument, 0)
        self.open_interest[instrument] = interest + max(new, 0) - max(old, 0)

    def vwap(self, instrument: Instrument) -> int | None:
        """Return the day's volume-weighted average price as a clearing price, rounded half to even;
        None without volume."""
        day = self.days[instrument.id]
        volume = day.volume
        if volume <= 0:
            return None
        whole, rest = divmod(day.tick_lots * instrument.tick_scale, volume)
        return whole + (2 * rest > volume or (2 * rest == volume and whole & 1))
