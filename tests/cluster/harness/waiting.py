"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 90.0
"""Seconds that anything may take on a machine that is busy with other things."""


class TimedOutError(Exception):
    """What was waited for did not come."""


def wait_for(what: str, look: Callable[[], T | None], timeout: float = PATIENCE, pause: float = 0.05) -> T:
    """The first true answer of ``look``, asked every ``pause`` seconds; TimedOutError when none comes."""
    deadline = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise TimedOutError(f"not within {timeout:.0f} s: {what}")
        time.sleep(pause)
