"""Give-ups and block trades in a running market: signed, then moved once, by the engine."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from live import CODE, Live, opened_live, until

from exchange.app import requests
from exchange.app.wishes import RequestRefused, due
from exchange.clearing.matters import Due, Dues, Lots
from exchange.history import walk
from exchange.history.bulletin import Bulletin
from exchange.marketdata.instruments import micros_text
from exchange.messages.wire import PublicTrade, PublicTransfer

live = opened_live  # a fixture


async def put(live: Live, operation: str, **fields: object) -> dict[str, Any]:
    text = json.dumps({"operation": operation, **fields})
    return await live.market.operations.perform(requests.PutRecord(record=text))


def nets(live: Live, instrument: int) -> list[int]:
    """Lots of accounts 1 to 3, the same with the engine and the clearing house."""
    market = live.market
    held = [market.engine.position(n, instrument)["net"] for n in (1, 2, 3)]
    assert held == [market.clearing.net(n, instrument) for n in (1, 2, 3)]
    return held


async def test_what_is_signed_moves_once_and_touches_no_price(live: Live) -> None:
    seller, buyer, other = [await live.client(n) for n in (1, 2, 3)]
    market = live.market
    listed = market.desk.instruments.by_code[CODE]
    ticks = listed.mark // listed.tick_scale
    await seller.enter(CODE, "sell", 60, ticks)
    await buyer.enter(CODE, "buy", 60, ticks)
    await market.operations.cleared()
    prices = market.clearing.settlement_prices()
    terms = {"instrument": listed.id, "price": listed.mark}
    given = await put(live, "give_up", account=2, taker=3, lots=20, match_number=7, **terms)
    assert given["rulings"][0]["facts"]["stage"] == "open"
    assert nets(live, listed.id) == [-60, 60, 0]
    await put(live, "sign_transfer", account=3, transfer=1)
    assert nets(live, listed.id) == [-60, 40, 20]
    block = {"account": 1, "other": 3, "lots": 50, **terms, "price": listed.mark * 105 // 100}
    await put(live, "register_trade", **block)
    signed = await put(live, "sign_transfer", account=3, transfer=2)
    assert "dues_refused" not in signed
    assert nets(live, listed.id) == [-10, 40, -30]
    # the command again, as after a crash before clearing saw its event
    lots = Lots(2, 3, False, listed.id, block["price"])
    (again,) = await market.desk.perform([due(Due("transfer 2", "transfer", 1, 50, lots))])
    assert again.events[0].flags & 4
    assert nets(live, listed.id) == [-10, 40, -30]
    assert [p.price for p in market.clearing.settlement_prices()] == [p.price for p in prices]
    (interest,) = [i for i in market.clearing.open_interest() if i.code == CODE]
    assert (interest.open_interest, interest.volume) == (40, 60)
    await until(lambda: other.positions == {CODE: -30})
    assert seller.positions == {CODE: -10}
    await market.operations.checkpoint()
    assert market.operations.state()["divergences"] == 0
    assert market.clearing.dues() == []


async def test_what_margin_forbids_is_refused_by_name_and_done_once_it_can_be(live: Live) -> None:
    await live.client(1), await live.client(2)
    market = live.market
    listed = market.desk.instruments.by_code[CODE]
    taken = requests.Withdraw(account=1, amount="49999000", request_id="w1")
    await market.operations.perform(taken)
    terms = {"instrument": listed.id, "price": listed.mark, "lots": 50}
    await put(live, "register_trade", account=1, other=2, **terms)
    signed = await put(live, "sign_transfer", account=2, transfer=1)
    ((name, why),) = signed["dues_refused"].items()
    assert name == "transfer 1"
    assert "MARGIN" in why
    assert nets(live, listed.id) == [0, 0, 0]
    assert [asked.id for asked in market.clearing.dues()] == ["transfer 1"]
    back = requests.Deposit(account=1, amount="49999000", request_id="d2")
    await market.operations.perform(back)
    await market.operations.checkpoint()
    assert nets(live, listed.id) == [50, -50, 0]


async def test_what_no_command_can_carry_stays_due_and_holds_nothing_up(live: Live) -> None:
    await live.client(1), await live.client(2)
    market = live.market
    beyond = Due("transfer 9", "transfer", 1, 5, Lots(1, 2, False, 0, 1 << 63))
    market.clearing._state.matters.get(Dues).ask(beyond)
    called = await put(live, "call_margin")
    assert list(called["dues_refused"]) == ["transfer 9"]
    await market.operations.checkpoint()
    listed = market.desk.instruments.by_code[CODE]
    terms = {"instrument": listed.id, "price": listed.mark, "lots": 50}
    await put(live, "register_trade", account=1, other=2, **terms)
    signed = await put(live, "sign_transfer", account=2, transfer=1)
    assert list(signed["dues_refused"]) == ["transfer 9"]
    assert nets(live, listed.id) == [50, -50, 0]
    assert not market.desk._waiting


async def test_the_public_sees_them_flagged_and_outside_the_book(live: Live) -> None:
    """A block, an exchange for physical and a give-up: on the channel of trades, in no depth, no
    last price and no settlement price."""
    seller, buyer, watcher = [await live.client(n) for n in (1, 2, 3)]
    market = live.market
    listed = market.desk.instruments.by_code[CODE]
    ticks = listed.mark // listed.tick_scale
    await watcher.subscribe(f"trades.{CODE}", f"depth.{CODE}")
    seen = watcher.events()
    await seller.enter(CODE, "sell", 60, ticks)
    await buyer.enter(CODE, "buy", 55, ticks)
    await until(lambda: watcher.book(CODE).best_ask == (ticks, 5))
    terms = {"instrument": CODE, "price": micros_text(listed.mark * 105 // 100)}
    await put(live, "register_trade", account=1, other=3, lots=50, **terms)
    await put(live, "sign_transfer", account=3, transfer=1)
    swap = {"account": 3, "other": 2, "lots": 8, "kind": "efp", **terms}
    with pytest.raises(RequestRefused, match="open_position"):  # the physical deal is not named
        await put(live, "register_trade", **swap)
    registered = await put(live, "register_trade", **swap, related="PO 7: 8 GPUs, December")
    facts = registered["rulings"][0]["facts"]
    assert (facts["needed"], facts["signed"], facts["stage"]) == ([2, 3], [3], "open")
    with pytest.raises(RequestRefused, match="not_yours"):
        await put(live, "sign_transfer", account=1, transfer=2)
    signed = await put(live, "sign_transfer", account=2, transfer=2)
    assert signed["rulings"][0]["facts"]["related"] == "PO 7: 8 GPUs, December"
    given = {"account": 2, "taker": 3, "lots": 5, "match_number": 7, **terms}
    await put(live, "give_up", **given)
    await put(live, "sign_transfer", account=3, transfer=3)
    assert nets(live, listed.id) == [-5, 42, -37]
    await buyer.enter(CODE, "buy", 1, ticks)  # a trade behind them all
    told: list[PublicTrade | PublicTransfer] = []
    async for event in seen:
        if isinstance(event, PublicTrade | PublicTransfer):
            told.append(event)
        if isinstance(event, PublicTrade) and event.quantity == "1":
            break
    kinds = [(t.kind, t.quantity) for t in told if isinstance(t, PublicTransfer)]
    assert kinds == [("block", "50"), ("efp", "8"), ("give_up", "5")]
    assert [t.quantity for t in told if isinstance(t, PublicTrade)] == ["55", "1"]
    await until(lambda: watcher.book(CODE).best_ask == (ticks, 4))
    async with aiohttp.ClientSession() as http:
        address = f"{live.addresses.http}/trades/{CODE}"
        history = (await (await http.get(address)).json())["trades"]
    assert [(row["type"], row["quantity"]) for row in history] == [
        ("trade", "55"), ("off_book", "50"), ("off_book", "8"), ("off_book", "5"), ("trade", "1"),
    ]  # fmt: skip
    await market.operations.cleared()
    (priced,) = [p for p in market.clearing.settlement_prices() if p.code == CODE]
    assert (priced.price, priced.window_lots) == (listed.mark, 56)


async def test_the_bulletin_has_the_blocks_volume(tmp_path: Path) -> None:
    async with Live.open(tmp_path) as live:
        await live.client(1), await live.client(2)
        listed = live.market.desk.instruments.by_code[CODE]
        terms = {"instrument": listed.id, "price": listed.mark, "lots": 50}
        await put(live, "register_trade", account=1, other=2, **terms)
        await put(live, "sign_transfer", account=2, transfer=1)
        directory = live.market.directory
    bulletin = Bulletin()
    for frame, events in walk.batches(directory):
        bulletin.take(frame, events)
    bulletin.finish()
    (line,) = [row for row in bulletin.rows(bulletin.day()) if row["instrument"] == CODE]
    assert (line["block_volume"], line["efp_volume"], line["volume"]) == (50, 0, 0)
    assert (line["give_up_volume"], line["ported"]) == (0, 0)
    assert (line["open_interest"], line["settlement_price"]) == (50, None)
