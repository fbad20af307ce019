"""A reservation from the first request to the last process, and the death of any part in between."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tornado.httpclient import HTTPRequest

from gpudev_hub.server import processes
from hub_users import wait_for
from lab_sockets import web_socket
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def release(stack: Stack, id: str, user: str | None = None) -> None:
    stack.api("DELETE", f"reservations/{id}", None, user)
    stack.wait_state(id, "ended", user)


def run(id: str, script: str) -> list[str]:
    """Command line that runs a shell's script in a server of the local user's."""
    return [str(Path(sys.executable).parent / "gpu-dev"), "ssh", id, "--", script]


def test_a_server_from_request_to_end(stack: Stack) -> None:
    asked = stack.reserve(gpus=2, name="whole")
    ready = stack.wait_state(asked["id"], "ready")
    assert stack.jupyter(ready) == 200
    assert ready["server"] == "running"
    environment = (stack.settings.servers / f"{asked['id']}-1" / "0" / "private" / "env").read_text()
    slots = ",".join(str(slot) for slot in ready["allocation"][0]["slots"])
    assert f"CUDA_VISIBLE_DEVICES={slots}\n" in environment.replace("'", "")
    record = json.loads((stack.settings.servers / f"{asked['id']}-1" / "0" / "record.json").read_text())
    before = processes.descendants(record["pid"]) | {record["pid"]}
    assert len(before) >= 4
    release(stack, asked["id"])
    assert [pid for pid in before if processes.start_time(pid) is not None] == []
    assert stack.server_processes(asked["id"]) == {}
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout
    assert f":{record['jupyter_port']} " not in listening
    assert f":{record['sshd_port']} " not in listening
    assert not (stack.settings.servers / f"{asked['id']}-1" / "0" / "private").exists()


async def typed_in_lab(url: str, token: str, command: str, wanted: str) -> str:
    """What a terminal of JupyterLab shows, once ``wanted`` (a pattern) is in it."""
    headers = {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:
        name = (await client.post(f"{url}/api/terminals")).raise_for_status().json()["name"]
    address = f"{url.replace('http', 'ws', 1)}/terminals/websocket/{name}"
    seen = ""
    async with web_socket(HTTPRequest(address, headers=headers)) as socket:
        await socket.write_message(json.dumps(["stdin", f"{command}\r"]))
        try:
            async with asyncio.timeout(30):
                while not re.search(wanted, seen):
                    message = await socket.read_message()
                    assert message is not None, seen
                    kind, *data = json.loads(message)
                    seen += data[0] if kind == "stdout" else ""
        except TimeoutError:
            pytest.fail(f"no {wanted!r} in {seen!r}")
    return seen


def test_a_terminal_in_lab_finds_what_notebooks_and_ssh_find(stack: Stack) -> None:
    """Neither /etc/profile nor the user's own settings hide the server's python."""
    asked = stack.reserve()
    url = stack.wait_state(asked["id"], "ready")["url"].removesuffix("/lab")
    fake = stack.home / "fake" / "python"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho another python\n")
    fake.chmod(0o755)
    (stack.home / ".bashrc").write_text(f"PATH='{fake.parent}':$PATH MINE=1\n")
    try:
        command = "echo mine=$MINE at=$(command -v python)."
        text = asyncio.run(typed_in_lab(url, stack.token_for(), command, r"mine=1 at=[^$].*\."))
    finally:
        (stack.home / ".bashrc").unlink()
    assert f"mine=1 at={stack.settings.environment_of(stack.user)}/bin/python." in text
    release(stack, asked["id"])


def test_nothing_private_is_readable_by_others(stack: Stack) -> None:
    asked = stack.reserve()
    stack.wait_state(asked["id"], "ready")
    assert stat.S_IMODE(stack.settings.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(stack.config.stat().st_mode) == 0o600
    theirs = (stack.settings.state / "homes", stack.settings.state / "envs")
    for path in stack.settings.state.rglob("*"):
        # JupyterLab writes some of its own as its user would, in a folder that is closed again.
        if path.is_file() and "runtime" not in path.parts and not any(map(path.is_relative_to, theirs)):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    secrets = [path.read_bytes() for path in (stack.settings.state / "secrets").iterdir()]
    secrets.append(stack.token_for().encode())
    spec = json.loads((stack.settings.servers / f"{asked['id']}-1/0/private/spec.json").read_text())
    secrets += [spec["launch"]["token"].encode(), spec["env"]["JUPYTERHUB_API_TOKEN"].encode()]
    for entry in processes.descendants(stack.pid) | {stack.pid}:
        command = Path(f"/proc/{entry}/cmdline").read_bytes()
        assert not any(secret.strip() in command for secret in secrets)
    logs = [*stack.settings.logs.iterdir(), *stack.settings.servers.glob("*/*/logs/*")]
    for log in logs:
        assert not any(secret.strip() in log.read_bytes() for secret in secrets), log
    release(stack, asked["id"])


def test_strangers_drive_nothing_out_of_the_logs(stack: Stack) -> None:
    before = {name: (stack.settings.logs / f"{name}.log").stat().st_size for name in ("service", "proxy")}
    others = (stack.settings.logs / "access.log").stat().st_size
    with httpx.Client(base_url=stack.url, trust_env=False) as stranger:
        for number in range(250):
            stranger.get(f"/services/gpudev/api/v1/{number}{'x' * 8000}")
    logs = stack.settings.logs
    assert {name: (logs / f"{name}.log").stat().st_size for name in before} == before
    assert (logs / "access.log").stat().st_size - others < 200_000


def test_the_local_users_token_opens_and_reserves_and_starts_nothing(stack: Stack) -> None:
    headers = {"Authorization": f"token {stack.token_for()}"}
    with httpx.Client(base_url=f"{stack.url}/hub/api", headers=headers, trust_env=False) as hub:
        assert hub.get("/user").json()["name"] == stack.user
        assert hub.post(f"/users/{stack.user}/servers/anything").status_code == 403
        assert hub.get("/users").status_code == 403
        assert hub.post(f"/users/{stack.user}/tokens", json={}).status_code == 403


@pytest.mark.parametrize("part", ["hub", "proxy", "service"])
def test_a_part_that_is_killed_comes_back_alone(stack: Stack, part: str) -> None:
    """Invariants 3 and 10: a running server stays the same one, and what waits keeps its place."""
    running = stack.reserve(gpus=8, nodes=2)
    running = stack.wait_state(running["id"], "ready")
    waiting = stack.reserve(gpus=1)
    assert waiting["state"] == "queued"
    launcher = stack.launcher(running["id"])
    others = {name: stack.part(name) for name in ("hub", "proxy", "service") if name != part}
    dead = stack.part(part)
    stack.kill(part)
    assert stack.part(part) != dead
    wait_for("the server through the proxy", lambda: stack.jupyter(running) == 200)
    seen = stack.wait_state(running["id"], "ready")
    assert seen["ends_at"] == running["ends_at"]
    assert stack.launcher(running["id"]) == launcher
    assert {name: stack.part(name) for name in others} == others
    again = stack.wait_state(waiting["id"], "queued")
    assert again["guaranteed_by"] == waiting["guaranteed_by"]
    release(stack, running["id"])
    stack.wait_state(waiting["id"], "ready")
    release(stack, waiting["id"])


def test_the_hub_is_killed_in_the_middle_of_a_spawn(stack: Stack) -> None:
    asked = stack.reserve()
    wait_for("its launcher", lambda: list(stack.settings.servers.glob(f"{asked['id']}-*/0/record.json")))
    stack.kill("hub")
    ready = stack.wait_state(asked["id"], "ready")
    wait_for("the server through the proxy", lambda: stack.jupyter(ready) == 200)
    release(stack, asked["id"])


def test_jupyterlab_that_ends_takes_nothing_with_it(stack: Stack) -> None:
    """Killed, or ended by a file in the home: it comes back beside what runs, and its user is told why."""
    file = stack.home / ".jupyter" / "jupyter_config.json"
    asked = stack.reserve(gpus=2)
    ready = stack.wait_state(asked["id"], "ready")
    launcher = stack.launcher(asked["id"])
    session = subprocess.Popen(
        run(asked["id"], "echo up; exec sleep 600"),
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert session.stdout is not None
    assert session.stdout.readline() == b"up\n"

    def reason() -> str:
        return str(stack.api("GET", f"reservations/{asked['id']}")["reason"])

    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text('{"ServerApp": {"kernel_spec_manager_class": "nb_conda.Manager"}}')
        for pid in processes.descendants(launcher):
            if b"jupyterhub.singleuser" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        wait_for("the reason", lambda: "runs without your configuration" in reason(), 60)
        assert "with ~/.jupyter/jupyter_config.json it ended with exit code 1: Bad config" in reason()
        again = stack.wait_state(asked["id"], "ready")
        assert (again["allocation"], again["ends_at"]) == (ready["allocation"], ready["ends_at"])
        wait_for("the server through the proxy", lambda: stack.jupyter(again) == 200)
        assert stack.launcher(asked["id"]) == launcher
        assert session.poll() is None
    finally:
        file.unlink()
        session.kill()
        session.communicate()
    release(stack, asked["id"])


LOGIN = """
for shell in 'sh -lc' 'bash -lc' 'env -i bash -lc' 'env -i sh -lc'; do
    $shell 'command -v python; command -v gpu-dev; echo $CUDA_VISIBLE_DEVICES $NODE_RANK'
