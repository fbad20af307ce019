"""One person at a hub with GitHub, who tries each column of the access table."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from access_table import COLUMNS, LATER, NO, NO_ANSWER, YES
from github_hub import GithubStack
from github_login import GithubLogin
from gpudev import wire
from gpudev.errors import AccessError
from gpudev.login_flows import Login
from gpudev.sshblocks import host_blocks, known_hosts
from hub_users import NO_TLS, wait_for
from lab_sockets import terminal
from sessions import send_picker

REFUSED = (401, 403)
SOON = 5.0
"""Seconds within which a change of access must take effect everywhere."""
MARK = "inside"


@dataclass(frozen=True, slots=True)
class Tried:
    """What happened: a word of the table or another result, and details for failure messages."""

    found: str
    detail: str = ""


class Visitor:
    """A person with a GitHub account, a key registered there, a browser and, in some tests, a server."""

    def __init__(self, stack: GithubStack, login: str, id: int) -> None:
        self.stack = stack
        self.login = login
        self.id = id
        self.browser = GithubLogin(stack.url)
        self.folder = stack.folder / "people" / str(id)
        self.folder.mkdir(parents=True)
        self.key = self.folder / "id_ed25519"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", login, "-f", str(self.key)]
        subprocess.run(command, check=True)
        stack.github.control.add_key(login, self.key.with_suffix(".pub").read_text().strip())
        self.token = ""
        self.server_token = ""
        self.reservation: dict[str, Any] = {}
        self.access: wire.SshAccess | None = None
        self.sessions: list[subprocess.Popen[str]] = []

    # Preparation

    def settle_in(self) -> None:
        """Log in, make a token, reserve, and try the server once."""
        page = self.browser.log_in(self.login)
        assert page.status_code == 200, (self.login, words(page))
        self.token = self.stack.token_for(self.login)
        made = self.stack.reserve(self.login, gpus=1, hours=1)
        self.reservation = self.stack.wait_state(made["id"], "ready", self.login)
        self.access = msgspec.convert(self.stack.api("GET", "ssh", None, self.login), wire.SshAccess)
        said = self.ssh(self, "echo $JUPYTERHUB_API_TOKEN", bastion=False)
        assert said.returncode == 0, (self.login, said.stderr)
        self.server_token = said.stdout.strip()
        assert self.server_token, self.login
        assert self.open_lab(self) == 200, self.login

    def stay_connected(self) -> None:
        """Open a session through each way to the server, and keep all of them open."""
        for bastion in (True, False):
            argv = [*self.ssh_argv(self, bastion=bastion), f"echo {MARK}; exec sleep 600"]
            session = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert session.stdout is not None
            assert session.stdout.readline().strip() == MARK
            self.sessions.append(session)

    def sees_the_end(self, of: Callable[[], object]) -> None:
        """Have a terminal open in JupyterLab while ``of`` ends this person's access; it must close."""

        async def watch() -> None:
            server = self.reservation["url"].removesuffix("/lab")
            async with terminal(self.browser.http, server) as socket:
                await asyncio.to_thread(of)
                async with asyncio.timeout(SOON):
                    while await socket.read_message() is not None:
                        pass

        asyncio.run(watch())

    def close(self) -> None:
        self.browser.close()
        for session in self.sessions:
            session.kill()
            session.communicate()

    # Columns

    def try_column(self, column: str, other: Visitor) -> Tried:
        """Try a column. ``other`` is a person who has a server and keeps access in every situation."""
        tries: dict[str, Callable[[Visitor], Tried]] = dict(
            zip(
                COLUMNS,
                (
                    self.log_in,
                    self.reserve_on_the_page,
                    self.reserve_by_token,
                    self.reserve_by_servers_token,
                    self.extend,
                    self.share,
                    self.through_the_bastion,
                    self.to_the_server,
                    self.jupyterlab,
                ),
                strict=True,
            )
        )
        return tries[column](other)

    def log_in(self, _: Visitor) -> Tried:
        """Try with a browser without cookies."""
        browser = GithubLogin(self.stack.url)
        try:
            page = browser.log_in(self.login)
            said = words(page)
            if page.status_code == 503 and NO_ANSWER in said and "Retry-After" in page.headers:
                return Tried(LATER, said)
            if page.status_code == 403 and "Ask " in said:
                return Tried(NO, said)
            if page.status_code == 200 and page.url.path == "/services/gpudev/":
                return Tried(YES, browser.name())
            return Tried(f"{page.status_code} at {page.url.path}", said)
        finally:
            browser.close()

    def reserve_on_the_page(self, _: Visitor) -> Tried:
        """Try with the browser session of this person, if there is one."""
        page = self.browser.http.get("/services/gpudev/")
        if page.status_code in REFUSED or page.url.path == "/hub/login":
            made = self.browser.http.post("/services/gpudev/new", data={})
            if made.url.path == "/services/gpudev/new" and made.status_code not in REFUSED:
                return Tried(f"{made.status_code} at {made.url.path}", words(made))
            return Tried(NO, words(page))
        if page.status_code != 200 or page.url.path != "/services/gpudev/":
            return Tried(f"{page.status_code} at {page.url.path}", words(page))
        new, page = send_picker(self.browser.http, f"page-{self.id}")
        if page.status_code != 200 and "has place 1 in the queue" not in words(page):
            return Tried(f"{page.status_code} at {page.url.path}", words(page))
        return self._reserved(new)

    def reserve_by_token(self, _: Visitor) -> Tried:
        """Try with the token of a command line. Without a token, try to get one with the SSH key."""
        token = self.token
        refusal = ""
        if not token:
            token = "0" * 32
            refusal = self._log_in_with_the_key()
            if not refusal:
                return Tried("a token", "the SSH key made a token")
        tried = self._reserve(token)
        if self.token and tried.found == NO:
            refusal = self._log_in_with_the_key()
            if not refusal:
                return Tried("a token", "the SSH key made a token after the old one was refused")
        return Tried(tried.found, f"{tried.detail} {refusal}")

    def _log_in_with_the_key(self) -> str:
        try:
            Login(self.stack.url, lambda _: None).by_key(self.login, self.key)
        except AccessError as refused:
            return str(refused)
        return ""

    def reserve_by_servers_token(self, other: Visitor) -> Tried:
        """Try with ``gpu-dev``'s settings in a server. A person without one must own no reservation."""
        if self.server_token:
            return self._reserve(self.server_token)
        everything = self.stack.api("GET", "reservations?owner=all", None, other.login)["reservations"]
        mine = [record for record in everything if record["owner"] == self.login]
        return Tried(f"{len(mine)} reservations", str(mine)) if mine else Tried(NO)

    def extend(self, other: Visitor) -> Tried:
        """Try with a token, and with the token of the server. Without both, try with the browser."""
        if not self.reservation:
            path = f"/services/gpudev/api/v1/reservations/{other.reservation['id']}/extend"
            return _answer(self.browser.http.post(path, json={"hours": 0.25}))
        path = f"reservations/{self.reservation['id']}/extend"
        return both(
            _answer(self._call("POST", path, token, {"hours": 0.25}))
            for token in (self.token, self.server_token)
        )

    def share(self, other: Visitor) -> Tried:
        """Share this person's server with another person, who shares theirs."""
        tried = []
        if self.reservation:
            guest = f"reservations/{self.reservation['id']}/guests/{other.login}"
            tried.append(_answer(self._call("PUT", guest, self.token)))
            if tried[0].found == YES:
                tried.append(_answer(self._call("DELETE", guest, self.token)))
        guest = f"reservations/{other.reservation['id']}/guests/{self.login}"
        answer = self._call("PUT", guest, other.token)
        # A person who never had access is as unknown as a person who does not exist.
        tried.append(Tried(NO, answer.text) if answer.status_code == 404 else _answer(answer))
        if tried[-1].found == YES:
            tried.append(_answer(self._call("DELETE", guest, other.token)))
        return both(tried)

    def through_the_bastion(self, other: Visitor) -> Tried:
        return self._enter(other, bastion=True)

    def to_the_server(self, other: Visitor) -> Tried:
        return self._enter(other, bastion=False)

    def jupyterlab(self, other: Visitor) -> Tried:
        """Open JupyterLab of this person's server, or try that of another person."""
        status = self.open_lab(self if self.reservation else other)
        return Tried(YES if status == 200 else NO if status in (302, 403) else str(status))

    # Helpers of the columns

    def _call(self, method: str, path: str, token: str, body: object = None) -> httpx.Response:
        address = f"{self.stack.url}/services/gpudev/api/v1/{path}"
        headers = {"Authorization": f"token {token}"}
        with httpx.Client(trust_env=False, verify=NO_TLS, timeout=60) as client:
            return client.request(method, address, headers=headers, json=body)

    def _reserve(self, token: str) -> Tried:
        answer = self._call("POST", "reservations", token, {"gpus": 1, "hours": 1})
        tried = _answer(answer)
        return self._reserved(answer.json()["id"]) if tried.found == YES else tried

    def _reserved(self, id: str) -> Tried:
        """Check that a second request waits because of the limit, and cancel it."""
        record = self._call("GET", f"reservations/{id}", self.token).json()
        self._call("DELETE", f"reservations/{id}", self.token).raise_for_status()
        mine = record["state"] == "queued" and record["mine"] is True
        return Tried(YES if mine else "reserved something else", str(record))

    def _enter(self, other: Visitor, *, bastion: bool) -> Tried:
        done = self.ssh(self if self.reservation else other, f"echo {MARK}", bastion=bastion)
        said = f"{done.returncode}: {done.stdout}{done.stderr}"
        if (done.returncode, done.stdout.strip()) == (0, MARK):
            return Tried(YES, said)
        refused = done.returncode == 255 and "Permission denied (publickey)" in done.stderr
        return Tried(NO if refused else "ssh failed", said)

    def ssh(self, host: Visitor, command: str, *, bastion: bool) -> subprocess.CompletedProcess[str]:
        """Run a command on a person's server, with the client's own settings and this person's key."""
        argv = [*self.ssh_argv(host, bastion=bastion), command]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )

    def ssh_argv(self, host: Visitor, *, bastion: bool) -> list[str]:
        """Return the ssh command that ends in a person's server."""
        assert host.access is not None
        access = host.access if bastion else msgspec.structs.replace(host.access, bastion=None)
        assert (access.bastion is not None) is bastion
        authority = self.folder / "known_hosts"
        authority.write_text(known_hosts(access))
        config = self.folder / f"config-{'bastion' if bastion else 'direct'}"
        config.write_text("".join(host_blocks(access, authority, [self.key], False, self.folder)))
        options = ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "LogLevel=ERROR"]
        return ["ssh", "-F", str(config), *options, f"gpu-{host.reservation['id']}"]

    def open_lab(self, host: Visitor) -> int:
        """Open a person's JupyterLab in this person's browser; return the status of its API."""
        server = host.reservation["url"].removesuffix("/lab")
        self.browser.http.get(f"{server}/lab")
        return self.browser.http.get(f"{server}/api/status", follow_redirects=False).status_code

    def wait_until_cut(self) -> None:
        """Wait for the end of every open session."""

        def ended() -> bool:
            return all(session.poll() is not None for session in self.sessions)

        wait_for(f"the end of the sessions of {self.login}", ended, SOON)


def both(tries: Any) -> Tried:
    """Return what several tries have in common."""
    done = list(tries)
    found = {tried.found for tried in done}
    return Tried(found.pop() if len(found) == 1 else "different", " | ".join(map(str, done)))


def soon(attempt: Callable[[], Tried], expected: str, patience: float) -> Tried:
    """Retry until the result is as expected, at most for these seconds."""
    until = time.monotonic() + patience
    while True:
        tried = attempt()
        if tried.found == expected or time.monotonic() >= until:
            return tried
        time.sleep(0.2)


def words(page: httpx.Response) -> str:
    """Return the text of a page, without its tags."""
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page.text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def _answer(answer: httpx.Response) -> Tried:
    said = f"{answer.status_code} {answer.text[:300]}"
    if answer.is_success:
        return Tried(YES, said)
    return Tried(NO if answer.status_code in REFUSED else str(answer.status_code), said)
