"""A served market with clearing in a process of its own, one or the other killed step by step.

Five dates are settled and a member's default is seen through. A step is asked for, killed while the
market is at it, and asked for again of the market that is started next: what a person would do
whose answer never came. There is one settlement a date, and one waterfall. (``test_apart`` kills at
every batch, without a server.) Budget: 45 seconds.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import pytest
from crashes import free_port
from nursery import STOP_SECONDS, Child, Nursery

from clients.aio import AsyncClient
from contracts import symbol
from exchange.app import asking, requests
from exchange.app.bookkeeping import LEDGER_NAME
from exchange.clearing import Clearing
from exchange.engine import Engine
from exchange.sequencer import replay

OWN, ITS, SAFE, HAVEN, RICH, POOR = 10, 11, 20, 21, 30, 40
ACCOUNTS: Final[dict[int, tuple[int, Literal["house", "client"], str]]] = {
    OWN: (10, "house", "100000"), ITS: (10, "client", "30000"), SAFE: (20, "house", "900000"),
    HAVEN: (20, "client", ""), RICH: (30, "house", "900000"), POOR: (40, "house", "100000"),
}  # fmt: skip
NETS: Final = {OWN: 100, ITS: 10, SAFE: 20, RICH: -110, POOR: -20}
DATES: Final = 5
KILLED_WITHIN: Final = 0.2  # seconds after a step was asked for
UNANSWERED: Final = (OSError, EOFError, AssertionError)
Step = Callable[[], Awaitable[None]]


class Killed:
    """A served market, killed once at every step: the server and its clearing in turn."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.folder, self.data = folder, folder / "market"
        self._nursery, self._port = nursery, free_port()
        self._draw, self.kills = Random(3), 0
        self._server = self._start()

    def _start(self) -> Child:
        return self._nursery.serve(self.data, self._port)

    @property
    def ready(self) -> dict[str, str]:
        return self._server.ready

    async def ask(self, request: requests.AnyRequest, person: str = "") -> dict[str, Any]:
        """What the market answers; AssertionError if it refuses, OSError if it is gone."""
        if person:
            key = self.folder / f"{person}.json"
            answer = await asyncio.to_thread(asking.ask_url, self.ready["http"], key, request)
        else:
            found = await asking.ask(self.data, request)
            if found is None:
                raise ConnectionError("nobody serves")
            answer = found
        assert answer.ok, answer.error
        return answer.result

    async def put(self, name: str, **record: object) -> None:
        """Have clearing judge a record, under a request id."""
        text = json.dumps({"operation": name, **record})
        known = blake2b(text.encode(), digest_size=16).hexdigest()
        await self.ask(requests.PutRecord(record=text, request_id=known))

    async def by_two(
        self, wish: requests.ByTwo | requests.ProposePrice, is_done: Callable[[Clearing], bool]
    ) -> None:
        """Proposed by one key and approved by another, unless it is done already."""
        if not await self.look(is_done):
            made = await self.ask(wish, "ann")
            await self.ask(requests.Approve(proposal=made["proposal"]), "bob")

    async def look(self, question: Callable[[Clearing], Any]) -> Any:
        """What the ledger says once it has all that the log has."""
        while (state := await self.ask(requests.State()))["clearing_sequence"] < state["sequence"]:
            await asyncio.sleep(0.01)
        with books(self.data) as clearing:
            return question(clearing)

    async def step(self, do: Step) -> None:
        """Ask for it, kill, start again, and ask again."""
        trying = asyncio.create_task(self._try(do))
        await asyncio.sleep(self._draw.uniform(0, KILLED_WITHIN))
        self.kills += 1
        if self.kills % 2:
            self._server.kill()
        else:
            await asyncio.to_thread(self._kill_clearing)
        await trying
        self._server = await asyncio.to_thread(self._start)
        await do()

    async def _try(self, do: Step) -> None:
        with suppress(*UNANSWERED):
            await do()

    def _kill_clearing(self) -> None:
        """Kill the books' process; the server then ends by itself."""
        pid = self._server.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        until = time.monotonic() + STOP_SECONDS
        with suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.kill(self._server.pid, 0)
                time.sleep(0.01)
            raise TimeoutError("the server outlives its clearing")

    def end(self) -> None:
        """Stop it in order."""
        self._server.stop()

    def gone(self) -> None:
        """Whatever happened, it serves no more."""
        self._server.kill()


