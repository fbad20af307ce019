"""The file that GPUDEV_GITHUB names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpudev_hub.core.policy import Policy
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.settings import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("client-secret", "app.pem"):
        (tmp_path / name).write_text(f"{name}!\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def read(folder: Path, **changes: Any) -> GithubSettings:
    said = {
        "app_id": 1,
        "client_id": "Iv1",
        "client_secret_file": str(folder / "client-secret"),
        "private_key_file": str(folder / "app.pem"),
    }
    path = folder / "github.json"
    path.write_text(json.dumps(said | changes))
    found = GithubSettings.read({"GPUDEV_GITHUB": str(path)})
    assert found is not None
    return found


def test_without_the_variable_there_is_no_github() -> None:
    assert GithubSettings.read({}) is None


def test_defaults(folder: Path) -> None:
    found = read(folder)
    assert (found.team, found.repository, found.organisation) == (
        "pytorch/metamates",
        "pytorch/pytorch",
        "pytorch",
    )
    graces = (found.rules().outage_grace, found.on(Policy(pools=())).revocation_grace)
    assert (found.sweep, *graces) == (300_000, 43_200_000, 1_800_000)
    assert (found.mass_revocation.people, found.mass_revocation.percent) == (5, 20)
    assert (found.client_secret(), found.private_key(), found.webhook_secret()) == (
        "client-secret!",
        "app.pem!",
        None,
    )


def test_each_team_is_asked_about_once(folder: Path) -> None:
    found = read(folder, operator_teams=["pytorch/ops"], other_teams=["pytorch/metamates", "pytorch/ci"])
    assert found.teams == ("pytorch/metamates", "pytorch/ops", "pytorch/ci")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tem": "x/y"}, "unknown field `tem`"),
        ({"team": "metamates"}, r"\$\.team"),
        ({"app_id": "4"}, r"\$\.app_id"),
        ({"api_url": "https://user:secret@github.example"}, r"\$\.api_url"),
        ({"repository": "other/pytorch"}, "all must belong to one organisation"),
        ({"other_teams": ["other/team"]}, "other_teams has other/team"),
        ({"mass_revocation": {"percent": 101}}, "percent"),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read(folder, **changes)
    assert "GPUDEV_GITHUB" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.json"):
        GithubSettings.read({"GPUDEV_GITHUB": str(tmp_path / "nowhere.json")})


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [(0o604, "x", "chmod 600"), (0o600, " \n", "empty"), (None, "", "No such file")],
)
def test_secrets_that_cannot_be_used(folder: Path, mode: int | None, text: str, words: str) -> None:
    path = folder / "app.pem"
    if mode is None:
        path.unlink()
    else:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(SettingsError, match=words) as caught:
        read(folder).private_key()
    assert "private_key_file" in str(caught.value)
    assert str(path) in str(caught.value)
