"""Lifetimes of tokens from logins, with all their renewals."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

LONGEST: Final = timedelta(days=90)
"""Longest time from the day of a confirmed login to the end of its last token."""
LEAST: Final = timedelta(days=1)
"""A successor must be valid for at least this much longer than its predecessor."""

_SINCE: Final = re.compile(r"\), since (\d{4}-\d\d-\d\d)\Z", re.ASCII)


def note_of(start: str, device: str, method: str, now: datetime) -> str:
    """Return the note of a token from a login. The day is last, so that no name of a device can forge it."""
    return f"{start} on {device} ({method}), since {now.astimezone(UTC):%Y-%m-%d}"


def successor_of(
    note: str, created_at: datetime, expires_at: datetime, now: datetime, life: timedelta
) -> tuple[str, timedelta] | None:
    """Return note and lifetime of a token's successor, ``None`` if it would not be valid for longer.

    ``life``: longest lifetime of a successor. Without a day in the note, or with a day after the token was
    made, the day of the login is the day when the token was made.
    """
    start = _start(note, created_at)
    if _day(note) is None:
        note = f"{note}, since {start:%Y-%m-%d}"
    left = min(life, start + LONGEST - now)
    return (note, left) if now + left >= expires_at + LEAST else None


def is_last(note: str, created_at: datetime, expires_at: datetime) -> bool:
    """Return whether a token never has a successor, because none could be valid for longer."""
    return _start(note, created_at) + LONGEST < expires_at + LEAST


def _start(note: str, created_at: datetime) -> datetime:
    """Return the day of the login that gave the token."""
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
