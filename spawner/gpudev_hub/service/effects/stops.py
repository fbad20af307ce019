"""Stops of servers: the Hub is asked until the server is gone, and then to forget it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gpudev_hub.core.model import SECOND, Claim, ClaimState, Millis, Presence, Reservation, State
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight
from gpudev_hub.service.context import Context

from .hub import HubCalls
from .tasks import FIRST_PAUSE, LONGEST_PAUSE, EffectTasks, Key

HUB_DONE: Final[Millis] = 3 * SECOND
"""A server that still runs this long after the Hub called it stopped or unknown is removed."""

log = logging.getLogger(__name__)


class Stops:
    """Asks the Hub to stop servers, or removes them without it."""

    def __init__(
        self, context: Context, hub: HubCalls, tasks: EffectTasks, looked: Callable[[ServerSight], None]
    ) -> None:
        """``looked``: called with what is observed of a server."""
        self._policy = context.adapters.policy
        self._view = context.view
        self._hub = hub
        self._cluster = context.adapters.cluster
        self._clock = context.adapters.clock
        self._tasks = tasks
        self._looked = looked
        self._metrics = context.metrics

    def stop(self, id: str, attempt: int, record: Reservation | None) -> None:
        """Ask the Hub to stop this attempt's server until it is gone, and to forget it if the stay is over.

        ``record``: the reservation, ended or not; ``None`` if it is no longer known.
        """
        self._tasks.run(("stop", id, attempt), lambda: self._stop(id, attempt, record))

    async def _stop(self, id: str, attempt: int, record: Reservation | None) -> None:
        key, pause, begun, asked = ("stop", id, attempt), FIRST_PAUSE, self._clock.now(), record is None
        forgotten = False
        done_at: Millis | None = None
        while True:
            record = self._view.reservations.get(id) or record
            claim = self._view.claims.get((id, attempt))
            over = record is not None and self._over(id)
            if over and not forgotten:
                asked = False
            if record is not None and record.live and record.attempt > attempt:
                asked = True  # by now the Hub's server of this name belongs to a later attempt
            if asked and (claim is None or _kept(claim)):
                return
            if claim is None and record is not None:
                await self._forget(key, record)
                asked, forgotten = True, over
                continue
            now = self._clock.now()
            overran = claim is not None and now >= begun + self._patience(claim)
            # If the previous service died after it asked the Hub and before it allowed the stop, the Hub does
            # nothing more.
            overran = overran or (done_at is not None and now >= done_at + HUB_DONE)
            if not asked and record is not None:
                done = await self._hub.stop(record, forget=self._over(id))
                asked = done is not None
                forgotten = asked and over
                done_at = self._clock.now() if done else None
            alone = overran or record is None or (record.live and record.attempt > attempt)
            if claim is not None and alone:
                await self._remove(id, attempt)
            if claim is not None and (asked or overran):
                # The Hub's answer does not prove it, and the server may never have started: look.
                self._looked(await self._cluster.look(claim))
            if not (asked and (id, attempt) not in self._view.claims):
                await self._tasks.wait(key, pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _forget(self, key: Key, record: Reservation) -> None:
        """Ask the Hub to forget a server that is gone or never existed, until it has.

        Nobody waits for this. After a start or an outage of the Hub there may be hundreds, so only a few are
        done at once.
        """
        _, of, attempt = key
        pause = FIRST_PAUSE
        async with self._hub.unhurried:
            while True:
                now = self._view.reservations.get(of)
                if now is not None and now.attempt > attempt:
                    return  # the name belongs to a later attempt by now
                if await self._hub.stop(record, forget=self._over(of)) is not None:
                    return
                await self._tasks.wait(key, pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _patience(self, claim: Claim) -> Millis:
        """Return how long the Hub has to stop a server before it is removed without the Hub."""
        return self._policy.pool(claim.pool).stop_overrun

    def _over(self, id: str) -> bool:
        """Return whether the reservation starts nothing more; until then, forgetting would cancel it."""
        record = self._view.reservations.get(id)
        return record is None or record.state is State.STOPPING

    async def _remove(self, id: str, attempt: int) -> None:
        log.warning("removing the server of %s/%d without the Hub", id, attempt, extra={"reservation": id})
        try:
            await self._cluster.remove(id, attempt)
        except ClusterUnavailable as error:
            self._metrics.effects["remove", "unavailable"] += 1
            log.warning("cannot remove server %s/%d now: %s", id, attempt, error, extra={"reservation": id})
        else:
            self._metrics.effects["remove", "done"] += 1


def _kept(claim: Claim) -> bool:
    """Return whether a user stopped the start: the slots stay reserved, and nothing runs there."""
    return claim.state is ClaimState.HELD and claim.presence is Presence.ABSENT
