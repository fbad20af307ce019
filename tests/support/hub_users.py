"""What users do over HTTP with a hub of any engine, and functions that wait for the results."""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from gpudev.login import by_password

T = TypeVar("T")
SLOW = 90.0
"""Seconds that anything may take on a busy machine."""
LOOK_AGAIN: Final = 0.2
"""Seconds between two checks. Each check takes CPU from the parts that the test waits for."""
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: without it, httpx loads all public certificates for each client."""


class HeldPort:
    """A port that nobody else gets while this object exists, and on which nothing listens.

    Servers can bind it, because they set ``SO_REUSEADDR``.
    """

    def __init__(self) -> None:
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        # Only now, because otherwise the kernel might choose a port that others hold.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.number = int(held.getsockname()[1])
        self._file = held.detach()

    def __del__(self) -> None:
        os.close(self._file)


_HELD: list[HeldPort] = []


def free_port() -> int:
    """Return a port that nobody else gets until the tests end, and on which nothing listens."""
    _HELD.append(HeldPort())
    return _HELD[-1].number


def wait_for(what: str, look: Callable[[], T | None], timeout: float = SLOW) -> T:
    """Return the first true answer of ``look``. Fail with ``what`` if there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(LOOK_AGAIN)


class HubUsers:
    """The users of one hub, and calls of the API in their names."""

    def __init__(self, folder: Path, url: str, user: str) -> None:
        """Prepare the users. ``folder`` is for files of the test; ``user`` is the default user."""
        self.folder = folder
        self.url = url
        self.user = user
        self._tokens: dict[str, str] = {}

    def password(self, user: str) -> str:
        """Return the user's password."""
        raise NotImplementedError

    def browse(self, user: str) -> httpx.Client:
        """Return a browser in which that user has filled in the login form."""
        client = httpx.Client(
            base_url=self.url, follow_redirects=True, trust_env=False, verify=NO_TLS, timeout=60
        )
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', client.get("/hub/login").text)
        assert xsrf is not None
        fields = {"username": user, "password": self.password(user), "_xsrf": xsrf[1]}
        answer = client.post("/hub/login", data=fields)
        assert answer.status_code == 200
        return client

    def token_for(self, user: str | None = None) -> str:
        """Return a Hub token of the user, made at the first call."""
        name = user or self.user
        if name not in self._tokens:
            self._tokens[name] = by_password(self.url, name, self.password(name))
        return self._tokens[name]

    def forget_tokens(self) -> None:
        """Let later calls make new tokens, as after a login. The service asks the Hub who owns them."""
        self._tokens.clear()

    def client(self, user: str | None = None) -> httpx.Client:
        """Return an HTTP client of the API with that user's token."""
        return httpx.Client(
            base_url=f"{self.url}/services/gpudev/api/v1/",
            headers={"Authorization": f"token {self.token_for(user)}"},
            trust_env=False,
            verify=NO_TLS,
            timeout=30,
        )

    def api(self, method: str, path: str, body: object = None, user: str | None = None) -> Any:
        """Call the API; return the answer, which must be a success."""
        with self.client(user) as client:
            answer = client.request(method, path, json=body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def reserve(self, user: str | None = None, **ask: object) -> dict[str, Any]:
        """Reserve with ``POST reservations``; return as soon as the request is acknowledged."""
        found: dict[str, Any] = self.api("POST", "reservations", {"gpus": 1, "hours": 1} | ask, user)
        return found

    def wait_state(
        self, id: str, state: str, user: str | None = None, timeout: float = SLOW
    ) -> dict[str, Any]:
        """Wait until a reservation is in ``state``."""
        last: list[dict[str, Any]] = []

        def look() -> dict[str, Any] | None:
            try:
                last[:] = [self.api("GET", f"reservations/{id}", None, user)]
            except (httpx.TransportError, AssertionError):
                return None  # a part is being restarted
            return last[0] if last[0]["state"] == state else None

        try:
            return wait_for(f"{id} {state}", look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; last seen: {last}; {self.said()}") from None

    def log(self, name: str) -> str:
        """Return the log of a part."""
        raise NotImplementedError

    def said(self) -> str:
        """Return the last lines of the logs of hub and service, without the requests."""
        words = []
        for name in ("hub", "service"):
            lines = [line for line in self.log(name).splitlines() if "gpudev.access" not in line]
            words.append(f"the {name} said last:\n" + "\n".join(lines[-40:]))
        return "\n".join(words)

    def jupyter(self, reservation: Mapping[str, Any], user: str | None = None) -> int:
        """Return the status of the answer of the server's JupyterLab through the proxy."""
        url = f"{reservation['url'].removesuffix('/lab')}/api/status"
        headers = {"Authorization": f"token {self.token_for(user)}"}
        try:
            return httpx.get(url, headers=headers, trust_env=False, verify=NO_TLS, timeout=10).status_code
        except httpx.TransportError:
            return 0
