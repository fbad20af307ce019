"""Refuses and discards request bodies that are too large, so that they do not fill the memory."""

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
"""Bytes of a too large body that are read and discarded, so that the client can read the answer. A larger
body closes the connection."""


class Bounded(HTTPMessageDelegate):
    """Passes on requests whose body is within a limit, and stores no part of a larger body."""

    def __init__(self, inner: HTTPMessageDelegate, limit: int, refuse: Callable[[int], None]) -> None:
        """Pass requests to ``inner``. ``refuse`` answers too large requests; it gets the body's size."""
        self._inner = inner
        self._limit = limit
        self._refuse = refuse
        self._size = 0
        self._over = False

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Check the stated size. If none is stated, the body is checked as it arrives."""
        length = headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdecimal()):
            # Tornado accepts some unusual spellings of numbers, which a proxy may read as different numbers.
            raise HTTPInputError("Content-Length is not a number")
        if int(length) > self._limit:
            self._over = True
            return None
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Count the bytes, and pass them on while the size is within the limit."""
        self._size += len(chunk)
        if not self._over and self._size > self._limit:
            self._over = True
            self._inner.on_connection_close()
        return None if self._over else self._inner.data_received(chunk)

    def finish(self) -> None:
        if self._over:
            self._refuse(self._size)
        else:
            self._inner.finish()

    def on_connection_close(self) -> None:
        if not self._over:
            self._inner.on_connection_close()
