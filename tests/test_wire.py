"""The wire's pages say what the wire's types say, and the types keep their promises."""

import re
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import calcsize
from typing import Any, get_args
from zlib import crc32

import msgspec
import pytest

from exchange import messages
from exchange.app.wishes import digest
from exchange.gateway.auth import sign
from exchange.history.records import TWO_SIDED
from exchange.messages import (
    COMMAND,
    COMMAND_FIELDS,
    EVENT,
    EVENT_FIELDS,
    TRADE,
    TRADE_FIELDS,
    CancelReason,
    EventKind,
    HaltCause,
    Reason,
    TradingState,
    wire,
)
from exchange.messages.access import RETRYABLES, GatewayReason
from exchange.messages.wire_market import mark_parts, text_checksum

PAGES = Path(__file__).parents[1] / "docs" / "reference"
REQUESTS = get_args(wire.AnyRequest)
RESPONSES = get_args(wire.AnyResponse)
PARTS = (
    wire.InstrumentData,
    wire.PositionReport,
    wire.WorkingOrder,
    wire.LegData,
    wire.BreakerData,
    wire.FactorData,
)
ROW = re.compile(r"^\| ([a-z_]+) \| (\w+) \| (.+) \|$", re.MULTILINE)


def sections() -> dict[str, str]:
    """The page's third-level sections by their first word, the name of a type."""
    parts = re.split(r"^### ", (PAGES / "wire.md").read_text(), flags=re.MULTILINE)[1:]
    return {re.match(r"\w+", part)[0]: part for part in parts}  # type: ignore[index]


@pytest.mark.parametrize("message", [*REQUESTS, *RESPONSES, *PARTS])
def test_every_message_is_documented_field_by_field(message: Any) -> None:
    section = sections()[message.__name__]
    tag = message.__struct_config__.tag
    rows = ROW.findall(section)[1:]  # the first is the heading
    names = [name for name, _, _ in rows]
    fields = list(message.__struct_fields__)
    assert names == ([message.__struct_config__.tag_field] if tag else []) + fields
    assert tag is None or rows[0][2] == f"`{tag}`"
    assert all(len(notes) > 3 for _, _, notes in rows)


def test_no_section_is_of_a_message_that_is_gone() -> None:
    known = {message.__name__ for message in (*REQUESTS, *RESPONSES, *PARTS)}
    assert set(sections()) == known


def test_every_reason_is_documented_once_under_its_number() -> None:
    page = (PAGES / "rejects.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| ([GE ]+) \| (.+)$", page, re.MULTILINE)
    assert [(int(number), name) for number, name, _, _ in rows] == [
        (reason.value, reason.name) for reason in sorted([*Reason, *GatewayReason])
    ]
    for _, name, _, rest in rows:
        assert rest.count("|") == 4, name
        assert ("retryable" in rest) == (name in {reason.name for reason in RETRYABLES}), name


def test_enumerations_are_documented() -> None:
    page = (PAGES / "wire.md").read_text()
    for enumeration in (TradingState, HaltCause, CancelReason):
        for member in enumeration:
            assert f"`{member.name}`" in page
    for mode in wire.SELF_TRADES:
        assert f"`{mode}`" in page


def test_the_documented_examples_are_true() -> None:
    page = (PAGES / "wire.md").read_text()
    text = wire.signed_text(1_700_000_000_000, 1, "k1", 0)
    assert sign("hourbook-example", text) in page
    levels = re.findall(r"^ {4}([0-9a-f]{16}) ([0-9a-f]{16}) ", page, re.MULTILINE)
    checksum = crc32(bytes.fromhex("".join(price + lots for price, lots in levels)))
    assert len(levels) == 3 and f"checksum is {checksum}" in page


