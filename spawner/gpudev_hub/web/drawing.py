"""The pool page's timeline: where every rectangle and label goes. Pure geometry.

Horizontal values are percent of the picture's width, so that one drawing fits every screen; vertical ones are
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gpudev import wire

WIDTH = 100.0
HEAD = 24.0
"""Room for the hours above the first node."""
NAME = 28.0
"""Room for a node's name above its lanes."""
LANE = 20.0
"""Height of one GPU."""
FOOT = 4.0
INSET = 3.0
"""Between the upper edge of a bar of several GPUs and its label."""
THIN = 0.3
"""Least width of a bar."""
PAST = 0.06
"""Share of the width that lies before now."""
LEAST = timedelta(hours=4)
MOST = timedelta(hours=48)
STEPS = tuple(timedelta(hours=hours) for hours in (0.5, 1, 2, 3, 6, 12))
TICKS = 9
"""Hours written above the picture, at most about so many."""


def parse(text: str) -> datetime:
    """An instant from the wire."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a bar: neighbouring GPUs of one node."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A stay, in as many boxes as its GPUs have groups of neighbours."""

    bar: wire.TimelineBar
    node: str
    boxes: tuple[Box, ...]
    label: Box
    """Room for its owner and name: in its tallest box, to the right of now."""
    later: bool
    """It goes on beyond the right edge."""

    @property
    def planned(self) -> bool:
        """It is a place in the queue: nothing is held yet."""
        return self.bar.state == "queued"


@dataclass(frozen=True, slots=True)
class Lanes:
    """One node."""

    node: wire.TimelineNode
    y: float
    height: float
    lines: tuple[float, ...]
    """Upper edges of its GPUs' lanes."""
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A vertical line at a full hour."""

    x: float
    at: str
    minor: bool
    """Left out where there is little room."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One pool."""

    height: float
    now_x: float
    ticks: tuple[Tick, ...]
    nodes: tuple[Lanes, ...]
    head: float = HEAD
    lane: float = LANE


def draw(pool: wire.TimelinePool, now_text: str) -> Drawing:
    """The picture of a pool at ``now_text``."""
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
        lines = tuple(y + LANE * gpu for gpu in range(node.gpus))
        height = LANE * node.gpus
        bars = []
        for bar, lanes in _lanes(node):
            left, right = x_of(parse(bar.start)), x_of(parse(bar.end))
            boxes = tuple(
                Box(left, y + LANE * first + 1, max(right - left, THIN), LANE * count - 2)
                for first, count in runs(lanes)
            )
            # The line of now must not run through a name.
            from_x = max(left, now_x) if right > now_x else left
            tallest = max(boxes, key=lambda box: box.height)
            edge = INSET if tallest.height > LANE else 0.0
            label = Box(from_x, tallest.y + edge, max(right - from_x, 0.0), tallest.height - edge)
            bars.append(Bar(bar, node.name, boxes, label, parse(bar.end) > start + span))
        nodes.append(Lanes(node, y, height, lines, tuple(bars)))
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
    """Which lanes each bar is drawn on: lanes stand for a number of GPUs, not for particular ones."""
    free_from = [datetime.min.replace(tzinfo=UTC)] * node.gpus
    placed = []
    # What is held comes first: it is there already, while a place may be a moment late.
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
    """The smallest group of neighbouring lanes that has room for ``count``."""
    groups = [(size, first) for first, size in runs(sorted(free)) if size >= count]
    if not groups:
        return None
    _, first = min(groups)
    return list(range(first, first + count))


def runs(lanes: list[int]) -> list[tuple[int, int]]:
    """Groups of neighbours as (first, how many)."""
    runs: list[tuple[int, int]] = []
    for lane in lanes:
        if runs and lane == runs[-1][0] + runs[-1][1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((lane, 1))
    return runs


def _hours(now: datetime, end: datetime, step: timedelta) -> list[datetime]:
    """Round times after ``now``, a step apart."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    at = midnight + step * ((now - midnight) // step + 1)
    found = []
    while at < end - step * 0.2:
        found.append(at)
        at += step
    # The first one would be written over "now".
    return [at for at in found if at - now > step * 0.35]
