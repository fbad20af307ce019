"""Observations of the cluster, as events for the writer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gpudev_hub.core.events import Event, NodesObserved, ServerObserved, StopIntent
from gpudev_hub.core.model import SECOND, Presence, State
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight

from .context import Context
from .readiness import Readiness

log = logging.getLogger(__name__)


class Observations:
    """Watches the cluster, and posts events about nodes and servers."""

    def __init__(self, context: Context, post: Callable[[Event], None]) -> None:
        self._view = context.view
        self._cluster = context.adapters.cluster
        self._clock = context.adapters.clock
        self._post = post
        self._reconcile = context.reconcile_due.set
        self.readiness = Readiness(context, post, self.saw)

    async def watch(self) -> None:
        """Follow the cluster's events until cancelled."""
        said = ""
        while True:
            try:
                async for seen in self._cluster.watch():
                    said = ""
                    if isinstance(seen, ServerSight):
                        self.saw(await self._confirmed(seen))
                    else:
                        self._post(NodesObserved(tuple(seen)))
            except ClusterUnavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the watch of the cluster was interrupted: %s", error)
            except Exception:
                # A bug in one event must not end the watch.
                log.exception("the watch of the cluster failed")
            await self._clock.wait(asyncio.Event(), self._clock.now() + SECOND)
            self._reconcile()

    async def _confirmed(self, sight: ServerSight) -> ServerSight:
        """Look again if something is missing: events may be old, so they free no slot by themselves."""
        claim = self._view.claims.get((sight.id, sight.attempt))
        if claim is None or (sight.presence is Presence.PRESENT and sight.complete):
            return sight
        return await self._cluster.look(claim)

    def saw(self, sight: ServerSight) -> None:
        """Record a sight from the watch, a full list, or a server that is getting ready."""
        claim = self._view.claims.get((sight.id, sight.attempt))
        if claim is None:
            if sight.presence is Presence.PRESENT:
                self._reconcile()
            return
        if sight.presence is Presence.ABSENT and not claim.seen:
            # It may not have started yet. Only ``looked``, after a stop by the Hub, can say that it is gone.
            return
        self.looked(sight)

    def looked(self, sight: ServerSight) -> None:
        """Record a look at this server, after which even a server that was never observed counts as gone."""
        self._view.see(sight)
        record = self._view.reservations.get(sight.id)
        forming = sight.forming and record is not None and record.state is State.STARTING
        if sight.presence is Presence.ABSENT or not (sight.complete or forming):
            self.readiness.forget(sight.id, sight.attempt)
        if sight.presence is Presence.PRESENT and sight.detail:
            self.readiness.trouble(sight.id, sight.attempt, sight.detail)
        if sight.user_stopped and self._ran(sight):
            self._post(StopIntent(sight.id))
        self._post(
            ServerObserved(
                sight.id,
                sight.attempt,
                sight.presence,
                sight.detail,
                complete=sight.complete or forming,
                outage=sight.outage,
            )
        )

    def _ran(self, sight: ServerSight) -> bool:
        """Return whether this is the current server of its reservation, and was present at the last look."""
        record = self._view.reservations.get(sight.id)
        claim = self._view.claims.get((sight.id, sight.attempt))
        current = record is not None and record.attempt == sight.attempt
        return current and claim is not None and claim.presence is Presence.PRESENT
