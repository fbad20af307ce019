"""The reservation service of a cluster: every part of it put together."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from kubernetes_asyncio import client, config

from . import failpoints
from .clock import Clock
from .cluster.kubernetes import KubernetesCluster
from .cluster_settings import ClusterSettings
from .core.ids import ENTROPY, mint
from .core.model import Owner
from .hub.pods import ACCOUNT, HOME
from .listening import listen_until_told
from .server.private import write
from .service.hubclient import HubClient
from .service.service import Service
from .settings import PREFIX
from .ssh.access import Access
from .ssh.ca import HostCA
from .ssh.directory import KeyFolder
from .ssh.launches import Launches, ServerTokens
from .ssh.probe import SshdProbe
from .stores.dynamodb import DynamoStore
from .stores.dynamodb_calls import connect
from .web.app import make_gate_app, make_public_app, make_server, make_site
from .web.auth import HubUser, make_auth
from .web.pages import pages
from .web.settings import WebSettings

ANY = "0.0.0.0"  # noqa: S104 (inside a pod; network policies say who reaches it)


def owner_of(user: HubUser) -> Owner:
    """Who a user of the Hub is to the queue."""
    return Owner(f"hub:{user.name}", user.name, user.name)


async def load_kubernetes() -> None:
    """The API's address and credentials: those of the pod, else those that ``KUBECONFIG`` names."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        await config.load_kube_config()


async def serve(settings: ClusterSettings) -> None:
    """The reservation service of this cluster, until SIGTERM. Raises what ended it otherwise."""
    await load_kubernetes()
    async with client.ApiClient() as api:
        await _serve(settings, client.CoreV1Api(api))


async def _serve(settings: ClusterSettings, api: client.CoreV1Api) -> None:
    clock = Clock()
    policy = settings.make_policy()
    private = Path(settings.state) / "ssh"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(private / "host_ca", settings.secret("host-ca").decode())
    ca = HostCA(private)
    tokens = ServerTokens(settings.secret("server-tokens"))
    cluster = KubernetesCluster(api, settings.namespace, clock.now)
    hub = HubClient(settings.hub_api, settings.word("service-token"))
    table_client = connect(region=settings.store.region, endpoint_url=settings.store.endpoint)
    failpoint = failpoints.from_environment(os.environ)
    service = Service(
        policy=policy,
        store=DynamoStore(settings.store.table, table_client, failpoint),
        cluster=cluster,
        hub=hub,
        launches=Launches(
            private / "launches",
            ca=ca,
            tokens=tokens,
            policy=policy,
            service_url=settings.service_base,
            devices=cluster.devices,
        ),
        probe=SshdProbe(ca.public),
        clock=clock,
        ids=lambda: mint(secrets.token_bytes(ENTROPY)),
        failpoint=failpoint,
    )
    site = make_site(
        service,
        auth=make_auth(
            hub_api=settings.hub_api,
            api_token=settings.word("service-token"),
            cookie_secret=settings.secret("service-cookies"),
            owner=owner_of,
            seen=service.logged_in,
            now=clock.now,
            prefix=PREFIX,
        ),
        access=Access(
            service.view,
            KeyFolder(Path(settings.keys)),
            known_hosts=ca.known_hosts,
            user=ACCOUNT,
            now=clock.now,
        ),
        settings=WebSettings(public_url=f"{settings.public_url.rstrip('/')}/", prefix=PREFIX),
        server_token_ok=tokens.verify,
        gate_secret=settings.word("gate"),
        home=lambda _: HOME,
    )
    public = make_server(make_public_app(site, pages()), behind_proxy=True)
    gate = make_server(make_gate_app(site), behind_proxy=False)
    try:
        await listen_until_told(
            service, [(public, ANY, settings.public_port), (gate, ANY, settings.gate_port)]
        )
    finally:
        await hub.close()
