"""The final settlement price of a cash contract: the mean of its month's fixings, or the ladder.

    step 0  MEAN          at least ``full_days`` fixings: their mean
    step 1  SHORT_MEAN    at least ``short_days``: the mean of what there is
    step 2  MARKET_MEAN   fewer: the mean of the exchange's own last ``market_days`` settlement
                          prices of the expiring contract
    step 3  UNDETERMINED  not even those: no number is made up; the market's rules name who decides

A withheld day is left out, never filled. The revisions counted are those known at the cut,
``revision_hours`` after the month; later ones are published and change no settlement. A day that
became known only later counts as it was known first. The price is an integer of millionths of a
dollar per GPU-hour, rounded once, half to even.
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import date, timedelta
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from contracts.calendar import Month
from contracts.index.methodology import Index, digest
from contracts.index.numbers import divide
from contracts.index.run import end_ns
from contracts.index.tape import FOREVER_NS

_NS_OF_HOUR: Final = 3_600 * 10**9


class Step(IntEnum):
    """How a final settlement price was found."""

    MEAN = 0
    SHORT_MEAN = 1
    MARKET_MEAN = 2
    UNDETERMINED = 3


class FinalPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A month's final settlement price, and what it rests on."""

    index: str
    month: str
    step: Step
    price_micros: int | None
    published_days: int
    withheld: tuple[date, ...]
    cut_ns: int
    inputs_hash: str


class Known(Protocol):
    """What a fixing is to a settlement."""

    @property
    def date(self) -> date:
        """The day it speaks of."""

    @property
    def revision(self) -> int:
        """Its number on that day, from 0."""

    @property
    def price_micros(self) -> int | None:
        """None: withheld."""

    @property
    def inputs_hash(self) -> str:
        """What it was made from."""


class Fixings(Protocol):
    """Fixings by index and day, each with the time from which it was known: a tape, a log."""

    def fixing(self, index: str, day: date, known_ns: int, /) -> Known | None:
        """The latest revision of a day that was known then."""


class MonthIncomplete(ValueError):
    """Days of the month have no fixing yet, published or withheld."""


def final_price(
    index: Index,
    month: Month,
    tape: Fixings,
    market_micros: Sequence[int] = (),
    cut_ns: int | None = None,
) -> FinalPrice:
    """The final settlement price of a month; ``market_micros`` in order, the last day last.

    ``cut_ns`` goes before the rules' cut, for a look at what was known at another time and no
    later. MonthIncomplete if a day was never fixed, or not by that time.
    """
    rules = index.settlement
    days = [month.first_day + timedelta(days=n) for n in range(month.days)]
    then = " that was known then" if cut_ns is not None else ""
    if cut_ns is None:
        cut_ns = end_ns(month.last_day) + rules.revision_hours * _NS_OF_HOUR - 1
        known = [_counted(tape, index.code, day, cut_ns) for day in days]
    else:
        known = [tape.fixing(index.code, day, cut_ns) for day in days]
    missing = [str(day) for day, fixing in zip(days, known, strict=True) if fixing is None]
    if missing:
        said = f"{index.code} has no fixing of {missing[0]}{then}"
        raise MonthIncomplete(f"{said}; {len(missing)} of the {len(days)} days of {month} lack one")
    fixings = [fixing for fixing in known if fixing is not None]
    prices = [f.price_micros for f in fixings if f.price_micros is not None]
    last = list(market_micros[-rules.market_days :])
    step, used = Step.UNDETERMINED, []
    if len(prices) >= rules.full_days:
        step, used = Step.MEAN, prices
    elif len(prices) >= rules.short_days:
        step, used = Step.SHORT_MEAN, prices
    elif len(last) >= rules.market_days:
        step, used = Step.MARKET_MEAN, last
    rows = [(f"{f.date}", f.revision, f.price_micros, f.inputs_hash) for f in fixings]
    return FinalPrice(
        index=index.code,
        month=str(month),
        step=step,
        price_micros=divide(sum(used), len(used)) if used else None,
        published_days=len(prices),
        withheld=tuple(f.date for f in fixings if f.price_micros is None),
        cut_ns=cut_ns,
        inputs_hash=digest(msgspec.json.encode((index.code, str(month), rows, last))).hex(),
    )


def _counted(tape: Fixings, code: str, day: date, cut_ns: int) -> Known | None:
    """The latest revision known at the cut; of a day that had none then, what was known first."""
    at_cut = tape.fixing(code, day, cut_ns)
    if at_cut is not None or tape.fixing(code, day, FOREVER_NS) is None:
        return at_cut
    moments = range(cut_ns, FOREVER_NS)
    first = bisect_left(moments, True, key=lambda ns: tape.fixing(code, day, ns) is not None)
    return tape.fixing(code, day, cut_ns + first)
