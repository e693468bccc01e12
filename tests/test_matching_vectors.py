"""The acceptance vectors of matching and of pre-trade risk, on the engine and on the oracle.

``tables/`` holds copies, so that they run in a bare checkout. Names inside the tables are the
tables' own: a step's ``id`` is a client order id here, each use after its death a new key.
Budget: 15 seconds.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from differences import Machine, decoded
from generator import pack
from oracle import Oracle

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)

TABLES = Path(__file__).parent / "tables"
SECOND_NS = 1_000_000_000
STAMP = 1_000 * SECOND_NS
SIDES = {"buy": int(Side.BUY), "sell": int(Side.SELL)}
NAMED = {"M1": 1, "M2": 2, "M3": 3}
SWEEPER = 4
UNNAMED = range(10, 110)  # even accounts buy and odd ones sell, so that they never meet themselves

Case = dict[str, Any]
Result = dict[str, Any]


def cases(name: str) -> list[Case]:
    loaded: list[Case] = json.loads((TABLES / name).read_text())["cases"]
    return loaded


@pytest.mark.parametrize("name", ["matching.json", "risk.json", "implied.json"])
def test_tables_are_the_shared_ones(shared: Path, name: str) -> None:
    assert (TABLES / name).read_bytes() == (shared / "vectors" / name).read_bytes()


class Desk:
    """One instrument, open, without fees; accounts of their own self-trade groups."""

    def __init__(
        self, machine: Machine, *, rate: int = 0, limit: int = 1 << 30, high: int = 2000
    ) -> None:
        self.machine, self.sequence, self.stamp = machine, 1, STAMP
        self.do(
            pack(
                CommandKind.LIST, price=100, quantity=1, session=1, account=1, operator=1,
                target_hi=high,
            ),
            pack(CommandKind.SET_RISK, price=rate, quantity=limit, session=1_000_000),
            pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
        )  # fmt: skip

    def open(self, account: int, cash: int, interval: int = 0, burst: int = 1) -> None:
        self.do(
            pack(
                CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account,
                quantity=10_000, target_lo=interval, target_hi=burst,
            )
        )  # fmt: skip
        if cash:
            self.do(pack(CommandKind.DEPOSIT, account=account, price=cash))

    def do(self, *commands: bytes) -> list[Event]:
        """Applies commands one after another under one stamp; gives all events."""
        batch = b"".join(commands)
        events = self.machine.apply(batch, self.sequence, self.stamp)
        self.sequence += len(batch) // COMMAND_BYTES
        return decoded(events)

    def accepts(self, command: bytes) -> bool:
        return self.do(command)[0].kind != EventKind.REJECTED


class Book:
    """Plays the steps of a matching case and tells each result in the table's words."""

    def __init__(self, machine: Machine) -> None:
        self.desk = Desk(machine)
        for account in (*NAMED.values(), SWEEPER, *UNNAMED):
            self.desk.open(account, 1 << 40)
        self.uses: dict[str, int] = {}  # how often an id was given to an order
        self.ids: dict[int, str] = {}  # id by order id
        self.orders: dict[str, Result] = {}  # account, key, price, open and executed by id

    def play(self, step: Case) -> Result:
        operation = step["op"]
        if operation == "repeat_new":
            for number in range(step["count"]):
                self.play({**step, "op": "new", "id": f"{step['prefix']}{number}"})
            return {}
        if operation == "sweep":
            return summary(self.play({**step, "op": "new"}))
        if operation == "new":
            return self.result(step["id"], self.desk.do(self.enter(step)))
        return self.result(step["id"], self.desk.do(self.change(step)))

    def enter(self, step: Case) -> bytes:
        name = step["id"]
        known: Result = self.orders.get(name, {"open": 0})
        if not known["open"]:
            self.uses[name] = self.uses.get(name, 0) + 1
        market = step.get("type") == "market"
        flags = CommandFlag.POST_ONLY if step.get("post_only") else 0
        flags |= CommandFlag.MARKET if "type" in step else 0
        flags |= CommandFlag.PROTECTED if "protection" in step else 0
        turn = 2 * len(self.uses) % len(UNNAMED) + SIDES[step["side"]]
        account = NAMED.get(step.get("account", ""), UNNAMED[turn])
        account = known.get("account", account) if known["open"] else account
        key = {"key_lo": 1 + list(self.uses).index(name), "key_hi": self.uses[name]}
        if not known["open"]:
            self.orders[name] = {"account": account, **key, "open": 0, "executed": 0}
            self.orders[name]["price"] = step.get("price", 0)
        return pack(
            CommandKind.ENTER,
            side=SIDES[step["side"]],
            tif=TimeInForce["IOC" if market else step.get("tif", "GTC")],
            flags=flags,
            account=account,
            price=step.get("price") or step.get("protection") or 0,
            quantity=step["qty"],
            stp=SelfTrade[step.get("stp", "cancel_newest").upper()],
            **key,
        )

    def change(self, step: Case) -> bytes:
        """cancel, reduce, modify (names the open quantity), total (names the whole)."""
        nobody = {"account": 1, "key_lo": 1 << 40, "key_hi": 0, "open": 0, "executed": 0}
        order: Result = self.orders.get(step["id"], {**nobody, "price": 0})
        fields = {"side": int(Side.UNSTATED), "flags": int(CommandFlag.BY_CLIENT_ID)}
        fields |= {"account": order["account"]}
        fields |= {"target_lo": order["key_lo"], "target_hi": order["key_hi"]}
        if step["op"] == "cancel":
            return pack(CommandKind.CANCEL, **fields)
        if step["op"] == "reduce":
            return pack(CommandKind.REDUCE, quantity=step["by"], **fields)
        total = order["executed"] + step.get("open_qty", order["open"])
        return pack(
            CommandKind.REPLACE,
            price=step["price"] if "price" in step else order["price"],
            quantity=step.get("total_qty", total),
            **fields,
        )

    def result(self, name: str, events: list[Event]) -> Result:
        if events[0].kind == EventKind.REJECTED:
            return {"status": "rejected", "trades": []}
        out: Result = {"status": "accepted", "trades": []}
        order = self.orders[name]
        self.ids[events[0].order_id] = name
        order["open"] = events[0].leaves
        if events[0].kind == EventKind.ORDER_REPLACED:
            order["price"] = events[0].price
        for event in events:
            if event.kind == EventKind.TRADE:
                maker = self.ids[event.key_lo]
                out["trades"].append([maker, event.price, event.quantity])
                self.orders[maker]["open"] = event.key_hi >> 32
                self.orders[maker]["executed"] += event.quantity
                order["executed"] += event.quantity
            elif event.kind == EventKind.ORDER_CANCELLED:
                other = self.ids[event.order_id]
                self.orders[other]["open"] = 0
                if other == name:
                    out["cancelled"] = event.quantity
                elif event.reason == CancelReason.SELF_TRADE:
                    assert event.flags & EventFlag.RESTING
                    out.setdefault("stp_cancelled", []).append(other)
        if order["open"]:
            out["open"] = order["open"]
        return out

    def rest(self) -> Result:
        """The whole book, [id, price, open] best first, read by sweeping it."""
        sides = {}
        for name, side in (("bids", Side.SELL), ("asks", Side.BUY)):
            sweep = pack(
                CommandKind.ENTER, side=side, tif=TimeInForce.IOC, flags=CommandFlag.MARKET,
                account=SWEEPER, quantity=1_000_000, key_lo=1 + side,
            )  # fmt: skip
            trades = [e for e in self.desk.do(sweep) if e.kind == EventKind.TRADE]
            sides[name] = [[self.ids[e.key_lo], e.price, e.quantity] for e in trades]
        return sides


