"""Of the faults of one request, the gateway names the first in the page's order.

The lists are read from docs/reference/rejects.md. A request has a fault for each of its list's
checks and loses them one by one, first to last; each time the reject is that of the next check.
Budget: 2 seconds.
"""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import venue as market
from venue import CODE, RICH, THIRD, Venue

from exchange.messages import Reason, wire
from exchange.messages.access import GatewayReason

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "rejects.md"
NAMES: Final = {reason.name for reason in (*Reason, *GatewayReason)}
NO_ID, NO_CODE, NO_NUMBER = "a b", "NOPE", "x"
NOTHING: Final[dict[str, Any]] = {}

Faults = list[tuple[str, dict[str, Any]]]  # a reason, and the fields that give it; None: left out

CALLER: Final[Faults] = [("AUTH_REQUIRED", NOTHING), ("SCOPE", NOTHING)]
LATE: Final[Faults] = [("LATE", {"valid_until_ms": 1})]
REQUEST_ID: Final[Faults] = [("ID_FORMAT", {"request_id": NO_ID})]
QUANTITY: Final[Faults] = [("SYNTAX", {"quantity": NO_NUMBER})]
TARGET: Final[Faults] = [
    ("COMBINATION", {"order_id": NO_NUMBER, "client_order_id": NO_ID}),
    ("ID_FORMAT", {"order_id": None, "client_order_id": NO_ID}),
    ("MISSING_FIELD", {"order_id": None, "client_order_id": None}),
    ("NOT_FOUND", {"order_id": "9" * 20, "client_order_id": None}),
]
QUEUE: Final[Faults] = [("QUEUE_FULL", NOTHING)]
FAULTS: Final[dict[str, Faults]] = {
    "enter": [
        *CALLER, *LATE,
        ("ID_FORMAT", {"client_order_id": NO_ID}),
        ("UNKNOWN_INSTRUMENT", {"instrument": NO_CODE}),
        ("COMBINATION", {"protection": NO_NUMBER, "price": None}),
        ("SYNTAX", {"price": None}),
        *QUANTITY,
        ("TICK", {"price": "2.6501"}),
        ("COMBINATION", {"expires_ms": -1}),
        ("COMBINATION", {"stop_price": NO_NUMBER, "display_quantity": NO_NUMBER}),
        ("QUANTITY_RANGE", {"stop_price": None, "display_quantity": "9" * 12}),
        *QUEUE,
    ],
    "cancel": [*CALLER, *REQUEST_ID, *TARGET, *QUEUE],
    "reduce": [*CALLER, *QUANTITY, *REQUEST_ID, *TARGET, *QUEUE],
    "replace": [
        *CALLER, *LATE, *QUANTITY,
        ("UNKNOWN_INSTRUMENT", {"instrument": NO_CODE}),
        ("PRICE_LIMIT", {"price": "9" * 12}),
        *REQUEST_ID, *TARGET, *QUEUE,
    ],
    "mass_cancel": [
        *CALLER, *REQUEST_ID,
        ("COMBINATION", {"instrument": NO_CODE, "product": NO_CODE}),
        ("UNKNOWN_INSTRUMENT", {"instrument": None, "product": NO_CODE}),
        ("SYNTAX", {"session": 0}),
        *QUEUE,
    ],
    "kill": [*CALLER, *REQUEST_ID, *QUEUE],
    "quote": [
        *CALLER, *LATE, *REQUEST_ID,
        ("UNKNOWN_INSTRUMENT", {"instrument": NO_CODE}),
        ("MISSING_FIELD", {"bid_price": None, "bid_quantity": NO_NUMBER}),
        ("TICK", {"bid_price": "2.6001"}),
        ("SYNTAX", {"bid_quantity": NO_NUMBER}),
        ("MISSING_FIELD", {"ask_price": NO_NUMBER, "ask_quantity": None}),
        ("SYNTAX", {"ask_price": NO_NUMBER}),
        ("QUANTITY_RANGE", {"ask_quantity": "9" * 12}),
        *QUEUE,
    ],
    "protect": [
        *CALLER, *REQUEST_ID,
        ("PARAMETER_RANGE", {"window_ms": -1}),
        ("UNKNOWN_INSTRUMENT", {"product": NO_CODE}),
        *QUANTITY, *QUEUE,
    ],
    "cancel_after": [*CALLER, *REQUEST_ID, ("PARAMETER_RANGE", {"timeout_ms": 1}), *QUEUE],
    "order": [*REQUEST_ID, CALLER[0], *TARGET],
}  # fmt: skip
GOOD: Final[dict[str, dict[str, Any]]] = {
    "enter": market.enter("o"),
    "cancel": {"request_id": "r", "order_id": "7"},
    "replace": {"request_id": "r", "order_id": "7", "instrument": CODE, "quantity": "1",
                "price": "2.650"},
    "reduce": {"request_id": "r", "order_id": "7", "quantity": "1"},
    "kill": {"request_id": "r", "scope": "account"},
    "quote": {"request_id": "r", "instrument": CODE, "bid_price": "2.600", "bid_quantity": "1",
              "ask_price": "2.700", "ask_quantity": "1"},
    "protect": {"request_id": "r", "product": CODE[:4], "quantity": "1", "window_ms": 1_000},
    "cancel_after": {"request_id": "r", "timeout_ms": 5_000},
}  # fmt: skip


