"""Health, metrics and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused

from .metrics import ServiceCollector
from .people import problems
from .routes import Access, Call, Text, route


class Health(msgspec.Struct):
    """``GET health/live``."""

    ok: bool


class Readiness(msgspec.Struct):
    """``GET health/ready``."""

    ok: bool
    warnings: list[str] = []
    """Problems for operators while everything works, such as access that GitHub has not confirmed."""


@route("GET", f"{wire.API}/openapi.json", access=Access.ANYBODY)
async def openapi(call: Call) -> dict[str, Any]:
    """Return this document."""
    return call.site.document


@route("GET", "health/live", Code.UNAVAILABLE, access=Access.ANYBODY)
async def live(call: Call) -> Health:
    """Report whether the service runs. 503 means that it has stopped, and the process must be restarted."""
    health = call.site.service.health()
    if not health.live:
        raise Refused(Code.UNAVAILABLE, "; ".join(health.reasons), "Restart the service.")
    return Health(ok=True)


@route("GET", "health/ready", Code.UNAVAILABLE, access=Access.ANYBODY)
async def ready(call: Call) -> Readiness:
    """Report whether database, Hub, cluster and service all work; 503 with the reasons if not."""
    reasons = call.site.service.health().reasons
    if reasons:
        raise Refused(Code.UNAVAILABLE, "; ".join(reasons), "The service retries automatically.")
    return Readiness(ok=True, warnings=problems(call.site.service))


@route("GET", "metrics", access=Access.MONITOR)
async def metrics(call: Call) -> Text:
    """Return the metrics in the Prometheus text format."""
    found = ServiceCollector(call.site.metrics, call.site.service, call.site.bastion)
    # Without a registry: the default one also has metrics of JupyterHub and of the process.
    return Text(generate_latest(found).decode(), CONTENT_TYPE_PLAIN_0_0_4)
