"""Formats instants for the API."""

from __future__ import annotations

from datetime import UTC, datetime

from gpudev_hub.core.model import Millis


def rfc3339(at: Millis) -> str:
    """Return an instant in RFC 3339 format (UTC), with milliseconds only if they are not zero."""
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if at % 1000 else "seconds").replace("+00:00", "Z")


def instant(at: Millis | None) -> str | None:
    """Return an instant in RFC 3339 format; ``None`` stays ``None``."""
    return None if at is None else rfc3339(at)
