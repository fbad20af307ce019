"""Health, metrics and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused

from .metrics import exposition
from .routes import Access, Call, Route, Text


class Health(msgspec.Struct):
    """``GET health/live`` and ``health/ready``."""

    ok: bool


async def live(call: Call) -> Health:
    """The service goes on; 503 once it has ended for good, and the process should be started again."""
    health = call.site.service.health()
    if not health.live:
        raise Refused(Code.UNAVAILABLE, "; ".join(health.reasons), "start the service again")
    return Health(ok=True)


async def ready(call: Call) -> Health:
    """Store, Hub, cluster and loop all work; 503 with reasons otherwise."""
    reasons = call.site.service.health().reasons
    if reasons:
        raise Refused(Code.UNAVAILABLE, "; ".join(reasons), "the service works on it by itself")
    return Health(ok=True)


async def metrics(call: Call) -> Text:
    """Metrics in Prometheus' text format."""
    service = call.site.service
    text = exposition(call.site.metrics, service.metrics, service.view, service.policy)
    return Text(text, "text/plain; version=0.0.4; charset=utf-8")


async def openapi(call: Call) -> dict[str, Any]:
    """This document."""
    return call.site.document


SYSTEM_ROUTES = [
    Route(
        "GET",
        f"{wire.API}/openapi.json",
        openapi,
        Access.ANYBODY,
        answers=dict[str, Any],
    ),
    Route("GET", "health/live", live, Access.ANYBODY, answers=Health, codes=(Code.UNAVAILABLE,)),
    Route(
        "GET",
        "health/ready",
        ready,
        Access.ANYBODY,
        answers=Health,
        codes=(Code.UNAVAILABLE,),
    ),
    Route(
        "GET",
        "metrics",
        metrics,
        Access.MONITOR,
        answers=Text,
    ),
]
