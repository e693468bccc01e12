"""The market's figures that are read for each request of ``/metrics``."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from exchange.app.capacity import NAMES
from exchange.app.front import STAGES, Front
from exchange.gateway.metrics import Metrics
from exchange.messages import Mode

if TYPE_CHECKING:
    from exchange.app.market import Market


def add(metrics: Metrics, market: "Market") -> None:
    """Add all gauges. They cost nothing until they are read."""
    sequencer, front, clearing, desk = market.sequencer, market.front, market.clearing, market.desk
    gauge = metrics.gauge
    metrics.process()
    gauge("hourbook_epoch", "Term of this run.", lambda: sequencer.epoch)
    gauge("hourbook_sequence", "Last command matched.", lambda: sequencer.sequence)
    gauge("hourbook_durable_sequence", "Last command durable.", lambda: sequencer.durable_upto)
    gauge("hourbook_reported_sequence", "Last command reported.", lambda: front.sequence)
    gauge("hourbook_queue_commands", "Commands that wait.", lambda: sequencer.queued)
    gauge("hourbook_clearing_sequence", "Last command booked.", lambda: clearing.position[1])
    gauge("hourbook_clearing_lag_commands", "Not yet booked.", lambda: market.clearing_lag)
    gauge(
        "hourbook_clearing_divergences",
        "Differences of clearing from the engine.",
        lambda: len(clearing.divergences),
    )
    gauge(
        "hourbook_clearing_dues_refused",
        "Commands of clearing's that the engine refuses.",
        lambda: len(market.operations.dues_refused),
    )
    gauge("hourbook_ledger_balanced", "1: debits equal credits.", lambda: market.balanced)
    gauge("hourbook_disk_used_ratio", "Of the market's disk.", market.alarms.disk_used)
    gauge("hourbook_log_full", "1: orders are refused.", lambda: sequencer.full)
    gauge("hourbook_sync_seconds", "Of the sync under way.", lambda: sequencer.stalled_seconds)
    behind = "Of the clock, behind the log's time."
    gauge("hourbook_clock_behind_seconds", behind, lambda: sequencer.clock_behind_seconds)
    gauge("hourbook_mode_normal", "0: the market is cancel-only.", lambda: desk.mode == Mode.NORMAL)
    gauge("hourbook_day_open", "1: a business date is open.", lambda: desk.day_open)
    gauge("hourbook_ready", "What /ready answers.", lambda: all(market.ready().values()))
    gauge("hourbook_gateways", "Processes; 0: the market's own.", lambda: front.processes)
    gauge("hourbook_gateway_restarts", "Of those that died.", lambda: front.restarts)
    gauge("hourbook_unsent_bytes", "Of all connections.", lambda: front.unsent_bytes)
    used: dict[str, Callable[[], float]] = {name: _used(market, name) for name in NAMES}
    metrics.gauges("hourbook_capacity_used_ratio", "Of what the engine can hold.", "what", used)
    stages: dict[str, Callable[[], float]] = {stage: _count(front, stage) for stage in STAGES}
    metrics.gauges("hourbook_connections", "Connections, by stage.", "stage", stages)


def _used(market: "Market", name: str) -> Callable[[], float]:
    return lambda: market.taken()[name].used


def _count(front: Front, stage: str) -> Callable[[], float]:
    return lambda: front.connections().get(stage, 0)
