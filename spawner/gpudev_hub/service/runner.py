"""The running parts of the service: the writer, what follows its commits, and what is seen of the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from gpudev_hub.clock import Clock
from gpudev_hub.core.access_model import Access
from gpudev_hub.core.commit import Commit, Snapshot
from gpudev_hub.core.effects import Effect
from gpudev_hub.core.events import Outage, Tick
from gpudev_hub.core.model import MINUTE, Millis
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.ports import Cluster, Hub, LaunchMaker, StaleEpoch, Store, StoreUnavailable
from gpudev_hub.failpoints import Failpoint

from .effects.hub import HubCalls
from .effects.perform import Effects
from .metrics import Metrics
from .observations import Observations
from .outages import STORE, Outages
from .readiness import Probe, Readiness
from .reconcile import Reconciler
from .remembered import REMEMBERED, Remembered
from .sharing import HubShares
from .writer import Writer

FORGET_AGAIN: Final[Millis] = 10 * MINUTE
"""After a start the Hub is asked once more to forget servers that ended this long before."""

log = logging.getLogger(__name__)


class Runner:
    """Everything that runs between ``start`` and ``stop``."""

    def __init__(
        self,
        *,
        policy: Policy,
        store: Store,
        cluster: Cluster,
        hub: Hub,
        launches: LaunchMaker,
        probe: Probe,
        clock: Clock,
        lab_shared: bool,
        failpoint: Failpoint,
    ) -> None:
        self.metrics = Metrics()
        self.remembered = Remembered(policy, store, clock)
        self.view = self.remembered.view
        self.outages = Outages(lambda: self.writer.wake())
        self._clock = clock
        self._store = store
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.Task[None] | None = None
        self.writer = Writer(
            policy=policy, store=store, clock=clock, follower=self, metrics=self.metrics, failpoint=failpoint
        )
        post = self.writer.post
        self.readiness = Readiness(
            view=self.view,
            cluster=cluster,
            probe=probe,
            clock=clock,
            post=post,
            saw=lambda sight: self._observations.saw(sight),
        )
        self._observations = Observations(
            view=self.view,
            cluster=cluster,
            readiness=self.readiness,
            clock=clock,
            post=post,
            reconcile=lambda: self._reconciler.wake(),
        )
        self.effects = Effects(
            policy=policy,
            remembered=self.remembered,
            hub=HubCalls(hub, clock, self.outages, self.metrics, failpoint),
            shares=HubShares(
                self.view,
                hub,
                clock,
                allowed=lambda subject: lab_shared and self._may_enter(subject),
                removed=self.remembered.lab_closed,
            ),
            cluster=cluster,
            clock=clock,
            observations=self._observations,
            post=post,
            reconcile=lambda: self._reconciler.wake(),
            metrics=self.metrics,
        )
        self._reconciler = Reconciler(
            view=self.view,
            cluster=cluster,
            launches=launches,
            hub=hub,
            store=store,
            writer=self.writer,
            observations=self._observations,
            effects=self.effects,
            clock=clock,
            outages=self.outages,
            metrics=self.metrics,
        )

    # Life

    async def start(self) -> None:
        """Take over the store, look at everything once, then go on by events.

        Raises ``StoreLocked``, ``StoreUnavailable``, ``StoreEmpty``, ``StoreBehind`` or ``ClockBehind``.
        """
        try:
            # A service that may not start must not have taken over from another one before it says so.
            last = await self._store.peek()
            self._clock.behind(last.at)
            if not last.n:
                await self._reconciler.nothing_runs()
            await self._start(await self.writer.open())
        except BaseException:
            await self.stop()
            raise

    async def _start(self, snapshot: Snapshot) -> None:
        if snapshot.n:
            self.outages.was("the service", snapshot.at, self._clock.now())
        self.remembered.begin(snapshot)
        self._loop = asyncio.create_task(self.writer.run(), name="writer")
        self._loop.add_done_callback(self._ended)
        self._tasks.append(asyncio.create_task(self._observations.watch(), name="watch"))
        await self._remember_ended(snapshot.at)
        await self.reconcile()
        self.effects.resume()
        self._tasks.append(asyncio.create_task(self._reconciler.run(), name="reconcile"))
        self._tasks.append(asyncio.create_task(self.remembered.usage.run(), name="usage"))
        log.info("epoch %d, continuing from commit %d", snapshot.epoch, snapshot.n)

    async def stop(self) -> None:
        """Finish the commit under way, drop the rest, close the store."""
        self.writer.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._loop is not None:
            await asyncio.wait([self._loop])
        await self.effects.close()
        await self.readiness.close()
        await self.remembered.usage.close()
        await self._store.close()

    async def closed(self) -> None:
        """Return when the service has stopped; raises what ended it: ``StaleEpoch``, or a defect."""
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
            self.remembered.remember(record)
            if record.ended_at is not None and record.ended_at >= last - FORGET_AGAIN:
                self.effects.stops.stop(record.id, record.attempt, record)

    @property
    def live(self) -> bool:
        """Whether the writer runs."""
        return self._loop is not None and not self._loop.done()

    async def reconcile(self) -> None:
        """A full pass now, decided and committed when this returns."""
        await self._reconciler.once()
        await self.writer.ask(Tick())

    # What was committed (called by the writer)

    def loaded(self, snapshot: Snapshot) -> None:
        """The committed state, read anew."""
        self.remembered.loaded(snapshot)
        self._reconciler.wake()

    def committed(self, commit: Commit) -> None:
        """One more commit is durable."""
        self.metrics.follow(commit.changes, self.view.reservations, commit.at)
        changed = self.remembered.committed(commit)
        self.effects.committed(commit, changed)

    def perform(self, effects: Sequence[Effect]) -> None:
        """To be done now that it is durable."""
        self.effects.perform(effects)

    def outages_until(self, now: Millis, *, due: bool) -> Sequence[Outage]:
        """While a part is away, allowances stand still."""
        return self.outages.take(now, due=due)

    def accounted(self) -> None:
        """For those outages."""
        self.outages.accounted()

    def store_fails(self, error: StoreUnavailable) -> None:
        """Nothing can be committed at present."""
        if self.outages.begin(STORE, self._clock.now(), str(error)):
            log.error("the database does not work: %s", error)

    def store_works(self) -> None:
        """It can be, again."""
        if self.outages.end(STORE, self._clock.now()):
            log.warning("the database works again")
            self._reconciler.wake()

    def _may_enter(self, subject: str) -> bool:
        person = self.view.people.get(subject)
        return person is None or person.access is not Access.REVOKED
