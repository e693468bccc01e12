"""A trade with an implied price busted or adjusted by two people: ledger, feeds and audit trail."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from live import market_in
from test_corrections import CHECKOUT, CODE, REASON, Clock, combined, prepared, refused

from exchange.app import Market, requests
from exchange.app.wishes import Wish, note
from exchange.gateway.archive import scan
from exchange.gateway.dialects.deribit.blotter import Blotter
from exchange.gateway.hub import Hub
from exchange.gateway.reports import Reports
from exchange.gateway.rest import trades_of
from exchange.gateway.view import View
from exchange.history import walk
from exchange.history.audit import FIELDS, MATCH_NUMBER, RECORD_TYPE, Row, Trail
from exchange.history.search import Query
from exchange.history.words import event_line
from exchange.messages import (
    EVENT,
    INDEX_BITS,
    Command,
    CommandKind,
    Event,
    EventKind,
    Side,
)
from exchange.messages.rest import OfHistory
from exchange.messages.wire import Corrected, PublicCorrection, PublicTrade

FAR = "H100F27"
TOLD = (EventKind.LEG_STATED, EventKind.LEG_BUSTED, EventKind.LEG_ADJUSTED)


async def enter(m: Market, account: int, side: Side, number: int, ticks: int) -> tuple[Event, ...]:
    command = Command(
        kind=CommandKind.ENTER, account=account, side=side, price=ticks, quantity=5,
        instrument=number, key_lo=m.desk.sequence + 1,
    )  # fmt: skip
    (outcome,) = await m.desk.perform([Wish(command, note("enter"))])
    return outcome.events


async def market_of(m: Market) -> int:
    """Three accounts with money and a spread with implied prices: its number."""
    await prepared(m)
    deposit = requests.Deposit(account=3, amount="5000000", request_id="d3")
    await m.operations.perform(deposit)
    number = await combined(m, CODE, FAR)
    switch = Command(kind=CommandKind.SET_IMPLIED, instrument=number, tif=1)
    await m.desk.perform([Wish(switch, note("implied"))])
    await m.operations.cleared()
    return number


async def traded(m: Market, number: int, percent: int) -> int:
    """Account 1 buys the near month far from the mark, of a spread and the far month: the match."""
    book = m.desk.instruments.by_code
    near, far = (book[code].mark // book[code].tick_scale for code in (CODE, FAR))
    price = near * (100 + percent) // 100
    await enter(m, 2, Side.SELL, number, price - far)
    await enter(m, 3, Side.SELL, book[FAR].id, far)
    events = await enter(m, 1, Side.BUY, book[CODE].id, price)
    head = events[1]
    assert head.kind == EventKind.ORDER_EXECUTED and head.leaves == 0
    return head.sequence << INDEX_BITS | head.index


def books(m: Market) -> list[Any]:
    """What engine, clearing and the gateway's view say that everybody has."""
    numbers = [m.desk.instruments.by_code[code].id for code in (CODE, FAR)]
    view = View()
    for batch in m.tape.read(0, 0, 0):
        view.take(batch.epoch, batch.stamp, batch.events, dict(batch.texts))
    known = view.accounts.by_id
    return [
        [
            (m.engine.account(n)["cash"], m.clearing.cash(n), known[n].cash),
            *(
                (
                    m.engine.position(n, i),
                    m.clearing.net(n, i),
                    getattr(known[n].holdings.get(i), "net", 0),
                )
                for i in numbers
            ),
        ]
        for n in range(4)
    ]


def nets(m: Market) -> list[tuple[int, ...]]:
    return [
        tuple(m.engine.position(n, m.desk.instruments.by_code[code].id)["net"] for n in (1, 2, 3))
        for code in (CODE, FAR)
    ]


async def approved(m: Market, request: requests.AnyRequest) -> dict[str, Any]:
    proposed = await m.operations.perform(request, "anne")
    await m.operations.perform(requests.Approve(proposal=proposed["proposal"]), "bert")
    await m.operations.checkpoint()
    await m.operations.cleared()
    assert not m.clearing.divergences and m.clearing.is_balanced()
    return proposed


def settled(market_books: list[Any]) -> list[Any]:
    """Cash and positions, without holds, which orders leave or not."""
    return [
        [one[0], *((p["net"], p["cost"], net, seen) for p, net, seen in one[1:])]
        for one in market_books
    ]


async def test_it_is_busted_whole_by_the_number_of_its_executions(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=Clock()) as m:
        number = await market_of(m)
        before = settled(books(m))
        match = await traded(m, number, 3)
        await m.operations.cleared()
        assert settled(books(m)) != before
        for part in (3, 4):
            leg = requests.Bust(match_number=match + part, reason=REASON)
            assert f"it is a leg of match {match}" in await refused(m, leg, "anne")
        resting = requests.Bust(match_number=match + 1, reason=REASON)
        assert "no trade of the open day" in await refused(m, resting, "anne")
        about = await approved(m, requests.Bust(match_number=match, reason=REASON))
        assert (about["code"], about["quantity"]) == (CODE, 5)
        assert settled(books(m)) == before
        m.clearing.audit()
        assert_told(m, match, "bust")
        assert_public(m, match, "bust", [CODE, FAR])
    rows: list[Row] = []
    walk.walk(tmp_path, Trail(rows.append).take)
    named = [row[RECORD_TYPE] for row in rows if row[MATCH_NUMBER] == match]
    stated, busted = ["LEG_STATED"] * 2, ["LEG_BUSTED"] * 4
    assert named[-8:] == ["BUST", *stated, "BUST", *busted]
    trail = tmp_path / "trail.csv"
    trail.write_text("\n".join(",".join(map(quoted, row)) for row in (FIELDS, *rows)))
    verify = [sys.executable, str(CHECKOUT / "docs" / "verify_audit.py"), str(trail)]
    assert subprocess.run(verify, capture_output=True, text=True, check=True).stdout
    assert_in_words(tmp_path, match)


