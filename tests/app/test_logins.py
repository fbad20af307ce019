"""``gpu-dev login`` in each of its ways, and the life of its tokens, with a whole hub."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpudev import clock, config, keyring_store, login_wire
from gpudev.client import Client
from gpudev.errors import AccessError, Forbidden, GpuDevError, NotLoggedIn
from gpudev.login_api import LoginApi
from gpudev.login_flows import Login
from hub_users import HubUsers, wait_for
from people import Person
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


class Browser:
    """What the user does in a browser: log in to the Hub, and press a button of the page."""

    def __init__(self, stack: Stack, user: str) -> None:
        self.http = httpx.Client(base_url=stack.url, follow_redirects=True, trust_env=False, timeout=60)
        form = self.http.get("/hub/login")
        self.http.post(
            "/hub/login",
            data={
                "username": user,
                "password": stack.password(user),
                "_xsrf": self.http.cookies.get("_xsrf", path="/hub/") or form.cookies["_xsrf"],
            },
        )
        self.pages: list[str] = []

    def press(self, address: str, answer: str, **more: str) -> str:
        """Send the form of the page at `address`; return the page that comes."""
        page = self.http.get(address)
        assert page.status_code == 200, page.text
        fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        data = {name: unescape(value) for name, value in fields.items()} | {"answer": answer} | more
        done = self.http.post("/services/gpudev/login", data=data)
        assert done.status_code == 200, done.text
        self.pages.append(done.text)
        return done.text

    def opener(self, answer: str = "confirm") -> Callable[[str], bool]:
        """Return a function that opens the page as a browser does, and follows it to the command line."""

        def open_page(address: str) -> bool:
            threading.Thread(target=self._visit, args=(address, answer), daemon=True).start()
            return True

        return open_page

    def _visit(self, address: str, answer: str) -> None:
        there = re.search(r'content="0; url=([^"]+)"', self.press(address, answer))
        assert there is not None
        httpx.get(unescape(there[1]), trust_env=False)


@pytest.fixture
def alice(stack: Stack) -> Iterator[Browser]:
    browser = Browser(stack, "alice")
    yield browser
    browser.http.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A laptop: a home without anything."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GPUDEV_CONFIG", str(tmp_path / "config.json"))
    for name in ("GPUDEV_URL", "GPUDEV_TOKEN", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(keyring_store, "_backend", lambda: None)
    return tmp_path


def ask_hub(stack: HubUsers, token: str) -> httpx.Response:
    headers = {"Authorization": f"token {token}"}
    return httpx.get(f"{stack.url}/hub/api/user", headers=headers, trust_env=False)


def hub_token(stack: HubUsers, user: str, token: str) -> dict[str, Any]:
    """What the Hub says about a token."""
    answer = httpx.get(
        f"{stack.url}/hub/api/user", headers={"Authorization": f"token {token}"}, trust_env=False
    )
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    assert found["name"] == user
    return found


def test_the_browser_logs_the_command_line_in(stack: Stack, alice: Browser, home: Path) -> None:
    result = Login(stack.url, print).in_browser(alice.opener())
    assert (result.user, result.status) == ("alice", "granted")
    assert result.token is not None
    scopes = set(hub_token(stack, "alice", result.token)["scopes"])
    assert {scope.replace("!user", "!user=alice") for scope in login_wire.SCOPES} <= scopes
    assert not any(
        scope.startswith(("admin", "tokens", "servers", "custom:gpudev:operate")) for scope in scopes
    )
    assert result.expires_at is not None
    left = datetime.fromisoformat(result.expires_at) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert result.token not in "".join(alice.pages)


def test_a_refusal_in_the_browser_ends_the_login(stack: Stack, alice: Browser, home: Path) -> None:
    with pytest.raises(Forbidden, match="refused in the browser"):
        Login(stack.url, print).in_browser(alice.opener("refuse"))


def test_a_code_typed_in_another_browser_logs_in(stack: Stack, alice: Browser, home: Path) -> None:
    said: list[str] = []
    waits: list[float] = []

    def type_the_code(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            code = re.search(r"the code ([B-Z]{4}-[B-Z]{4})", "\n".join(said))
            assert code is not None
            xsrf = re.search(r'data-xsrf="([^"]+)"', alice.http.get("/services/gpudev/login").text)
            assert xsrf is not None
            form = {"user_code": code[1], "answer": "confirm", "_xsrf": unescape(xsrf[1])}
            assert alice.http.post("/services/gpudev/login", data=form).status_code == 200

    result = Login(stack.url, said.append).by_code(type_the_code)
    assert result.user == "alice"
    # The first poll came at once, the second one too early.
    assert waits[0] == 5
    assert f"Open {stack.url}/services/gpudev/login" in said[0]


def test_a_key_of_the_account_logs_in_with_and_without_an_agent(
    stack: Stack, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local user's keys are those in their home."""
    folder = stack.home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = folder / "id_login"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    flow = Login(stack.url, print)
    assert flow.by_key(stack.user, key).user == stack.user
    with pytest.raises(NotLoggedIn, match="accepts none of these SSH keys for the account alice"):
        flow.by_key("alice", key)
    with pytest.raises(NotLoggedIn, match="accepts none"):
        flow.by_key("nobody-here", key)
    with pytest.raises(AccessError, match="No SSH key"):
        flow.by_key(stack.user)
    # With an agent, the public key is enough.
    (home / ".ssh").mkdir()
    agent = subprocess.run(["ssh-agent", "-s"], check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"(SSH_\w+)=([^;]+);", agent))
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", found["SSH_AUTH_SOCK"])
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
        (home / ".ssh" / "id_login.pub").write_bytes(key.with_suffix(".pub").read_bytes())
        assert flow.by_key(stack.user).user == stack.user
    finally:
        subprocess.run(["ssh-agent", "-k"], env=os.environ | found, check=True, capture_output=True)
        for part in (key, key.with_suffix(".pub")):
            part.unlink()