@contextmanager
def books(data: Path, *, read_only: bool = True) -> Iterator[Clearing]:
    clearing = Clearing.open(data / LEDGER_NAME, read_only=read_only)
    try:
        yield clearing
    finally:
        clearing.close()


async def set_up(market: Killed) -> str:
    """Accounts, keys, the fund, and positions at one price; the contract's code."""
    for account, (member, kind, usd) in ACCOUNTS.items():
        await market.ask(requests.OpenAccount(account=account, member=member, kind=kind))
        if usd:
            await market.ask(requests.Deposit(account=account, amount=usd))
    for person in ("ann", "bob"):
        made = await market.ask(requests.CreateKey(account=0, scope="admin"))
        (market.folder / f"{person}.json").write_text(json.dumps(made))
    listed = (await market.ask(requests.State()))["instruments"]
    code, mark = [(str(i["code"]), i["mark"]) for i in listed if i["code"].startswith("H100")][2]
    ticks = round(float(mark) * 1_000)
    async with AsyncExitStack() as stack:
        clients = {}
        for account in NETS:
            key = await market.ask(requests.CreateKey(account=account))
            client = AsyncClient(market.ready["ws"], key["key_id"], key["secret"])
            clients[account] = await stack.enter_async_context(client)
        for buyer, seller, lots in ((OWN, RICH, 100), (ITS, RICH, 10), (SAFE, POOR, 20)):
            await clients[seller].enter(code, "sell", lots, ticks)
            await clients[buyer].enter(code, "buy", lots, ticks)
    await market.put("pay_capital", amount="2000", person="owner")
    await market.put("size_fund", person="risk")
    return code


async def a_date(market: Killed, code: str, price: str, *, calm: bool = True) -> None:
    """A price by two people, the settlement, the next date; if it is ``calm``, only the settlement
    is killed.
    """

    async def priced() -> None:
        wish = requests.ProposePrice(code=code, price=price, reason="a rehearsal")
        await market.by_two(
            wish, lambda c: str(number_of(c, code)) in c.matter("prices")["approved"]
        )

    async def settled() -> None:
        with unless("is settled already"):
            await market.ask(requests.Settle())

    async def opened() -> None:
        with unless("is open"):
            await market.ask(requests.OpenDay())

    for do in (priced, settled, opened):
        await (do() if calm and do is not settled else market.step(do))


async def a_default(market: Killed, code: str) -> None:
    """Declared, the client ported, the book auctioned, settled, shared and replenished."""

    async def declared() -> None:
        await market.put("declare_default", member=10, person="ann", reason="unpaid")

    async def ported() -> None:
        record = {"operation": "port_client", "default": 1, "account": ITS, "to": HAVEN}
        await two(record, lambda default: default["ported"])

    async def sold() -> None:
        """As often as it takes: an auction that a crash left without bids is held again."""
        while held := await market.look(lambda c: c.net(OWN, number_of(c, code))):
            auctions = await market.look(lambda c: c.matter("defaults")["auctions"])
            if not auctions or (auctions[-1]["closed"] and not auctions[-1]["awards"]):
                await market.put("open_auction", default=1, instrument=code, person="ann",
                                 within_seconds=2 + len(auctions))  # fmt: skip
            elif not auctions[-1]["closed"] and not auctions[-1]["bids"]:
                with unless("expired"):
                    await market.put("auction_bid", auction=len(auctions), account=SAFE,
                                     lots=held, price="0.950")  # fmt: skip
            await asyncio.sleep(0.05)

    async def shared() -> None:
        record = {"operation": "allocate", "default": 1}
        await two(record, lambda default: default["stage"] != "closed")

    async def two(record: dict[str, object], is_done: Callable[[dict[str, Any]], Any]) -> None:
        wish = requests.ByTwo(record=json.dumps(record), reason="a rehearsal")
        await market.by_two(wish, lambda c: is_done(c.matter("defaults")["defaults"][0]))

    async def replenished() -> None:
        await market.put("size_fund", person="risk, again")

    for do in (declared, ported, sold):
        await market.step(do)
    await a_date(market, code, "1.000")
    for do in (shared, replenished):
        await market.step(do)


