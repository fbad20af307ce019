"""What a login needs on this machine: a port for the browser, the keyring, the choice of a way, a clock."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gpudev import config, keyring_store, login_flows, loopback
from gpudev.cli import account, browser
from gpudev.cli.app import main
from gpudev.errors import AccessError, Forbidden, InvalidRequest, NetworkError, NotLoggedIn
from gpudev.login_api import LoginApi
from gpudev.login_flows import Login, new_proof
from gpudev.loopback import Loopback
from gpudev.renewal import due
from hub_users import free_port
from live_service import LiveService

HUB = "https://hub.example.org"
STATE = "the-state-of-this-login"


def get(address: str, **headers: str) -> httpx.Response:
    return httpx.get(address, headers=headers, trust_env=False)


def test_the_browser_brings_the_code_to_this_machine() -> None:
    with Loopback(STATE) as waiting:
        parts = urlsplit(waiting.redirect_uri)
        assert parts.hostname == "127.0.0.1"
        # Others at the port: no code, a wrong state, another host name, another path.
        assert get(f"{waiting.redirect_uri}?code=a&state=guess").status_code == 400
        assert get(f"{waiting.redirect_uri}?code=a").status_code == 400
        assert get(f"http://{parts.netloc}/?code=a&state={STATE}").status_code == 404
        assert get(f"{waiting.redirect_uri}?code=a&state={STATE}", Host="evil.example").status_code == 404
        page = get(f"{waiting.redirect_uri}?code=the-code&state={STATE}")
        assert page.status_code == 200
        assert "the-code" not in page.text
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert waiting.wait(5) == "the-code"
    with pytest.raises(httpx.ConnectError):
        get(waiting.redirect_uri)


def test_a_connection_that_says_nothing_holds_up_no_login() -> None:
    """Browsers open connections before they need them."""
    with (
        Loopback(STATE) as waiting,
        socket.create_connection(("127.0.0.1", urlsplit(waiting.redirect_uri).port or 0)),
    ):
        get(f"{waiting.redirect_uri}?code=the-code&state={STATE}")
        assert waiting.wait(5) == "the-code"


def test_a_refusal_and_a_closed_browser_are_said() -> None:
    with Loopback(STATE) as waiting:
        get(f"{waiting.redirect_uri}?error=access_denied&state={STATE}")
        with pytest.raises(Forbidden, match="refused in the browser"):
            waiting.wait(5)
        with pytest.raises(NotLoggedIn, match="Nobody confirmed the login") as late:
            waiting.wait(0.01)
        assert "gpu-dev login --no-browser" in late.value.hint


def test_without_the_first_loopback_address_the_second_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = loopback._Server

    def only_v6(host: str) -> Any:
        made.append(host)
        if host == "127.0.0.1":
            raise OSError("no such address")
        return real(host)

    monkeypatch.setattr(loopback, "_Server", only_v6)
    try:
        with Loopback(STATE) as waiting:
            assert waiting.redirect_uri.startswith("http://[::1]:")
    except OSError:
        pass  # a machine without IPv6
    assert made == ["127.0.0.1", "::1"]


def test_an_older_hub_is_named_with_the_ways_that_it_has(service: LiveService) -> None:
    service.refuse(404, "not_found", "There is nothing at this address.")
    login = Login(service.url, print)
    for way in (login.by_code, partial(login.in_browser, lambda page: True)):
        with pytest.raises(AccessError, match="older version") as old:
            way()
        assert (old.value.code, "--token-stdin" in old.value.hint) == ("no_login_page", True)


def test_a_hub_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(LoginApi, "_persist", lambda self, attempt: attempt())
    with pytest.raises(NetworkError, match="cannot be reached"):
        Login(url, print).by_code()


def test_every_proof_is_new() -> None:
    assert len({new_proof() for _ in range(100)}) == 100
    verifier, challenge = new_proof()
    assert (43 <= len(verifier) <= 128, len(challenge)) == (True, 43)


def test_a_missing_key_is_named(home: Path, service: LiveService) -> None:
    with pytest.raises(InvalidRequest, match="There is no SSH key"):
        login_flows.sign(home / "nothing", b"text")


# Which way


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
        ({"BROWSER": "firefox", "SSH_TTY": "/dev/pts/1"}, False),
    ],
)
def test_the_browser_is_used_where_its_user_sees_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    assert browser.browser_here() == expected


@pytest.mark.parametrize(
    ("arguments", "way"),
    [([], "in_browser"), (["--no-browser"], "by_code"), (["--ssh", "--user", "alice"], "by_key")],
)
def test_each_option_has_its_way(
    service: LiveService, monkeypatch: pytest.MonkeyPatch, arguments: list[str], way: str
) -> None:
    used: list[str] = []

    def take(name: str) -> Callable[..., Any]:
        def run(self: Login, *given: object) -> Any:
            used.append(name)
            raise AccessError("enough")

        return run

    for name in ("in_browser", "by_code", "by_key"):
        monkeypatch.setattr(Login, name, take(name))
    monkeypatch.setattr(account, "browser_here", lambda: True)
    assert main(["login", "--url", service.url, *arguments]) == 5
    assert used == [way]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ssh", "--token-stdin"],
        ["--password-stdin", "--no-browser"],
        ["--key", "x"],
        ["--no-browser", "--user", "alice"],
    ],
)
def test_ways_that_do_not_go_together(arguments: list[str]) -> None:
    assert main(["login", "--url", HUB, *arguments]) == 2


# Where the token is


class Keyring:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, entry: str, token: str) -> None:
        self.kept[service, entry] = token

    def get_password(self, service: str, entry: str) -> str | None:
        return self.kept.get((service, entry))

    def delete_password(self, service: str, entry: str) -> None:
        del self.kept[service, entry]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    found = Keyring()
    monkeypatch.setattr(keyring_store, "_backend", lambda: found)
    return found


def test_with_a_keyring_the_file_has_no_token(home: Path, keyring: Keyring) -> None:
    file = home / "config.json"
    place = config.save_token(
        HUB, "the-token", user="alice", created_at="2026-11-01T00:00:00Z", expires_at="x"
    )
    assert place == config.token_place() == "the keyring of this machine"
    assert "the-token" not in file.read_text()
    assert list(keyring.kept.values()) == ["the-token"]
    settings = config.resolve()
    assert (settings.token, settings.stored, settings.expires_at) == ("the-token", True, "x")
    assert config.settings_of(file) == config.Settings(HUB, "the-token")
    assert main(["config", "get", "token"]) == 0
    config.forget_token()
    assert not keyring.kept
    assert json.loads(file.read_text()) == {"url": HUB, "user": "alice"}
    with pytest.raises(NotLoggedIn):
        config.resolve()


def test_each_configuration_file_has_its_own_entry(
    home: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.save_token(HUB, "alices")
    monkeypatch.setenv("GPUDEV_CONFIG", str(home / "bob.json"))
    config.save_token(HUB, "bobs")
    assert config.resolve().token == "bobs"
    monkeypatch.setenv("GPUDEV_CONFIG", str(home / "config.json"))
    assert config.resolve().token == "alices"


def test_a_token_that_moves_leaves_no_other_behind(home: Path, keyring: Keyring) -> None:
    config.save_token(HUB, "first")
    config.save_token("https://other.example.org", "second")
    assert list(keyring.kept.values()) == ["second"]
    # A program that knows of no keyring writes to the file: its token is the newer one.
    config.update(lambda content: content.update(token="third"))
    assert config.stored_token() == "third"


def test_a_keyring_that_hangs_or_fails_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Keyring):
        def set_password(self, service: str, entry: str, token: str) -> None:
            time.sleep(30)

    class Failing(Keyring):
        def set_password(self, service: str, entry: str, token: str) -> None:
            raise RuntimeError("locked")

    class Forgetting(Keyring):
        def set_password(self, service: str, entry: str, token: str) -> None:
            pass

    monkeypatch.setattr(keyring_store, "ANSWER", 0.05)
    for kind in (Hanging, Failing, Forgetting):
        monkeypatch.setattr(keyring_store, "_backend", kind)
        assert config.save_token(HUB, "the-token") == str(home / "config.json")
        assert config.stored_token() == "the-token"


def test_a_keyring_without_the_token_says_what_to_do(home: Path, keyring: Keyring) -> None:
    config.save_token(HUB, "the-token")
    keyring.kept.clear()
    with pytest.raises(NotLoggedIn, match="keyring of this machine does not return"):
        config.resolve()


def test_no_keyring_that_writes_plain_text_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring as library

    monkeypatch.undo()  # the real choice
    useless = [
        type("Useless", (Keyring,), {"__module__": module})()
        for module in ("keyrings.alt.file", "keyring.backends.null", "keyring.backends.fail")
    ]
    for found in useless:
        monkeypatch.setattr(library, "get_keyring", lambda found=found: found)
        assert keyring_store._backend() is None
    good = type("Good", (Keyring,), {"__module__": "keyring.backends.SecretService"})()
    chain = type("Chain", (), {"__module__": "keyring.backends.chainer", "backends": [*useless, good]})()
    monkeypatch.setattr(library, "get_keyring", lambda: chain)
    assert keyring_store._backend() is good


# When it is renewed

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "expected"), [(0, False), (19.9, False), (20.1, True), (29.9, True), (30, False), (60, False)]
)
def test_a_token_is_renewed_in_the_last_third_of_its_life(days: float, expected: bool) -> None:
    created, expires = START.isoformat(), (START + timedelta(days=30)).isoformat()
    assert due(created, expires, START + timedelta(days=days)) == expected


@pytest.mark.parametrize(
    "times", [(None, None), ("x", "y"), (None, "2026-11-30T00:00:00Z"), ("2026-11-01", "2026-11-30")]
)
def test_a_token_without_times_is_not_renewed(times: tuple[str | None, str | None]) -> None:
    assert not due(*times, START)
