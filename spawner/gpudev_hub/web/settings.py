"""Settings of the HTTP listeners: addresses, limits and rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAX_WAIT: Final = 60.0
"""Longest ``?wait=`` in seconds."""
MAX_PAGE: Final = 200
"""Most entries of one page of a list."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: ``burst`` requests at once, ``per_second`` on average."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the listeners that are not in the policy file."""

    public_url: str
    """Public address of the Hub with its base path, like ``http://127.0.0.1:8000/``."""
    prefix: str = "/services/gpudev/"
    """Path of the service on that host, with slashes at both ends."""
    subdomains: bool = False
    """Whether each user's servers are on a subdomain of the public address."""
    lab_shared: bool = True
    """Whether guests of a server can open its JupyterLab."""
    contact: str = ""
    """Whom users ask for help, for the help page; empty: an operator."""
    max_body: int = 16 * 1024
    """Largest body of a request in bytes; larger bodies are refused with 413."""
    max_polls: int = 64
    """Most open long polls of one subject."""
    writes: Rate = field(default=Rate(per_second=5, burst=60))
    """Changes, per subject."""
    reads: Rate = field(default=Rate(per_second=50, burst=500))
    """All other requests, per subject. Each server's token counts as a subject."""
    unknown_names: Rate = field(default=Rate(per_second=0.2, burst=20))
    """Servers requested at the Hub by names without a reservation, per subject."""
    reports: Rate = field(default=Rate(per_second=0.05, burst=60))
    """Reports of one server's agent. Each report with news is stored with the reservation."""
    logins: Rate = field(default=Rate(per_second=0.2, burst=30))
    """Started logins of command lines, per network address."""
    login_failures: Rate = field(default=Rate(per_second=0.1, burst=20))
    """Logins with a wrong code or signature, per network address; on the login page also per subject."""
    strangers: Rate = field(default=Rate(per_second=5, burst=200))
    """Logged requests without a valid token, per network address. Above this rate, requests without any token
    are refused."""