done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change what login shells read")
def test_login_shells_find_what_all_others_find(stack: Stack) -> None:
    asked = stack.reserve()
    ready = stack.wait_state(asked["id"], "ready")
    done = subprocess.run(
        run(asked["id"], LOGIN),
        env=stack.environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    programs = stack.settings.environment_of(stack.user) / "bin"
    base = stack.settings.server_python.parent
    slots = ",".join(map(str, ready["allocation"][0]["slots"]))
    each = [f"{programs}/python", f"{base}/gpu-dev", f"{slots} 0"]
    assert done.stdout.splitlines() == each * 4
    release(stack, asked["id"])


def test_a_launcher_that_is_killed_leaves_nothing_behind(stack: Stack) -> None:
    asked = stack.reserve()
    stack.wait_state(asked["id"], "ready")
    launcher = stack.launcher(asked["id"])
    old = set(stack.server_processes(asked["id"]))
    os.kill(launcher, signal.SIGKILL)
    wait_for("the end of all that was below it", lambda: not any(map(processes.start_time, old)))
    # The state of before may still be shown: nothing was seen yet.
    again = stack.settings.servers / f"{asked['id']}-2" / "0" / "record.json"
    wait_for("another launcher", again.exists)
    stack.wait_state(asked["id"], "ready")
    assert stack.launcher(asked["id"]) != launcher
    release(stack, asked["id"])


def test_the_first_server_of_a_pair_dies_or_is_shut_down(stack: Stack) -> None:
    """2: rank 1 is ended at once, not after the minute that the Hub has to stop a server."""
    asked = stack.reserve(gpus=8, nodes=2)
    ready = stack.wait_state(asked["id"], "ready")
    os.kill(stack.launcher(asked["id"]), signal.SIGKILL)
    begun = time.monotonic()
    second = stack.settings.servers / f"{asked['id']}-2" / "1" / "record.json"
    wait_for("the second attempt", second.exists, 30)
    again = stack.wait_state(asked["id"], "ready")
    assert time.monotonic() - begun < 40
    assert (again["allocation"], again["ends_at"]) == (ready["allocation"], ready["ends_at"])
    ports = {host["rank"]: host["port"] for host in stack.api("GET", "ssh")["hosts"]}
    assert ports == {rank: stack.record(asked["id"], rank)["sshd_port"] for rank in (0, 1)}

    headers = {"Authorization": f"token {stack.token_for()}"}
    wait_for("the server through the proxy", lambda: stack.jupyter(again) == 200)
    url = f"{again['url'].removesuffix('/lab')}/api/shutdown"
    assert httpx.post(url, headers=headers, trust_env=False, timeout=30).is_success
    wait_for("the stop", lambda: stack.api("GET", f"reservations/{asked['id']}")["server"] == "stopped", 20)
    assert stack.server_processes(asked["id"]) == {}
    release(stack, asked["id"])
