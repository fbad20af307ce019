"""An engine in memory: tests create its nodes, servers and launches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from gpudev_hub.core.gate import Launch, SshMaterial
from gpudev_hub.core.model import Claim, Node, Presence, Reservation
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight

POOL = "h100"


class MemoryCluster:
    """A cluster whose nodes and servers tests create."""

    def __init__(self, nodes: int = 2, gpus: int = 8) -> None:
        self.node_list = [Node(f"node-{i + 1}", POOL, gpus, "zone-a") for i in range(nodes)]
        self.running: dict[tuple[str, int], ServerSight] = {}
        self.away = False
        self.deaf = False
        """Whether the watch reports nothing."""
        self.ends: dict[tuple[str, int], ServerSight] = {}
        """How servers ended, until that is forgotten."""
        self.lasting = False
        """Whether servers keep running when they should end."""
        self.kept: set[str] = set()
        """Reservations whose servers keep running when they should end."""
        self.log: dict[str, str] = {}
        """The logs, instead of a repeated line."""
        self.removed: list[tuple[str, int]] = []
        self.ever: list[tuple[str, int]] = []
        self._watchers: list[asyncio.Queue[ServerSight]] = []
        self._ports = itertools.count(20_000)

    def launch(self, id: str, attempt: int, ranks: int) -> None:
        """Add a running server, unless it exists."""
        if (id, attempt) in self.running:
            return
        sshd = {rank: ("127.0.0.1", next(self._ports)) for rank in range(ranks)}
        sight = ServerSight(
            id, attempt, Presence.PRESENT, jupyter=("127.0.0.1", next(self._ports)), sshd=sshd
        )
        self.ever.append((id, attempt))
        self.running[id, attempt] = sight
        self.report(sight)

    def kill(
        self,
        id: str,
        attempt: int,
        detail: str = "",
        *,
        one_rank: bool = False,
        user_stopped: bool = False,
    ) -> None:
        """End the server, or one rank of it."""
        if one_rank:
            sight = replace(
                self.running[id, attempt], complete=False, detail=detail, user_stopped=user_stopped
            )
            self.running[id, attempt] = sight
        else:
            self.running.pop((id, attempt), None)
            sight = ServerSight(id, attempt, Presence.ABSENT, detail=detail, user_stopped=user_stopped)
            self.ends[id, attempt] = sight
        self.report(sight)

    def runs(self, id: str, attempt: int) -> bool:
        """Return whether a server runs."""
        return (id, attempt) in self.running

    def end(self, id: str, attempt: int, detail: str) -> None:
        """End the server on request, unless a test keeps it."""
        if not self.lasting and id not in self.kept:
            self.kill(id, attempt, detail)

    def report(self, sight: ServerSight) -> None:
        """Report this to everyone who watches, whether it is true or not."""
        if not self.deaf:
            for watcher in self._watchers:
                watcher.put_nowait(sight)

    def _check(self) -> None:
        if self.away:
            raise ClusterUnavailable("the cluster API does not answer")

    async def nodes(self) -> list[Node]:
        self._check()
        return list(self.node_list)

    async def servers(self) -> list[ServerSight]:
        self._check()
        await asyncio.sleep(0)
        return list(self.running.values())

    async def look(self, claim: Claim) -> ServerSight:
        await asyncio.sleep(0)
        if self.away:
            return ServerSight(*claim.key, Presence.UNKNOWN)
        gone = self.ends.get(claim.key, ServerSight(*claim.key, Presence.ABSENT))
        return self.running.get(claim.key, gone)

    async def remove(self, id: str, attempt: int) -> None:
        self._check()
        self.removed.append((id, attempt))
        self.end(id, attempt, "removed")

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Forget how servers ended, except those that hold slots."""
        self.ends = {key: sight for key, sight in self.ends.items() if key in held}

    async def watch(self) -> AsyncIterator[ServerSight]:
        watcher: asyncio.Queue[ServerSight] = asyncio.Queue()
        self._watchers.append(watcher)
        try:
            while True:
                yield await watcher.get()
        finally:
            self._watchers.remove(watcher)

    def hint(self, id: str, attempt: int) -> None:
        sight = self.running.get((id, attempt), ServerSight(id, attempt, Presence.ABSENT))
        self.report(sight)

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        self._check()
        return self.log or {"jupyter": f"{id}/{attempt} up\n" * lines}


class Launches:
    """Launches without secrets."""

    def __init__(self) -> None:
        self.delay = 0.0

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Do nothing: these launches leave nothing behind."""

    async def make(self, reservation: Reservation) -> Launch:
        await asyncio.sleep(self.delay)
        return Launch(
            id=reservation.id,
            attempt=reservation.attempt,
            name=reservation.request.name,
            subject=reservation.owner.subject,
            hub_user=reservation.owner.hub_user,
            gpu_type=reservation.request.pool,
            gpus=reservation.request.shape.gpus,
            allocation=reservation.allocation,
            simulated=True,
            image=reservation.request.image,
            ends_at=reservation.ends_at or 0,
            token="",
            service_url="",
            known_hosts="",
            ssh=tuple(SshMaterial("", "") for _ in reservation.allocation),
        )
