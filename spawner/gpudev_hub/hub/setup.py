"""The Hub's configuration on one machine, and the part that all engines share."""

from __future__ import annotations

import os
from typing import Any

from jupyterhub.handlers.base import BaseHandler

from gpudev_hub.cluster.gpus import find_gpus, local_policy
from gpudev_hub.core.policy import Policy
from gpudev_hub.origins import domain_of, origin
from gpudev_hub.settings import LOOPBACK, PREFIX, SERVICE, Settings

from .database import survive_failures
from .gate import GateClient
from .interruption import answer_interrupted_starts
from .listener import limit_bodies
from .local import LocalGpuSpawner
from .logs import mask_secrets
from .names import check_name, reservation_in
from .options import profile_list
from .passwords import LocalAuthenticator
from .picker import TEMPLATES
from .scopes import ENTER, OPERATE, OPERATOR_SCOPES, OPERATORS, RESERVE, SERVER_SCOPES, SUPERVISOR
from .tokens import LONGEST_LIFE, limit_tokens

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The address of a page may have a code in it. Logins need the origin of the page before.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of all answers of the Hub. Its pages have no scripts or styles of their own."""


def configure(c: Any, settings: Settings) -> None:
    """Set up a Hub on this machine; ``c`` is JupyterHub's configuration object."""
    ports = settings.ports()
    _connect(c, settings)
    _spawn(c, settings)
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
    # Addresses have any length, also from people who are not logged in.
    hub.log_format = "%(levelname)s %(name)s: %(message).600s"
    # SQLite gives its other files the mode of this one.
    settings.hub.mkdir(mode=0o700, parents=True, exist_ok=True)
    (settings.hub / "jupyterhub.sqlite").touch(mode=0o600)


def _spawn(c: Any, settings: Settings) -> None:
    LocalGpuSpawner.local = settings
    ports = settings.ports()
    LocalGpuSpawner.gate = GateClient(f"http://{LOOPBACK}:{ports.gate}", settings.secret("gate"))
    policy = local_policy(find_gpus(settings), settings)
    LocalGpuSpawner.profiles = profile_list(policy)
    c.JupyterHub.template_vars = template_vars(policy, settings.contact, settings.demo_users)
    c.JupyterHub.spawner_class = LocalGpuSpawner
    rely_on(c, policy, c.LocalGpuSpawner)
    separate(c, settings.url, subdomains=settings.subdomains)
    spawner = c.LocalGpuSpawner
    spawner.cmd = [str(settings.server_python), "-I", "-m", "jupyterhub.singleuser"]
    spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
    spawner.env_keep = []
    spawner.poll_interval = 10


