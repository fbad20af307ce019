"""The running parts of the service: the writer, the effects of its commits, and observation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from gpudev_hub.core.commit import Commit, Snapshot
from gpudev_hub.core.effects import Effect
from gpudev_hub.core.events import Tick
from gpudev_hub.core.model import MINUTE, Millis
from gpudev_hub.core.ports import StaleEpoch, StoreUnavailable
from gpudev_hub.turns import cancel

from .context import Adapters, Context
from .effects.perform import Effects
from .observations import Observations
from .reconcile import Reconciler, refuse_running
from .remembered import REMEMBERED
from .writer import Writer

FORGET_AGAIN: Final[Millis] = 10 * MINUTE
"""After a start the Hub is asked again to forget servers that ended up to this long before."""

log = logging.getLogger(__name__)


class Runner:
    """Everything that runs between ``start`` and ``stop``."""

    def __init__(self, adapters: Adapters) -> None:
        self.context = context = Context(adapters)
        self._remembered = context.remembered
        self._outages = context.outages
        self._clock = adapters.clock
        self._store = adapters.store
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.Task[None] | None = None
        self.writer = Writer(context, follower=self)
        self._observations = Observations(context, self.writer.post)
        self.readiness = self._observations.readiness
        self.effects = Effects(context, self._observations, self.writer.post)
        self._reconciler = Reconciler(context, self.writer, self._observations, self.effects)

    # Life

    async def start(self) -> None:
        """Take over the store, look at everything once, then continue by events."""
        try:
            # A service that may not start must say so before it takes over from another.
            last = await self._store.peek()
            self._clock.behind(last.at)
            if not last.n:
                # Without any commit, a server that runs does not count as an orphan.
                refuse_running(await self.context.adapters.cluster.servers())
            await self._start(await self.writer.open())
        except BaseException:
            await self.stop()
            raise

    async def _start(self, snapshot: Snapshot) -> None:
        if snapshot.n:
            self._outages.was("the service", snapshot.at, self._clock.now())
        self._remembered.begin(snapshot)
        self._loop = asyncio.create_task(self.writer.run(), name="writer")
        self._loop.add_done_callback(self._ended)
        self._tasks.append(asyncio.create_task(self._observations.watch(), name="watch"))
        await self._remember_ended(snapshot.at)
        await self.reconcile()
        self.effects.resume()
        self._tasks.append(asyncio.create_task(self._reconciler.run(), name="reconcile"))
        self._tasks.append(asyncio.create_task(self._remembered.usage.run(), name="usage"))
        log.info("epoch %d, continuing from commit %d", snapshot.epoch, snapshot.n)

    async def stop(self) -> None:
        self.writer.stop()
        await cancel(self._tasks)
        if self._loop is not None:
            await asyncio.wait([self._loop])
        await self.effects.close()
        await self.readiness.close()
        await self._remembered.usage.close()
        await self._store.close()

    async def closed(self) -> None:
        assert self._loop is not None, "not started"
        await asyncio.shield(self._loop)

    def _ended(self, loop: asyncio.Task[None]) -> None:
        error = None if loop.cancelled() else loop.exception()
        if isinstance(error, StaleEpoch):
            log.error("%s", error)
        elif error is not None:
            log.error("the reservation service stopped because of an error", exc_info=error)
        for task in self._tasks:
            task.cancel()

    async def _remember_ended(self, last: Millis) -> None:
        try:
            records, _ = await self._store.ended(None, None, REMEMBERED)
        except StoreUnavailable as error:
            log.warning("ended reservations cannot be read: %s", error)
            return
        for record in reversed(records):
            self._remembered.remember(record)
            if record.ended_at is not None and record.ended_at >= last - FORGET_AGAIN:
                self.effects.stops.stop(record.id, record.attempt, record)

    @property
    def live(self) -> bool:
        """Whether the writer runs."""
        return self._loop is not None and not self._loop.done()

    async def reconcile(self) -> None:
        """Run a full pass now, and return when it is committed."""
        await self._reconciler.once()
        await self.writer.ask(Tick())

    # What was committed (called by the writer)

    def committed(self, commit: Commit) -> None:
        self.context.metrics.follow(commit.changes, self.context.view.reservations, commit.at)
        changed = self._remembered.committed(commit)
        self.effects.committed(commit, changed)

    def perform(self, effects: Sequence[Effect]) -> None:
        self.effects.perform(effects)