venue = market.venue  # a fixture


def lists() -> dict[str, list[set[str]]]:
    """Each request's checks in order, as the page has them: the reasons of one check are a set."""
    text = PAGE.read_text().split("At the gateway:")[1].split("In the engine:")[0]
    text, _, defined = text.partition("*Target*: ")
    target = defined.split(" *Queue*")[0].rstrip(".")
    text = re.sub(r"if the target [^·]*·", "", text)  # a way that has its own test below
    text = text.replace("*target*", target).replace("*queue*", "QUEUE_FULL")
    found: dict[str, list[set[str]]] = {}
    for ops, checks in re.findall(r"\*\*([a-z_, ]+)\*\*: (.*?)(?=\*\*|\Z)", text, re.DOTALL):
        twice = re.sub(r"\(bid, then ask: (.*)\)(?= ·)", r"\1 · \1", checks.replace("\n", " "))
        parts = [set(re.findall(r"[A-Z_]{3,}", part)) & NAMES for part in twice.split("·")]
        found |= dict.fromkeys(ops.split(", "), parts)
    return found


@pytest.mark.parametrize("op", FAULTS)
def test_every_check_of_the_page_has_a_fault(op: str) -> None:
    checks = [one for one in lists()[op] if one != {"REQUESTS_FULL"}]
    assert len(checks) == len(FAULTS[op])
    assert [reason in check for (reason, _), check in zip(FAULTS[op], checks, strict=True)] == (
        [True] * len(checks)
    )


def figures() -> dict[str, tuple[str, str]]:
    """What the page calls limit and observed, by reason; empty where it has none."""
    lines = re.findall(r"^\| (\d{3} \|.*) \|$", PAGE.read_text(), re.MULTILINE)
    rows = [line.split(" |") for line in lines]
    return {row[1].strip(): (row[4].strip(), row[5].strip()) for row in rows}


def has_its_figures(told: wire.Rejected) -> bool:
    """Whether the page says what each figure of the reject is."""
    limit, observed = figures()[told.name]
    return (told.limit is None or bool(limit)) and (told.observed is None or bool(observed))


async def callers(venue: Venue) -> dict[str, Any]:
    """Connections: one that has not logged on, one that may only read, one that may trade."""
    reader = venue.connect()
    (told,) = await venue.say(reader, venue.logon(THIRD, "read"))
    assert isinstance(told, wire.LoggedOn)
    return {"AUTH_REQUIRED": venue.connect(), "SCOPE": reader, "": await venue.trader(RICH)}


@pytest.mark.parametrize("op", FAULTS)
async def test_the_first_fault_in_the_pages_order_is_the_answer(venue: Venue, op: str) -> None:
    by_stage, faults = await callers(venue), FAULTS[op]
    venue.full = True
    for place, (reason, wrong) in enumerate(faults):
        request: dict[str, Any] = {"op": op, **GOOD.get(op, {"request_id": "r"})}
        for _, fields in reversed(faults[place:]):
            request |= fields
        sent = {name: value for name, value in request.items() if value is not None}
        logged_on = "AUTH_REQUIRED" not in [later for later, _ in faults[place:]]
        session = by_stage[reason if reason == "SCOPE" else "" if logged_on else "AUTH_REQUIRED"]
        (told,) = await venue.say(session, sent)
        assert isinstance(told, wire.Rejected)
        assert told.name == reason, (sent, told)
        assert has_its_figures(told), told
        if reason in ("SYNTAX", "TICK", "PRICE_LIMIT", "QUANTITY_RANGE"):
            assert told.field in wrong, "it names a field that the request has"


async def test_a_replace_of_an_order_not_yet_seen_names_its_instrument(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    blind = {"op": "replace", "request_id": "r", "order_id": "7", "quantity": "1", "price": "x"}
    for fields, reason in (
        ({"request_id": NO_ID, "order_id": NO_NUMBER}, "ID_FORMAT"),
        ({"order_id": NO_NUMBER}, "ID_FORMAT"),
        (NOTHING, "NOT_FOUND"),
        ({"instrument": CODE}, "SYNTAX"),
    ):
        assert (await market.reject(venue, trader, {**blind, **fields})).name == reason


async def test_the_page_has_the_figures_of_refused_subscriptions(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    seen = set()
    for fields in (
        {"channels": ["depth.NOPE"]},
        {"channels": [f"depth.{CODE}"], "after": 1 << 40},
        {"channels": [f"depth.{number}" for number in range(257)]},
    ):
        sent = {"op": "subscribe", "request_id": "r", **fields}
        told = await market.reject(venue, trader, sent)
        assert has_its_figures(told), told
        seen.add((told.name, told.limit is not None, told.observed is not None))
    assert seen == {
        ("NOT_FOUND", False, True),
        ("NOT_FOUND", True, True),
        ("SUBSCRIPTIONS_FULL", True, True),
    }
