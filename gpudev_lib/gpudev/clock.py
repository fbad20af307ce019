"""The time by the clock of the service, because the clock of this machine may be wrong by hours.

It is used only to show people times relative to now, never for decisions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

TOLERATED = timedelta(seconds=2)
"""Differences up to this are ignored: the service sends whole seconds, and answers take time to arrive."""
_ahead = timedelta(0)
"""How far the clock of the service is ahead of this machine's clock, from the last answer."""


def now() -> datetime:
    """Return the current time of the service that answered last; before any answer, of this machine."""
    return datetime.now(UTC) + _ahead


def learn(date: str | None) -> None:
    """Learn the time of the service from the ``Date`` header of an answer."""
    from email.utils import parsedate_to_datetime  # slow import; ssh runs this program at each connection

    global _ahead
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return
    if told.tzinfo is None:
        return
    ahead = told - datetime.now(UTC)
    _ahead = ahead if abs(ahead) > TOLERATED else timedelta(0)