def test_a_hub_reached_by_another_address_refuses_the_signature(stack: Stack, home: Path) -> None:
    key = home / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    elsewhere = stack.url.replace("127.0.0.1", "localhost")
    with pytest.raises(Forbidden, match=f"this hub is {stack.url}") as refused:
        Login(elsewhere, print).by_key(stack.user, key)
    assert f"--url {stack.url}" in refused.value.hint


def test_the_command_line_says_who_it_is_and_logs_out(stack: Stack) -> None:
    bob = Person(stack, "bob")
    bob.environment["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    anonymous = bob.run("whoami", check=False)
    assert (anonymous.returncode, "gpu-dev login" in anonymous.stderr) == (5, True)
    bob.login()
    file = Path(bob.environment["GPUDEV_CONFIG"])
    stored = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = bob.json("whoami")
    assert (told["user"], told["account"], told["operator"]) == ("bob", "bob", False)
    assert (told["hub"], told["stored_in"]) == (stack.url, str(file))
    assert told["expires_at"] == stored["token_expires"]
    assert "custom:gpudev:reserve" in told["scopes"]
    shown = bob.run("whoami").stdout
    assert f"bob at {stack.url}" in shown
    assert stored["token"] not in shown
    assert "deleted there and on this machine" in bob.run("logout").stdout
    assert json.loads(file.read_text()) == {"url": stack.url, "user": "bob"}
    headers = {"Authorization": f"token {stored['token']}"}
    for path in ("/hub/api/user", "/services/gpudev/api/v1/me"):
        assert httpx.get(stack.url + path, headers=headers, trust_env=False).status_code in (401, 403)
    again = bob.run("logout", check=False)
    assert (again.returncode, "gpu-dev login" in again.stderr) == (5, True)


def short_token(stack: Stack, days: int = 3, since: str = "") -> str:
    """A token of alice's, from a login long ago; ``since``: the day of the login, as the note has it."""
    with httpx.Client(base_url=f"{stack.url}/hub/api", trust_env=False) as http:
        answer = http.post(
            "/users/alice/tokens",
            headers={"Authorization": f"token {stack.settings.secret('service-token')}"},
            json={
                "note": f"gpu-dev login on laptop (browser){since}",
                "scopes": list(login_wire.SCOPES),
                "expires_in": days * 24 * 3600,
            },
        )
    answer.raise_for_status()
    return str(answer.json()["token"])


def keep(stack: Stack, token: str) -> None:
    """Save a token as if 27 of its 30 days were over."""
    now = datetime.now(UTC)
    created, expires = (f"{now + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" for days in (-27, 3))
    config.save_token(stack.url, token, user="alice", created_at=created, expires_at=expires)


def test_a_token_renews_itself_once_however_many_use_it(stack: Stack, home: Path) -> None:
    old = short_token(stack)
    keep(stack, old)
    clients = [Client() for _ in range(6)]
    errors: list[GpuDevError] = []

    def use(client: Client) -> None:
        try:
            for _ in range(3):
                client.api.me()
        except GpuDevError as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    stored = config.load()
    assert stored["token"] != old
    assert datetime.fromisoformat(stored["token_expires"]) > datetime.now(UTC) + timedelta(days=29)
    assert hub_token(stack, "alice", stored["token"])["name"] == "alice"
    answer = httpx.get(
        f"{stack.url}/hub/api/user", headers={"Authorization": f"token {old}"}, trust_env=False
    )
    assert answer.status_code == 403
    # All of them go on with the successor, also those that never read the file since.
    for client in clients:
        assert client.api.me().user == "alice"
        client.close()
    # One successor was made, and none is left over.
    api = httpx.Client(base_url=f"{stack.url}/hub/api", trust_env=False)
    listed = api.get(
        "/users/alice/tokens", headers={"Authorization": f"token {stack.settings.secret('service-token')}"}
    ).json()["api_tokens"]
    api.close()
    assert sum(token["note"].startswith("gpu-dev login on laptop (browser)") for token in listed) == 1


def test_the_last_token_of_a_login_is_not_asked_about_again(
    stack: Stack, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs a command in the last 10 of 90 days would ask in vain, each time."""
    old = short_token(stack, since=f", since {datetime.now(UTC) - timedelta(days=87):%Y-%m-%d}")
    keep(stack, old)
    near_the_end = datetime.now(UTC) + timedelta(days=2.5)
    monkeypatch.setattr(clock, "now", lambda: near_the_end)

    def logged(what: str) -> int:
        return sum(what in line for line in stack.log("access").splitlines())

    renewals, uses = logged("login/renew"), logged("api/v1/me")
    for _ in range(3):
        with Client() as client:
            client.api.me()
    wait_for("the log", lambda: logged("api/v1/me") == uses + 3)
    assert logged("login/renew") == renewals + 1
    assert (config.load()["token"], config.load()["token_last"]) == (old, True)


def test_a_failed_renewal_changes_nothing(stack: Stack, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = short_token(stack)
    keep(stack, old)

    def fail(api: LoginApi) -> None:
        raise GpuDevError("the hub is away")

    monkeypatch.setattr(LoginApi, "renew", fail)
    with Client() as client:
        assert client.api.me().user == "alice"
    assert config.load()["token"] == old


def test_no_secret_is_in_a_log_of_the_hub(stack: Stack, alice: Browser, home: Path) -> None:
    result = Login(stack.url, print).in_browser(alice.opener())
    assert result.token is not None
    codes = re.findall(r"[?&;]code=([A-Za-z0-9_-]+)", unescape("".join(alice.pages)))
    assert codes
    logs = "".join(
        path.read_text(errors="replace") for path in stack.settings.logs.iterdir() if path.is_file()
    )
    for secret in [result.token, *codes]:
        assert secret not in logs
    assert '"event": "login"' in logs
