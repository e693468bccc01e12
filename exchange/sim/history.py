"""The requests of clients and their answers with times, for a linearizability check.

An operation is invoked once and completes at most once. One that never completed is *unknown*: it
may have taken effect at any time after its invocation, or not at all.
"""

from typing import Any, Final

import msgspec

from exchange.messages.wire import AnyResponse, Rejected

QUERIES: Final = frozenset({"orders", "account"})


class Operation(msgspec.Struct, kw_only=True, eq=False):
    """One request of a client. All clients of a history share one clock for the times.

    ``key`` is the client order id of an enter, otherwise the request id; ``fields`` are the
    arguments of the client method; ``tries`` counts how often it was sent.
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
    is_repeat: bool = False  # repeats an earlier operation with the same key

    @property
    def outcome(self) -> str:
        """``ok``, ``fail`` or ``unknown``."""
        if self.answer is None:
            return "unknown"
        return "fail" if isinstance(self.answer, Rejected) else "ok"

    @property
    def sequence(self) -> int | None:
        """The sequence in the answer; None without an answer, or if the gateway alone gave it."""
        return getattr(self.answer, "sequence", None)

    def complete(self, answer: AnyResponse, now_ns: int) -> None:
        """Record the answer."""
        assert self.completed_ns is None, "an operation completes once"
        self.answer, self.completed_ns = answer, now_ns


class History:
    """Operations in the order of their invocation."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def invoke(
        self, client: str, account: int, kind: str, key: str, fields: dict[str, Any], now_ns: int
    ) -> Operation:
        """Record a request that is about to be sent."""
        operation = Operation(
            client=client, account=account, kind=kind, key=key, fields=fields, invoked_ns=now_ns
        )
        self.operations.append(operation)
        return operation

    def counts(self) -> dict[str, int]:
        """Return the number of operations by outcome."""
        counts = {"ok": 0, "fail": 0, "unknown": 0}
        for operation in self.operations:
            counts[operation.outcome] += 1
        return counts
