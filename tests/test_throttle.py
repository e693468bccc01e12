"""Throttles on the wire: what a request costs, what a reply says is left, cancels that pass.

The engine is the judge: with the clock standing still, what a reply says is left is exactly how
many orders it still takes.
"""

import json
import random
import re
from pathlib import Path
from typing import Any, Final

import pytest
import venue as market
from msgspec.structs import replace
from venue import CODE, OTHER, RICH, Venue, enter

from exchange.gateway.session import Session
from exchange.messages import (
    EVENT,
    Command,
    CommandKind,
    EventKind,
    Reason,
    Side,
    TradingState,
    wire,
)
from exchange.messages.access import COSTS

SLOW: Final = 9
BURST, INTERVAL_NS = 12, 1_000_000_000
PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "wire.md"


async def opened(venue: Venue, burst: int = BURST) -> Session:
    """A trader whose account has so many tokens and gets one a second."""
    await venue.order(market.open_account(SLOW, burst=burst, interval=INTERVAL_NS))
    deposit = Command(kind=CommandKind.DEPOSIT, account=SLOW, price=10**14, key_lo=9)
    await venue.order(deposit)
    return await venue.trader(SLOW)


async def tokens(venue: Venue, trader: Session) -> int:
    (told,) = await venue.say(trader, {"op": "account", "request_id": "q"})
    assert isinstance(told, wire.AccountReport) and told.tokens is not None
    assert (told.burst, told.interval_ns) == (BURST, INTERVAL_NS)
    return told.tokens


FREE: Final[dict[str, dict[str, Any]]] = {
    "account": {"request_id": "q"}, "orders": {"request_id": "q"},
    "order": {"request_id": "q", "client_order_id": "x"},
    "instruments": {"request_id": "q"}, "heartbeat": {},
    "subscribe": {"request_id": "s", "channels": [f"depth.{CODE}"]},
    "unsubscribe": {"request_id": "s", "channels": [f"depth.{CODE}"]},
    "protect": {"request_id": "p", "product": "H100", "quantity": "100", "window_ms": 1000},
    "reduce": {"request_id": "1", "client_order_id": "x", "quantity": "1"},
    "cancel": {"request_id": "2", "client_order_id": "x"},
    "mass_cancel": {"request_id": "3"},
    "cancel_after": {"request_id": "7", "timeout_ms": 1000},
    "preview": {"request_id": "8", "order": enter("z")},
}  # fmt: skip
DEAR: Final[dict[str, dict[str, Any]]] = {
    "enter": {name: value for name, value in enter("y", quantity="2").items() if name != "op"},
    "replace": {"request_id": "4", "client_order_id": "x", "price": "2.640", "quantity": "3"},
    "quote": {"request_id": "5", "instrument": OTHER, "bid_price": "2.500", "bid_quantity": "5"},
}


async def test_every_request_costs_what_the_table_says(tmp_path: Path) -> None:
    async with market.running(tmp_path) as venue:
        trader = await opened(venue)
        await venue.say(trader, enter("x", quantity="5"))
        for op, fields in {**DEAR, **FREE}.items():
            before = await tokens(venue, trader)
            told = await venue.say(trader, {"op": op, **fields})
            assert told and not isinstance(told[0], wire.Rejected), (op, told)
            after = await tokens(venue, trader)
            assert before - after == COSTS.get(op, 0), op
            if op in COSTS:
                assert getattr(told[0], "tokens") == after, op  # noqa: B009
        taken_back = {"op": "quote", "request_id": "6", "instrument": OTHER}
        before = await tokens(venue, trader)
        await venue.say(trader, taken_back)
        assert await tokens(venue, trader) == before
    tags = {str(request.__struct_config__.tag) for request in wire.AnyRequest.__args__}
    assert set(COSTS) | set(FREE) | {"logon", "kill"} == tags, "a request without a cost"


async def test_over_the_limit_one_waits_and_cancels_pass_b85(tmp_path: Path) -> None:
    async with market.running(tmp_path) as venue:
        trader = await opened(venue, burst=3)
        left = [await venue.say(trader, enter(f"o{number}")) for number in range(3)]
        assert [told[0].tokens for told in left if isinstance(told[0], wire.Accepted)] == [2, 1, 0]
        for number in range(50):
            (told,) = await venue.say(trader, enter(f"p{number}"))
            assert isinstance(told, wire.Rejected) and told.name == "THROTTLED"
            assert (told.retryable, told.retry_after_ms, told.tokens) == (True, 1_000, 0)
            assert trader.closing is None
        for number in range(3):
            cancel = {"op": "cancel", "request_id": f"c{number}", "client_order_id": f"o{number}"}
            assert isinstance((await venue.say(trader, cancel))[0], wire.Cancelled)
        venue.now_ns += 1_000 * 1_000_000  # as long as it was told, and no more
        (taken,) = await venue.say(trader, enter("q"))
        assert isinstance(taken, wire.Accepted) and taken.tokens == 0


