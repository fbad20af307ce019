"""Instants on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from gpudev_hub.core.model import Millis


def rfc3339(at: Millis) -> str:
    """An instant as on the wire, to the millisecond where there are any."""
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.isoformat(timespec="milliseconds" if at % 1000 else "seconds").replace("+00:00", "Z")


def instant(at: Millis | None) -> str | None:
    """``rfc3339`` of an instant that may be missing."""
    return None if at is None else rfc3339(at)
