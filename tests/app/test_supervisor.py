"""What ``make run`` does when it is stopped, killed, or can't begin."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import httpx
import pytest

from gpudev_hub import supervisor
from gpudev_hub.localuser import LocalUser
from gpudev_hub.server import preflight, processes
from gpudev_hub.settings import Ports
from gpudev_hub.stores.sqlite.store import SqliteStore
from gpudev_hub.supervisor import Ended
from hub_users import wait_for
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_killed_stopped_and_started_again(short_folder: Path) -> None:
    """Invariants 3 and 10 over the whole of it: adoption after a kill, restart after an orderly end."""
    stack = Stack(short_folder, pool="1x2")
    try:
        stack.config.write_text('{"github_user": "octocat", "url": "https://elsewhere.example"}')
        stack.start()
        kept = json.loads(stack.config.read_text())
        assert kept["github_user"] == "octocat"
        assert kept["url"] == stack.url
        # ssh finds servers, although nobody has run gpu-dev yet.
        assert "gpudev/config" in (stack.home / ".ssh" / "config").read_text()
        token = kept["token"]
        running = stack.wait_state(stack.reserve(gpus=2)["id"], "ready")
        waiting = stack.reserve()
        launcher = stack.launcher(running["id"])
        parts = [stack.part(name) for name in ("proxy", "hub", "service")]

        stack.kill("supervisor")
        wait_for("the end of its parts", lambda: not any(map(processes.start_time, parts)))
        assert processes.start_time(launcher) is not None
        refused_and_left_alone(stack)
        assert processes.start_time(launcher) is not None
        stack.start()
        again = stack.wait_state(running["id"], "ready")
        assert (again["ends_at"], again["allocation"]) == (running["ends_at"], running["allocation"])
        assert stack.launcher(running["id"]) == launcher
        wait_for("the server through the proxy", lambda: stack.jupyter(again) == 200)
        assert stack.token_for() == token, "a token that works is kept"
        assert stack.wait_state(waiting["id"], "queued")["guaranteed_by"] == waiting["guaranteed_by"]

        assert stack.stop() == Ended.WELL
        assert stack.server_processes() == {}
        assert processes.start_time(launcher) is None
        stack.start()
        back = stack.wait_state(running["id"], "ready")
        assert back["ends_at"] == running["ends_at"]
        assert stack.launcher(running["id"]) != launcher
        wait_for("the server through the proxy", lambda: stack.jupyter(back) == 200)
        assert stack.wait_state(waiting["id"], "queued")["state"] == "queued"
        # As when its terminal is closed.
        assert stack.stop(signal.SIGHUP) == Ended.WELL
        assert stack.server_processes() == {}
        store = SqliteStore(stack.settings.database)
        record = asyncio.run(store.open()).reservations[running["id"]]
        asyncio.run(store.close())
        assert (record.attempt, record.restarts) == (2, 0), "an end of everything is no crash of the server"
    finally:
        stack.close()


def refused_and_left_alone(stack: Stack) -> None:
    """27: neither a start that is refused nor one that gives up ends the servers of the hub before it."""
    store = stack.settings.database
    kept = store.rename(store.with_name("kept"))
    for _ in range(2):
        code, said = run(stack)
        assert code == Ended.REFUSED
        assert "Nothing was changed" in said
    assert not store.exists()
    kept.rename(store)
    # What only the Hub itself finds out.
    database = stack.settings.hub / "jupyterhub.sqlite"
    kept = database.rename(database.with_name("kept"))
    database.write_bytes(kept.read_bytes()[:16] + b"garbage" * 1000)
    begun = time.monotonic()
    code, said = run(stack)
    assert code == Ended.NOT_USABLE
    assert "the hub ended 3 times during its start" in said
    assert time.monotonic() - begun < 60
    kept.replace(database)


def run(stack: Stack) -> tuple[int, str]:
    """Start it where it can't; exit code and what it said."""
    stack.launch()
    code = wait_for(
        "its end", lambda: [stack._process.poll()] if stack._process and not stack.running else None
    )
    assert code[0] is not None
    return code[0], stack.output()


def test_a_port_in_use(short_folder: Path) -> None:
    stack = Stack(short_folder)
    with socket.create_server(("127.0.0.1", stack.port)):
        code, said = run(stack)
    assert code == Ended.PORT_IN_USE
    assert f"Port {stack.port} of 127.0.0.1 is in use" in said
    assert "GPUDEV_PORT" in said
    assert not stack.settings.database.exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GPUDEV_POOL", "3", "NODESxGPUS"),
        ("GPUDEV_POOL", "0x8", "NODESxGPUS"),
        ("GPUDEV_PORT", "http", "port number"),
        ("GPUDEV_PORT", "65536", "port number"),
    ],
)
def test_a_bad_setting(short_folder: Path, name: str, value: str, words: str) -> None:
    stack = Stack(short_folder)
    stack.environment[name] = value
    code, said = run(stack)
    assert code == Ended.BAD_SETTING
    assert name in said
    assert words in said
    assert not stack.settings.state.exists()


