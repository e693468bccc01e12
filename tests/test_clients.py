"""The clients: numbers, strips and the session, without I/O."""

import inspect
import re
from decimal import Context, Decimal, Inexact, Rounded, localcontext
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import errors
from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.bots import maker
from clients.decimals import PriceScale, quantity_text
from clients.feed import Feed
from clients.portfolio import Portfolio
from clients.requests import Requests
from clients.rest import AsyncRest
from clients.session import Health, Session, State
from clients.strip import largest_remainder, profile, split
from clients.sync import Client
from clients.transport import read_frame, websocket_url
from exchange.messages import wire
from exchange.messages.wire_mass import Quote

CODE = "H100Z26"
SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


# --- numbers ---


ENDLESS = ["1e999999", "-1e41", "1e-41", "0e-999999999", Decimal("1e999999999")]


@pytest.mark.parametrize(
    "price", [2.65, True, None, b"2.65", "x", "NaN", Decimal("Infinity"), *ENDLESS]
)
def test_what_is_no_price_is_refused(price: object) -> None:
    with pytest.raises(errors.ValueRefused):
        PriceScale("0.001", 3).ticks(price)  # type: ignore[arg-type]


def test_a_float_is_refused_with_what_to_write() -> None:
    with pytest.raises(errors.ValueRefused, match=r"write it as a string, '2\.65'"):
        PriceScale("0.001", 3).ticks(2.65)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("price", "ticks"), [("2.65", 2650), (2650, 2650), (Decimal("2.650"), 2650), ("8e-3", 8)]
)
def test_prices_are_read_exactly(price: str | int | Decimal, ticks: int) -> None:
    assert PriceScale("0.001", 3).ticks(price) == ticks


@pytest.mark.parametrize("context", [Context(prec=3), Context(traps=[Inexact, Rounded])])
def test_the_programs_own_decimal_context_changes_no_price(context: Context) -> None:
    scale = PriceScale("0.001", 3)
    with localcontext(context):
        assert scale.ticks("12.345") == 12_345 and scale.ticks(Decimal("2.655")) == 2_655
        with pytest.raises(errors.ValueRefused, match=r"try 12\.346"):
            scale.ticks("12.3456")


def test_a_price_between_ticks_names_the_nearest() -> None:
    with pytest.raises(errors.ValueRefused, match=r"try 2\.650"):
        PriceScale("0.001", 3).ticks("2.6502")


@given(st.integers(-(10**9), 10**9), st.sampled_from([("0.001", 3), ("0.25", 2), ("5", 0)]))
def test_every_tick_survives_its_text(ticks: int, unit: tuple[str, int]) -> None:
    scale = PriceScale(*unit)
    assert scale.read(scale.text(ticks)) == scale.ticks(scale.text(ticks)) == ticks


@pytest.mark.parametrize("quantity", [0, -1, "1.5", 2.0, "many", False, *ENDLESS])
def test_what_is_no_quantity_is_refused(quantity: object) -> None:
    with pytest.raises(errors.ValueRefused):
        quantity_text(quantity)  # type: ignore[arg-type]


@pytest.mark.parametrize("none", [0, "0", Decimal("0.0")])
def test_no_protection_is_a_zero_of_any_kind(none: int | str | Decimal) -> None:
    build = Requests(Feed(lambda: "f"), Portfolio(), lambda: "r")
    assert build.protect("H100", none, 0).quantity == "0"
    assert build.protect("H100", "7", 1_000).quantity == "7"
    for wrong in (False, 0.0, "-1"):
        with pytest.raises(errors.ValueRefused):
            build.protect("H100", wrong, 0)  # type: ignore[arg-type]


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1).filter(any))
def test_shares_sum_to_the_total_each_within_one_of_exact(total: int, weights: list[int]) -> None:
    shares = largest_remainder(total, weights)
    assert sum(shares) == total
    whole = sum(weights)
    assert all(abs(share * whole - total * w) < whole
               for share, w in zip(shares, weights, strict=True))  # fmt: skip


