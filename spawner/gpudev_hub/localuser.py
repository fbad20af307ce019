"""Writes a token into the local user's client configuration, so that the command line needs no login."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import httpx

from .server import private
from .settings import Settings


class ConfigUnusable(Exception):
    """The client configuration cannot be read or written. It was not changed."""


class LocalUser:
    """The account that runs the hub, as a client of the hub."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def check(self) -> dict[str, Any]:
        """Return the current configuration, including other programs' keys. Raises ``ConfigUnusable``."""
        path = self._settings.config
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigUnusable(
                f"{path} cannot be read ({error}): repair or remove it, or set GPUDEV_CONFIG to another file"
            ) from error
        if not isinstance(content, dict):
            raise ConfigUnusable(f"{path} is not a JSON object: repair or remove it")
        return content

    async def prepare(self, hub_api: str, scopes: Collection[str]) -> str | None:
        """Write address, name and a valid token into the configuration.

        Returns the previous address if it was a different one.
        """
        config = self.check()
        ours = {"url": self._settings.url, "user": self._settings.user}
        async with httpx.AsyncClient(base_url=hub_api, trust_env=False, timeout=15) as client:
            token = config.get("token")
            if not isinstance(token, str) or not await self._valid(client, token, scopes):
                token = await self._new(client, scopes)
        changed = config | ours | {"token": token}
        try:
            if changed != config or self._settings.config.stat().st_mode & 0o077:
                self._settings.config.parent.mkdir(parents=True, exist_ok=True)
                private.write(self._settings.config.resolve(), json.dumps(changed, indent=2) + "\n")
        except OSError as error:
            raise ConfigUnusable(f"{self._settings.config} cannot be written: {error}") from error
        before = config.get("url")
        return before if isinstance(before, str) and before != self._settings.url else None

    async def _valid(self, client: httpx.AsyncClient, token: str, scopes: Collection[str]) -> bool:
        if not token.isascii():
            return False
        answer = await client.get("/user", headers={"Authorization": f"token {token}"})
        if answer.status_code != 200:
            return False
        user = answer.json()
        name = self._settings.user
        wanted = {scope.replace("!user", f"!user={name}") for scope in scopes}
        return user.get("name") == name and wanted <= set(user.get("scopes", ()))

    async def _new(self, client: httpx.AsyncClient, scopes: Collection[str]) -> str:
        answer = await client.post(
            f"/users/{self._settings.user}/tokens",
            headers={"Authorization": f"token {self._settings.secret('supervisor-token')}"},
            json={"note": "gpu-dev on this machine", "scopes": sorted(scopes)},
        )
        answer.raise_for_status()
        return str(answer.json()["token"])
