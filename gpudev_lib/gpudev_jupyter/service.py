"""A client of the reservation service for the reservation of this server, with the server's own token.

The service accepts this token without asking JupyterHub, so everything here works while the Hub does not
answer. One long poll serves all open tabs.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import msgspec

from gpudev import wire

POLL = 25.0
"""Seconds that the service may hold back its answer."""
TIMEOUT = 10.0
"""Seconds for an answer that is not held back."""
_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds to wait after consecutive failures; the last value repeats."""


class Service:
    """The service's routes for this server."""

    def __init__(self, url: str, id: str, token: str) -> None:
        """``url``: address at which servers reach the service; ``id``: the reservation."""
        self.id = id
        self._url = f"{url.rstrip('/')}/{wire.API}/servers/{id}"
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            # The environment's proxies are for the user's programs.
            trust_env=False,
        )

    @classmethod
    def of(cls, folder: Path) -> Service:
        """Return the service that the server with this private folder belongs to."""
        config = json.loads((folder / "agent.json").read_text())
        return cls(config["service_url"], config["id"], (folder / "token").read_text().strip())

    async def status(self, version: int | None = None) -> wire.ServerStatus:
        """Return the reservation, at once or as soon as its version is no longer ``version``.

        Raises `Refused` and `Away`.
        """
        params = {} if version is None else {"wait": str(POLL), "version": str(version)}
        return await self._ask("GET", "", params=params, timeout=POLL + TIMEOUT if params else TIMEOUT)

    async def extend(self, hours: float, request_id: str) -> wire.ServerStatus:
        """Extend the reservation, once for each ``request_id``. Raises `Refused` and `Away`."""
        return await self._ask("POST", "/extend", json={"hours": hours, "request_id": request_id})

    async def release(self) -> wire.ServerStatus:
        """Release the reservation. Raises `Refused` and `Away`."""
        return await self._ask("DELETE", "")

    async def _ask(self, method: str, path: str, timeout: float = TIMEOUT, **given: Any) -> wire.ServerStatus:
        try:
            answer = await self._http.request(method, self._url + path, timeout=timeout, **given)
            if answer.is_success:
                return msgspec.json.decode(answer.content, type=wire.ServerStatus)
            refusal = msgspec.json.decode(answer.content, type=wire.ErrorBody).error
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Away(refusal.message)
        raise Refused(answer.status_code, refusal)


class Away(Exception):
    """The service does not answer, or answers that it cannot decide now."""


class Refused(Exception):
    """The service refused a request."""

    def __init__(self, status: int, error: wire.Error) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


class State(msgspec.Struct, kw_only=True):
    """What the page receives."""

    reservation: wire.Reservation | None
    """As last known; null before the first answer."""
    outcome: wire.Outcome | None
    seconds_left: float | None
    """At the time of sending."""
    warn_minutes: list[int]
    answers: bool
    """Whether the service answers now."""
    over: bool
    """The service no longer accepts the token of this server: its reservation has ended."""
    notice: str
    """A message about this server, such as an ignored configuration; empty if there is none."""


class Follower:
    """Follows the reservation, and calls the listeners after each change."""

    def __init__(self, service: Service, notice: str = "") -> None:
        """``notice``: a message about this server for its user."""
        self.service = service
        self.notice = notice
        self.listeners: set[Callable[[], None]] = set()
        self._status: wire.ServerStatus | None = None
        self._received = 0.0
        self._answers = True
        self._over = False
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """The reservation with the time left as of now; no clock but this machine's monotonic one is used."""
        known = self._status
        left = None
        if known is not None and known.seconds_left is not None:
            left = known.seconds_left - (time.monotonic() - self._received)
        return State(
            reservation=None if known is None else known.reservation,
            outcome=None if known is None else known.outcome,
            seconds_left=left,
            warn_minutes=[] if known is None else known.warn_minutes,
            answers=self._answers,
            over=self._over,
            notice=self.notice,
        )

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def heard(self, status: wire.ServerStatus) -> None:
        """Record an answer of the service, unless a newer one is known."""
        if self._status is not None and status.reservation.version < self._status.reservation.version:
            return
        self._status, self._received = status, time.monotonic()
        self._answers, self._over = True, False
        self._tell()

    async def _follow(self) -> None:
        version: int | None = None
        failures = 0
        while True:
            try:
                status = await self.service.status(version)
            except Refused as refused:
                self._over = refused.status == HTTPStatus.FORBIDDEN
                self._answers = self._over
            except Away:
                self._answers = False
            else:
                failures, version = 0, status.reservation.version
                self.heard(status)
                continue
            self._tell()
            # The first answer after an outage comes at once.
            version = None
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 (spreads load)

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener()
