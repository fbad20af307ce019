"""The real service with its real listeners, and with an engine and a Hub in memory."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import httpx
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from fakehub import TOKEN, FakeHub
from gpudev.wire import SshAccess
from gpudev_hub.auth.check import Check
from gpudev_hub.clock import Clock
from gpudev_hub.core.model import Node, Owner, Reservation, State
from gpudev_hub.core.policy import Allowances, Policy, PoolSettings
from gpudev_hub.core.ports import Store
from gpudev_hub.core.views.doctor import Finding
from gpudev_hub.service.context import Adapters
from gpudev_hub.service.hubclient import HubClient
from gpudev_hub.service.questions import Github
from gpudev_hub.service.readiness import Report
from gpudev_hub.service.service import Service
from gpudev_hub.ssh.access import Access
from gpudev_hub.ssh.keys import PublicKey, RefusedKey
from gpudev_hub.ssh.launches import ServerTokens
from gpudev_hub.web import app
from gpudev_hub.web.app import PUBLIC, make_gate_app, make_metrics_app, make_public_app, make_server
from gpudev_hub.web.auth import Auth
from gpudev_hub.web.login import Logins
from gpudev_hub.web.openapi import document
from gpudev_hub.web.settings import Rate, WebSettings
from gpudev_hub.web.site import Site
from memory_cluster import Launches, MemoryCluster
from memory_store import MemoryStore

PREFIX = "/services/gpudev/"
SECRET = "the-hubs-own-secret-for-the-gate"
ROOMY = Rate(per_second=10_000, burst=100_000)
TOKENS = ServerTokens(b"k" * 32)
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""A context without certificates: tests use plain HTTP, and loading certificates takes long."""
POLICY = Policy(
    pools=(
        PoolSettings(
            "simulated", gpus_per_node=8, images=("default",), label="8 simulated GPUs", simulated=True
        ),
    ),
    allowances=Allowances(queued_requests=1000),
)
NODES = [Node("node-1", "simulated", 8, "here"), Node("node-2", "simulated", 8, "here")]


def local_owner(name: str) -> Owner:
    return Owner(subject=f"local:{name}", hub_user=name, login=name)


def new_ids() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"res-{next(numbers)}"


async def checked() -> list[Check]:
    """Return results of a check of GitHub: one that passed and one that failed."""
    return [Check("App", "gpudev"), Check("clock", "900 s behind", "Set the clock.")]


async def looked() -> list[Finding]:
    """Return results of a check of the installation: one that passed and one that failed."""
    return [Finding("store", "database", "it answers"), Finding("clock", "clock", "2 min behind", "Set it.")]


async def _answers(host: str, port: int, alias: str) -> bool:
    """Answer the probe as if every sshd proved its identity."""
    return True


class Keys:
    """Gives one key access to every server."""

    async def hosts(self, owner: Owner) -> SshAccess:
        return SshAccess(
            known_hosts="@cert-authority * ssh-ed25519 AAAA", hosts=[], identity_file=None, accepted_keys=[]
        )

    async def authorized_keys(self, id: str, fingerprint: str) -> list[str]:
        return ["ssh-ed25519 AAAA alice"] if fingerprint.endswith("A" * 43) else []


class Directory:
    """Whose SSH keys are whose, by subject."""

    def __init__(self) -> None:
        self.of: dict[str, list[PublicKey]] = {}
        self.refused: list[RefusedKey] = []
        self.identity: Path | None = None

    async def keys(self, owner: Owner) -> list[PublicKey]:
        return self.of.get(owner.subject, [])

    def known(self, owner: Owner) -> bool:
        return True

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        return self.refused

    async def identity_file(self, owner: Owner) -> Path | None:
        return self.identity


@dataclass
class Running:
    """The listeners of the service, and clients for them."""

    hub: FakeHub
    site: Site
    service: Service
    cluster: MemoryCluster
    url: str
    """Of the public listener with the prefix."""
    gate_url: str
    metrics_url: str
    """Of the listener for scrapers."""
    directory: Directory

    def client(self, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"token {token}"}
        return _client(self.url, headers=headers, **options)

    def gate(self, secret: str | None = SECRET) -> httpx.AsyncClient:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return _client(self.gate_url, headers=headers)

    async def scrape(self) -> str:
        """Return the metrics that a scraper gets without a token."""
        async with _client(self.metrics_url) as scraper:
            answer = await scraper.get("metrics")
            assert answer.status_code == 200, answer.text
            return answer.text

    async def until(self, id: str, seen: Callable[[Reservation], bool]) -> Reservation:
        """Wait until a reservation meets a condition."""
        deadline = time.monotonic() + 10
        while True:
            record = await self.service.reads.find(id)
            assert record is not None
            if seen(record):
                return record
            assert time.monotonic() < deadline, record
            await self.service.reads.wait_change(id, record.version, 0.2)

    async def make_ready(self, id: str) -> None:
        """Report, like the agents of a reservation's server, that all parts answer."""
        record = await self.until(id, lambda record: record.state in (State.STARTING, State.READY))
        for rank in range(len(record.allocation)):
            self.service.readiness.report(
                id, record.attempt, rank, Report(True if rank == 0 else None, True, "")
            )
        await self.until(id, lambda record: record.state is State.READY)

    async def gone(self, id: str) -> None:
        """Wait until a reservation has ended."""
        await self.until(id, lambda record: not record.live)


