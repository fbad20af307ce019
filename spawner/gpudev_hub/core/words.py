"""Times, durations and lists in words, as people read them. Times are UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from .model import HOUR, MINUTE, SECOND, Millis, Shape


def listing(words: Sequence[str], last: str) -> str:
    """`1, 2, 4 or 8`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def printable(text: str) -> str:
    """One line without anything that a terminal obeys or that turns the direction of writing."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def duration(length: Millis) -> str:
    """`1 h 30 min`; seconds only below one hour. Rounded down."""
    if length < SECOND:
        return f"{length} ms"
    hours, rest = divmod(length, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    seconds = 0 if hours else rest // SECOND
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def moment(at: Millis, now: Millis) -> str:
    """`14:10`, or with the day when that is not today: `24 Nov 14:10`. UTC."""
    when, today = (datetime.fromtimestamp(t // SECOND, UTC) for t in (at, now))
    clock = f"{when:%H:%M}"
    if when.date() == today.date():
        return clock
    day = f"{when.day} {when:%b}"
    return f"{day} {clock}" if when.year == today.year else f"{day} {when.year} {clock}"


def gpus(count: int) -> str:
    """`1 GPU`, `8 GPUs`."""
    return "1 GPU" if count == 1 else f"{count} GPUs"


def size(shape: Shape) -> str:
    """`4 GPUs`, or `2 whole nodes`."""
    return gpus(shape.gpus) if shape.nodes == 1 else f"{shape.nodes} whole nodes"
