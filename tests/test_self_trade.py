"""Self-trade prevention on the wire: groups of accounts, and what each mode does."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import venue as market
from msgspec.structs import replace
from test_batches import told
from venue import Venue, enter

from exchange.app.requests import OpenAccount
from exchange.app.wishes import RequestRefused, open_account
from exchange.messages import Command, CommandKind, wire

DESK, OTHER_DESK, RIVAL, GROUP = 21, 22, 23, 7


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """Two accounts of one group, each of its own member, and one of another group."""
    async with market.running(tmp_path) as opened:
        for account, group in ((DESK, GROUP), (OTHER_DESK, GROUP), (RIVAL, None)):
            wish = open_account(OpenAccount(account=account, self_trade_group=group))
            assert wish.command.session == (account if group is None else group)
            await opened.order(replace(wish.command, target_hi=1_000))
            deposit = Command(
                kind=CommandKind.DEPOSIT, account=account, price=10**13, key_lo=account
            )
            await opened.order(deposit)
        yield opened


@pytest.mark.parametrize(
    ("mode", "maker", "taker"),
    [
        ("cancel_newest", [], ["accepted t", "cancelled t"]),
        ("cancel_oldest", ["cancelled m"], ["accepted t"]),
        ("cancel_both", ["cancelled m"], ["accepted t", "cancelled t"]),
        ("decrement", ["cancelled m"], ["accepted t", "reduced t"]),
    ],
)
async def test_one_group_never_trades_with_itself(
    venue: Venue, mode: str, maker: list[str], taker: list[str]
) -> None:
    first, second = await venue.trader(DESK), await venue.trader(OTHER_DESK)
    await venue.say(first, enter("m", quantity="4"))
    crossing = enter("t", side="sell", quantity="10", self_trade=mode)
    answers = await venue.say(second, crossing)
    assert told(answers) == taker
    heard = venue.heard(first)
    assert told(heard) == maker
    for one in (*heard, *answers):
        assert not isinstance(one, wire.Execution)
        if isinstance(one, wire.Cancelled | wire.Reduced):
            assert one.reason == "SELF_TRADE"
    rival = await venue.trader(RIVAL)
    side = "sell" if mode == "cancel_newest" else "buy"
    if mode != "cancel_both":
        kinds = told(await venue.say(rival, enter("r", side=side, quantity="1")))
        assert kinds == ["accepted r", "execution r"]


async def test_an_account_says_its_group_and_its_member(venue: Venue) -> None:
    for account, group in ((DESK, GROUP), (RIVAL, RIVAL)):
        trader = await venue.trader(account)
        (answer,) = await venue.say(trader, {"op": "account", "request_id": "q"})
        assert isinstance(answer, wire.AccountReport)
        assert (answer.member, answer.self_trade_group) == (account, group)


@pytest.mark.parametrize("group", [-1, 1 << 16])
def test_a_group_that_cannot_be(group: Any) -> None:
    with pytest.raises(RequestRefused, match="self-trade group"):
        open_account(OpenAccount(account=1, self_trade_group=group))
