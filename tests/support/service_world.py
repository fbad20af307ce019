"""A whole reservation service on one loop: real store and real HTTP to a small Hub, servers in memory.

Cluster, Hub and store file outlive the service, as they do in life: ``stop`` and ``start`` come as often as
a test likes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from gpudev_hub.clock import Clock
from gpudev_hub.core import ids
from gpudev_hub.core.gate import AdmitRequest, Deleted, Launch, SshMaterial, StopAsked, Verdict
from gpudev_hub.core.model import Claim, Millis, Node, Owner, Presence, Reservation
from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.core.ports import ClusterUnavailable, ServerSight, Store
from gpudev_hub.core.request import Ask
from gpudev_hub.failpoints import Failpoint, nothing
from gpudev_hub.service.context import Adapters
from gpudev_hub.service.hubclient import HubClient
from gpudev_hub.service.questions import Github
from gpudev_hub.service.readiness import Report
from gpudev_hub.service.service import Service
from gpudev_hub.stores.sqlite.store import SqliteStore

TOKEN = "service-token"
ALICE = Owner("local:alice", "alice", "alice")
BOB = Owner("local:bob", "bob", "bob")
POOL = PoolSettings(name="h100", gpus_per_node=8, images=("base", "nightly"), simulated=True)
POLICY = Policy(pools=(POOL,))


class Died(BaseException):
    """What a failpoint raises in place of the end of the process."""


class SteppingClock(Clock):
    """Real time, and more of it when a test says so."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._moved = asyncio.Event()
        super().__init__(monotonic=lambda: time.monotonic() + self._ahead)

    def advance(self, by: Millis) -> None:
        """So much time passes at once."""
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


class MemoryCluster:
    """Nodes and servers that exist because a test says so."""

    def __init__(self, nodes: int = 2, gpus: int = 8) -> None:
        self.node_list = [Node(f"node-{i + 1}", POOL.name, gpus, "zone-a") for i in range(nodes)]
        self.running: dict[tuple[str, int], ServerSight] = {}
        self.away = False
        self.deaf = False
        """True: the watch reports nothing."""
        self.ends: dict[tuple[str, int], ServerSight] = {}
        """How servers ended, as long as anything tells."""
        self.removed: list[tuple[str, int]] = []
        self.ever: list[tuple[str, int]] = []
        self._watchers: list[asyncio.Queue[ServerSight]] = []
        self._ports = itertools.count(20_000)

    def launch(self, id: str, attempt: int, ranks: int) -> None:
        """Servers appear; the same ones again if they are there."""
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
        """The server ends, or one rank of it."""
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

    def report(self, sight: ServerSight) -> None:
        """What its watch says, true or not."""
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
        self.kill(id, attempt, "removed")

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """How a server ended is forgotten, unless it holds slots."""
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
        return {"jupyter": f"{id}/{attempt} up\n" * lines}


