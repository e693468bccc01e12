"""Mass acts through the gateway, on a real market: requests, answers, the reports that follow."""

from typing import Any

import venue as market
from venue import CODE, RICH, THIRD, Venue, enter

from exchange.messages import wire
from exchange.messages.wire_mass import Killed, MassCancelled, Protection, Quoted

venue = market.venue  # a fixture


def types(messages: list[wire.AnyResponse]) -> list[str]:
    return [str(message.__struct_config__.tag) for message in messages]


def quote(request_id: str, bid: str, ask: str, **fields: Any) -> dict[str, Any]:
    return {
        "op": "quote", "request_id": request_id, "instrument": CODE, "bid_price": bid,
        "bid_quantity": "5", "ask_price": ask, "ask_quantity": "6", **fields,
    }  # fmt: skip


async def test_a_mass_cancel_takes_what_it_chooses(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("b1"), enter("b2"), enter("s1", side="sell", price="2.7"))
    head, *gone = await venue.say(trader, {"op": "mass_cancel", "request_id": "m", "side": "buy"})
    assert isinstance(head, MassCancelled)
    assert (head.request_id, head.orders) == ("m", 2)
    assert [g.client_order_id for g in gone if isinstance(g, wire.Cancelled)] == ["b1", "b2"]
    assert {g.reason for g in gone if isinstance(g, wire.Cancelled)} == {"MASS_CANCELLED"}
    unknown = {"op": "mass_cancel", "request_id": "n", "product": "nothing"}
    (refused,) = await venue.say(trader, unknown)
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.field) == ("UNKNOWN_INSTRUMENT", "product")


async def test_a_kill_of_the_own_session(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("b1"))
    head, gone = await venue.say(trader, {"op": "kill", "request_id": "k"})
    assert isinstance(head, Killed)
    assert (head.scope, head.active, head.orders) == ("session", True, 1)
    assert isinstance(gone, wire.Cancelled)
    (refused,) = await venue.say(trader, enter("b2"))
    assert isinstance(refused, wire.Rejected)
    assert refused.name == "SESSION_KILLED"
    other = await venue.trader(RICH)
    assert types(await venue.say(other, enter("b3"))) == ["accepted"]


async def test_a_quote_and_its_protection(venue: Venue) -> None:
    maker, taker = await venue.trader(RICH), await venue.trader(THIRD)
    head, bid, ask = await venue.say(maker, quote("q1", "2.600", "2.700"))
    assert isinstance(head, Quoted)
    assert (head.bid_price, head.ask_quantity, head.request_id) == ("2.600", "6", "q1")
    assert isinstance(bid, wire.Accepted)
    assert isinstance(ask, wire.Accepted)
    assert (bid.client_order_id, ask.client_order_id) == (
        f"quote.{CODE}.buy",
        f"quote.{CODE}.sell",
    )
    assert types(await venue.say(maker, quote("q2", "2.600", "2.700"))) == ["quoted"]
    assert types(await venue.say(maker, quote("q3", "2.600", "2.710"))) == ["quoted", "replaced"]
    one_sided = quote("q4", "2.600", "2.710", ask_price=None, ask_quantity=None)
    assert types(await venue.say(maker, one_sided)) == ["quoted", "cancelled"]
    (refused,) = await venue.say(maker, quote("q5", "2.600", "2.710", ask_quantity=None))
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.field) == ("MISSING_FIELD", "ask_quantity")
    await venue.say(taker, enter("s1", side="sell", quantity="2", price="2.6"))
    (made,) = venue.heard(maker)
    assert isinstance(made, wire.Execution)
    assert made.client_order_id == f"quote.{CODE}.buy"


async def test_the_reject_of_a_protection_names_no_instrument(venue: Venue) -> None:
    """Its record has the number of a product in the instrument's place."""
    trader = await venue.trader(RICH)
    product = venue.hub.feed.instruments.by_code[CODE].data.product
    protect = {"op": "protect", "request_id": "p", "product": product, "quantity": "0"}
    (refused,) = await venue.say(trader, {**protect, "window_ms": 5})
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.request_id) == ("PARAMETER_RANGE", "p")
    assert refused.instrument is None


async def test_a_protection_is_set_and_blocks(venue: Venue) -> None:
    maker, taker = await venue.trader(RICH), await venue.trader(THIRD)
    product = venue.hub.feed.instruments.by_code[CODE].data.product
    protect = {"op": "protect", "request_id": "p", "product": product, "quantity": "2"}
    (told,) = await venue.say(maker, {**protect, "window_ms": 1000})
    assert isinstance(told, Protection)
    assert (told.request_id, told.quantity, told.blocked) == ("p", "2", False)
    await venue.say(maker, quote("q1", "2.600", "2.700"))
    await venue.say(taker, enter("s1", side="sell", quantity="2", price="2.6"))
    assert types(venue.heard(maker)) == ["execution", "protection", "cancelled", "cancelled"]
    (refused,) = await venue.say(maker, quote("q2", "2.600", "2.700"))
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.limit, refused.observed) == ("QUOTES_BLOCKED", "2", "2")


async def test_groups_and_reduce_only_by_name(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    (first,) = await venue.say(trader, enter("b1"))
    assert isinstance(first, wire.Accepted)
    grouped = enter("s1", side="sell", price="2.7", group_with=first.order_id)
    assert types(await venue.say(trader, grouped)) == ["accepted"]
    (refused,) = await venue.say(trader, enter("s2", side="sell", price="2.8", reduce_only=True))
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.limit) == ("REDUCE_ONLY", "0")
    await venue.say(other, enter("x1", side="sell", quantity="1", price="2.6"))
    made, gone = venue.heard(trader)
    assert isinstance(made, wire.Execution)
    assert isinstance(gone, wire.Cancelled)
    assert (gone.client_order_id, gone.reason) == ("s1", "GROUP")
