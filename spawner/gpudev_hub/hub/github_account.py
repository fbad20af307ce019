"""Finds out whose GitHub account logs in. The account's token is used once and revoked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Final

import httpx
import msgspec

from gpudev_hub.auth.github import HEADERS
from gpudev_hub.github_settings import GithubSettings

from .login_pages import AccountRefused, AppBroken, GithubSilent, LoginExpired

log = logging.getLogger(__name__)

TIMEOUT: Final = 10.0
"""Seconds for one answer of GitHub, which has the same limit."""
DROP_TIMEOUT: Final = 3.0
"""Seconds to revoke the user's token; the login waits for it."""
_USED: Final = frozenset({"bad_verification_code", "bad_code_verifier", "invalid_grant"})
"""GitHub's errors for a code that was used, has expired, or belongs to another login."""
_NOT_LET_IN: Final = "GitHub does not let this account log in:"


class Account(msgspec.Struct, frozen=True):
    """The fields of ``GET /user`` that are used."""

    id: Annotated[int, msgspec.Meta(gt=0)]
    login: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _Said(msgspec.Struct, frozen=True):
    """The fields that an answer may have."""

    access_token: str = ""
    error: str = ""
    message: str = ""


class GithubLogin:
    """The App's OAuth client."""

    def __init__(self, settings: GithubSettings) -> None:
        """Read the client secret. Raises ``SettingsError``."""
        self._token_url = f"{settings.url}/login/oauth/access_token"
        self._api = settings.api_url
        self._client_id = settings.client_id
        self._client_secret = settings.client_secret()
        self._http = httpx.AsyncClient(timeout=TIMEOUT, headers=HEADERS)

    async def account(self, params: Mapping[str, Any]) -> Account:
        """Return the account that the code in ``params`` belongs to, and revoke its token.

        Raises ``GithubSilent``, ``LoginExpired``, ``AppBroken`` or ``AccountRefused``.
        """
        try:
            token = await self._exchange(params)
            try:
                return await self._user(token)
            finally:
                await self._drop(token)
        except httpx.HTTPError as error:
            raise GithubSilent(detail=type(error).__name__) from error

    async def _exchange(self, params: Mapping[str, Any]) -> str:
        own = {"client_id": self._client_id, "client_secret": self._client_secret}
        answer = await self._http.post(
            self._token_url, data={**params, **own}, headers={"Accept": "application/json"}
        )
        _raise_if_silent(answer)
        try:
            granted = msgspec.json.decode(answer.content, type=_Said)
        except msgspec.MsgspecError as error:
            raise GithubSilent(
                detail=f"an answer of status {answer.status_code} that cannot be read"
            ) from error
        if granted.access_token:
            return granted.access_token
        if granted.error in _USED:
            raise LoginExpired
        if granted.error == "unverified_user_email":
            raise AccountRefused(
                f"{_NOT_LET_IN} The primary email address of the account is not verified at GitHub"
            )
        raise AppBroken(granted.error or f"status {answer.status_code}")

    async def _user(self, token: str) -> Account:
        answer = await self._http.get(f"{self._api}/user", headers={"Authorization": f"Bearer {token}"})
        _raise_if_silent(answer)
        if answer.status_code != httpx.codes.OK:
            said = _message(answer)
            if answer.status_code == httpx.codes.FORBIDDEN and "account" in said.lower():
                raise AccountRefused(f"{_NOT_LET_IN} {said}")
            raise GithubSilent(detail=f"status {answer.status_code} for a new token: {said}")
        try:
            return msgspec.json.decode(answer.content, type=Account)
        except msgspec.MsgspecError as error:
            raise GithubSilent(detail="an answer that is not an account") from error

    async def _drop(self, token: str) -> None:
        """Revoke the token. If that fails, it expires within hours."""
        try:
            async with asyncio.timeout(DROP_TIMEOUT):
                answer = await self._http.request(
                    "DELETE",
                    f"{self._api}/applications/{self._client_id}/token",
                    json={"access_token": token},
                    auth=(self._client_id, self._client_secret),
                )
                if not answer.is_success:
                    log.warning("a login's token was not withdrawn: GitHub answered %d", answer.status_code)
        except (TimeoutError, httpx.HTTPError) as error:
            log.warning("a login's token was not withdrawn: %s", type(error).__name__)


def _message(answer: httpx.Response) -> str:
    try:
        return msgspec.json.decode(answer.content, type=_Said).message[:200]
    except msgspec.MsgspecError:
        return ""


def _raise_if_silent(answer: httpx.Response) -> None:
    """Raise ``GithubSilent`` for failures of GitHub and for too many requests."""
    limited = answer.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in answer.headers
    if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise GithubSilent(detail=f"status {answer.status_code}")
    if answer.status_code == httpx.codes.FORBIDDEN and (limited or "rate limit" in _message(answer).lower()):
        raise GithubSilent(detail="too many requests")
