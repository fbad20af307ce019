"""Login: get a token by password or take a new or pasted one, check it, and save it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from gpudev import config, network
from gpudev import login_wire as wire
from gpudev.errors import AccessError, Forbidden, NetworkError, NotLoggedIn, UnexpectedAnswer
from gpudev.foreign import plain
from gpudev.login_api import LoginApi
from gpudev.waiting import Notice

DAYS = wire.DAYS
SCOPES = wire.SCOPES


def by_password(url: str, user: str, password: str, *, tell: Callable[[str], None] | None = None) -> str:
    """Log in with the login form of the hub and return a new token. `tell` is as in `Client`.

    Raises `NotLoggedIn` for a wrong password and `AccessError` if the hub has no login by password.
    """
    with (
        network.explained(url),
        Notice(tell, network.reached(url)),
        network.client(url, timeout=15.0) as http,
    ):
        return _token(http, url, user, password)


def _token(http: httpx.Client, url: str, user: str, password: str) -> str:
    form = http.get(f"{url}/hub/login")
    if form.status_code == HTTPStatus.NOT_FOUND or form.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise NetworkError(
            f"The login page of {url} answered {form.status_code} {plain(form.reason_phrase)}.",
            hint="Check that this is the address of a hub and that the hub is running.",
        )
    xsrf = http.cookies.get("_xsrf", default=None)
    if 'name="password"' not in form.text or xsrf is None:
        raise AccessError(
            f"{url} does not support login by password.",
            hint=f"Log in with a browser: gpu-dev login --url {url}\n"
            f"Or create a token at {url}/hub/token and paste it to: gpu-dev login --url {url} --token-stdin",
            code="no_password_login",
        )
    answer = http.post(f"{url}/hub/login", data={"username": user, "password": password, "_xsrf": xsrf})
    if answer.status_code != HTTPStatus.FOUND:
        raise NotLoggedIn(
            f"{url} refused the login of {user}.",
            hint="Check the name and the password, then try again: gpu-dev login --user NAME",
        )
    # The login invalidates the xsrf cookie; a page of the hub sets a new one.
    http.get(f"{url}/hub/token")
    me = _json(http.get(f"{url}/hub/api/user"), url)
    # The newest value is the last: the login form may have set one for another path.
    xsrfs = ["", *(cookie.value or "" for cookie in http.cookies.jar if cookie.name == "_xsrf")]
    made = http.post(
        f"{url}/hub/api/users/{quote(str(me.get('name')), safe='')}/tokens",
        headers={"X-XSRFToken": xsrfs[-1]},
        json={"note": "gpu-dev login", "expires_in": DAYS * 24 * 3600, "scopes": list(SCOPES)},
    )
    token = _json(made, url).get("token")
    if not isinstance(token, str):
        raise UnexpectedAnswer(f"{url} answered the login without a token.")
    return token


def _json(answer: httpx.Response, url: str) -> dict[str, Any]:
    try:
        body = answer.json()
    except json.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"{url} answered {answer.status_code} without a JSON object.")
    if not answer.is_success:
        raise Forbidden(
            f"{url} refused to create a token: {plain(str(body.get('message') or answer.reason_phrase))}",
            hint=f"Create one at {url}/hub/token and paste it to: gpu-dev login --url {url} --token-stdin",
        )
    return body


def store(url: str, token: str, *, tell: Callable[[str], None]) -> tuple[str, str, str | None]:
    """Check the token with the service, and save it in the keyring or the configuration file.

    Returns the user, the place where it is saved, and when it expires.
    """
    with closing(LoginApi(url, token, tell=tell)) as api:
        user = api.me().user
        info = api.token_info()
    created, expires = (None, None) if info is None else (info.created_at, info.expires_at)
    place = config.save_token(url, token, user=user, created_at=created, expires_at=expires)
    return user, place, expires
