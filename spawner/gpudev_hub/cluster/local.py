"""The cluster port for this machine: its GPUs, or simulated GPUs, are nodes; launchers are servers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Collection

from gpudev_hub.core.model import Claim, Node, Presence
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight
from gpudev_hub.server import record
from gpudev_hub.server.logs import tail

from .gpus import Gpus, GpusUnavailable
from .servers import LocalServers, alive, open_process

log = logging.getLogger(__name__)

LOGS = ("jupyter", "sshd", "agent", "launcher")


class LocalCluster:
    """Watches launchers by pidfd, and so observes the end of a server within milliseconds."""

    def __init__(self, servers: LocalServers, gpus: Gpus, pool: str) -> None:
        self._servers = servers
        self._gpus = gpus
        self._pool = pool
        self._changed: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._watched: dict[int, int] = {}
        """Maps the pid of each launcher to its pidfd."""

    async def nodes(self) -> list[Node]:
        """Return the nodes. Simulated nodes are always up; real ones are up while NVML answers."""
        try:
            counts = await asyncio.to_thread(self._gpus.count)
        except GpusUnavailable as error:
            raise ClusterUnavailable(f"the GPUs of this machine cannot be listed: {error}") from error
        return [Node(name, self._pool, count, group="local") for name, count in counts.items()]

    async def servers(self) -> list[ServerSight]:
        try:
            attempts = self._servers.attempts()
            for found in attempts:
                await self._servers.sweep(*found)
        except OSError as error:
            raise ClusterUnavailable(f"the folder of the servers cannot be read: {error}") from error
        sights = [self._look(*found) for found in attempts]
        for sight in sights:
            self._track(sight.id, sight.attempt)
        return [sight for sight in sights if sight.presence is not Presence.ABSENT]

    async def look(self, claim: Claim) -> ServerSight:
        return self._look(claim.reservation, claim.attempt)

    def _look(self, id: str, attempt: int) -> ServerSight:
        try:
            return self._servers.look(id, attempt)
        except (OSError, ValueError) as error:
            return ServerSight(
                id, attempt, Presence.UNKNOWN, detail=f"the record of the server cannot be read: {error}"
            )

    async def remove(self, id: str, attempt: int) -> None:
        """End an attempt, and wait until its processes are gone."""
        try:
            gone = await self._servers.end(id, attempt)
        except OSError as error:
            raise ClusterUnavailable(f"server {id}-{attempt} cannot be ended: {error}") from error
        if not gone:
            raise ClusterUnavailable(f"processes of server {id}-{attempt} are still running after SIGKILL")
        self._changed.put_nowait((id, attempt))

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Delete the folders of ended servers, except the latest."""
        try:
            await asyncio.to_thread(self._servers.prune, frozenset(held))
        except OSError:
            log.exception("the folders of ended servers cannot be removed now")

    def hint(self, id: str, attempt: int) -> None:
        self._track(id, attempt)
        self._changed.put_nowait((id, attempt))

    async def watch(self) -> AsyncIterator[ServerSight]:
        """Yield sights of servers that started or ended. One watcher at a time."""
        for found in self._servers.attempts():
            self._track(*found)
        while True:
            changed = await self._changed.get()
            try:
                await self._servers.sweep(*changed)
            except OSError:
                log.exception("the remaining processes of server %s-%d cannot be ended now", *changed)
            yield self._look(*changed)

    def _track(self, id: str, attempt: int) -> None:
        try:
            records = self._servers.records(id, attempt)
        except (OSError, ValueError):
            return  # the next full list tries again
        for found in records.values():
            if found is not None and found.pid not in self._watched and alive(found):
                self._watch_launcher(id, attempt, found)

    def _watch_launcher(self, id: str, attempt: int, found: record.Record) -> None:
        descriptor = open_process(found.pid, found.start_time)
        if descriptor is None:
            self._changed.put_nowait((id, attempt))
            return
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._watched.pop(found.pid, None)
            self._changed.put_nowait((id, attempt))

        self._watched[found.pid] = descriptor
        loop.add_reader(descriptor, ended)

    def close(self) -> None:
        """Stop watching."""
        for descriptor in self._watched.values():
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            ranks = self._servers.records(id, attempt)
        except (OSError, ValueError) as error:
            raise ClusterUnavailable(f"the logs of server {id}-{attempt} cannot be read: {error}") from error
        for rank in ranks:
            folder = self._servers.folder(id, attempt) / str(rank) / record.LOGS
            for name in LOGS:
                text = await asyncio.to_thread(tail, folder / f"{name}.log", lines)
                if text:
                    found[name if rank == 0 else f"{name}-{rank}"] = text
        return found
