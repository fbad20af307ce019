"""Answers to the Hub about servers that it starts, stops or deletes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from gpudev_hub.core.events import StopIntent
from gpudev_hub.core.gate import Deleted, Failed, Started, StopAnswer, StopAsked
from gpudev_hub.core.model import ClaimState, Reservation, State
from gpudev_hub.core.ports import Cluster

from .effects.perform import Effects
from .view import View
from .writer import Writer

log = logging.getLogger(__name__)


class HubRequests:
    """Answers all requests to the gate except admission."""

    def __init__(
        self,
        view: View,
        cluster: Cluster,
        writer: Writer,
        effects: Effects,
        end: Callable[[str, str], Awaitable[Reservation]],
    ) -> None:
        """``end``: cancels or releases a reservation for a subject."""
        self._view = view
        self._cluster = cluster
        self._writer = writer
        self._effects = effects
        self._end = end

    async def stop_asked(self, ask: StopAsked) -> StopAnswer:
        """Return whether the Hub may stop this server. A stop by its user is recorded first."""
        record = self._view.reservations.get(ask.server)
        if record is not None and record.owner.subject != ask.subject:
            # A start under an id of another user was refused, and the Hub now cleans it up.
            log.warning("%s may not stop %s, which belongs to another user", ask.subject, record.id)
            return StopAnswer(stop=False)
        if record is None or record.state not in (State.STARTING, State.READY):
            return StopAnswer(stop=True)
        claim = self._view.claim(record)
        if claim is None or claim.state is ClaimState.RELEASING or record.stopped_at is not None:
            return StopAnswer(stop=True)
        if not ask.user or self._effects.hub.stopping(record.id):
            # Even if refused, the Hub treats it as stopped from now on.
            self._effects.starts.start_again(record.id, record.attempt)
            return StopAnswer(stop=False)
        await self._writer.ask(StopIntent(record.id))
        return StopAnswer(stop=True)

    async def deleted(self, deleted: Deleted) -> None:
        """Cancel or release the reservation whose server its owner, or an administrator, deleted in the Hub.

        The service itself only deletes servers of ended reservations in the Hub.
        """
        record = self._view.reservations.get(deleted.server)
        if (
            record is not None
            and record.state in (State.QUEUED, State.STARTING, State.READY)
            and record.owner.subject == deleted.subject
        ):
            await self._end(record.id, deleted.subject)

    def started(self, started: Started) -> None:
        """Look at an attempt at once, because the engine has built its servers."""
        self._cluster.hint(started.server, started.attempt)

    def failed(self, failed: Failed) -> None:
        """Record that what the engine built for an attempt cannot start."""
        self._effects.starts.failed(failed.server, failed.attempt, failed.reason)
