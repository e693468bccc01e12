"""The routes for operators and their tools: ``/metrics``, ``/health``, ``/ready``.

``/health`` tells whether the process should be kept, ``/ready`` whether it should get orders. The
checks, and what to do if one fails: docs/reference/operations.md.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from exchange.gateway.access import is_loopback
from exchange.gateway.http import json_answer

MetricsFor = Literal["loopback", "any", "off"]
UNAVAILABLE: Final = 503
Checks = Callable[[], Awaitable[Mapping[str, bool]]]


def add_routes(
    application: web.Application,
    metrics: Callable[[], Awaitable[bytes]],
    *,
    healthy: Checks,
    ready: Checks,
    metrics_for: MetricsFor = "loopback",
) -> None:
    """Add the three routes; each check is a name and whether it holds.

    ``metrics_for`` limits who may read ``/metrics``. ``/health`` and ``/ready`` answer 200, or 503
    if a check fails.
    """

    async def show_metrics(request: web.Request) -> web.Response:
        if metrics_for == "loopback" and not is_loopback(request.remote or ""):
            raise web.HTTPForbidden(text="metrics are for this machine alone; see serve.metrics")
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_health(request: web.Request) -> web.Response:
        return _answer(await healthy())

    async def show_ready(request: web.Request) -> web.Response:
        return _answer(await ready())

    if metrics_for != "off":
        application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/health", show_health)
    application.router.add_get("/ready", show_ready)


def _answer(checks: Mapping[str, bool]) -> web.Response:
    good = all(checks.values())
    body = msgspec.json.encode({"ok": good, "checks": checks})
    return json_answer(body, 200 if good else UNAVAILABLE)