def number_of(clearing: Clearing, code: str) -> int:
    (number,) = [n for n, name in clearing.codes().items() if name == code]
    return number


@contextmanager
def unless(refusal: str) -> Iterator[None]:
    """What has been done before is refused by these words."""
    try:
        yield
    except AssertionError as refused:
        if refusal not in str(refused):
            raise


async def run(folder: Path, nursery: Nursery) -> tuple[str, int]:
    """The contract's code, and how often something was killed."""
    market = await asyncio.to_thread(Killed, folder, nursery)
    try:
        code = await set_up(market)
        before, mark = await market.look(lambda c: (cash(c), mark_of(c, code)))
        for n in range(DATES):
            price = f"{mark / 1e6 + 0.01 * (n + 1):.3f}"
            await a_date(market, code, price, calm=n > 0)
        after, last = await market.look(lambda c: (cash(c), mark_of(c, code)))
        hours = symbol.parse_outright(code).expiry.hours
        paid = {account: net * (last - mark) * hours for account, net in NETS.items()}
        assert after == {a: before[a] + paid.get(a, 0) for a in before} and last > mark
        await a_date(market, code, "1.000")
        await a_default(market, code)
        await asyncio.to_thread(market.end)
    finally:
        market.gone()
    return code, market.kills


def cash(clearing: Clearing) -> dict[int, int]:
    return {account: clearing.cash(account) for account in ACCOUNTS}


def mark_of(clearing: Clearing, code: str) -> int:
    return clearing._state.instruments[number_of(clearing, code)].mark


def test_five_dates_and_a_default_killed_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SERVE_CLEARING", "process"), ("LIMITS_WATCH_SECONDS", "0.1"),
                        ("LIMITS_CLEARING_PAUSE_SECONDS", "0.01")):  # fmt: skip
        monkeypatch.setenv(f"HOURBOOK_{name}", value)
    with Nursery() as nursery:
        code, kills = asyncio.run(run(tmp_path, nursery))
    assert kills == 2 + (DATES + 2) + 5
    data = tmp_path / "market"
    engine = Engine()
    replay(data, lambda: engine)
    with books(data, read_only=False) as clearing:
        clearing.audit()
        assert not clearing.divergences and clearing.is_balanced()
        for account in (0, *ACCOUNTS):
            assert clearing.cash(account) == engine.account(account)["cash"]
        rows = clearing._store.rows("select business_date, instrument from settlement_prices")
        settled = [tuple(row.values()) for row in rows]
        assert len(settled) == len(set(settled))
        dates = sorted({date for date, _ in settled})
        assert len(dates) == DATES + 2
        for number in clearing.codes():  # on every date from its listing to its expiry
            its = [dates.index(date) for date, of in sorted(settled) if of == number]
            assert its == list(range(its[0], its[-1] + 1) if its else ())
        accepted = [(row["operation"], json.loads(row["facts"])) for row in clearing._store.rows(
            "select operation, facts from rulings where outcome = 'accepted'"
        )]  # fmt: skip
        for once in ("declare_default", "port_client", "allocate"):
            assert [name for name, _ in accepted].count(once) == 1, once
        (loss,) = [facts for name, facts in accepted if name == "allocate"]
        assert sum(loss["layers"].values()) == loss["loss"] > 0
        (default,) = clearing.matter("defaults")["defaults"]
        assert default["stage"] == "replenished" and clearing.dues() == []
        number = number_of(clearing, code)
        nets = {account: clearing.net(account, number) for account in ACCOUNTS}
        assert nets == {OWN: 0, ITS: 0, SAFE: 120, HAVEN: 10, RICH: -110, POOR: -20}
