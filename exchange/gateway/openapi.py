"""The OpenAPI document of the HTTP routes, generated from their routing table and types.

python -m exchange.gateway.openapi > docs/reference/openapi.json
"""

import sys
from inspect import cleandoc
from typing import Any, Final

import msgspec

from exchange.gateway.asyncapi import schema_components
from exchange.gateway.http import STATUS
from exchange.gateway.rest import PREFIX, ROUTES, Route
from exchange.messages.access import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Right,
)
from exchange.messages.rest import Code, Health, OrderId
from exchange.messages.wire import PROTOCOL_VERSION, Rejected

OPENAPI_PATH: Final = "/openapi.json"
_NAMED: Final = {"code": Code, "order_id": OrderId}  # in a path
_HEADERS: Final = {
    "key": (KEY_HEADER, "the key's id"),
    "timestamp": (TIMESTAMP_HEADER, "the client's clock, milliseconds since the epoch"),
    "nonce": (NONCE_HEADER, "above every one that the key has used"),
    "signature": (SIGNATURE_HEADER, "of the request, in hexadecimal: docs/reference/keys.md"),
}
_REFERENCES: Final = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """Return the whole document as plain data."""
    answers = [route.answer for route in ROUTES]
    schemas, components = schema_components([*answers, Health, Rejected], _REFERENCES)
    *answered, health, rejected = schemas
    paths = {
        route.path: {"get": _operation(route, schema, rejected)}
        for route, schema in zip(ROUTES, answered, strict=True)
    }
    paths[f"{PREFIX}/health"] = {
        "get": {
            "summary": "How far the gateway is",
            "operationId": "health",
            "responses": {"200": _answer("how far it is", health)},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hourbook",
            "version": str(PROTOCOL_VERSION),
            "description": "What is asked rarely. Orders go over the WebSocket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                name: {"type": "apiKey", "in": "header", "name": header, "description": told}
                for name, (header, told) in _HEADERS.items()
            },
        },
    }


def _operation(route: Route, answer: dict[str, Any], rejected: dict[str, Any]) -> dict[str, Any]:
    statuses = {400, 404, 429} | ({401, 403, 413, 503} if route.right else set())
    made: dict[str, Any] = {
        "summary": route.summary,
        "description": cleandoc(route.answer.__doc__ or ""),
        "operationId": route.handler.__name__,
        "parameters": _parameters(route),
        "responses": {
            "200": _answer("the answer", answer),
            **{str(status): _answer(_told(status), rejected) for status in sorted(statuses)},
        },
    }
    if route.right is not Right.PUBLIC:
        made["security"] = [{name: [] for name in _HEADERS}]
        made["x-right"] = route.right.name
    return made


def _told(status: int) -> str:
    """Return the names of the rejects with a status; reasons without a status have 400."""
    named = [reason.name for reason, found in STATUS.items() if found == status]
    return ", ".join(named) or "the request is not of the documented form"


def _answer(told: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    made = []
    for name, kind in _NAMED.items():
        if f"{{{name}}}" in route.path:
            schema = msgspec.json.schema(kind)
            made.append({"name": name, "in": "path", "required": True, "schema": schema})
    for field in msgspec.structs.fields(route.query):
        schema = msgspec.json.schema(field.type)
        if not field.required and field.default:  # "" and 0 mean absent: their bounds forbid them
            schema["default"] = field.default
        made.append(
            {"name": field.name, "in": "query", "required": field.required, "schema": schema}
        )
    return made


def encoded() -> bytes:
    """Return the document as it is served and checked in."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(encoded())
