"""A token of the Hub's, by name and password or pasted, checked and stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from gpudev import config, network
from gpudev.api import Api
from gpudev.errors import AccessError, Forbidden, NetworkError, NotLoggedIn, UnexpectedAnswer
from gpudev.foreign import plain
from gpudev.waiting import Notice

DAYS = 30
"""How long a token made here is good for."""
SCOPES = (
    "access:services!service=gpudev",
    "custom:gpudev:reserve",
    "access:servers!user",
    "read:servers!user",
    "read:users:name!user",
)
"""What it may do: use this service as its owner, list and open their servers, and nothing else."""


def by_password(
    url: str,
    user: str,
    password: str,
    *,
    tell: Callable[[str], None] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> str:
    """Log in at the hub's own form and have a token made; returns it. `tell` is as in `Client`.

    Raises `NotLoggedIn` for a wrong password and `AccessError` where the hub has no such form.
    """
    try:
        with (
            Notice(tell, network.reached(url)),
            network.client(url, timeout=15.0, transport=transport) as http,
        ):
            return _token(http, url, user, password)
    except httpx.RequestError as error:
        raise network.failure(url, error) from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise network.no_address(url) from error


def _token(http: httpx.Client, url: str, user: str, password: str) -> str:
    form = http.get(f"{url}/hub/login")
    if form.status_code == HTTPStatus.NOT_FOUND or form.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise NetworkError(
            f"{url} answers {form.status_code} {plain(form.reason_phrase)} where the hub's login should be.",
            hint="Is this the address of a hub, and the hub running?",
        )
    xsrf = http.cookies.get("_xsrf", default=None)
    if 'name="password"' not in form.text or xsrf is None:
        raise AccessError(
            f"{url} has no login by password.",
            hint=f"Make a token at {url}/hub/token and paste it to: gpu-dev login --url {url} --token-stdin",
            code="no_password_login",
        )
    answer = http.post(f"{url}/hub/login", data={"username": user, "password": password, "_xsrf": xsrf})
    if answer.status_code != HTTPStatus.FOUND:
        raise NotLoggedIn(
            f"{url} refuses {user} with this password.",
            hint="Check name and password: gpu-dev login --user NAME",
        )
    # The login changes what the xsrf cookie must be; a page of the hub's sets the new one.
    http.get(f"{url}/hub/token")
    me = _json(http.get(f"{url}/hub/api/user"), url)
    made = http.post(
        f"{url}/hub/api/users/{quote(str(me.get('name')), safe='')}/tokens",
        headers={"X-XSRFToken": _last_cookie(http, "_xsrf")},
        json={"note": "gpu-dev login", "expires_in": DAYS * 24 * 3600, "scopes": list(SCOPES)},
    )
    token = _json(made, url).get("token")
    if not isinstance(token, str):
        raise UnexpectedAnswer(f"{url} made no token: its answer has none.")
    return token


def _json(answer: httpx.Response, url: str) -> dict[str, Any]:
    try:
        body = answer.json()
    except json.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"{url} answers {answer.status_code} with something that is no JSON object.")
    if not answer.is_success:
        raise Forbidden(
            f"{url} makes no token: {plain(str(body.get('message') or answer.reason_phrase))}",
            hint=f"Make one at {url}/hub/token and paste it to: gpu-dev login --url {url} --token-stdin",
        )
    return body


def _last_cookie(http: httpx.Client, name: str) -> str:
    """The cookie's newest value: the login form may have left another one at another path."""
    values = [cookie.value for cookie in http.cookies.jar if cookie.name == name]
    return values[-1] or "" if values else ""


def store(
    url: str,
    token: str,
    *,
    tell: Callable[[str], None] | None = None,
    transport: httpx.BaseTransport | None = None,
) -> str:
    """Check the token with the service and write it to the configuration file; returns whose it is."""
    api = Api(url, token, transport=transport, tell=tell)
    try:
        user = api.me().user
    finally:
        api.close()

    def change(content: dict[str, Any]) -> None:
        content.update(url=url, token=token, user=user)

    config.update(change)
    return user
