"""Positions of all rectangles and labels in the timeline of the pool page.

Horizontal values are percent of the width, so that the drawing fits every screen. Vertical values are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from gpudev import wire

WIDTH = 100.0
HEAD = 24.0
"""Space for the hours above the first node."""
NAME = 28.0
"""Space for a node's name above its lanes."""
LANE = 20.0
"""Height of one GPU."""
FOOT = 4.0
INSET = 3.0
"""Between the upper edge of a bar of several GPUs and its label."""
THIN = 0.3
"""Least width of a bar."""
PAST = 0.06
"""Share of the width for the time before now."""
LEAST = timedelta(hours=4)
MOST = timedelta(hours=48)
STEPS = tuple(timedelta(hours=hours) for hours in (0.5, 1, 2, 3, 6, 12))
TICKS = 9
"""Approximate maximum of hours shown above the drawing."""

T = TypeVar("T")


def parse(text: str) -> datetime:
    """Return an instant of the API."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a bar: adjacent lanes of one node."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A reservation on one node: one box for each group of adjacent lanes."""

    bar: wire.TimelineBar
    node: str
    boxes: tuple[Box, ...]
    label: Box
    """Space for owner and name: in the tallest box, to the right of now."""

    @property
    def planned(self) -> bool:
        """Whether it is planned: the request waits in the queue and holds no GPUs."""
        return self.bar.state == "queued"


@dataclass(frozen=True, slots=True)
class Lanes:
    """One node."""

    node: wire.TimelineNode
    y: float
    height: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick(Generic[T]):
    """A time or day on the horizontal axis."""

    x: float
    at: T
    minor: bool
    """Whether its label is hidden on narrow screens."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One pool."""

    height: float
    now_x: float
    ticks: tuple[Tick[str], ...]
    """Vertical lines at full hours."""
    nodes: tuple[Lanes, ...]
    head: float = HEAD
    lane: float = LANE


def draw(pool: wire.TimelinePool, now_text: str) -> Drawing:
    """Return the drawing of a pool at the time ``now_text``."""
    now = parse(now_text)
    ends = [parse(bar.end) for node in pool.nodes for bar in node.bars]
    ahead = min(max(max(ends, default=now) - now, LEAST), MOST)
    span = ahead / (1 - PAST)
    start = now - span * PAST

    def x_of(at: datetime) -> float:
        share = (at - start) / span
        return round(min(max(share, 0.0), 1.0) * WIDTH, 2)

    y = HEAD
    now_x = x_of(now)
    nodes = []
    for node in pool.nodes:
        y += NAME
        height = LANE * node.gpus
        bars = []
        for bar, lanes in _lanes(node):
            left, right = x_of(parse(bar.start)), x_of(parse(bar.end))
            boxes = tuple(
                Box(left, y + LANE * first + 1, max(right - left, THIN), LANE * count - 2)
                for first, count in runs(lanes)
            )
            # The line for now must not cross a label.
            from_x = max(left, now_x) if right > now_x else left
            tallest = max(boxes, key=lambda box: box.height)
            edge = INSET if tallest.height > LANE else 0.0
            label = Box(from_x, tallest.y + edge, max(right - from_x, 0.0), tallest.height - edge)
            bars.append(Bar(bar, node.name, boxes, label))
        nodes.append(Lanes(node, y, height, tuple(bars)))
        y += height
    step = next((step for step in STEPS if ahead / step <= TICKS), STEPS[-1])
    return Drawing(
        height=y + FOOT,
        now_x=now_x,
        ticks=tuple(
            Tick(x_of(at), at.isoformat().replace("+00:00", "Z"), number % 2 == 0)
            for number, at in enumerate(_hours(now, start + span, step))
        ),
        nodes=tuple(nodes),
    )


def _lanes(node: wire.TimelineNode) -> list[tuple[wire.TimelineBar, list[int]]]:
    """Return the lanes of each bar. Lanes show how many GPUs are held, not which."""
    free_from = [datetime.min.replace(tzinfo=UTC)] * node.gpus
    placed = []
    # Held GPUs come first, because a planned start may be slightly in the past.
    for bar in sorted(node.bars, key=lambda bar: (bar.state == "queued", bar.start, -bar.gpus, bar.id)):
        start = parse(bar.start)
        free = [lane for lane in range(node.gpus) if free_from[lane] <= start]
        if len(free) < bar.gpus:
            free += sorted(set(range(node.gpus)) - set(free), key=lambda lane: free_from[lane])
        lanes = sorted(_neighbours(free, bar.gpus) or free[: bar.gpus])
        for lane in lanes:
            free_from[lane] = max(free_from[lane], parse(bar.end))
        placed.append((bar, lanes))
    return placed


def _neighbours(free: list[int], count: int) -> list[int] | None:
    """Return ``count`` lanes of the smallest group of adjacent lanes that is large enough."""
    groups = [(size, first) for first, size in runs(sorted(free)) if size >= count]
    if not groups:
        return None
    _, first = min(groups)
    return list(range(first, first + count))


def runs(lanes: list[int]) -> list[tuple[int, int]]:
    """Return groups of consecutive numbers as (first, count)."""
    runs: list[tuple[int, int]] = []
    for lane in lanes:
        if runs and lane == runs[-1][0] + runs[-1][1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((lane, 1))
    return runs


def _hours(now: datetime, end: datetime, step: timedelta) -> list[datetime]:
    """Return multiples of ``step`` since midnight, after ``now``."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + step * ((now - midnight) // step + 1)
    found = []
    while at < end - step * 0.2:
        found.append(at)
        at += step
    # A tick near now would overlap the word "now".
    return [at for at in found if at - now > step * 0.35]