HOURS = st.dictionaries(
    st.text("ABC", min_size=1, max_size=4), st.sampled_from([672, 696, 720, 744]), min_size=1
)


@given(st.integers(0, 10**7), HOURS)
def test_a_strip_loses_no_hour_and_leaves_at_most_half_a_lot(
    total: int, months: dict[str, int]
) -> None:
    strip = split(total, months)
    assert strip.hours == total
    assert abs(strip.unhedged_hours) * 2 <= max(months.values())
    assert (
        sum(leg.lots * months[leg.instrument] for leg in strip.legs) + strip.unhedged_hours == total
    )


def test_a_lot_without_hours_covers_none() -> None:
    with pytest.raises(errors.ValueRefused, match="a lot of H100G27 has no hours"):
        split(1_000, {"H100F27": 744, "H100G27": 0})


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=12), st.data())
def test_a_profile_is_covered_and_worth_what_its_lots_are(
    hours: list[int], data: st.DataObject
) -> None:
    sizes = {f"M{number}": data.draw(st.sampled_from([672, 720, 744])) for number in range(12)}
    wanted = {f"M{number}": count for number, count in enumerate(hours)}
    strip = profile(wanted, sizes)
    assert {leg.instrument: leg.hours for leg in strip.legs} == wanted
    assert all(leg.covered_hours == leg.lots * sizes[leg.instrument] for leg in strip.legs)
    assert all(abs(leg.unhedged_hours) < 744 for leg in strip.legs)
    assert abs(strip.unhedged_hours) <= 372
    prices = {name: str(Decimal(3 * count + 1).scaleb(-3)) for name, count in wanted.items()}
    with localcontext(Context(prec=2)):
        value = strip.value(prices)
    assert value * 1000 == sum(leg.covered_hours * (3 * leg.hours + 1) for leg in strip.legs)


def test_a_profile_and_its_value_refuse_what_cannot_be_meant() -> None:
    sizes = {"H100F27": 744, "H100G27": 672}
    for hours, said in (
        ({"H100F27": -1}, "-1 hours of H100F27"),
        ({"H100F27": 1.5}, "is not an integer"),
        ({"H100H27": 744}, "a lot of H100H27 has no hours"),
    ):
        with pytest.raises(errors.ValueRefused, match=said):
            profile(hours, sizes)  # type: ignore[arg-type]
    strip = profile({"H100F27": 7_440, "H100G27": 0}, sizes)
    assert strip.value({"H100F27": "2.650"}) == Decimal("19716.000")
    for price in (None, 2.65, 2650):
        with pytest.raises(errors.ValueRefused, match="the price of H100F27"):
            strip.value({"H100F27": price})  # type: ignore[dict-item]


@pytest.mark.parametrize("hours", [1e5, 1488.0, Decimal(100_000), "100000"])
def test_hours_that_are_no_integer_are_refused(hours: int) -> None:
    with pytest.raises(errors.ValueRefused, match="is not an integer: hours are whole"):
        split(hours, {"H100F27": 744, "H100G27": 744})
    with pytest.raises(errors.ValueRefused, match="is not an integer: hours are whole"):
        split(1_000, {"H100F27": 744, "H100G27": hours})


# --- the session ---


def accepted(sequence: int, client_order_id: str = "a", **fields: object) -> wire.Accepted:
    known = {
        "sequence": sequence,
        "index": 0,
        "time": 0,
        "order_id": "7",
        "client_order_id": client_order_id,
        "instrument": CODE,
        "side": "buy",
        "quantity": "10",
        "leaves_quantity": "10",
        "price": "2.650",
    }
    return wire.Accepted(**known | fields)  # type: ignore[arg-type]


def execution(
    sequence: int, index: int = 1, quantity: int = 4, leaves: int = 6, order_id: str = "7"
) -> wire.Execution:
    return wire.Execution(
        sequence=sequence,
        index=index,
        time=0,
        order_id=order_id,
        client_order_id="a",
        instrument=CODE,
        side="buy",
        match_number="1",
        price="2.650",
        quantity=str(quantity),
        leaves_quantity=str(leaves),
        liquidity="maker",
        fee="0.1",
    )