@pytest.mark.parametrize("content", ['{"token": ', "[]", "\udcff"])
def test_a_client_configuration_that_cannot_be_read_is_left_alone(short_folder: Path, content: str) -> None:
    stack = Stack(short_folder)
    before = content.encode(errors="surrogateescape")
    stack.config.write_bytes(before)
    code, said = run(stack)
    assert code == Ended.CONFIG_UNUSABLE
    assert str(stack.config) in said
    assert stack.config.read_bytes() == before
    assert not stack.settings.state.exists()


def test_a_state_folder_that_is_none(short_folder: Path) -> None:
    stack = Stack(short_folder)
    stack.settings.state.write_text("a file")
    code, said = run(stack)
    assert code == Ended.STATE_UNUSABLE
    assert "GPUDEV_STATE" in said


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(short_folder: Path) -> None:
    stack = Stack(short_folder)
    stack.settings.state.mkdir()
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k none "$0" && exec "$1"']
    done = subprocess.run(
        [*mount, str(stack.settings.state), str(Path(sys.executable).parent / "gpudev-hub")],
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Ended.STATE_UNUSABLE, done.stderr
    assert "is full" in done.stderr


def without(program: str, stack: Stack) -> subprocess.CompletedProcess[str]:
    """``gpudev-hub`` on a machine that lacks a program."""
    start = 'mount --bind /dev/null "$0" && exec "$1"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", start, program, str(Path(sys.executable).parent / "gpudev-hub")],
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a program needs root")
def test_a_missing_sshd(short_folder: Path) -> None:
    stack = Stack(short_folder)
    done = without(preflight.program("sshd") or "", stack)
    assert done.returncode == Ended.PROGRAM_MISSING, done.stderr
    assert "Programs are missing on this machine: sshd" in done.stderr
    assert "apt-get install openssh-server" in done.stderr
    assert not stack.settings.state.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a program needs root")
def test_what_will_not_work_here_is_said_at_the_start(short_folder: Path) -> None:
    stack = Stack(short_folder)
    with socket.create_server(("127.0.0.1", stack.port)):  # so that it ends by itself
        done = without(preflight.sftp_server() or "", stack)
    assert done.returncode == Ended.PORT_IN_USE, done.stderr
    assert "gpudev: sftp-server is not installed, so sftp and scp will not work" in done.stderr
    assert "apt-get install openssh-sftp-server" in done.stderr


class Refused(LocalUser):
    """The local user of a Hub that gives no token."""

    async def prepare(self, hub_api: str, scopes: Collection[str]) -> str | None:
        raise httpx.HTTPError("403 Forbidden")


@pytest.mark.parametrize("told", [True, False])
def test_a_hub_that_refuses_the_local_user_holds_nothing_up(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Neither the wish to end nor the start."""
    monkeypatch.setattr(supervisor, "USABLE_WITHIN", 0.5)
    settings = Stack(short_folder).settings
    settings.logs.mkdir(parents=True)

    async def prepare() -> str | None:
        starting = supervisor.Supervisor(settings, Refused(settings), {})
        ports = Ports(1, 2, 3, 4)
        starting._parts = starting._make(ports)
        if told:
            starting._ending.set()
        return await asyncio.wait_for(starting._prepare_user(ports), 10)

    if told:
        assert asyncio.run(prepare()) is None
    else:
        with pytest.raises(supervisor.CannotRun, match=r"the hub gives no token to .*403") as found:
            asyncio.run(prepare())
        assert found.value.code is Ended.NOT_USABLE


@pytest.mark.parametrize("status", [403, 500])
def test_a_hub_that_only_answers_with_errors_ends_the_start(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(supervisor, "USABLE_WITHIN", 0.5)
    settings = Stack(short_folder).settings
    settings.logs.mkdir(parents=True)
    (settings.logs / "hub.log").write_text("a database is broken\n")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def errors() -> list[str]:
        fake = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = fake.sockets[0].getsockname()[1]
        starting = supervisor.Supervisor(settings, LocalUser(settings), {})
        ports = Ports(proxy_api=1, hub=port, service=2, gate=3)
        starting._parts = starting._make(ports)
        said = []
        async with fake:
            for step in (starting._usable, starting._prepare_user):
                with pytest.raises(supervisor.CannotRun) as found:
                    await asyncio.wait_for(step(ports), 20)
                assert found.value.code is Ended.NOT_USABLE
                said.append(str(found.value).replace(f":{port}/", ":PORT/"))
        return said

    not_up, no_token = asyncio.run(errors())
    log = f"the end of {settings.logs / 'hub.log'}:\na database is broken"
    address = "http://127.0.0.1:PORT/hub"
    assert not_up == f"the hub did not start within 0.5 s: {address}/health answers {status} No; {log}"
    assert no_token.startswith(f"the hub gives no token to {settings.user} (")
    assert f"{status} No" in no_token
    assert f"{address}/api/users/{settings.user}/tokens" in no_token
    assert no_token.endswith(log)


def test_two_on_one_state_folder(short_folder: Path) -> None:
    first = Stack(short_folder)
    second = Stack(short_folder)
    try:
        first.launch()
        wait_for("the lock", lambda: (first.settings.state / "ports.json").exists())
        code, said = run(second)
        assert code == Ended.STATE_IN_USE
        assert f"process {first.pid}" in said
        assert first.running
        os.kill(first.pid, signal.SIGTERM)
        assert first.stop() == Ended.WELL, "told to end while it comes up"
    finally:
        first.close()
