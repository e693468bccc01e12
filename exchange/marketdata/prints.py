"""What the log publishes besides trading: settlement prices, index fixings, factor tables.

Three channels for the whole market. A new subscriber is sent the latest of each instrument, of each
index, or of each grade and expiry; then each new one.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

from exchange.marketdata.instruments import Instruments, decimal_text, micros_text
from exchange.marketdata.stream import Row
from exchange.messages import HOUSE_ACCOUNT, EventFlag, EventKind
from exchange.messages.wire_market import (
    FactorData,
    FactorsPublished,
    FactorTableNote,
    FixingNote,
    IndexFixing,
    SettlementPrice,
    read_record,
)

SETTLEMENTS: Final = "settlements"
FIXINGS: Final = "fixings"
FACTORS: Final = "factors"
CHANNELS: Final = (SETTLEMENTS, FIXINGS, FACTORS)
FACTOR_DIGITS: Final = 4
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_SETTLED: Final = int(EventKind.INSTRUMENT_SETTLED)
_EXPIRED: Final = int(EventKind.INSTRUMENT_EXPIRED)
_RECORDED: Final = int(EventKind.RECORDED)
PRINTED_KINDS: Final = frozenset((_SETTLED, _EXPIRED, _RECORDED))

Print: TypeAlias = SettlementPrice | IndexFixing | FactorsPublished


class Prints:
    """The latest message of each subject, by channel."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._settlements: dict[int, SettlementPrice] = {}
        self._fixings: dict[str, IndexFixing] = {}
        self._factors: dict[tuple[str, str], FactorsPublished] = {}

    def latest(self, channel: str) -> Iterator[Print]:
        """Yield what a new subscriber is sent, in the order of first publication."""
        if channel == SETTLEMENTS:
            yield from self._settlements.values()
        elif channel == FIXINGS:
            yield from self._fixings.values()
        else:
            yield from self._factors.values()

    def apply(self, row: Row, stamp: int, text: str | None) -> tuple[str, Print] | None:
        """Apply an event of ``PRINTED_KINDS``; return its channel and message, if it has one."""
        if row[2] != _RECORDED:
            return self._settled(row, stamp)
        if text is None or row[6] != HOUSE_ACCOUNT or row[3] & _DUPLICATE:
            return None
        note = read_record(text)
        if note is None:
            return None
        if isinstance(note, FixingNote):
            return self._fixed(row, stamp, note)
        return self._published(row, stamp, *note)

    def _settled(self, row: Row, stamp: int) -> tuple[str, SettlementPrice]:
        final = row[2] == _EXPIRED
        told = self._settlements[row[5]] = SettlementPrice(
            instrument=self._instruments.by_id[row[5]].code,
            sequence=row[0],
            index=row[1],
            time=stamp,
            kind="final" if final else "daily",
            price=micros_text(row[8]),
            business_date=self._instruments.business_date if final else row[10],
            cycle=None if final else row[9],
        )
        return SETTLEMENTS, told

    def _fixed(self, row: Row, stamp: int, note: FixingNote) -> tuple[str, IndexFixing]:
        told = IndexFixing(
            sequence=row[0],
            index=row[1],
            time=stamp,
            name=note.index,
            date=note.date,
            revision=note.revision,
            state=note.state,
            price=note.price or None,
            reason=note.reason,
            inputs_hash=note.inputs_hash,
        )
        known = self._fixings.get(note.index)
        if known is None or (known.date, known.revision) <= (note.date, note.revision):
            self._fixings[note.index] = told
        return FIXINGS, told

    def _published(
        self, row: Row, stamp: int, digest: str, table: FactorTableNote
    ) -> tuple[str, FactorsPublished]:
        told = self._factors[table.grade, table.expiry] = FactorsPublished(
            sequence=row[0],
            index=row[1],
            time=stamp,
            grade=table.grade,
            expiry=table.expiry,
            version=table.version,
            digest=digest,
            rows=[
                FactorData(
                    provider=site.provider,
                    facility=site.facility,
                    state=site.state,
                    factor=None if site.factor_e4 is None else _factor(site.factor_e4),
                )
                for site in table.rows
            ],
        )
        return FACTORS, told


def _factor(factor_e4: int) -> str:
    return decimal_text(factor_e4, FACTOR_DIGITS)
