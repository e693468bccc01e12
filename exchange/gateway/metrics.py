"""The market's metrics for operators, in Prometheus' text format. Names and units:
docs/reference/operations.md.

No rule depends on them, and no work is done per order: batches are counted whole, rejects where
they are released or built, and one request at a time is followed through its stages.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from exchange.messages import EVENT, EVENT_BYTES, EventKind, Reason
from exchange.messages.access import AnyReason

SAMPLE_NS: Final = 10_000_000  # least log time between two followed requests
SECONDS: Final = (
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0,
)  # fmt: skip
COMMANDS: Final = tuple(1 << n for n in range(0, 13, 2))
STAGES: Final = ("decode", "sequence", "report")
_KIND: Final = 12  # offset of the kind byte in an event
_REJECTED: Final = int(EventKind.REJECTED)
_TRADE: Final = int(EventKind.TRADE)
_EXECUTED: Final = int(EventKind.ORDER_EXECUTED)
_NS: Final = 1e-9


class Metrics:
    """One market's metrics since its start. While ``probing`` the next request is followed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = self.registry
        self._commands = Counter("hourbook_commands", "Commands released.", registry=made)
        self._trades = Counter("hourbook_trades", "Trades released.", registry=made)
        self._rejects = Counter(
            "hourbook_rejects",
            "Rejects, of the engine and of the gateway.",
            ["reason"],
            registry=made,
        )
        self._batches = Histogram(
            "hourbook_batch_commands",
            "Commands of a released batch.",
            buckets=COMMANDS,
            registry=made,
        )
        self.fsync = Histogram(
            "hourbook_fsync_seconds", "Making one batch durable.", buckets=SECONDS, registry=made
        )
        self._closed = Counter(
            "hourbook_connections_closed",
            "Connections that the gateway ended.",
            ["code"],
            registry=made,
        )
        stages = Histogram(
            "hourbook_request_seconds", "Requests followed, by stage.", ["stage"],
            buckets=SECONDS, registry=made,
        )  # fmt: skip
        self._decode, self._sequence, self._report = (stages.labels(name) for name in STAGES)
        self.probing = True
        self._followed: tuple[str, int] | None = None  # request id, and when it was queued in ns
        self._sampled = 0  # log time of the last followed request

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge, which ``read`` computes at every scrape."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def gauges(
        self, name: str, text: str, label: str, read: dict[str, Callable[[], float]]
    ) -> None:
        """Add a gauge with one function for each value of a label."""
        family = Gauge(name, text, [label], registry=self.registry)
        for value, function in read.items():
            family.labels(value).set_function(function)

    def process(self) -> None:
        """Add the metrics of the process: CPU seconds, memory, open files."""
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in the text format, for ``/metrics``."""
        return generate_latest(self.registry)

    # Called while the market runs

    def rejected(self, reason: AnyReason) -> None:
        """Count a reject."""
        self._rejects.labels(reason.name).inc()

    def closed(self, code: int) -> None:
        """Count a connection that the gateway ended."""
        self._closed.labels(str(code)).inc()

    def add(self, rejects: Mapping[str, int], closed: Mapping[str, int]) -> None:
        """Add the counts of a gateway in another process: rejects by reason, connections closed
        by code."""
        for reason, count in rejects.items():
            self._rejects.labels(reason).inc(count)
        for code, count in closed.items():
            self._closed.labels(code).inc(count)

    def follow(self, text: str, ingress_ns: int, now_ns: int) -> None:
        """Follow a request that was queued at ``now_ns`` and received at ``ingress_ns``."""
        self.probing = False
        self._followed = text, now_ns
        self._decode.observe((now_ns - ingress_ns) * _NS)

    def released(self, count: int, events: bytes) -> None:
        """Count a batch of ``count`` commands."""
        self._commands.inc(count)
        self._batches.observe(count)
        kinds = events[_KIND::EVENT_BYTES]
        trades = kinds.count(_TRADE)
        if _REJECTED in kinds or _EXECUTED in kinds:
            for row in EVENT.iter_unpack(events):
                if row[2] == _REJECTED:
                    self.rejected(Reason(row[4]))
                elif row[2] == _EXECUTED and not row[4]:  # the first of a match through books
                    trades += 1
        if trades:
            self._trades.inc(trades)

    def reported(self, texts: Mapping[int, str], stamp: int, begun_ns: int, now_ns: int) -> None:
        """Note that a batch's reports are queued; the hub began it at ``begun_ns``."""
        if self._followed is None:
            self.probing = stamp - self._sampled >= SAMPLE_NS
        elif self._followed[0] in texts.values():
            self._sequence.observe((begun_ns - self._followed[1]) * _NS)
            self._report.observe((now_ns - begun_ns) * _NS)
            self._followed, self._sampled = None, stamp


class Tally(Metrics):
    """The counts of a gateway in a process of its own, which the market adds to its metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.probing = False
        self._own_rejects: dict[str, int] = {}
        self._own_closed: dict[str, int] = {}

    def rejected(self, reason: AnyReason) -> None:
        """Count a reject."""
        self._own_rejects[reason.name] = self._own_rejects.get(reason.name, 0) + 1

    def closed(self, code: int) -> None:
        """Count a connection that the gateway ended."""
        self._own_closed[str(code)] = self._own_closed.get(str(code), 0) + 1

    def released(self, count: int, events: bytes) -> None:
        """Do nothing: the market counts its released batches."""

    def reported(self, texts: Mapping[int, str], stamp: int, begun_ns: int, now_ns: int) -> None:
        """Do nothing: requests are not followed across processes."""

    def take(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the rejects by reason and the closes by code since the last call."""
        taken = self._own_rejects, self._own_closed
        self._own_rejects, self._own_closed = {}, {}
        return taken