class SpawningHub:
    """The Hub's REST for named servers: asks the gate, starts servers in the cluster, fails on demand."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster
        self.service: Service | None = None
        self.users = {"alice", "bob"}
        self.failure: tuple[int, str] | None = None
        """Status and message of the answer to every request."""
        self.refuses: str | None = None
        """The spawner fails with these words."""
        self.stops = True
        """False: it says it has stopped a server, and has not."""
        self.before_answer: Callable[[str], Awaitable[None]] | None = None
        """What happens between a start and the answer that it runs."""
        self.before_stop: Callable[[], Awaitable[None]] | None = None
        """What happens before a DELETE is done."""
        self.tokens: dict[str, list[dict[str, str]]] = {}
        """Tokens of each user, as the Hub lists them."""
        self.reports = True
        """Whether servers come up so far that their agents report."""
        self.pending = False
        """True: every start is answered that it is under way."""
        self.rows: dict[str, int] = {}
        """Servers that the Hub runs, with their attempts."""
        self.forgotten: set[str] = set()
        """Servers that somebody had it remove."""
        self.calls: list[tuple[str, str]] = []
        self.shares: dict[str, set[str]] = {}
        """Guests of servers; a server that is made anew has none."""
        self.subject_of: Callable[[str], str] = lambda user: f"local:{user}"
        self._sockets = bind_sockets(0, "127.0.0.1")
        self.port: int = self._sockets[0].getsockname()[1]
        self._server: HTTPServer | None = None
        self.up()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub/api"

    def up(self) -> None:
        """Listen (again)."""
        if not self._sockets:
            self._sockets = bind_sockets(self.port, "127.0.0.1")
        handlers: list[Any] = [
            (r"/hub/api/users/([^/]+)/servers/([^/]+)", _Servers, {"hub": self}),
            (r"/hub/api/users/([^/]+)/tokens(?:/([^/]+))?", _Tokens, {"hub": self}),
            (r"/hub/api/users", _Users, {"hub": self}),
            (r"/hub/api/users/([^/]+)", _User, {"hub": self}),
            (r"/hub/api/shares/([^/]+)/([^/]+)", _Shares, {"hub": self}),
        ]
        self._server = HTTPServer(Application(handlers, log_function=lambda handler: None))
        self._server.add_sockets(self._sockets)

    async def down(self) -> None:
        """Connections are refused from now on."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
        self._server, self._sockets = None, []

    async def spawn(self, user: str, id: str) -> int:
        """The spawner's start; the status of the answer."""
        assert self.service is not None
        asked = AdmitRequest(self.subject_of(user), user, user, id, form=False)
        admission = await self.service.gate.admit(asked)
        if admission.verdict is not Verdict.START or admission.launch is None:
            raise HTTPError(409, log_message=admission.message)
        launch = admission.launch
        if self.pending:
            self.cluster.launch(id, launch.attempt, len(launch.allocation))
            return 202
        if self.rows.get(id) == launch.attempt and (id, launch.attempt) in self.cluster.running:
            raise HTTPError(400, log_message=f"{user}:{id} is already running")
        if (id, launch.attempt) not in self.cluster.running:
            self.cluster.launch(id, launch.attempt, len(launch.allocation))
        self.rows[id] = launch.attempt
        if self.reports:
            await self.report(id, launch.attempt, len(launch.allocation))
        if self.before_answer is not None:
            await self.before_answer(id)
        return 201

    async def report(self, id: str, attempt: int, ranks: int = 1) -> None:
        """The agents of a server find it well."""
        assert self.service is not None
        for rank in range(ranks):
            self.service.readiness.report(id, attempt, rank, Report(True if rank == 0 else None, True, ""))

    async def stop(self, id: str, *, user: bool) -> bool:
        """The spawner's stop; whether it stopped."""
        assert self.service is not None
        if id not in self.rows:
            return False
        attempt = self.rows.pop(id)
        record = await self.service.reads.find(id)
        assert record is not None
        if not (await self.service.gate.stop_asked(StopAsked(record.owner.subject, id, user))).stop:
            return False
        if self.stops:
            self.cluster.kill(id, attempt, "stopped")
        return True

    async def deleted(self, user: str, id: str) -> None:
        """What the spawner says of a server that was deleted: by the service, or in the Hub."""
        assert self.service is not None
        self.forgotten.add(id)
        await self.service.gate.deleted(Deleted(self.subject_of(user), id))


class _Servers(RequestHandler):
    def initialize(self, hub: SpawningHub) -> None:
        self.hub = hub

    def prepare(self) -> None:
        if self.request.headers.get("Authorization") != f"token {TOKEN}":
            raise HTTPError(403)
        if self.hub.failure is not None:
            raise HTTPError(self.hub.failure[0], log_message=self.hub.failure[1])
        self.hub.calls.append((str(self.request.method), self.path_args[1]))
        if self.path_args[0] not in self.hub.users:
            raise HTTPError(404, log_message="no such user")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1]
        self.finish(json.dumps({"status": status_code, "message": getattr(error, "log_message", str(error))}))

    async def post(self, user: str, id: str) -> None:
        assert json.loads(self.request.body) == {}
        if self.hub.refuses is not None:
            raise HTTPError(500, log_message=self.hub.refuses)
        self.set_status(await self.hub.spawn(user, id))

    async def delete(self, user: str, id: str) -> None:
        if self.hub.before_stop is not None:
            await self.hub.before_stop()
        await self.hub.stop(id, user=True)  # the real one does not tell whose wish a DELETE is
        if json.loads(self.request.body)["remove"]:
            await self.hub.deleted(user, id)
        self.set_status(204)


