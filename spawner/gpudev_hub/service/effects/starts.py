"""Starts of servers: the Hub is asked until the server runs, or is no longer needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gpudev_hub.core.events import Event, OwnerKnown, StartFailed
from gpudev_hub.core.model import SECOND, ClaimState, Millis, Presence, Reservation, State
from gpudev_hub.core.ports import HubPending, HubUnavailable, OwnerUnknownToHub, StartBrokenOff, StartRefused
from gpudev_hub.service.context import Context

from .hub import HubCalls
from .tasks import FIRST_PAUSE, LONGEST_PAUSE, EffectTasks, Key

STARTED_PAUSE: Final[Millis] = 5 * SECOND
"""Time after which the Hub is asked again, if it accepted a start and the server does not appear."""
OPENING_PAUSE: Final[Millis] = SECOND
"""Longest pause between questions whether the Hub routes to a server that already runs."""
BREAKING_OFF: Final[Millis] = 15 * SECOND
"""When a user stops a start, the Hub fails the start at once, and asks for the stop within this time."""

log = logging.getLogger(__name__)


class Starts:
    """Asks the Hub to start servers."""

    def __init__(
        self,
        context: Context,
        hub: HubCalls,
        tasks: EffectTasks,
        post: Callable[[Event], None],
        opened: Callable[[str, int], None],
    ) -> None:
        """``opened``: called when the Hub says that this attempt runs, so that users reach it."""
        self._view = context.view
        self._hub = hub
        self._cluster = context.adapters.cluster
        self._clock = context.adapters.clock
        self._tasks = tasks
        self._post = post
        self._opened = opened
        self._reconcile = context.reconcile_due.set
        self._refusals: dict[str, int] = {}

    def start(self, id: str, attempt: int) -> None:
        """Ask the Hub to start the server of this attempt, until it runs."""
        self._tasks.run(("start", id, attempt), lambda: self._start(id, attempt))

    def start_again(self, id: str, attempt: int) -> None:
        """Start it again: the Hub no longer has the server, though a running effect may have found it."""
        self._tasks.run_again(("start", id, attempt), lambda: self._start(id, attempt))

    def failed(self, id: str, attempt: int, reason: str) -> None:
        """Record that a start failed, perhaps after the Hub accepted it, and decide what comes next."""
        record = self._to_start(id, attempt)
        if record is None:
            return
        self._refusals[id] = min(10, self._refusals.get(id, 0) + 1)
        log.warning("start of %s/%d failed: %s", id, attempt, reason, extra={"reservation": id})
        if record.state is State.STARTING:
            self._post(StartFailed(id, attempt, reason, self._node_at_fault(record)))

    def forget(self, id: str) -> None:
        self._refusals.pop(id, None)

    async def _start(self, id: str, attempt: int) -> None:
        key, pause, opening = ("start", id, attempt), FIRST_PAUSE, FIRST_PAUSE
        if refusals := self._refusals.get(id, 0):
            await self._tasks.wait(key, min(LONGEST_PAUSE, FIRST_PAUSE * 2**refusals))
        while (record := self._to_start(id, attempt)) is not None:
            runs = False
            try:
                runs = await self._hub.start(record)
            except HubPending as error:
                log.debug("start of %s: %s", id, error, extra={"reservation": id})
                pause = min(2 * pause, STARTED_PAUSE)
            except HubUnavailable:
                pause = min(2 * pause, LONGEST_PAUSE)
            except OwnerUnknownToHub:
                self._post(OwnerKnown(record.owner.subject, known=False))
                if record.state is State.STARTING:
                    # The Hub may have lost all servers, too.
                    self._reconcile()
                    return
                # The server runs on; the Hub routes to it again once its owner has logged in.
                await self._tasks.wait(key, LONGEST_PAUSE)
                continue
            except StartRefused as error:
                if isinstance(error, StartBrokenOff) and await self._given_up(key):
                    return
                self.failed(id, attempt, str(error))
                if record.state is State.STARTING:
                    return
                # It runs, but the Hub could not reach it, perhaps because it was too busy.
                await self._tasks.wait(key, LONGEST_PAUSE)
                continue
            else:
                self._cluster.hint(id, attempt)
                if runs:
                    self._opened(id, attempt)
                pause = STARTED_PAUSE
            if await self._came(key, pause):
                if runs:
                    break
                await self._tasks.wait(key, opening)
                opening = min(2 * opening, OPENING_PAUSE)
        self._refusals.pop(id, None)

    def _node_at_fault(self, record: Reservation) -> str | None:
        """Return a node of the reservation that has fewer GPUs than are claimed there."""
        claims = self._view.claims.values()
        for part in record.allocation:
            node = self._view.nodes.get(part.node)
            taken = [other for claim in claims for other in claim.allocation if other.node == part.node]
            if node is not None and node.gpus < sum(len(other.slots) for other in taken):
                return part.node
        return None

    async def _given_up(self, key: Key) -> bool:
        """Return whether the start is soon no longer needed, because its user stopped it."""
        until = self._clock.now() + BREAKING_OFF
        while (left := until - self._clock.now()) > 0 and self._to_start(*key[1:]) is not None:
            await self._tasks.wait(key, left)
        return self._to_start(*key[1:]) is None

    async def _came(self, key: Key, pause: Millis) -> bool:
        """Return whether the server is observed within the pause; false also if it is no longer needed."""
        of = key[1:]
        until = self._clock.now() + pause
        while (left := until - self._clock.now()) > 0 and self._to_start(*of) is not None:
            claim = self._view.claims.get(of)
            if claim is not None and claim.presence is Presence.PRESENT:
                return True
            await self._tasks.wait(key, left)
        return False

    def _to_start(self, id: str, attempt: int) -> Reservation | None:
        """Return the reservation, if this attempt's server should run."""
        record, claim = self._view.reservations.get(id), self._view.claims.get((id, attempt))
        if record is None or claim is None or record.attempt != attempt or claim.state is not ClaimState.HELD:
            return None
        wanted = record.state in (State.STARTING, State.READY) and record.stopped_at is None
        return record if wanted else None
