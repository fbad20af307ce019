"""The full look at everything: missed events, manual changes, and what a crash left half done.

It compares what is committed with what is observed and acts on differences, however often it runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from gpudev_hub.core.events import NodesObserved, NodeUnknown
from gpudev_hub.core.model import MINUTE, ClaimState, Millis, Node, NodeStatus, Presence, State
from gpudev_hub.core.ports import (
    ClusterUnavailable,
    HubUnavailable,
    ServerSight,
    StaleEpoch,
    StoreEmpty,
    StoreUnavailable,
)

from .context import Context
from .effects.perform import Effects
from .observations import Observations
from .outages import CLUSTER
from .writer import Writer

PERIOD: Final[Millis] = 1 * MINUTE
PATIENCE: Final[Millis] = 2 * MINUTE
"""After this time without an answer from the cluster, its nodes count as unknown."""

log = logging.getLogger(__name__)


def refuse_running(seen: Iterable[ServerSight]) -> None:
    """Raise ``StoreEmpty`` if any of these servers runs, although the store never had a commit."""
    running = sorted(f"{one.id}/{one.attempt}" for one in seen if one.presence is not Presence.ABSENT)
    if running:
        raise StoreEmpty(
            "The database has no reservations, but servers of reservations still run "
            f"({len(running)}: {', '.join(running[:5])}). The database was emptied, or it belongs to another "
            "hub. Put the right database back; if it is lost, end the servers first. Nothing was changed."
        )


class Reconciler:
    """Runs full passes, one at a time."""

    def __init__(
        self, context: Context, writer: Writer, observations: Observations, effects: Effects
    ) -> None:
        self._view = context.view
        self._cluster = context.adapters.cluster
        self._launches = context.adapters.launches
        self._hub = context.adapters.hub
        self._store = context.adapters.store
        self._writer = writer
        self._observations = observations
        self._effects = effects
        self._clock = context.adapters.clock
        self._outages = context.outages
        self._metrics = context.metrics
        self._wake = context.reconcile_due

    async def run(self) -> None:
        """Run a pass each minute, and whenever it is woken."""
        while True:
            await self._clock.wait(self._wake, self._clock.now() + PERIOD)
            self._wake.clear()
            try:
                await self.once()
            except Exception:
                # A bug in one pass must not end all of them.
                log.exception("a reconciliation failed; the next one starts in a minute")

    async def once(self) -> None:
        self._metrics.reconciled += 1
        seen: tuple[list[Node], list[ServerSight]] | ClusterUnavailable
        try:
            seen = await self._cluster.nodes(), await self._cluster.servers()
        except ClusterUnavailable as error:
            seen = error
        # Checked after the servers were listed: unknown servers then belong to no other service either.
        try:
            await self._store.check()
            ours = True
        except StoreUnavailable:
            ours = False
        except StaleEpoch as error:
            # This service was paused, or cut off, for long and was replaced: it must not act any more.
            self._writer.overtaken(error)
            return
        if isinstance(seen, ClusterUnavailable):
            self._no_cluster(seen)
        else:
            nodes, sights = seen
            if self._outages.end(CLUSTER, self._clock.now()):
                log.warning("the cluster answers again")
            self._writer.post(NodesObserved(tuple(nodes)))
            await self._compare(sights, ours=ours)
            if ours:
                await self._cluster.forget_ended(self._view.claims.keys())
                await self._launches.forget_ended(self._view.claims.keys())
        self._derive()
        await self._ask_hub()
        self._effects.shares.check_all()

    def _no_cluster(self, error: ClusterUnavailable) -> None:
        now = self._clock.now()
        if self._outages.begin(CLUSTER, now, str(error)):
            log.warning("the cluster does not answer: %s", error)
        if self._outages.lasted(CLUSTER, now) >= PATIENCE:
            for node in self._view.nodes.values():
                if node.status is not NodeStatus.UNKNOWN:
                    self._writer.post(NodeUnknown(node.name))

    async def _compare(self, sights: list[ServerSight], *, ours: bool) -> None:
        """Compare servers with claims. ``ours``: no other service had taken over when they were listed."""
        seen = {(sight.id, sight.attempt): sight for sight in sights}
        for claim in list(self._view.claims.values()):
            sight = seen.get(claim.key)
            if sight is not None:
                self._observations.saw(sight)
            elif claim.seen:
                # It is not in the list: look at it before it counts as gone.
                self._observations.saw(await self._cluster.look(claim))
        orphans = [
            key
            for key, sight in seen.items()
            if key not in self._view.claims and sight.presence is Presence.PRESENT
        ]
        for key in orphans:
            if ours:
                await self._remove(key)
            else:
                log.warning("server %s/%d has no known reservation; it is left alone", *key)

    async def _remove(self, key: tuple[str, int]) -> None:
        log.warning("removing server %s/%d: it has no live reservation", *key, extra={"reservation": key[0]})
        self._metrics.orphans += 1
        try:
            await self._cluster.remove(*key)
        except ClusterUnavailable as error:
            log.warning("cannot remove server %s/%d now: %s", *key, error, extra={"reservation": key[0]})

    def _derive(self) -> None:
        """Start the effects that should run; stops first, since starts may need the slots they free."""
        for claim in self._view.claims.values():
            if claim.state is ClaimState.RELEASING:
                record = self._view.reservations.get(claim.reservation)
                self._effects.stops.stop(claim.reservation, claim.attempt, record)
        for record in self._view.reservations.values():
            if record.state is State.STARTING and record.stopped_at is None:
                self._effects.starts.start(record.id, record.attempt)
            elif record.state in (State.STARTING, State.READY) and record.stopped_at is not None:
                # The Hub's answer does not prove that the server has stopped.
                held = self._view.claim(record)
                if held is not None and held.presence is not Presence.ABSENT:
                    self._effects.stops.stop(record.id, record.attempt, record)

    async def _ask_hub(self) -> None:
        """Start servers in the Hub that run but that the Hub has lost, perhaps with its database."""
        running = [
            r for r in self._view.reservations.values() if r.state is State.READY and r.stopped_at is None
        ]
        if not running:
            return
        try:
            known = await self._hub.known_servers()
        except HubUnavailable as error:
            log.warning("the list of the Hub's servers cannot be read now: %s", error)
            return
        for record in running:
            if record.id not in known:
                self._effects.starts.start(record.id, record.attempt)