async def test_at_no_tokens_all_that_takes_lots_out_passes(tmp_path: Path) -> None:
    async with market.running(tmp_path) as venue:
        trader = await opened(venue, burst=6)
        told = await venue.say(trader, *(enter(f"o{n}", quantity="5") for n in range(6)))
        assert told[-1].tokens == 0 if isinstance(told[-1], wire.Accepted) else False
        out: list[dict[str, Any]] = [
            {"op": "cancel", "request_id": "c", "client_order_id": "o0"},
            {"op": "reduce", "request_id": "r", "client_order_id": "o1", "quantity": "1"},
            {"op": "quote", "request_id": "q", "instrument": OTHER},
            {"op": "mass_cancel", "request_id": "m", "instrument": OTHER},
        ]
        batch = [enter("p"), *out, enter("q"), {"op": "kill", "request_id": "k"}]
        names = [
            getattr(one, "name", one.__struct_config__.tag)
            for one in await venue.say(trader, json.dumps(batch))
        ]
        assert names == [
            "THROTTLED", "cancelled", "reduced", "quoted", "mass_cancelled", "THROTTLED",
            "killed", *["cancelled"] * 5,
        ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_told_is_what_the_engine_still_takes(tmp_path: Path, seed: int) -> None:
    """Random requests, good and bad, and time that passes; then orders until one is refused."""
    chance = random.Random(seed)
    async with market.running(tmp_path) as venue:
        trader = await opened(venue)
        for number in range(60):
            venue.now_ns += chance.choice([0, 0, 300_000_000, 1_700_000_000])
            if chance.random() < 0.1:
                wished = chance.choice([TradingState.HALTED, TradingState.CONTINUOUS])
                await venue.order(market.state(0, wished))
            await venue.say(trader, drawn(chance, number))
        venue.now_ns += 1_500_000_000
        await venue.order(market.state(0, TradingState.CONTINUOUS))
        left = await tokens(venue, trader)
        for number in range(left + 1):
            told = (await venue.say(trader, enter(f"last{number}", quantity="1")))[0]
            assert isinstance(told, wire.Accepted) == (number < left), (number, left, told)
        venue.engine.check()


def drawn(chance: random.Random, number: int) -> dict[str, Any]:
    """A request that may be good, or may be refused before its token is spent or after."""
    name = f"d{chance.randrange(number + 1)}"
    request = {"request_id": f"r{number}", "client_order_id": name}
    quantity = chance.choice(["0", "1", "7", "2000000000"])
    price = chance.choice(["2.640", "2.660", "9.000", "0.000"])
    pick = chance.randrange(6)
    if pick == 0:
        return {"op": "cancel", **request}
    if pick == 1:
        return {"op": "reduce", **request, "quantity": quantity}
    if pick == 2:
        price = chance.choice(["2.640", "9.000"])  # see exchange/gateway/buckets.py
        return {
            "op": "replace",
            **request,
            "quantity": quantity,
            "price": price,
            "instrument": CODE,
        }
    if pick == 3:
        side = {"bid_price": "2.500", "bid_quantity": chance.choice(["5", "7"])}
        sides = chance.choice([side, {}, {**side, "ask_price": "2.400", "ask_quantity": "5"}])
        return {"op": "quote", "request_id": f"r{number}", "instrument": OTHER, **sides}
    fields: dict[str, Any] = chance.choice(
        [{}, {"post_only": True, "time_in_force": "IOC"}, {"reduce_only": True},
         {"time_in_force": "IOC"}, {"group_with": "77"}, {"minimum_quantity": "9"}]
    )  # fmt: skip
    return enter(name, quantity=quantity, price=price, **fields)


def test_the_page_has_the_costs() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", PAGE.read_text(), re.MULTILINE)
    assert {op: int(cost) for op, cost in rows} == COSTS


async def test_what_an_operator_is_refused_costs_no_member_a_token_and_is_told_to_none(
    tmp_path: Path,
) -> None:
    """Nor does its text, in whatever letters, hold anybody up: live, or coming back."""
    async with market.running(tmp_path) as venue:
        one, other = await venue.trader(RICH), await opened(venue)
        await venue.say(one, enter("a", quantity="1"))
        told = await venue.say(other, enter("b", side="sell", quantity="1"))
        (traded,) = (event for event in told if isinstance(event, wire.Execution))
        venue.heard(one)
        left = await tokens(venue, other)
        adjust = Command(
            kind=CommandKind.ADJUST, account=SLOW, session=RICH, side=Side.SELL, price=2_650,
            quantity=1, target_lo=int(traded.match_number), target_hi=market.HIGH + 1,
        )  # fmt: skip
        bust = replace(adjust, kind=CommandKind.BUST, target_lo=1)
        for command in (adjust, bust):
            await venue.order(command, '{"operation":"correct","reason":"größer als das Limit"}')
        await venue.order(Command(kind=CommandKind.LOGOFF, account=SLOW, session=999))
        rows = [row for batch in venue.sequencer.tape.read(1, traded.sequence, 0)
                for row in EVENT.iter_unpack(batch.events)]  # fmt: skip
        rejected = [Reason(row[4]).name for row in rows if row[2] == EventKind.REJECTED]
        assert rejected == ["PRICE_LIMIT", "TRADE_UNKNOWN", "SESSION_UNKNOWN"]
        assert venue.heard(one) == venue.heard(other) == []
        assert await tokens(venue, other) == left
        back = venue.connect()
        missed = await venue.say(back, venue.logon(SLOW, after=[0, 0, 0]))
        assert isinstance(missed[-1], wire.LoggedOn)
        assert not any(isinstance(event, wire.Rejected) for event in missed)
