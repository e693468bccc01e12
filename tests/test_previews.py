"""Previews: what a trial says is what then happens, and the trial itself changes nothing."""

import asyncio
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import venue as market
from live import until
from test_batches import drawn, told
from venue import CODE, POOR, RICH, THIRD, Venue, enter

from exchange.app import trial
from exchange.app.rehearsal import Rehearsal
from exchange.gateway import previews
from exchange.gateway.decode import Refused
from exchange.gateway.previews import Outcome, Tried
from exchange.gateway.session import MSGPACK, Session
from exchange.messages import wire

venue = market.venue  # a fixture


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews one behind the other, as many as there are."""
    monkeypatch.setattr(previews, "PREVIEWS_A_SECOND", 1_000_000)
    monkeypatch.setattr(trial, "MARKET_SHARE", 1)


async def preview(venue: Venue, session: Session, order: dict[str, Any]) -> wire.Previewed:
    """The answer to a preview, of which the market knows nothing."""
    venue.heard(session)  # what others did
    before = venue.engine.state_bytes(), venue.sequencer.sequence
    (answer,) = await venue.say(session, {"op": "preview", "request_id": "p", "order": order})
    assert isinstance(answer, wire.Previewed) and answer.request_id == "p"
    assert (venue.engine.state_bytes(), venue.sequencer.sequence) == before
    assert answer.sequence == before[1]
    return answer


@pytest.mark.usefixtures("unhurried")
async def test_what_would_trade_at_what_prices_and_what_it_would_need(venue: Venue) -> None:
    maker, taker = await venue.trader(RICH), await venue.trader(THIRD, MSGPACK)
    book = [("2.651", "4"), ("2.651", "3"), ("2.652", "5"), ("2.660", "9")]
    for number, (price, quantity) in enumerate(book):
        await venue.say(maker, enter(f"s{number}", side="sell", price=price, quantity=quantity))
    order = enter("b", price="2.655", quantity="20")
    seen = await preview(venue, taker, order)
    assert seen.executions == [("2.651", "7"), ("2.652", "5")]
    assert (seen.executed_quantity, seen.leaves_quantity, seen.refused) == ("12", "8", None)
    assert (seen.instrument, seen.low_limit, seen.high_limit) == (CODE, "2.000", "3.300")
    assert seen.cash_change == "-3.600000" and seen.required_before == "0.000000"
    await venue.say(taker, order)
    (account,) = await venue.say(taker, {"op": "account", "request_id": "q"})
    assert isinstance(account, wire.AccountReport)
    assert (seen.cash, seen.required, seen.free) == (account.cash, account.required, account.free)
    again = await preview(venue, taker, order)
    assert again.duplicate and again.executions == [] and again.leaves_quantity == "8"


@pytest.mark.usefixtures("unhurried")
async def test_the_reject_that_it_would_get(venue: Venue) -> None:
    trader, poor = await venue.trader(RICH), await venue.trader(POOR)
    await venue.say(trader, enter("a"))
    seen = await preview(venue, trader, enter("b", price="9.000"))
    assert seen.refused is not None and seen.refused.client_order_id == "b"
    assert (seen.refused.name, seen.refused.field, seen.refused.limit) == (
        "PRICE_LIMIT", "price", "3.300",
    )  # fmt: skip
    seen = await preview(venue, poor, enter("c", quantity="900"))
    assert seen.refused is not None and seen.refused.name == "MARGIN"
    assert seen.required == seen.required_before and seen.leaves_quantity == "0"
    (refused,) = await venue.say(poor, enter("c", quantity="900"))
    assert isinstance(refused, wire.Rejected)
    assert (refused.limit, refused.observed) == (seen.refused.limit, seen.refused.observed)
    for wrong, name in (
        (enter("d", price="2.6505"), "TICK"),
        ({"op": "replace", "request_id": "r", "client_order_id": "z", "price": "2.6",
          "quantity": "1"}, "NOT_FOUND"),
    ):  # fmt: skip
        ask = {"op": "preview", "request_id": "p", "order": wrong}
        (told_of,) = await venue.say(trader, ask)
        assert isinstance(told_of, wire.Rejected)
        assert (told_of.name, told_of.request_id, told_of.op) == (name, "p", "preview")


@pytest.mark.usefixtures("unhurried")
async def test_a_replacement_and_orders_that_leave_nothing(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(trader, enter("a", quantity="10"))
    await venue.say(other, enter("s", side="sell", quantity="4"))
    await venue.say(other, enter("t", side="sell", price="2.700", quantity="2"))
    replace = {"op": "replace", "request_id": "r", "client_order_id": "a", "price": "2.700"}
    seen = await preview(venue, trader, {**replace, "quantity": "9"})
    assert (seen.executions, seen.leaves_quantity) == ([("2.700", "2")], "3")
    seen = await preview(venue, trader, {**replace, "quantity": "4"})
    assert (seen.executions, seen.leaves_quantity) == ([], "0")
    seen = await preview(venue, trader, enter("m", quantity="9", price="2.7", time_in_force="IOC"))
    assert (seen.executions, seen.leaves_quantity) == ([("2.700", "2")], "0")
    iceberg = await preview(venue, trader, enter("i", display_quantity="1", price="2.600"))
    stop = await preview(venue, trader, enter("k", stop_price="2.800", price="2.900"))
    assert iceberg.leaves_quantity == stop.leaves_quantity == "10"


@pytest.mark.usefixtures("unhurried")
async def test_what_the_stops_take_that_its_trades_trigger(venue: Venue) -> None:
    """The order has rested by then, and the command is not over."""
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    stop = enter("k", side="sell", stop_price="2.655", price="2.600", quantity="3")
    await venue.say(other, stop, enter("s", side="sell", price="2.651", quantity="4"))
    order = enter("a", price="2.660", quantity="10")
    seen = await preview(venue, trader, order)
    assert seen.executions == [("2.651", "4"), ("2.660", "3")]
    assert (seen.executed_quantity, seen.leaves_quantity) == ("7", "3")
    await venue.say(trader, order)
    (told_of,) = await venue.say(trader, {"op": "order", "request_id": "q", "client_order_id": "a"})
    assert isinstance(told_of, wire.OrderStatus) and told_of.order is not None
    assert (told_of.executed_quantity, told_of.order.leaves_quantity) == ("7", "3")


@pytest.mark.usefixtures("unhurried")
async def test_a_repeat_leaves_what_works(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    replace = {"op": "replace", "request_id": "r", "client_order_id": "a", "price": "2.600"}
    replace["quantity"] = "8"
    sides = {"bid_price": "2.640", "bid_quantity": "3", "ask_price": "2.660", "ask_quantity": "5"}
    quote = {"op": "quote", "request_id": "q", "instrument": CODE, **sides}
    for request in (enter("a"), replace, quote):
        await venue.say(trader, request)
    for again, works in ((enter("a"), "8"), (replace, "8"), (quote, "8")):
        seen = await preview(venue, trader, again)
        assert seen.duplicate and (seen.executions, seen.leaves_quantity) == ([], works)


async def test_who_may_ask_and_how_often(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = {"op": "preview", "request_id": "p", "order": enter("a")}
    assert told(await venue.say(venue.connect(), ask)) == ["AUTH_REQUIRED p"]
    reader = venue.connect()
    await venue.say(reader, venue.logon(RICH, "read"))
    assert (await preview(venue, reader, enter("a"))).refused is None
    monkeypatch.setattr(previews, "PREVIEWS_A_SECOND", 0)
    assert told(await venue.say(reader, ask)) == ["REQUESTS_FULL p"]
    batch = json.dumps([ask, enter("b")])
    assert told(await venue.say(await venue.trader(THIRD), batch)) == [
        "COMBINATION p",
        "accepted b",
    ]


async def test_all_of_them_take_a_share_of_the_time_and_no_more(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MARKET_SHARE", 1_000_000)  # so that no pause is long enough
    trader = await venue.trader(RICH)
    ask = {"op": "preview", "request_id": "p", "order": enter("a")}
    answers = told(await venue.say(trader, ask, ask))
    assert answers == ["previewed p", "REQUESTS_FULL p"]


async def test_a_large_market_is_not_copied(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STATE_BYTES", 1_000)
    trader = await venue.trader(RICH)
    ask = {"op": "preview", "request_id": "p", "order": enter("a")}
    (refused,) = await venue.say(trader, ask)
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.limit, refused.request_id) == ("STATE_TOO_LARGE", "1000", "p")
    assert int(refused.observed or 0) == sum(venue.engine.memory().values())


@pytest.mark.usefixtures("unhurried")
async def test_an_answer_waits_for_what_it_rests_on(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is matched and not yet durable is in the copy: nothing is told before it is."""
    monkeypatch.setattr(previews, "WAITING", 2)
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    ask = {"op": "preview", "request_id": "p", "order": enter("b")}
    trader.receive(json.dumps(enter("a", side="sell", quantity="4")), 0)
    while venue.sequencer.sequence == venue.hub.sequence:
        await asyncio.sleep(0)  # until it is matched
    for _ in range(3):
        other.receive(json.dumps(ask), 0)
    assert told(venue.heard(other)) == ["REQUESTS_FULL p"]
    await venue.settle()
    seen = [one for one in venue.heard(other) if isinstance(one, wire.Previewed)]
    assert [one.executed_quantity for one in seen] == ["4", "4"]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("asked", ["replace", "again", "quote"])