class _Tokens(RequestHandler):
    def initialize(self, hub: SpawningHub) -> None:
        self.hub = hub

    def prepare(self) -> None:
        if self.hub.failure is not None:
            raise HTTPError(self.hub.failure[0])

    def get(self, user: str, _: str | None) -> None:
        if user not in self.hub.users:
            raise HTTPError(404)
        self.finish({"api_tokens": self.hub.tokens.get(user, [])})

    def delete(self, user: str, id: str) -> None:
        mine = self.hub.tokens[user]
        self.hub.tokens[user] = [token for token in mine if token["id"] != id]
        self.set_status(204 if len(mine) > len(self.hub.tokens[user]) else 404)


class _Users(RequestHandler):
    def initialize(self, hub: SpawningHub) -> None:
        self.hub = hub

    def get(self) -> None:
        if self.hub.failure is not None:
            raise HTTPError(self.hub.failure[0])
        user = {"name": "all", "servers": {name: {} for name in self.hub.rows}}
        self.finish({"items": [user], "_pagination": {"next": None}})


class _User(RequestHandler):
    def initialize(self, hub: SpawningHub) -> None:
        self.hub = hub

    def get(self, user: str) -> None:
        if self.hub.failure is not None:
            raise HTTPError(self.hub.failure[0])
        if user not in self.hub.users:
            raise HTTPError(404)
        self.finish({"name": user})


class _Shares(RequestHandler):
    def initialize(self, hub: SpawningHub) -> None:
        self.hub = hub

    def prepare(self) -> None:
        if self.request.headers.get("Authorization") != f"token {TOKEN}":
            raise HTTPError(403)
        if self.hub.failure is not None:
            raise HTTPError(self.hub.failure[0])
        if self.path_args[1] not in self.hub.rows:
            raise HTTPError(404)
        self.guests = self.hub.shares.setdefault(self.path_args[1], set())

    def get(self, _: str, __: str) -> None:
        items = [{"user": {"name": name}} for name in sorted(self.guests)]
        self.finish({"items": items, "_pagination": {"next": None}})

    def post(self, user: str, id: str) -> None:
        body = json.loads(self.request.body)
        assert body["scopes"] == [f"access:servers!server={user}/{id}"]
        if body["user"] not in self.hub.users:
            self.set_status(400)
            self.finish({"message": f"No such user: {body['user']}"})
            return
        self.guests.add(body["user"])
        self.finish({})

    def patch(self, _: str, __: str) -> None:
        self.guests.discard(json.loads(self.request.body)["user"])
        self.finish({})


class Launches:
    """Launches without secrets."""

    def __init__(self) -> None:
        self.delay = 0.0

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """There is nothing to clear away."""

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


def in_a_file(folder: Path, failpoint: Failpoint) -> Store:
    """The store of a machine without a cluster."""
    return SqliteStore(folder / "service.sqlite", failpoint)


@dataclass
class ServiceWorld:
    """Start it, use ``service``, crash it, start it again."""

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
        self.hub = SpawningHub(self.cluster)
        self._random = random.Random(7)
        self._service: Service | None = None
        self._client: HubClient | None = None

    def seed(self, seed: int) -> None:
        """Ids from now on; a process that goes on with the same store needs others."""
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
        """The service ends; the rest of the world goes on."""
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
        """A reservation of Alice's whose server is there and gets no further; nor does any that follows."""
        self.hub.pending = True
        record = await self.reserve(**ask)
        await self.until(lambda: (record.id, 1) in self.cluster.running)
        return record

    async def until(self, condition: Callable[[], Any], what: str = "", timeout: float = 10) -> None:
        """Return when ``condition`` holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what or 'the condition'} did not come: {self.describe()}"
            await asyncio.sleep(0.002)

    async def becomes(self, id: str, state: str, timeout: float = 10) -> Reservation:
        """Return when the reservation, live or ended, is in this state."""
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
