"""What a service starts of GitHub."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fake_github import FakeGithub
from github_world import Now, until
from gpudev_hub.auth.parts import GithubParts
from gpudev_hub.core.model import Owner
from gpudev_hub.github_settings import GithubSettings


@pytest_asyncio.fixture
async def parts(github: FakeGithub, app_folder: Path, now: Now) -> AsyncIterator[GithubParts]:
    settings = GithubSettings.read({"GPUDEV_GITHUB": str(app_folder / "github.json")})
    assert settings is not None
    found = GithubParts(settings, now=now, folder=app_folder)
    yield found
    await found.close()


async def test_each_fault_is_said_once_at_the_start(
    parts: GithubParts, github: FakeGithub, caplog: pytest.LogCaptureFixture
) -> None:
    github.control.delete_team("pytorch", "metamates")
    github.control.app(client_secret="other")
    parts.start(list)
    await until(lambda: "client secret" in caplog.text and "team pytorch/metamates" in caplog.text)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    [team] = [line for line in said if "team pytorch/metamates" in line]
    assert "check the team's name in GPUDEV_GITHUB" in team
    assert [line for line in said if "client secret: refused with 401" in line]


async def test_a_key_that_is_no_key_stops_nothing(
    parts: GithubParts, app_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (app_folder / "app.pem").write_text("nonsense")
    parts.start(list)
    await until(lambda: "no RSA private key" in caplog.text)
    assert "nonsense" not in caplog.text


async def test_keys_of_people_with_servers_are_kept_fresh(parts: GithubParts, github: FakeGithub) -> None:
    github.control.add_key("ada", "ssh-dss AAAA")
    parts.start(lambda: ["github:101"])
    await until(lambda: github.requests("/users/ada/keys") != [])
    assert await parts.keys.keys(Owner("github:101", "ada", "ada")) == []