async def test_what_works_is_as_of_the_copy_and_not_of_the_gateway(
    venue: Venue, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """An execution is matched and not yet released, or released and not yet in the copy."""
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    order: dict[str, Any] = enter("a")
    if asked == "quote":
        order = {"op": "quote", "request_id": "q", "instrument": CODE, "bid_price": "2.650",
                 "bid_quantity": "10", "ask_price": "2.700", "ask_quantity": "1"}  # fmt: skip
    await venue.say(trader, order)
    if asked == "replace":
        order = {"op": "replace", "request_id": "r", "client_order_id": "a", "quantity": "10"}
        order["price"] = "2.640"
    ask = {"op": "preview", "request_id": "p", "order": order}
    side = asked == "quote"  # the other side of the quote works too

    async def seen() -> list[str]:
        await venue.settle()
        told_of = [one for one in venue.heard(trader) if isinstance(one, wire.Previewed)]
        return [one.leaves_quantity for one in told_of]

    other.receive(json.dumps(enter("s", side="sell", quantity="4")), 0)
    while venue.sequencer.sequence == venue.hub.sequence:
        await asyncio.sleep(0)
    trader.receive(json.dumps(ask), 0)
    assert await seen() == [str(6 + side)]

    trial_of, held = venue.hub.previews._what_if, []
    assert trial_of is not None

    def late(account: int, record: bytes, tell: Any) -> None:
        trial_of(account, record, lambda tried: held.append((tell, tried)))

    monkeypatch.setattr(venue.hub.previews, "_what_if", late)
    trader.receive(json.dumps(ask), 0)
    await venue.say(other, enter("t", side="sell", quantity="5"))
    for tell, tried in held:
        tell(tried)
    assert await seen() == [str(6 + side)]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("seed", range(3))
async def test_what_it_says_is_what_happens(tmp_path: Path, seed: int) -> None:
    """Each of a run of random orders is tried first, then sent: the same reject or the same trades,
    and the account stands as was said."""
    chance, traded = random.Random(seed), 0
    async with market.running(tmp_path) as venue:
        traders = [await venue.trader(account) for account in (RICH, THIRD)]
        for number in range(120):
            turn = number % 2
            order = drawn(chance, number)
            if order["op"] in ("cancel", "reduce"):
                await venue.say(traders[turn], order)
                continue
            seen = await preview(venue, traders[turn], order)
            answers = await venue.say(traders[turn], order)
            if seen.refused is not None:
                (refused,) = [one for one in answers if isinstance(one, wire.Rejected)]
                assert (refused.name, refused.limit, refused.observed) == (
                    seen.refused.name, seen.refused.limit, seen.refused.observed,
                )  # fmt: skip
            fills: dict[str, int] = {}
            for one in answers:
                if isinstance(one, wire.Execution) and one.liquidity == "taker":
                    fills[one.price] = fills.get(one.price, 0) + int(one.quantity)
            assert [(price, str(lots)) for price, lots in fills.items()] == seen.executions
            traded += bool(fills)
            (account,) = await venue.say(traders[turn], {"op": "account", "request_id": "q"})
            assert isinstance(account, wire.AccountReport)
            assert (seen.cash, seen.required) == (account.cash, account.required)
    assert traded > 5


@pytest.mark.usefixtures("unhurried")
async def test_a_quote_is_tried_like_any_order(venue: Venue) -> None:
    maker, poor = await venue.trader(RICH), await venue.trader(POOR)
    quote = {
        "op": "quote", "request_id": "q", "instrument": CODE, "bid_price": "2.640",
        "bid_quantity": "3", "ask_price": "2.660", "ask_quantity": "5",
    }  # fmt: skip
    seen = await preview(venue, maker, quote)
    assert (seen.refused, seen.executions, seen.leaves_quantity) == (None, [], "8")
    await venue.say(maker, quote)
    (account,) = await venue.say(maker, {"op": "account", "request_id": "a"})
    assert isinstance(account, wire.AccountReport) and seen.required == account.required
    assert (await preview(venue, maker, quote)).duplicate
    crossed = await preview(venue, maker, {**quote, "request_id": "r", "bid_price": "2.670"})
    assert crossed.refused is not None and crossed.refused.name == "CROSSED"
    assert crossed.refused.request_id == "r"
    seen = await preview(venue, poor, {**quote, "bid_quantity": "900"})
    assert seen.refused is not None and seen.refused.name == "MARGIN"


async def test_a_process_beside_the_market_says_what_a_copy_would(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random orders, each tried both ways; once the process is killed, and once it hangs."""
    monkeypatch.setattr(trial, "MARKET_SHARE", 1)
    beside = Rehearsal(venue.directory)
    tries = trial.Trial(venue.engine, venue.sequencer, lambda: venue.now_ns, beside)
    trader, chance, seen = await venue.trader(RICH), random.Random(1), 0

    async def tried(record: bytes) -> Outcome:
        told_of: asyncio.Future[Outcome] = asyncio.Future()
        tries(RICH, record, told_of.set_result)
        async with asyncio.timeout(30):
            return await told_of

    for number in range(45):
        order = drawn(chance, number)
        if order["op"] == "enter":
            entered = msgspec.convert({"type": "limit", **order, "op": "enter"}, wire.Enter)
            record = venue.hub.recorder.enter(entered, RICH, trader.engine_session)
            copied = await tried(record)
            with monkeypatch.context() as large:
                large.setattr(trial, "STATE_BYTES", 0)
                apart = await tried(record)
                if seen == 10:
                    assert beside._process is not None
                    beside._process.kill()
                    await beside._process.wait()
                    gone = await tried(record)
                    assert isinstance(gone, Refused) and "ask again" in (gone.detail or "")
                if seen == 12:
                    assert beside._process is not None
                    large.setattr("exchange.app.rehearsal.LATE_SECONDS", 0.05)
                    large.setattr("exchange.app.rehearsal.HUNG_SECONDS", 1.0)
                    beside._process.send_signal(signal.SIGSTOP)
                    late = await tried(record)
                    assert isinstance(late, Refused) and "catches up" in (late.detail or "")
                    busy = await tried(record)
                    assert isinstance(busy, Refused) and busy.limit == "1"
                    await until(lambda: beside._process is None)
            assert apart == copied
            seen += 1
        venue.now_ns += chance.randrange(1_000_000)
        await venue.say(trader, order)
    assert seen > 20
    with monkeypatch.context() as large:
        large.setattr(trial, "STATE_BYTES", 0)
        answers = await asyncio.gather(tried(record), tried(record))
    assert isinstance(answers[0], Tried)
    assert isinstance(answers[1], Refused) and answers[1].limit == "1"
    # A trial that fails in its fork has no answer to give; whoever asked is told.
    await beside.close()
    beside._process = None
    failing = "import os; os.read(0, 4); os.write(1, bytes(4)); os.read(0, 9000)"

    async def start(*command: str, **pipes: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(sys.executable, "-c", failing, **pipes)

    monkeypatch.setattr("exchange.app.processors.start_child", start)
    with monkeypatch.context() as large:
        large.setattr(trial, "STATE_BYTES", 0)
        gone = await tried(record)
    assert isinstance(gone, Refused) and "ask again" in (gone.detail or "")
    await beside.close()
