"""The Hub's HTTP server: it limits bodies, and clients cannot choose the address in the log.

JupyterHub accepts bodies of 100 MiB, without a setting.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable
from typing import Any, Final

from tornado import httpserver
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from gpudev_hub.bodies import DISCARDED, Bounded

LARGEST: Final = 256 * 1024
"""Bytes of a body; the largest that people and programs send to a Hub are lists of users."""

log = logging.getLogger(__name__)


class _Request(Bounded):
    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        # Tornado prefers it to X-Forwarded-For. Only clients set it: the proxy does not.
        headers.pop("X-Real-Ip", None)
        return super().headers_received(start_line, headers)


class BoundedServer(httpserver.HTTPServer):
    """Refuses larger bodies, also without a login."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs | {"max_body_size": DISCARDED})

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        def refuse(size: int) -> None:
            log.warning("a body of %d bytes was refused; the limit is %d", size, LARGEST)
            words = f"The body has {size} bytes; the limit is {LARGEST}. Send a smaller body."
            body = json.dumps({"status": 413, "message": words}).encode()
            headers = HTTPHeaders({"Content-Type": "application/json", "Content-Length": str(len(body))})
            request_conn.write_headers(ResponseStartLine("HTTP/1.1", 413, "Content Too Large"), headers, body)
            request_conn.finish()

        return _Request(super().start_request(server_conn, request_conn), LARGEST, refuse)


def limit_bodies() -> None:
    """Make the JupyterHub of this process listen with a ``BoundedServer``."""
    httpserver.HTTPServer = BoundedServer  # type: ignore[misc]
