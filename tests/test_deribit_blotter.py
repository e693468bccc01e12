"""The dialect's own projection, held against the gateway's accounts on random command streams."""

import json
from typing import Any, cast

import msgspec
import pytest
from dialect import no_candles
from generator import MIXED, Generator

from exchange.engine import Engine
from exchange.gateway.dialects.deribit.blotter import CANCELLED, FILLED, Blotter
from exchange.gateway.dialects.deribit.instruments import describe, mark_by
from exchange.gateway.dialects.deribit.methods import Methods
from exchange.gateway.dialects.deribit.numbers import exact
from exchange.gateway.dialects.deribit.portray import Portrayer
from exchange.gateway.dialects.deribit.rpc import Call
from exchange.gateway.hub import Hub
from exchange.journal.errors import NoSuchPosition
from exchange.journal.tape import Released
from exchange.messages import (
    COMMAND_BYTES,
    EVENT,
    INDEX_BITS,
    CommandKind,
    EventFlag,
    EventKind,
    TradingState,
)

BATCHES = 40


@pytest.mark.parametrize("seed", [6, 8, 9, 10, 13, 14])  # markets that trade
def test_the_blotter_knows_what_the_accounts_know(seed: int) -> None:
    combinations = {**MIXED, "combine": 12}
    generator, engine, sequence = Generator(seed, combinations if seed % 2 else MIXED), Engine(), 1
    generator.wealth = 1 << 44
    hub = Hub(
        lambda *_, **__: None,
        cast(Any, None),
        cast(Any, None),
        queue_full=(OverflowError,),
        no_such_position=NoSuchPosition,
    )
    blotter, late = Blotter(hub), Blotter(hub)  # one that begins in the middle
    shown = Portrayer(hub, blotter)
    data, begun = generator.opening(), False
    for number in range(BATCHES):
        events, count = engine.apply(data, sequence, generator.stamp), len(data) // COMMAND_BYTES
        generator.learn(events)
        kinds = enumerate(data[::COMMAND_BYTES], sequence)
        texts = [(n, f"c{n}") for n, kind in kinds if kind <= CommandKind.REPLACE]
        released = Released(1, sequence, count, generator.stamp, events, texts)
        hub.release(released)
        blotter.take(released)
        check(hub, blotter)
        for one, account in hub.accounts.by_id.items():
            held = shown.exposures(one)
            assert held is shown.exposures(one), "worked out once a batch"
            now = {n: exposure.net for n, exposure in hub.accounts.exposures(account).items()}
            assert {n: exposure.net for n, exposure in held.items()} == now
        if begun:
            late.take(released)
            check(hub, late)
        elif number > 10 and any(account.orders for account in hub.accounts.by_id.values()):
            begun = True
            late.take_over()
            days = hub.feed.statistics.days
            assert late.last == {n: day.last for n, day in days.items() if day.last is not None}
        sequence += count
        data = generator.batch(60)
    assert sum(len(fills) for fills in blotter.fills.values()) > 0
    portray(hub, blotter)
    portray(hub, late)
    directory(hub, blotter)
    early = [ticket for ticket in late.orders.values() if ticket.early]
    assert early
    for ticket in early:
        told = Portrayer(hub, late).order(ticket)
        for unknown in ("creation_timestamp", "post_only", "reduce_only", "max_show"):
            assert told[unknown] is None
        assert told["replaced"] is (True if ticket.replaced else None)
        assert (told["average_price"] is None) == (ticket.filled > 0)
    for number, price in late.last.items():
        assert price == blotter.last[number]
    bust(hub, blotter)


def bust(hub: Hub, blotter: Blotter) -> None:
    """A trade that is taken back is none of the day's."""
    shown, match = Portrayer(hub, blotter), hub.sequence << INDEX_BITS
    listed = next(one for one in hub.feed.instruments.by_id.values() if not one.legs)
    day = hub.feed.statistics.days[listed.id]
    top = max([price for price, lots in day.lots.items() if lots > 0], default=listed.low_ticks)
    for price, lots in ((top + 1, 3), (top + 2, 4)):
        day.trade(price, lots)
    before = shown.stats(listed)
    assert before["high"] == exact(listed.price_text(top + 2))
    event = EVENT.pack(
        hub.sequence + 1, 0, EventKind.TRADE_BUSTED, EventFlag.LAST_IN_COMMAND, 0, listed.id, 0,
        match, top + 2, 4, 0, 0, 0, 0, 0,
    )  # fmt: skip
    hub.release(Released(1, hub.sequence + 1, 1, hub.feed.time, event, []))
    after = shown.stats(listed)
    assert after["volume"] == before["volume"] - 4
    assert after["high"] == exact(listed.price_text(top + 1))


def directory(hub: Hub, blotter: Blotter) -> None:
    """What has expired is listed to who asks for it, and has no summary among the others."""
    methods, listed = Methods(hub, blotter, no_candles), hub.feed.instruments.by_id.values()

    def codes(method: str, **params: Any) -> list[str]:
        told = methods.answer(Call(None, f"public/{method}", params, 0), None)
        return [one["instrument_name"] for one in told]

    live = [one.code for one in listed if one.state != TradingState.EXPIRED]
    assert codes("get_instruments") == codes("get_instruments", expired="false") == live
    assert codes("get_book_summary_by_currency") == live
    gone = [one.code for one in listed if one.state == TradingState.EXPIRED]
    assert codes("get_instruments", expired=True) == gone
    for code in gone:
        assert codes("get_book_summary_by_instrument", instrument_name=code) == [code]


def check(hub: Hub, blotter: Blotter) -> None:
    """Every order that works is the accounts' own, and lots are neither lost nor made."""
    for number, account in hub.accounts.by_id.items():
        working = blotter.working(number)
        assert [ticket.id for ticket in working] == list(account.orders)
        for ticket, order in zip(working, account.orders.values(), strict=True):
            assert (ticket.price, ticket.quantity, ticket.leaves, ticket.sell, ticket.text) == (
                order.price, order.quantity, order.leaves, order.sell, order.text,
            )  # fmt: skip
            assert ticket.leaves + ticket.filled == ticket.quantity
            assert (ticket.state == "untriggered") == order.waiting
    instruments = hub.feed.instruments
    for listed in instruments.by_id.values():
        assert mark_by(listed, instruments, blotter._marks) == instruments.mark(listed)
    for ticket in blotter.orders.values():
        ended = ticket.state in (FILLED, CANCELLED)
        assert ended == (ticket.id not in hub.accounts.by_id[ticket.account].orders)
        assert (ticket.filled == ticket.quantity) == (ticket.state == FILLED)
        assert bool(ticket.why) == (ticket.state == CANCELLED)


def portray(hub: Hub, blotter: Blotter) -> None:
    """Everything there is can be shown, as JSON whose numbers any reader takes."""
    shown, instruments = Portrayer(hub, blotter), hub.feed.instruments
    told: list[Any] = [shown.order(ticket) for ticket in blotter.orders.values()]
    told += [shown.fill(fill) for fills in blotter.fills.values() for fill in fills]
    told += [shown.print(one) for prints in blotter.prints.values() for one in prints]
    for instrument in instruments.by_id.values():
        told += [describe(instrument, instruments, 0), shown.ticker(instrument)]
        told += [shown.summary(instrument), shown.levels(instrument, 20)]
        told += [shown.position_in(instrument, number) for number in hub.accounts.by_id]
    told += [shown.account(number) for number in hub.accounts.by_id]
    json.loads(msgspec.json.encode(told))
