"""Who may get in: people, and the sweep that compares them with GitHub, built together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gpudev_hub.clock import Clock
from gpudev_hub.core.decisions.access_sweep import Pace, Rules
from gpudev_hub.core.events import Event
from gpudev_hub.core.model import Millis
from gpudev_hub.core.ports import Membership

from .people import People
from .questions import Questions
from .sweep import Sweep
from .view import View


@dataclass(frozen=True, slots=True)
class Github:
    """Access by GitHub, from the settings."""

    membership: Membership
    rules: Rules
    period: Millis
    """Between two sweeps."""
    contact: str = ""
    """Whom people without access should ask."""
    rate: Callable[[], tuple[int, int] | None] = lambda: None
    """Requests to GitHub left in this hour, and the limit; ``None``: unknown."""


class AccessControl:
    """``people`` always; ``sweep`` only if GitHub says who may get in."""

    def __init__(
        self, view: View, ask: Callable[[Event], Awaitable[object]], clock: Clock, github: Github | None
    ) -> None:
        pace = None if github is None else Pace(github.rules)
        self.sweep: Sweep | None = None
        if github is not None and pace is not None:
            self.sweep = Sweep(
                view=view,
                ask=ask,
                clock=clock,
                membership=github.membership,
                rules=github.rules,
                period=github.period,
                pace=pace,
            )
        self._questions = None if github is None else Questions(github.membership, clock.now, github.rate)
        self.people = People(
            view=view,
            ask=ask,
            now=clock.now,
            questions=self._questions,
            rules=None if github is None else github.rules,
            pace=pace,
            contact="" if github is None else github.contact,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.sweep is not None:
            self._task = asyncio.create_task(self.sweep.run(), name="sweep")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._questions is not None:
            await self._questions.stop()

    def problems(self) -> list[str]:
        """Return what an operator should know, without names; empty if all is well."""
        return [] if self.sweep is None else self.sweep.problems()
