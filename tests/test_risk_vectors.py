"""The rules of risk.json that are no tables of figures: the kill switch, the order of the checks.

Position, bucket and hold are in tests/test_matching_vectors.py. The price band and the look-ahead
for one's own orders are not among the engine's checks: self-trade prevention acts in the match.
"""

import json
from pathlib import Path
from typing import Any

from clearing_market import TestMarket
from test_engine_precedence import WALKS

from exchange.messages import (
    EVENT,
    EVENT_FIELDS,
    Command,
    CommandFlag,
    CommandKind,
    Event,
    EventKind,
    Reason,
    Side,
)

TABLE = Path(__file__).parent / "tables" / "risk.json"
CASES = {case["id"]: case for case in json.loads(TABLE.read_text())["cases"]}

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
    "price band": (),
    "open-order cap": (Reason.OPEN_ORDERS,),
    "self-match look-ahead": (),
    "position limit with working orders": (Reason.POSITION_LIMIT,),
    "margin or credit hold": (Reason.MARGIN, Reason.MEMBER_MARGIN),
}


def rejects(events: bytes) -> list[tuple[int, Any]]:
    return [(e[2], Reason(e[4]) if e[2] == EventKind.REJECTED else None)
            for e in EVENT.iter_unpack(events)]  # fmt: skip


def test_the_checks_come_in_the_order_of_the_vector() -> None:
    """R7: an order with every fault, mended one after another, meets the checks in that order."""
    named = CASES["R7"]["expected"]["precedence"]
    assert list(CHECKS) == named
    walked = [reason for reason, _ in WALKS["enter"][2]]
    expected = [reason for check in named for reason in CHECKS[check]]
    assert [reason for reason in walked if reason in expected] == expected


def test_of_several_faults_the_earliest_is_reported() -> None:
    """R8: outside the daily limit and above the largest quantity at once."""
    assert CASES["R8"]["expected"]["reported"] == "maximum quantity"
    market = TestMarket()
    market.open_account(1)
    market.list_instrument(0)
    market.apply(market.open_day(20261201))
    events = market.apply(market.enter(1, Side.BUY, 4_001, 51))
    assert rejects(events) == [(EventKind.REJECTED, Reason.QUANTITY_RANGE)]
    events = market.apply(market.enter(1, Side.BUY, 4_001, 50))
    assert rejects(events) == [(EventKind.REJECTED, Reason.PRICE_LIMIT)]


def test_a_reject_carries_code_limit_and_observed() -> None:
    """R7: the margin's reject names what was free and what was asked."""
    assert CASES["R7"]["expected"]["each_reject_carries"] == ["code", "limit", "observed"]
    market = TestMarket()
    market.open_account(1, 1_000)
    market.list_instrument(0)
    market.apply(market.open_day(20261201))
    (row,) = EVENT.iter_unpack(market.apply(market.enter(1, Side.BUY, 2_500, 1)))
    event = Event(**dict(zip(EVENT_FIELDS, row, strict=True)))
    assert (event.reason, event.a, event.b) == (Reason.MARGIN, 1_000, 150_000_000)


def test_a_killed_account_cancels_and_does_nothing_else_itself() -> None:
    """R3: after the kill no order of the account enters or changes; its cancels pass."""
    rule = CASES["R3"]["expected"]
    assert rule["allowed"] == ["cancel"]
    market = TestMarket()
    for account in (1, 2):
        market.open_account(account)
    market.list_instrument(0)
    market.apply(market.open_day(20261201))
    order = market.enter(1, Side.BUY, 2_400, 5)
    market.apply(order)
    market.apply(
        Command(kind=CommandKind.SET_ACCOUNT, account=1, flags=CommandFlag.KILLED, quantity=0)
    )
    killed = [(EventKind.REJECTED, Reason.ACCOUNT_KILLED)]
    assert rejects(market.apply(market.enter(1, Side.SELL, 2_400, 5))) == killed
    by_key = {"account": 1, "side": Side.UNSTATED, "target_lo": order.key_lo,
              "flags": CommandFlag.BY_CLIENT_ID}  # fmt: skip
    change = Command(
        kind=CommandKind.REPLACE, price=2_401, quantity=5, key_lo=market.key(), **by_key
    )
    assert rejects(market.apply(change)) == killed
    cancelled = market.apply(Command(kind=CommandKind.CANCEL, key_lo=market.key(), **by_key))
    assert EventKind.ORDER_CANCELLED in [kind for kind, _ in rejects(cancelled)]
