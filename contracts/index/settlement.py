"""The final settlement price of a cash contract: the mean of its month's fixings, or the ladder.

    step 0  MEAN          at least ``full_days`` published fixings: their mean
    step 1  SHORT_MEAN    at least ``short_days``: their mean
    step 2  MARKET_MEAN   fewer: the mean of the exchange's own last ``market_days`` settlement
                          prices of the expiring contract, up to its last trading day
    step 3  UNDETERMINED  fewer than ``market_days`` of those: no price; the market's rules name who
                          decides

A withheld day is left out, never filled. Of each day the latest revision known at the cut counts;
the cut is ``revision_hours`` after the month. Later revisions are published but change no
settlement. A day first fixed after the cut counts with its first fixing. The price is an integer in
millionths of a dollar per GPU-hour, rounded once, half to even.
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
    """A month's final settlement price (None if undetermined) and its inputs."""

    index: str
    month: str
    step: Step
    price_micros: int | None
    published_days: int
    withheld: tuple[date, ...]
    cut_ns: int
    inputs_hash: str


class Known(Protocol):
    """The part of a fixing that a settlement uses."""

    @property
    def date(self) -> date:
        """The day that was fixed."""

    @property
    def revision(self) -> int:
        """Its number on that day, from 0."""

    @property
    def price_micros(self) -> int | None:
        """Price in millionths of a dollar per GPU-hour; None if withheld."""

    @property
    def inputs_hash(self) -> str:
        """Digest (hex) of the fixing's inputs."""


class Fixings(Protocol):
    """Fixings by index and day, each with the time it became known, such as a ``Tape``."""

    def fixing(self, index: str, day: date, known_ns: int, /) -> Known | None:
        """Return the latest revision of a day that was known at ``known_ns``; None if none was."""


class MonthIncomplete(ValueError):
    """Days of the month have no fixing yet, published or withheld."""


def final_price(
    index: Index,
    month: Month,
    tape: Fixings,
    market_micros: Sequence[int] = (),
    cut_ns: int | None = None,
) -> FinalPrice:
    """Return the final settlement price of a month.

    ``market_micros`` are the expiring contract's settlement prices in order of days. ``cut_ns``
    replaces the rules' cut, to see the price as of another time; days first fixed after it are then
    missing. Raises MonthIncomplete if a day has no fixing.
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
    if len(prices) >= rules.short_days:
        step = Step.MEAN if len(prices) >= rules.full_days else Step.SHORT_MEAN
        # The market's prices are no input then: who has only the tape finds the same hash
        used, last = prices, []
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
    """The latest revision known at the cut; the first one of a day that had none by then."""
    at_cut = tape.fixing(code, day, cut_ns)
    if at_cut is not None or tape.fixing(code, day, FOREVER_NS) is None:
        return at_cut
    moments = range(cut_ns, FOREVER_NS)
    first = bisect_left(moments, True, key=lambda ns: tape.fixing(code, day, ns) is not None)
    return tape.fixing(code, day, cut_ns + first)
