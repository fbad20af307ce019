"""Tokens of people who lost access: the Hub deletes them, and those that it was creating meanwhile."""

from __future__ import annotations

from typing import Final

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.model import SECOND, Millis
from gpudev_hub.service.context import Context

from .hub import HubCalls
from .tasks import FIRST_PAUSE, LONGEST_PAUSE, EffectTasks

MINTED_LATE: Final[Millis] = 30 * SECOND
"""Tokens are deleted again after this time, in case the Hub was creating some."""


class Revocations:
    """The task for each person whose tokens must be deleted."""

    def __init__(self, context: Context, hub: HubCalls, tasks: EffectTasks) -> None:
        self._view = context.view
        self._remembered = context.remembered
        self._hub = hub
        self._tasks = tasks

    def revoke(self, subject: str) -> None:
        """Ask the Hub to delete the tokens of a person without access, until it has."""
        self._tasks.run_again(("revoke", subject, 0), lambda: self._revoke(subject))

    async def _revoke(self, subject: str) -> None:
        await self._delete_tokens(subject)
        await self._tasks.wait(("revoke", subject, 0), MINTED_LATE)
        await self._delete_tokens(subject)

    async def _delete_tokens(self, subject: str) -> None:
        pause = FIRST_PAUSE
        async with self._hub.unhurried:
            while (person := self._view.people.get(subject)) is not None and person.access is Access.REVOKED:
                mine = [r.id for r in self._view.reservations.values() if r.owner.subject == subject]
                if await self._hub.revoke_tokens(person, mine):
                    self._remembered.lab_closed(None, person.hub_user)
                    return
                await self._tasks.wait(("revoke", subject, 0), pause)
                pause = min(2 * pause, LONGEST_PAUSE)