def test_the_documented_checksums_are_those_of_their_texts_and_of_messages() -> None:
    page = (PAGES / "wire.md").read_text()
    texts = dict(re.findall(r"^\| `(\w+)`.* \| `([^`]+)` \| \d+ \|$", page, re.MULTILINE))
    sums = re.findall(r"^\| `\w+`.* \| `([^`]+)` \| (\d+) \|$", page, re.MULTILINE)
    assert [crc32(text.encode()) for text, _ in sums] == [int(told) for _, told in sums]
    place: dict[str, Any] = {"instrument": "H100Z26", "sequence": 747, "time": 1}
    figures: dict[str, Any] = {"channel": "c", "previous_sequence": 0, "checksum": 0, **place}
    top = wire.TopOfBook(bid=("2.650", "12", 3), **figures)
    before = wire.InstrumentStatistics(business_date=20261124, reference="3.224000", **figures)
    auction = wire.AuctionResult(index=1, price="3.181", quantity="6", surplus="2", **place)
    marked = text_checksum((*mark_parts(auction), 747, None, None, None))
    assert {name: crc32(text.encode()) for name, text in texts.items()} == {
        "top": top.proof(),
        "statistics": before.proof(),
        "mark": marked,
    }


def test_the_documented_conversation_is_of_the_protocols_messages() -> None:
    page = (PAGES / "wire.md").read_text()
    (conversation,) = re.findall(r"^```text\n(> \{.*?)^```$", page, re.MULTILINE | re.DOTALL)
    request = msgspec.json.Decoder(wire.AnyRequest)
    frame = msgspec.json.Decoder(list[wire.AnyResponse])
    lines = re.split(r"^(?=[><] )", conversation, flags=re.MULTILINE)[1:]
    assert [line[0] for line in lines] == ["<" if at % 2 else ">" for at in range(len(lines))]
    for line in lines:
        told = (request if line[0] == ">" else frame).decode(line[2:])
        for one in told if isinstance(told, list) else [told]:
            sent = msgspec.json.decode(line[2:])
            fields = sent if isinstance(sent, dict) else sent[told.index(one)]
            assert set(fields) - {"op", "type"} <= set(one.__struct_fields__)


def test_the_records_are_documented_field_by_field_and_number_by_number() -> None:
    page = (PAGES / "records.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([ui]\d+) \| `(\w+)` \|", page, re.MULTILINE)
    wanted = []
    layouts = ((COMMAND, COMMAND_FIELDS, 0), (EVENT, EVENT_FIELDS, 0), (TRADE, TRADE_FIELDS, 48))
    for layout, names, first in layouts:
        offset = 0
        for code, field in zip(layout.format.lstrip("<"), names, strict=True):
            size = calcsize(code)
            if offset >= first:
                sign = "i" if code.islower() else "u"
                wanted.append((str(offset), f"{sign}{8 * size}", field))
            offset += size
        assert offset == layout.size
    assert rows == wanted
    (two_sided,) = re.findall(
        r"^Events with an account on each side .*: ([A-Z_ ·]+)\.$", page, re.M
    )
    assert {EventKind[kind] for kind in two_sided.split(" · ")} == TWO_SIDED
    told = dict(re.findall(r"^\| (\w+) \| .* \| ([A-Z_]+ \d+(?: · [A-Z_]+ \d+)*) \|$", page, re.M))
    enumerations = [
        one
        for one in vars(messages).values()
        if isinstance(one, type) and issubclass(one, IntEnum | IntFlag) and len(one)
    ]
    assert told == {
        one.__name__: " · ".join(f"{member.name} {member.value}" for member in one)
        for one in enumerations
        if one not in (messages.Reason, messages.Limit)  # rejects.md and configuration.md have them
    }
    low, high = digest("bid-1", b"order")
    assert f"`key_lo` is {low} and `key_hi` {high}" in page


@pytest.mark.parametrize("message", REQUESTS)
def test_requests_refuse_fields_that_they_do_not_know(message: Any) -> None:
    assert message.__struct_config__.forbid_unknown_fields
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"op": message.__struct_config__.tag, "colour": "red"}, message)


@pytest.mark.parametrize("message", RESPONSES)
def test_responses_may_gain_fields(message: Any) -> None:
    assert not message.__struct_config__.forbid_unknown_fields


def test_no_price_quantity_or_money_is_a_number() -> None:
    text = {"price", "quantity", "leaves_quantity", "cash", "fee", "variation", "mark", "amount"}
    for message in (*REQUESTS, *RESPONSES, *PARTS):
        for field in msgspec.structs.fields(message):
            assert float not in (field.type, *get_args(field.type))
            if field.name in text:
                assert int not in (field.type, *get_args(field.type)), (message, field.name)
