"""The AsyncAPI document: the one checked in, its references, and real frames held against it.

Budget: 5 seconds.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import venue as market
from sockets import running
from venue import CODE, RICH, THIRD, Venue, enter

from exchange.gateway import asyncapi
from exchange.messages import Command, CommandKind

PAGES = Path(__file__).parents[1] / "docs" / "reference"
jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="pip install 'hourbook[dev]'")


venue = market.venue  # a fixture


def test_the_document_is_the_one_checked_in() -> None:
    """If not: python -m exchange.gateway.asyncapi > docs/reference/asyncapi.json"""
    assert (PAGES / "asyncapi.json").read_bytes() == asyncapi.encoded()


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi.document()
    for path in re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(document).decode()):
        found: Any = document
        for part in path.split("/"):
            found = found[part]
        assert found


def test_no_schema_has_a_discriminator() -> None:
    """AsyncAPI's is the name of a property; OpenAPI's, which msgspec makes, is an object, for which
    AsyncAPI's own parser rejects the whole document."""
    assert b'"discriminator"' not in asyncapi.encoded()


def test_the_page_and_the_document_name_the_same_channels() -> None:
    page = (PAGES / "wire.md").read_text()
    rows = re.findall(r"^\| `([a-z]+(?:\.CODE)?)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", page, re.M)
    assert [name for name, _, _ in rows] == [public.name for public in asyncapi.PUBLIC]
    for (_, first, then), public in zip(rows, asyncapi.PUBLIC, strict=True):
        assert f"`{public.first[-1]}`" in first and f"`{public.then[-1]}`" in then
        for cut in (*public.cuts, *public.periods):
            assert f"`.{cut}`" in page


async def test_what_channels_say_is_what_the_document_says(venue: Venue) -> None:
    """Each with everything behind it: the first messages, then those of trades and a settlement."""
    document = asyncapi.document()
    payloads = [one["payload"] for one in document["components"]["messages"].values()]
    frame = {"type": "array", "items": {"anyOf": payloads}, "components": document["components"]}
    validator = jsonschema_rs.validator_for(frame)
    one, two = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(one, enter("a"))
    settle = Command(kind=CommandKind.SETTLE, price=2_650_000, quantity=1)
    for public in asyncapi.PUBLIC:
        name = public.name.replace("CODE", CODE)
        for cut in ("", *(f".{cut}" for cut in (*public.cuts, *public.periods))):
            session = venue.connect()
            session.receive(
                json.dumps({"op": "subscribe", "request_id": "s", "channels": [name + cut]}), 0
            )
            told = json.loads(session.take())
            validator.validate(told)
            kinds = [message["type"] for message in told]
            assert kinds[0] == "subscribed"
            assert kinds[1:] == list(public.first) or public.first[0] not in kinds
            assert kinds[-1] == public.first[-1]
    await venue.say(two, enter("b", side="sell", quantity="5"))
    await venue.order(settle)
    venue.hub.tick()
    then = {public.name: set(public.then) for public in asyncapi.PUBLIC}
    for session in venue.hub.sessions.values():
        told = json.loads(session.take() or b"[]")
        validator.validate(told)
        if session.key is None:
            (channel,) = session.channels
            code = "." + CODE if CODE in channel else ""
            name = channel.partition(".")[0] + code.replace(CODE, "CODE")
            assert {message["type"] for message in told} <= then[name]


async def test_the_gateway_serves_it(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        url = f"{house.url}{asyncapi.ASYNCAPI_PATH}"
        async with house.client.get(url) as answer:
            assert answer.status == 200 and await answer.read() == asyncapi.encoded()


@pytest.mark.parametrize("name", ["asyncapi.json", "openapi.json"])
def test_no_document_has_the_indentation_of_the_sources(name: str) -> None:
    """Python drops it from 3.13 on: what is served would depend on the version."""
    assert re.findall(r"\S {2,}\S|\\n +", (PAGES / name).read_text()) == []
