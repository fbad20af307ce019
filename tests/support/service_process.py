"""The reservation service as a separate process, with a small Hub. Tests kill and restart it quickly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from gpudev_hub.server.isolation import die_with_parent
from gpudev_hub.settings import LOOPBACK, PREFIX, Settings
from hub_users import SLOW, free_port, wait_for

RESERVE = "custom:gpudev:reserve"


class SmallHub:
    """A Hub that knows every user (alice's token is ``token-of-alice``) and accepts all starts and stops."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str, str]] = Counter()
        """(method, user, server) of starts and stops."""
        self._server = _Quiet((LOOPBACK, 0), _handler(self))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def token(user: str) -> str:
        return f"token-of-{user}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: list[str], token: str) -> tuple[int, object]:
        """Return status and body of the answer."""
        match path:
            case ["user"] if token.startswith("token-of-"):
                name = token.removeprefix("token-of-")
                return 200, {"kind": "user", "name": name, "admin": False, "groups": [], "scopes": [RESERVE]}
            case ["user"]:
                return 403, {"message": "no such token"}
            case ["users", user, "servers", server]:
                self.asked[method, user, server] += 1
                return (202 if method == "POST" else 204), None
            case _:
                return 404, {"message": "not here"}


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore that the service was killed during a request."""


def _handler(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.removeprefix("/hub/api/").split("/")
            token = self.headers.get("Authorization", "").removeprefix("token ")
            status, body = hub.answer(self.command, path, token)
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class ServiceProcess:
    """``gpudev-hub service`` with one state folder. A test can start and kill it repeatedly."""

    def __init__(self, folder: Path, hub: SmallHub, pool: str = "2x8", policy: object = None) -> None:
        """Prepare the service. ``policy`` is the content of the file that ``GPUDEV_POLICY`` names."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("GPUDEV", "JUPYTER"))
        }
        self.environment = inherited | {
            "HOME": str(folder),
            "GPUDEV_STATE": str(folder / "state"),
            "GPUDEV_POOL": pool,
        }
        if policy is not None:
            path = folder / "policy.json"
            path.write_text(json.dumps(policy))
            self.environment["GPUDEV_POLICY"] = str(path)
        self.settings = Settings.read(self.environment)
        self.settings.servers.mkdir(mode=0o700, parents=True)
        self.port = free_port()
        ports = {"hub": hub.port, "proxy_api": free_port(), "service": self.port, "gate": free_port()}
        (self.settings.state / "ports.json").write_text(json.dumps(ports))
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the service and return at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gpudev_hub.app", "service"],
                env=self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def start(self) -> None:
        """Start the service and wait until it answers."""
        self.launch()
        wait_for(f"the service; it said: {self.log()}", lambda: self.answers() or self.ended is not None)
        assert self.ended is None, self.log()

    @property
    def ended(self) -> int | None:
        """Return the exit code of the last process; ``None`` while it runs."""
        assert self._process is not None
        return self._process.poll()

    def answers(self) -> bool:
        """Return whether the service listens and works."""
        try:
            return httpx.get(f"{self.url}{PREFIX}health/live", trust_env=False, timeout=5).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> int:
        """Kill the service with SIGKILL; return the exit code."""
        assert self._process is not None
        self._process.kill()
        return self._process.wait(SLOW)

    def stop(self) -> int:
        """Stop the service with SIGTERM; return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SLOW)

    def close(self) -> None:
        """End the service, even after a failed test."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def log(self) -> str:
        """Return the whole output so far."""
        return self._log.read_text() if self._log.exists() else ""
