"""A whole hub whose users log in with GitHub, and the fake GitHub that they log in with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from fake_github import FakeGithub, make_github
from github_users import GithubUsers
from gpudev_hub.settings import Settings
from hub_users import wait_for
from stack import Stack


class GithubStack(GithubUsers, Stack):
    """A ``Stack`` with a fake GitHub, ``github``."""

    def __init__(self, folder: Path, pool: str = "2x8", *, bastion: bool = False, **settings: Any) -> None:
        """Prepare both. ``settings`` adds or replaces settings of ``GPUDEV_GITHUB``."""
        super().__init__(folder, pool, {"GPUDEV_BASTION": "1"} if bastion else None)
        self.github: FakeGithub = make_github(
            folder=folder / "app", callback_urls=[f"{self.url}/hub/oauth_callback"]
        )
        path = folder / "app" / "github.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        self.environment["GPUDEV_GITHUB"] = str(path)
        self.settings = Settings.read(self.environment)
        self.user = "ada"
        blocked = folder / "blocked"
        blocked.touch()
        self.site = f"c.Authenticator.blocked_users = set(open({str(blocked)!r}).read().split())\n"
        self.github.start()

    def block(self, *users: str) -> None:
        """Block these users of the Hub, and restart it, as an operator does."""
        (self.folder / "blocked").write_text("\n".join(users))
        self.kill("hub")
        self.part("hub")
        wait_for("the Hub", self._hub_answers)

    def _hub_answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/hub/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def restart_service(self, **settings: Any) -> None:
        """Restart the service with other settings of ``GPUDEV_GITHUB``."""
        path = Path(self.environment["GPUDEV_GITHUB"])
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        self.kill("service")
        self.part("service")
        wait_for("the service", self._service_answers)

    def _service_answers(self) -> bool:
        try:
            address = f"{self.url}/services/gpudev/health/live"
            return httpx.get(address, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        super().close()
        self.github.stop()


@contextmanager
def running_github_stack(
    folder: Path, pool: str = "2x8", *, bastion: bool = False, **settings: Any
) -> Iterator[GithubStack]:
    """Run a hub with a fake GitHub that is ready, and end both afterwards."""
    stack = GithubStack(folder, pool, bastion=bastion, **settings)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()
