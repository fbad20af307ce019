"""The reservation service of one machine."""

from __future__ import annotations

import os

from . import failpoints, local_bastion
from .auth.parts import GithubParts
from .clock import Clock
from .cluster.gpus import find_gpus, local_policy
from .cluster.local import LocalCluster
from .cluster.servers import LocalServers
from .core.model import Owner
from .settings import LOOPBACK, PREFIX, Settings
from .ssh.directory import KeyDirectory, LocalDirectory
from .ssh.launches import keep_secret
from .stores.sqlite.store import SqliteStore
from .web.auth import HubUser
from .web.settings import WebSettings
from .wiring import Installation, serve_installation


def subject_of(user: str) -> str:
    """Return the subject of a user of this machine's Hub."""
    return f"local:{user}"


def owner_of(user: HubUser) -> Owner:
    """Return the owner of reservations for a user of this machine's Hub."""
    return Owner(subject_of(user.name), user.name, user.name)


async def serve(settings: Settings) -> None:
    """Run the reservation service of this machine until SIGTERM. Raises any other cause of its end."""
    ports = settings.ports()
    clock = Clock()
    gpus = find_gpus(settings)
    private = settings.state / "ssh"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    github = None
    if settings.github is not None:
        github = GithubParts(settings.github, now=clock.now, folder=private)
    keys: KeyDirectory = LocalDirectory(subject_of(settings.user), settings.home / ".ssh", private / "demo")
    policy = local_policy(gpus, settings)
    cluster = LocalCluster(LocalServers(settings.servers), gpus, policy.pools[0].name)
    installation = Installation(
        clock=clock,
        policy=policy,
        store=SqliteStore(settings.database, failpoints.from_environment(os.environ)),
        cluster=cluster,
        github=github,
        keys=keys if github is None else github.keys,
        private=private,
        hub_token=settings.secret("service-token"),
        cookie_secret=settings.secret("service-cookies").encode(),
        gate_secret=settings.secret("gate"),
        server_tokens=keep_secret(settings.state / "secrets" / "server-tokens"),
        bastion_secret=settings.secret(local_bastion.SECRET) if settings.bastion else "",
        owner_of=owner_of,
        account=settings.account_shell()[0],
        home=lambda owner: str(settings.home_of(owner.hub_user)),
        hub_api=f"http://{LOOPBACK}:{ports.hub}/hub/api",
        service_url=f"http://{LOOPBACK}:{ports.service}{PREFIX}",
        web=WebSettings(
            public_url=f"{settings.url}/",
            prefix=PREFIX,
            subdomains=settings.subdomains,
            contact=settings.contact,
        ),
        address=LOOPBACK,
        public_port=ports.service,
        gate_port=ports.gate,
        bastion=local_bastion.address(settings, ports) if settings.bastion else None,
    )
    try:
        await serve_installation(installation)
    finally:
        cluster.close()
