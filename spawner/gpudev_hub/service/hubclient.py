"""A client for the Hub's REST API: named servers, shares, and tokens of command lines."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx

from gpudev_hub.core.ports import HubPending, HubUnavailable, OwnerUnknownToHub, StartBrokenOff, StartRefused

START_TIMEOUT: Final = 20.0
"""Seconds; the Hub answers a start after ``slow_spawn_timeout`` (10 s) at the latest."""
CONNECT_TIMEOUT: Final = 5.0
PAGINATED: Final = "application/jupyterhub-pagination+json"
USERS_PAGE: Final = 200


OF_USERS: Final = "JupyterHub"
"""The Hub's name for the client of tokens that people or services made; tokens of servers have others."""


@dataclass(frozen=True, slots=True)
class HubToken:
    """A user's token, without its secret."""

    id: str
    scopes: tuple[str, ...]
    note: str
    created_at: datetime
    expires_at: datetime | None
    """``None``: it does not expire."""
    of_user: bool
    """Whether it is an API token of the user, not one of a server or of a browser login."""


class TokenRefused(Exception):
    """The Hub refuses to create the token; the message is from the Hub."""


class HubClient:
    """A client of ``api`` (``http://127.0.0.1:8081/hub/api``) with the service's token."""

    def __init__(self, api: str, token: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=api.rstrip("/") + "/",
            headers={"Authorization": f"token {token}"},
            timeout=httpx.Timeout(START_TIMEOUT, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=8),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def start(self, hub_user: str, launch_id: str) -> bool:
        """Start a named server, or continue to start it; return whether the Hub says that it runs."""
        answer = await self._call("POST", hub_user, launch_id, {})
        if answer.status_code in (201, 202):
            return answer.status_code == 201
        message = _message(answer)
        if answer.status_code == 400 and "already running" in message:
            return True
        # 409: the gate refused it. Whether the start is still needed is checked before the next try.
        if answer.status_code == 409 or (answer.status_code == 400 and "pending" in message):
            raise HubPending(message)
        if answer.status_code == 404:
            raise OwnerUnknownToHub(f"the Hub does not know the user {hub_user}")
        # A failed start is a 500 with the spawner's message; so are bugs of the Hub.
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
        """Stop a named server, and remove it if ``forget``; false while the Hub is doing that."""
        answer = await self._call("DELETE", hub_user, server, {"remove": forget})
        if answer.status_code in (202, 204, 404):
            return answer.status_code != 202
        message = _message(answer)
        if answer.status_code == 400 and "pending" in message:
            raise HubPending(message)
        raise HubUnavailable(f"the Hub answered {answer.status_code} to a stop: {message}")

    async def revoke_tokens(self, hub_user: str, keep: Collection[str]) -> None:
        """Delete all tokens of a user, also of browsers, except the own tokens of the servers ``keep``.

        Source: JupyterHub's ``User.spawn``, where a server's own token is ``Server at /user/NAME/SERVER/``.
        """
        path = f"users/{quote(hub_user, safe='')}/tokens"
        answer = await self._ask("GET", path)
        if answer.status_code == 404:
            return
        _expect(answer, f"to a list of tokens of {hub_user}", 200)
        for token in answer.json()["api_tokens"]:
            if _server_of(token) in keep:
                continue
            done = await self._ask("DELETE", f"{path}/{quote(str(token['id']), safe='')}")
            _expect(done, f"to the end of a token of {hub_user}", 204, 404)

    async def known_servers(self) -> set[str]:
        """Return the names of all servers that the Hub runs, starts or stops.

        Source: JupyterHub's REST API, ``GET /users`` with pagination.
        """
        found: set[str] = set()
        page: dict[str, int] | None = {"offset": 0}
        while page is not None:
            params = {"state": "active", "offset": page["offset"], "limit": USERS_PAGE}
            answer = await self._ask("GET", "users", params=params, headers={"Accept": PAGINATED})
            _expect(answer, "to a list of its servers", 200)
            listed = answer.json()
            found.update(name for user in listed["items"] for name in user.get("servers", ()))
            page = listed["_pagination"]["next"]
        return found

    async def knows(self, hub_user: str) -> bool:
        answer = await self._ask("GET", f"users/{quote(hub_user, safe='')}")
        _expect(answer, "to a question about a user", 200, 404, quote_it=True)
        return answer.status_code == 200

    async def guests(self, hub_user: str, server: str) -> frozenset[str] | None:
        answer = await self._ask("GET", _shares(hub_user, server))
        if answer.status_code == 404:
            return None
        _expect(answer, "to a question about guests", 200, quote_it=True)
        return frozenset(share["user"]["name"] for share in answer.json()["items"] if share["user"])

    async def share(self, hub_user: str, server: str, guest: str) -> None:
        """Let a user open the server, and do nothing else with it."""
        body = {"user": guest, "scopes": [f"access:servers!server={hub_user}/{server}"]}
        answer = await self._ask("POST", _shares(hub_user, server), json=body)
        if answer.status_code == 400 and "No such user" in _message(answer):
            raise OwnerUnknownToHub(f"the Hub does not know the user {guest}")
        _expect(answer, "to a new guest", 200, quote_it=True)

    async def unshare(self, hub_user: str, server: str, guest: str) -> None:
        """Stop sharing the server with a user; a user who no longer exists is not an error."""
        answer = await self._ask("PATCH", _shares(hub_user, server), json={"user": guest})
        _expect(answer, "to the end of a guest's access", 200, 404, quote_it=True)

    async def make_token(
        self, hub_user: str, scopes: Collection[str], note: str, life: int
    ) -> tuple[str, HubToken]:
        """Create a user's token that is valid for ``life`` seconds; return it with its details.

        Raises ``TokenRefused`` if the user is unknown or may not have these scopes, and ``HubUnavailable``.
        """
        body = {"note": note, "scopes": sorted(scopes), "expires_in": life}
        answer = await self._ask("POST", f"users/{quote(hub_user, safe='')}/tokens", json=body)
        if answer.status_code in (400, 403, 404):
            raise TokenRefused(_message(answer))
        _expect(answer, "to a request for a token", 201)
        model = answer.json()
        return str(model["token"]), _token(model)

    async def token(self, hub_user: str, id: str) -> HubToken | None:
        """Return the details of a user's token; ``None`` if no token has this id."""
        answer = await self._ask("GET", self._token_path(hub_user, id))
        _expect(answer, "when asked for a token", 200, 404)
        return _token(answer.json()) if answer.status_code == 200 else None

    async def delete_token(self, hub_user: str, id: str) -> None:
        """Delete a user's token, if it still exists."""
        answer = await self._ask("DELETE", self._token_path(hub_user, id))
        _expect(answer, "when told to delete a token", 204, 404)

    @staticmethod
    def _token_path(hub_user: str, id: str) -> str:
        return f"users/{quote(hub_user, safe='')}/tokens/{quote(id, safe='')}"

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


def _shares(hub_user: str, server: str) -> str:
    return f"shares/{quote(hub_user, safe='')}/{quote(server, safe='')}"


def _expect(answer: httpx.Response, what: str, *statuses: int, quote_it: bool = False) -> None:
    """Raise ``HubUnavailable``, with the Hub's message if ``quote_it``, for any other status."""
    if answer.status_code not in statuses:
        message = f": {_message(answer)}" if quote_it else ""
        raise HubUnavailable(f"the Hub answered {answer.status_code} {what}{message}".rstrip(": "))


def _token(model: dict[str, Any]) -> HubToken:
    expires = model.get("expires_at")
    return HubToken(
        id=str(model["id"]),
        scopes=tuple(sorted(model.get("scopes", ()))),
        note=str(model.get("note") or ""),
        created_at=datetime.fromisoformat(model["created"]),
        expires_at=None if expires is None else datetime.fromisoformat(expires),
        of_user=model.get("oauth_client") == OF_USERS,
    )


def _server_of(token: dict[str, Any]) -> str | None:
    """Return the server whose own token this is; tokens of browsers have another client."""
    note = str(token.get("note") or "")
    if token.get("oauth_client") not in ("JupyterHub", "jupyterhub") or not note.startswith("Server at "):
        return None
    return note.rstrip("/").rpartition("/")[2]


def _message(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return answer.text[:500]
    return str(body.get("message", ""))[:500] if isinstance(body, dict) else ""
