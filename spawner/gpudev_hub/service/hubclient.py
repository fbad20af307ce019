"""The Hub's REST API, as far as starting and stopping named servers goes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx

from gpudev_hub.core.ports import (
    HubPending,
    HubUnavailable,
    OwnerUnknownToHub,
    StartBrokenOff,
    StartRefused,
)

START_TIMEOUT: Final = 20.0
"""Seconds; the Hub answers a start after ``slow_spawn_timeout`` (10 s) at the latest, if it is well."""
CONNECT_TIMEOUT: Final = 5.0
PAGINATED: Final = "application/jupyterhub-pagination+json"
USERS_PAGE: Final = 200


class HubClient:
    """Talks to ``api`` (``http://127.0.0.1:8081/hub/api``) with the service's token."""

    def __init__(self, api: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=api.rstrip("/") + "/",
            headers={"Authorization": f"token {token}"},
            timeout=httpx.Timeout(START_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=8),
            trust_env=False,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def start(self, hub_user: str, launch_id: str) -> bool:
        """Start a named server, or go on starting it; true once the Hub says that it runs."""
        answer = await self._call("POST", hub_user, launch_id, {})
        if answer.status_code in (201, 202):
            return answer.status_code == 201
        message = _message(answer)
        if answer.status_code == 400 and "already running" in message:
            return True
        # 409: the gate has not let it through; whether the start is still wanted is seen before the next try.
        if answer.status_code == 409 or (answer.status_code == 400 and "pending" in message):
            raise HubPending(message)
        if answer.status_code == 404:
            raise OwnerUnknownToHub(f"the Hub knows no user {hub_user}")
        # A start that fails is a 500 of the Hub's, with the spawner's own words; so are its own defects.
        if answer.status_code in (429, 502, 503, 504):
            raise HubUnavailable(f"the Hub answered {answer.status_code}: {message}")
        if answer.status_code in (401, 403) or answer.is_redirect:
            raise HubUnavailable(
                f"the Hub does not accept the service's token ({answer.status_code}): {message}"
            )
        if message in ("", HTTPStatus.INTERNAL_SERVER_ERROR.phrase):
            raise StartBrokenOff(f"the Hub answered {answer.status_code} {message}".rstrip())
        raise StartRefused(message)

    async def stop(self, hub_user: str, server: str, *, forget: bool) -> bool:
        """Stop a named server, or remove it, too; false while that is under way, true if it is done."""
        answer = await self._call("DELETE", hub_user, server, {"remove": forget})
        if answer.status_code in (202, 204, 404):
            return answer.status_code != 202
        message = _message(answer)
        if answer.status_code == 400 and "pending" in message:
            raise HubPending(message)
        raise HubUnavailable(f"the Hub answered {answer.status_code} to a stop: {message}")

    async def known_servers(self) -> set[str]:
        """Names of all servers that the Hub has, running or on their way there or back.

        Source: JupyterHub's REST API, ``GET /users`` with pagination.
        """
        found: set[str] = set()
        page: dict[str, int] | None = {"offset": 0}
        while page is not None:
            params = {"state": "active", "offset": page["offset"], "limit": USERS_PAGE}
            answer = await self._ask("GET", "users", params=params, headers={"Accept": PAGINATED})
            if answer.status_code != 200:
                raise HubUnavailable(f"the Hub answered {answer.status_code} to a list of its servers")
            listed = answer.json()
            found.update(name for user in listed["items"] for name in user.get("servers", ()))
            page = listed["_pagination"]["next"]
        return found

    async def _call(self, method: str, hub_user: str, server: str, body: object) -> httpx.Response:
        path = f"users/{quote(hub_user, safe='')}/servers/{quote(server, safe='')}"
        return await self._ask(method, path, json=body)

    async def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise HubUnavailable(
                f"the Hub does not answer: {type(error).__name__} {error}".rstrip()
            ) from error


def _message(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:500]
    return str(body.get("message", ""))[:500] if isinstance(body, dict) else ""
