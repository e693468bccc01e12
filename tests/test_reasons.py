"""Every reason there is, as it is told: number, name, field, figures, what to do, HTTP status."""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import venue as market
from venue import CODE, OTHER, RICH, enter, reject

from exchange.gateway.decode import Refused
from exchange.gateway.http import BAD_REQUEST, STATUS, answer_refused
from exchange.gateway.rejects import RETRY_MS, TOLD, from_event, from_refused
from exchange.marketdata.instruments import Instruments
from exchange.marketdata.stream import Row
from exchange.messages import EVENT, Command, CommandKind, EventKind, Reason, TradingState, wire
from exchange.messages.access import RETRYABLES, AnyReason, GatewayReason

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "rejects.md"
ROWS: Final = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| \d+ \| ([A-Z_]+) \| (.+) \|$", PAGE.read_text(), re.M)
}  # where, when, limit, observed, what to do
OF_CLIENTS: Final = [
    reason
    for reason in Reason
    if "E" in ROWS[reason.name][0] and "operators only" not in ROWS[reason.name][1]
]
TIME_NS: Final = 1_800_000_000_000_000_000
OVERLOADED, UNAVAILABLE = 429, 503


@pytest.fixture(scope="module")
def instruments() -> Instruments:
    """One listed instrument, of a tick of a thousandth of a dollar."""
    row: Row = EVENT.unpack(
        EVENT.pack(1, 0, EventKind.INSTRUMENT_LISTED, 0, 0, 0, 0, 0, 2_650_000, 744, 1_000,
                   2_000, 3_300, 1, 1)
    )  # fmt: skip
    found = Instruments()
    data = wire.InstrumentData(code="H100Z26", product="H100", tick="0.001", decimals=3)
    found.apply(row, msgspec.json.encode(data).decode())
    return found


def rejected(reason: Reason, limit: int, observed: int, instruments: Instruments) -> wire.Rejected:
    """A reject by the engine of an order with that reason."""
    row: Row = EVENT.unpack(
        EVENT.pack(9, 2, EventKind.REJECTED, 0, reason, 0, 7, 0, 0, 0, 0, 1, 2, limit, observed)
    )
    return from_event(row, TIME_NS, "r-1", next(iter(instruments.by_id.values())), 4)


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_what_the_engine_rejects(reason: Reason, instruments: Instruments) -> None:
    told = rejected(reason, 1, 0, instruments)
    assert (told.number, told.name) == (int(reason), reason.name)
    assert (told.sequence, told.index, told.time, told.tokens) == (9, 2, TIME_NS, 4)
    assert told.request_id == "r-1" and told.retryable == (reason in RETRYABLES)
    if reason in OF_CLIENTS:
        _, _, limit, observed, _ = ROWS[reason.name]
        said = [bool(cell) and not cell.endswith("of the gateway") for cell in (limit, observed)]
        assert [told.limit is not None, told.observed is not None] == said


