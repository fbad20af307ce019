"""The time as the service has it: this machine's clock may be wrong by hours, in either direction.

Nothing is decided by the time of day here; it is for telling people how long something takes from now.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

TOLERATED = timedelta(seconds=2)
"""What is not worth a correction: the service tells whole seconds, and an answer is under way for a while."""
_ahead = timedelta(0)
"""By how much the service's clock is ahead of this machine's, as of the last answer."""


def now() -> datetime:
    """This moment, by the clock of the service that answered last; by this machine's before any answer."""
    return datetime.now(UTC) + _ahead


def learn(date: str | None) -> None:
    """Take note of the time in an answer's ``Date`` header."""
    from email.utils import parsedate_to_datetime  # ssh runs us at every connection, mostly without asking

    global _ahead
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return
    if told.tzinfo is None:
        return
    ahead = told - datetime.now(UTC)
    _ahead = ahead if abs(ahead) > TOLERATED else timedelta(0)