def quoted(field: object) -> str:
    return '"' + str(field).replace('"', '""') + '"'


def assert_told(m: Market, match: int, kind: str) -> None:
    """Both accounts of each leg are told, by the number of the trade."""
    view, told = View(), []
    reports = Reports(view.feed.instruments, view.accounts)
    for batch in m.tape.read(0, 0, 0):
        view.take(batch.epoch, batch.stamp, batch.events, dict(batch.texts))
        for row in EVENT.iter_unpack(batch.events):
            if row[2] in TOLD[1:]:
                one, other = reports.kinds[row[2]](row, 0, None), reports.other(row, 0)
                assert isinstance(one, Corrected) and isinstance(other, Corrected)
                told += [(one.match_number, one.kind), (other.match_number, other.kind)]
    assert told == [(str(match), kind)] * 4


class Joined:
    """Every channel of trades has a member."""

    def __contains__(self, channel: object) -> bool:
        return str(channel).startswith("trades.")


def assert_public(m: Market, match: int, kind: str, codes: list[str]) -> None:
    """The books of those legs are told, live and in their history, at the price of the leg now; a
    bust leaves no print of any book to the dialect's clients."""
    view, told = View(), list[PublicCorrection]()
    hub = SimpleNamespace(
        feed=view.feed,
        accounts=view.accounts,
        reports=Reports(view.feed.instruments, view.accounts),
    )
    blotter, prints = Blotter(cast(Hub, hub)), dict[str, PublicTrade]()
    for batch in m.tape.read(0, 0, 0):
        rows, texts = list(EVENT.iter_unpack(batch.events)), dict(batch.texts)
        said = view.feed.apply(rows, batch.stamp, texts, Joined())
        told += [one for _, one in said if isinstance(one, PublicCorrection)]
        prints |= {one.instrument: one for _, one in said
                   if isinstance(one, PublicTrade) and one.match_number == str(match)}  # fmt: skip
        view.accounts.now = batch.stamp
        for row in rows:
            view.accounts.apply(row, texts.get(row[0]))
        blotter.take(batch)
    assert len(prints) == 3
    for one in told:
        assert (one.match_number, one.kind, one.quantity) == (str(match), kind, "5")
        assert (one.price == prints[one.instrument].price) == (kind == "bust")
        listed = view.feed.instruments.by_code[one.instrument]
        select = trades_of(listed.id)
        found = scan(m.tape, OfHistory(), None, select).rows
        assert (one.sequence, one.index) in [row[:2] for row, _, _ in found]
    assert [one.instrument for one in told] == codes
    shown = [one.trade.match_number for book in blotter.prints.values() for one in book]
    assert kind != "bust" or str(match) not in shown


def assert_in_words(directory: Path, match: int) -> None:
    lines: list[str] = []
    query = Query(account=2, event_kinds=frozenset(map(int, TOLD)))
    walk.walk(
        directory,
        lambda frame, events: query.search(
            frame, events, lambda _, row: lines.append(event_line(row, query.picture))
        ),
    )
    assert len(lines) == 3 and all(f"of match {match}" in line for line in lines)
    assert "corrected with the last" in lines[0] and "back" in lines[1]


@pytest.mark.parametrize("own", [True, False])
async def test_a_new_price_is_that_of_the_order_that_came_in(tmp_path: Path, own: bool) -> None:
    """Of a month that month moves alone; of the spread its last leg."""
    async with market_in(tmp_path, clock=Clock()) as m:
        number = await market_of(m)
        book = m.desk.instruments.by_code
        if own:
            match = await traded(m, number, 3)
        else:
            near, far = (book[code].mark // book[code].tick_scale for code in (CODE, FAR))
            await enter(m, 2, Side.SELL, book[CODE].id, near)
            await enter(m, 3, Side.BUY, book[FAR].id, far - 90)
            head = (await enter(m, 1, Side.BUY, number, near - far + 90))[1]
            match = head.sequence << INDEX_BITS | head.index
        costs = {
            (n, code): m.engine.position(n, book[code].id)["cost"]
            for n in (1, 2, 3) for code in (CODE, FAR)
        }  # fmt: skip
        held = nets(m)
        listed = book[CODE] if own else m.desk.instruments.by_id[number]
        told = await m.operations.perform(
            requests.Bust(match_number=match, reason=REASON, malfunction=True), "anne"
        )
        ticks = m.desk.instruments.value(listed) // listed.tick_value
        new = listed.price_text(ticks)
        request = requests.Adjust(match_number=match, price=new, reason=REASON, malfunction=True)
        await approved(m, request)
        assert nets(m) == held
        change = ticks - round(float(told["price"]) * 1_000)
        value = 5 * change * book[CODE].tick_value
        moved = {
            (n, c): m.engine.position(n, book[c].id)["cost"] - was for (n, c), was in costs.items()
        }
        if own:  # account 1 bought the near month of account 2, who sold the spread
            expected = {(1, CODE): value, (2, CODE): -value}
        else:  # account 1 sold the far month, which gets cheaper as the spread gets dearer
            expected = {(1, FAR): value, (3, FAR): -value}
        assert moved == dict.fromkeys(moved, 0) | expected
        assert_told(m, match, "adjustment")
        assert_public(m, match, "adjustment", [CODE] if own else [FAR])