@pytest.mark.parametrize(
    ("reason", "limit", "observed", "field", "texts"),
    [
        (Reason.PRICE_LIMIT, 3_300, 9_000, "price", ("3.300", "9.000")),
        (Reason.PRICE_BAND, -1, 2_650, "price", ("-0.001", "2.650")),
        (Reason.MARGIN, 1_500_000, 2_000_001, "quantity", ("1.500000", "2.000001")),
        (Reason.ALL_MONTHS_LIMIT, 10, 12, "quantity", ("10", "12")),
        (Reason.NOT_TRADING, TradingState.CONTINUOUS, TradingState.HALTED, "instrument",
         ("CONTINUOUS", "HALTED")),
        (Reason.AUCTION_ONLY, TradingState.AUCTION, TradingState.CONTINUOUS, "time_in_force",
         ("AUCTION", "CONTINUOUS")),
        (Reason.SIDE_MISMATCH, 0, 1, "side", ("buy", "sell")),
        (Reason.EXPIRY, TIME_NS, 9_000_000_000, "expires_ms", ("1800000000000", "9000")),
        (Reason.MEMBER_KILLED, 0, 3, None, (None, "3")),
        (Reason.BOOK_FULL, 1_000_000, 1_000_000, None, ("1000000", "1000000")),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else None,
)  # fmt: skip
def test_figures_are_in_the_unit_of_their_field(
    reason: Reason, limit: int, observed: int, field: str | None, texts: Any,
    instruments: Instruments,
) -> None:  # fmt: skip
    told = rejected(reason, limit, observed, instruments)
    assert (told.field, told.limit, told.observed) == (field, *texts)


def test_a_throttled_order_is_told_how_long_to_wait(instruments: Instruments) -> None:
    told = rejected(Reason.THROTTLED, 12, 1_000_001, instruments)
    assert (told.limit, told.observed, told.retry_after_ms) == ("12", None, 2)


@pytest.mark.parametrize("reason", [*Reason, *GatewayReason], ids=lambda reason: reason.name)
def test_what_the_gateway_refuses_and_its_status(reason: AnyReason) -> None:
    refused = Refused(reason, "quantity", "why", limit="1", observed="2")
    refused.seen = {"client_order_id": "o", "op": "enter"}
    told = from_refused(refused)
    assert (told.number, told.name, told.field) == (int(reason), reason.name, "quantity")
    assert (told.limit, told.observed, told.client_order_id) == ("1", "2", "o")
    assert told.retryable == (reason in RETRYABLES)
    assert told.retry_after_ms == RETRY_MS.get(reason)
    answer = answer_refused(refused)
    assert isinstance(answer.body, bytes)
    assert msgspec.json.decode(answer.body, type=wire.Rejected) == told
    assert answer.status == STATUS.get(reason, BAD_REQUEST)
    again = answer.status in (OVERLOADED, UNAVAILABLE)
    assert again == (told.retryable or reason is GatewayReason.CONNECTIONS_FULL)
    assert ("Retry-After" in answer.headers) == (told.retry_after_ms is not None)


def test_numbers_are_in_their_bands_and_never_twice() -> None:
    every = [*Reason, *GatewayReason]
    assert len({int(one) for one in every}) == len({one.name for one in every}) == len(every)
    assert set(STATUS) <= set(every) and set(RETRYABLES) <= set(every)
    assert {401, 403} >= {STATUS[one] for one in STATUS if int(one) // 100 == 1} - {404}


def test_the_page_has_the_fields() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| ([A-Z_ ]+) \|$", PAGE.read_text(), re.M))
    told: dict[str, list[str]] = {}
    for number, one in TOLD.items():
        if one.field is not None:
            told.setdefault(one.field, []).append(Reason(number).name)
    assert {field: names.split() for field, names in table.items()} == told


async def test_a_reject_names_no_other_instrument_than_the_orders(tmp_path: Path) -> None:
    """Of an order named by the client's own id the log does not say in which instrument it is."""
    async with market.running(tmp_path) as venue:
        coarse = msgspec.json.decode(market.listing("B200Z26")) | {"tick": "0.01", "decimals": 2}
        listed = Command(
            kind=CommandKind.LIST, instrument=2, price=2_650_000, quantity=744, session=10_000,
            account=1, operator=1, target_lo=200, target_hi=330, key_lo=1,
        )  # fmt: skip
        trader = await venue.trader(RICH)
        await venue.say(trader, enter("a", instrument=OTHER))
        wrong = {"op": "replace", "request_id": "r", "quantity": "5", "price": "9.640"}
        by_text, reduce = {**wrong, "client_order_id": "a"}, {"op": "reduce", "request_id": "s"}
        seen = await reject(venue, trader, by_text)
        assert (seen.instrument, seen.limit, seen.observed) == (None, "3.300", "9.640")
        seen = await reject(venue, trader, {**reduce, "quantity": "3", "client_order_id": "a"})
        assert (seen.name, seen.instrument, seen.limit) == ("LOT", None, "5")
        await venue.order(listed, msgspec.json.encode(coarse).decode())
        seen = await reject(venue, trader, by_text)  # in one tick or the other
        assert (seen.name, seen.instrument, seen.limit, seen.observed) == (
            "PRICE_LIMIT", None, None, None,
        )  # fmt: skip
        (status,) = await venue.say(
            trader, {"op": "order", "request_id": "q", "client_order_id": "a"}
        )
        assert isinstance(status, wire.OrderStatus) and status.order is not None
        seen = await reject(venue, trader, {**wrong, "order_id": status.order.order_id})
        assert (seen.instrument, seen.limit, seen.observed) == (OTHER, "3.300", "9.640")
        seen = await reject(venue, trader, enter("b", price="9.640"))
        assert (seen.instrument, seen.limit) == (CODE, "3.300")
        quote = {"op": "quote", "request_id": "t", "instrument": CODE, "bid_price": "2.700",
                 "bid_quantity": "1", "ask_price": "2.600", "ask_quantity": "1"}  # fmt: skip
        seen = await reject(venue, trader, quote)
        assert (seen.name, seen.instrument, seen.limit) == ("CROSSED", CODE, "2.600")
        quote |= {"instrument": OTHER, "bid_quantity": "5", "ask_quantity": "5"}
        seen = await reject(venue, trader, quote)
        assert (seen.name, seen.instrument, seen.limit) == ("CROSSED", OTHER, "2.600")
        above = {**quote, "ask_price": "9.640"}
        seen = await reject(venue, trader, above)
        assert (seen.name, seen.instrument, seen.limit) == ("PRICE_LIMIT", OTHER, "3.300")
        protect = {"op": "protect", "request_id": "u", "product": "B200", "quantity": "5"}
        seen = await reject(venue, trader, {**protect, "window_ms": 0})  # of product 1
        assert (seen.name, seen.instrument) == ("PARAMETER_RANGE", None)
