"""Two people on one server: a guest's real ``ssh``, and how it ends when the access ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev import ssh
from gpudev_hub.core.model import Guest, Owner
from gpudev_hub.server import processes, sessions
from ssh_world import Rank, World, eventually, now

pytestmark = pytest.mark.integration

BOB = Owner("local:bob", "bob", "bob")
GUEST = Guest(BOB.subject, BOB.hub_user, BOB.login, 0)
CUT_WITHIN = 5.0
"""Seconds: the requirement. It takes a fraction of one."""


class Client:
    """``ssh`` as the guest runs it, with a home and settings of their own."""

    def __init__(self, world: World, home: Path) -> None:
        self.world = world
        self.home = home
        (home / ".ssh").mkdir(mode=0o700)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "SSH_ASKPASS_REQUIRE": "never"}
        self.running: list[subprocess.Popen[str]] = []

    def sync(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self.home))
            patch.setenv("GPUDEV_CONFIG", str(self.home / ".gpu-dev-config"))
            (self.home / ".gpu-dev-config").write_text("{}")
            ssh.sync(self.world.wire_access(BOB))

    def command(self, *arguments: str) -> list[str]:
        return ["ssh", "-F", str(self.home / ".ssh/gpudev/config"), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            env=self.env,
            start_new_session=True,
            check=False,
        )

    def stay(self, *arguments: str) -> subprocess.Popen[str]:
        """A session that says when it is there, and stays."""
        process = subprocess.Popen(
            self.command(*arguments, "echo here; exec sleep 600"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.env,
            start_new_session=True,
        )
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        return process

    def close(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def rank(world: World) -> Rank:
    return world.start("gs1", name="demo")[0]


@pytest.fixture
def bob(world: World, rank: Rank, tmp_path: Path) -> Iterator[Client]:
    client = Client(world, tmp_path)
    world.change("gs1", guests=(GUEST,))
    client.sync()
    yield client
    client.close()
    world.change("gs1", guests=())
    world.revoked.clear()


def remove(world: World) -> float:
    """Bob's access ends now."""
    world.change("gs1", guests=())
    world.service.cut("gs1", BOB.subject)
    return time.monotonic()


def ended(process: subprocess.Popen[str], since: float) -> None:
    process.wait(timeout=CUT_WITHIN)
    assert time.monotonic() - since < CUT_WITHIN
    assert process.returncode == 255


def test_a_guest_gets_in_with_their_own_key(world: World, bob: Client) -> None:
    done = bob.run("gpu-demo", "echo $CUDA_VISIBLE_DEVICES")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0,1\n", "")
    access = world.wire_access(BOB)
    assert [(host.alias, host.owner) for host in access.hosts] == [("gpu-demo", "me")]


def test_only_a_guest_gets_in(world: World, bob: Client) -> None:
    """The next connection is refused, with the same settings as before."""
    assert bob.run("gpu-demo", "true").returncode == 0
    world.change("gs1", guests=())
    assert bob.run("gpu-demo", "true").returncode == 255
    world.change("gs1", guests=(GUEST,))
    world.revoked.add(BOB.subject)
    assert bob.run("gpu-demo", "true").returncode == 255
    assert not world.wire_access(BOB).hosts


def test_connections_of_a_removed_guest_end_and_no_others(world: World, rank: Rank, bob: Client) -> None:
    """Several sessions in one connection, and another connection; the owner's stays."""
    own = subprocess.Popen(
        ["ssh", "-F", str(world.config), "gpu-demo", "echo here; exec sleep 600"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(world.home)},
    )
    try:
        assert own.stdout is not None
        assert own.stdout.readline() == "here\n"
        socket = bob.home / "mux"
        first = bob.stay("-o", "ControlMaster=yes", "-o", f"ControlPath={socket}", "gpu-demo")
        second = bob.stay("-o", f"ControlPath={socket}", "gpu-demo")
        other = bob.stay("-o", "ControlPath=none", "gpu-demo")
        found = [session.subject for session in sessions.living(rank.folder)]
        assert found.count(BOB.subject) == 2
        since = remove(world)
        for process in (first, second, other):
            ended(process, since)
        eventually(lambda: f"of {BOB.subject}" in rank.agent_log.read_text())
        assert own.poll() is None, "the owner's connection must stay"
        eventually(lambda: BOB.subject not in [s.subject for s in sessions.living(rank.folder)])
        assert bob.run("gpu-demo", "true").returncode == 255
    finally:
        own.kill()
        own.communicate()


