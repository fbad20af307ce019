"""What the product relies on in JupyterHub (DESIGN section 8), each of it by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tornado import httpserver
from traitlets.config import Config

from gpudev_hub.hub.listener import BoundedServer
from gpudev_hub.hub.names import check_name
from gpudev_hub.hub.setup import configure
from gpudev_hub.settings import Settings


@pytest.fixture
def c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(httpserver, "HTTPServer", httpserver.HTTPServer)
    settings = Settings.read({"GPUDEV_STATE": str(tmp_path), "GPUDEV_POOL": "2x8", "GPUDEV_PORT": "8123"})
    ports = {"hub": 1, "proxy_api": 2, "service": 3, "gate": 4}
    (tmp_path / "ports.json").write_text(json.dumps(ports))
    config = Config()
    configure(config, settings)
    return config


def test_servers_live_as_long_as_the_service_says(c: Config) -> None:
    assert c.JupyterHub.allow_named_servers is True
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.cleanup_proxy is False
    assert c.JupyterHub.shutdown_on_logout is False
    assert c.ConfigurableHTTPProxy.should_start is False
    names = [service["name"] for service in c.JupyterHub.services]
    assert names == ["gpudev", "gpudev-supervisor"], "no culler"


def test_the_gates_answers_reach_people(c: Config) -> None:
    assert c.JupyterHub.tornado_settings["slow_spawn_timeout"] == 10
    assert c.LocalGpuSpawner.start_timeout <= 60, "at most the start-up allowance"
    assert c.LocalGpuSpawner.consecutive_failure_limit == 0, "what it refuses is no failure of the Hub's"


def test_cookies_and_answers_are_hardened(c: Config) -> None:
    settings = c.JupyterHub.tornado_settings
    assert settings["cookie_options"] == {"samesite": "Lax"}
    headers = settings["headers"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "subdomain_host" not in c.JupyterHub


def test_it_listens_on_loopback_only(c: Config) -> None:
    assert c.JupyterHub.bind_url == "http://127.0.0.1:8123"
    assert c.JupyterHub.hub_bind_url == "http://127.0.0.1:1"
    assert c.ConfigurableHTTPProxy.api_url == "http://127.0.0.1:2"
    assert all(
        service["url"].startswith("http://127.0.0.1:")
        for service in c.JupyterHub.services
        if "url" in service
    )


def test_nobody_gets_more_than_he_needs(c: Config) -> None:
    roles = {role["name"]: role for role in c.JupyterHub.load_roles}
    service = {"list:users", "read:users:name", "servers", "shares", "tokens"}
    assert set(roles.pop("gpudev-service")["scopes"]) == service
    assert roles.pop("admin") == {"name": "admin", "users": []}, "nobody is an admin of the Hub"
    granted = {scope for role in roles.values() for scope in role["scopes"]} - {"admin-ui"}
    granted |= set(c.JupyterHub.extra_user_scopes) | set(c.LocalGpuSpawner.server_token_scopes)
    assert not any(scope.startswith(("admin", "shares", "inherit", "self")) for scope in granted)
    assert not any("start:servers" in scope for scope in c.LocalGpuSpawner.server_token_scopes)
    passwords = c.LocalAuthenticator
    assert passwords.local_password != passwords.demo_password
    assert len(passwords.local_password) >= 32
    assert not {"allow_all", "admin_users"} & set(passwords)


def test_the_hub_asks_before_it_keeps_a_server(c: Config) -> None:
    assert c.JupyterHub.named_server_limit_per_user is check_name


def test_the_hub_takes_no_large_bodies(c: Config) -> None:
    assert httpserver.HTTPServer is BoundedServer
