"""No secret of a hub is where others can read it, in the course of everything that people do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from access_cells import Visitor
from github_hub import GithubStack, running_github_stack
from gpudev_hub.settings import CHECKOUT
from gpudev_hub.web.app import PUBLIC
from hub_users import wait_for
from secrets_scan import (
    SHORTEST,
    Finding,
    Secret,
    found_in,
    logs_of,
    processes_of,
    readable_by_others,
    secrets_of,
    unpacked,
)
from sessions import log_in
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PAGES = ["", "new", "pool", "usage", "operator", "help", "reservations/{id}"]
HUB_PAGES = [
    "/hub/home",
    "/hub/token",
    "/hub/login",
    "/hub/admin",
    "/hub/nowhere",
    "/hub/oauth_callback?error=x",
]
UNMASKED = re.compile(rb"[?&](?:code|state|token)=(?!\[secret\])[^&\s\"']{8,}")
"""A secret parameter of an address."""
EXPIRES = 35.0
"""Seconds after a log-out until the cookie of the service's pages is of no use."""


@pytest.fixture(scope="module")
def github() -> Iterator[GithubStack]:
    with (
        TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_github_stack(Path(folder), bastion=True) as running,
    ):
        yield running


def answers(browser: httpx.Client, id: str) -> dict[str, bytes]:
    """What every page and every address of the API says, errors included."""
    found = {}
    paths = [f"/services/gpudev/{path}" for path in PAGES] + HUB_PAGES
    for route in PUBLIC:
        if route.method == "GET":
            paths.append("/services/gpudev/" + route.path.format(ref=id, id=id, name="x", login="x"))
    for path in paths:
        answer = browser.get(path.format(id=id))
        found[f"{answer.request.method} {path}"] = answer.content
    return found


def unexpected(stack: Stack, secrets: list[Secret]) -> list[Finding]:
    """Secrets in places that others can read. A process may hold these in its environment:

    the proxy has the token of its own interface, which it takes from nowhere else; a server has its own token
    at the Hub. Only the account itself, and root, can read the environment of a process.
    """
    holds = found_in(secrets, processes_of(stack, "environ"))
    held = {
        finding
        for finding in holds
        if (finding.place.startswith("proxy ") and finding.secret == "secrets/proxy-token")
        or (finding.place.startswith("server ") and own(finding))
    }
    return [
        *found_in(secrets, logs_of(stack)),
        *found_in(secrets, processes_of(stack, "cmdline")),
        *found_in(secrets, readable_by_others(stack)),
        *(finding for finding in holds if finding not in held),
    ]


def own(finding: Finding) -> bool:
    """Whether a server's process has the token of the same server."""
    reservation = finding.place.removeprefix("server ").split("/")[0]
    return finding.secret.startswith(f"token of {reservation}-")


