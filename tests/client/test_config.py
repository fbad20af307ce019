"""The configuration file and the order of the settings."""

from __future__ import annotations

import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import gpudev
from gpudev import config

HUB = "http://127.0.0.1:8000"


@pytest.fixture
def file(home: Path) -> Path:
    return home / "config.json"


def write(file: Path, **content: Any) -> None:
    file.write_text(json.dumps(content))


def test_foreign_keys_stay_and_the_mode_is_0600(file: Path) -> None:
    earlier = {"github_user": "alice", "region": "us-east-2", "environments": {"a": [1, None]}}
    write(file, **earlier)
    file.chmod(0o644)
    config.update(lambda content: content.update(url=HUB))
    assert json.loads(file.read_text()) == earlier | {"url": HUB}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_its_owner_can_read_it_whatever_the_umask(file: Path) -> None:
    before = os.umask(0o777)
    try:
        config.update(lambda content: content.update(url=HUB))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.json"
    target.write_text("{}")
    file.symlink_to(target)
    config.update(lambda content: content.update(url=HUB))
    assert file.is_symlink()
    assert json.loads(target.read_text()) == {"url": HUB}


@pytest.mark.parametrize("text", ['{"url": "http', "[]", "3", "", "[" * 100_000])
def test_a_broken_file_is_an_error_and_left_untouched(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(gpudev.ConfigError, match="did not change it"):
        config.update(lambda content: content.update(url=HUB))
    with pytest.raises(gpudev.ConfigError):
        config.resolve(HUB, "token")
    assert file.read_text() == text


def test_a_byte_order_mark_is_read_over(file: Path) -> None:
    file.write_text('\ufeff{"url": "http://127.0.0.1:8000"}')
    assert config.load() == {"url": HUB}


def test_a_pipe_is_read_but_not_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(file)
    monkeypatch.setattr(config, "PIPE_PATIENCE", 0.01)
    with pytest.raises(gpudev.ConfigError, match=r"the pipe was empty for 0\.01 s"):
        config.load()
    monkeypatch.setattr(config, "PIPE_PATIENCE", 10.0)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(file.write_text, "{}")
        assert config.load() == {}


def test_a_file_that_is_not_text_is_an_error_and_left_untouched(file: Path) -> None:
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(gpudev.ConfigError):
        config.update(lambda content: content.update(url=HUB))
    assert file.read_bytes() == b"\xff\xfe{"


def test_a_device_is_no_configuration_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/zero has no end: reading it would hold up every ssh."""
    monkeypatch.setenv("GPUDEV_CONFIG", "/dev/zero")
    with pytest.raises(gpudev.ConfigError, match="it is a device"):
        config.load()


def test_a_change_that_fails_leaves_the_file(file: Path) -> None:
    write(file, url=HUB)

    def change(content: dict[str, Any]) -> None:
        content["url"] = "half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        config.update(change)
    assert json.loads(file.read_text()) == {"url": HUB}


def test_a_full_disk_leaves_the_file_and_nothing_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(file, url=HUB)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(gpudev.ConfigError, match="No space left"):
        config.update(lambda content: content.update(url="http://other"))
    assert json.loads(file.read_text()) == {"url": HUB}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_arguments_then_environment_then_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, url=HUB, token="file", gpu_type="a100", hours=2)
    settings = config.resolve()
    assert (settings.url, settings.token, settings.gpu_type, settings.hours) == (HUB, "file", "a100", 2)
    monkeypatch.setenv("GPUDEV_URL", "https://hub.example.org/base/hub/home")
    monkeypatch.setenv("GPUDEV_TOKEN", "env")
    assert config.resolve().url == "https://hub.example.org/base"
    assert config.resolve().token == "env"
    assert config.resolve(HUB + "/", "argument").url == HUB
    assert config.resolve(HUB + "/", "argument").token == "argument"


@pytest.mark.parametrize("variable", ["GPUDEV_URL", "JUPYTERHUB_PUBLIC_HUB_URL"])
def test_on_a_server_of_the_hubs_nothing_is_configured(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, HUB + "/hub/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "server")
    assert (config.resolve().url, config.resolve().token) == (HUB, "server")


def test_a_token_goes_to_its_own_hub_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, url=HUB, token="file")
    monkeypatch.setenv("GPUDEV_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "server")
    with pytest.raises(gpudev.NotLoggedIn, match="no token for https://evil"):
        config.resolve("https://evil.example.org")
    assert config.resolve(HUB).token == "file"
    assert config.resolve().token == "server"


def test_the_token_of_a_server_stays_with_its_hub_wherever_url_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_HUB_URL", HUB + "/hub/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "server")
    monkeypatch.setenv("GPUDEV_URL", HUB)
    assert config.resolve().token == "server"
    monkeypatch.setenv("GPUDEV_URL", "https://other.example.org")
    with pytest.raises(gpudev.NotLoggedIn, match="no token for https://other"):
        config.resolve()
    assert config.resolve(HUB).token == "server"
    monkeypatch.setenv("GPUDEV_TOKEN", "other")
    assert config.resolve().token == "other"


def test_without_anything_it_says_how_to_log_in() -> None:
    with pytest.raises(gpudev.NotLoggedIn, match="gpu-dev login --url"):
        config.resolve()


@pytest.mark.parametrize(
    "url",
    ["hub.example.org", "ftp://x", "http://", "http://[", "http://x:port", "http://a?b=c", "http://u:p@x"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(gpudev.InvalidRequest, match="not the address of a hub"):
        config.clean_url(url)


@pytest.mark.parametrize(
    "bad",
    [
        {"url": 3},
        {"url": HUB, "token": ["x"]},
        *({"url": HUB, "hours": hours} for hours in ("four", float("nan"), float("-inf"), 1e42, 10**400, 0)),
    ],
)
def test_values_of_another_kind_are_named(file: Path, bad: dict[str, Any]) -> None:
    write(file, **({"token": "x"} | bad))
    with pytest.raises(
        gpudev.ConfigError,
        match=r"\b(url|token|gpu_type|hours) in .* is .*, which is not a (string|length of time)",
    ):
        config.resolve()
