"""The OpenAPI document against a running market, by schemathesis: no 5xx, and every answer is as
the document says. Budget: 40 seconds."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import requests
from hypothesis import Phase, given, settings
from served import CHECKOUT, COMMAND, serving

from contracts import registry
from exchange.gateway import access, openapi
from exchange.messages.access import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    signed_request,
)

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'hourbook[dev]'")


def unguarded() -> dict[str, Any]:
    """The document without its headers, which the signer makes, and with codes that are listed."""
    made = openapi.document()
    codes = [listed.code for listed in registry.load().opening(datetime.now(UTC).date())]
    for path in made["paths"].values():
        path["get"].pop("security", None)
        for parameter in path["get"].get("parameters", ()):
            if parameter["name"] == "code":
                parameter["schema"] = {"type": "string", "enum": codes}
    return made


SCHEMA: Final = schemathesis.openapi.from_dict(unguarded())
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
STATUSES: Final[Counter[int]] = Counter()
EXAMPLES: Final = 60  # of each operation


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A served market's address, and a key of account 1."""
    data = tmp_path_factory.mktemp("openapi") / "market"
    for arguments in (["admin", "deposit", "1", "5000000"], ["keys", "create", "1"]):
        command = [*COMMAND, *arguments, "--data", str(data)]
        told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout
    with serving(data) as server:
        yield server.ready["http"].removesuffix("/api/v1"), json.loads(told)


class Signature(requests.auth.AuthBase):
    """Signs what is about to be sent, whatever was drawn for it."""

    def __init__(self, key: dict[str, str]) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        nonce, key_id = time.time_ns(), self._key["key_id"]
        stamp = nonce // 1_000_000
        text = signed_request(stamp, nonce, key_id, str(request.method), request.path_url, b"")
        request.headers.update({
            KEY_HEADER: key_id,
            TIMESTAMP_HEADER: str(stamp),
            NONCE_HEADER: str(nonce),
            SIGNATURE_HEADER: access.sign(self._key["secret"], text),
        })  # fmt: skip
        return request


# Each operation has a name of its own, which its own parametrization would not give it.
OPERATIONS: Final = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_the_answers_are_as_the_document_says(operation: Any, market: tuple[str, Any]) -> None:
    base, key = market

    @given(case=operation.as_strategy(POSITIVE) | operation.as_strategy(NEGATIVE))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, phases=(Phase.generate,))
    def ask(case: Any) -> None:
        answer = case.call(base_url=base, auth=Signature(key))
        STATUSES[answer.status_code] += 1
        case.validate_response(answer)
        if "x-right" in operation.definition.raw:
            unsigned = case.call(base_url=base)
            STATUSES[unsigned.status_code] += 1
            case.validate_response(unsigned)
            assert unsigned.status_code == 401

    ask()


def test_what_was_drawn_was_answered_and_refused() -> None:
    assert STATUSES[200] >= 80 and STATUSES[400] >= 80 and max(STATUSES) < 500, STATUSES
