"""The delivery terms of a listed physical contract, with its dates as log times."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from contracts import calendar
from contracts.calendar import Month
from contracts.spec import PHYSICAL
from exchange.clearing.expiry import listing

SECOND_NS: Final = 10**9
DAY_NS: Final = 86_400 * SECOND_NS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of one listed physical expiry. Fields ``_ns`` are log times."""

    code: str
    month: str
    days: int
    hours: int
    hardware: str
    unit: int  # delivery unit in lots
    grades: tuple[str, ...]
    index: str
    penalty_percent: int
    fee: int  # micro-dollars per lot, charged to each side
    notice_from_ns: int
    cutoff_ns: int  # the last moment of notice; then tenders are assigned
    begin_ns: int  # start of the delivery month; the buyer's money is due in escrow by then

    def day_end_ns(self, day: int) -> int:
        """Return the log time of the end of a day of the month, from 1."""
        return self.begin_ns + day * DAY_NS

    @property
    def expiry(self) -> Month:
        """The delivery month."""
        return Month.parse(self.month)


def terms_of(text: str) -> Terms | None:
    """Return the terms in a listing's text; None if it lists no physical contract."""
    listed = listing(text)
    if listed is None or listed.settlement != PHYSICAL or listed.first_notice_day is None:
        return None
    assert listed.last_notice_day is not None, "a first notice day has a last one"
    zone = calendar.load(listed.calendar).time_zone
    month = Month.parse(listed.expiry)
    return Terms(
        code=listed.code,
        month=listed.expiry,
        days=month.days,
        hours=month.hours,
        hardware=listed.hardware,
        unit=listed.delivery_step,
        grades=listed.grades,
        index=listed.index,
        penalty_percent=listed.failure_percent,
        fee=listed.final_fee,
        notice_from_ns=moment(listed.first_notice_day, time(0), "UTC"),
        cutoff_ns=moment(listed.last_notice_day, time.fromisoformat(listed.notice_cutoff), zone),
        begin_ns=since_epoch(listed.delivery_start),
    )


def moment(day: date, clock: time, zone: str) -> int:
    """Return the log time of a local time of day."""
    return since_epoch(datetime.combine(day, clock, ZoneInfo(zone)))


def since_epoch(there: datetime) -> int:
    """Return the log time of a moment, rounded down to whole seconds."""
    return (there - _EPOCH) // _SECOND * SECOND_NS


def day_of(stamp: int) -> date:
    """Return the day of a log time, UTC."""
    return (_EPOCH + stamp // SECOND_NS * _SECOND).date()