def summary(result: Result) -> Result:
    makers = [maker for maker, _, _ in result["trades"]]
    return {
        "status": result["status"],
        "trade_count": len(makers),
        "total_qty": sum(quantity for _, _, quantity in result["trades"]),
        "first_maker": makers[0],
        "last_maker": makers[-1],
        "arrival_order": makers == [f"M{number}" for number in range(len(makers))],
    }


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("case", cases("matching.json"), ids=lambda case: case["id"])
def test_matching(machine: type[Machine], case: Case) -> None:
    book = Book(machine())
    results = [book.play(step) for step in case["inputs"]["steps"]]
    assert [result for result in results if result] == case["expected"]["results"]
    book.desk.machine.check()
    assert book.rest() == case["expected"]["book"]


# --- market orders with protection: of the table of combinations these need none


def protected_cases() -> pytest.MarkDecorator:
    chosen = [case for case in cases("implied.json") if case.get("kind") == "protection"]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["id"])


@pytest.mark.parametrize("machine", [Oracle, Engine])
@protected_cases()
def test_protection(machine: type[Machine], case: Case) -> None:
    given, expected = case["inputs"], case["expected"]
    desk = Desk(machine(), high=100_000)
    for account in (1, 2):
        desk.open(account, 1 << 40)
    other = "sell" if given["side"] == "buy" else "buy"
    for key, (price, quantity) in enumerate(given["opposite"], start=1):
        assert desk.accepts(order(other, quantity, price, key, account=2))
    first, *rest = desk.do(
        pack(
            CommandKind.ENTER, side=SIDES[given["side"]], account=1, price=given["points"],
            quantity=given["qty"], flags=CommandFlag.MARKET | CommandFlag.PROTECTED, key_lo=99,
        )
    )  # fmt: skip
    assert first.price == (expected["limit"] or 0)
    trades = [[e.price, e.quantity] for e in rest if e.kind == EventKind.TRADE]
    assert trades == expected["fills"]
    rests = [first.price, first.leaves] if first.leaves else None
    assert rests == expected["rests"]
    gone = sum(e.quantity for e in rest if e.kind == EventKind.ORDER_CANCELLED)
    assert gone == expected["cancelled"]


