"""Each kind of token has the scopes that ``docs/login.md`` lists, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tornado import httpserver
from traitlets.config import Config

from gpudev import login_wire
from gpudev_hub.hub.scopes import LOCAL_USER_SCOPES
from gpudev_hub.hub.setup import configure
from gpudev_hub.settings import CHECKOUT, Settings

ROW = re.compile(r"\| ([a-z -]+) \| [^|]+ \| (`[^|]+) \| [^|]+ \|")


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Settings]:
    monkeypatch.setattr(httpserver, "HTTPServer", httpserver.HTTPServer)
    settings = Settings.read({"GPUDEV_STATE": str(tmp_path), "GPUDEV_POOL": "2x8", "GPUDEV_PORT": "8123"})
    ports = {"hub": 1, "proxy_api": 2, "service": 3, "gate": 4}
    (tmp_path / "ports.json").write_text(json.dumps(ports))
    config = Config()
    configure(config, settings)
    return config, settings


def documented() -> dict[str, set[str]]:
    """Return the scopes in the table, by kind of token."""
    page = (CHECKOUT / "docs" / "login.md").read_text(encoding="utf-8")
    section = page[page.index("## Every kind of token") :]
    return {row[1]: set(re.findall(r"`([^`]+)`", row[2])) for row in ROW.finditer(section)}


def role(c: Config, service: str) -> set[str]:
    """Return the scopes of all roles of a service."""
    roles: list[dict[str, Any]] = c.JupyterHub.load_roles
    return {scope for one in roles if service in one.get("services", ()) for scope in one["scopes"]}


def test_each_kind_of_token_has_the_scopes_in_the_table(configured: tuple[Config, Settings]) -> None:
    c, settings = configured
    services = {service["name"]: service for service in c.JupyterHub.services}
    table = documented()
    assert table.pop("browser") == set(services["gpudev"]["oauth_client_allowed_scopes"])
    assert table.pop("command line") == set(login_wire.SCOPES)
    assert table.pop("command line on the machine of the hub") == set(LOCAL_USER_SCOPES)
    assert table.pop("server") == set(c.LocalGpuSpawner.server_token_scopes)
    own = f"={settings.user}"
    assert table.pop("supervisor") == {s.replace(own, "=YOU") for s in role(c, "gpudev-supervisor")}
    assert table.pop("reservation service") == role(c, "gpudev")
    assert not table, "a kind of token that does not exist"
    assert c.LocalGpuSpawner.oauth_client_allowed_scopes == []


def test_only_the_service_can_start_servers_or_make_tokens_of_others(
    configured: tuple[Config, Settings],
) -> None:
    for kind, scopes in documented().items():
        powers = {scope for scope in scopes if re.fullmatch(r"servers|shares|tokens|proxy|list:.*", scope)}
        allowed = {
            "reservation service": {"servers", "shares", "tokens", "list:users"},
            "supervisor": {"proxy"},
        }
        assert powers == allowed.get(kind, set()), kind
