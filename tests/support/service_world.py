"""A whole reservation service on one loop: real store and real HTTP to a small Hub, servers in memory.

Cluster, Hub and store file outlive the service, as in production. A test can stop and start the service
repeatedly.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import memory_cluster
from fakehub import TOKEN, FakeHub
from gpudev_hub.clock import Clock
from gpudev_hub.core import ids
from gpudev_hub.core.model import Millis, Owner, Reservation
from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.core.ports import Store
from gpudev_hub.core.request import Ask
from gpudev_hub.failpoints import Failpoint, nothing
from gpudev_hub.service.context import Adapters
from gpudev_hub.service.hubclient import HubClient
from gpudev_hub.service.questions import Github
from gpudev_hub.service.service import Service
from gpudev_hub.stores.sqlite.store import SqliteStore
from memory_cluster import Launches, MemoryCluster

ALICE = Owner("local:alice", "alice", "alice")
BOB = Owner("local:bob", "bob", "bob")
POOL = PoolSettings(name=memory_cluster.POOL, gpus_per_node=8, images=("base", "nightly"), simulated=True)
POLICY = Policy(pools=(POOL,))


class Died(BaseException):
    """The error that a failpoint raises, instead of ending the process."""


class SteppingClock(Clock):
    """Real time, which a test can move forward."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._moved = asyncio.Event()
        super().__init__(monotonic=lambda: time.monotonic() + self._ahead)

    def advance(self, by: Millis) -> None:
        """Move the time forward at once."""
        self._ahead += by / 1000
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait(self, event: asyncio.Event, until: Millis | None) -> None:
        while not event.is_set() and (until is None or until > self.now()):
            tasks = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._moved.wait())]
            try:
                left = None if until is None else (until - self.now()) / 1000
                await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def in_a_file(folder: Path, failpoint: Failpoint) -> Store:
    """Return the store of a hub on one machine."""
    return SqliteStore(folder / "service.sqlite", failpoint)


@dataclass
class ServiceWorld:
    """The service with its surroundings. A test can start it, use ``service``, crash it and restart it."""

    folder: Path
    policy: Policy = POLICY
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    clock: SteppingClock = field(default_factory=SteppingClock)
    launches: Launches = field(default_factory=Launches)
    sshd_answers: bool = True
    github: Github | None = None
    lab_shared: bool = True
    make_store: Callable[[Path, Failpoint], Store] = in_a_file
    wrap: Callable[[Store], Store] = lambda store: store
    probed: list[tuple[str, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hub = FakeHub(self.cluster)
        self.hub.users |= {"alice", "bob"}
        self.hub.up()
        self._random = random.Random(7)
        self._service: Service | None = None
        self._client: HubClient | None = None

    def seed(self, seed: int) -> None:
        """Set the seed of new ids. A restarted process with the same store needs different ids."""
        self._random = random.Random(seed)

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    async def start(self, failpoint: Failpoint = nothing) -> Service:
        self._client = HubClient(self.hub.api, TOKEN)
        adapters = Adapters(
            policy=self.policy,
            store=self.wrap(self.make_store(self.folder, failpoint)),
            cluster=self.cluster,
            hub=self._client,
            launches=self.launches,
            probe=self._probe,
            clock=self.clock,
            ids=lambda: ids.mint(self._random.randbytes(ids.ENTROPY)),
            lab_shared=self.lab_shared,
            failpoint=failpoint,
        )
        self._service = self.hub.service = Service(adapters, self.github)
        await self._service.start()
        return self._service

    async def _probe(self, host: str, port: int, alias: str) -> bool:
        self.probed.append((host, port, alias))
        return self.sshd_answers

    async def stop(self) -> None:
        """Stop the service. Cluster, Hub and store keep running."""
        if self._service is not None:
            await self._service.stop()
            self._service = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def restart(self) -> Service:
        await self.stop()
        return await self.start()

    async def close(self) -> None:
        await self.stop()
        await self.hub.down()

    async def reserve(self, owner: Owner = ALICE, gpus: int = 8, **fields: Any) -> Reservation:
        ask = Ask(gpus=gpus, nodes=fields.pop("nodes", None), hours=fields.pop("hours", None))
        return await self.service.submit(owner, replace(ask, **fields))

    async def coming_up(self, **ask: Any) -> Reservation:
        """Return a reservation of alice whose server never becomes ready. Neither do later servers."""
        self.hub.pending = True
        record = await self.reserve(**ask)
        await self.until(lambda: (record.id, 1) in self.cluster.running)
        return record

    async def until(self, condition: Callable[[], Any], what: str = "", timeout: float = 10) -> None:
        """Wait until ``condition`` is true."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what or 'the condition'} did not come: {self.describe()}"
            await asyncio.sleep(0.002)

    async def becomes(self, id: str, state: str, timeout: float = 10) -> Reservation:
        """Wait until the reservation, live or ended, is in this state."""
        deadline = time.monotonic() + timeout
        while True:
            record = await self.service.reads.find(id)
            if record is not None and record.state == state:
                return record
            assert time.monotonic() < deadline, f"{id} did not become {state}: {self.describe()}"
            await asyncio.sleep(0.002)

    def describe(self) -> str:
        view = self.service.view
        lines = [f"{r.id} {r.state}/{r.attempt} {r.server} {r.detail!r}" for r in view.reservations.values()]
        lines += [f"claim {c.key} {c.state} {c.presence} seen={c.seen}" for c in view.claims.values()]
        return "; ".join(
            [*lines[:40], f"running {list(self.cluster.running)}", f"calls {self.hub.calls[-10:]}"]
        )
