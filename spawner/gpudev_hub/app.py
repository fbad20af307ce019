"""Where everything is put together: ``gpudev-hub`` (the supervisor) and ``gpudev-hub service``."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import sys

from tornado.netutil import bind_sockets

from . import failpoints, supervisor
from .clock import Clock
from .cluster.local import LocalCluster
from .cluster.pools import find_gpus, local_policy
from .cluster.servers import LocalServers
from .core.ids import ENTROPY, mint
from .core.model import Owner
from .core.ports import StaleEpoch, StoreLocked
from .service.hubclient import HubClient
from .service.service import Service
from .settings import LOOPBACK, PREFIX, Settings, SettingsError
from .ssh.access import Access
from .ssh.ca import HostCA
from .ssh.directory import LocalDirectory
from .ssh.launches import Launches, ServerTokens, keep_secret
from .ssh.probe import SshdProbe
from .stores.sqlite import SqliteStore
from .web.app import make_gate_app, make_public_app, make_server, make_site
from .web.auth import HubUser, make_auth
from .web.logs import JsonFormatter
from .web.pages import pages
from .web.settings import WebSettings

log = logging.getLogger(__name__)

USAGE = "usage: gpudev-hub [service]"


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
    servers.prune()
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
            now=clock.now,
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
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    await service.start()
    try:
        public.add_sockets(bind_sockets(ports.service, LOOPBACK))
        gate.add_sockets(bind_sockets(ports.gate, LOOPBACK))
        ended = asyncio.create_task(service.closed())
        asked = asyncio.create_task(ending.wait())
        done, _ = await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if ended in done:
            await ended
        ended.cancel()
    finally:
        public.stop()
        gate.stop()
        await service.stop()
        await hub.close()
        cluster.close()


def run_service(settings: Settings) -> int:
    """The service process; returns its exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(settings))
    except StoreLocked as error:
        log.error("%s", error)
        return 1
    except StaleEpoch:
        return 1
    return 0


def main() -> None:
    """Entry point of ``gpudev-hub``."""
    arguments = sys.argv[1:]
    if arguments == ["service"]:
        try:
            sys.exit(run_service(Settings.read(os.environ)))
        except SettingsError as error:
            sys.exit(f"gpudev-hub: {error}")
    if arguments:
        sys.exit(USAGE)
    sys.exit(supervisor.run(os.environ))


if __name__ == "__main__":
    main()
