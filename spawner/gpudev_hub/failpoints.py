"""Places where a test can kill the process: between any two steps that must survive it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

Failpoint = Callable[[str], None]
"""A function that is called with the name of each place that the process passes."""

BEFORE_COMMIT = "before-commit"
AFTER_COMMIT = "after-commit"
BEFORE_ANSWER = "before-answer"
BEFORE_EFFECT = "before-effect"
PLACES = (BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER, BEFORE_EFFECT)


def nothing(place: str) -> None:
    """Do nothing. This is the failpoint in production."""


def from_environment(environment: Mapping[str, str]) -> Failpoint:
    """Return the failpoint that ``GPUDEV_FAILPOINT`` and ``GPUDEV_FAILPOINT_AT`` ask for.

    The process ends at once, as after ``kill -9``, when it passes that place for the n-th time (default 1).
    Without these variables, the result is ``nothing``. Raises ``ValueError`` for an unknown place.
    """
    wanted = environment.get("GPUDEV_FAILPOINT")
    if not wanted:
        return nothing
    if wanted not in PLACES:
        raise ValueError(f"GPUDEV_FAILPOINT is {wanted!r}; it must be one of {', '.join(PLACES)}")
    left = int(environment.get("GPUDEV_FAILPOINT_AT", "1"))
    guard = threading.Lock()

    def fail(place: str) -> None:
        nonlocal left
        if place != wanted:
            return
        with guard:
            left -= 1
            if left == 0:
                os._exit(137)

    return fail
