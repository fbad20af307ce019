"""What the service counts and measures, as plain numbers; ``web/metrics.py`` shows them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gpudev_hub.core.commit import Change
from gpudev_hub.core.model import SECOND, Millis, Outcome, Reservation, State

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds, for requests and commits."""
STARTS: Final = (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds in seconds, for starts of servers."""
_HOUR: Final = 3600.0
WAITS: Final = (60.0, 600.0, *(hours * _HOUR for hours in (0.5, 1, 2, 4, 8, 12, 24, 48, 96)))
"""Upper bounds in seconds, for waits in the queue."""


class Histogram:
    """How often a duration fell between two bounds."""

    def __init__(self, bounds: Sequence[float] = BUCKETS) -> None:
        self.bounds = bounds
        """Upper bounds in seconds."""
        self.counts = [0] * (len(bounds) + 1)
        """One count per bound, and one for everything above the last."""
        self.seconds = 0.0

    def saw(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)


class Metrics:
    """Counts since the service started."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        """Events decided, by type."""
        self.refused: Counter[str] = Counter()
        """Requests refused, by code."""
        self.effects: Counter[tuple[str, str]] = Counter()
        """Calls to the Hub and the cluster, by effect and result."""
        self.commits = Histogram()
        """Time the store took for a commit."""
        self.answers = Histogram()
        """From an event's arrival to its commit."""
        self.rebuilds = 0
        """How often the working state was discarded and read again."""
        self.reconciled = 0
        """Full passes over nodes and servers."""
        self.orphans = 0
        """Servers removed that belonged to no live claim."""
        self.moves: Counter[tuple[str, State | None, State]] = Counter()
        """Changes of a reservation's state, by pool, state before (``None``: a new request) and after."""
        self.ended: Counter[tuple[str, Outcome]] = Counter()
        """Reservations ended, by pool and outcome."""
        self.waits: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(WAITS))
        """From a request to its first start, by pool."""
        self.starts: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(STARTS))
        """From the first attempt of a start to a server that is ready, by pool."""

    def follow(self, changes: Iterable[Change], known: Mapping[str, Reservation], at: Millis) -> None:
        """Count what a commit made at ``at`` changes; ``known``: the reservations before it."""
        before = dict[str, Reservation]()
        for change in changes:
            if isinstance(change.record, Reservation):
                after = change.record
                self._moved(before.get(after.id) or known.get(after.id), after, at)
                before[after.id] = after

    def _moved(self, before: Reservation | None, after: Reservation, at: Millis) -> None:
        was = None if before is None else before.state
        if was is after.state:
            return
        pool = after.request.pool
        self.moves[pool, was, after.state] += 1
        if after.state is State.STARTING and (before is None or before.attempt == 0):
            self.waits[pool].saw((at - after.created_at) / SECOND)
        first = before is None or before.ready_at is None
        if first and after.ready_at is not None and after.admitted_at is not None:
            self.starts[pool].saw((after.ready_at - after.admitted_at) / SECOND)
        if after.state is State.ENDED and after.outcome is not None:
            self.ended[pool, after.outcome] += 1
