"""The rules of risk.json that are no tables of figures: switches, loss, the order of the checks.

Position, bucket and hold are in tests/test_matching_vectors.py. A look-ahead for one's own orders
is not among the engine's checks: self-trade prevention acts in the match.
"""

from pathlib import Path
from typing import Any

import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from reject_market import (
    CANCEL_ONLY,
    HALT,
    Market,
    assert_rejected,
    cancel,
    enter,
    opening,
    set_account,
)
from test_engine_precedence import WALKS
from test_matching_vectors import Desk, cases, order

from exchange.engine import Engine
from exchange.messages import (
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventKind,
    KillScope,
    OrderFeature,
    Reason,
    Side,
    TimeInForce,
)

CASES = {case["id"]: case for case in cases("risk.json")}
KINDS = {"position": ("R1a", "R1b"), "bucket": ("R2",), "hold": ("R5", "R6")}
RULES = ("R3", "R4", "R7", "R8", "R9")  # each by name below
RICH = 1 << 40
both = pytest.mark.parametrize("machine", [Oracle, Engine])

# Their words for a check, ours in the order in which they are looked for.
CHECKS: dict[str, tuple[Reason, ...]] = {
    "session or kill flag": (Reason.SESSION_UNKNOWN, Reason.ACCOUNT_KILLED),
    "syntax": (Reason.SYNTAX, Reason.ID_FORMAT, Reason.COMBINATION),
    "known client id or request id: the first answer again": (Reason.DUPLICATE_DIFFERENT,),
    "instrument state": (Reason.UNKNOWN_INSTRUMENT, Reason.NOT_TRADING, Reason.CANCEL_ONLY),
    "permission for account and product": (),  # the gateway's: SCOPE, before a command is made
    "message throttle": (Reason.THROTTLED,),
    "maximum quantity": (Reason.QUANTITY_RANGE, Reason.ACCOUNT_MAX_QUANTITY),
    "maximum notional": (Reason.NOTIONAL,),
    "tick and lot": (Reason.TICK, Reason.LOT),
    "daily limit": (Reason.PRICE_LIMIT,),
    "price band": (Reason.PRICE_BAND,),
    "open-order cap": (Reason.OPEN_ORDERS,),
    "self-match look-ahead": (),
    "position limit with working orders": (Reason.POSITION_LIMIT,),
    "margin or credit hold": (Reason.MARGIN, Reason.MEMBER_MARGIN),
}

BAND = pack(CommandKind.SET_PROTECTIONS, price=5)
STOP, ICEBERG = int(OrderFeature.STOP), int(OrderFeature.ICEBERG)
# Their codes; what is done first, the order, and our reason. Two are the gateway's or clearing's.
CODES: dict[int, tuple[bytes, bytes, Reason] | str] = {
    1003: (HALT, enter(), Reason.NOT_TRADING),
    1011: (b"", enter(side=2), Reason.SYNTAX),
    1012: (b"", enter(price=-5), Reason.PRICE_LIMIT),
    1013: (b"", enter(flags=CommandFlag.POST_ONLY, tif=TimeInForce.IOC), Reason.COMBINATION),
    1014: "SCOPE, before a command is made: test_gateway.py",
    2019: (b"", enter(tif=TimeInForce.GTD, target_lo=1), Reason.EXPIRY),
    2046: (b"", enter(spare=ICEBERG, target_hi=6), Reason.DISPLAY),
    2047: (b"", enter(instrument=9), Reason.UNKNOWN_INSTRUMENT),
    2051: (b"", cancel(side=1), Reason.SIDE_MISMATCH),
    2058: (b"", enter(spare=STOP, target_hi=5000), Reason.TRIGGER),
    2115: (b"", enter(quantity=22), Reason.QUANTITY_RANGE),
    2130: (b"", enter(instrument=1), Reason.NOT_TRADING),
    2137: (b"", enter(price=1005), Reason.PRICE_LIMIT),
    2179: (BAND, enter(price=550), Reason.PRICE_BAND),
    2311: (b"", enter(spare=OrderFeature.ALL_OR_NONE), Reason.ALL_OR_NONE),
    2501: (b"", enter(quantity=0), Reason.QUANTITY_RANGE),
    7027: (CANCEL_ONLY, enter(), Reason.CANCEL_ONLY),
    7613: (b"", enter(spare=ICEBERG, target_hi=0), Reason.DISPLAY),
}  # fmt: skip


def test_every_case_runs() -> None:
    """No row is left out: those of figures by their kind, the rules by name, all on both."""
    assert len(CASES) == 10
    for kind, names in KINDS.items():
        assert tuple(c["id"] for c in CASES.values() if c["kind"] == kind) == names
    assert tuple(name for name, case in CASES.items() if case["kind"] == "rule") == RULES
    source = Path(__file__).read_text()
    assert all(f'"""{name}: ' in source for name in RULES)


def test_the_checks_come_in_the_order_of_the_vector() -> None:
    """R7: an order with every fault, mended one after another, meets the checks in that order."""
    named = CASES["R7"]["expected"]["precedence"]
    assert list(CHECKS) == named
    walked = [reason for reason, _ in WALKS["enter"][2]]
    expected = [reason for check in named for reason in CHECKS[check]]
    assert [reason for reason in walked if reason in expected] == expected


