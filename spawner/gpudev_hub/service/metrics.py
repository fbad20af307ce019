"""What the service counts and measures, as plain numbers; the web layer shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds."""


class Histogram:
    """How often a duration fell between two bounds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        """One count per bound of ``BUCKETS``, and one for what is beyond the last."""
        self.seconds = 0.0

    def saw(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.counts)


class Metrics:
    """Since the service started."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        """Events decided, by type."""
        self.refused: Counter[str] = Counter()
        """Requests refused, by code."""
        self.effects: Counter[tuple[str, str]] = Counter()
        """Calls made to Hub and cluster, by effect and result."""
        self.commits = Histogram()
        """Time the store took for a commit."""
        self.answers = Histogram()
        """From an event's arrival to its commit."""
        self.rebuilds = 0
        """How often the working state was thrown away and read again."""
        self.reconciled = 0
        """Full passes over nodes and servers."""
        self.orphans = 0
        """Servers removed that belonged to no live claim."""
