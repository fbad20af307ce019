"""Calls to the Hub: each is counted, and whether the Hub answers at all is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from gpudev_hub.core.access_model import Person
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.ports import HubPending, HubUnavailable, OwnerUnknownToHub, StartRefused
from gpudev_hub.failpoints import BEFORE_EFFECT
from gpudev_hub.service.context import Context
from gpudev_hub.service.outages import HUB

FORGETTING: Final = 8
"""Concurrent calls that nobody waits for."""
_RESULTS: Final[dict[type[Exception], str]] = {HubPending: "pending", OwnerUnknownToHub: "owner unknown"}

log = logging.getLogger(__name__)


class HubCalls:
    """Asks the Hub once for each call."""

    def __init__(self, context: Context) -> None:
        self._hub = context.adapters.hub
        self._clock = context.adapters.clock
        self._outages = context.outages
        self._metrics = context.metrics
        self._failpoint = context.adapters.failpoint
        self._stopping: set[str] = set()
        self.unhurried = asyncio.Semaphore(FORGETTING)
        """For calls that nobody waits for: many at once would delay the calls that people wait for."""

    async def start(self, record: Reservation) -> bool:
        """Start a server. Return whether it runs. Raises what ``Hub.start`` raises."""
        self._failpoint(BEFORE_EFFECT)
        try:
            runs = await self._hub.start(record.owner.hub_user, record.id)
        except (HubPending, OwnerUnknownToHub, StartRefused) as error:
            self._answered("start", _RESULTS.get(type(error), "refused"))
            raise
        except HubUnavailable as error:
            self._unavailable(record, error)
            raise
        self._answered("start", "running" if runs else "accepted")
        return runs

    async def stop(self, record: Reservation, *, forget: bool) -> bool | None:
        """Stop a server. Return whether the Hub has done all that it will do.

        ``None``: ask again. ``forget``: the Hub need not keep the server of this name.
        """
        self._stopping.add(record.id)
        try:
            self._failpoint(BEFORE_EFFECT)
            done = await self._hub.stop(record.owner.hub_user, record.id, forget=forget)
        except HubPending:
            self._answered("stop", "pending")
            return None
        except HubUnavailable as error:
            self._unavailable(record, error)
            return None
        finally:
            self._stopping.discard(record.id)
        self._answered("stop", "accepted")
        return done

    def stopping(self, id: str) -> bool:
        """Return whether the service is asking the Hub to stop a server of the reservation."""
        return id in self._stopping

    async def revoke_tokens(self, person: Person, keep: Collection[str]) -> bool:
        """Delete a person's tokens, except those of these servers. Return whether that is done."""
        self._failpoint(BEFORE_EFFECT)
        try:
            await self._hub.revoke_tokens(person.hub_user, keep)
        except HubUnavailable as error:
            self._metrics.effects["revoke", "unavailable"] += 1
            log.warning("tokens of %s are not deleted yet: %s", person.hub_user, error)
            return False
        self._answered("revoke", "done")
        return True

    def _answered(self, effect: str, result: str) -> None:
        self._metrics.effects[effect, result] += 1
        if self._outages.end(HUB, self._clock.now()):
            log.warning("the Hub answers again")

    def _unavailable(self, record: Reservation, error: HubUnavailable) -> None:
        self._metrics.effects["hub", "unavailable"] += 1
        if self._outages.begin(HUB, self._clock.now(), str(error)):
            log.warning("%s", error, extra={"reservation": record.id})
