"""Resolves the numbers in a log, instruments and accounts, from its events."""

from typing import Final, NamedTuple

import msgspec

from exchange.history.records import event_row, kinds_of
from exchange.journal.frame import Frame, unpack_texts
from exchange.marketdata.instruments import (
    MICRO_DIGITS,
    Instrument,
    Instruments,
)
from exchange.messages import EventKind, Mode

# Events of orders; every other kind may change the picture.
_ORDER_KINDS: Final = bytes(range(EventKind.ORDER_ACCEPTED, EventKind.SESSION_OPENED))
_QUIET: Final = frozenset(
    {
        *_ORDER_KINDS,
        EventKind.TIME_ADVANCED,
        EventKind.MASS_CANCELLED,
        EventKind.KILLED,
        EventKind.RESUMED,
        EventKind.PROTECTION_CHANGED,
        EventKind.QUOTED,
        EventKind.POSITION_SETTLED,
        EventKind.CHECKPOINTED,
    }
)


class Holder(NamedTuple):
    """The holder of an account."""

    member: int
    group: int  # self-trade group
    kind: int


class Picture:
    """Instruments and accounts as of the last batch. Call ``take`` with every batch."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self.accounts: dict[int, Holder] = {0: Holder(0, 0, 0)}
        self.mode = Mode.NORMAL

    def take(self, frame: Frame, events: bytes) -> None:
        """Apply a batch."""
        kinds = kinds_of(events)
        if not kinds.translate(None, _ORDER_KINDS):
            return
        texts = dict(unpack_texts(frame.texts))
        for number, kind in enumerate(kinds):
            if kind not in _QUIET:
                row = event_row(events, number)
                self._apply(row, kind, texts.get(row[0]))

    def _apply(self, row: tuple[int, ...], kind: int, text: str | None) -> None:
        if kind == EventKind.ACCOUNT_OPENED:
            self.accounts[row[6]] = Holder(row[5], row[10], row[4])
        elif kind == EventKind.MODE_CHANGED:
            self.mode = Mode(row[9])
        else:
            try:
                self.instruments.apply(row, text)  # type: ignore[arg-type]
            except msgspec.MsgspecError:  # a listing with an unreadable text is named by its number
                self.instruments.apply(row, None)  # type: ignore[arg-type]

    def listed(self, number: int) -> Instrument | None:
        """Return the instrument of that number, or None."""
        return self.instruments.by_id.get(number)

    def code(self, number: int) -> str:
        """Return an instrument's code; "#" and its number if it is not listed."""
        found = self.listed(number)
        return found.code if found is not None else f"#{number}"

    def price(self, number: int, ticks: int) -> str:
        """Return a price in ticks as dollars per GPU-hour; in ticks, with the unit, if not
        listed."""
        found = self.listed(number)
        return found.price_text(ticks) if found is not None else f"{ticks} ticks"


def money(micros: int) -> str:
    """Return micro-dollars as dollars with thousands separators: exact, with at least two
    decimals."""
    whole, part = divmod(abs(micros), 10**MICRO_DIGITS)
    decimals = f"{part:0{MICRO_DIGITS}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole:,}.{decimals}"
