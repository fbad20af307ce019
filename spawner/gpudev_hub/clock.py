"""The clock: the one place that reads the time.

Time inside is wall time as read at the start plus the monotonic clock since, so that it never jumps nor runs
backwards while a service lives, whatever is done to the machine's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from .core.model import MINUTE, SECOND, Millis

MAX_BEHIND: Final[Millis] = 10 * MINUTE
"""A clock further behind the last commit than this is wrong: starting on it would undo promises."""


class ClockBehind(Exception):
    """The machine's clock is too far behind what was committed already."""


class Clock:
    """Milliseconds since the epoch, never backwards."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """``wall`` and ``monotonic`` give seconds; for its own time, this clock reads ``wall`` once."""
        self._wall = wall
        self._monotonic = monotonic
        self._base = wall() - monotonic()

    def now(self) -> Millis:
        """This instant."""
        return round((self._base + self._monotonic()) * SECOND)

    def on_machine(self, at: Millis) -> Millis:
        """Return what the machine's clock shows at the instant ``at`` of this clock.

        They differ once the machine was suspended, or its clock was set, while this process ran.
        """
        return at + round(self._wall() * SECOND) - self.now()

    def precise(self) -> float:
        """Seconds on a scale of its own, for measuring how long something takes."""
        return self._monotonic()

    def start_after(self, last_commit: Millis) -> Millis:
        """Go on no earlier than the last commit; the number of milliseconds that this put the clock forward.

        Raises ``ClockBehind`` where that would be more than ``MAX_BEHIND``.
        """
        behind = self.behind(last_commit)
        self._base += behind / SECOND
        return behind

    def behind(self, last_commit: Millis) -> Millis:
        """How far this clock is behind the last commit; 0 if it is not.

        Raises ``ClockBehind`` where that is more than ``MAX_BEHIND``.
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
        try:
            async with asyncio.timeout(max(0, until - self.now()) / SECOND):
                await event.wait()
        except TimeoutError:
            pass
