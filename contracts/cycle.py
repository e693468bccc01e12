"""The listing cycle under several versions of a product.

``versions`` are those of one product in order of their dates; the last one is in force on the day
in question. It determines how many months are listed. The last trading day of a month, on which it
leaves the cycle, follows from the version under which the month was listed.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from contracts.calendar import Calendar, Month
from contracts.spec import ContractSpec

_DAY: Final = timedelta(days=1)


def governing(versions: Sequence[ContractSpec], expiry: Month) -> ContractSpec | None:
    """Return the newest version for an expiry; None if the expiry precedes all versions."""
    return next((spec for spec in reversed(versions) if spec.first_expiry <= expiry), None)


def front_month(
    versions: Sequence[ContractSpec], on: date, calendars: Mapping[str, Calendar]
) -> Month:
    """Return the nearest delivery month that still trades on a day."""
    month = Month.of(on)
    while on > _last_trading_day(versions, month, calendars):
        month = month.plus(1)
    return month


def listed_on(
    versions: Sequence[ContractSpec], expiry: Month, calendars: Mapping[str, Calendar]
) -> date:
    """Return the first business day of an expiry in the cycle; one of the versions must govern
    it."""
    day = date.max
    for count, current in enumerate(versions, start=1):
        known = versions[:count]
        spec = governing(known, expiry)
        if spec is None:
            continue
        day = current.effective
        # The expiry enters the cycle after this month's last trading day
        left = expiry.plus(-current.listed_months)
        if left.last_day >= day:
            day = max(day, _last_trading_day(known, left, calendars) + _DAY)
        day = calendars[spec.calendar].at_or_after(day)
        if count == len(versions) or day < versions[count].effective:
            break
    return day


def _last_trading_day(
    versions: Sequence[ContractSpec], month: Month, calendars: Mapping[str, Calendar]
) -> date:
    spec = governing(versions, month) or versions[-1]
    return spec.last_trading_day(month, calendars[spec.calendar])
