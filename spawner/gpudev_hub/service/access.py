"""Who may get in: people, and the sweep that compares them with GitHub, built together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gpudev_hub.clock import Clock
from gpudev_hub.core.decisions.access_sweep import Pace
from gpudev_hub.core.events import Event
from gpudev_hub.turns import cancel

from .people import People
from .questions import Github
from .sweep import Sweep
from .view import View


class AccessControl:
    """``people`` always; ``sweep`` only if GitHub says who may get in."""

    def __init__(
        self, view: View, ask: Callable[[Event], Awaitable[object]], clock: Clock, github: Github | None
    ) -> None:
        self.sweep: Sweep | None = None
        pace: Pace | None = None
        if github is not None:
            pace = Pace(github.rules)
            self.sweep = Sweep(view, ask, clock, github, pace)
        self.people = People(view, ask, clock.now, github, pace)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.sweep is not None:
            self._task = asyncio.create_task(self.sweep.run(), name="sweep")

    async def stop(self) -> None:
        if self._task is not None:
            await cancel([self._task])
        if self.people.questions is not None:
            await self.people.questions.stop()

    def problems(self) -> list[str]:
        """Return what an operator should know, without names; empty if all is well."""
        return [] if self.sweep is None else self.sweep.problems()
