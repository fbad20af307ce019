"""What can be set about the service's HTTP side: addresses, limits and rates, with generous defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAX_WAIT: Final = 60.0
"""Longest ``?wait=`` in seconds."""
MAX_PAGE: Final = 200
"""Most entries of one page of a list."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: ``burst`` requests at once, ``per_second`` in the long run."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Everything about the listeners that is not the service's own policy."""

    public_url: str
    """The Hub as browsers and clients reach it, with its base path: ``http://127.0.0.1:8000/``."""
    prefix: str = "/services/gpudev/"
    """Path of the service below that host, with both slashes."""
    subdomains: bool = False
    """Whether each user's servers are on a subdomain of the public address."""
    lab_shared: bool = True
    """Whether guests of a server can open its JupyterLab."""
    contact: str = ""
    """Whom users ask for help, as the help page says it; empty: an operator."""
    max_body: int = 16 * 1024
    """Bytes of a request's body; more is answered 413."""
    max_polls: int = 64
    """Long polls that one subject may have open at once."""
    writes: Rate = field(default=Rate(per_second=5, burst=60))
    """Changes, per subject."""
    reads: Rate = field(default=Rate(per_second=50, burst=500))
    """Everything else, per subject (a server's token counts as a subject of its own)."""
    unknown_names: Rate = field(default=Rate(per_second=0.2, burst=20))
    """Servers asked for at the Hub by names that are no reservation's, per subject."""
    reports: Rate = field(default=Rate(per_second=0.05, burst=60))
    """Reports of the agent of one server; each that brings news is stored with its reservation."""
    logins: Rate = field(default=Rate(per_second=0.2, burst=30))
    """Logins of command lines that are started, per network address."""
    login_failures: Rate = field(default=Rate(per_second=0.1, burst=20))
    """Logins with a wrong code or signature, per network address; codes on the page also per subject."""
    strangers: Rate = field(default=Rate(per_second=5, burst=200))
    """Requests without a valid token that are logged, per network address; those without any token are also
    refused beyond it."""
