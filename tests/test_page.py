"""Reports that are written from their events are, byte for byte, those that are built."""

from typing import Any, cast

import msgspec
import pytest
from generator import Generator
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import Told

from exchange.engine import Engine
from exchange.gateway.accounts import Account, order_of, quote_name
from exchange.gateway.buckets import Bucket
from exchange.gateway.page import Page
from exchange.gateway.reports import Reports, fee_text
from exchange.gateway.session import JSON, MSGPACK, array_of
from exchange.gateway.view import View
from exchange.marketdata.stream import Row
from exchange.messages import (
    COMMAND_BYTES,
    CancelReason,
    CommandKind,
    EventFlag,
    EventKind,
    OrderFeature,
    SelfTrade,
    TimeInForce,
)
from exchange.messages.wire import encode_json

STAMP = 1_795_000_000_123_456_789
BATCHES, SIZE = 40, 60


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_is_what_is_built(seed: int) -> None:
    generator, engine, sequence = Generator(seed), Engine(), 1
    written, built, packs = Told(JSON), Told(JSON, MSGPACK), Told(MSGPACK)
    data = generator.opening()
    for _ in range(BATCHES):
        events = engine.apply(data, sequence, generator.stamp)
        generator.learn(events)
        kinds = enumerate(data[::COMMAND_BYTES], sequence)
        texts = {n: f"c{n % 50}" for n, kind in kinds if kind <= CommandKind.REPLACE}
        for one in (written, built, packs):
            one.take(generator.stamp, events, texts)
        sequence += len(data) // COMMAND_BYTES
        data = generator.batch(SIZE)
    kinds_told: set[str] = set()
    for (account, codec), reader in written.readers.items():
        assert reader.told == built.readers[account, codec].told
        packed = built.readers[account, MSGPACK]
        assert packed.told == packs.readers[account, MSGPACK].told
        arrays = [msgspec.json.decode(b"[%s]" % text) for text, _ in reader.told]
        objects = [each for array in arrays for each in array]
        assert objects == unpacked(packed.told)
        assert list(map(len, arrays)) == [count for _, count in reader.told]
        kinds_told |= {each["type"] for each in objects}
    assert kinds_told > {"accepted", "execution", "cancelled", "replaced"}


def unpacked(told: list[tuple[bytes, int]]) -> list[Any]:
    """The objects that stand behind one another in MessagePack."""
    arrays = (array_of([data], count, MSGPACK) for data, count in told)
    return [each for array in arrays for each in msgspec.msgpack.decode(array)]


U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXTS = st.text(max_size=40) | st.sampled_from(["", "a.b-C_9", '"', "a\\", "\x7f\x1f", "é\u20ac"])


@st.composite
def terms(draw: st.DrawFn) -> int:
    """The last field of ORDER_ACCEPTED: times, modes and features of all kinds."""
    tif, mode = draw(st.sampled_from(TimeInForce)), draw(st.sampled_from(SelfTrade))
    features = draw(st.integers(0, 255))
    return int(tif) | int(mode) << 8 | features << 16 | draw(st.integers(0, (1 << 31) - 1)) << 32


@st.composite
def rows(draw: st.DrawFn, kind: EventKind) -> Row:
    """An event of instrument 4 with numbers from end to end."""
    reason = st.sampled_from([0, *map(int, CancelReason), 65_535])
    last = terms() if kind == EventKind.ORDER_ACCEPTED else I64
    fields = (
        st.integers(0, (1 << 44) - 1), st.integers(0, (1 << 20) - 1), st.just(int(kind)),
        st.integers(0, 255), reason, st.just(4), U32, U64, I64, U32, U32, U64, U64, I64, last,
    )  # fmt: skip
    return cast(Row, tuple(draw(each) for each in fields))


LISTED: Row = (
    1, 0, int(EventKind.INSTRUMENT_LISTED), 1, 1, 4, 0, 1, 2_650_000, 720, 1_000, 0, 0, 0, 9_999,
)  # fmt: skip


@settings(max_examples=150)
@given(
    rows(EventKind.ORDER_ACCEPTED), rows(EventKind.TRADE), rows(EventKind.ORDER_CANCELLED),
    TEXTS, TEXTS, st.none() | TEXTS, st.integers(0, 1 << 40), st.integers(0, 1 << 30),
)  # fmt: skip
def test_any_event_is_written_as_it_is_built(
    accepted: Row, trade: Row, cancelled: Row,
    taker: str, maker: str, text: str | None, ahead: int, burst: int,
) -> None:  # fmt: skip
    view = View()
    accounts, instruments = view.accounts, view.feed.instruments
    instruments.apply(LISTED, None)
    accounts.now = STAMP
    accounts.by_id[accepted[6]] = Account(0, Bucket(1_000, burst, STAMP + ahead))
    for order_id, named in ((trade[7], taker), (trade[11], maker), (cancelled[7], text or "")):
        accounts.orders[order_id] = order_of(
            (order_id, 1, 4, named, False, 0, 1, 1, 0, False, False)
        )
    reports, price = Reports(instruments, accounts), instruments.by_id[4].price_text
    built = [reports.kinds[row[2]](row, STAMP, text) for row in (accepted, trade, cancelled)]
    built.append(reports.made(trade, STAMP))
    page, name = Page(), accounts.text_of
    flags, tokens = accepted[3], accounts.tokens(accepted[6], STAMP)
    assert tokens is not None
    named = text or ""
    if accepted[14] >> 16 & OrderFeature.QUOTE:
        named = quote_name("I4", bool(flags & EventFlag.SELL))
    unpriced = flags & EventFlag.MARKET and not accepted[8] and not accepted[10]
    shown = None if unpriced else price(accepted[8])
    page.accepted(accepted, STAMP, named, "I4", shown, tokens)
    at = price(trade[8])
    page.execution(trade, STAMP, False, name(trade[7]), "I4", at, fee_text(trade[13]))
    page.cancelled(cancelled, STAMP, name(cancelled[7]), "I4", price(cancelled[8]), text)
    page.execution(trade, STAMP, True, name(trade[11]), "I4", at, fee_text(trade[14]))
    page.add(b"{}")
    assert page.count == 5
    assert page.take() == encode_json(built)[1:-1] + b",{}"
    assert page.count == 0
    assert page.take() == b""


def test_a_page_grows_with_its_texts_and_refuses_none() -> None:
    page = Page()
    row: Row = (1, 0, int(EventKind.ORDER_CANCELLED), 0, 0, 4, 0, 7, 1, 2, 3, 0, 0, 0, 0)
    for text in ("x" * 3_000, '"' * 3_000, "\u20ac" * 3_000):
        page.cancelled(row, 1, text, text, "1" * 3_000, text)
        assert msgspec.json.decode(page.take())["request_id"] == text
    with pytest.raises(TypeError, match="without one of its texts"):
        page.cancelled(row, 1, cast(str, None), "I4", "1", None)
    with pytest.raises(ValueError, match="other than digits"):
        page.cancelled(row, 1, "a", "I4", "\u0661", None)
