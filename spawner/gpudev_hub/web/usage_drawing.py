"""Positions of all bars and labels in the chart of the usage page.

Horizontal values are percent of the width, so that the chart fits every screen. Vertical values are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from gpudev import wire

from .drawing import Tick

TOP = 22.0
"""Space for the number on the highest line."""
HEIGHT = 180.0
"""Height from the base to the highest line."""
FOOT = 24.0
"""Space for the dates below the base."""
PERIODS = {1: "day", 7: "week", 28: "4 weeks", 91: "13 weeks"}
"""Names of periods by their days. One pair of bars shows one period."""
MOST_BARS = 62
LABELS = 8
LINES = 4
GAP = 0.22
"""Share of a bar's space that stays empty."""
THIN = 0.15
"""Least width of a bar."""


@dataclass(frozen=True, slots=True)
class Column:
    """One pair of bars: held GPU-hours in front of reserved GPU-hours."""

    first: date
    last: date
    held: float
    reserved: float
    x: float
    width: float
    held_height: float
    reserved_height: float


@dataclass(frozen=True, slots=True)
class Line:
    """A horizontal line at a round number of GPU-hours."""

    y: float
    value: float


@dataclass(frozen=True, slots=True)
class Chart:
    """GPU-hours by time."""

    height: float
    base: float
    period: str
    """Length of a period in words."""
    columns: tuple[Column, ...]
    labels: tuple[Tick[date], ...]
    """Dates below the base."""
    lines: tuple[Line, ...]


def draw(days: wire.Usage) -> Chart:
    """Return the chart of an answer that is grouped by day."""
    first, last = date.fromisoformat(days.since), date.fromisoformat(days.until)
    rows = {date.fromisoformat(row.key): row for row in days.rows}
    length = (last - first).days + 1
    step = next((step for step in PERIODS if length <= step * MOST_BARS), -(-length // MOST_BARS))
    periods = [
        (first + timedelta(days=start), min(last, first + timedelta(days=start + step - 1)))
        for start in range(0, length, step)
    ]
    values = [_sum(rows, *period) for period in periods]
    tick = _round_step(max((max(pair) for pair in values), default=0.0) / LINES)
    top = tick * LINES
    room = 100.0 / len(periods)
    columns = tuple(
        Column(
            period[0],
            period[1],
            held,
            reserved,
            x=round(room * (number + GAP / 2), 3),
            width=round(max(room * (1 - GAP), THIN), 3),
            held_height=round(HEIGHT * held / top, 2),
            reserved_height=round(HEIGHT * reserved / top, 2),
        )
        for number, (period, (held, reserved)) in enumerate(zip(periods, values, strict=True))
    )
    every = -(-len(periods) // LABELS)
    return Chart(
        height=TOP + HEIGHT + FOOT,
        base=TOP + HEIGHT,
        period=PERIODS.get(step, f"{step} days"),
        columns=columns,
        labels=tuple(
            Tick(round(room * (number + 0.5), 3), periods[number][0], minor=number % (2 * every) != 0)
            for number in range(0, len(periods), every)
        ),
        lines=tuple(Line(TOP + HEIGHT * (1 - n / LINES), tick * n) for n in range(LINES + 1)),
    )


def _sum(rows: Mapping[date, wire.UsageRow], first: date, last: date) -> tuple[float, float]:
    within = [row for day, row in rows.items() if first <= day <= last]
    return sum((row.gpu_hours_held for row in within), 0.0), sum(
        (row.gpu_hours_reserved for row in within), 0.0
    )


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20 … that is not less."""
    step = 1.0
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10
