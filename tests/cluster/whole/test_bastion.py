"""The installed bastion: ``ssh`` from outside the cluster to servers, through the bastion's pods."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from forwards import connects, greet, heard_as_vs_code
from harness.layout import API_ADDRESS, API_PORT, API_SERVICE
from hub_users import SLOW, free_port, wait_for
from people import People, Person
from whole_stack import HOME, WholeStack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
OWNER, OTHER = "erin", "frank"
HOST = f"gpu-{OWNER}"
SESSIONS = 50
"""Sessions of one user at the same time."""
Servers = dict[str, dict[str, Any]]
"""Ready reservations by owner."""


@pytest.fixture(scope="module")
def servers(stack: WholeStack, person: People) -> Iterator[Servers]:
    """Return ready servers of two users whose ``ssh`` is set up; end them after the last test."""
    started = [
        person(name).begin("reserve", "--gpus", "1", "--hours", "1", "--name", name)
        for name in (OWNER, OTHER)
    ]
    try:
        for process in started:
            said = process.communicate(timeout=2 * SLOW)
            assert process.returncode == 0, said
        yield {name: person(name).json("show", name) for name in (OWNER, OTHER)}
    finally:
        stack.clean()


def pods(stack: WholeStack) -> list[str]:
    """Return the names of the bastion's pods."""
    return [pod["metadata"]["name"] for pod in stack.parts("bastion")]


def connections(stack: WholeStack) -> list[str]:
    """Return how many users' connections the bastion's pods carry now."""
    command = ("ls", "/run/gpudev/connections")
    return [one for pod in pods(stack) for one in stack.cluster.execute(HOME, pod, *command).split()]


def gateway(owner: Person) -> str:
    """Return the bastion's name in this user's SSH settings."""
    (hosts,) = (owner.home / ".ssh" / "gpudev" / "hosts").glob("*.conf")
    return next(line.split()[1] for line in hosts.read_text().splitlines() if "ProxyJump" in line)


def address(stack: WholeStack, record: dict[str, Any]) -> str:
    (pod,) = stack.pods(record["id"])
    return str(pod["status"]["podIP"])


