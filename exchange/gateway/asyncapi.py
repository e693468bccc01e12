"""The AsyncAPI document of the WebSocket, generated from the wire's types.

python -m exchange.gateway.asyncapi > docs/reference/asyncapi.json
"""

import sys
from collections.abc import Sequence
from functools import cache
from inspect import cleandoc
from typing import Any, Final, NamedTuple, get_args

import msgspec

from exchange.messages.wire import (
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    PROTOCOL_VERSION,
    AnyRequest,
    AnyResponse,
)
from exchange.messages.wire_market import DEPTH_GROUPS, DEPTH_TOPS, PERIODS

ASYNCAPI_PATH: Final = "/asyncapi.json"
_REFERENCES: Final = "#/components/schemas/{name}"
_DESCRIPTION: Final = (
    f"Subprotocols {JSON_PROTOCOL} (text) and {MSGPACK_PROTOCOL} (binary). A frame from a client "
    "is one request, or an array of commands; each from the gateway is an array of messages."
)


class Public(NamedTuple):
    """A public channel: its name, its first messages, the later ones, and its limited, grouped and
    conflated forms."""

    name: str
    first: tuple[str, ...]
    then: tuple[str, ...]
    cuts: tuple[str, ...] = ()
    periods: tuple[str, ...] = ()


_PERIODS: Final = tuple(PERIODS)
_CUTS: Final = (*(f"top{n}" for n in DEPTH_TOPS), *(f"by{n}" for n in DEPTH_GROUPS))
PUBLIC: Final = (
    Public("top.CODE", ("top",), ("top",), (), _PERIODS),
    Public("depth.CODE", ("depth_snapshot",), ("depth",), _CUTS, _PERIODS),
    Public("queue.CODE", ("queue_snapshot",), ("queue",), (), _PERIODS),
    Public("statistics.CODE", ("statistics",), ("statistics",), (), _PERIODS),
    Public("trades.CODE", ("mark",), ("trade", "trade_corrected", "off_book", "mark")),
    Public("state.CODE", ("state", "mark"), ("state", "indicative", "auction", "mark")),
    Public("settlements", ("settlement", "mark"), ("settlement", "mark")),
    Public("fixings", ("fixing", "mark"), ("fixing", "mark")),
    Public("factors", ("factors", "mark"), ("factors", "mark")),
)


def schema_components(
    types: Sequence[Any], references: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Return the types' JSON schemas, with docstrings without indentation: Python before 3.13 keeps
    it, and the documents must not depend on the version."""
    schemas, components = msgspec.json.schema_components(types, ref_template=references)
    for one in components.values():
        if "description" in one:
            one["description"] = cleandoc(one["description"])
    return schemas, components


def document() -> dict[str, Any]:
    """Return the whole document as plain data."""
    types = [*get_args(AnyRequest), *get_args(AnyResponse)]
    schemas, components = schema_components(types, _REFERENCES)
    components = _without_discriminators(components)
    messages = {
        kind.__name__: {
            "name": kind.__struct_config__.tag,
            "title": kind.__name__,
            "summary": cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " "),
            "payload": schema,
        }
        for kind, schema in zip(types, schemas, strict=True)
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hourbook",
            "version": str(PROTOCOL_VERSION),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "ws": {
                "address": "/ws",
                "messages": {name: _refer("components/messages", name) for name in messages},
            }
        },
        "operations": {
            "ask": _operation("receive", get_args(AnyRequest)),
            "tell": _operation("send", get_args(AnyResponse)),
        },
        "components": {"messages": messages, "schemas": components},
        "x-public-channels": [public._asdict() for public in PUBLIC],
    }


def _without_discriminators(schema: Any) -> Any:
    """Return a schema without the discriminators of OpenAPI, which are invalid in AsyncAPI; the
    alternatives differ in the only value of their tag anyway."""
    if isinstance(schema, dict):
        kept = ((name, part) for name, part in schema.items() if name != "discriminator")
        return {name: _without_discriminators(part) for name, part in kept}
    if isinstance(schema, list):
        return [_without_discriminators(part) for part in schema]
    return schema


def _refer(where: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/{where}/{name}"}


def _operation(action: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return an operation of the gateway on messages of those kinds."""
    return {
        "action": action,
        "channel": _refer("channels", "ws"),
        "messages": [_refer("channels/ws/messages", kind.__name__) for kind in kinds],
    }


@cache
def encoded() -> bytes:
    """Return the document as it is served and checked in; cached."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(encoded())
