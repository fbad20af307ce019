"""Waits for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 90.0
"""Seconds that a step may take on a busy machine."""


class TimedOutError(Exception):
    """The condition was not met in time."""


def wait_for(what: str, look: Callable[[], T | None], timeout: float = PATIENCE, pause: float = 0.05) -> T:
    """Call ``look`` every ``pause`` seconds; return its first true answer, or raise ``TimedOutError``."""
    deadline = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise TimedOutError(f"not within {timeout:.0f} s: {what}")
        time.sleep(pause)
