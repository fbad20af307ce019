"""A proxy between a client and a real service. It loses, breaks or replaces answers."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hub_users import HeldPort

SHORT_POLL = 0.2
"""Seconds after which a long poll is answered, so that clients soon see what a test changes."""
_OWN_HEADERS = {"connection", "content-length", "date", "server", "transfer-encoding"}
Headers = list[tuple[str, str]]


@dataclass
class Fault:
    """A fault of the next `times` requests of `method` to paths that contain `path`."""

    kind: str
    """``drop``: done, then the connection closes without an answer; ``truncate``: done, half the answer;
    ``garbage``: done, answered with HTML; ``NNN``: nothing done, this status from the proxy."""
    method: str = "POST"
    path: str = "reservations"
    times: int = 1


@dataclass
class Answer:
    """An answer instead of the service's."""

    content: object
    status: int = 200


class FaultProxy:
    """Passes requests on by the start of their paths. Nothing fails until a test adds a fault."""

    def __init__(self) -> None:
        self.services: dict[str, str] = {}
        """Start of the path → ``host:port``."""
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.instead: dict[tuple[str, str], Callable[[bytes], Answer]] = {}
        """Method and end of the path → the answer to the request, which is not passed on."""
        self.edit: Callable[[Any], None] = lambda document: None
        """Changes the document of each answer."""
        self.now: Callable[[], float] = time.time
        """The time in each answer, in seconds since 1970."""
        self._shown = threading.Event()
        self._shown.set()
        self._hidden = 0
        self._held = HeldPort()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._held.number}"

    def start(self) -> None:
        """Listen; after a `stop`, at the same address."""
        server = ThreadingHTTPServer(("127.0.0.1", self._held.number), _handler(self))
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, part: str) -> int:
        """Return how many requests of this method so far have this text in their path."""
        return sum(m == method and part in path for m, path in self.requests)

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Return the fault that applies to this request."""
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault
        return None

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hold all GETs until the end of the block, so that clients see only the last state."""
        self._shown.clear()
        try:
            yield
        finally:
            self._hidden += 1
            self._shown.set()

    def _visible(self, target: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        """Return the answer to a GET that was made outside all blocks of `hidden`."""
        while True:
            self._shown.wait(20)
            before = self._hidden
            answer = self._forward("GET", target, headers, body)
            if self._shown.is_set() and before == self._hidden:
                return answer

    def answer(self, method: str, target: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        """Return the answer to a request: the edited one of the service, or its replacement."""
        path, target = urlsplit(target).path, _small(target)
        for (wanted, end), say in self.instead.items():
            if wanted == method and path.endswith(end):
                said = say(body)
                return said.status, [("Content-Type", "application/json")], msgspec.json.encode(said.content)
        if method == "GET":
            status, answered, content = self._visible(target, headers, body)
        else:
            status, answered, content = self._forward(method, target, headers, body)
        if ("Content-Type", "application/json") in [(n, v.partition(";")[0]) for n, v in answered]:
            document = json.loads(content)
            self.edit(document)
            content = json.dumps(document).encode()
        return status, answered, content

    def _forward(self, method: str, target: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        place = next(place for start, place in self.services.items() if target.startswith(start))
        with closing(http.client.HTTPConnection(place, timeout=60)) as connection:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in ("connection", "content-length"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in _OWN_HEADERS]
            return answer.status, kept, answer.read()


def _small(target: str) -> str:
    """Return the request with a wait of at most `SHORT_POLL` and pages of two entries."""
    path, _, query = target.partition("?")
    pairs = [pair.split("=", 1) for pair in query.split("&") if pair]
    small = [f"{n}={min(float(v), SHORT_POLL)}" if n == "wait" else f"{n}={v}" for n, v in pairs]
    if path.endswith("/history") or any(name == "ended" for name, _ in pairs):
        small.append("limit=2")
    return f"{path}?{'&'.join(small)}" if small else path


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(proxy.now() if timestamp is None else timestamp, usegmt=True)

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            proxy.requests.append((self.command, self.path))
            fault = proxy.fault_for(self.command, urlsplit(self.path).path)
            kind = "" if fault is None else fault.kind
            html = [("Content-Type", "text/html")]
            if kind.isdigit():
                self._write(int(kind), html, b"<html>Service Unavailable</html>")
                return
            status, headers, content = proxy.answer(self.command, self.path, self.headers.items(), body)
            if kind == "truncate":
                self._write(status, headers, content, cut=len(content) // 2)
            elif kind == "garbage":
                self._write(200, html, b"<html>hello</html>")
            elif kind != "drop":
                self._write(status, headers, content)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def _write(self, status: int, headers: Headers, body: bytes, cut: int | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if cut is None else body[:cut])
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up

    return Handler