def test_no_secret_leaves_its_place(stack: Stack) -> None:
    client = str(Path(sys.executable).parent / "gpu-dev")

    def run(*argv: str) -> str:
        done = subprocess.run(
            [client, *argv], env=stack.environment, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout + done.stderr

    made = stack.reserve(name="scanned")
    stack.wait_state(made["id"], "ready")
    said = run("ssh-sync") + run("share", "scanned", "alice") + run("list") + run("whoami")
    said += run("ssh", "scanned", "--", "true")
    other = stack.folder / "other.json"
    password = stack.password("alice")
    done = subprocess.run(
        [client, "login", "--url", stack.url, "--user", "alice"],
        env={**stack.environment, "GPUDEV_CONFIG": str(other)},
        input=f"{password}\n",
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    secrets = [*secrets_of(stack), Secret("token of alice", stack.token_for("alice").encode())]
    assert len(secrets) > 10
    said += done.stdout + done.stderr
    with log_in(stack, "alice") as browser:
        shown = answers(browser, made["id"])
        wrong = httpx.post(f"{stack.url}/hub/login", data={"username": "alice", "password": password + "x"})
        shown["a wrong password"] = wrong.content
        address = re.search(
            r"/services/gpudev/client/[^\s\"'&<]+\.whl", browser.get("/services/gpudev/help").text
        )
        assert address is not None
        wheel = unpacked(httpx.get(f"{stack.url}{address[0]}", trust_env=False).raise_for_status().content)
        assert "wheel: gpudev/cli/app.py" in wheel
        shown |= wheel
        cookies = [Secret(f"cookie {c.name}", (c.value or "").encode()) for c in browser.cookies.jar]
        hub = browser.get("/hub/logout")
        assert hub.status_code == 200
        found = unexpected(stack, [*secrets, *(c for c in cookies if c.name != "cookie _xsrf")])
        found += found_in(secrets, {**shown, "what gpu-dev said": said.encode()})
        assert not found
        for name, content in logs_of(stack).items():
            assert not UNMASKED.search(content), (name, UNMASKED.search(content))

        def out() -> bool:
            answer = browser.get("/services/gpudev/api/v1/me", follow_redirects=False)
            return answer.status_code == 401

        wait_for("the end of the session", out, EXPIRES)
    # The scan finds what is there: in a log, on a command line, in an environment, in a file of all.
    planted = Secret("planted", b"planted-secret-0123456789")
    (stack.settings.logs / "planted.log").write_bytes(planted.value)
    open_to_all = stack.folder / "open"
    open_to_all.write_bytes(planted.value)
    open_to_all.chmod(0o644)
    places = {finding.place for finding in unexpected(stack, [planted])}
    assert {"open"} <= places
    assert any(place.endswith("planted.log") for place in places)
    assert found_in([Secret("a setting", str(stack.settings.state).encode())], processes_of(stack, "environ"))
    assert found_in([Secret("a part", b"jupyterhub_config.py")], processes_of(stack, "cmdline"))


def test_logins_with_github_leave_no_secret(github: GithubStack) -> None:
    seen: list[Secret] = []

    def remember(response: httpx.Response) -> None:
        for address in (str(response.url), response.headers.get("Location", "")):
            for name in ("code", "state"):
                seen.extend(
                    Secret(f"{name} of a login", value.encode())
                    for value in parse_qs(urlsplit(address).query).get(name, [])
                    if len(value) >= 16
                )

    statuses = {}
    for login in [account.login for account in github.github.state.accounts.values()]:
        browser = github.browser()
        browser.http.event_hooks = {"response": [remember]}
        statuses[login] = browser.log_in(login).status_code
        # A callback that comes twice, and one with a state from elsewhere.
        for secret in [s for s in seen if s.name.startswith("code")][-1:]:
            browser.http.get("/hub/oauth_callback", params={"code": secret.value.decode(), "state": "x" * 40})
        browser.close()
    assert {200, 403} <= set(statuses.values()), statuses
    state = github.github.state
    ada = Visitor(github, "ada", state.by_login("ada").id)
    ada.browser.http.event_hooks = {"response": [remember]}
    ada.settle_in()
    entered = ada.ssh(ada, "echo entered", bastion=True)
    assert (entered.returncode, entered.stdout) == (0, "entered\n"), entered.stderr
    assert "bastion" in {name.partition(" ")[0] for name in processes_of(github, "cmdline")}
    shown = answers(ada.browser.http, ada.reservation["id"])
    shown |= {"what ssh said": (entered.stdout + entered.stderr).encode()}
    cookies = [
        Secret(f"cookie {cookie.name}", (cookie.value or "").encode())
        for cookie in ada.browser.http.cookies.jar
        if cookie.name != "_xsrf" and len(cookie.value or "") >= SHORTEST
    ]
    for login in ("eve", "cleo"):
        browser = github.browser()
        shown[f"the refusal of {login}"] = browser.log_in(login).content
        browser.close()
    secrets = [*secrets_of(github), *seen, *cookies, Secret("token of ada", ada.token.encode())]
    secrets += [Secret("token of the App", token.encode()) for token in state.installation_tokens]
    secrets += [Secret("token of a person at GitHub", token.encode()) for token in state.user_tokens]
    secrets.append(Secret("client secret", state.app.client_secret.encode()))
    assert len(seen) > 4
    assert {"secrets/bastion", "key host_ed25519"} <= {secret.name for secret in secrets}
    assert "logs/bastion.log" in {name.removeprefix("state/") for name in logs_of(github)}
    assert not unexpected(github, secrets)
    assert not found_in(secrets, shown)
    ada.close()
    for name, content in logs_of(github).items():
        assert not UNMASKED.search(content), (name, UNMASKED.search(content))


def test_images_are_built_without_the_state_of_a_hub() -> None:
    """Only sources are sent to the builder, and no source is a secret."""
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    sources = {"gpudev_lib", "infra/images", "requirements", "spawner"}
    assert sent == sources | {"LICENSE", "README.md", "pyproject.toml"}
    for name in sorted(sent):
        top = CHECKOUT / name
        for folder, _, names in os.walk(top) if top.is_dir() else [(str(top.parent), [], [top.name])]:
            for one in names:
                content = (Path(folder) / one).read_bytes()
                assert b"PRIVATE KEY-----\n" not in content, f"{folder}/{one}"
    for dockerfile in (CHECKOUT / "infra" / "images").glob("*/Dockerfile"):
        text = dockerfile.read_text()
        assert not re.search(r"^(ARG|ENV) .*(TOKEN|SECRET|PASSWORD|KEY)", text, re.MULTILINE), dockerfile
