"""What all handlers use: the service, authentication, limits and settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass, field
from typing import Any

from tornado.web import RequestHandler

from gpudev_hub.auth.check import Check
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Owner
from gpudev_hub.core.views.doctor import Finding
from gpudev_hub.service.service import Service
from gpudev_hub.ssh.access import Access
from gpudev_hub.ssh.bastion import Bastion

from .auth import Auth
from .limits import Limiter, Polls, RateLimited, network
from .login import Logins
from .logs import log_request
from .metrics import RequestMetrics
from .present import Presenter
from .settings import WebSettings


@dataclass(kw_only=True)
class Site:
    """What all handlers use."""

    service: Service
    auth: Auth
    settings: WebSettings
    access: Access
    logins: Logins
    server_token_ok: Callable[[str, int, str], bool]
    """(reservation, attempt, token) → whether the token belongs to the attempt, in constant time."""
    gate_secret: str
    home: InitVar[Callable[[Owner], str]]
    """Returns an owner's home on their servers."""
    webhook_secret: str | None = None
    """Secret of GitHub's signatures; ``None``: deliveries are refused."""
    bastion: Bastion | None = None
    """``None``: there is no bastion, and its routes refuse all requests."""
    bastion_secret: str = ""
    github_check: Callable[[], Awaitable[list[Check]]] | None = None
    """Checks what the hub needs of GitHub; ``None``: the hub does not use GitHub."""
    doctor: Callable[[], Awaitable[list[Finding]]] | None = None
    """Checks the whole installation; ``None``: the hub runs on one machine."""
    document: dict[str, Any] = field(default_factory=dict)
    unlogged: int = 0
    """Number of unauthenticated requests since the last logged one that were not logged."""
    metrics: RequestMetrics = field(default_factory=RequestMetrics)

    def __post_init__(self, home: Callable[[Owner], str]) -> None:
        settings, service, now = self.settings, self.service, self.service.clock.now
        self.presenter = Presenter(service.policy, service.view, settings, home)
        self.reads = Limiter(settings.reads, now, "requests")
        self.writes = Limiter(settings.writes, now, "changes")
        self.strangers = Limiter(settings.strangers, now, "requests without a valid token from this address")
        self.names = Limiter(settings.unknown_names, now, "requests for servers without a reservation")
        self.reports = Limiter(settings.reports, now, "reports of this server")
        self.polls = Polls(settings.max_polls)

    def check_access(self, owner: Owner) -> None:
        """Raise ``Refused`` (``access_revoked``) for users who may not use the hub now."""
        verdict = self.service.access.people.verdict(owner.subject)
        if not verdict.allowed:
            raise Refused(Code.ACCESS_REVOKED, verdict.message, verdict.hint)

    def log_request(self, handler: RequestHandler) -> None:
        """Count and log an answered request."""
        route = getattr(handler, "route", None)
        request = handler.request
        name = route.name if route is not None else type(handler).__name__
        # Clients choose the method, and metrics keep every value.
        method = request.method if request.method in RequestHandler.SUPPORTED_METHODS else "other"
        self.metrics.saw(name, method, handler.get_status(), request.request_time())
        if not getattr(handler, "caller", ""):
            try:
                self.strangers.spend(network(request.remote_ip or ""))
            except RateLimited:
                self.unlogged += 1
                return
            log_request(handler, self.unlogged)
            self.unlogged = 0
        else:
            log_request(handler)
