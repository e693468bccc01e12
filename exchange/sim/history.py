"""What clients asked, when, and what they were told: the raw material of a linearizability check.

An operation is invoked once and completes at most once. One that never completed is *unknown*: it
may have happened, at any time after its invocation, or not at all.
"""

from typing import Any, Final

import msgspec

from exchange.messages.wire import AnyResponse, Rejected

QUERIES: Final = frozenset({"orders", "account"})


class Operation(msgspec.Struct, kw_only=True, eq=False):
    """One wish of a client. Times are of one clock that all clients of a history share.

    ``key`` is the client order id of an enter, else the request id; ``fields`` are the arguments
    that the client method was given; ``tries`` counts how often it was sent.
    """

    client: str
    account: int
    kind: str
    key: str
    fields: dict[str, Any]
    invoked_ns: int
    completed_ns: int | None = None
    answer: AnyResponse | None = None
    tries: int = 0
    is_repeat: bool = False  # of an earlier operation with the same key

    @property
    def outcome(self) -> str:
        """``ok``, ``fail`` or ``unknown``."""
        if self.answer is None:
            return "unknown"
        return "fail" if isinstance(self.answer, Rejected) else "ok"

    @property
    def sequence(self) -> int | None:
        """The sequence that the answer names; None for none, or for an answer of the gateway's."""
        return getattr(self.answer, "sequence", None)

    def complete(self, answer: AnyResponse, now_ns: int) -> None:
        """Note the answer."""
        assert self.completed_ns is None, "an operation completes once"
        self.answer, self.completed_ns = answer, now_ns


class History:
    """Operations in the order of their invocation."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def invoke(
        self, client: str, account: int, kind: str, key: str, fields: dict[str, Any], now_ns: int
    ) -> Operation:
        """Note a wish that is about to be sent."""
        operation = Operation(
            client=client, account=account, kind=kind, key=key, fields=fields, invoked_ns=now_ns
        )
        self.operations.append(operation)
        return operation

    def counts(self) -> dict[str, int]:
        """Operations by outcome."""
        counts = {"ok": 0, "fail": 0, "unknown": 0}
        for operation in self.operations:
            counts[operation.outcome] += 1
        return counts