@both
def test_of_several_faults_the_earliest_is_reported(machine: type[Machine]) -> None:
    """R8: beyond the band, outside the daily limit and above the largest quantity at once."""
    given, reported = CASES["R8"]["inputs"]["faults"], CASES["R8"]["expected"]["reported"]
    market = Market(machine(), opening() + BAND)
    spoiled: dict[str, dict[str, int]] = {
        "maximum quantity": {"quantity": 22}, "daily limit": {"price": 1005},
        "price band": {"price": 550},
    }  # fmt: skip
    assert set(given) == set(spoiled)
    fields: dict[str, int] = {}
    for fault in ("price band", "daily limit", "maximum quantity"):  # the latest first
        fields |= spoiled[fault]
        (reason,) = CHECKS[fault][:1]
        assert_rejected(market, enter(**fields), reason)
    assert fault == reported


@both
def test_a_reject_carries_code_limit_and_observed(machine: type[Machine]) -> None:
    """R7: the margin's reject names what was free and what was asked."""
    assert CASES["R7"]["expected"]["each_reject_carries"] == ["code", "limit", "observed"]
    desk = Desk(machine(), rate=10)
    desk.open(1, 1_000)
    (event,) = desk.do(order("buy", 101, 100, 1))
    assert (event.reason, event.a, event.b) == (Reason.MARGIN, 1_000, 1_010)


def kinds(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.kind, event.reason) for event in events]


@both
def test_a_killed_account_cancels_and_does_nothing_else_itself(machine: type[Machine]) -> None:
    """R3: after the kill no order of the account enters, changes or trades; its cancels pass."""
    rule = CASES["R3"]["expected"]
    assert (rule["allowed"], rule["refused"]) == (["cancel"], ["new", "modify", "fill"])
    desk = Desk(machine())
    for account in (1, 2):
        desk.open(account, RICH)
    desk.do(order("buy", 5, 90, 1))
    event, *cancelled = desk.do(pack(CommandKind.KILL, tif=KillScope.ACCOUNT, account=1))
    assert event.kind == EventKind.KILLED
    assert kinds(cancelled) == [(EventKind.ORDER_CANCELLED, CancelReason.KILLED)]
    assert len(desk.do(order("sell", 5, 90, 2, account=2))) == 1  # nothing to trade with
    killed = [(EventKind.REJECTED, Reason.ACCOUNT_KILLED)]
    assert kinds(desk.do(order("buy", 5, 90, 3))) == killed
    by_key = {"account": 1, "side": Side.UNSTATED, "flags": CommandFlag.BY_CLIENT_ID}
    change = pack(CommandKind.REPLACE, price=91, quantity=5, target_lo=1, **by_key)
    assert kinds(desk.do(change)) == killed
    late = desk.do(pack(CommandKind.CANCEL, target_lo=1, **by_key))
    assert kinds(late) == [(EventKind.REJECTED, Reason.NOT_FOUND)]  # judged, not refused


@both
def test_a_switched_off_account_may_still_cancel(machine: type[Machine]) -> None:
    """R3: where its orders were left to work, the account itself takes them out."""
    market = Market(machine(), opening() + set_account(flags=CommandFlag.KILLED))
    assert_rejected(market, enter(), Reason.ACCOUNT_KILLED)
    market.must(cancel())


@both
def test_the_daily_loss_limit(machine: type[Machine]) -> None:
    """R4: one lot long, marked at the vector's losses; the limit trips once and stays."""
    given, expected = CASES["R4"]["inputs"], CASES["R4"]["expected"]
    desk = Desk(machine(), high=30_000)
    for account in (1, 2):
        desk.open(account, RICH)
    desk.do(pack(CommandKind.MARK, price=20_000))
    desk.do(order("sell", 1, 20_000, 1, account=2))
    desk.do(order("buy", 1, 20_000, 1))
    desk.do(pack(CommandKind.SET_ACCOUNT, account=1, quantity=0, price=given["loss_limit"]))
    desk.do(order("buy", 1, 10, 2))
    told = [desk.do(pack(CommandKind.MARK, price=20_000 + mark)) for mark in given["marks"]]
    trips = [kinds(events)[1:] for events in told]
    assert expected["on_trip"] == ["cancel_all", "block_new"]
    assert sum(map(bool, trips)) == expected["trips"]
    assert trips[1][1] == (EventKind.ORDER_CANCELLED, CancelReason.LOSS_LIMIT)
    assert (told[1][1].kind, told[1][1].b) == (EventKind.LOSS_LIMIT_REACHED, 10_000)
    blocked = [(EventKind.REJECTED, Reason.LOSS_LIMIT)]
    assert kinds(desk.do(order("buy", 1, 10, 3))) == blocked
    assert kinds(desk.do(order("sell", 2, 29_000, 4))) == blocked
    assert expected["still_allowed"] == ["reduce_only"]
    assert desk.accepts(order("sell", 1, 29_000, 5))
    desk.do(pack(CommandKind.MARK, price=20_000))  # the loss is gone, the block is not
    assert kinds(desk.do(order("buy", 1, 10, 6))) == blocked
    assert expected["reset"] == "explicit re-enable only"
    desk.do(pack(CommandKind.SET_ACCOUNT, account=1, price=given["loss_limit"]))
    assert desk.accepts(order("buy", 1, 10, 7))


@both
@pytest.mark.parametrize("code", CASES["R9"]["expected"]["codes"], ids=lambda code: code["code"])
def test_published_codes_have_a_reason_of_ours(machine: type[Machine], code: Any) -> None:
    """R9: each is provoked, and answered by the reason that means the same."""
    mirrored = CODES[code["code"]]
    if isinstance(mirrored, str):
        assert Reason[mirrored.partition(",")[0]]
        return
    first, command, reason = mirrored
    assert_rejected(Market(machine(), opening() + first), command, reason)


def test_the_published_codes_are_those() -> None:
    """R9: none of theirs is left out, none of ours is extra."""
    listed = [code["code"] for code in CASES["R9"]["expected"]["codes"]]
    assert sorted(CODES) == sorted(listed)