def logged_on(sequence: int, session: int = 65_537) -> wire.LoggedOn:
    return wire.LoggedOn(
        account=1,
        session=session,
        scope="trade",
        epoch=1,
        sequence=sequence,
        index=0,
        time=0,
        heartbeat_ms=5_000,
    )


def enter(client_order_id: str = "a", price: str = "2.650") -> wire.Enter:
    return wire.Enter(
        client_order_id=client_order_id, instrument=CODE, side="buy", quantity="10", price=price
    )


def ready(*, cancel_on_disconnect: bool = False) -> Session:
    session = Session("key", "secret", started_ns=NOW, cancel_on_disconnect=cancel_on_disconnect)
    session.connected(NOW)
    session.receive(logged_on(5), NOW)
    assert session.state is State.READY
    return session


def test_the_logon_is_signed_and_its_nonce_rises() -> None:
    session = Session("key", "Jefe", started_ns=NOW)
    first, second = session.connected(NOW)[0], session.connected(NOW)[0]
    assert isinstance(first, wire.Logon) and isinstance(second, wire.Logon)
    assert second.nonce > first.nonce
    assert first.timestamp_ms == NOW // 1_000_000
    assert len(first.signature) == 64 and first.signature != second.signature


def test_an_answer_settles_its_request_once() -> None:
    session = ready()
    pending = session.ask(enter())
    assert session.receive(accepted(6), NOW).answered == pending.key == ("order", "a")
    repeat = session.receive(accepted(6), NOW)
    assert repeat.event is None and repeat.answered is None


def test_both_sides_of_an_own_trade_share_a_position_and_are_both_told() -> None:
    session = ready()
    assert session.receive(execution(6, order_id="7"), NOW).event is not None
    assert session.receive(execution(6, order_id="8"), NOW).event is not None
    assert session.receive(execution(6, order_id="8"), NOW).event is None


def test_an_id_pending_for_one_thing_is_refused_for_another() -> None:
    session = ready()
    first = session.ask(enter())
    assert session.ask(enter()) is first
    with pytest.raises(errors.ValueRefused, match="pending"):
        session.ask(enter(price="2.651"))


def test_requests_wait_for_a_connection() -> None:
    session = ready()
    session.lost()
    with pytest.raises(errors.NotConnected):
        session.ask(enter())


def test_after_a_break_the_missed_comes_first_then_only_what_is_unanswered() -> None:
    session = ready(cancel_on_disconnect=True)
    answered, lost = session.ask(enter("a")), session.ask(enter("b"))
    forgotten = session.ask(enter("c"))
    forgotten.awaited = 0
    session.lost()
    logon = session.connected(NOW)[0]
    assert isinstance(logon, wire.Logon)
    assert logon.after == wire.Position(1, 5, 0) and logon.resume_session == 65_537
    assert session.receive(accepted(6, "a"), NOW).answered == answered.key
    sent = session.receive(logged_on(9), NOW).send
    assert lost.request in sent and answered.request not in sent
    assert forgotten.request not in sent


def test_a_heartbeat_moves_the_position_but_not_while_logging_on() -> None:
    session = ready()
    beat = wire.Heartbeat(epoch=1, sequence=8, time=0)
    session.receive(beat, NOW)
    assert session.position == wire.Position(1, 8, 0)
    session.lost()
    session.connected(NOW)
    session.receive(wire.Heartbeat(epoch=1, sequence=20, time=0), NOW)
    assert session.position == wire.Position(1, 8, 0)
    assert session.receive(execution(12), NOW).event is not None


def refusal(reason: str, number: int, op: str | None = "logon") -> wire.Rejected:
    return wire.Rejected(number=number, name=reason, op=op)


