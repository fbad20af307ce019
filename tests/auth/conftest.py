"""Fixtures with a separate fake GitHub for each test."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fake_github import FakeGithub, make_github
from github_world import Now
from gpudev_hub.auth.github import GithubClient
from gpudev_hub.github_settings import GithubSettings

CALLBACK = "http://127.0.0.1:9/hub/oauth_callback"


@pytest.fixture
def app_folder(tmp_path: Path) -> Path:
    """Return the folder of the App's secrets and ``github.json``."""
    return tmp_path / "app"


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the private key of another App."""
    path = tmp_path_factory.mktemp("keys") / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", path], check=True)
    return path.read_text()


@pytest.fixture
def github(app_folder: Path) -> Iterator[FakeGithub]:
    found = make_github(folder=app_folder, callback_urls=[CALLBACK])
    found.start()
    yield found
    found.stop()


@pytest.fixture
def settings(github: FakeGithub, app_folder: Path) -> GithubSettings:
    found = GithubSettings.read({"GPUDEV_GITHUB": str(app_folder / "github.json")})
    assert found is not None
    return found


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def client(settings: GithubSettings, now: Now) -> AsyncIterator[GithubClient]:
    found = GithubClient(settings, now=now)
    yield found
    await found.close()