def test_connections_end_that_nobody_was_told_of(world: World, bob: Client) -> None:
    """The service ended after it decided, and before it said so: the agent asks about each connection."""
    session = bob.stay("-o", "ControlPath=none", "gpu-demo")
    world.change("gs1", guests=())
    world.service.stop()
    world.service.cuts.begin(9)
    since = time.monotonic()
    world.service.start()
    session.wait(timeout=20)
    assert session.returncode == 255
    assert time.monotonic() - since < 20


def test_a_check_leaves_those_who_may_stay(world: World, rank: Rank, bob: Client) -> None:
    """Also when the service fails while it is asked."""
    session = bob.stay("-o", "ControlPath=none", "gpu-demo")
    world.service.override = (503, b"")
    world.service.stop()
    world.service.cuts.begin(20)
    told = rank.agent_log.read_text().count("will retry")
    world.service.start()
    eventually(lambda: rank.agent_log.read_text().count("will retry") > told + 1)
    assert session.poll() is None
    world.service.override = None
    lookups = world.service.lookups
    eventually(lambda: world.service.lookups > lookups)
    time.sleep(0.3)
    assert session.poll() is None


def test_a_login_under_way_while_access_ends(world: World, rank: Rank, bob: Client) -> None:
    """The service answers the last question about the key late: the connection is known by its key."""
    world.service.delay = 1.0
    try:
        session = subprocess.Popen(
            bob.command("-o", "ControlPath=none", "gpu-demo", "exec sleep 600"),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=bob.env,
            text=True,
        )
        eventually(lambda: [s for s in sessions.living(rank.folder) if not s.subject])
        since = remove(world)
        session.wait(timeout=CUT_WITHIN)
        assert time.monotonic() - since < CUT_WITHIN
        assert session.returncode == 255
    finally:
        world.service.delay = 0.0
        session.kill()
        session.communicate()


def test_a_connection_ends_with_all_its_processes() -> None:
    """sshd makes a second one after the login, unless the account is root."""
    script = ["bash", "-c", "sleep 600 & echo $!; wait"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
        assert first.stdout is not None
        second, started = int(first.stdout.readline()), processes.start_time(first.pid)
        assert started is not None
        try:
            assert sessions.end(sessions.Session(first.pid, started, "SHA256:x", BOB.subject))
            eventually(lambda: processes.start_time(second) is None)
        finally:
            processes.send({second}, signal.SIGKILL)


def test_a_login_whose_connection_has_ended_is_recorded_for_nobody(
    world: World, rank: Rank, bob: Client
) -> None:
    """An orphan's parent is the launcher or process 1: whoever is recorded can be ended."""
    command = ["timeout", "20", "/bin/bash", str(rank.folder / "keys"), "SHA256:" + "x" * 43]
    waits = ["bash", "-c", '"$@"; echo done; read -r', "bash", *command]
    for new_session in (False, True):
        with subprocess.Popen(
            waits,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=new_session,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            # sshd starts a session for each connection.
            assert (rank.folder / "sessions" / str(process.pid)).exists() == new_session


def test_a_record_of_another_process_ends_nothing(world: World, rank: Rank, tmp_path: Path) -> None:
    """A number that the kernel has given to another process since."""
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        record = rank.folder / "sessions" / str(bystander.pid)
        record.write_text(f"1 SHA256:x {BOB.subject}\n")
        world.service.cut("gs1", BOB.subject)
        eventually(lambda: not record.exists())
        assert bystander.poll() is None
        assert not sessions.end(sessions.Session(bystander.pid, 1, "SHA256:x", BOB.subject))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_line_names_the_person_and_the_end(world: World, rank: Rank, bob: Client) -> None:
    """For the audit, and for the server's own record."""
    import asyncio

    key = asyncio.run(world.access.directory.keys(BOB))[0]
    (line,) = asyncio.run(world.access.authorized_keys("gs1", key.fingerprint))
    assert f" {key.line} subject=local:bob ends=" in f" {line.partition(' ')[2]}"
    world.change("gs1", hard_end=now() - 1)
    try:
        assert asyncio.run(world.access.authorized_keys("gs1", key.fingerprint)) == []
    finally:
        world.change("gs1", hard_end=now() + 7_200_000)