@pytest.mark.parametrize("cancels", [False, True])
def test_a_session_that_ended_is_named_and_followed_by_a_new_one(cancels: bool) -> None:
    session = ready(cancel_on_disconnect=cancels)
    session.lost()
    (named,) = session.connected(NOW)
    assert isinstance(named, wire.Logon) and named.resume_session == 65_537
    (again,) = session.receive(refusal("SESSION_UNKNOWN", 108, None), NOW).send
    assert isinstance(again, wire.Logon) and again.resume_session == 0
    assert again.after == wire.Position(1, 5, 0)


@pytest.mark.parametrize(
    ("reason", "number", "again"),
    [("BAD_SIGNATURE", 102, False), ("NONCE", 104, True), ("SESSION_LIVE", 107, True)],
)
def test_a_refused_logon_says_whether_to_try_again(reason: str, number: int, again: bool) -> None:
    session = Session("key", "secret", started_ns=NOW)
    session.connected(NOW)
    with pytest.raises(errors.LogonRefused) as refused:
        session.receive(refusal(reason, number), NOW)
    assert refused.value.retryable is again and refused.value.reason == reason


def test_a_logon_states_the_time_of_day_whatever_clock_measures_silence() -> None:
    session = Session("key", "secret", started_ns=NOW)
    (first,) = session.connected(7 * SECOND, NOW)
    session.receive(logged_on(5), 8 * SECOND)
    session.lost()
    session.connected(9 * SECOND, NOW + SECOND)
    (again,) = session.receive(refusal("SESSION_UNKNOWN", 108, None), 10 * SECOND).send
    times = [one.timestamp_ms for one in (first, again) if isinstance(one, wire.Logon)]
    assert times == [NOW // 1_000_000, NOW // 1_000_000 + 2_000]
    assert session.health(17 * SECOND) is Health.ALIVE


def test_silence_is_first_asked_about_then_fatal() -> None:
    session = ready()
    assert session.health(NOW + 5 * SECOND) is Health.ALIVE
    assert session.health(NOW + 8 * SECOND) is Health.QUIET
    assert session.health(NOW + 9 * SECOND) is Health.ALIVE
    assert session.health(NOW + 16 * SECOND) is Health.DEAD
    session.receive(wire.Heartbeat(epoch=1, sequence=8, time=0), NOW + 16 * SECOND)
    assert session.health(NOW + 17 * SECOND) is Health.ALIVE


def test_own_orders_and_positions_follow_the_reports() -> None:
    session = ready()
    portfolio = session.portfolio
    session.receive(accepted(6, leaves_quantity="6"), NOW)
    session.receive(execution(6), NOW)
    order = portfolio.orders["a"]
    assert (order.leaves_quantity, order.executed_quantity) == (6, 4)
    session.receive(
        wire.Replaced(
            sequence=7, index=0, time=0, order_id="7", client_order_id="a", instrument=CODE,
            side="buy", price="2.660", quantity="12", leaves_quantity="8", priority_kept=False,
        ),
        NOW,
    )  # fmt: skip
    assert (order.price, order.quantity, order.leaves_quantity) == ("2.660", 12, 8)
    session.receive(execution(8, quantity=8, leaves=0), NOW)
    assert portfolio.orders == {} and portfolio.positions == {CODE: 12}


def test_reports_older_than_an_adopted_answer_change_nothing() -> None:
    session = ready()
    session.receive(wire.Orders(request_id="q", sequence=9, time=0, orders=[]), NOW)
    session.receive(accepted(8), NOW)
    assert session.portfolio.orders == {}


def test_a_book_that_was_broken_when_the_connection_went_begins_anew() -> None:
    session = ready()
    listed = wire.InstrumentData(
        code=CODE, product="H100", multiplier=744, tick="0.001", decimals=3
    )
    session.receive(wire.Instruments(sequence=5, instruments=[listed]), NOW)
    depth, trades = f"depth.{CODE}", f"trades.{CODE}"
    session.receive(wire.Subscribed(request_id="s", channels=[depth, trades]), NOW)
    whole = wire.DepthSnapshot(instrument=CODE, sequence=5, time=0, bids=[], asks=[], checksum=0)
    session.receive(whole, NOW)
    behind_a_gap = wire.DepthDelta(
        instrument=CODE, sequence=9, previous_sequence=8, time=0, checksum=0
    )
    assert session.receive(behind_a_gap, NOW).send  # it asks to be repaired, in vain
    session.lost()
    session.connected(NOW)
    sent = session.receive(logged_on(9), NOW).send
    joined = {r.channels[0]: r.after for r in sent if isinstance(r, wire.Subscribe)}
    assert joined == {trades: 9, depth: None}


def test_unknown_messages_and_fields_are_ignored() -> None:
    frame = '[{"type":"novelty"},{"type":"heartbeat","epoch":1,"sequence":2,"time":3,"new":[1]}]'
    assert read_frame(frame) == [wire.Heartbeat(epoch=1, sequence=2, time=3)]
    for bad in ("{", "{}", '[{"type":"heartbeat"}]', b"\xc1"):
        with pytest.raises(errors.ProtocolError):
            read_frame(bad)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:1", "ws://h:1/ws"),
        ("wss://h/x?y=1", "wss://h/x?y=1"),
        ("localhost:8000", "ws://localhost:8000/ws"),
    ],
)
def test_addresses_are_completed(given: str, url: str) -> None:
    assert websocket_url(given) == url


