"""A back month settled by its calendar spread, on a market's own trades: tier 4 and its inputs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from overrides import people

from exchange.app import Market, requests
from exchange.app.wishes import RequestRefused, Wish, note
from exchange.messages import Command, CommandKind, Side

NEAR, FAR, LATER = "H100Z26", "H100F27", "H100G27"
ONE_MONTH, TWO_MONTHS, ACROSS = f"{NEAR}-{FAR}", f"{FAR}-{LATER}", f"{NEAR}-{LATER}"
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    opened = await Market.start(tmp_path, clock=lambda: NOON)
    for account in (1, 2):
        await opened.operations.perform(requests.Deposit(account=account, amount="9000000"))
    yield opened
    await opened.stop()


async def trade(market: Market, code: str, ticks: int, lots: int) -> None:
    """Account 1 offers, account 2 buys."""
    number = market.desk.instruments.by_code[code].id
    for account, side in ((1, Side.SELL), (2, Side.BUY)):
        command = Command(
            kind=CommandKind.ENTER, account=account, side=side, price=ticks, quantity=lots,
            instrument=number, key_lo=market.desk.sequence + 1,
        )  # fmt: skip
        await market.desk.perform([Wish(command, note("enter"))])


def mark(market: Market, code: str) -> int:
    listed = market.desk.instruments.by_code[code]
    return listed.mark // listed.tick_scale


async def test_a_back_month_is_settled_by_the_spreads_that_traded(market: Market) -> None:
    for code in (ONE_MONTH, TWO_MONTHS, ACROSS):
        await market.operations.perform(requests.ListContract(code=code))
    before = {code: mark(market, code) for code in (NEAR, FAR, LATER)}
    near = before[NEAR] + 10
    await trade(market, NEAR, near, 3)
    await trade(market, ONE_MONTH, before[NEAR] - before[FAR] + 4, 5)
    await trade(market, TWO_MONTHS, before[FAR] - before[LATER] - 2, 6)
    await trade(market, ACROSS, before[NEAR] - before[LATER] + 3, 8)
    people(market.directory, "ann")
    asked = requests.ProposePrice(code=ONE_MONTH, price="0.100", reason="a test")
    with pytest.raises(RequestRefused, match="unknown_instrument"):  # none would take it
        await market.operations.perform(asked, "ann")
    settled = await market.operations.perform(requests.Settle())
    assert settled["divergences"] == 0
    inputs: dict[str, Any] = {line["code"]: line for line in settled["inputs"]}
    assert not set(inputs) & {ONE_MONTH, TWO_MONTHS, ACROSS}  # no settlement of their own
    assert (inputs[NEAR]["tier"], inputs[NEAR]["rule"]) == (1, "window average")
    far = inputs[FAR]
    assert (far["tier"], far["rule"], far["spreads"]) == (4, "spreads", [ONE_MONTH])
    assert far["window_lots"] == 0  # legs of a combination are no trades of the month's own book
    assert far["price"] == f"{(before[FAR] + 10 - 4) / 1000:.6f}"
    # 6 lots one month from the month before, 8 lots two months from the near one: weights 6 and 4.
    later = inputs[LATER]
    assert (later["tier"], later["spreads"]) == (4, [TWO_MONTHS, ACROSS])
    by_month, by_near = before[LATER] + 6 + 2, before[LATER] + 10 - 3
    exact = (by_month * 6 + by_near * 4) / 10
    assert later["price"] == f"{round(exact) / 1000:.6f}"
    others = [line for code, line in inputs.items() if code not in (NEAR, FAR, LATER)]
    assert others and {line["tier"] for line in others} <= {2, 3}
    market.clearing.audit()


async def test_a_spread_whose_near_leg_is_the_month_says_nothing_of_it(market: Market) -> None:
    """Only a far leg is found by a spread: the near one keeps its own market's price."""
    await market.operations.perform(requests.ListContract(code=ONE_MONTH))
    before = {code: mark(market, code) for code in (NEAR, FAR)}
    await trade(market, FAR, before[FAR] + 30, 2)
    await trade(market, ONE_MONTH, before[NEAR] - before[FAR] + 4, 5)
    settled = await market.operations.perform(requests.Settle())
    inputs: dict[str, Any] = {line["code"]: line for line in settled["inputs"]}
    assert inputs[NEAR]["tier"] in (2, 3) and inputs[NEAR]["spreads"] == []
    assert (inputs[FAR]["tier"], inputs[FAR]["spreads"]) == (1, [])  # its window's trades are first
