"""One order, asked for by either id: before its answer, while it works, after its end."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import venue as market
from live import Live
from venue import CODE, RICH, THIRD, Venue, enter, reject

from exchange.gateway import lookups
from exchange.messages import wire

venue = market.venue  # a fixture


def ask(**ids: str) -> dict[str, Any]:
    return {"op": "order", "request_id": "q", **ids}


async def told(venue: Venue, session: Any, **ids: str) -> wire.OrderStatus:
    (answer,) = await venue.say(session, ask(**ids))
    assert isinstance(answer, wire.OrderStatus) and answer.request_id == "q"
    return answer


async def test_an_order_is_asked_for_before_its_answer(venue: Venue) -> None:
    """The question is read before the order is matched, and answered behind its report."""
    trader = await venue.trader(RICH)
    accepted, answer = await venue.say(trader, enter("a"), ask(client_order_id="a"))
    assert isinstance(accepted, wire.Accepted) and isinstance(answer, wire.OrderStatus)
    assert answer.state == "working" and answer.order is not None
    assert answer.order.order_id == accepted.order_id and answer.sequence >= accepted.sequence
    reader = venue.connect()
    await venue.say(reader, venue.logon(RICH, "read"))
    assert (await told(venue, reader, order_id=accepted.order_id)).order == answer.order


async def test_what_became_of_it(venue: Venue) -> None:
    one, other = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(one, enter("a"), enter("b"), enter("c", price="2.600"))
    await venue.say(other, enter("t", side="sell", quantity="14"))
    venue.heard(one)
    filled = await told(venue, one, client_order_id="a")
    assert (filled.state, filled.executed_quantity) == ("ended", "10")
    assert filled.order is not None and filled.order.leaves_quantity == "0"
    partly = await told(venue, one, client_order_id="b")
    assert (partly.state, partly.executed_quantity) == ("working", "4")
    assert partly.order is not None and partly.order.leaves_quantity == "6"
    await venue.say(one, {"op": "cancel", "request_id": "r", "client_order_id": "b"})
    gone = await told(venue, one, client_order_id="b")
    assert (gone.state, gone.executed_quantity) == ("ended", "4")
    assert gone.order is not None and gone.order.leaves_quantity == "6"
    other_side = await told(venue, other, client_order_id="t")
    assert (other_side.state, other_side.executed_quantity) == ("ended", "14")


async def test_what_is_not_known_is_waited_for_and_then_unknown(venue: Venue) -> None:
    """An id that never was, one that was refused, and one of another account."""
    one, other = await venue.trader(RICH), await venue.trader(THIRD)
    (accepted,) = await venue.say(one, enter("mine"))
    assert isinstance(accepted, wire.Accepted)
    await venue.say(one, enter("bad", price="9"))
    for ids in ({"client_order_id": "mine"}, {"order_id": accepted.order_id}):
        assert await venue.say(other, ask(**ids)) == []
    assert await venue.say(one, ask(client_order_id="bad")) == []
    venue.hub.tick()
    assert venue.heard(one) == venue.heard(other) == []
    venue.now_ns += lookups.WAIT_MS * 1_000_000
    venue.hub.tick()
    answers = [*venue.heard(one), *venue.heard(other)]
    assert [type(answer) for answer in answers] == [wire.OrderStatus] * 3
    assert {answer.state for answer in answers if isinstance(answer, wire.OrderStatus)} == {
        "unknown"
    }
    assert not venue.hub.lookups and not venue.hub.lookups._by_text


async def test_nobody_waits_for_a_clock_that_was_put_back(venue: Venue) -> None:
    one = await venue.trader(RICH)
    assert await venue.say(one, ask(client_order_id="never")) == []
    venue.now_ns -= 3_600_000_000_000
    venue.hub.tick()
    (answer,) = venue.heard(one)
    assert isinstance(answer, wire.OrderStatus) and answer.state == "unknown"


async def test_only_who_still_waits_counts(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account takes all the places, and a question with its answer takes none."""
    monkeypatch.setattr(lookups, "ACCOUNT_LOOKUPS", 2)
    monkeypatch.setattr(lookups, "LOOKUPS", 3)
    one, other = await venue.trader(RICH), await venue.trader(THIRD)
    for number in range(4):
        entered = await venue.say(one, *(ask(client_order_id=f"{number}{n}") for n in range(2)),
                                  *(enter(f"{number}{n}") for n in range(2)))  # fmt: skip
        kinds = Counter(type(told) for told in entered)
        assert kinds == {wire.Accepted: 2, wire.OrderStatus: 2}
    for number in range(2):
        assert await venue.say(one, ask(client_order_id=f"never{number}")) == []
    for asking, limit in ((one, "2"), (other, None), (other, "3")):
        answers = await venue.say(asking, ask(client_order_id="never"))
        assert [told.limit for told in answers if isinstance(told, wire.Rejected)] == (
            [] if limit is None else [limit]
        )
    venue.now_ns += lookups.WAIT_MS * 1_000_000
    venue.hub.tick()
    assert len(venue.heard(one)) == 2
    assert await venue.say(one, ask(client_order_id="never")) == []


async def test_one_that_comes_later_is_told_when_it_comes(venue: Venue) -> None:
    """To those of its account who asked for it; to another's not, nor after a reject."""
    one, again, other = [await venue.trader(account) for account in (RICH, RICH, THIRD)]
    for asking in (again, other):
        assert await venue.say(asking, ask(client_order_id="late")) == []
    await venue.say(one, enter("late", price="9"))
    assert [type(told) for told in venue.heard(again)] == [wire.Rejected]
    await venue.say(one, enter("late"))
    assert venue.heard(other) == []
    report, answer = venue.heard(again)
    assert isinstance(report, wire.Accepted) and isinstance(answer, wire.OrderStatus)
    assert answer.state == "working"
    venue.now_ns += lookups.WAIT_MS * 1_000_000
    venue.hub.tick()
    assert venue.heard(again) == [] and len(venue.heard(other)) == 1
    assert not venue.hub.lookups and not venue.hub.lookups._by_text


async def test_what_is_no_question_is_refused(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await reject(venue, venue.connect(), ask(order_id="1"))).name == "AUTH_REQUIRED"
    trader = await venue.trader(RICH)
    for ids, name in (
        ({}, "MISSING_FIELD"),
        ({"order_id": "1", "client_order_id": "a"}, "COMBINATION"),
        ({"client_order_id": "a b"}, "ID_FORMAT"),
        ({"order_id": "one"}, "ID_FORMAT"),
    ):
        assert (await reject(venue, trader, ask(**ids))).name == name
    monkeypatch.setattr(lookups, "LOOKUPS", 1)
    await venue.say(trader, ask(client_order_id="a"))
    full = await reject(venue, trader, ask(client_order_id="b"))
    assert (full.name, full.limit, full.retryable) == ("REQUESTS_FULL", "1", True)


async def test_the_client_asks_for_what_it_has_just_sent(tmp_path: Path) -> None:
    async with Live.open(tmp_path) as live:
        client = await live.client(1)
        instrument = live.market.hub.feed.instruments.by_code[CODE]
        build = client.build.enter(CODE, "buy", 1, instrument.low_ticks, client_order_id="new")
        await client.send_batch([build])
        told = await client.query_order("new")
        assert (told.state, told.executed_quantity) == ("working", "0")
        assert (await client.query_order("never")).state == "unknown"
