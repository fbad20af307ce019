"""Log-in with GitHub at the Hub alone: settings that it refuses, answers that it does not get, its log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from traitlets.config import Config

from fake_github import FakeGithub, make_github
from gpudev_hub.core.gate import Entry, PersonAnswer
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.hub.gate import GateClient
from gpudev_hub.hub.github import CLOSED, GitHubAppAuthenticator, configure_github
from gpudev_hub.hub.github_account import GithubLogin
from gpudev_hub.hub.login_pages import LOST, AccountRefused, AppBroken, GithubSilent
from gpudev_hub.hub.logs import masked
from gpudev_hub.settings import CHECKOUT
from hub_users import free_port

NOBODY = "http://127.0.0.1:9"
SET: dict[str, Any] = {
    "allow_all": True,
    "allow_existing_users": True,
    "enable_auth_state": True,
    "populate_teams_in_auth_state": True,
    "username_map": {"a": "b"},
    "modify_auth_state_hook": print,
    "refresh_user_hook": print,
    "auth_state_groups_key": "groups",
    "allowed_scopes": ["read:org"],
    "scope": ["read:org"],
}


@pytest.fixture
def github(tmp_path: Path) -> Iterator[FakeGithub]:
    found = make_github(folder=tmp_path / "app", callback_urls=["http://127.0.0.1:1/hub/oauth_callback"])
    found.start()
    yield found
    found.stop()


def settings_of(folder: Path) -> GithubSettings:
    found = GithubSettings.read({"GPUDEV_GITHUB": str(folder / "app" / "github.json")})
    assert found is not None
    return found


@contextmanager
def gate(answer: bytes, status: int = 200) -> Iterator[GateClient]:
    """A service that answers everything with that."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield GateClient(f"http://127.0.0.1:{server.server_port}", "secret")
    finally:
        server.shutdown()
        server.server_close()


def user(**changes: Any) -> Any:
    """A user of the Hub as a login left it."""
    account = {"github_id": 101, "login": "ada"}
    said: dict[str, Any] = {"name": "ada", "admin": False, "user_info": account, "groups": []} | changes
    groups = [SimpleNamespace(name=name) for name in said.pop("groups")]
    return SimpleNamespace(**said, orm_user=SimpleNamespace(groups=groups))


def make(client: GateClient, **settings: Any) -> GitHubAppAuthenticator:
    config = Config()
    for name, value in settings.items():
        setattr(config.GitHubAppAuthenticator, name, value)
    config.GitHubAppAuthenticator.manage_groups = True
    found = GitHubAppAuthenticator(config=config)
    found.gate = client
    return found


# Settings


@pytest.mark.parametrize("name", CLOSED)
def test_no_other_way_in_can_be_set(name: str, caplog: pytest.LogCaptureFixture) -> None:
    extra = {"scope": ["read:org"]} if name == "allowed_scopes" else {}
    value = SET.get(name, {"eve"})
    with pytest.raises(SystemExit) as ended, caplog.at_level(logging.CRITICAL):
        make(GateClient(NOBODY, ""), **{name: value}, **extra)
    assert ended.value.code == 3
    assert name.replace("whitelist", "allowed_") in caplog.text or name in caplog.text
    assert "other_ways_in_have_no_effect" in caplog.text


async def test_with_a_word_the_hub_starts_and_those_settings_have_no_effect() -> None:
    found = make(
        GateClient(NOBODY, ""),
        other_ways_in_have_no_effect=True,
        allow_all=True,
        allowed_users={"eve"},
        admin_users={"eve"},
        allow_existing_users=True,
    )
    for model in (None, {"name": "eve", "admin": None}, {"name": "eve", "admin": True, "user_info": {}}):
        assert await found.check_allowed("eve", model) is False
    assert await found.is_admin(None, {"name": "eve"}) is False


