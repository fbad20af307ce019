"""Builds and runs the reservation service of an installation, with its listeners."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from gpudev.wire import SshBastion

from . import failpoints
from .auth.parts import GithubParts, people_of
from .clock import Clock
from .core.ids import ENTROPY, mint
from .core.model import Owner
from .core.policy import Policy
from .core.ports import Cluster, Store
from .core.views.doctor import Finding
from .service.context import Adapters
from .service.hubclient import HubClient
from .service.questions import Github
from .service.service import Service
from .ssh.access import Access
from .ssh.bastion import Bastion
from .ssh.ca import HostCA
from .ssh.directory import KeyDirectory
from .ssh.launches import Launches, ServerTokens
from .ssh.probe import SshdProbe
from .web.app import make_gate_app, make_metrics_app, make_public_app, make_server
from .web.auth import Auth, HubUser
from .web.forwarded import Network
from .web.login import Logins
from .web.pages import pages
from .web.settings import WebSettings
from .web.site import Site

DoctorMaker = Callable[[HubClient, Service], Callable[[], Awaitable[list[Finding]]]]


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Everything that differs between one machine and a cluster."""

    clock: Clock
    policy: Policy
    """The policy, without the settings for GitHub."""
    store: Store
    cluster: Cluster
    github: GithubParts | None
    """``None``: every user of the Hub has access."""
    keys: KeyDirectory
    private: Path
    """The folder of the host CA and of the files that servers get when they start."""
    hub_token: str
    """The service's token for the Hub."""
    cookie_secret: bytes
    gate_secret: str
    server_tokens: bytes
    """Key from which the token of each server is derived."""
    bastion_secret: str = ""
    owner_of: Callable[[HubUser], Owner]
    """Returns the owner of a Hub user's reservations, if GitHub is not used."""
    account: str
    """The account that servers run as."""
    home: Callable[[Owner], str]
    """Returns the path of an owner's home in a server."""
    devices: Callable[[str], dict[str, str]] = lambda _: {}
    """Returns a node's devices other than GPUs, by resource name, for servers on several whole nodes."""
    hub_api: str
    service_url: str
    """Address of the service for servers, with its prefix."""
    web: WebSettings
    address: str
    """The address on which all listeners listen."""
    public_port: int
    gate_port: int
    metrics_port: int | None = None
    """Port for metrics without a login. ``None``: no such listener."""
    balancers: Sequence[Network] = ()
    """Networks of load balancers in front of the proxy."""
    bastion: SshBastion | None = None
    """How clients reach the bastion. ``None``: no bastion."""
    doctor: DoctorMaker | None = None
    """Creates the check of the whole installation."""


async def serve_installation(of: Installation) -> None:
    """Run the service until SIGTERM or SIGINT. Raises any other cause of its end."""
    hub = HubClient(of.hub_api, of.hub_token)
    ca, tokens = HostCA(of.private), ServerTokens(of.server_tokens)
    service = _service(of, hub, ca, tokens)
    listeners = _listeners(of, _site(of, service, hub, ca, tokens))
    if of.github is not None:
        of.github.start(lambda: people_of(service.view))
    try:
        await _listen_until_told(service, listeners)
    finally:
        await hub.close()
        if of.github is not None:
            await of.github.close()


def _service(of: Installation, hub: HubClient, ca: HostCA, tokens: ServerTokens) -> Service:
    policy = of.policy if of.github is None else of.github.settings.on(of.policy)
    adapters = Adapters(
        policy=policy,
        store=of.store,
        cluster=of.cluster,
        hub=hub,
        launches=Launches(
            of.private / "launches",
            ca=ca,
            tokens=tokens,
            policy=policy,
            service_url=of.service_url,
            devices=of.devices,
        ),
        probe=SshdProbe(ca.public),
        clock=of.clock,
        ids=lambda: mint(secrets.token_bytes(ENTROPY)),
        lab_shared=of.web.lab_shared,
        failpoint=failpoints.from_environment(os.environ),
    )
    return Service(adapters, None if of.github is None else access_by(of.github, of.web.contact))


def access_by(parts: GithubParts, contact: str) -> Github:
    """Return what the service needs to decide access. ``contact`` is whom people without access can ask."""
    settings = parts.settings
    return Github(parts.membership, settings.rules(), settings.sweep, contact, lambda: parts.client.rate)


def _site(of: Installation, service: Service, hub: HubClient, ca: HostCA, tokens: ServerTokens) -> Site:
    people = service.access.people
    bastion = None
    if of.bastion is not None:
        bastion = Bastion(
            service.view,
            of.keys,
            now=of.clock.now,
            on_machine=of.clock.on_machine,
            refusal=lambda owner: people.verdict(owner.subject).message,
            let_in=service.cuts.let_in,
        )
    return Site(
        service=service,
        auth=Auth(
            hub_api=of.hub_api,
            api_token=of.hub_token,
            cookie_secret=of.cookie_secret,
            owner=lambda user: people.owner_of(user.name) or of.owner_of(user),
            seen=service.logged_in,
            now=of.clock.now,
            settings=of.web,
        ),
        access=Access(
            service.view,
            of.keys,
            known_hosts=ca.known_hosts,
            user=of.account,
            allowed=lambda subject: people.verdict(subject).allowed,
            now=of.clock.now,
            on_machine=of.clock.on_machine,
            let_in=service.cuts.let_in,
            bastion=of.bastion,
        ),
        settings=of.web,
        logins=Logins(hub, of.keys, of.web, of.clock.now),
        server_token_ok=tokens.verify,
        gate_secret=of.gate_secret,
        home=of.home,
        bastion=bastion,
        bastion_secret=of.bastion_secret,
        github_check=None if of.github is None else of.github.check,
        doctor=None if of.doctor is None else of.doctor(hub, service),
        webhook_secret=None if of.github is None else of.github.settings.webhook_secret(),
    )


def _listeners(of: Installation, site: Site) -> list[tuple[HTTPServer, str, int]]:
    """Return HTTP servers, each with an address and a port."""
    public = make_server(make_public_app(site, pages()), behind_proxy=True, balancers=of.balancers)
    gate = make_server(make_gate_app(site), behind_proxy=False)
    listeners = [(public, of.address, of.public_port), (gate, of.address, of.gate_port)]
    if of.metrics_port is not None:
        metrics = make_server(make_metrics_app(site), behind_proxy=False)
        listeners.append((metrics, of.address, of.metrics_port))
    return listeners


async def _listen_until_told(service: Service, listeners: Sequence[tuple[HTTPServer, str, int]]) -> None:
    """Start the service, listen on each (server, address, port), and return after SIGTERM or SIGINT.

    Raises any other cause of the end.
    """
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    await service.start()
    try:
        for server, address, port in listeners:
            server.add_sockets(bind_sockets(port, address))
        ended = asyncio.create_task(service.closed())
        asked = asyncio.create_task(ending.wait())
        done, _ = await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if ended in done:
            await ended
        ended.cancel()
    finally:
        for server, _, _ in listeners:
            server.stop()
        await service.stop()
