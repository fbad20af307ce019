"""Bodies of requests that are too large: thrown away and refused, so that none of them fills the memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

DISCARDED = 128 * 1024 * 1024
"""Bytes of a body too large that are read, and thrown away, so that its sender gets to read the answer;
beyond that the connection is cut."""


class Bounded(HTTPMessageDelegate):
    """Passes on a request whose body is within a limit; of a larger one it keeps nothing."""

    def __init__(self, inner: HTTPMessageDelegate, limit: int, refuse: Callable[[int], None]) -> None:
        """``refuse``: answers a request whose body has that many bytes, in place of ``inner``."""
        self._inner = inner
        self._limit = limit
        self._refuse = refuse
        self._size = 0
        self._over = False

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Judge the stated size; without one, the body is judged as it comes."""
        length = headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdecimal()):
            # Tornado makes a number of some others, and so may a proxy, of another part of them.
            raise HTTPInputError("Content-Length is not a number")
        if int(length) > self._limit:
            self._over = True
            return None
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Count, and pass on while there is room."""
        self._size += len(chunk)
        if not self._over and self._size > self._limit:
            self._over = True
            self._inner.on_connection_close()
        return None if self._over else self._inner.data_received(chunk)

    def finish(self) -> None:
        """The request is complete."""
        if self._over:
            self._refuse(self._size)
        else:
            self._inner.finish()

    def on_connection_close(self) -> None:
        """The client has gone."""
        if not self._over:
            self._inner.on_connection_close()
