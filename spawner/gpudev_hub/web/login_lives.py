"""How long tokens of command lines are valid, over all renewals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

LONGEST: Final = timedelta(days=90)
"""From the day of the login, which a person confirmed, to the end of its last token."""
LEAST: Final = timedelta(days=1)
"""A successor that is valid for less than this longer than its predecessor is not made."""

_SINCE: Final = re.compile(r"\), since (\d{4}-\d\d-\d\d)\Z", re.ASCII)


def note_of(start: str, device: str, method: str, now: datetime) -> str:
    """Return the note of a new login's token. The day comes last, so no name of a device can forge it."""
    return f"{start} on {device} ({method}), since {now.astimezone(UTC):%Y-%m-%d}"


def successor_of(
    note: str, created_at: datetime, expires_at: datetime, now: datetime, life: timedelta
) -> tuple[str, timedelta] | None:
    """Return note and life of a token's successor; ``None``: it would gain nothing.

    ``life``: of a successor, at most. A token whose note has no day counts from the day it was made, and so
    does one whose note has a later day.
    """
    start = _start(note, created_at)
    if _day(note) is None:
        note = f"{note}, since {start:%Y-%m-%d}"
    left = min(life, start + LONGEST - now)
    return (note, left) if now + left >= expires_at + LEAST else None


def is_last(note: str, created_at: datetime, expires_at: datetime) -> bool:
    """Return whether a token never has a successor: it is valid for as long as any could be."""
    return _start(note, created_at) + LONGEST < expires_at + LEAST


def _start(note: str, created_at: datetime) -> datetime:
    """Return the day of the login that a token comes from."""
    made = created_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return min(made, _day(note) or made)


def _day(note: str) -> datetime | None:
    found = _SINCE.search(note)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError:
        return None
