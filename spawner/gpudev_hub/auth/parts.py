"""Everything that the service needs for access by GitHub, made from its settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from gpudev_hub.core.model import Millis
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.ssh.access import LiveState, entrants

from .check import NOT_CHECKED, Check, check_github
from .github import GithubClient
from .keys import GithubKeys, keep_fresh
from .membership import GithubMembership

log = logging.getLogger(__name__)


class GithubParts:
    """One client, and what asks through it."""

    def __init__(self, settings: GithubSettings, *, now: Callable[[], Millis], folder: Path) -> None:
        """``folder``: private; keeps the last good SSH keys."""
        self.settings = settings
        self.client = GithubClient(settings, now=now)
        self.membership = GithubMembership(self.client)
        self.keys = GithubKeys(self.client, folder / "github-keys.json", now=now)
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def start(self, people: Callable[[], Iterable[str]]) -> None:
        """Log the faults of the set-up, and keep the SSH keys of ``people`` (subjects) up to date."""
        self._tasks = (
            asyncio.create_task(self._say_faults()),
            asyncio.create_task(keep_fresh(self.keys, people, self.settings.sweep)),
        )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.client.close()

    async def check(self) -> list[Check]:
        return await check_github(self.client)

    async def _say_faults(self) -> None:
        """Log each fault, so that an operator sees why nobody new gets in."""
        for check in await self.check():
            if not check.ok and check.found != NOT_CHECKED:
                log.error("GitHub: %s: %s. %s", check.name, check.found.rstrip("."), check.todo)


def people_of(state: LiveState) -> set[str]:
    """Return the subjects who may enter a live server: owners, and those who share it."""
    return {person.subject for record in state.reservations.values() for person in entrants(record)}
