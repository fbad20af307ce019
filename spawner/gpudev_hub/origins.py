"""Addresses of users' servers where each user has an origin of their own.

Pages of a server are written by whoever has access to it. On the origin of the Hub, they could use the Hub
and the service as the person who opens them. So each user's servers can be on a subdomain; the pages of the
Hub and of the service stay on the domain itself.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

from jupyterhub.utils import subdomain_hook_idna

TAKEN: Final = frozenset({"ssh"})
"""Names below the Hub's domain that are not a user's: ``ssh`` is the bastion on AWS."""


def domain_of(name: str, domain: str, kind: str) -> str:
    """Return the domain of a user's servers, or of a service: a ``subdomain_hook`` of JupyterHub."""
    if kind != "user":
        return domain
    if name.lower() in TAKEN:
        # No other user gets this name: JupyterHub adds a hash to each with two hyphens in it.
        return f"{name.lower()}--user.{domain}"
    return str(subdomain_hook_idna(name, domain, kind))


def servers_of(hub_user: str, public_url: str, *, subdomains: bool) -> str:
    """Return the address below which a user's servers are, with a slash at the end.

    ``public_url``: of the Hub, with its base path.
    """
    hub = urlsplit(public_url)
    host = hub.netloc
    if subdomains:
        host = domain_of(hub_user, hub.hostname or "", "user") + (f":{hub.port}" if hub.port else "")
    return f"{hub.scheme}://{host}{hub.path.rstrip('/')}/user/{quote(hub_user, safe='@~')}/"


def origin(url: str) -> str:
    """Return scheme and host of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
