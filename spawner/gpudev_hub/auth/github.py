"""A client of GitHub's REST API that acts as a GitHub App.

It sends one request at a time, conditional if possible, and obeys rate limits. Messages quote the request and
GitHub's own message, but no token, key or signed text.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import jwt

from gpudev_hub.core.model import MINUTE, SECOND, Millis
from gpudev_hub.core.ports import MembershipUnavailable
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.settings_error import SettingsError

from .limits import pause_for, server_time

log = logging.getLogger(__name__)

PERMISSIONS = {"members": "read", "metadata": "read"}
"""The permissions that the product needs; tokens are restricted to them."""
CLOCK_TOLERANCE: Millis = MINUTE
"""GitHub refuses an App with a larger clock error."""
HEADERS = {
    "Accept": "application/vnd.github+json",
    "User-Agent": "gpudev",
    "X-GitHub-Api-Version": "2022-11-28",
}
"""Of every request to GitHub's API."""
_TIME_LIMIT = 15
"""Seconds for one request; GitHub's own limit is 10 s."""
_JWT_SECONDS = 540
_RENEW_BEFORE: Millis = 10 * MINUTE
_MAX_PAGES = 500
_MAX_KEPT = 5_000
"""Most answers kept for conditional requests. They are dropped with their token, after an hour."""


class GithubUnavailable(MembershipUnavailable):
    """GitHub gave no usable answer: an outage, a rate limit, or an incomplete answer."""


class GithubRefused(GithubUnavailable):
    """GitHub refuses the App: a setting, its key, its installation or a permission is wrong."""


class _Unauthorized(GithubRefused):
    """401: GitHub does not accept the token or the signed text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``data`` is ``None`` if the status is 404 or 204."""

    status: int
    data: Any
    headers: httpx.Headers = field(repr=False)

    @property
    def found(self) -> bool:
        """Whether GitHub did not answer 404, which may also mean that access is missing."""
        return self.status != 404


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    renew_at: Millis
    expires_at: Millis


