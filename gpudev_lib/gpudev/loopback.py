"""A port of this machine where the browser brings the code of a login (RFC 8252)."""

from __future__ import annotations

import hmac
import queue
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from gpudev.errors import Forbidden, GpuDevError, NotLoggedIn

PATH = "/callback"
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = (
    '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>{0}</title>'
    "<h1>{0}</h1><p>{1}</p></html>"
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answers: queue.SimpleQueue[str | GpuDevError] = queue.SimpleQueue()
        self.state = ""
        super().__init__((host, 0), _Handler)
        self.host = f"[{host}]:{self.server_port}" if ":" in host else f"{host}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without looking up the name of the machine, which can take seconds."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser may close a connection at any time."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30

    def do_GET(self) -> None:
        """Take the code, if the request is the answer to this login."""
        parts = urlsplit(self.path)
        values = {name: found[0] for name, found in parse_qs(parts.query).items()}
        # A page of another site could make the browser send requests here, by a name that leads here.
        if parts.path != PATH or self.headers.get("Host") != self.server.host:
            self._answer(404, "Not found", "This port waits for the login of a command line.")
        elif not hmac.compare_digest(values.get("state", "").encode(), self.server.state.encode()):
            self._answer(400, "Not this login", "This answer belongs to another login.")
        elif "code" in values:
            self._answer(200, "Login confirmed", "Return to your terminal. You can close this page.")
            self.server.answers.put(values["code"])
        else:
            self._answer(200, "Login refused", "Return to your terminal. You can close this page.")
            self.server.answers.put(
                Forbidden("The login was refused in the browser.", hint="Start again with: gpu-dev login")
            )

    def _answer(self, status: int, title: str, text: str) -> None:
        body = _PAGE.format(title, text).encode()
        self.send_response_only(status)
        for name, value in (_HEADERS | {"Content-Length": str(len(body)), "Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: addresses contain codes."""


class Loopback:
    """Waits on a free port of this machine for the answer to one login."""

    def __init__(self, state: str) -> None:
        """Listen. Raises `OSError` if this machine has no loopback address that can be used."""
        try:
            self._server = _Server("127.0.0.1")
        except OSError:
            self._server = _Server("::1")
        self._server.state = state
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def redirect_uri(self) -> str:
        """Address that the page of the hub sends the browser to."""
        return f"http://{self._server.host}{PATH}"

    def wait(self, seconds: float) -> str:
        """Return the code. Raises `Forbidden` if the login is refused, `NotLoggedIn` after `seconds`."""
        try:
            answer = self._server.answers.get(timeout=seconds)
        except queue.Empty:
            raise NotLoggedIn(
                f"Nobody confirmed the login within {seconds / 60:.0f} minutes.",
                hint="Start again with: gpu-dev login\n"
                "If the browser is on another machine: gpu-dev login --no-browser",
            ) from None
        if isinstance(answer, GpuDevError):
            raise answer
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