def template_vars(policy: Policy, contact: str, demo_users: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the variables of the Hub's templates."""
    return {
        "gpudev_contact": contact,
        "gpudev_demo_users": demo_users,
        # JupyterHub calls it with the user, and gives its result to the templates.
        "gpudev_reservation_in": lambda _: reservation_in,
        "gpudev_simulated": any(pool.simulated for pool in policy.pools),
    }


def separate(c: Any, public_url: str, *, subdomains: bool) -> None:
    """Separate the origins of users, and protect the cookies of the Hub."""
    secure = public_url.startswith("https:")
    hub = c.JupyterHub
    # A proxy that ends TLS need not say so: the Hub would leave out `Secure`.
    hub.tornado_settings["cookie_options"] = {"samesite": "Lax"} | ({"secure": True} if secure else {})
    if subdomains:
        hub.subdomain_host = origin(public_url)
        hub.subdomain_hook = domain_of
        # JupyterHub would give the cookie of the session to all subdomains, and so to every user's server.
        BaseHandler.domain = ""


def rely_on(c: Any, policy: Policy, spawner: Any) -> None:
    """Set what the product relies on; ``spawner``: configuration of the engine's spawner class."""
    limit_bodies()
    survive_failures()
    answer_interrupted_starts()
    limit_tokens()
    mask_secrets(c)
    hub = c.JupyterHub
    # The service's pages are the Hub's home.
    hub.default_url = PREFIX
    hub.template_paths = [str(TEMPLATES)]
    hub.allow_named_servers = True
    hub.named_server_limit_per_user = check_name
    # Only the service decides when servers end: no restart, log-out or culler ends them.
    hub.cleanup_servers = False
    hub.shutdown_on_logout = False
    hub.token_expires_in_max_seconds = LONGEST_LIFE
    # The proxy outlives the Hub, and so do the routes to running servers.
    hub.cleanup_proxy = False
    # The gate answers in less than a second; with 0, all starts would be answered with "pending".
    hub.tornado_settings = {"slow_spawn_timeout": 10, "slow_stop_timeout": 10, "headers": dict(HEADERS)}
    # A refusal by the gate is not a failure of the Hub.
    spawner.consecutive_failure_limit = 0
    spawner.default_url = "/lab"
    # At most the start-up allowance, within which the service expects an answer.
    spawner.start_timeout = min(pool.startup for pool in policy.pools) // 1000
    spawner.http_timeout = spawner.start_timeout
    spawner.server_token_scopes = list(SERVER_SCOPES)
    spawner.oauth_client_allowed_scopes = []
    hub.custom_scopes = {
        RESERVE: {"description": "Reserve GPUs, and manage your own reservations."},
        OPERATE: {"description": "Manage nodes, and end or extend any reservation."},
    }
    hub.extra_user_scopes = {ENTER, RESERVE}


def service_entry(url: str, token: str) -> dict[str, Any]:
    """Return the entry of the reservation service in the Hub's list of services."""
    return {
        "name": SERVICE,
        "url": url,
        "api_token": token,
        # Only the browsers of operators get OPERATE.
        "oauth_client_allowed_scopes": [ENTER, RESERVE, OPERATE, "read:users!user"],
        "oauth_no_confirm": True,
        "display": False,
    }


def service_role() -> dict[str, Any]:
    """Return the role of the service at the Hub."""
    return {
        "name": f"{SERVICE}-service",
        "description": "Starts and stops the servers that the queue admits, and makes and revokes tokens.",
        "services": [SERVICE],
        # `shares` is JupyterHub's only scope for giving a user access to another user's server.
        "scopes": ["list:users", "read:users:name", "servers", "shares", "tokens"],
    }


def operator_role(**members: list[str]) -> dict[str, Any]:
    """Return the role of operators; ``members``: its ``users`` or ``groups``."""
    return {
        "name": "gpudev-operator",
        "description": "Manages GPU nodes and all reservations.",
        "scopes": list(OPERATOR_SCOPES),
        **members,
    }


def _authorize(c: Any, settings: Settings) -> None:
    hub = c.JupyterHub
    supervisor = {
        "name": f"{SUPERVISOR}-role",
        "description": "Renews the proxy's routes and the local user's token.",
        "services": [SUPERVISOR],
        "scopes": ["proxy"],
    }
    if settings.github is not None:
        # Imported only if needed, because it takes a while.
        from .github import configure_github

        configure_github(c, settings.github, LocalGpuSpawner.gate, settings.url)
        operators = operator_role(groups=[OPERATORS])
    else:
        hub.authenticator_class = LocalAuthenticator
        c.LocalAuthenticator.allowed_users = {settings.user, *settings.demo_users}
        c.LocalAuthenticator.local_user = settings.user
        c.LocalAuthenticator.local_password = settings.secret("password")
        c.LocalAuthenticator.demo_password = settings.secret("demo-password")
        supervisor["scopes"] = [
            "proxy",
            f"tokens!user={settings.user}",
            f"read:users:name!user={settings.user}",
        ]
        operators = operator_role(users=[settings.user])
    # Only the service gets `shares`: it checks that guests have access, records them, and ends their access.
    # No role can start a server without the queue.
    hub.load_roles = [
        service_role(),
        supervisor,
        operators,
        # Removes the role from users who had it in an older state folder.
        {"name": "admin", "users": []},
    ]
