"""A trade busted or adjusted by two people, from the request to ledger, feeds and audit trail."""

import asyncio
import csv
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import today
from live import market_in
from overrides import people

from clients.portfolio import Portfolio
from exchange.app import Market, asking, requests
from exchange.app.wishes import RequestRefused, Wish, note
from exchange.gateway.auth import create_key
from exchange.gateway.corrections import CORRECTIONS
from exchange.gateway.reports import Reports
from exchange.gateway.view import View
from exchange.history import walk
from exchange.history.audit import FIELDS, MATCH_NUMBER, RECORD_TYPE, Row, Trail
from exchange.history.bulletin import Bulletin
from exchange.history.search import Query
from exchange.history.words import event_line
from exchange.marketdata.feed import Feed
from exchange.messages import (
    COMMAND,
    EVENT,
    INDEX_BITS,
    Command,
    CommandKind,
    EventKind,
    Side,
    TradingState,
)
from exchange.messages.wire import Corrected, PublicCorrection

NOON_NS = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 10**9
CODE = "H100Z26"
CHECKOUT = Path(__file__).parents[1]
OF_LEGS = (EventKind.LEG_TRADE, EventKind.LEG_BUSTED)
U64 = (1 << 64) - 1
REASON = "fat finger of account 2"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOON_NS

    def __call__(self) -> int:
        return self.now


async def trade(market: Market, ticks: int, lots: int = 5) -> int:
    """Account 1 offers, account 2 buys: the match number."""
    numbers = []
    for account, side in ((1, Side.SELL), (2, Side.BUY)):
        command = Command(
            kind=CommandKind.ENTER, account=account, side=side, price=ticks, quantity=lots,
            instrument=market.desk.instruments.by_code[CODE].id, key_lo=market.desk.sequence + 1,
        )  # fmt: skip
        (outcome,) = await market.desk.perform([Wish(command, note("enter"))])
        numbers += [e for e in outcome.events if e.kind == EventKind.TRADE]
    (found,) = numbers
    return found.sequence << INDEX_BITS | found.index


async def prepared(market: Market) -> int:
    """Two people, two accounts with money; the reference, a trade near the mark, in ticks."""
    people(market.directory, "anne", "bert")
    for account in (1, 2):
        deposit = requests.Deposit(account=account, amount="5000000", request_id=f"d{account}")
        await market.operations.perform(deposit)
    listed = market.desk.instruments.by_code[CODE]
    reference = listed.mark // listed.tick_scale
    await trade(market, reference)
    return reference


def books(market: Market) -> list[Any]:
    """What engine and clearing say that everybody has."""
    number = market.desk.instruments.by_code[CODE].id
    accounts = [market.engine.account(n) for n in range(3)]
    return [
        [(a["cash"], a["required"]) for a in accounts],
        [market.engine.position(n, number) for n in range(3)],
        [(market.clearing.cash(n), market.clearing.net(n, number)) for n in range(3)],
    ]


async def refused(market: Market, request: requests.AnyRequest, person: str) -> str:
    with pytest.raises(RequestRefused) as why:
        await market.operations.perform(request, person)
    return str(why.value)


