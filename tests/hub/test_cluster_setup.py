"""What the product relies on in a Hub on Kubernetes (DESIGN section 8), each of it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from jupyterhub.handlers.base import BaseHandler
from tornado import httpserver
from traitlets.config import Config

from cluster_world import settings_of
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.core.model import SECOND
from gpudev_hub.hub.cluster_setup import configure
from gpudev_hub.hub.github import GitHubAppAuthenticator
from gpudev_hub.hub.kubernetes import GpuSpawner
from gpudev_hub.settings import SettingsError


@pytest.fixture
def c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(httpserver, "HTTPServer", httpserver.HTTPServer)
    for name in ("gate", "service-token"):
        (tmp_path / name).write_text(f"the {name}\n")
    config = Config()
    config.JupyterHub.load_roles = [{"name": "of-the-site", "scopes": []}]
    config.JupyterHub.services = [{"name": "of-the-site"}]
    configure(config, with_secrets(tmp_path))
    return config


def with_secrets(folder: Path, **fields: Any) -> ClusterSettings:
    """Settings whose secrets lie in a folder; none of the GitHub App's but what the Hub has."""
    secret = folder / "client-secret"
    secret.write_text("the client secret\n")
    secret.chmod(0o440)
    github = msgspec.structs.replace(settings_of().access(), client_secret_file=str(secret))
    return msgspec.structs.replace(settings_of(**fields), secrets=str(folder), github=github)


def test_people_log_in_with_github_and_in_no_other_way(c: Config) -> None:
    assert c.JupyterHub.authenticator_class is GitHubAppAuthenticator
    assert c.GitHubAppAuthenticator.oauth_callback_url == "https://gpudev.example/hub/oauth_callback"


def test_groups_of_the_site_are_refused(tmp_path: Path) -> None:
    for name in ("gate", "service-token"):
        (tmp_path / name).write_text(f"the {name}\n")
    config = Config()
    config.JupyterHub.load_groups = {"gpudev-operators": {"users": ["eve"]}}
    with pytest.raises(SettingsError, match="load_groups has gpudev-operators"):
        configure(config, with_secrets(tmp_path))


def test_servers_live_as_long_as_the_service_says(c: Config) -> None:
    assert c.JupyterHub.spawner_class is GpuSpawner
    assert c.JupyterHub.allow_named_servers is True
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.cleanup_proxy is False
    assert c.JupyterHub.shutdown_on_logout is False
    assert c.GpuSpawner.delete_pvc is False
    assert c.GpuSpawner.consecutive_failure_limit == 0
    assert c.JupyterHub.tornado_settings["slow_spawn_timeout"] == 10
    assert c.GpuSpawner.start_timeout <= 600, "at most the start-up allowance"
    assert c.GpuSpawner.pvc_name_template == "gpudev-home-{username}", "a home is its owner's, not a server's"


def test_the_service_is_known_and_the_sites_own_things_stay(c: Config) -> None:
    assert [entry["name"] for entry in c.JupyterHub.services] == ["of-the-site", "gpudev"]
    assert c.JupyterHub.services[1]["url"] == "http://gpudev-service.gpudev:8100"
    assert c.JupyterHub.services[1]["api_token"] == "the service-token"
    roles = {role["name"]: role["scopes"] for role in c.JupyterHub.load_roles}
    assert roles == {
        "of-the-site": [],
        "gpudev-service": ["list:users", "read:users:name", "servers", "shares", "tokens"],
        "gpudev-operator": ["custom:gpudev:operate", "admin-ui"],
    }
    assert not any("start:servers" in scope for scope in c.GpuSpawner.server_token_scopes)


def test_cookies_are_sent_by_https_alone(c: Config) -> None:
    assert c.JupyterHub.tornado_settings["cookie_options"] == {"samesite": "Lax", "secure": True}
    assert "subdomain_host" not in c.JupyterHub


def test_each_user_has_an_origin_if_the_site_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "HTTPServer", httpserver.HTTPServer)
    monkeypatch.setattr(BaseHandler, "domain", BaseHandler.domain)
    for name in ("gate", "service-token"):
        (tmp_path / name).write_text(f"the {name}\n")
    config = Config()
    configure(config, with_secrets(tmp_path, subdomains=True))
    assert config.JupyterHub.subdomain_host == "https://gpudev.example"
    hook = config.JupyterHub.subdomain_hook
    assert hook("alice", "gpudev.example", kind="user") == "alice.gpudev.example"
    assert hook("gpudev", "gpudev.example", kind="service") == "gpudev.example"
    names = ["alice", "a--b", "gpudev", "zoë", "a.b", "x" * 80]
    assert len({hook(name, "gpudev.example", kind="user") for name in names}) == len(names)


def test_sizes_are_those_of_the_pools(c: Config) -> None:
    shapes = [(p["gpudev"]["gpus"], p["gpudev"]["nodes"]) for p in GpuSpawner.profiles]
    assert shapes == [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2)]


@pytest.mark.parametrize("word", ["simulated", "pretended"])
def test_simulated_pools_may_have_their_earlier_name(word: str) -> None:
    settings = msgspec.to_builtins(settings_of())
    settings["pools"][0][word] = True
    (pool,) = msgspec.convert(settings, ClusterSettings).make_policy().pools
    assert pool.simulated


def test_who_has_long_to_end_is_not_removed_meanwhile() -> None:
    (pool,) = settings_of(grace_seconds=300).make_policy().pools
    assert pool.stop_overrun > 300 * SECOND


def test_settings_that_can_not_be_used_say_what_and_where(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(settings_of(), github=None)))
    people = tmp_path / "github.json"
    people.write_bytes(msgspec.json.encode(settings_of().access()))
    environment = {
        "GPUDEV_CLUSTER": str(path),
        "GPUDEV_SECRETS": str(tmp_path),
        "GPUDEV_GITHUB": str(people),
    }
    found = ClusterSettings.read(environment)
    assert found == msgspec.structs.replace(settings_of(), secrets=str(tmp_path))
    with pytest.raises(SettingsError, match=r"GPUDEV_GITHUB is not set\..*docs/github-app.md"):
        ClusterSettings.read(environment | {"GPUDEV_GITHUB": ""})
    with pytest.raises(SettingsError, match=r"the secret gate cannot be read: .*No such file"):
        found.word("gate")
    (tmp_path / "gate").write_text("")
    with pytest.raises(SettingsError, match="the secret gate is empty"):
        found.word("gate")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(settings_of(), balancers=("10.0.0.1/8",))))
    with pytest.raises(SettingsError, match=r"balancers has a value that is not a network: 10\.0\.0\.1/8"):
        ClusterSettings.read(environment)
    path.write_text('{"pools": []}')
    with pytest.raises(SettingsError, match=r"cluster.json.*which cannot be used"):
        ClusterSettings.read({"GPUDEV_CLUSTER": str(path)})
    with pytest.raises(SettingsError, match="cannot be used"):
        ClusterSettings.read({})
