"""Days of a market one after another, over the end of a month and a leap day; ``make soak`` sets
HOURBOOK_YEAR_DAYS for more of them.

Budget: 5 seconds.
"""

import os
from datetime import date
from pathlib import Path
from random import Random

import pytest
from year import Year, forget, moment

from exchange.messages import TradingState

LEAP = date(2028, 2, 25)  # a Friday


async def test_the_end_of_a_leap_february(tmp_path: Path) -> None:
    """Killed in its last closing auction and down over the close, then served from a snapshot."""
    year = Year(tmp_path / "market", 1, LEAP, orders=60)
    await year.begin()
    await year.found()
    for _ in range(2):
        await year.live()
    assert year.next == date(2028, 2, 29)
    await year.open()
    await year.trade(60)
    await year.at(moment("2028-02-29T21:56"))
    await year.kill()
    year.snapshot()
    forget(tmp_path / "market", "ledger.db")
    year.next = date(2028, 3, 1)
    year.turn(moment("2028-03-01T15:00"))
    await year.begin()
    codes = year.market.desk.instruments.by_code
    assert codes["H100G28"].state == TradingState.CLOSED
    assert codes["H100H28"].state == TradingState.CONTINUOUS
    assert codes["H100G29"].state == TradingState.CONTINUOUS  # the month that takes its place
    await year.open()
    await year.close()
    assert codes["H100G28"].state == codes["H100G28-H100H28"].state == TradingState.EXPIRED
    year.next = date(2028, 3, 2)
    await year.live()
    await year.end()


@pytest.mark.skipif("HOURBOOK_YEAR_DAYS" not in os.environ, reason="make soak sets how many days")
async def test_soak(tmp_path: Path) -> None:
    days, draw = int(os.environ["HOURBOOK_YEAR_DAYS"]), Random()
    year = Year(tmp_path / "market", draw.randrange(1 << 32), date(2027, 11, 15), orders=100)
    await year.begin()
    await year.found()
    for _ in range(days):
        await year.live()
        if draw.random() < 0.1:
            await (year.kill() if draw.random() < 0.5 else year.market.stop())
            if draw.random() < 0.5:
                year.snapshot()
            forget(year.folder, *draw.sample(("ledger.db", "snapshots"), draw.randrange(3)))
            await year.begin()
    await year.end()