async def test_a_bust_takes_two_people_and_puts_the_books_back(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=Clock()) as m:
        reference = await prepared(m)
        await m.operations.cleared()
        before = books(m)
        match = await trade(m, reference * 1025 // 1000)
        request = requests.Bust(match_number=match, reason=REASON)
        proposed = await m.operations.perform(request, "anne")
        assert proposed["by"] == "anne" and proposed["code"] == CODE
        approve = requests.Approve(proposal=proposed["proposal"])
        assert "another person must approve it" in await refused(m, approve, "anne")
        listed = await m.operations.perform(requests.ListProposals(), "bert")
        assert [p["proposal"] for p in listed["proposals"]] == [proposed["proposal"]]
        done = await m.operations.perform(approve, "bert")
        assert (done["proposed_by"], done["approved_by"]) == ("anne", "bert")
        assert "no proposal" in await refused(m, approve, "bert")
        assert not (await m.operations.perform(requests.ListProposals()))["proposals"]
        await m.operations.checkpoint()
        await m.operations.cleared()
        assert books(m) == before
        assert not m.clearing.divergences and m.clearing.is_balanced()
        interest = {line.code: line for line in m.clearing.open_interest()}
        assert (interest[CODE].trades, interest[CODE].volume) == (1, 5)  # the first trade alone
        again = await m.operations.perform(request, "anne")
        with pytest.raises(RequestRefused, match="ALREADY_CORRECTED"):
            await m.operations.perform(requests.Approve(proposal=again["proposal"]), "bert")
        m.clearing.audit()


async def test_a_trade_inside_the_range_stands_unless_the_market_failed(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=Clock()) as m:
        reference = await prepared(m)
        near = await trade(m, reference + 1)
        request = requests.Bust(match_number=near, reason=REASON)
        assert "the trade stands" in await refused(m, request, "anne")
        forced = requests.Bust(match_number=near, reason=REASON, malfunction=True)
        assert "proposal" in await m.operations.perform(forced, "anne")
        assert "state the reason" in await refused(
            m, requests.Bust(match_number=near, reason=" "), "anne"
        )
        for number in (near + 1, 1, 1 << 60):
            assert "no trade of the open day" in await refused(
                m, requests.Bust(match_number=number, reason=REASON), "anne"
            )


async def test_what_is_busted_or_adjusted_makes_no_other_trade_stand(tmp_path: Path) -> None:
    """Of two fills of one slip the second is judged by what traded before the first."""

    async def corrected(market: Market, request: requests.AnyRequest) -> str:
        proposed = await market.operations.perform(request, "anne")
        await market.operations.perform(requests.Approve(proposal=proposed["proposal"]), "bert")
        return str(proposed["reference"])

    async with market_in(tmp_path, clock=Clock()) as m:
        reference = await prepared(m)
        listed = m.desk.instruments.by_code[CODE]
        first, second, third = [await trade(m, reference * 1025 // 1000) for _ in range(3)]
        bust = requests.Bust(match_number=second, reason=REASON)
        assert "the trade stands" in await refused(m, bust, "anne")
        told = [await corrected(m, requests.Bust(match_number=first, reason=REASON))]
        edge = listed.price_text(reference + 1)
        adjust = requests.Adjust(match_number=second, price=edge, reason=REASON)
        told.append(await corrected(m, adjust))
    async with market_in(tmp_path, clock=Clock()) as m:
        told.append(await corrected(m, requests.Bust(match_number=third, reason=REASON)))
        was = listed.price_text(reference)
        assert told == [was, was, edge]


async def test_an_adjustment_ends_inside_the_range(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=Clock()) as m:
        reference = await prepared(m)
        match = await trade(m, reference * 1025 // 1000)
        listed = m.desk.instruments.by_code[CODE]
        edge = reference + reference * 3 // 200
        ask = requests.Adjust(match_number=match, price=listed.price_text(edge + 1), reason=REASON)
        assert "is not within" in await refused(m, ask, "anne")
        ask = requests.Adjust(match_number=match, price=listed.price_text(edge), reason=REASON)
        proposed = await m.operations.perform(ask, "anne")
        await m.operations.perform(requests.Approve(proposal=proposed["proposal"]), "bert")
        position = m.engine.position(2, listed.id)
        assert position["cost"] == 5 * (reference + edge) * listed.tick_value
        await m.operations.checkpoint()
        settled = await m.operations.perform(requests.Settle())
        assert settled["settlement_prices"][CODE] and not m.clearing.divergences


async def test_a_proposal_outlives_a_restart_and_expires(tmp_path: Path) -> None:
    clock = Clock()
    async with market_in(tmp_path, clock=clock) as m:
        match = await trade(m, await prepared(m) * 1025 // 1000)
        request = requests.Bust(match_number=match, reason=REASON)
        first = (await m.operations.perform(request, "anne"))["proposal"]
    async with market_in(tmp_path, clock=clock) as m:
        clock.now += 599 * 10**9
        assert len((await m.operations.perform(requests.ListProposals()))["proposals"]) == 1
        clock.now += 10**9
        assert not (await m.operations.perform(requests.ListProposals()))["proposals"]
        assert "expired" in await refused(m, requests.Approve(proposal=first), "bert")
        second = (await m.operations.perform(request, "anne"))["proposal"]
        await m.operations.perform(requests.Approve(proposal=second), "bert")
        assert set(m.desk.proposals) == {first}
        clock.now += 87_000 * 10**9
        last = await m.operations.perform(requests.Kill(account=1, lift=True, reason="x"), "anne")
        assert set(m.desk.proposals) == {last["proposal"]}  # nobody will ask for the first again


async def test_a_key_is_a_person_and_makes_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CODE", today.code())
    async with market_in(tmp_path) as started:
        match = await trade(started, await prepared(started) * 1025 // 1000)
        url = (await started.listen("127.0.0.1", 0)).http
        files = []
        for name in ("anne", "bert"):
            key_id, secret = create_key(tmp_path, 0, "admin")
            files.append(tmp_path / f"{name}.json")
            files[-1].write_bytes(msgspec.json.encode({"key_id": key_id, "secret": secret}))

        async def ask(person: int, request: requests.AnyRequest) -> asking.Answer:
            return await asyncio.to_thread(asking.ask_url, url, files[person], request)

        grab = await ask(0, requests.CreateKey(account=0, scope="admin"))
        assert not grab.ok and "market's own machine" in grab.error
        proposed = await ask(0, requests.Bust(match_number=match, reason=REASON))
        approve = requests.Approve(proposal=proposed.result["proposal"])
        own = await ask(0, approve)
        assert not own.ok and "another person" in own.error
        assert (await ask(1, approve)).ok


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """A log with a trade that stands, one busted and one adjusted; the latter two's numbers."""
    directory = tmp_path_factory.mktemp("corrected")

    async def make() -> tuple[int, int]:
        async with market_in(directory, clock=Clock()) as m:
            reference = await prepared(m)
            busted = await trade(m, reference * 1025 // 1000, 7)
            # a bust is none to judge by: it takes a malfunction to move what traded at the mark
            adjusted = await trade(m, reference, 3)
            listed = m.desk.instruments.by_code[CODE]
            price = listed.price_text(reference * 101 // 100)
            for request in (
                requests.Bust(match_number=busted, reason=REASON),
                requests.Adjust(
                    match_number=adjusted, price=price, reason="another", malfunction=True
                ),
            ):
                proposed = await m.operations.perform(request, "anne")
                await m.operations.perform(requests.Approve(proposal=proposed["proposal"]), "bert")
            return busted, adjusted

    return directory, *asyncio.run(make())


def test_the_audit_trail_has_the_original_and_the_bust(
    corrected: tuple[Path, int, int], tmp_path: Path
) -> None:
    directory, busted, adjusted = corrected
    path, bulletin_path = tmp_path / "trail.csv", tmp_path / "bulletin.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        walk.walk(directory, Trail(writer.writerow).take)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))

    def of(match: int) -> list[tuple[str, str, str, str]]:
        found = [r for r in rows if r["match_number"] == str(match)]
        return [(r["record_type"], r["account"], r["side"], r["last_quantity"]) for r in found]

    trade_rows = [("TRADE", "2", "BUY", "7"), ("TRADE", "1", "SELL", "7")]
    bust_rows = [("TRADE_BUSTED", "2", "BUY", "7"), ("TRADE_BUSTED", "1", "SELL", "7")]
    assert of(busted) == [*trade_rows, ("BUST", "2", "BUY", "7"), *bust_rows]
    assert [row[0] for row in of(adjusted)] == [
        "TRADE", "TRADE", "ADJUST", "TRADE_ADJUSTED", "TRADE_ADJUSTED",
    ]  # fmt: skip
    (command,) = [r for r in rows if r["record_type"] == "BUST"]
    text = msgspec.json.decode(command["text"])
    assert (text["reason"], text["proposed_by"], text["approved_by"]) == (REASON, "anne", "bert")

    bulletin = Bulletin()
    walk.walk(directory, bulletin.take)
    bulletin.finish()
    (line,) = [r for r in bulletin.rows(bulletin.day()) if r["instrument"] == CODE]
    assert (line["trades"], line["volume"], line["open_interest"]) == (2, 8, 8)
    assert (line["busted"], line["adjusted"]) == (1, 1)
    assert line["high"] == line["close"] and line["open"] == line["low"]
    with bulletin_path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(line))
        table.writeheader()
        table.writerow(line)
    command_line = [sys.executable, "-I", str(CHECKOUT / "docs/verify_audit.py")]
    for altered in (False, True):
        if altered:  # a bust with a side too few
            rows.remove(next(r for r in rows if r["record_type"] == "TRADE_BUSTED"))
            for number, row in enumerate(rows, 1):
                row["row"] = str(number)
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, FIELDS)
                table.writeheader()
                table.writerows(rows)
        checked = subprocess.run(
            [*command_line, str(path), str(bulletin_path)], capture_output=True, check=False
        )
        assert bool(checked.returncode) == altered, checked


def test_busts_are_found_by_kind_and_by_either_account(corrected: tuple[Path, int, int]) -> None:
    directory, busted, _ = corrected
    for account in (None, 1, 2):
        found: list[str] = []
        query = Query(account=account, event_kinds=frozenset({int(EventKind.TRADE_BUSTED)}))
        walk.walk(
            directory,
            lambda frame, events, query=query, found=found: query.search(  # type: ignore[misc]
                frame, events, lambda _, row: found.append(event_line(row, query.picture))
            ),
        )
        (line,) = found
        assert f"match {busted}" in line and "7 H100Z26 of account 1" in line
    query = Query(account=3, event_kinds=frozenset({int(EventKind.TRADE_BUSTED)}))
    walk.walk(directory, lambda frame, events: query.search(frame, events, lambda *_: None))
    assert not query.counts


async def test_both_accounts_and_the_public_are_told(corrected: tuple[Path, int, int]) -> None:
    directory, busted, adjusted = corrected
    async with market_in(directory, clock=Clock()) as m:
        released = list(m.tape.read(0, 0, 0))
        number = m.desk.instruments.by_code[CODE].id
        figures = {n: (m.engine.account(n), m.engine.position(n, number)) for n in (1, 2)}
    view, feed = View(), Feed()
    reports = Reports(view.feed.instruments, view.accounts)
    private: list[tuple[int, Corrected]] = []
    public: list[PublicCorrection] = []
    for batch in released:
        rows = list(EVENT.iter_unpack(batch.events))
        view.take(batch.epoch, batch.stamp, batch.events, dict(batch.texts))
        messages = feed.apply(rows, batch.stamp, dict(batch.texts), {f"trades.{CODE}"})
        public += [told for _, told in messages if isinstance(told, PublicCorrection)]
        for row in rows:
            if row[2] in CORRECTIONS:
                taken = reports.kinds[row[2]](row, batch.stamp, None)
                given = reports.other(row, batch.stamp)
                assert isinstance(taken, Corrected) and isinstance(given, Corrected)
                private += [(row[6], taken), (row[12], given)]
    assert [(n, r.kind, r.side, r.match_number) for n, r in private] == [
        (2, "bust", "buy", str(busted)), (1, "bust", "sell", str(busted)),
        (2, "adjustment", "buy", str(adjusted)), (1, "adjustment", "sell", str(adjusted)),
    ]  # fmt: skip
    assert private[2][1].previous_price and private[0][1].previous_price is None
    assert [told.match_number for told in public] == [str(busted), str(adjusted)]
    portfolio = Portfolio()
    portfolio.positions = {CODE: 15}
    for account, report in private:
        if account == 2:
            portfolio.correct(report)
    assert portfolio.positions == {CODE: 8}
    for account, (money, position) in figures.items():
        known = view.accounts.by_id[account]
        holding = known.holdings[number]
        assert known.cash == money["cash"]
        assert (holding.net, holding.cost) == (position["net"], position["cost"])


async def test_the_terms_bands_hold_until_they_are_turned_off(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=Clock()) as m:
        reference = await prepared(m)
        assert (await m.operations.perform(requests.Protect()))["protected"] == 48
        far = reference * 110 // 100
        with pytest.raises(RequestRefused, match="PRICE_BAND"):
            await trade(m, far)
        await m.operations.perform(requests.SetFeature(feature="bands"))
        await m.operations.perform(requests.SetFeature(feature="all_months_limit"))
        assert await trade(m, far)


async def combined(market: Market, near: str, far: str) -> int:
    """A spread of two months that trades, and its number."""
    book = market.desk.instruments
    number, legs = len(book.by_id), [book.by_code[code] for code in (near, far)]
    command = Command(
        kind=CommandKind.LIST_COMBINATION, instrument=number, quantity=0xF1,
        key_lo=legs[0].id | legs[1].id << 16, target_lo=-5000 & U64, target_hi=5000,
    )  # fmt: skip
    risk = Command(kind=CommandKind.SET_RISK, instrument=number, quantity=1000, session=500)
    opened = Command(kind=CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS)
    listed = COMMAND.pack(*msgspec.structs.astuple(command))
    market.sequencer.submit_all([(listed, 0, None)])  # without text: it is called by its number
    await market.desk.perform([Wish(risk, note("risk")), Wish(opened, note("open"))])
    return number


async def test_a_spread_is_busted_whole_and_a_leg_never_alone(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=Clock()) as m:
        await prepared(m)
        number = await combined(m, CODE, "H100F27")
        await m.operations.cleared()
        before = [books(m), [m.engine.position(n, number) for n in (1, 2)]]
        house = m.clearing.statement(0)
        for account, side in ((1, Side.SELL), (2, Side.BUY)):
            command = Command(
                kind=CommandKind.ENTER, account=account, side=side, price=400, quantity=5,
                instrument=number, key_lo=m.desk.sequence + 1,
            )  # fmt: skip
            (outcome,) = await m.desk.perform([Wish(command, note("enter"))])
        match = outcome.events[1].sequence << INDEX_BITS | outcome.events[1].index
        leg = requests.Bust(match_number=match + 2, reason=REASON)
        assert f"LEG_ALONE: it is a leg of match {match}" in await refused(m, leg, "anne")
        request = requests.Bust(match_number=match, reason=REASON)
        proposed = await m.operations.perform(request, "anne")
        assert proposed["code"] == m.desk.instruments.by_id[number].code
        approve = requests.Approve(proposal=proposed["proposal"])
        await m.operations.perform(approve, "bert")
        await m.operations.checkpoint()
        await m.operations.cleared()
        assert [books(m), [m.engine.position(n, number) for n in (1, 2)]] == before
        assert not m.clearing.divergences and m.clearing.is_balanced()
        after = m.clearing.statement(0)  # what was earned of the legs has gone back as such
        assert (after.fees, after.fees_earned) == (house.fees, house.fees_earned)
        m.clearing.audit()
    lines: list[str] = []
    query = Query(account=1, event_kinds=frozenset(map(int, OF_LEGS)))
    walk.walk(
        tmp_path,
        lambda frame, events: query.search(
            frame, events, lambda _, row: lines.append(event_line(row, query.picture))
        ),
    )
    assert len(lines) == 4 and all(f"of match {match}" in line for line in lines)
    rows: list[Row] = []
    walk.walk(tmp_path, Trail(rows.append).take)
    named = [row[RECORD_TYPE] for row in rows if row[MATCH_NUMBER] == match]
    made = ["TRADE"] * 2 + ["LEG_TRADE"] * 4 + ["RESIDUAL_POSTED"] * 2
    taken_back = ["TRADE_BUSTED"] * 2 + ["LEG_BUSTED"] * 4 + ["RESIDUAL_CORRECTED"] * 2
    assert named == [*made, "BUST", *taken_back]
