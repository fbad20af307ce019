"""The weeks and months in which GPU-hours are counted: ISO weeks and calendar months, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from gpudev_hub.core.model import HOUR, SECOND, Millis

_DAY: Millis = 24 * HOUR
_WEEK: Millis = 7 * _DAY
_MONDAY: Millis = -3 * _DAY
"""A Monday: 1970-01-01 was a Thursday."""


class Period(StrEnum):
    """How often a budget renews. UTC has no daylight saving, so every day has 24 hours."""

    WEEK = "week"
    MONTH = "month"

    def start(self, at: Millis) -> Millis:
        """Return when the period that contains the instant began."""
        if self is Period.WEEK:
            return at - (at - _MONDAY) % _WEEK
        month = datetime.fromtimestamp(at // SECOND, UTC).replace(day=1, hour=0, minute=0, second=0)
        return round(month.timestamp()) * SECOND

    def end(self, at: Millis) -> Millis:
        """Return when the period that contains the instant ends and the next one begins."""
        start = self.start(at)
        return start + _WEEK if self is Period.WEEK else self.start(start + 31 * _DAY)


def overlap(start: Millis, end: Millis, first: Millis, last: Millis) -> Millis:
    """Return how much of [start, end) lies within [first, last)."""
    return max(0, min(end, last) - max(start, first))
