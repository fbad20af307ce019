"""The applications of the service: for the public, for Hub and bastion (the gate), and for a scraper."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from typing import Any

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

from . import (
    api,
    bastion,
    gate,
    limit_api,
    login_api,
    people,
    reservation_api,
    servers,
    system,
    webhook,
)
from .base import LoginCallback, NotFoundHandler, TooLargeHandler
from .dispatch import RouteHandler
from .forwarded import Network, beyond
from .openapi import document
from .routes import Access, Route, by_path, pattern, routes_of
from .site import Site

GATE_BODY = 4 << 20
"""Largest body at the gate, in bytes: a bastion lists all its connections in one request."""


PUBLIC = routes_of(reservation_api, api, limit_api, login_api, servers, people, system)
"""Every route of the public application. Handlers and OpenAPI document are made from this list."""
GATE = routes_of(gate, bastion)
METRICS = [replace(one, access=Access.ANYBODY) for one in routes_of(system) if one.name == "metrics"]
"""For a scraper, on its own listener. It asks for no token, so a network policy must limit who reaches it."""


def make_public_app(
    site: Site, pages: Sequence[tuple[str, type[RequestHandler], dict[str, Any]]] = ()
) -> Application:
    """Return the application with API, health, metrics, login, and pages.

    ``pages``: (regular expression below the prefix, handler, arguments for its ``initialize`` beside
    ``site``).
    """
    prefix = site.settings.prefix
    site.document = document(PUBLIC, prefix)
    others = [("oauth_callback", LoginCallback, {}), (webhook.PATH, webhook.Webhook, {}), *pages]
    more = [url(re.escape(prefix) + path, page, {"site": site, **given}) for path, page, given in others]
    return _application(site, PUBLIC, prefix, more)


def make_gate_app(site: Site) -> Application:
    """Return the gate, for the Hub and the bastion. It has its own listener, which answers nothing else."""
    return _application(site, GATE, max_body=GATE_BODY)


def make_metrics_app(site: Site) -> Application:
    """Return the metrics without a login. They have their own listener, which answers nothing else."""
    return _application(site, METRICS)


def _application(
    site: Site, routes: Iterable[Route], prefix: str = "/", more: Sequence[Any] = (), **options: Any
) -> Application:
    urls = [
        url(pattern(prefix, path), RouteHandler, {"site": site, "routes": methods}, name=path)
        for path, methods in by_path(routes).items()
    ]
    return _Application(
        [*urls, *more],
        site=site,
        default_handler_class=NotFoundHandler,
        default_handler_args={"site": site},
        cookie_secret=site.auth.cookie_secret,
        log_function=site.log_request,
        compress_response=False,
        xsrf_cookie_kwargs=site.auth.browser.cookie_options,
        **options,
    )


class _Application(Application):
    """Refuses bodies that are too large before a handler sees any of them."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        site: Site = self.settings["site"]
        largest: int = self.settings.get("max_body", site.settings.max_body)
        if request.path == site.settings.prefix + webhook.PATH:
            largest = webhook.MOST_BYTES

        def refuse(size: int) -> None:
            # The body was discarded, so nothing can be parsed by its type.
            request.headers.pop("Content-Type", None)
            arguments = {"site": site, "size": size, "largest": largest}
            self.get_handler_delegate(request, TooLargeHandler, arguments).finish()

        return Bounded(super().find_handler(request, **kwargs), largest, refuse)


class _Unclaimed(HTTPMessageDelegate):
    """Removes headers that Tornado trusts, but which clients can set because no proxy here sets them.

    In ``X-Forwarded-For``, Tornado trusts the last address, which the proxy appended. If that is a load
    balancer, the client is the address before it, which the balancer appended.
    """

    def __init__(self, inner: HTTPMessageDelegate, balancers: Sequence[Network]) -> None:
        self._inner = inner
        self._balancers = balancers

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        for name in ("X-Real-Ip", "X-Scheme"):
            headers.pop(name, None)
        if self._balancers and (chain := headers.get("X-Forwarded-For")):
            headers["X-Forwarded-For"] = beyond(chain, self._balancers)
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


class _Server(HTTPServer):
    """A server whose ``remote_ip`` is safe for limits and logs: only proxies and load balancers set it."""

    balancers: Sequence[Network] = ()

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Unclaimed(super().start_request(server_conn, request_conn), self.balancers)


def make_server(
    application: Application, *, behind_proxy: bool, balancers: Sequence[Network] = ()
) -> HTTPServer:
    """Return an HTTP server with limits.

    ``behind_proxy``: whether a proxy sets ``X-Forwarded-For``; ``balancers``: networks of the load balancers
    in front of that proxy.
    """
    server = _Server(
        application,
        xheaders=behind_proxy,
        max_header_size=32 * 1024,
        max_body_size=DISCARDED,
        body_timeout=30,
        idle_connection_timeout=120,
    )
    server.balancers = balancers
    return server
