"""Checks what the product relies on at GitHub, and says what to do about each fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from gpudev_hub.core.model import HOUR
from gpudev_hub.core.ports import MembershipUnavailable
from gpudev_hub.settings_error import SettingsError

from .github import CLOCK_TOLERANCE, PERMISSIONS, GithubClient, clock_words
from .membership import GithubMembership

EVENTS = ("membership", "organization", "team", "member")
"""Webhook events after which a person is checked at once."""
NOT_CHECKED = "not checked"
"""What a check finds that an earlier fault prevented."""
_AGAIN = "Correct this, then check again."
_SHARE = 0.5
"""Part of the hourly limit that the sweep may need."""


@dataclass(frozen=True, slots=True)
class Check:
    """One fact. ``todo`` is empty if it holds."""

    name: str
    found: str
    todo: str = ""

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.todo


async def check_github(client: GithubClient) -> list[Check]:
    """Run all checks, also after one has failed. Never raises."""
    return [found async for found in _Checks(client).all()]


class _Checks:
    """One run. It keeps what later checks need from earlier ones."""

    def __init__(self, client: GithubClient) -> None:
        self._client = client
        self._settings = client.settings
        self._membership = GithubMembership(client)
        self._member: str | None = None
        self._pages = 0

    async def all(self) -> AsyncIterator[Check]:
        """Yield all checks, in the order in which faults are best corrected."""
        parts: list[tuple[str, Callable[[], Awaitable[list[Check]]]]] = [
            ("App", self._app),
            ("installation", self._installation),
            ("clock", self._clock),
            ("client secret", self._client_secret),
            *((f"team {team}", partial(self._team, team)) for team in self._settings.teams),
            ("repository", self._repository),
            ("permission of one person", self._permission),
            ("SSH keys of one person", self._keys),
            ("webhook", self._webhook),
            ("rate limit", self._rate),
        ]
        said: set[str] = set()
        for name, part in parts:
            try:
                found = await part()
            except MembershipUnavailable as error:
                # One fault can fail many checks, and is reported once.
                found = [_unchecked(name) if str(error) in said else Check(name, str(error), _AGAIN)]
                said.add(str(error))
            except (KeyError, TypeError, ValueError, AttributeError):
                found = [Check(name, "GitHub's answer cannot be read", "Check api_url.")]
            for one in found:
                yield one

    async def _app(self) -> list[Check]:
        app = (await self._client.get_as_app("/app")).data
        settings = self._settings
        known = f"{app['slug']} (App {app['id']}), the private key is one of its keys"
        client_id = app.get("client_id")
        return [
            Check("App", known),
            Check(
                "client id",
                f"GitHub says {client_id}, client_id in GPUDEV_GITHUB is {settings.client_id}",
                "" if client_id == settings.client_id else f"Set client_id to {client_id}.",
            ),
            _permissions("requested permissions", app["permissions"], "Change them in the App's settings"),
        ]

    async def _installation(self) -> list[Check]:
        org = self._settings.organisation
        reply = await self._client.get_as_app(f"/orgs/{org}/installation")
        if not reply.found:
            todo = "An owner of the organisation must install the App."
            return [Check("installation", f"the App is not installed in {org}", todo)]
        found = reply.data
        suspended = found.get("suspended_at") is not None
        return [
            Check(
                "installation",
                f"number {found['id']} in {org}{', suspended' if suspended else ''}",
                "An owner of the organisation must unsuspend the App." if suspended else "",
            ),
            _permissions(
                "granted permissions", found["permissions"], "An owner of the organisation must approve them"
            ),
        ]

    async def _clock(self) -> list[Check]:
        ahead = self._client.clock_ahead
        if ahead is None:
            return [_unchecked("clock")]
        todo = "" if abs(ahead) < CLOCK_TOLERANCE else "Set this machine's clock, with NTP for example."
        return [Check("clock", clock_words(ahead), todo)]

    async def _client_secret(self) -> list[Check]:
        try:
            secret = self._settings.client_secret()
        except SettingsError as error:
            return [Check("client secret", str(error), "The Hub needs it. Correct the file.")]
        status = await self._client.check_client(self._settings.client_id, secret)
        # GitHub accepts the client's secret, and does not know the token.
        good = status in (httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY)
        todo = "" if good else "Create a client secret in the App's settings for client_secret_file."
        return [Check("client secret", "accepted" if good else f"refused with {status}", todo)]

    async def _team(self, team: str) -> list[Check]:
        seen = await self._membership.see_team(team)
        members = await self._client.pages(f"/orgs/{team.replace('/', '/teams/')}/members") or []
        self._pages += _pages(members)
        if team == self._settings.team and members:
            self._member = str(members[0]["login"])
        words = f"{len(members)} members in {_pages(members)} pages, {seen.get('privacy', 'unknown')}"
        empty = team == self._settings.team and not members
        return [Check(f"team {team}", words, "Add members to the team." if empty else "")]

    async def _repository(self) -> list[Check]:
        settings = self._settings
        seen = await self._membership.see_repository()
        listed = await self._membership.pushers() or []
        self._pages += _pages(listed)
        kind = "private" if seen.get("private") else "public"
        words = f"{kind}, {len(listed)} people may push, in {_pages(listed)} pages"
        todo = "" if listed else "Give people push permission, or check repository in GPUDEV_GITHUB."
        return [Check(f"repository {settings.repository}", words, todo)]

    async def _permission(self) -> list[Check]:
        if self._member is None:
            return [_unchecked("permission of one person")]
        path = f"/repos/{self._settings.repository}/collaborators/{self._member}/permission"
        reply = await self._client.get(path)
        if not reply.found:
            return [Check("permission of one person", "GitHub answers 404", "Check repository.")]
        words = f"{self._member} has {reply.data['permission']}"
        same = str(reply.data["user"]["login"]).lower() == self._member.lower()
        return [Check("permission of one person", words, "" if same else "Run the check again.")]

    async def _keys(self) -> list[Check]:
        if self._member is None:
            return [_unchecked("SSH keys of one person")]
        keys = await self._client.pages(f"/users/{self._member}/keys")
        words = f"{self._member} has {len(keys)}" if keys is not None else "GitHub answers 404"
        return [Check("SSH keys of one person", words, "" if keys is not None else "Run the check again.")]

    async def _webhook(self) -> list[Check]:
        reply = await self._client.get_as_app("/app/hook/config")
        url = reply.data.get("url") if reply.found else None
        if not url:
            return [Check("webhook", "none: the next sweep finds a change")]
        faults = []
        if not reply.data.get("secret"):
            faults.append("Set a secret in the App's webhook settings.")
        if self._settings.webhook_secret_file is None:
            faults.append("Name the file with the webhook's secret as webhook_secret_file in GPUDEV_GITHUB.")
        if str(reply.data.get("insecure_ssl", "0")) != "0":
            faults.append("Enable SSL verification in the App's webhook settings.")
        events = (await self._client.get_as_app("/app")).data.get("events", [])
        if missing := [event for event in EVENTS if event not in events]:
            faults.append(f"Subscribe the App to the events {', '.join(missing)}.")
        sent = (await self._client.get_as_app("/app/hook/deliveries")).data or []
        failed = sum(1 for delivery in sent if delivery.get("status_code", 0) not in range(200, 300))
        if failed:
            faults.append("See the recent deliveries in the App's advanced settings.")
        words = f"{url}, {failed} of the last {len(sent)} deliveries failed"
        return [Check("webhook", words, " ".join(faults))]

    async def _rate(self) -> list[Check]:
        rate: dict[str, Any] = (await self._client.get("/rate_limit")).data["rate"]
        needed = round(self._pages * HOUR / self._settings.sweep)
        good = needed < rate["limit"] * _SHARE and rate["remaining"] > 0
        words = (
            f"{rate['remaining']} of {rate['limit']} requests left in this hour; "
            f"a sweep every {self._settings.sweep_minutes:g} min needs {needed} an hour at most"
        )
        todo = "" if good else "Raise sweep_minutes, or wait until the limit is reset."
        return [Check("rate limit", words, todo)]


def _permissions(name: str, granted: dict[str, str], advice: str) -> Check:
    missing = [f"{key}: {level}" for key, level in PERMISSIONS.items() if key not in granted]
    more = [f"{key}: {level}" for key, level in granted.items() if PERMISSIONS.get(key) != level]
    words = ", ".join(f"{key}: {level}" for key, level in sorted(granted.items())) or "none"
    if missing:
        return Check(name, words, f"{advice}: {', '.join(missing)} is missing.")
    note = f"{words} (more than needed: {', '.join(more)})" if more else words
    return Check(name, note)


def _unchecked(name: str) -> Check:
    return Check(name, NOT_CHECKED, "Correct the faults above, then check again.")


def _pages(items: list[Any]) -> int:
    return max(1, -(-len(items) // 100))