@pytest.mark.parametrize(
    "given",
    ["ftp://h", "ws://h:99999", "ws://h:-1", "ws://h:0", "ws://h:abc", "ws://[::1", "ws://:1"],
)
def test_an_address_of_something_else_is_refused(given: str) -> None:
    with pytest.raises(errors.ValueRefused, match="is not an address like"):
        websocket_url(given)
    with pytest.raises(errors.ValueRefused):
        AsyncRest(given)


def test_waits_double_and_are_spread() -> None:
    backoff = Backoff(first_s=1.0, most_s=8.0)
    assert [backoff.seconds(n, lambda: 0.0) for n in range(5)] == [0.5, 1, 2, 4, 4]
    assert backoff.seconds(100, lambda: 0.999) < 8


def test_a_maker_leans_against_its_position() -> None:
    terms = maker.Terms(lots=5, half_spread=10, skew=2, inventory_max=20)
    assert maker.targets(terms, 100, 0, 0, 200) == {"buy": 90, "sell": 110}
    assert maker.targets(terms, 100, -10, 0, 200) == {"buy": 94, "sell": 114}
    assert maker.targets(terms, 100, 20, 0, 200) == {"sell": 102}
    assert maker.targets(terms, 100, 0, 95, 105) == {}


def test_every_field_of_a_command_can_be_given_and_sent() -> None:
    """By whoever builds it, and by whoever sends it at once, in the same way."""
    said_otherwise = {
        wire.Enter: {"type"},  # by the price
        wire.Cancel: {"side"}, wire.Reduce: {"side"}, wire.Replace: {"side"},  # what it must be
        Quote: {"bid_price", "bid_quantity", "ask_price", "ask_quantity"},  # in pairs
    }  # fmt: skip
    for kind in get_args(wire.AnyCommand):
        name = kind.__struct_config__.tag
        built = inspect.signature(getattr(Requests, name)).parameters
        missing = set(kind.__struct_fields__) - set(built) - said_otherwise.get(kind, set())
        assert not missing, (name, missing)
        for client in (AsyncClient, Client):
            assert inspect.signature(getattr(client, name)).parameters == built


def test_the_tree_of_exceptions_is_drawn_as_it_is() -> None:
    page = (Path(__file__).parents[1] / "docs/reference/sdk.md").read_text()
    drawn = page.split("## Exceptions")[1].split("```")[1]
    for text in (drawn, str(errors.__doc__)):
        branches = re.findall(r"^ *([│ ]*)(?:[├└]── )?([A-Z]\w+)(?= |$)", text, re.MULTILINE)
        tree = [name for _, name in branches if hasattr(errors, name)]
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
        known = [kind.__name__ for kind in kinds if issubclass(kind, Exception)]
        assert sorted(tree) == sorted(known)
    assert issubclass(errors.Gap, errors.Corrupt) and issubclass(errors.BadChecksum, errors.Corrupt)