# --- pre-trade risk: of these kinds the engine decides alone


def risk_cases(kind: str) -> pytest.MarkDecorator:
    chosen = [case for case in cases("risk.json") if case.get("kind") == kind]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["id"])


def order(side: str, quantity: int, price: int, key: int, account: int = 1) -> bytes:
    return pack(
        CommandKind.ENTER, side=SIDES[side], account=account, price=price, quantity=quantity,
        key_lo=key,
    )  # fmt: skip


def take_position(desk: Desk, net: int) -> None:
    """Account 1 trades ``net`` lots at the mark with account 2."""
    if net:
        mine, his = ("buy", "sell") if net > 0 else ("sell", "buy")
        assert desk.accepts(order(his, abs(net), 100, 1, account=2))
        assert desk.accepts(order(mine, abs(net), 100, 1))


@pytest.mark.parametrize("machine", [Oracle, Engine])
@risk_cases("position")
def test_position_limit(machine: type[Machine], case: Case) -> None:
    given = case["inputs"]
    desk = Desk(machine(), limit=given["limit"])
    for account in (1, 2):
        desk.open(account, 1 << 40)
    take_position(desk, given["net"])
    for key, (side, price) in enumerate((("buy", 50), ("sell", 150)), start=2):
        if quantity := given[f"working_{side}"]:
            assert desk.accepts(order(side, quantity, price, key))
    for key, (wish, word) in enumerate(
        zip(given["orders"], case["expected"]["results"], strict=True), start=10
    ):
        price = 50 if wish["side"] == "buy" else 150
        assert desk.accepts(order(wish["side"], wish["qty"], price, key)) == (word == "accept")


@pytest.mark.parametrize("machine", [Oracle, Engine])
@risk_cases("bucket")
def test_throttle(machine: type[Machine], case: Case) -> None:
    given, desk = case["inputs"], Desk(machine())
    desk.open(1, 1 << 40, interval=SECOND_NS // given["per_second"], burst=given["burst"])
    for key, (time_ms, word) in enumerate(
        zip(given["times_ms"], case["expected"]["results"], strict=True), start=1
    ):
        desk.stamp = STAMP + time_ms * 1_000_000
        assert desk.accepts(order("buy", 1, 100, key)) == (word == "accept")


@pytest.mark.parametrize("machine", [Oracle, Engine])
@risk_cases("hold")
def test_margin_hold(machine: type[Machine], case: Case) -> None:
    """Every order is at the mark: no adverse distance, no unrealized loss."""
    given, rate = case["inputs"], case["inputs"]["margin_per_lot"]
    desk = Desk(machine(), rate=rate)
    desk.open(1, given["free"] + rate * abs(given["net"]))
    desk.open(2, 1 << 40)
    take_position(desk, given["net"])
    for step, word in zip(given["steps"], case["expected"]["results"], strict=True):
        key = 10 + ord(step["id"])
        command = order(step["side"], step["qty"], 100, key) if step["op"] == "new" else b""
        if step["op"] == "cancel":
            flags = CommandFlag.BY_CLIENT_ID
            command = pack(CommandKind.CANCEL, account=1, side=2, flags=flags, target_lo=key)
        assert desk.accepts(command) == (word == "accept")
    account = desk.machine.account(1)
    assert account["cash"] - account["required"] == case["expected"]["free"]
