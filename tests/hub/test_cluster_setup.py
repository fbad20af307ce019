"""What the product relies on in a Hub on Kubernetes (DESIGN section 8), each of it by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tornado import httpserver
from traitlets.config import Config

from cluster_world import settings_of
from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.core.model import SECOND
from gpudev_hub.hub.cluster_setup import configure
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
    configure(config, msgspec.structs.replace(settings_of(), secrets=str(tmp_path)))
    return config


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
        "gpudev-service": ["list:users", "read:users:name", "servers"],
        "gpudev-operator": ["custom:gpudev:operate"],
    }
    assert not any("start:servers" in scope for scope in c.GpuSpawner.server_token_scopes)


def test_sizes_are_those_of_the_pools(c: Config) -> None:
    shapes = [(p["gpudev"]["gpus"], p["gpudev"]["nodes"]) for p in GpuSpawner.profiles]
    assert shapes == [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2)]


def test_who_has_long_to_end_is_not_removed_meanwhile() -> None:
    (pool,) = settings_of(grace_seconds=300).make_policy().pools
    assert pool.stop_overrun > 300 * SECOND


def test_settings_that_can_not_be_used_say_what_and_where(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(msgspec.json.encode(settings_of()))
    found = ClusterSettings.read({"GPUDEV_CLUSTER": str(path), "GPUDEV_SECRETS": str(tmp_path)})
    assert found == msgspec.structs.replace(settings_of(), secrets=str(tmp_path))
    with pytest.raises(SettingsError, match=r"the secret gate can't be read: .*No such file"):
        found.word("gate")
    (tmp_path / "gate").write_text("")
    with pytest.raises(SettingsError, match="the secret gate is empty"):
        found.word("gate")
    path.write_text('{"pools": []}')
    with pytest.raises(SettingsError, match=r"cluster.json.*which can't be used"):
        ClusterSettings.read({"GPUDEV_CLUSTER": str(path)})
    with pytest.raises(SettingsError, match="can't be used"):
        ClusterSettings.read({})
