"""Usage over time."""

from __future__ import annotations

from typing import Literal

import msgspec

UsageBy = Literal["day", "person", "team", "pool", "size"]
UsageOwner = Literal["me", "all"]


class UsageRow(msgspec.Struct, kw_only=True):
    """The usage of one group."""

    key: str
    """The day (UTC), the subject of the person, the team, the pool, or the number of GPUs."""
    label: str
    """The group for people to read."""
    requests: int
    gpu_hours_reserved: float
    """What was asked for, and what extensions added."""
    gpu_hours_held: float
    """From the start until the GPUs were free again."""
    waits: int
    """How often a request waited in the queue until its start."""
    wait_hours: float
    """All these waits together."""
    longest_wait_hours: float
    starts: int
    """How often a server became ready."""
    early_releases: int
    gpu_hours_given_back: float
    """From early releases to the planned ends."""
    outcomes: dict[str, int]
    """How many reservations ended with each outcome."""


class Usage(msgspec.Struct, kw_only=True):
    """``GET usage``: sums over UTC days; running reservations count until ``now``."""

    by: UsageBy
    since: str
    """First day, ``2026-11-01``."""
    until: str
    """Last day, included."""
    owner: UsageOwner
    now: str
    complete: bool
    """False while the service still reads its history after a start: the sums are too low."""
    rows: list[UsageRow]
    """Groups without usage are left out. A person of several teams counts in each of them."""
    total: UsageRow
