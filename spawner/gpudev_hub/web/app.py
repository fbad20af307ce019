"""The two applications of the service: the public one, and the gate for the Hub alone."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.web import Application, RequestHandler, url

from gpudev_hub.bodies import DISCARDED, Bounded
from gpudev_hub.core.model import Owner
from gpudev_hub.service.service import Service
from gpudev_hub.ssh.access import SshAccess

from .api import api_routes
from .auth import Auth
from .base import LoginCallback, NotFoundHandler, TooLargeHandler
from .dispatch import RouteHandler
from .gate import GATE_ROUTES
from .limits import Limiter, Polls, RateLimited
from .logs import log_request
from .metrics import RequestMetrics
from .openapi import document
from .present import Presenter
from .routes import Route, by_path, pattern
from .servers import server_routes
from .settings import WebSettings
from .system import SYSTEM_ROUTES


class SshAccessPort(Protocol):
    """Who may enter which server (``ssh/access.py``)."""

    async def hosts(self, owner: Owner) -> SshAccess:
        """The servers that ``owner`` may enter now, and what his SSH client needs for it."""
        ...

    async def authorized_keys(self, id: str, fingerprint: str) -> list[str]:
        """Lines for ``authorized_keys`` that let the key in to server ``id`` right now; none: closed."""
        ...


@dataclass(slots=True)
class Site:
    """What the handlers work with."""

    service: Service
    auth: Auth
    settings: WebSettings
    access: SshAccessPort
    presenter: Presenter
    server_token_ok: Callable[[str, int, str], bool]
    """(reservation, attempt, token) → whether the token is that attempt's; takes the same time for all."""
    gate_secret: str
    metrics: RequestMetrics
    reads: Limiter
    writes: Limiter
    strangers: Limiter
    names: Limiter
    polls: Polls
    document: dict[str, Any] = field(default_factory=dict)
    unlogged: int = 0
    """Requests of strangers that were left out of the access log since the last one that was not."""

    def log_request(self, handler: RequestHandler) -> None:
        """Count and log an answered request."""
        route = getattr(handler, "route", None)
        request = handler.request
        name = route.name if route is not None else type(handler).__name__
        # Anything may stand there, of any length, and is kept for ever.
        method = request.method if request.method in RequestHandler.SUPPORTED_METHODS else "other"
        self.metrics.saw(name, method, handler.get_status(), request.request_time())
        if not getattr(handler, "caller", ""):
            try:
                self.strangers.spend(request.remote_ip or "")
            except RateLimited:
                self.unlogged += 1
                return
            log_request(handler, self.unlogged)
            self.unlogged = 0
        else:
            log_request(handler)


def public_routes(settings: WebSettings) -> list[Route]:
    """Every route of the public application; the handlers and the document are made from this list."""
    return [*api_routes(settings), *server_routes(settings), *SYSTEM_ROUTES]


def make_site(
    service: Service,
    *,
    auth: Auth,
    access: SshAccessPort,
    settings: WebSettings,
    server_token_ok: Callable[[str, int, str], bool],
    gate_secret: str,
    home: Callable[[Owner], str],
) -> Site:
    """What both applications share. ``home``: where an owner's home is on his servers."""
    now = service.clock.now
    return Site(
        service=service,
        auth=auth,
        settings=settings,
        access=access,
        presenter=Presenter(service.policy, service.view, settings.public_url, home),
        server_token_ok=server_token_ok,
        gate_secret=gate_secret,
        metrics=RequestMetrics(),
        reads=Limiter(settings.reads, now, "requests"),
        writes=Limiter(settings.writes, now, "changes"),
        strangers=Limiter(settings.strangers, now, "requests without a valid token from this address"),
        names=Limiter(settings.unknown_names, now, "servers that are no reservation's"),
        polls=Polls(settings.max_polls),
        document=document(public_routes(settings), settings.prefix),
    )


def make_public_app(
    site: Site, pages: Sequence[tuple[str, type[RequestHandler], dict[str, Any]]] = (), **options: Any
) -> Application:
    """The API, health, metrics, log-in, and the pages.

    ``pages``: (regular expression below the prefix, handler, arguments for its ``initialize`` beside
    ``site``); a ``PageHandler`` has the caller in ``self.person`` and ``self.xsrf_token`` for its forms and
    scripts. ``options``: further settings of tornado's (template and static folders).
    """
    prefix = site.settings.prefix
    urls = _urls(site, public_routes(site.settings), prefix)
    urls.append(url(f"{re.escape(prefix)}oauth_callback", LoginCallback, {"site": site}))
    urls += [url(re.escape(prefix) + path, page, {"site": site, **more}) for path, page, more in pages]
    return _application(site, urls, options)


def make_gate_app(site: Site) -> Application:
    """The gate: for the Hub alone, on a listener of its own; nothing else answers there."""
    return _application(site, _urls(site, GATE_ROUTES, "/"), {})


def _urls(site: Site, routes: Iterable[Route], prefix: str) -> list[Any]:
    return [
        url(pattern(prefix, path), RouteHandler, {"site": site, "routes": methods}, name=path)
        for path, methods in by_path(routes).items()
    ]


def _application(site: Site, urls: list[Any], options: dict[str, Any]) -> Application:
    return _Application(
        urls,
        site=site,
        default_handler_class=NotFoundHandler,
        default_handler_args={"site": site},
        cookie_secret=site.auth.cookie_secret,
        log_function=site.log_request,
        compress_response=False,
        xsrf_cookie_kwargs={"samesite": "Lax"},
        **options,
    )


class _Application(Application):
    """Refuses bodies that are too large before a handler sees any of them."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        site: Site = self.settings["site"]

        def refuse(size: int) -> None:
            # The body is gone, so there is nothing to be parsed by its type.
            request.headers.pop("Content-Type", None)
            arguments = {"site": site, "size": size}
            self.get_handler_delegate(request, TooLargeHandler, arguments).finish()

        return Bounded(super().find_handler(request, **kwargs), site.settings.max_body, refuse)


class _Unclaimed(HTTPMessageDelegate):
    """Drops what tornado would believe of a client although no proxy of ours ever sets or changes it."""

    def __init__(self, inner: HTTPMessageDelegate) -> None:
        self._inner = inner

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        for name in ("X-Real-Ip", "X-Scheme"):
            headers.pop(name, None)
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


class _Server(HTTPServer):
    """An address that limits and logs may go by: the one that the proxy itself appends."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Unclaimed(super().start_request(server_conn, request_conn))


def make_server(application: Application, *, behind_proxy: bool) -> HTTPServer:
    """An HTTP server with limits; ``behind_proxy``: believe its ``X-Forwarded-For``."""
    return _Server(
        application,
        xheaders=behind_proxy,
        max_header_size=32 * 1024,
        max_body_size=DISCARDED,
        body_timeout=30,
        idle_connection_timeout=120,
    )
