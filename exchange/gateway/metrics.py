"""What the market tells its operators, in Prometheus' text form. Names and units are those of
docs/reference/operations.md.

Nothing here is read by a rule, and nothing is done per order: batches are counted whole, rejects
where they are built, and of the requests one at a time is followed through its stages.
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

SAMPLE_NS: Final = 10_000_000  # log time between two requests that are followed
SECONDS: Final = (
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0,
)  # fmt: skip
COMMANDS: Final = tuple(1 << n for n in range(0, 13, 2))
STAGES: Final = ("decode", "sequence", "report")
_KIND: Final = 12  # offset of the kind byte in an event
_REJECTED: Final = int(EventKind.REJECTED)
_TRADE: Final = int(EventKind.TRADE)
_NS: Final = 1e-9


class Metrics:
    """One market's figures since it was started. ``probing``: the next request may be followed."""

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
        self._followed: tuple[str, int] | None = None  # its id, and when it was queued
        self._sampled = 0  # log time

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a figure that is read whenever somebody asks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def gauges(
        self, name: str, text: str, label: str, read: dict[str, Callable[[], float]]
    ) -> None:
        """As ``gauge``, one figure for each value of a label."""
        family = Gauge(name, text, [label], registry=self.registry)
        for value, function in read.items():
            family.labels(value).set_function(function)

    def process(self) -> None:
        """Add the process' own figures: CPU seconds, memory, open files."""
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Everything, as ``/metrics`` gives it."""
        return generate_latest(self.registry)

    # Called while the market runs

    def rejected(self, reason: AnyReason) -> None:
        """Count a reject."""
        self._rejects.labels(reason.name).inc()

    def closed(self, code: int) -> None:
        """Count a connection that the gateway ended."""
        self._closed.labels(str(code)).inc()

    def add(self, rejects: Mapping[str, int], closed: Mapping[str, int]) -> None:
        """Count what a gateway of another process did: rejects by reason, ends by close code."""
        for reason, count in rejects.items():
            self._rejects.labels(reason).inc(count)
        for code, count in closed.items():
            self._closed.labels(code).inc(count)

    def follow(self, text: str, ingress_ns: int, now_ns: int) -> None:
        """Follow a request that was queued just now and came at ``ingress_ns``."""
        self.probing = False
        self._followed = text, now_ns
        self._decode.observe((now_ns - ingress_ns) * _NS)

    def released(self, count: int, events: bytes) -> None:
        """Count a batch of ``count`` commands."""
        self._commands.inc(count)
        self._batches.observe(count)
        kinds = events[_KIND::EVENT_BYTES]
        trades = kinds.count(_TRADE)
        if trades:
            self._trades.inc(trades)
        if _REJECTED in kinds:
            for row in EVENT.iter_unpack(events):
                if row[2] == _REJECTED:
                    self.rejected(Reason(row[4]))

    def reported(self, texts: Mapping[int, str], stamp: int, begun_ns: int, now_ns: int) -> None:
        """Note that the reports of a batch are queued; it was taken up at ``begun_ns``."""
        if self._followed is None:
            self.probing = stamp - self._sampled >= SAMPLE_NS
        elif self._followed[0] in texts.values():
            self._sequence.observe((begun_ns - self._followed[1]) * _NS)
            self._report.observe((now_ns - begun_ns) * _NS)
            self._followed, self._sampled = None, stamp


class Tally(Metrics):
    """What a gateway in a process of its own counts for the market; the rest is counted there."""

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
        """Nothing: the market counts what it released."""

    def reported(self, texts: Mapping[int, str], stamp: int, begun_ns: int, now_ns: int) -> None:
        """Nothing: no request is followed across processes."""

    def take(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return rejects and ends since this was last called."""
        taken = self._own_rejects, self._own_closed
        self._own_rejects, self._own_closed = {}, {}
        return taken