class GithubClient:
    """Asks GitHub. Every method raises ``GithubUnavailable`` or ``GithubRefused``."""

    def __init__(self, settings: GithubSettings, *, now: Callable[[], Millis]) -> None:
        """The App's key is read for each new token, so that a new key needs no restart."""
        self.settings = settings
        self.problem: str | None = None
        """Why the last request failed; ``None``: it succeeded."""
        self.clock_ahead: Millis | None = None
        """How far this machine's clock is ahead of GitHub's; ``None`` before the first answer."""
        self.requests = 0
        """Requests sent so far."""
        self.rate: tuple[int, int] | None = None
        """Requests left in this hour, and the limit, as the last answer said."""
        self._now = now
        self._api = settings.api_url.rstrip("/")
        loopback = httpx.URL(self._api).host in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.AsyncClient(
            headers=HEADERS, timeout=_TIME_LIMIT, follow_redirects=False, trust_env=not loopback
        )
        self._turn = asyncio.Lock()
        self._renewal = asyncio.Lock()
        self._timeouts = 0
        self._closed_until: Millis = 0
        self._closed_for = ""
        self._pauses = 0
        self._installation: int | None = None
        self._token: _Token | None = None
        self._kept: dict[str, tuple[str, Reply]] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Reply:
        """Send a ``GET`` with the installation's token; a 404 is a reply, too."""
        return await self._get(str(httpx.URL(self._api + path, params=params)))

    async def get_as_app(self, path: str) -> Reply:
        """Send a ``GET`` as the App itself, for its installations and its webhook."""
        return await self._as_app("GET", path)

    async def pages(self, path: str, params: Mapping[str, str] | None = None) -> list[Any] | None:
        """Return all items of a list; ``None`` if its first page is a 404.

        Raises ``GithubUnavailable`` if a page is missing or incomplete.
        """

        def broken(what: str) -> GithubUnavailable:
            return self._failed(f"GitHub's list {path} {what}")

        url: str | None = str(httpx.URL(self._api + path, params={**(params or {}), "per_page": "100"}))
        items: list[Any] = []
        count, expected = 0, 1
        while url is not None:
            reply = await self._get(url)
            if not reply.found and count == 0:
                return None
            count += 1
            if not isinstance(reply.data, list) or (count > 1 and not reply.data):
                raise self._failed(f"page {count} of GitHub's list {path} is missing")
            if reply.headers.get("x-github-sso", "").startswith("partial-results"):
                raise broken("is not complete (SAML)")
            items.extend(reply.data)
            links = httpx.Response(200, headers=reply.headers).links
            if "last" in links:
                expected = int(httpx.URL(links["last"]["url"]).params.get("page", "1"))
            url = links.get("next", {}).get("url")
            if url is not None and not url.startswith(f"{self._api}/"):
                # The token must not be sent to another address.
                raise broken("continues at another address")
            if count >= _MAX_PAGES:
                raise broken(f"has more than {count} pages")
        if count < expected:
            raise broken(f"ended after {count} of {expected} pages")
        return items

    async def check_client(self, client_id: str, secret: str) -> int:
        """Return the status that GitHub answers to a client id and secret: 401 if they do not match."""
        basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        url = f"{self._api}/applications/{client_id}/token"
        async with self._turn:
            headers = {"Authorization": f"Basic {basic}"}
            answer = await self._exchange("POST", url, headers, {"access_token": "none"})
        return answer.status_code

    def forget_token(self) -> None:
        """Ask for the installation and a token again at the next request."""
        self._installation = None
        self._token = None
        self._kept.clear()

    async def _get(self, url: str) -> Reply:
        token = await self._good_token()
        try:
            return await self._send("GET", url, token)
        except _Unauthorized:
            if self._token is not None and self._token.text == token:
                self.forget_token()
            renewed = await self._good_token()
            if renewed == token:
                raise
        return await self._send("GET", url, renewed)

    # Tokens.

    def _app_jwt(self) -> str:
        try:
            key = self.settings.private_key()
        except SettingsError as error:
            raise self._failed(str(error), GithubRefused) from None
        seconds = self._now() // SECOND
        # A minute back, as GitHub advises: clocks differ a little.
        claims = {"iat": seconds - 60, "exp": seconds + _JWT_SECONDS, "iss": str(self.settings.app_id)}
        try:
            return jwt.encode(claims, key, algorithm="RS256")
        except Exception:
            # Which exception depends on what the file holds. Without its cause: that may quote the key.
            raise self._failed(
                f"private_key_file in GPUDEV_GITHUB names {self.settings.private_key_file}, which holds "
                "no RSA private key in PEM format: download a key of the GitHub App",
                GithubRefused,
            ) from None

    async def _good_token(self) -> str:
        async with self._renewal:
            token = self._token
            if token is not None and self._now() < token.renew_at:
                return token.text
            try:
                self._token = await self._new_token()
            except GithubRefused:
                self._token = None
                raise
            except GithubUnavailable:
                if token is not None and self._now() < token.expires_at:
                    return token.text
                raise
            self._kept.clear()
            return self._token.text

    async def _new_token(self) -> _Token:
        org = self.settings.organisation
        if self._installation is None:
            found = await self._as_app("GET", f"/orgs/{org}/installation")
            if not found.found:
                raise self._failed(
                    f"the GitHub App {self.settings.app_id} is not installed in the organisation {org}: "
                    "an owner of the organisation must install it",
                    GithubRefused,
                )
            self._installation = int(found.data["id"])
        path = f"/app/installations/{self._installation}/access_tokens"
        reply = await self._as_app("POST", path, {"permissions": PERMISSIONS})
        if not reply.found:
            self._installation = None
            raise self._failed(
                f"the GitHub App was uninstalled from {org}: an owner must install it again", GithubRefused
            )
        try:
            text = str(reply.data["token"])
            expires = round(datetime.fromisoformat(reply.data["expires_at"]).timestamp() * SECOND)
            # A token that a header cannot contain would be quoted in a later error.
            if not re.fullmatch(r"[!-~]+", text):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise self._failed("GitHub's answer to a new token cannot be read") from None
        # Both times are GitHub's, so a wrong clock here does no harm.
        life = expires - (server_time(reply.headers) or self._now())
        now = self._now()
        return _Token(text, now + max(0, life - _RENEW_BEFORE), now + life)

    async def _as_app(self, method: str, path: str, body: Any = None) -> Reply:
        try:
            return await self._send(method, self._api + path, self._app_jwt(), body)
        except _Unauthorized:
            self._installation = None
            raise

    # Requests.

    async def _send(self, method: str, url: str, token: str, body: Any = None) -> Reply:
        timeouts = self._timeouts
        async with self._turn:
            if self._timeouts != timeouts:
                # Another request timed out while this one waited: do not wait as long again.
                raise GithubUnavailable(self.problem or "GitHub did not answer")
            now = self._now()
            if now < self._closed_until:
                seconds = -(-(self._closed_until - now) // SECOND)
                raise GithubUnavailable(
                    f"{self._closed_for} is reached: the next request is in {seconds} s", self._closed_until
                )
            headers = {"Authorization": f"Bearer {token}"}
            kept = self._kept.get(url) if method == "GET" else None
            if kept is not None:
                headers["If-None-Match"] = kept[0]
            answer = await self._exchange(method, url, headers, body)
            if answer.status_code == httpx.codes.NOT_MODIFIED and kept is not None:
                return kept[1]
            reply = self._judge(method, url, answer)
            tag = answer.headers.get("etag")
            if method == "GET" and reply.status == httpx.codes.OK and tag:
                if len(self._kept) >= _MAX_KEPT:
                    self._kept.clear()
                self._kept[url] = (tag, reply)
            return reply

    async def _exchange(self, method: str, url: str, headers: dict[str, str], body: Any) -> httpx.Response:
        self.requests += 1
        try:
            async with asyncio.timeout(_TIME_LIMIT):
                answer = await self._http.request(method, url, headers=headers, json=body)
        except (TimeoutError, httpx.TimeoutException):
            self._timeouts += 1
            raise self._failed(f"GitHub did not answer within {_TIME_LIMIT} s") from None
        except httpx.HTTPError as error:
            # Without its text: some quote a header.
            raise self._failed(f"GitHub cannot be reached at {self._api} ({type(error).__name__})") from None
        now = server_time(answer.headers)
        if now is not None:
            self.clock_ahead = self._now() - now
        left, limit = (answer.headers.get(f"x-ratelimit-{name}", "") for name in ("remaining", "limit"))
        if left.isdecimal() and limit.isdecimal():
            self.rate = int(left), int(limit)
        if answer.status_code < httpx.codes.BAD_REQUEST:
            self.problem = None
            self._pauses = 0
        return answer

    def _judge(self, method: str, url: str, answer: httpx.Response) -> Reply:
        """Return the reply of a usable answer. Raises the error for any other answer."""
        status = answer.status_code
        path = httpx.URL(url).path
        try:
            data = answer.json() if answer.content else None
        except ValueError:
            data = None
        message = str(data.get("message", "")) if isinstance(data, dict) else ""
        what = f"{method} {path}: {status}{f' {message}' if message else ''}"
        if status in (200, 201, 204):
            if data is None and status != httpx.codes.NO_CONTENT:
                raise self._failed(f"GitHub's answer is not JSON ({what})")
            return Reply(status, data, answer.headers)
        if status == httpx.codes.NOT_FOUND and message != "Integration not found":
            self._pauses = 0
            return Reply(status, None, answer.headers)
        pause = pause_for(
            status, answer.headers, message, server_time(answer.headers) or self._now(), self._pauses
        )
        if pause is not None:
            self._pauses += 1
            length, self._closed_for = pause
            self._closed_until = self._now() + length
            raise self._failed(f"{self._closed_for} is reached ({what})", until=self._closed_until)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise self._failed(f"GitHub is not working ({what})")
        raise self._refusal(status, answer.headers, message, what)

    def _refusal(self, status: int, headers: httpx.Headers, message: str, what: str) -> GithubUnavailable:
        app = self.settings.app_id
        if status == httpx.codes.UNAUTHORIZED:
            advice = f"check app_id and private_key_file in GPUDEV_GITHUB: the key must be one of App {app}"
            if self.clock_ahead is not None and abs(self.clock_ahead) > CLOCK_TOLERANCE:
                advice = f"{clock_words(self.clock_ahead)}: set this machine's clock"
            # The request is left out: every other request would be refused, too.
            text = f"GitHub refuses the App ({status} {message or 'Unauthorized'}): {advice}"
            return self._failed(text, _Unauthorized)
        if status == httpx.codes.NOT_FOUND:
            advice = f"check app_id and url in GPUDEV_GITHUB: there is no App {app} here"
        elif 300 <= status < 400:
            advice = "it has a new name: check team and repository in GPUDEV_GITHUB"
        elif "suspended" in message:
            advice = "an owner of the organisation must unsuspend the App"
        elif status in (403, 422):
            wanted = headers.get("x-accepted-github-permissions", "members=read and metadata=read")
            advice = f"the App needs {wanted}, and an owner of the organisation must approve it"
        else:
            advice = "check the settings in GPUDEV_GITHUB"
        return self._failed(f"GitHub refuses the App ({what}): {advice}", GithubRefused)

    def _failed(
        self, message: str, kind: type[GithubUnavailable] = GithubUnavailable, until: Millis | None = None
    ) -> GithubUnavailable:
        """Return the error. Logs it, unless the last request failed in the same way."""
        if message != self.problem:
            self.problem = message
            log.warning("%s", message)
        return kind(message, until)


def clock_words(ahead: Millis) -> str:
    """Return a text that says how far this machine's clock is off."""
    return (
        f"this machine's clock is {abs(ahead) // SECOND} s {'ahead of' if ahead > 0 else 'behind'} GitHub's"
    )