def _client(url: str, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=20, verify=PLAIN, **options)


@cache
def _document(prefix: str) -> dict[str, Any]:
    return document(PUBLIC, prefix)


@contextmanager
def _quickly() -> Iterator[None]:
    """Do the slowest steps of the service's start once for all tests."""
    plain = partial(httpx.AsyncClient, verify=PLAIN)
    with (
        patch.object(httpx, "AsyncClient", plain),
        patch.object(app, "document", lambda _, prefix: _document(prefix)),
    ):
        yield


def listen(server: HTTPServer) -> int:
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    port: int = sockets[0].getsockname()[1]
    return port


@asynccontextmanager
async def running(
    pages: Any = (),
    store: Store | None = None,
    policy: Policy = POLICY,
    github: Github | None = None,
    webhook_secret: str | None = None,
    nodes: list[Node] = NODES,
    ids: Callable[[], str] | None = None,
    clock: Clock | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Run the service's listeners and a Hub. ``changes`` are fields of ``WebSettings``."""
    cluster = MemoryCluster()
    cluster.node_list = list(nodes)
    cluster.log = {"jupyter": "serving\n", "sshd": "listening\n"}
    hub = FakeHub(cluster)
    hub.reports = False
    hub.users |= {"alice", "bob", "olga", "carol", "dave"}
    hub.up()
    settings = replace(
        WebSettings(
            public_url="http://127.0.0.1:8000/",
            writes=ROOMY,
            reads=ROOMY,
            logins=ROOMY,
            login_failures=ROOMY,
        ),
        **changes,
    )
    directory = Directory()
    with _quickly():
        hub_client = HubClient(hub.api, TOKEN)
    adapters = Adapters(
        policy=policy,
        store=store or MemoryStore(),
        cluster=cluster,
        hub=hub_client,
        launches=Launches(),
        probe=_answers,
        clock=clock or Clock(),
        ids=ids or new_ids(),
    )
    hub.service = service = Service(adapters, github)
    hub.subject_of = lambda user: (service.access.people.owner_of(user) or local_owner(user)).subject
    with _quickly():
        auth = Auth(
            hub_api=hub.api,
            api_token=TOKEN,
            cookie_secret=b"x" * 32,
            owner=lambda user: service.access.people.owner_of(user.name) or local_owner(user.name),
            seen=service.logged_in,
            now=service.clock.now,
            settings=settings,
        )
    site = Site(
        service=service,
        auth=auth,
        access=cast(Access, Keys()),
        settings=settings,
        logins=Logins(hub_client, directory, settings, service.clock.now),
        server_token_ok=TOKENS.verify,
        gate_secret=SECRET,
        home=lambda person: f"/home/{person.hub_user}",
        webhook_secret=webhook_secret,
    )
    with _quickly():
        public = make_server(make_public_app(site, pages), behind_proxy=False)
    gate = make_server(make_gate_app(site), behind_proxy=False)
    metrics = make_server(make_metrics_app(site), behind_proxy=False)
    await service.start()
    try:
        here = "http://127.0.0.1"
        yield Running(
            hub,
            site,
            service,
            cluster,
            url=f"{here}:{listen(public)}{PREFIX}",
            gate_url=f"{here}:{listen(gate)}/",
            metrics_url=f"{here}:{listen(metrics)}/",
            directory=directory,
        )
    finally:
        for server in (public, gate, metrics):
            server.stop()
            await server.close_all_connections()
        await auth.tokens.close()
        await service.stop()
        await hub_client.close()
        await hub.down()
        await asyncio.sleep(0)


async def log_in(run: Running, browser: httpx.AsyncClient, token: str, page: str = "pool") -> httpx.Response:
    """Log in as a browser does: service page → Hub → back with a code → service page."""
    sent = await browser.get(page)
    assert sent.status_code == 302
    there = urlsplit(sent.headers["Location"])
    assert there.path == "/hub/api/oauth2/authorize"
    asked = parse_qs(there.query)
    assert asked["client_id"] == ["service-gpudev"]
    assert asked["redirect_uri"] == [f"{PREFIX}oauth_callback"]
    assert asked["code_challenge_method"] == ["S256"]
    run.hub.codes["the-code"] = token
    back = await browser.get("oauth_callback", params={"code": "the-code", "state": asked["state"][0]})
    assert back.status_code == 302, back.text
    for cookie in back.headers.get_list("Set-Cookie"):
        assert "SameSite=Lax" in cookie or "expires=" in cookie.lower(), cookie
    assert any("httponly" in c.lower() for c in back.headers.get_list("Set-Cookie") if "service-gpudev=" in c)
    return await browser.get(browser.base_url.join(back.headers["Location"]))
