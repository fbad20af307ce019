"""Addresses of users' servers if each user has an origin of their own.

Anyone with access to a server can change its pages. On the Hub's origin, such pages could use the Hub and the
service in the name of the person who opens them. So each user's servers can be on a subdomain. The pages of
the Hub and of the service stay on the domain itself.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlsplit

from jupyterhub.utils import subdomain_hook_idna

TAKEN: Final = frozenset({"ssh"})
"""Names below the Hub's domain that are not users: ``ssh`` is the bastion on AWS."""


def domain_of(name: str, domain: str, kind: str) -> str:
    """Return the domain of a user's servers, or of a service: a ``subdomain_hook`` of JupyterHub."""
    if kind != "user":
        return domain
    if name.lower() in TAKEN:
        # No other user gets this name: JupyterHub adds a hash to each name with two hyphens.
        return f"{name.lower()}--user.{domain}"
    return str(subdomain_hook_idna(name, domain, kind))


def servers_of(hub_user: str, public_url: str, *, subdomains: bool) -> str:
    """Return the address of a user's servers, with a slash at the end.

    ``public_url`` is the Hub's address, with its base path.
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
