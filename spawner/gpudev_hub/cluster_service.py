"""The reservation service of a cluster."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

from kubernetes_asyncio import client, config

from gpudev.wire import SshBastion

from . import failpoints
from .auth.check import check_github
from .auth.github import GithubClient
from .auth.parts import GithubParts
from .clock import Clock
from .cluster import ec2
from .cluster.ec2 import CapacityBlocks
from .cluster.kubernetes import KubernetesCluster
from .cluster_doctor import Doctor
from .cluster_settings import ClusterSettings
from .core.model import Owner
from .core.views.doctor import Finding
from .hub.pods import ACCOUNT, HOME
from .server.private import write
from .service.hubclient import HubClient
from .settings import PREFIX
from .ssh.bastion import HOST_KEY_ALIAS
from .stores.dynamodb.calls import connect
from .stores.dynamodb.store import DynamoStore
from .web.auth import HubUser
from .web.settings import WebSettings
from .wiring import Installation, serve_installation

ANY = "0.0.0.0"  # noqa: S104 (inside a pod, where network policies decide who can connect)


def owner_of(user: HubUser) -> Owner:
    """Return the owner of reservations for a user of the Hub."""
    return Owner(f"hub:{user.name}", user.name, user.name)


async def load_kubernetes() -> None:
    """Load the address and credentials of the API from the pod, or outside of pods from ``KUBECONFIG``."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        await config.load_kube_config()


async def examine(settings: ClusterSettings) -> list[Finding]:
    """Check the installation with the service's account. The service itself need not run."""
    await load_kubernetes()
    now = Clock().now
    hub = HubClient(settings.hub_api, settings.word("service-token"))
    client_of_github = GithubClient(settings.access(), now=now)
    table_client = connect(region=settings.store.region, endpoint_url=settings.store.endpoint)
    async with client.ApiClient() as api:
        try:
            check = partial(check_github, client_of_github)
            doctor = Doctor(settings, client.CoreV1Api(api), table_client, hub, check, now)
            return await doctor.look()
        finally:
            await hub.close()
            await client_of_github.close()


async def serve(settings: ClusterSettings) -> None:
    """Run the reservation service of this cluster until SIGTERM. Raises any other cause of its end."""
    await load_kubernetes()
    async with client.ApiClient() as api:
        await _serve(settings, client.CoreV1Api(api))


async def _serve(settings: ClusterSettings, api: client.CoreV1Api) -> None:
    clock = Clock()
    private = Path(settings.state) / "ssh"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(private / "host_ca", settings.secret("host-ca").decode())
    github = GithubParts(settings.access(), now=clock.now, folder=private)
    region = settings.ec2.region or settings.store.region
    blocks = CapacityBlocks(lambda: ec2.connect(region, settings.ec2.endpoint), region, clock)
    cluster = KubernetesCluster(
        api, settings.namespace, clock.now, blocks, policy_probe=settings.policy_probe
    )
    table_client = connect(region=settings.store.region, endpoint_url=settings.store.endpoint)
    at = settings.bastion
    way = None
    if at is not None:
        way = SshBastion(host=at.host, port=at.port, user=at.user, host_key_alias=HOST_KEY_ALIAS)
    installation = Installation(
        clock=clock,
        policy=settings.make_policy(),
        store=DynamoStore(settings.store.table, table_client, failpoints.from_environment(os.environ)),
        cluster=cluster,
        github=github,
        keys=github.keys,
        private=private,
        hub_token=settings.word("service-token"),
        cookie_secret=settings.secret("service-cookies"),
        gate_secret=settings.word("gate"),
        server_tokens=settings.secret("server-tokens"),
        bastion_secret=settings.word("bastion-token") if settings.bastion else "",
        owner_of=owner_of,
        account=ACCOUNT,
        home=lambda _: HOME,
        devices=cluster.devices,
        hub_api=settings.hub_api,
        service_url=settings.service_base,
        web=WebSettings(
            public_url=f"{settings.public_url.rstrip('/')}/",
            prefix=PREFIX,
            subdomains=settings.subdomains,
            lab_shared=settings.subdomains,
            contact=settings.policy.contact,
        ),
        address=ANY,
        public_port=settings.public_port,
        gate_port=settings.gate_port,
        metrics_port=settings.metrics_port,
        balancers=settings.balancer_networks(),
        bastion=way,
        doctor=lambda hub, service: (
            Doctor(settings, api, table_client, hub, github.check, clock.now, service.view.nodes.values).look
        ),
    )
    asking = asyncio.create_task(blocks.run(), name="capacity-blocks")
    try:
        await serve_installation(installation)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
