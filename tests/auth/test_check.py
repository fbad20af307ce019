"""The check of everything that the product relies on at GitHub, by command, API and function."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fake_github import Control, FakeGithub
from github_world import Now
from gpudev_hub.auth.check import Check, check_github
from gpudev_hub.auth.github import GithubClient
from gpudev_hub.github_settings import GithubSettings

NAMES = [
    *("App", "client id", "requested permissions", "installation", "granted permissions", "clock"),
    *("client secret", "team pytorch/metamates", "team pytorch/gpudev-operators", "team pytorch/compiler"),
    *("repository pytorch/pytorch", "permission of one person", "SSH keys of one person", "webhook"),
    "rate limit",
]


def failures(found: list[Check]) -> dict[str, str]:
    assert all(bool(check.todo) != check.ok for check in found)
    return {check.name: f"{check.found} | {check.todo}" for check in found if not check.ok}


async def test_all_is_well(client: GithubClient) -> None:
    found = await check_github(client)
    assert [check.name for check in found] == NAMES
    assert failures(found) == {}
    words = {check.name: check.found for check in found}
    assert words["team pytorch/metamates"].startswith("4 members in 1 pages")
    assert "5 people may push" in words["repository pytorch/pytorch"]
    assert "needs 48 an hour at most" in words["rate limit"]


HOOK = "http://127.0.0.1:9"
FAULTS: list[tuple[Callable[[Control], object], str, str]] = [
    (lambda c: c.uninstall("pytorch"), "installation", "must install the App"),
    (lambda c: c.suspend_app("pytorch"), "installation", "must unsuspend the App"),
    (lambda c: c.permissions("pytorch", {"metadata": "read"}), "granted permissions", "members: read is"),
    (lambda c: c.app(permissions={"members": "read"}), "requested permissions", "metadata: read is"),
    (lambda c: c.rename_team("pytorch", "metamates", "x"), "team pytorch/metamates", "shows no team"),
    (lambda c: c.delete_team("pytorch", "compiler"), "team pytorch/compiler", "shows no team"),
    (lambda c: c.empty_team("pytorch", "metamates"), "team pytorch/metamates", "Add members"),
    (lambda c: c.app(client_secret="other"), "client secret", "refused with 401"),
    (lambda c: c.app(hook_url=HOOK, hook_secret=""), "webhook", "Set a secret"),
    (lambda c: c.app(hook_url=HOOK, events=["team"]), "webhook", "membership, organization, member"),
    (lambda c: c.rate_limit(remaining=5), "repository", "the hourly rate limit of GitHub"),
    (lambda c: c.clock(-30 * 60), "App", "set this machine's clock"),
]


@pytest.mark.parametrize(("change", "name", "words"), FAULTS)
async def test_each_fault_is_named_with_what_to_do(
    client: GithubClient, github: FakeGithub, change: Callable[[Control], object], name: str, words: str
) -> None:
    change(github.control)
    found = failures(await check_github(client))
    assert words in found[name], found


async def test_a_wrong_client_id(settings: GithubSettings, now: Now, github: FakeGithub) -> None:
    client = GithubClient(msgspec.structs.replace(settings, client_id="Iv1"), now=now)
    found = failures(await check_github(client))
    await client.close()
    assert "Set client_id to Iv23liFakeGithubApp1." in found["client id"]


async def test_one_fault_is_said_once(client: GithubClient, github: FakeGithub) -> None:
    github.control.clock(-30 * 60)
    found = failures(await check_github(client))
    assert [name for name, words in found.items() if "JSON web token" in words or "iat" in words] == ["App"]
    assert [name for name, words in found.items() if "not checked" in words]


async def test_an_outage_fails_every_check_and_raises_nothing(
    client: GithubClient, github: FakeGithub
) -> None:
    github.control.outage()
    assert len(failures(await check_github(client))) >= 10


def run(app_folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GPUDEV_GITHUB": str(app_folder / "github.json"), **more}
    return subprocess.run(
        [Path(sys.executable).with_name("gpudev-hub"), "github-check"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_of_the_service_s_machine(github: FakeGithub, app_folder: Path) -> None:
    done = run(app_folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("ok ") == len(NAMES)
    github.control.uninstall("pytorch")
    done = run(app_folder)
    assert done.returncode == 1
    assert "FAILED  installation: the App is not installed in pytorch" in done.stdout
    assert "PRIVATE KEY" not in done.stdout + done.stderr


def test_without_settings_it_says_which_are_missing(app_folder: Path, github: FakeGithub) -> None:
    done = run(app_folder, GPUDEV_GITHUB="")
    assert done.returncode == 1
    assert "GPUDEV_GITHUB is not set" in done.stderr
