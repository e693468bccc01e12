"""The gateway on a real market: orders, reports, resume, sessions, queries, slow readers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import venue as market
from venue import CODE, OTHER, POOR, RICH, THIRD, Venue, enter

from exchange.gateway import queries
from exchange.gateway.session import (
    BACKLOG_BYTES,
    CLOSE_SLOW,
    JSON,
    MSGPACK,
    STALE_BYTES,
    Session,
    array_of,
)
from exchange.messages import Command, CommandKind, TradingState, wire

venue = market.venue  # a fixture


def types(messages: list[wire.AnyResponse]) -> list[str]:
    return [str(message.__struct_config__.tag) for message in messages]


async def test_an_order_rests_trades_and_both_sides_hear_of_it(venue: Venue) -> None:
    buyer, seller = await venue.trader(RICH), await venue.trader(THIRD)
    accepted = (await venue.say(buyer, enter("b1")))[0]
    assert isinstance(accepted, wire.Accepted)
    assert (accepted.client_order_id, accepted.price, accepted.leaves_quantity) == (
        "b1",
        "2.650",
        "10",
    )
    told = await venue.say(seller, enter("s1", side="sell", quantity="4", price="2.6"))
    assert types(told) == ["accepted", "execution"]
    assert isinstance(told[1], wire.Execution)
    assert (told[1].liquidity, told[1].price, told[1].fee) == ("taker", "2.650", "1.200000")
    (made,) = venue.heard(buyer)
    assert isinstance(made, wire.Execution)
    assert (made.liquidity, made.leaves_quantity, made.fee) == ("maker", "6", "0.600000")
    assert made.match_number == told[1].match_number == str(made.sequence << 20 | made.index)


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_a_repeat_says_nothing_of_what_works_that_it_does_not_know(
    venue: Venue, codec: int
) -> None:
    """The log keeps no lots that were left behind the first answer; none is not how many."""
    trader = await venue.trader(RICH, codec)
    await venue.say(trader, enter("a"))
    of_a = {"client_order_id": "a", "quantity": "8"}
    replace = {"op": "replace", "request_id": "r", "price": "2.650", **of_a}
    reduce = {"op": "reduce", "request_id": "s", **of_a, "quantity": "3"}
    for request, left, kept in ((replace, "8", True), (reduce, "5", None)):
        first, again = await venue.say(trader, request, request)
        assert isinstance(first, wire.Replaced | wire.Reduced)
        assert isinstance(again, type(first))
        assert (first.leaves_quantity, getattr(first, "priority_kept", None)) == (left, kept)
        assert again.duplicate and again.quantity == first.quantity
        assert again.leaves_quantity is getattr(again, "priority_kept", None) is None


async def test_every_outcome_of_a_command_is_one_frame(venue: Venue) -> None:
    maker, taker = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(maker, *(enter(f"m{n}", quantity="1") for n in range(5)))
    told = await venue.say(taker, enter("t", side="sell", quantity="5"))
    assert types(told) == ["accepted"] + ["execution"] * 5
    assert venue.heard(taker) == []


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_cancel_reduce_and_replace_by_either_id(venue: Venue, codec: int) -> None:
    trader = await venue.trader(RICH, codec)
    accepted = (await venue.say(trader, enter("a")))[0]
    assert isinstance(accepted, wire.Accepted)
    order_id = accepted.order_id
    reduce = {"op": "reduce", "request_id": "r1", "client_order_id": "a", "quantity": "3"}
    reduced = (await venue.say(trader, reduce))[0]
    assert isinstance(reduced, wire.Reduced)
    assert (reduced.leaves_quantity, reduced.request_id, reduced.reason) == ("7", "r1", "REQUESTED")
    replace = {"op": "replace", "request_id": "r2", "order_id": order_id, "price": "2.651"}
    replaced = (await venue.say(trader, {**replace, "quantity": "7"}))[0]
    assert isinstance(replaced, wire.Replaced)
    assert (replaced.price, replaced.priority_kept, replaced.client_order_id) == (
        "2.651",
        False,
        "a",
    )
    cancel = {"op": "cancel", "request_id": "r3", "order_id": order_id}
    cancelled = (await venue.say(trader, cancel))[0]
    assert isinstance(cancelled, wire.Cancelled)
    assert (cancelled.quantity, cancelled.request_id, cancelled.resting) == ("7", "r3", True)
    repeated = (await venue.say(trader, cancel))[0]
    assert isinstance(repeated, wire.Cancelled)
    assert repeated.duplicate and repeated.client_order_id == "a"


async def test_orders_are_named_by_client_id_before_their_answer(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    replace = {"op": "replace", "request_id": "r", "client_order_id": "a", "price": "2.640"}
    told = await venue.say(
        trader,
        enter("a"),
        {**replace, "quantity": "5", "instrument": CODE},
        {"op": "cancel", "request_id": "c", "client_order_id": "a"},
    )
    assert types(told) == ["accepted", "replaced", "cancelled"]


async def test_a_market_order_has_no_price(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    order = enter("m", type="market")
    del order["price"]
    told = await venue.say(trader, order)
    assert types(told) == ["accepted", "cancelled"]
    assert isinstance(told[0], wire.Accepted) and isinstance(told[1], wire.Cancelled)
    assert (told[0].price, told[0].time_in_force, told[1].reason) == (
        None,
        "IOC",
        "MARKET_REMAINDER",
    )


async def test_a_market_order_that_rests_has_the_price_it_rests_at(venue: Venue) -> None:
    seller, buyer = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(seller, enter("s", side="sell", quantity="4"))
    order = enter("m", type="market", protection="0.002", time_in_force="DAY")
    del order["price"]
    told = await venue.say(buyer, order)
    assert types(told) == ["accepted", "execution"]
    assert isinstance(told[0], wire.Accepted)
    assert (told[0].price, told[0].leaves_quantity) == ("2.652", "6")


async def test_an_order_until_a_time_and_one_with_a_minimum(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    (until,) = await venue.say(trader, enter("g", time_in_force="GTD", expires_ms=1 << 42))
    assert isinstance(until, wire.Accepted) and until.time_in_force == "GTD"
    told = await venue.say(trader, enter("n", minimum_quantity="1"))
    assert types(told) == ["accepted", "cancelled"]
    assert isinstance(told[1], wire.Cancelled) and told[1].reason == "MINIMUM_UNFILLED"


async def test_a_stop_waits_unseen_and_says_when_it_is_elected(venue: Venue) -> None:
    seller, buyer, reader = await venue.trader(RICH), await venue.trader(THIRD), venue.connect()
    channels = {"op": "subscribe", "request_id": "s", "channels": [f"depth.{CODE}"]}
    await venue.say(reader, channels)
    told = await venue.say(buyer, enter("stop", stop_price="2.651", price="2.652"))
    assert types(told) == ["accepted", "waiting"]
    accepted, waiting = told
    assert isinstance(accepted, wire.Accepted) and isinstance(waiting, wire.Waiting)
    assert (accepted.stop, accepted.leaves_quantity) == (True, "0")
    assert (waiting.stop_price, waiting.price, waiting.quantity) == ("2.651", "2.652", "10")
    (orders,) = await venue.say(buyer, {"op": "orders", "request_id": "o"})
    assert isinstance(orders, wire.Orders) and orders.orders[0].waiting
    assert not [m for m in venue.heard(reader) if isinstance(m, wire.DepthDelta)]
    await venue.say(seller, enter("s", side="sell", price="2.651", quantity="4"))
    told = await venue.say(buyer, enter("b", price="2.651", quantity="1"))
    assert types(told) == ["accepted", "execution", "elected", "execution"]
    elected = told[2]
    assert isinstance(elected, wire.Elected)
    assert (elected.quantity, elected.leaves_quantity) == ("10", "7")
    (orders,) = await venue.say(buyer, {"op": "orders", "request_id": "o2"})
    assert isinstance(orders, wire.Orders) and not orders.orders[0].waiting
    await check_accounts(venue, seller, buyer)


async def test_an_iceberg_shows_a_part_and_is_refilled(venue: Venue) -> None:
    seller, buyer = await venue.trader(RICH), await venue.trader(THIRD)
    (accepted,) = await venue.say(seller, enter("i", side="sell", display_quantity="3"))
    assert isinstance(accepted, wire.Accepted)
    assert (accepted.leaves_quantity, accepted.display_quantity) == ("3", "3")
    await venue.say(buyer, enter("b", quantity="5"))
    told = venue.heard(seller)
    assert types(told) == ["execution", "refilled", "execution"]
    first, refilled, _ = told
    assert isinstance(first, wire.Execution) and isinstance(refilled, wire.Refilled)
    assert first.leaves_quantity == "7"
    assert (refilled.leaves_quantity, refilled.shown_quantity) == ("7", "3")
    await check_accounts(venue, seller, buyer)
    (gone,) = await venue.say(seller, {"op": "cancel", "request_id": "c", "client_order_id": "i"})
    assert isinstance(gone, wire.Cancelled) and gone.quantity == "5"


async def test_two_connections_of_one_account_hear_the_same(venue: Venue) -> None:
    one, two = await venue.trader(RICH), await venue.trader(RICH, MSGPACK)
    told = await venue.say(one, enter("x"))
    assert told == venue.heard(two)


def after(message: Any, epoch: int) -> list[int]:
    return [epoch, message.sequence, message.index]


async def test_resume_replays_what_was_missed_without_gap_or_double(venue: Venue) -> None:
    seller = await venue.trader(THIRD)
    first = await venue.trader(RICH)
    whole = await venue.trader(RICH)
    last = (await venue.say(first, enter("b1"), enter("b2")))[-1]
    venue.hub.disconnect(first)
    venue.heard(whole)
    for number in range(4):
        await venue.say(seller, enter(f"s{number}", side="sell", quantity="4"))
    missed = venue.heard(whole)
    resumed = venue.connect()
    answers = await venue.say(resumed, venue.logon(RICH, after=after(last, venue.hub.epoch)))
    assert answers[:-1] == missed
    assert isinstance(answers[-1], wire.LoggedOn)
    places = [(m.sequence, m.index) for m in answers]  # type: ignore[union-attr]
    assert places == sorted(set(places))
    told = await venue.say(resumed, enter("b3", quantity="1"))
    assert told == venue.heard(whole)


async def test_resume_inside_a_command_and_by_a_reader(venue: Venue) -> None:
    maker, taker = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(maker, *(enter(f"m{n}", quantity="1") for n in range(3)))
    told = await venue.say(taker, enter("t", side="sell", quantity="3"))
    reader = venue.connect()
    logon = venue.logon(THIRD, "read", after=after(told[1], venue.hub.epoch))
    answers = await venue.say(reader, logon)
    assert answers[:-1] == told[2:]
    assert isinstance(answers[-1], wire.LoggedOn) and answers[-1].scope == "read"


async def test_resume_across_a_restart(tmp_path: Path) -> None:
    async with market.running(tmp_path) as before:
        trader = await before.trader(RICH)
        told = await before.say(trader, enter("a"), enter("b"))
        epoch = before.hub.epoch
    async with market.running(tmp_path, fresh=False) as venue:
        assert venue.hub.epoch == epoch + 1
        venue.nonce = 100
        for named in (epoch, epoch + 1):  # the sequence decides, whatever epoch is named
            session = venue.connect()
            answers = await venue.say(session, venue.logon(RICH, after=after(told[0], named)))
            assert answers[0] == told[1]
            assert isinstance(answers[-1], wire.LoggedOn)
            assert answers[-1].epoch == epoch + 1
        first, _ = venue.hub.epochs.first[-1]
        for named in (0, epoch, epoch + 1, epoch + 2):  # so it does where an epoch begins
            session = venue.connect()
            logon = venue.logon(RICH, after=[named, first, 0])
            assert isinstance((await venue.say(session, logon))[-1], wire.LoggedOn)


async def test_cancel_on_disconnect_after_its_grace(venue: Venue) -> None:
    watcher = await venue.trader(RICH)
    trader = await venue.trader(RICH, cancel_on_disconnect=True, grace_ms=3_000)
    await venue.say(trader, enter("a"))
    await venue.say(watcher, enter("mine", price="2.600"))
    venue.hub.disconnect(trader)
    await venue.settle()
    venue.heard(watcher)
    venue.now_ns += 2_999_000_000
    venue.sequencer.wake()
    await asyncio.sleep(0.02)
    assert venue.heard(watcher) == []
    venue.now_ns += 1_000_000
    venue.sequencer.wake()
    async with asyncio.timeout(10):
        while not (told := venue.heard(watcher)):
            await asyncio.sleep(0.001)
    (cancelled,) = told
    assert isinstance(cancelled, wire.Cancelled)
    assert (cancelled.client_order_id, cancelled.reason) == ("a", "DISCONNECTED")


async def test_a_resumed_session_keeps_its_orders(venue: Venue) -> None:
    trader = await venue.trader(RICH, cancel_on_disconnect=True, grace_ms=3_000)
    number = trader.engine_session
    await venue.say(trader, enter("a"))
    venue.hub.disconnect(trader)
    back = await venue.trader(RICH, resume_session=number, cancel_on_disconnect=True)
    assert back.engine_session == number
    venue.now_ns += 10_000_000_000
    venue.sequencer.wake()
    await asyncio.sleep(0.02)
    orders = (await venue.say(back, {"op": "orders", "request_id": "q"}))[0]
    assert isinstance(orders, wire.Orders)
    assert [order.client_order_id for order in orders.orders] == ["a"]


async def test_a_logoff_survives_a_full_queue(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    venue.full = True
    venue.hub.disconnect(trader)
    venue.full = False
    assert venue.engine.counts()["sessions"] == 1
    venue.hub.beat()
    await venue.settle()
    assert venue.engine.counts()["sessions"] == 0


async def test_a_connection_that_left_while_logging_on_is_logged_off(venue: Venue) -> None:
    session = venue.connect()
    session.receive(msgspec.json.encode(venue.logon(RICH)).decode(), 0)
    venue.hub.disconnect(session)
    await venue.settle()
    await venue.settle()
    assert venue.engine.counts()["sessions"] == 0


async def test_account_answers_equal_the_engine(venue: Venue) -> None:
    one, two = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(one, enter("a"), enter("b", price="2.700"), enter("c", instrument=OTHER))
    await venue.say(two, enter("d", side="sell", quantity="15", price="2.500"))
    await venue.say(two, enter("e", side="sell", price="2.500", instrument=OTHER, quantity="30"))
    await venue.order(Command(kind=CommandKind.MARK, instrument=0, price=2_633_000))
    await check_accounts(venue, one, two)
    await venue.order(Command(kind=CommandKind.SETTLE, instrument=0, price=2_641_000, quantity=1))
    await check_accounts(venue, one, two)
    await venue.order(Command(kind=CommandKind.FEE, account=RICH, price=5_000_000, key_lo=99))
    await venue.order(market.state(0, TradingState.CLOSED))
    await venue.order(Command(kind=CommandKind.EXPIRE, instrument=0, price=2_700_000))
    await check_accounts(venue, one, two)
    assert venue.hub.accounts.by_id[0].cash == venue.engine.account(0)["cash"]


async def test_who_is_flat_has_no_position_in_what_expired(venue: Venue) -> None:
    """An expiry settles nothing of his, and what was said of him is said no more."""
    one, two = await venue.trader(RICH), await venue.trader(THIRD)
    for number, (buyer, seller) in enumerate(((one, two), (two, one))):
        await venue.say(seller, enter(f"s{number}", side="sell"))
        await venue.say(buyer, enter(f"b{number}"))
    await venue.order(Command(kind=CommandKind.SETTLE, instrument=0, price=2_641_000, quantity=1))
    await venue.order(market.state(0, TradingState.CLOSED))
    for expired in (False, True):
        if expired:
            await venue.order(Command(kind=CommandKind.EXPIRE, instrument=0, price=2_700_000))
        for session in (one, two):
            venue.heard(session)
            report = (await venue.say(session, {"op": "account", "request_id": "q"}))[0]
            assert isinstance(report, wire.AccountReport)
            assert [held.net for held in report.positions] == ([] if expired else ["0"])


async def check_accounts(venue: Venue, *sessions: Session) -> None:
    for session in sessions:
        venue.heard(session)
        report = (await venue.say(session, {"op": "account", "request_id": "q"}))[0]
        assert isinstance(report, wire.AccountReport)
        figures = venue.engine.account(report.account)
        assert report.cash == decimal(figures["cash"])
        assert report.required == decimal(figures["required"])
        assert report.open_orders == figures["open_orders"]
        for held in report.positions:
            number = (CODE, OTHER).index(held.instrument)
            position = venue.engine.position(report.account, number)
            assert held.net == str(position["net"])
            assert held.working_buy == str(position["working_buy"])
            assert held.working_sell == str(position["working_sell"])
            assert held.hold == decimal(position["hold"])


def decimal(micros: int) -> str:
    sign = "-" if micros < 0 else ""
    return f"{sign}{abs(micros) // 1_000_000}.{abs(micros) % 1_000_000:06}"


async def test_settlement_cash_and_deficit_are_reported(venue: Venue) -> None:
    poor, rich = await venue.trader(POOR), await venue.trader(RICH)
    await venue.say(rich, enter("s", side="sell", price="2.650"))
    await venue.say(poor, enter("b"))
    await venue.order(Command(kind=CommandKind.SETTLE, instrument=0, price=2_400_000, quantity=1))
    told = venue.heard(poor)
    assert types(told) == ["settled", "deficit"]
    settled, deficit = told
    assert isinstance(settled, wire.Settled) and isinstance(deficit, wire.Deficit)
    assert (settled.position, settled.variation) == ("10", "-1860.000000")
    assert deficit.active and deficit.cash == settled.cash
    await venue.order(Command(kind=CommandKind.DEPOSIT, account=POOR, price=10**10, key_lo=5))
    assert types(venue.heard(poor)) == ["cash", "deficit"]


async def test_limits_that_move_make_orders_dormant_and_bring_them_back(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("a", price="2.100"))
    narrow = Command(kind=CommandKind.SET_LIMITS, instrument=0, target_lo=2_500, target_hi=2_800)
    await venue.order(narrow)
    assert types(venue.heard(trader)) == ["dormant"]
    wide = Command(kind=CommandKind.SET_LIMITS, instrument=0, target_lo=2_000, target_hi=3_300)
    await venue.order(wide)
    assert types(venue.heard(trader)) == ["returned"]


async def test_public_data_needs_no_logon_and_comes_with_the_trade(venue: Venue) -> None:
    public = venue.connect()
    channels = [f"depth.{CODE}", f"trades.{CODE}", f"state.{CODE}"]
    told = await venue.say(public, {"op": "subscribe", "request_id": "s", "channels": channels})
    assert types(told) == ["subscribed", "depth_snapshot", "mark", "state", "mark"]
    one, two = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(one, enter("a"))
    await venue.say(two, enter("b", side="sell", quantity="4"))
    told = venue.heard(public)
    assert types(told) == ["depth", "trade", "depth", "mark"]
    await venue.order(market.state(0, TradingState.HALTED))
    state, mark = venue.heard(public)
    assert isinstance(state, wire.InstrumentState) and isinstance(mark, wire.ChannelMark)
    assert (state.state, state.cause) == ("HALTED", "OPERATOR")
    assert (mark.channel, mark.sequence) == (f"state.{CODE}", state.sequence)
    leave = {"op": "unsubscribe", "request_id": "u", "channels": channels}
    assert types(await venue.say(public, leave)) == ["unsubscribed"]
    await venue.order(market.state(0, TradingState.CONTINUOUS))
    assert venue.heard(public) == []


async def test_readers_of_public_data_are_woken_first(venue: Venue) -> None:
    order: list[str] = []
    trader = await venue.trader(RICH)
    trader.wake = lambda: order.append("private")
    public = venue.hub.connect(JSON, lambda: order.append("public"))
    await venue.say(public, {"op": "subscribe", "request_id": "s", "channels": [f"depth.{CODE}"]})
    order.clear()
    await venue.say(trader, enter("a"))
    assert order == ["public", "private"]

    def sent() -> bool:
        order.append("sent")
        return True

    trader.send_now = sent
    order.clear()
    await venue.say(trader, enter("b"))
    assert order == ["public", "private"]  # the reader's sender has to be woken: so has this one
    public.send_now = sent
    order.clear()
    await venue.say(trader, enter("c"))
    assert order == ["sent", "sent"]


async def test_heartbeats_carry_the_last_sequence_and_prove_depth_alive(venue: Venue) -> None:
    session = venue.connect()
    (beat,) = await venue.say(session, {"op": "heartbeat"})
    assert isinstance(beat, wire.Heartbeat) and beat.sequence == venue.hub.sequence
    await venue.say(session, {"op": "subscribe", "request_id": "s", "channels": [f"depth.{CODE}"]})
    venue.hub.beat()
    delta, beat = venue.heard(session)
    assert isinstance(delta, wire.DepthDelta)
    assert delta.sequence == delta.previous_sequence and not delta.bids and not delta.asks


async def test_a_reader_that_lags_gets_a_snapshot_and_one_that_stops_is_evicted(
    venue: Venue,
) -> None:
    public, trader = venue.connect(), await venue.trader(RICH)
    await venue.say(public, {"op": "subscribe", "request_id": "s", "channels": [f"depth.{CODE}"]})
    public.sending_bytes = 2 * STALE_BYTES  # as if the socket had not taken the last frame
    await venue.say(trader, enter("a"), enter("b", price="2.640"))
    assert public.stale == {f"depth.{CODE}"}
    public.sending_bytes = 0
    (snapshot,) = venue.heard(public)
    assert isinstance(snapshot, wire.DepthSnapshot)
    assert snapshot.bids == [("2.650", "10"), ("2.640", "10")]
    await venue.say(trader, enter("c", price="2.630"))
    (delta,) = venue.heard(public)
    assert isinstance(delta, wire.DepthDelta)
    assert delta.previous_sequence == snapshot.sequence
    public.push(b"x" * (BACKLOG_BYTES + 1))
    assert public.closing is None  # it had no time to read that
    venue.hub.beat()
    assert public.closing == (CLOSE_SLOW, "slow reader")
    assert trader.closing is None


async def test_instruments_say_what_a_client_must_know(venue: Venue) -> None:
    told = (await venue.say(venue.connect(), {"op": "instruments", "request_id": "q"}))[0]
    assert isinstance(told, wire.Instruments)
    first = told.instruments[0]
    assert (first.code, first.tick, first.multiplier, first.state) == (
        CODE,
        "0.001",
        market.HOURS,
        "CONTINUOUS",
    )
    assert first.max_order == market.LOTS_MAX


async def test_a_repeated_order_gets_its_first_answer(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    first, again = await venue.say(trader, enter("a"), enter("a"))
    assert isinstance(first, wire.Accepted) and isinstance(again, wire.Accepted)
    assert again.duplicate and again.order_id == first.order_id
    assert venue.engine.account(RICH)["open_orders"] == 1


@pytest.mark.parametrize("count", [1, 15, 16, 70_000])
def test_a_frame_is_one_array_in_both_codecs(count: int) -> None:
    beat = wire.Heartbeat(epoch=1, sequence=2, time=3)
    decoders: dict[int, Callable[[bytes], Any]] = {
        JSON: msgspec.json.decode,
        MSGPACK: msgspec.msgpack.decode,
    }
    for codec, encode in ((JSON, wire.encode_json), (MSGPACK, wire.encode_msgpack)):
        assert len(decoders[codec](array_of([encode(beat)] * count, count, codec))) == count


async def test_an_account_is_gone_through_once_a_batch_and_so_often_a_second(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    for number in range(5):
        await venue.say(trader, enter(f"o{number}", quantity="1"))
    looked = 0
    exposures = venue.hub.accounts.exposures

    class Counted:
        """The accounts, and how often one's orders are gone through."""

        def __getattr__(self, name: str) -> Any:
            return getattr(venue.hub.accounts, name)

        def exposures(self, account: Any) -> Any:
            nonlocal looked
            looked += 1
            return exposures(account)

    monkeypatch.setattr(venue.hub.queries, "_accounts", Counted())
    for name in ("q1", "q2", "q3"):
        (told,) = await venue.say(trader, {"op": "account", "request_id": name})
        assert isinstance(told, wire.AccountReport)
        assert (told.request_id, told.open_orders) == (name, 5)
    assert looked == 1
    monkeypatch.setattr(queries, "ORDERS_A_SECOND", 20)
    said = []
    for _ in range(20):  # a second may end meanwhile
        said += await venue.say(trader, {"op": "orders", "request_id": "q"})
    refused = [one for one in said if isinstance(one, wire.Rejected)]
    assert len(refused) >= 8
    assert (refused[0].name, refused[0].request_id) == ("REQUESTS_FULL", "q")
    assert refused[0].retryable and refused[0].retry_after_ms == 1_000
    (told,) = await venue.say(other, {"op": "orders", "request_id": "q"})
    assert isinstance(told, wire.Orders)


async def test_a_new_business_date_is_told_of_every_instrument(venue: Venue) -> None:
    reader = venue.connect()
    names = [f"state.{code}" for code in (CODE, OTHER)]
    await venue.say(reader, {"op": "subscribe", "request_id": "s", "channels": names})
    await venue.order(Command(kind=CommandKind.CLOSE_DAY, quantity=market.DAY))
    venue.heard(reader)
    await venue.order(Command(kind=CommandKind.OPEN_DAY, quantity=market.DAY + 3))
    told = [one for one in venue.heard(reader) if isinstance(one, wire.InstrumentState)]
    assert [(one.instrument, one.business_date) for one in told] == [
        (code, market.DAY + 3) for code in (CODE, OTHER)
    ]
