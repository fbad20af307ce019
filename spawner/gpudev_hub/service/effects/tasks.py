"""The tasks of effects: at most one for each effect under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from gpudev_hub.clock import Clock
from gpudev_hub.core.model import SECOND, Millis
from gpudev_hub.turns import cancel

FIRST_PAUSE: Final[Millis] = 250
LONGEST_PAUSE: Final[Millis] = 10 * SECOND

log = logging.getLogger(__name__)

Key = tuple[str, str, int]
"""(``start`` | ``stop``, reservation, attempt), (``share``, reservation, 0) or (``revoke``, subject, 0)."""
Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    work: Work
    news: asyncio.Event = field(default_factory=asyncio.Event)
    again: bool = False
    """Whether to run once more when it is done, because its result may be outdated."""


class EffectTasks:
    """Runs effects, with one task for each at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[Key, _Running] = {}

    def run(self, key: Key, work: Work) -> None:
        """Run it, unless it is running."""
        running = self._running.get(key)
        if running is not None and not running.task.done():
            return
        task = asyncio.create_task(work(), name="/".join(map(str, key)))
        self._running[key] = _Running(task, work)
        task.add_done_callback(lambda done: self._done(key, done))

    def run_again(self, key: Key, work: Work) -> None:
        """Run it; if it is running, let it look again now, and run it once more when it is done."""
        running = self._running.get(key)
        if running is None:
            self.run(key, work)
        else:
            running.again = True
            running.news.set()

    def poke(self, of: str) -> None:
        """Look again now: something about the reservation, or the person, has changed."""
        for (_, known, _), running in self._running.items():
            if known == of:
                running.news.set()

    async def wait(self, key: Key, pause: Millis) -> None:
        """Wait within an effect until it is poked, for at most ``pause``."""
        news = self._running[key].news
        news.clear()
        await self._clock.wait(news, self._clock.now() + pause)

    async def close(self) -> None:
        await cancel(running.task for running in self._running.values())

    def _done(self, key: Key, task: asyncio.Task[None]) -> None:
        running = self._running[key]
        if running.task is task:
            del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("effect %s failed", key, exc_info=error, extra={"reservation": key[1]})
        if running.task is task and running.again and not task.cancelled():
            self.run(key, running.work)
