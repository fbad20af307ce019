"""The clock: the only place that reads the time.

The time is the wall time at the start plus the monotonic time since then. So it never jumps or goes back
while a service runs, even if someone sets the machine's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .core.model import MINUTE, SECOND, Millis

MAX_BEHIND: Final[Millis] = 10 * MINUTE
"""Milliseconds. A clock further behind the last commit is wrong: with it, guaranteed starts would move."""


class ClockBehind(Exception):
    """The machine's clock is too far behind the last commit."""


class Clock:
    """Milliseconds since the epoch (1970), never backwards."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Read ``wall`` once and then count with ``monotonic``. Both return seconds."""
        self._wall = wall
        self._monotonic = monotonic
        self._base = wall() - monotonic()

    def now(self) -> Millis:
        return round((self._base + self._monotonic()) * SECOND)

    def on_machine(self, at: Millis) -> Millis:
        """Return the time of the machine's clock at the instant ``at`` of this clock.

        The two clocks differ if the machine was suspended, or its clock was set, while this process ran.
        """
        return at + round(self._wall() * SECOND) - self.now()

    def precise(self) -> float:
        """Return seconds on a scale of its own, for measuring durations."""
        return self._monotonic()

    def start_after(self, last_commit: Millis) -> Millis:
        """Move this clock forward to the last commit if it is behind; return by how many milliseconds.

        Raises ``ClockBehind`` if that is more than ``MAX_BEHIND``.
        """
        behind = self.behind(last_commit)
        self._base += behind / SECOND
        return behind

    def behind(self, last_commit: Millis) -> Millis:
        """Return by how many milliseconds this clock is behind the last commit, at least 0.

        Raises ``ClockBehind`` if that is more than ``MAX_BEHIND``.
        """
        behind = max(0, last_commit - self.now())
        if behind > MAX_BEHIND:
            raise ClockBehind(
                f"this machine's clock is {behind // SECOND} s behind the last commit; "
                f"the limit is {MAX_BEHIND // SECOND} s: set the clock, then start again"
            )
        return behind

    async def wait(self, event: asyncio.Event, until: Millis | None) -> None:
        """Wait until ``event`` is set or the time is ``until``. A timer may be a millisecond early."""
        if event.is_set():
            return
        if until is None:
            await event.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, until - self.now()) / SECOND):
                await event.wait()