@contextmanager
def background(owner: Person, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``ssh``, and end it afterwards."""
    process = subprocess.Popen(
        owner.ssh_argv(*arguments),
        env=owner.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_bytes(process: subprocess.Popen[bytes], count: int) -> bytes:
    assert process.stdout is not None
    return process.stdout.read(count)


def run(owner: Person, *command: str, given: str = "") -> None:
    """Run a program that uses ``ssh``. It must succeed."""
    done = subprocess.run(
        command, env=owner.environment, input=given, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_pods_have_no_token_and_no_rights_of_root(stack: WholeStack) -> None:
    found = pods(stack)
    assert len(found) == 2
    looks = (
        "id -u",
        "ls -d /var/run/secrets/kubernetes.io",
        "touch /usr/lib/gpudev/x",
        "grep CapEff /proc/1/status",
    )
    command = ("bash", "-c", f"exec 2>&1; {'; '.join(looks)}")
    said = stack.cluster.execute(HOME, found[0], *command).splitlines()
    assert said[0] == "1000"
    assert "No such file" in said[1]
    assert "Read-only file system" in said[2]
    assert said[3].split()[1] == "0" * 16


def test_commands_and_files_reach_the_own_server(person: People, servers: Servers, tmp_path: Path) -> None:
    erin = person(OWNER)
    assert gateway(erin), "not directly"
    assert erin.ssh(HOST, "echo $GPUDEV_RESERVATION").stdout.split() == [servers[OWNER]["id"]]
    data = os.urandom(100_000)
    (tmp_path / "data").write_bytes(data)
    options = ["-q", "-F", str(erin.ssh_config), "-o", "BatchMode=yes"]
    run(erin, "scp", *options, str(tmp_path / "data"), f"{HOST}:there")
    run(erin, "sftp", *options, "-b", "-", HOST, given=f"get there {tmp_path}/back\n")
    assert (tmp_path / "back").read_bytes() == data
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a file").write_bytes(data)
    for source, target in (
        (f"{tmp_path}/tree", f"{HOST}:synced/"),
        (f"{HOST}:synced/tree", f"{tmp_path}/again/"),
    ):
        run(erin, "rsync", "-a", "-e", " ".join(["ssh", *options]), source, target)
    assert (tmp_path / "again" / "tree" / "a file").read_bytes() == data


def test_a_terminal(person: People, servers: Servers) -> None:
    erin = person(OWNER)
    command = erin.ssh_argv("-tt", HOST)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, erin.environment)
    try:
        os.write(terminal, b"test -t 0 && echo termi''nal $NODE_RANK\n")
        seen, deadline = "", time.monotonic() + SLOW
        while not re.search("terminal 0", seen):
            left = deadline - time.monotonic()
            assert left > 0, seen
            if select.select([terminal], [], [], left)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_ports_of_the_server(stack: WholeStack, person: People, servers: Servers) -> None:
    """Connect to the server's sshd through ``-L`` and ``-D`` on the server, and ``-D`` on the bastion."""
    erin, port, socks, door = person(OWNER), free_port(), free_port(), free_port()
    own, others = address(stack, servers[OWNER]), address(stack, servers[OTHER])
    forwards = ["-L", f"127.0.0.1:{port}:127.0.0.1:2222", "-D", str(socks)]
    with (
        background(erin, "-N", "-o", "ExitOnForwardFailure=yes", *forwards, HOST),
        background(erin, "-N", "-D", str(door), gateway(erin)),
    ):
        for one in (port, socks, door):
            wait_for("ssh to listen", lambda one=one: connects(one))  # type: ignore[misc]
        assert greet(port) == b"SSH-"
        assert greet(socks, 2222) == b"SSH-"
        assert greet(door, 2222, own) == b"SSH-"
        for host, closed in ((others, 2222), (own, 8888), (API_ADDRESS, API_PORT), ("169.254.169.254", 80)):
            assert greet(door, closed, host) == b"", (host, closed)


def test_the_way_of_vs_code(person: People, servers: Servers) -> None:
    erin = person(OWNER)
    assert heard_as_vs_code(erin.ssh_argv, HOST, erin.environment) == b"CODE"


def test_the_agent_is_forwarded_to_the_server_only(
    stack: WholeStack, person: People, servers: Servers, tmp_path: Path
) -> None:
    erin, agent = person(OWNER), tmp_path / "agent"
    key = erin.home / ".ssh" / "id_ed25519"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for("the agent", agent.exists)
            environment = erin.environment | {"SSH_AUTH_SOCK": str(agent)}
            subprocess.run(
                ["ssh-add", "-q", str(key)], env=environment, check=True, stderr=subprocess.DEVNULL
            )
            command = erin.ssh_argv("-v", "-A", HOST, "ssh-add -L")
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        finally:
            process.kill()
    assert done.stdout.split()[1] == key.with_suffix(".pub").read_text().split()[1]
    # The client does not request it at the bastion, which would refuse it.
    assert done.stderr.count("Requesting authentication agent forwarding") == 1
    for pod in pods(stack):
        look = ("/usr/sbin/sshd", "-T", "-f", "/run/gpudev/sshd_config")
        assert "allowagentforwarding no" in stack.cluster.execute(HOME, pod, *look).splitlines()


def test_several_sessions_over_one_connection(stack: WholeStack, person: People, servers: Servers) -> None:
    """The user has a ``ControlMaster`` of their own."""
    erin, command = person(OWNER), "echo $SSH_CONNECTION"
    # Paths of sockets must be short.
    with TemporaryDirectory(prefix="gd-") as folder:
        path = ["-o", f"ControlPath={folder}/%C"]
        shared = [*path, "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
        try:
            first = erin.ssh(*shared, HOST, command).stdout.encode()
            before = set(connections(stack))
            with ExitStack() as opened:
                sessions = [opened.enter_context(background(erin, *shared, HOST, command)) for _ in range(5)]
                assert [process.communicate()[0] for process in sessions] == [first] * 5
            assert set(connections(stack)) <= before
        finally:
            erin.ssh(*path, "-O", "exit", HOST, check=False)


def test_fifty_sessions_at_once(stack: WholeStack, person: People, servers: Servers) -> None:
    """Each session has its own connection to the bastion."""
    erin = person(OWNER)
    with ExitStack() as opened:
        open_ones: list[subprocess.Popen[bytes]] = []
        while len(open_ones) < SESSIONS:
            group = [opened.enter_context(background(erin, HOST, "echo in; read")) for _ in range(10)]
            assert [first_bytes(process, 3) for process in group] == [b"in\n"] * 10
            open_ones += group
        assert all(process.poll() is None for process in open_ones)
        assert len(connections(stack)) >= SESSIONS


def test_nothing_else(stack: WholeStack, person: People, servers: Servers) -> None:
    """It refuses another user's server, other ports, the Kubernetes API, metadata, the gate, and a shell."""
    erin = person(OWNER)
    own, others = address(stack, servers[OWNER]), address(stack, servers[OTHER])
    (service,) = stack.parts("service")
    targets = (
        f"{others}:2222",
        f"{others}:8888",
        f"[::ffff:{others}]:2222",
        f"{own}:8888",
        f"{own}:22",
        f"{API_ADDRESS}:{API_PORT}",
        f"{API_SERVICE}:443",
        "kubernetes.default.svc:443",
        "169.254.169.254:80",
        f"{service['status']['podIP']}:8101",
    )
    with ExitStack() as tried:
        asked = {
            target: tried.enter_context(background(erin, "-W", target, gateway(erin))) for target in targets
        }
        for target, process in asked.items():
            _, said = process.communicate()
            assert (process.returncode, b"administratively prohibited" in said) == (255, True), (target, said)
    with background(erin, "-W", f"{own}:2222", gateway(erin)) as process:
        assert first_bytes(process, 4) == b"SSH-", "the own server answers"
    shell = erin.ssh(gateway(erin), "id", check=False)
    assert shell.returncode != 0
    assert "uid=" not in shell.stdout
    # The other user's name does not help either.
    assert erin.ssh(f"gpu-{OTHER}", "true", check=False).returncode == 255


def test_who_loses_access_is_cut_and_gets_in_no_more(
    stack: WholeStack, person: People, servers: Servers
) -> None:
    """GitHub reports it. The service checks, and ends open connections of that user only."""
    erin, frank = person(OWNER), person(OTHER)
    wait = "echo in; sleep 600"
    with background(erin, HOST, wait) as cut, background(frank, f"gpu-{OTHER}", wait) as spared:
        assert [first_bytes(process, 3) for process in (cut, spared)] == [b"in\n", b"in\n"]
        stack.github.control.leave("pytorch", "metamates", OWNER)
        began = time.monotonic()
        wait_for("the end of the live connection", lambda: cut.poll() is not None)
        print(f"cut {time.monotonic() - began:.1f} s after the change at GitHub")
        done = erin.ssh(HOST, "true", check=False)
        assert done.returncode == 255
        assert "Permission denied (publickey)" in done.stderr, done.stderr
        assert spared.poll() is None, "nobody else's"
        assert frank.ssh(f"gpu-{OTHER}", "true").returncode == 0
        assert stack.record(servers[OTHER]["id"], OTHER)["state"] == "ready"
        stack.github.control.join("pytorch", "metamates", OWNER)
        # The tokens are deleted with the access.
        stack.forget_tokens()
        assert stack.record(servers[OWNER]["id"], OWNER)["state"] == "ready", "the time of grace is not over"
        assert erin.ssh(HOST, "true").returncode == 0
