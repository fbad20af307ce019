"""Starts of servers: the Hub is asked until the server runs, or is no longer wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gpudev_hub.core.events import Event, OwnerKnown, StartFailed
from gpudev_hub.core.model import SECOND, ClaimState, Millis, Presence, Reservation, State
from gpudev_hub.core.ports import (
    HubPending,
    HubUnavailable,
    OwnerUnknownToHub,
    StartBrokenOff,
    StartRefused,
)
from gpudev_hub.service.context import Context

from .hub import HubCalls
from .tasks import FIRST_PAUSE, LONGEST_PAUSE, EffectTasks, Key

STARTED_PAUSE: Final[Millis] = 5 * SECOND
"""The Hub has taken a start up; if nothing comes of it, it is asked again after this time."""
OPENING_PAUSE: Final[Millis] = SECOND
"""Longest pause between questions whether the Hub leads users to a server that is there already."""
BREAKING_OFF: Final[Millis] = 15 * SECOND
"""When a user stops a start, the Hub breaks it off at once, and stops the server once it has time for it."""

log = logging.getLogger(__name__)


class Starts:
    """Has the Hub start servers."""

    def __init__(
        self,
        context: Context,
        hub: HubCalls,
        tasks: EffectTasks,
        post: Callable[[Event], None],
        opened: Callable[[str, int], None],
    ) -> None:
        """``opened``: the Hub says that this attempt runs, so users reach it at the Hub's address."""
        self._view = context.view
        self._hub = hub
        self._cluster = context.ports.cluster
        self._clock = context.ports.clock
        self._tasks = tasks
        self._post = post
        self._opened = opened
        self._reconcile = context.reconcile_due.set
        self._refusals: dict[str, int] = {}

    def start(self, id: str, attempt: int) -> None:
        """Have the Hub start the server of this attempt, until it runs."""
        self._tasks.run(("start", id, attempt), lambda: self._start(id, attempt))

    def start_again(self, id: str, attempt: int) -> None:
        """The Hub has just given the server up, though an effect under way may have found it running."""
        self._tasks.run_again(("start", id, attempt), lambda: self._start(id, attempt))

    def failed(self, id: str, attempt: int, reason: str) -> None:
        """The start came to nothing, perhaps after the Hub's answer to it: decide what comes next."""
        record = self._to_start(id, attempt)
        if record is None:
            return
        self._refusals[id] = min(10, self._refusals.get(id, 0) + 1)
        log.warning("start of %s/%d failed: %s", id, attempt, reason, extra={"reservation": id})
        if record.state is State.STARTING:
            self._post(StartFailed(id, attempt, reason, self._node_at_fault(record)))

    def forget(self, id: str) -> None:
        """The reservation has ended."""
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
                    # The Hub may have forgotten everybody's servers, too.
                    self._reconcile()
                    return
                # The server runs on, and the Hub leads to it once its owner has logged in again.
                await self._tasks.wait(key, LONGEST_PAUSE)
                continue
            except StartRefused as error:
                if isinstance(error, StartBrokenOff) and await self._given_up(key):
                    return
                self.failed(id, attempt, str(error))
                if record.state is State.STARTING:
                    return
                # It runs, and the Hub could not reach it: too busy, perhaps.
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
        """A node of the reservation's that has not got what was taken there, whoever has it now."""
        claims = self._view.claims.values()
        for part in record.allocation:
            node = self._view.nodes.get(part.node)
            taken = [other for claim in claims for other in claim.allocation if other.node == part.node]
            if node is not None and node.gpus < sum(len(other.slots) for other in taken):
                return part.node
        return None

    async def _given_up(self, key: Key) -> bool:
        """Whether the start turns out, in a moment, to be no longer wanted: its user stopped it."""
        until = self._clock.now() + BREAKING_OFF
        while (left := until - self._clock.now()) > 0 and self._to_start(*key[1:]) is not None:
            await self._tasks.wait(key, left)
        return self._to_start(*key[1:]) is None

    async def _came(self, key: Key, pause: Millis) -> bool:
        """Whether the server is seen: now, within the pause, or not, or not wanted any more."""
        of = key[1:]
        until = self._clock.now() + pause
        while (left := until - self._clock.now()) > 0 and self._to_start(*of) is not None:
            claim = self._view.claims.get(of)
            if claim is not None and claim.presence is Presence.PRESENT:
                return True
            await self._tasks.wait(key, left)
        return False

    def _to_start(self, id: str, attempt: int) -> Reservation | None:
        """The reservation, if this attempt's server is to run."""
        record, claim = self._view.reservations.get(id), self._view.claims.get((id, attempt))
        if record is None or claim is None or record.attempt != attempt or claim.state is not ClaimState.HELD:
            return None
        wanted = record.state in (State.STARTING, State.READY) and record.stopped_at is None
        return record if wanted else None
