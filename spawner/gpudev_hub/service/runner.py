"""The running parts of the service: the writer, what follows its commits, and what is seen of the cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from gpudev_hub.clock import Clock
from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.commit import Commit, Snapshot
from gpudev_hub.core.effects import CutSessions, Effect, RevokeAccess, StartServer, StopServer, Tell, Warn
from gpudev_hub.core.events import (
    Outage,
    Tick,
)
from gpudev_hub.core.model import MINUTE, Claim, Millis, Reservation, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.ports import (
    Cluster,
    Hub,
    LaunchMaker,
    StaleEpoch,
    Store,
    StoreUnavailable,
)
from gpudev_hub.core.words import plain, sentence
from gpudev_hub.failpoints import Failpoint

from .effects import Effects
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
        self._effects = Effects(
            policy=policy,
            view=self.view,
            hub=hub,
            cluster=cluster,
            clock=clock,
            outages=self.outages,
            post=post,
            saw=self._observations.looked,
            opened=self._open,
            hub_forgot=lambda: self._reconciler.wake(),
            tokens_gone=lambda hub_user: self._closed_to(None, hub_user),
            metrics=self.metrics,
            failpoint=failpoint,
        )
        self.shares = HubShares(
            self.view, hub, clock, lambda who: lab_shared and self._may_enter(who), self._closed_to
        )
        self._reconciler = Reconciler(
            view=self.view,
            cluster=cluster,
            launches=launches,
            hub=hub,
            acts=self._effects,
            clock=clock,
            outages=self.outages,
            post=post,
            saw=self._observations.saw,
            check=store.check,
            checked=self.shares.check_all,
            overtaken=self.writer.overtaken,
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
        for record in list(self.view.reservations.values()):
            if record.state is State.READY and record.stopped_at is None:
                # The Hub may have been told half of it when the service before this one ended.
                self._effects.start(record.id, record.attempt)
        self.shares.check_all(everything=True)
        for person in self.view.people.values():
            if person.access is Access.REVOKED:
                self._effects.revoke(person.subject)
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
        await self._effects.close()
        await self.shares.close()
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
                self._effects.stop(record.id, record.attempt, record)

    @property
    def live(self) -> bool:
        """Whether the writer runs."""
        return self._loop is not None and not self._loop.done()

    async def reconcile(self) -> None:
        """A full pass now, decided and committed when this returns."""
        await self._reconciler.once()
        await self.writer.ask(Tick())

    def stopping(self, id: str) -> bool:
        """Whether it is the service itself that is asking the Hub to stop a server of this reservation."""
        return self._effects.stopping(id)

    # What was committed (called by the writer)

    def loaded(self, snapshot: Snapshot) -> None:
        """The committed state, read anew."""
        self.remembered.loaded(snapshot)
        self._reconciler.wake()

    def committed(self, commit: Commit) -> None:
        """One more commit is durable."""
        self.metrics.follow(commit.changes, self.view.reservations, commit.at)
        changed = self.remembered.committed(commit)
        for change in commit.changes:
            if isinstance(change.record, Reservation):
                self._effects.poke(change.record.id)
            elif isinstance(change.record, Claim):
                self._effects.poke(change.record.reservation)
            elif isinstance(change.record, Person):
                self.shares.person_changed(change.record.subject)
        for record in changed:
            self.shares.changed(record)

    def perform(self, effects: Sequence[Effect]) -> None:
        """To be done now that it is durable."""
        for effect in effects:
            match effect:
                case StartServer(id, attempt):
                    self._effects.start(id, attempt)
                case StopServer(id, attempt):
                    self._effects.stop(id, attempt, self.remembered.get(id))
                case Warn(id, minutes):
                    record = self.remembered.get(id)
                    if record is not None:
                        self.remembered.notices.warn(self.view.n, record, minutes, self._clock.now())
                case RevokeAccess(subject):
                    self._effects.revoke(subject)
                case CutSessions(id, subject):
                    self.remembered.cuts.add(self.view.n, subject, id, self._clock.now())
                case Tell(id, message):
                    self.remembered.notices.tell(self.view.n, id, sentence(plain(message, self._clock.now())))

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

    # Effects under way

    def start_failed(self, id: str, attempt: int, reason: str) -> None:
        """The engine gave up a start, perhaps after the Hub's answer to it."""
        self._effects.failed(id, attempt, reason)

    def poke(self, id: str) -> None:
        """Go on at once with what is under way for a reservation."""
        self._effects.poke(id)

    def adopt_again(self, id: str, attempt: int) -> None:
        """The Hub gave up a server that is there: have it taken over."""
        self._effects.start_again(id, attempt)

    def _may_enter(self, subject: str) -> bool:
        person = self.view.people.get(subject)
        return person is None or person.access is not Access.REVOKED

    def _closed_to(self, id: str | None, hub_user: str) -> None:
        # Until now, a JupyterLab that asked the Hub about this user was told to let them in.
        self.remembered.cuts.add(self.view.n, f"hub:{hub_user}", id, self._clock.now())

    def _open(self, id: str, attempt: int) -> None:
        self.readiness.opened(id, attempt)
        record = self.view.reservations.get(id)
        if record is not None and record.guests:
            # The Hub may have made the server anew, without the guests it had.
            self.shares.check(id)
