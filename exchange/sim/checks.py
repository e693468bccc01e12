"""The checks after a storm; each compares a figure with an independent source.

While the market serves: every client's orders, positions and books equal the engine's; the reports
that a trader's clients received equal those sent to a new client that asks for all of them;
clearing has the engine's cash and positions, found no divergence, and balances; deposits count
once; every dead man's switch fired exactly once when due, with a report to its owner. After the
stop: the log replays to the same state, and no order outlived its switch.
"""

import asyncio
import contextlib
from collections import Counter
from typing import Any, Final

import msgspec

from clients.errors import OutcomeUnknown
from exchange.app import Market
from exchange.engine import Engine
from exchange.journal.errors import DamagedLog
from exchange.journal.reader import LogReader
from exchange.journal.replay import Replayer
from exchange.messages.wire import Position
from exchange.sim.holds import Story, orders_taken
from exchange.sim.host import Host
from exchange.sim.operator import Operator
from exchange.sim.trader import Trader, encoded_report, is_report

MICROS: Final = 1_000_000
NANOSECONDS: Final = 1_000_000_000
CHECKS_NS: Final = 60 * NANOSECONDS  # at most this long the checks take, in log time
DELIVERED_SECONDS: Final = 1.0  # without faults, all messages have arrived by then


def equal(what: str, found: Any, expected: Any) -> None:
    """Raise AssertionError, naming both values, unless they are equal."""
    assert found == expected, f"{what}: found {found}, expected {expected}"


class Checker:
    """The checks of one run: ``living`` before the stop, ``stopped`` after it."""

    def __init__(
        self,
        host: Host,
        traders: list[Trader],
        operator: Operator,
    ) -> None:
        self._host, self._traders, self._operator = host, traders, operator
        self.tape_events = b""
        self.commands = 0
        self.switches = Story(())
        self._working: set[int] = set()  # orders still working at the end

    @property
    def _market(self) -> Market:
        assert self._host.market is not None, "the market serves"
        return self._host.market

    async def living(self) -> None:
        """Run the checks on the serving market once it is at rest."""
        await self._rest()
        for trader in self._traders:
            await self._client(trader)
        self._switches()
        self._clearing()
        self._books()
        self.tape_events = b"".join(r.events for r in self._market.tape.read(0, 0, 0))

    async def _rest(self) -> None:
        """Wait for timers that would fire during the checks: graces of lost sessions, halts that
        end by themselves, switches."""
        engine, before = self._market.engine, 0
        while True:
            self.switches = Story(self._market.tape.read(0, 0, 0))
            dues = filter(None, (engine.next_deadline(), self.switches.first_due_ns))
            due, now = min(dues, default=0), self._host.clock_ns()
            if due == 0 or due > now + CHECKS_NS:
                return
            assert due > before, f"a timer was due at {due} and says nothing"
            await asyncio.sleep(max(0, due - now) / NANOSECONDS + DELIVERED_SECONDS)
            before = due

    async def _client(self, trader: Trader) -> None:
        """Compare a trader's client with the engine, and its reports with the gateway's."""
        market = self._market
        answer = await trader.ask(lambda client: client.query_orders())
        client = trader.client
        known = {order.client_order_id: int(order.leaves_quantity) for order in answer.orders}
        self._working.update(int(order.order_id) for order in answer.orders)
        believed = {key: order.leaves_quantity for key, order in client.orders.items()}
        equal(f"{trader.name}'s orders", believed, known)
        for code, listed in market.desk.instruments.by_code.items():
            net = int(market.engine.position(trader.account, listed.id)["net"])
            equal(f"{trader.name}'s lots of {code}", client.positions.get(code, 0), net)
        told = await self._told(trader)
        equal(f"how many reports {trader.name} got", len(trader.reports), len(told))
        for number, (found, expected) in enumerate(zip(trader.reports, told, strict=True)):
            equal(f"report {number} of {trader.name}", found, expected)

    async def _told(self, trader: Trader) -> list[bytes]:
        """Return all reports since the trader's first logon, as the gateway sends them to a new
        client."""
        began = trader.began
        assert began is not None
        while True:
            newcomer = trader.make(Position(began.epoch, began.sequence, began.index))
            stream = newcomer.events()
            # It has the same short timeout as the trader's other clients
            with contextlib.suppress(OutcomeUnknown):
                await newcomer.connect()
                await newcomer.close()
                return [encoded_report(event) async for event in stream if is_report(event)]

    def _switches(self) -> None:
        switches = self.switches
        equal("switches thrown", sorted(switches.done), sorted(switches.ought))
        for trader in self._traders:
            cancels = (one for one in trader.reports if b'"mass_cancelled"' in one)
            told = Counter(msgspec.json.decode(one).get("request_id") for one in cancels)
            mine = [one.name for one in switches.thrown if one.account == trader.account]
            equal(f"what {trader.name} was told of its switches", told, Counter(mine))

    def _clearing(self) -> None:
        market = self._market
        clearing, engine = market.clearing, market.engine
        equal("divergences", list(clearing.divergences), [])
        balance = clearing.trial_balance()
        equal("debits and credits", balance.debits, balance.credits)
        accounts = [0, *self._operator.deposited]
        for account in accounts:
            cash = int(engine.account(account)["cash"])
            equal(f"cash of account {account}", clearing.cash(account), cash)
        total = sum(int(engine.account(account)["cash"]) for account in accounts)
        equal("all cash", total, MICROS * sum(self._operator.deposited.values()))
        for listed in market.desk.instruments.by_id.values():
            nets = {a: int(engine.position(a, listed.id)["net"]) for a in accounts}
            equal(
                f"positions in {listed.code}", {a: clearing.net(a, listed.id) for a in nets}, nets
            )
            equal(f"sum of positions in {listed.code}", sum(nets.values()), 0)
        for account, dollars in self._operator.deposited.items():
            equal(f"deposits of {account}", clearing.statement(account).deposits, dollars * MICROS)

    def _books(self) -> None:
        market = self._market
        for trader in self._traders:
            for code in trader.habits.codes:
                book = trader.client.book(code)
                assert book.is_live, f"{trader.name}'s book of {code} is {book!r}: {book.fault}"
                bids, asks = market.engine.book(market.desk.instruments.by_code[code].id, 0)
                equal(f"{trader.name}'s bids of {code}", book.bids(), [b[:2] for b in bids])
                equal(f"{trader.name}'s asks of {code}", book.asks(), [a[:2] for a in asks])

    def stopped(self, state_hash: str) -> None:
        """Run the checks on the log: it must replay to the same state and events."""
        if self._host.disk.damaged:  # before the last snapshot, which no start reads
            self._damage_is_found()
            self._host.disk.restore()
        reader, engine = LogReader(self._host.disk), Engine()
        replayer = Replayer(engine, reader)
        replayer.run()  # raises Diverged
        equal("a torn tail after an orderly end", reader.finish().tail_dropped, None)
        equal("state hash of the replay", replayer.state_hash().hex(), state_hash)
        self.commands = replayer.commands
        frames = (frame for chunk in LogReader(self._host.disk).chunks() for frame in chunk)
        taken = orders_taken(frames, self.tape_events, self.switches.thrown)
        equal("orders that outlived their switch", taken & self._working, set())

    def _damage_is_found(self) -> None:
        """Assert that a log with a misplaced sector is refused."""
        reader = LogReader(self._host.disk)
        with contextlib.suppress(DamagedLog):
            for _ in reader.chunks():
                pass
            reader.finish()
            raise AssertionError("a sector went astray in the log, and nobody saw it")
