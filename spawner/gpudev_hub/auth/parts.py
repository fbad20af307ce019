"""Everything that a service needs of GitHub, put together from its settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpudev_hub.core.model import Millis
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.ssh.access import LiveState

from .check import NOT_CHECKED, Check, check_github
from .github import GithubClient
from .keys import GithubKeys, keep_fresh
from .membership import GithubMembership

log = logging.getLogger(__name__)


@dataclass(slots=True)
class GithubParts:
    """One client, and what asks through it."""

    settings: GithubSettings
    client: GithubClient
    membership: GithubMembership
    keys: GithubKeys
    _tasks: tuple[asyncio.Task[None], ...] = ()

    @classmethod
    def read(
        cls, environment: Mapping[str, str], *, now: Callable[[], Millis], folder: Path
    ) -> GithubParts | None:
        """The parts as ``GPUDEV_GITHUB`` says; ``None`` without it. Raises ``SettingsError``.

        ``folder``: private; keeps the last good SSH keys.
        """
        settings = GithubSettings.read(environment)
        return None if settings is None else cls.of(settings, now=now, folder=folder)

    @classmethod
    def of(cls, settings: GithubSettings, *, now: Callable[[], Millis], folder: Path) -> GithubParts:
        """The parts for these settings; ``folder`` as in ``read``."""
        client = GithubClient(settings, now=now)
        keys = GithubKeys(client, folder / "github-keys.json", now=now)
        return cls(settings, client, GithubMembership(client), keys)

    def start(self, people: Callable[[], Iterable[str]]) -> None:
        """Say what is wrong with the set-up, and keep the SSH keys of ``people`` (subjects) fresh."""
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
        """One message for each: the service runs on, and an operator reads why nobody new gets in."""
        for check in await self.check():
            if not check.ok and check.found != NOT_CHECKED:
                log.error("GitHub: %s: %s. %s", check.name, check.found.rstrip("."), check.todo)


def people_of(state: LiveState) -> set[str]:
    """Return the subjects who may enter a live server: owners, and those who share it."""
    found = set()
    for record in state.reservations.values():
        found |= {record.owner.subject, *(guest.subject for guest in record.guests)}
    return found
