"""The clock: the only place that reads the time.

Time is wall time as read at the start plus the monotonic clock since then. So it never jumps nor goes back
while a service runs, even if the machine's clock is set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .core.model import MINUTE, SECOND, Millis

MAX_BEHIND: Final[Millis] = 10 * MINUTE
"""A clock further behind the last commit than this is wrong: starting with it would break promises."""


class ClockBehind(Exception):
    """The machine's clock is too far behind the last commit."""


class Clock:
    """Milliseconds since the epoch (1970), never backwards."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """``wall`` and ``monotonic`` return seconds; ``wall`` is read only once for this clock's own time."""
        self._wall = wall
        self._monotonic = monotonic
        self._base = wall() - monotonic()

    def now(self) -> Millis:
        return round((self._base + self._monotonic()) * SECOND)

    def on_machine(self, at: Millis) -> Millis:
        """Return what the machine's clock shows at the instant ``at`` of this clock.

        They differ if the machine was suspended, or its clock was set, while this process ran.
        """
        return at + round(self._wall() * SECOND) - self.now()

    def precise(self) -> float:
        """Return seconds on a scale of its own, for measuring durations."""
        return self._monotonic()

    def start_after(self, last_commit: Millis) -> Millis:
        """Continue no earlier than the last commit; return how many milliseconds this clock was put forward.

        Raises ``ClockBehind`` if that is more than ``MAX_BEHIND``.
        """
        behind = self.behind(last_commit)
        self._base += behind / SECOND
        return behind

    def behind(self, last_commit: Millis) -> Millis:
        """Return how far this clock is behind the last commit; 0 if it is not.

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
        """Return when ``event`` is set, or at the instant ``until`` (a timer may be a millisecond early)."""
        if event.is_set():
            return
        if until is None:
            await event.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, until - self.now()) / SECOND):
                await event.wait()
