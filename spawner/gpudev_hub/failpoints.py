"""Places where a test can kill the process: between any two steps that must survive it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

Failpoint = Callable[[str], None]
"""Called with the name of the place that is being passed."""

BEFORE_COMMIT = "before-commit"
AFTER_COMMIT = "after-commit"
BEFORE_ANSWER = "before-answer"
BEFORE_EFFECT = "before-effect"
PLACES = (BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER, BEFORE_EFFECT)


def nothing(place: str) -> None:
    """What production passes by."""


def from_environment(environment: Mapping[str, str]) -> Failpoint:
    """The failpoint that ``GPUDEV_FAILPOINT`` (a place) and ``GPUDEV_FAILPOINT_AT`` (the how-manieth passing,
    1 if not given) ask for: the process ends there at once, as after ``kill -9``. ``nothing`` where unset."""
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
