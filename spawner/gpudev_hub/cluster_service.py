"""The reservation service of a cluster: every part of it put together."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from kubernetes_asyncio import client, config

from . import failpoints
from .auth.check import check_github
from .auth.github import GithubClient
from .auth.parts import GithubParts, people_of
from .clock import Clock
from .cluster import ec2
from .cluster.ec2 import CapacityBlocks
from .cluster.kubernetes import KubernetesCluster
from .cluster_doctor import Doctor
from .cluster_settings import ClusterSettings
from .core.ids import ENTROPY, mint
from .core.model import Owner
from .core.views.doctor import Finding
from .github_service import access_by, owner_by, with_github
from .hub.pods import ACCOUNT, HOME
from .listening import listen_until_told
from .origins import origin
from .server.private import write
from .service.hubclient import HubClient
from .service.service import Service
from .settings import PREFIX
from .ssh.access import Access, SshBastion
from .ssh.bastion import HOST_KEY_ALIAS, Bastion
from .ssh.ca import HostCA
from .ssh.launches import Launches, ServerTokens
from .ssh.probe import SshdProbe
from .stores.dynamodb.calls import connect
from .stores.dynamodb.store import DynamoStore
from .web.app import make_gate_app, make_metrics_app, make_public_app, make_server, make_site
from .web.auth import HubUser, make_auth
from .web.login import Logins
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


async def examine(settings: ClusterSettings) -> list[Finding]:
    """Check the installation without the service, as its account."""
    await load_kubernetes()
    now = Clock().now
    hub = HubClient(settings.hub_api, settings.word("service-token"))
    client_of_github = GithubClient(settings.access(), now=now)
    table_client = connect(region=settings.store.region, endpoint_url=settings.store.endpoint)
    async with client.ApiClient() as api:
        try:
            return await Doctor(
                settings,
                client.CoreV1Api(api),
                table_client,
                hub,
                lambda: check_github(client_of_github),
                now,
            ).look()
        finally:
            await hub.close()
            await client_of_github.close()


async def serve(settings: ClusterSettings) -> None:
    """The reservation service of this cluster, until SIGTERM. Raises what ended it otherwise."""
    await load_kubernetes()
    async with client.ApiClient() as api:
        await _serve(settings, client.CoreV1Api(api))


async def _serve(settings: ClusterSettings, api: client.CoreV1Api) -> None:
    clock = Clock()
    private = Path(settings.state) / "ssh"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    github = GithubParts.of(settings.access(), now=clock.now, folder=private)
    policy = with_github(settings.make_policy(), github)
    write(private / "host_ca", settings.secret("host-ca").decode())
    ca = HostCA(private)
    tokens = ServerTokens(settings.secret("server-tokens"))
    region = settings.ec2.region or settings.store.region
    blocks = CapacityBlocks(lambda: ec2.connect(region, settings.ec2.endpoint), region, clock)
    cluster = KubernetesCluster(
        api, settings.namespace, clock.now, blocks, policy_probe=settings.policy_probe
    )
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
        github=access_by(github, settings.policy.contact),
        lab_shared=settings.subdomains,
        failpoint=failpoint,
    )
    web = WebSettings(
        public_url=f"{settings.public_url.rstrip('/')}/",
        prefix=PREFIX,
        subdomains=settings.subdomains,
        lab_shared=settings.subdomains,
        contact=settings.policy.contact,
    )
    at = settings.bastion
    way = None if at is None else SshBastion(at.host, at.port, at.user, HOST_KEY_ALIAS)
    bastion = None
    if way is not None:
        bastion = Bastion(
            service.view,
            github.keys,
            address=way,
            now=clock.now,
            on_machine=clock.on_machine,
            refusal=lambda owner: service.access.people.verdict(owner.subject).message,
            let_in=service.cuts.let_in,
        )
    site = make_site(
        service,
        auth=make_auth(
            hub_api=settings.hub_api,
            api_token=settings.word("service-token"),
            cookie_secret=settings.secret("service-cookies"),
            owner=owner_by(service, owner_of),
            seen=service.logged_in,
            now=clock.now,
            prefix=PREFIX,
            host=origin(settings.public_url) if settings.subdomains else "",
            secure=settings.public_url.startswith("https:"),
        ),
        access=Access(
            service.view,
            github.keys,
            known_hosts=ca.known_hosts,
            user=ACCOUNT,
            allowed=lambda subject: service.access.people.verdict(subject).allowed,
            now=clock.now,
            on_machine=clock.on_machine,
            let_in=service.cuts.let_in,
            bastion=way,
        ),
        settings=web,
        logins=Logins(hub, github.keys, web, clock.now),
        server_token_ok=tokens.verify,
        gate_secret=settings.word("gate"),
        home=lambda _: HOME,
        bastion=bastion,
        bastion_secret=settings.word("bastion-token") if bastion else "",
        github_check=github.check,
        doctor=Doctor(
            settings, api, table_client, hub, github.check, clock.now, service.view.nodes.values
        ).look,
        people=service.access.people,
        webhook_secret=github.settings.webhook_secret(),
    )
    public = make_server(
        make_public_app(site, pages()), behind_proxy=True, balancers=settings.balancer_networks()
    )
    gate = make_server(make_gate_app(site), behind_proxy=False)
    metrics = make_server(make_metrics_app(site), behind_proxy=False)
    listeners = [
        (public, ANY, settings.public_port),
        (gate, ANY, settings.gate_port),
        (metrics, ANY, settings.metrics_port),
    ]
    github.start(lambda: people_of(service.view))
    asking = asyncio.create_task(blocks.run(), name="capacity-blocks")
    try:
        await listen_until_told(service, listeners)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await hub.close()
        await github.close()
