"""The reservation service of one machine: every part of it put together."""

from __future__ import annotations

import os
import secrets

from . import failpoints, local_bastion
from .auth.parts import GithubParts, people_of
from .clock import Clock
from .cluster.local import LocalCluster
from .cluster.pools import find_gpus, local_policy
from .cluster.servers import LocalServers
from .core.ids import ENTROPY, mint
from .core.model import Owner
from .github_service import access_by, owner_by, with_github
from .listening import listen_until_told
from .service.hubclient import HubClient
from .service.service import Service
from .settings import LOOPBACK, PREFIX, Settings
from .ssh.access import Access
from .ssh.bastion import Bastion
from .ssh.ca import HostCA
from .ssh.directory import KeyDirectory, LocalDirectory
from .ssh.launches import Launches, ServerTokens, keep_secret
from .ssh.probe import SshdProbe
from .stores.sqlite.store import SqliteStore
from .web.app import make_gate_app, make_public_app, make_server, make_site
from .web.auth import HubUser, make_auth
from .web.login import Logins
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
    private = settings.state / "ssh"
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    github = GithubParts.read(os.environ, now=clock.now, folder=private)
    policy = with_github(local_policy(gpus, settings), github)
    service_url = f"http://{LOOPBACK}:{ports.service}{PREFIX}"
    hub_api = f"http://{LOOPBACK}:{ports.hub}/hub/api"
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
        github=None if github is None else access_by(github, settings.contact),
        failpoint=failpoints.from_environment(os.environ),
    )
    directory: KeyDirectory = LocalDirectory(
        subject_of(settings.user), settings.home / ".ssh", private / "demo"
    )
    if github is not None:
        directory = github.keys
    way = local_bastion.address(settings, ports) if settings.bastion else None
    access = Access(
        service.view,
        directory,
        known_hosts=ca.known_hosts,
        user=settings.account_shell()[0],
        allowed=lambda subject: service.access.people.verdict(subject).allowed,
        now=clock.now,
        on_machine=clock.on_machine,
        let_in=service.cuts.let_in,
        bastion=way,
    )
    bastion = None
    if way is not None:
        bastion = Bastion(
            service.view,
            directory,
            address=way,
            now=clock.now,
            on_machine=clock.on_machine,
            refusal=lambda owner: service.access.people.verdict(owner.subject).message,
            let_in=service.cuts.let_in,
        )
    auth = make_auth(
        hub_api=hub_api,
        api_token=settings.secret("service-token"),
        cookie_secret=settings.secret("service-cookies").encode(),
        owner=owner_by(service, owner_of),
        seen=service.logged_in,
        now=clock.now,
        prefix=PREFIX,
        host=settings.url if settings.subdomains else "",
    )
    web = WebSettings(
        public_url=f"{settings.url}/",
        prefix=PREFIX,
        subdomains=settings.subdomains,
        contact=settings.contact,
    )
    site = make_site(
        service,
        auth=auth,
        access=access,
        settings=web,
        logins=Logins(hub, directory, web, clock.now),
        server_token_ok=tokens.verify,
        gate_secret=settings.secret("gate"),
        home=lambda owner: str(settings.home_of(owner.hub_user)),
        bastion=bastion,
        bastion_secret=settings.secret(local_bastion.SECRET) if bastion else "",
        github_check=None if github is None else github.check,
        people=None if github is None else service.access.people,
        webhook_secret=None if github is None else github.settings.webhook_secret(),
    )
    public = make_server(make_public_app(site, pages()), behind_proxy=True)
    gate = make_server(make_gate_app(site), behind_proxy=False)
    if github is not None:
        github.start(lambda: people_of(service.view))
    try:
        await listen_until_told(service, [(public, LOOPBACK, ports.service), (gate, LOOPBACK, ports.gate)])
    finally:
        await hub.close()
        if github is not None:
            await github.close()
        cluster.close()
