"""The reservation service of one machine: every part of it put together."""

from __future__ import annotations

import os
import secrets

from . import failpoints
from .clock import Clock
from .cluster.local import LocalCluster
from .cluster.pools import find_gpus, local_policy
from .cluster.servers import LocalServers
from .core.ids import ENTROPY, mint
from .core.model import Owner
from .listening import listen_until_told
from .service.hubclient import HubClient
from .service.service import Service
from .settings import LOOPBACK, PREFIX, Settings
from .ssh.access import Access
from .ssh.ca import HostCA
from .ssh.directory import LocalDirectory
from .ssh.launches import Launches, ServerTokens, keep_secret
from .ssh.probe import SshdProbe
from .stores.sqlite import SqliteStore
from .web.app import make_gate_app, make_public_app, make_server, make_site
from .web.auth import HubUser, make_auth
from .web.pages import pages
from .web.settings import WebSettings


def subject_of(user: str) -> str:
    """Who a user of this machine's Hub is to the queue."""
    return f"local:{user}"


def owner_of(user: HubUser) -> Owner:
    """The same, complete."""
    return Owner(subject_of(user.name), user.name, user.name)


async def serve(settings: Settings) -> None:
    """The reservation service of this machine, until SIGTERM. Raises what ended it otherwise."""
    ports = settings.ports()
    clock = Clock()
    gpus = find_gpus(settings)
    policy = local_policy(gpus, settings)
    service_url = f"http://{LOOPBACK}:{ports.service}{PREFIX}"
    hub_api = f"http://{LOOPBACK}:{ports.hub}/hub/api"
    private = settings.state / "ssh"
    ca = HostCA(private)
    tokens = ServerTokens(keep_secret(settings.state / "secrets" / "server-tokens"))
    servers = LocalServers(settings.servers)
    cluster = LocalCluster(servers, gpus, policy.pools[0].name)
    hub = HubClient(hub_api, settings.secret("service-token"))
    service = Service(
        policy=policy,
        store=SqliteStore(settings.database, failpoints.from_environment(os.environ)),
        cluster=cluster,
        hub=hub,
        launches=Launches(
            private / "launches",
            ca=ca,
            tokens=tokens,
            policy=policy,
            service_url=service_url,
        ),
        probe=SshdProbe(ca.public),
        clock=clock,
        ids=lambda: mint(secrets.token_bytes(ENTROPY)),
        failpoint=failpoints.from_environment(os.environ),
    )
    access = Access(
        service.view,
        LocalDirectory(subject_of(settings.user), settings.home / ".ssh", private / "demo"),
        known_hosts=ca.known_hosts,
        user=settings.account_shell()[0],
        now=clock.now,
    )
    auth = make_auth(
        hub_api=hub_api,
        api_token=settings.secret("service-token"),
        cookie_secret=settings.secret("service-cookies").encode(),
        owner=owner_of,
        seen=service.logged_in,
        now=clock.now,
        prefix=PREFIX,
    )
    site = make_site(
        service,
        auth=auth,
        access=access,
        settings=WebSettings(public_url=f"{settings.url}/", prefix=PREFIX),
        server_token_ok=tokens.verify,
        gate_secret=settings.secret("gate"),
        home=lambda owner: str(settings.home_of(owner.hub_user)),
    )
    public = make_server(make_public_app(site, pages()), behind_proxy=True)
    gate = make_server(make_gate_app(site), behind_proxy=False)
    try:
        await listen_until_told(service, [(public, LOOPBACK, ports.service), (gate, LOOPBACK, ports.gate)])
    finally:
        await hub.close()
        cluster.close()
