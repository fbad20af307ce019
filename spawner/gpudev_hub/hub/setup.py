"""One function sets what the product relies on in JupyterHub; a test asserts each of it."""

from __future__ import annotations

import os
from typing import Any

from gpudev_hub.cluster.gpus import Gpus
from gpudev_hub.cluster.pools import find_gpus, local_policy
from gpudev_hub.core.model import Policy
from gpudev_hub.settings import LOOPBACK, PREFIX, SERVICE, Settings

from .database import survive_failures
from .gate import GateClient
from .interruption import answer_interrupted_starts
from .listener import limit_bodies
from .local import LocalGpuSpawner
from .names import check_name
from .options import profile_list
from .picker import TEMPLATES
from .scopes import ENTER, OPERATE, RESERVE, SERVER_SCOPES, SUPERVISOR


def configure(c: Any, settings: Settings) -> None:
    """Set up a Hub on this machine; ``c`` is JupyterHub's configuration object."""
    ports = settings.ports()
    gpus = find_gpus(settings)
    _connect(c, settings)
    _spawn(c, settings, gpus)
    _authorize(c, settings)
    c.JupyterHub.services = [
        service_entry(f"http://{LOOPBACK}:{ports.service}", settings.secret("service-token")),
        {"name": SUPERVISOR, "api_token": settings.secret("supervisor-token"), "display": False},
    ]


def _connect(c: Any, settings: Settings) -> None:
    ports = settings.ports()
    hub = c.JupyterHub
    hub.bind_url = settings.url
    hub.hub_bind_url = f"http://{LOOPBACK}:{ports.hub}"
    hub.db_url = f"sqlite:///{settings.hub / 'jupyterhub.sqlite'}"
    hub.cookie_secret_file = str(settings.hub / "cookie_secret")
    hub.pid_file = ""
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = f"http://{LOOPBACK}:{ports.proxy_api}"
    c.ConfigurableHTTPProxy.auth_token = settings.secret("proxy-token")
    # Addresses are of any length, and whoever asks is not known yet.
    hub.log_format = "%(levelname)s %(name)s: %(message).600s"
    # SQLite gives its other files the mode of this one.
    settings.hub.mkdir(mode=0o700, parents=True, exist_ok=True)
    (settings.hub / "jupyterhub.sqlite").touch(mode=0o600)


def _spawn(c: Any, settings: Settings, gpus: Gpus) -> None:
    LocalGpuSpawner.local = settings
    ports = settings.ports()
    LocalGpuSpawner.gate = GateClient(f"http://{LOOPBACK}:{ports.gate}", settings.secret("gate"))
    policy = local_policy(gpus, settings)
    LocalGpuSpawner.profiles = profile_list(policy, {policy.pools[0].name: len(gpus.count())})
    # Said where people log in.
    c.JupyterHub.template_vars = {
        "gpudev_demo_users": settings.demo_users,
        "gpudev_pretended": any(pool.pretended for pool in policy.pools),
    }
    c.JupyterHub.spawner_class = LocalGpuSpawner
    rely_on(c, policy, c.LocalGpuSpawner)
    spawner = c.LocalGpuSpawner
    spawner.cmd = [str(settings.server_python), "-I", "-m", "jupyterhub.singleuser"]
    spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
    spawner.env_keep = []
    spawner.poll_interval = 10


def rely_on(c: Any, policy: Policy, spawner: Any) -> None:
    """What the product relies on, whatever the engine; ``spawner``: configuration of its spawner class."""
    limit_bodies()
    survive_failures()
    answer_interrupted_starts()
    hub = c.JupyterHub
    # Our pages are the Hub's home.
    hub.default_url = PREFIX
    hub.template_paths = [str(TEMPLATES)]
    hub.allow_named_servers = True
    hub.named_server_limit_per_user = check_name
    # Ending servers is the service's decision: not a restart's, not a log-out's, not a culler's.
    hub.cleanup_servers = False
    hub.shutdown_on_logout = False
    # The proxy outlives the Hub, and so do the routes to running servers.
    hub.cleanup_proxy = False
    # The gate answers in less than a second; with 0 its answers would all look like "pending".
    hub.tornado_settings = {"slow_spawn_timeout": 10, "slow_stop_timeout": 10}
    # What the gate refuses is no failure of the Hub's.
    spawner.consecutive_failure_limit = 0
    spawner.default_url = "/lab"
    # At most the start-up allowance, during which the service counts on an answer.
    spawner.start_timeout = min(pool.startup for pool in policy.pools) // 1000
    spawner.http_timeout = spawner.start_timeout
    spawner.server_token_scopes = list(SERVER_SCOPES)
    spawner.oauth_client_allowed_scopes = []
    hub.custom_scopes = {
        RESERVE: {"description": "Reserve GPUs, and manage one's own reservations."},
        OPERATE: {"description": "Drain nodes and end anybody's reservations."},
    }
    hub.extra_user_scopes = {ENTER, RESERVE}


def service_entry(url: str, token: str) -> dict[str, Any]:
    """The reservation service in the Hub's list of services."""
    return {
        "name": SERVICE,
        "url": url,
        "api_token": token,
        "oauth_client_allowed_scopes": [ENTER, RESERVE, "read:users!user"],
        "oauth_no_confirm": True,
        "display": False,
    }


def service_role() -> dict[str, Any]:
    """What the service may do at the Hub."""
    return {
        "name": f"{SERVICE}-service",
        "description": "Starts and stops the servers that the queue admits.",
        "services": [SERVICE],
        "scopes": ["list:users", "read:users:name", "servers"],
    }


def _authorize(c: Any, settings: Settings) -> None:
    hub = c.JupyterHub
    hub.authenticator_class = "shared-password"
    # The account that everything runs as has a password of its own; the demo users share one.
    c.SharedPasswordAuthenticator.admin_users = {settings.user}
    c.SharedPasswordAuthenticator.allowed_users = set(settings.demo_users)
    c.SharedPasswordAuthenticator.admin_password = settings.secret("password")
    c.SharedPasswordAuthenticator.user_password = settings.secret("demo-password")
    # A server is its owner's alone: nobody can be given `shares`, nor a way to start one past the queue.
    hub.load_roles = [
        service_role(),
        {
            "name": f"{SUPERVISOR}-role",
            "description": "Renews the proxy's routes and the local user's token.",
            "services": [SUPERVISOR],
            "scopes": ["proxy", f"tokens!user={settings.user}", f"read:users:name!user={settings.user}"],
        },
        {
            "name": "gpudev-operator",
            "description": "Operates the GPU nodes.",
            "users": [settings.user],
            "scopes": [OPERATE],
        },
    ]