def test_a_hub_with_another_way_in_refuses_to_start(github: FakeGithub, tmp_path: Path) -> None:
    """The site's own settings come after ours."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "ports.json").write_text(
        msgspec.json.encode({name: free_port() for name in ("hub", "proxy_api", "service", "gate")}).decode()
    )
    config = tmp_path / "config.py"
    ours = (CHECKOUT / "hub-config" / "jupyterhub_config.py").read_text()
    config.write_text(f"{ours}\nc.Authenticator.admin_users = {{'eve'}}\nc.OAuthenticator.allow_all = True\n")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "jupyterhub"), "-f", str(config)],
        env=os.environ
        | {
            "GPUDEV_STATE": str(state),
            "GPUDEV_GITHUB": str(tmp_path / "app" / "github.json"),
            "GPUDEV_POOL": "1x1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "not allowed: allow_all, admin_users." in last


def test_a_hub_is_set_up_for_the_app_alone(github: FakeGithub, tmp_path: Path) -> None:
    config = Config()
    config.JupyterHub.template_vars = {}
    configure_github(
        config, settings_of(tmp_path), GateClient(NOBODY, ""), "https://gpudev.example.org/base/"
    )
    found = GitHubAppAuthenticator(config=config)
    assert found.get_callback_url() == "https://gpudev.example.org/base/hub/oauth_callback"
    assert found.authorize_url == f"{github.url}/login/oauth/authorize"
    assert (found.scope, found.enable_pkce, found.enable_auth_state) == ([], True, False)
    assert found.allow_all is False
    assert (found.auth_refresh_age, found.auth_refresh_strict) == (1, True)
    assert found.client_secret == "", "only what talks to GitHub knows it"


# Answers


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 500),
        (b"<html>", 200),
        (b"{}", 200),
        (b"", 404),
        (b"", 401),
        (b'{"verdict": "unavailable"}', 200),
    ],
)
async def test_no_clear_answer_leaves_everybody_in(answer: bytes, status: int) -> None:
    with gate(answer, status) as client:
        assert await make(client).refresh_user(user()) is True


async def test_a_service_that_is_away_leaves_everybody_in() -> None:
    assert await make(GateClient(NOBODY, "")).refresh_user(user()) is True


class Broken:
    async def person(self, hub_user: str) -> PersonAnswer:
        raise RuntimeError(hub_user)


async def test_a_defect_leaves_everybody_in() -> None:
    assert await make(Broken()).refresh_user(user()) is True  # type: ignore[arg-type]


def said(**fields: Any) -> bytes:
    base: dict[str, Any] = {"verdict": Entry.ALLOWED, "github_id": 101, "login": "ada"}
    return msgspec.json.encode(PersonAnswer(**base | fields))


async def test_a_clear_no_ends_it_and_the_login_page_says_why() -> None:
    handler = SimpleNamespace()
    with gate(said(verdict=Entry.REFUSED, message="ada left the team.", hint="Ask.")) as client:
        assert await make(client).refresh_user(user(), handler) is False
    assert getattr(handler, LOST).message == "ada left the team."
    assert handler._token_authenticated is False


async def test_whoever_the_site_blocks_is_out_whatever_the_service_says() -> None:
    with gate(said()) as client:
        found = make(client, blocked_users={"ada"})
        assert await found.refresh_user(user()) is False
    for away in (GateClient(NOBODY, ""), Broken()):
        assert await make(away, blocked_users={"ada"}).refresh_user(user()) is False  # type: ignore[arg-type]
    with pytest.raises(Exception, match="have blocked ada"):
        found.check_blocked_users("ada", {})
    assert found.check_blocked_users("ben", {}) is True


async def test_a_yes_brings_what_changed() -> None:
    """Operators and renames follow GitHub; where nothing changed, nothing is written."""
    with gate(said()) as client:
        assert await make(client).refresh_user(user()) is True
        left = await make(client).refresh_user(user(groups=["gpudev-operators"]))
        assert isinstance(left, dict)
        assert left["groups"] == []
        assert left["admin"] is False
    with gate(said(operator=True, login="lovelace")) as client:
        found = await make(client).refresh_user(user())
    assert isinstance(found, dict)
    assert found["groups"] == ["gpudev-operators"]
    assert found["user_info"] == {"github_id": 101, "login": "lovelace"}
    assert found["name"] == "ada"


# GitHub


@pytest.fixture
async def login(github: FakeGithub, tmp_path: Path) -> AsyncIterator[GithubLogin]:
    found = GithubLogin(settings_of(tmp_path))
    yield found
    await found._http.aclose()


@pytest.mark.parametrize(
    ("rule", "raised"),
    [
        ({"status": 500}, GithubSilent),
        ({"drop": True}, GithubSilent),
        ({"status": 403, "headers": {"X-RateLimit-Remaining": "0"}, "body": "{}"}, GithubSilent),
        ({"status": 403, "headers": {"Retry-After": "60"}, "body": "{}"}, GithubSilent),
        ({"status": 404, "body": '{"error": "Not Found"}'}, AppBroken),
        ({"body": '{"error": "unverified_user_email"}'}, AccountRefused),
    ],
)
async def test_what_github_may_answer_to_a_code(
    github: FakeGithub, login: GithubLogin, rule: dict[str, Any], raised: type[Exception]
) -> None:
    github.control.fail(path="/login/oauth/access_token", **rule)
    with pytest.raises(raised):
        await login.account({"code": "x"})


# The log


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "403 POST /hub/oauth_callback?code=abc&state=e30= (::1): no",
            "403 POST /hub/oauth_callback?code=[secret]&state=[secret] (::1): no",
        ),
        ("uri='/x?next=1&code=abc', version", "uri='/x?next=1&code=[secret]', version"),
        (
            "/hub/login?next=%2Fx%3Fa%3D1%26state%3Dabc%253D%26b%3D2",
            "/hub/login?next=%2Fx%3Fa%3D1%26state%3D[secret]%26b%3D2",
        ),
        ("{'access_token': 'ghu_abc123', 'x': 1}", "{'access_token': '[secret]', 'x': 1}"),
        ("ghs_4242_eyJhbGciOi.eyJpc3M-_.sig left", "[secret] left"),
        ("Authorization: token 0123456789abcdef0123", "Authorization: token [secret]"),
        ("the server ended with exit code=1, state=ready", "the server ended with exit code=1, state=ready"),
        ("an API token of ada was made", "an API token of ada was made"),
    ],
)
def test_secrets_are_masked(line: str, expected: str) -> None:
    assert masked(line) == expected
