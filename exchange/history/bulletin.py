"""The daily bulletin and the large-trader report, from trades and settlements in the log.

For every business date and instrument, in lots, prices per GPU-hour:

    open interest = open interest of the date before + opened - closed - delivered

``opened`` is the lots bought beyond covering shorts, ``closed`` the lots sold out of longs: both
count the long side. The short side must have the same sum, which is asserted.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from exchange.history.picture import Picture
from exchange.history.records import CORRECTIONS, TRADE, TRANSFERRED, EventRow, event_row, kinds_of
from exchange.journal.frame import Frame
from exchange.marketdata.instruments import micros_text
from exchange.messages import INDEX_BITS, EventFlag, EventKind, TransferKind

LARGE_LOTS: Final = 25
SHARES: Final = (4, 8)  # concentration: the share of this many largest holders


@dataclass(slots=True)
class Line:
    """One instrument on one business date. Prices are in ticks, except ``settlement`` (1e-6
    USD)."""

    trades: int = 0
    volume: int = 0
    block_volume: int = 0
    efp_volume: int = 0
    give_up_volume: int = 0
    ported: int = 0
    busted: int = 0
    adjusted: int = 0
    # Valid trade prices by match number, in trade order
    prices: dict[int, int] = field(default_factory=dict)
    opened: int = 0
    closed: int = 0
    delivered: int = 0
    settlement: int | None = None
    open_interest: int = 0  # at the end of the date


@dataclass(slots=True)
class Day:
    """A business date: its lines by instrument, and the positions at its end."""

    date: int
    lines: dict[int, Line] = field(default_factory=dict)
    positions: dict[int, dict[int, int]] = field(default_factory=dict)  # net by account


class Bulletin:
    """Collects the business dates of a log. Call ``take`` with every batch, then ``finish``."""

    def __init__(self) -> None:
        self.picture = Picture()
        self.days: list[Day] = []
        self._net: defaultdict[int, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._interest: defaultdict[int, int] = defaultdict(int)
        self._listed: list[int] = []
        self._day = Day(0)

    def take(self, frame: Frame, events: bytes) -> None:
        """Apply a batch."""
        self.picture.take(frame, events)
        kinds = kinds_of(events)
        if not _TOLD & set(kinds):
            return
        for number, kind in enumerate(kinds):
            if kind == TRADE:
                self._traded(event_row(events, number))
            elif kind == EventKind.LEG_TRADE or kind == EventKind.LEG_BUSTED:
                self._leg(event_row(events, number))
            elif kind == TRANSFERRED:
                self._transferred(event_row(events, number))
            elif kind in CORRECTIONS:
                self._corrected(event_row(events, number), kind)
            elif kind in _TOLD:
                self._told(event_row(events, number), kind)

    def _line(self, instrument: int) -> Line:
        return self._day.lines.setdefault(instrument, Line())

    def _told(self, row: EventRow, kind: int) -> None:
        if kind == EventKind.DAY_OPENED:
            self._close()
            self._day = Day(row[9])
        elif kind == EventKind.INSTRUMENT_LISTED:
            self._listed.append(row[5])
        elif kind == EventKind.INSTRUMENT_SETTLED:
            self._line(row[5]).settlement = row[8]
        else:  # INSTRUMENT_EXPIRED
            line, instrument = self._line(row[5]), row[5]
            line.settlement = row[8]
            line.delivered += self._interest[instrument]
            self._interest[instrument] = 0
            self._net[instrument].clear()

    def _traded(self, row: EventRow) -> None:
        instrument, taker, maker = row[5], row[6], row[12] & 0xFFFF_FFFF
        price, lots = row[8], row[9]
        buyer, seller = (maker, taker) if row[3] & EventFlag.SELL else (taker, maker)
        line = self._line(instrument)
        line.trades += 1
        line.volume += lots
        line.prices[row[0] << INDEX_BITS | row[1]] = price
        if not row[4]:  # a combination has no positions
            self._move(instrument, buyer, seller, lots)

    def _leg(self, row: EventRow) -> None:
        """Apply a leg of a combination's trade: it changes open interest but is no trade of its
        book."""
        instrument, taker, maker, lots = row[5], row[6], row[12], row[9]
        # A bust moves the lots back
        sold = bool(row[3] & EventFlag.SELL) != (row[2] == EventKind.LEG_BUSTED)
        buyer, seller = (maker, taker) if sold else (taker, maker)
        self._line(instrument)
        self._move(instrument, buyer, seller, lots)

    def _transferred(self, row: EventRow) -> None:
        """Apply lots transferred off the book: open interest changes; each kind has its own
        volume."""
        if row[3] & EventFlag.DUPLICATE:
            return
        instrument, taker, giver, lots = row[5], row[6], row[7], row[9]
        buyer, seller = (giver, taker) if row[3] & EventFlag.SELL else (taker, giver)
        line = self._line(instrument)
        line.block_volume += lots if row[4] == TransferKind.BLOCK else 0
        line.efp_volume += lots if row[4] == TransferKind.EFP else 0
        line.give_up_volume += lots if row[4] == TransferKind.GIVE_UP else 0
        line.ported += lots if row[4] == TransferKind.PORTING else 0
        self._move(instrument, buyer, seller, lots)

    def _corrected(self, row: EventRow, kind: int) -> None:
        """Apply a correction: a busted trade no longer counts, an adjusted one has its new
        price."""
        instrument, taker, maker, lots = row[5], row[6], row[12], row[9]
        line = self._line(instrument)
        if kind == EventKind.TRADE_ADJUSTED:
            line.adjusted += 1
            line.prices[row[7]] = row[8]
            return
        buyer, seller = (maker, taker) if row[3] & EventFlag.SELL else (taker, maker)
        line.busted += 1
        line.trades -= 1
        line.volume -= lots
        del line.prices[row[7]]
        if not row[4]:  # a combination has no positions
            self._move(instrument, seller, buyer, lots)

    def _move(self, instrument: int, buyer: int, seller: int, lots: int) -> None:
        """Move lots between two accounts, and count what this opens and closes on the long side."""
        line, net = self._line(instrument), self._net[instrument]
        opened = lots - min(lots, max(-net[buyer], 0))
        net[buyer] += lots
        closed = min(lots, max(net[seller], 0))
        net[seller] -= lots
        line.opened += opened
        line.closed += closed
        self._interest[instrument] += opened - closed

    def _close(self) -> None:
        """End a business date: open interest is rolled forward and checked against both sides."""
        for listed in self._listed:
            line = self._line(listed)
            line.open_interest = self._interest[listed]
            net = {account: lots for account, lots in self._net[listed].items() if lots}
            longs = sum(lots for lots in net.values() if lots > 0)
            shorts = -sum(lots for lots in net.values() if lots < 0)
            assert line.open_interest == longs == shorts, f"open interest of {listed}"
            self._day.positions[listed] = net
        if self._day.date:
            self.days.append(self._day)

    def finish(self) -> None:
        """End the last business date at the end of the log."""
        self._close()
        self._day = Day(0)

    def day(self, date: int | None = None) -> Day:
        """Return a business date of the log, the last one if None. KeyError: no such date."""
        for day in reversed(self.days):
            if date in (None, day.date):
                return day
        raise KeyError(date)

    def rows(self, day: Day) -> list[dict[str, Any]]:
        """Return the date's bulletin: one row for every instrument listed by then."""
        before = self._before(day)
        rows = []
        for number, line in sorted(day.lines.items()):
            price = self.picture.listed(number)
            assert price is not None, "a line is of a listed instrument"
            was = before.get(number, 0)
            settlement = None if line.settlement is None else micros_text(line.settlement)

            def ticks(value: int | None, text: Any = price.price_text) -> str | None:
                return None if value is None else str(text(value))

            rows.append(
                {
                    "business_date": day.date,
                    "instrument": price.code,
                    "trades": line.trades,
                    "volume": line.volume,
                    "block_volume": line.block_volume,
                    "efp_volume": line.efp_volume,
                    "give_up_volume": line.give_up_volume,
                    "ported": line.ported,
                    "busted": line.busted,
                    "adjusted": line.adjusted,
                    "open": ticks(next(iter(line.prices.values()), None)),
                    "high": ticks(max(line.prices.values(), default=None)),
                    "low": ticks(min(line.prices.values(), default=None)),
                    "close": ticks(next(reversed(line.prices.values()), None)),
                    "settlement_price": settlement,
                    "open_interest": line.open_interest,
                    "change": line.open_interest - was,
                    "opened": line.opened,
                    "closed": line.closed,
                    "deliveries": line.delivered,
                }
            )
        return rows

    def _before(self, day: Day) -> dict[int, int]:
        at = self.days.index(day)
        if at == 0:
            return {}
        return {number: line.open_interest for number, line in self.days[at - 1].lines.items()}

    def large_traders(self, day: Day, lots: int = LARGE_LOTS) -> list[dict[str, Any]]:
        """Return the holders of ``lots`` or more of an instrument, largest first, and all others in
        one row.

        Per instrument the rows' longs add up to the open interest, and so do their shorts.
        """
        rows = []
        for number, positions in sorted(day.positions.items()):
            interest = day.lines[number].open_interest
            if not interest:
                continue
            code = self.picture.code(number)
            ranked = sorted(positions.items(), key=lambda held: (-abs(held[1]), held[0]))
            large = [(account, net) for account, net in ranked if abs(net) >= lots]
            small = [(account, net) for account, net in ranked if abs(net) < lots]
            for account, net in large:
                member = self.picture.accounts[account].member
                rows.append(_holder(day, code, str(account), str(member), [net]))
            if small:
                name = f"{len(small)} below {lots}"
                rows.append(_holder(day, code, name, "", [net for _, net in small]))
        return rows

    def concentration(self, day: Day) -> list[dict[str, Any]]:
        """Return the share of open interest of the largest 4 and 8 holders of each side, in per
        cent."""
        rows = []
        for number, positions in sorted(day.positions.items()):
            interest = day.lines[number].open_interest
            if interest:
                row: dict[str, Any] = {"instrument": self.picture.code(number)}
                for side, sign in (("long", 1), ("short", -1)):
                    held = sorted((sign * net for net in positions.values()), reverse=True)
                    for most in SHARES:
                        top = sum(net for net in held[:most] if net > 0)
                        row[f"top_{most}_{side}"] = round(100 * top / interest, 1)
                rows.append(row)
        return rows


_TOLD: Final = frozenset(
    {
        TRADE,
        TRANSFERRED,
        *CORRECTIONS,
        EventKind.LEG_TRADE,
        EventKind.LEG_BUSTED,
        EventKind.DAY_OPENED,
        EventKind.INSTRUMENT_LISTED,
        EventKind.INSTRUMENT_SETTLED,
        EventKind.INSTRUMENT_EXPIRED,
    }
)


def _holder(day: Day, code: str, account: str, member: str, nets: list[int]) -> dict[str, Any]:
    return {
        "business_date": day.date,
        "instrument": code,
        "account": account,
        "member": member,
        "long": sum(net for net in nets if net > 0),
        "short": -sum(net for net in nets if net < 0),
    }
