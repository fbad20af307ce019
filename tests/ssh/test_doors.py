"""What does not get in, and what does not fall over: wrong keys and hosts, the end, a service away."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev_hub.core.model import State
from gpudev_hub.ssh.ca import HostCA
from gpudev_hub.ssh.keygen import keep_pair
from ssh_world import Rank, World, eventually, now

pytestmark = pytest.mark.integration
HOST = "gpu-door"


@pytest.fixture(scope="module")
def rank(world: World) -> Rank:
    return world.start("gd1", name="door")[0]


@pytest.fixture(autouse=True)
def as_before(world: World, rank: Rank) -> Iterator[None]:
    record = world.live.reservations["gd1"]
    yield
    world.live.reservations["gd1"] = record
    world.service.override = None
    world.service.delay = 0
    if world.service.server is None:
        world.service.start()


def refused(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 255 and "Permission denied (publickey)" in done.stderr


def test_only_the_owners_keys(world: World, rank: Rank, tmp_path: Path) -> None:
    keep_pair(tmp_path / "stranger", "stranger")
    command = ["-o", f"IdentityFile={tmp_path / 'stranger'}", HOST, "true"]
    hosts = next((world.home / ".ssh/gpudev/hosts").glob("*.conf")).read_text()
    bare = tmp_path / "config"
    bare.write_text(re.sub(r".*IdentityFile.*\n", "", hosts))
    done = subprocess.run(
        ["ssh", "-F", str(bare), *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert refused(done), done.stderr
    assert world.run("ssh", HOST, "true").returncode == 0


def test_no_other_account_and_no_password(world: World, rank: Rank) -> None:
    assert refused(world.run("ssh", "-l", "daemon", HOST, "true"))
    done = world.run("ssh", "-o", "PubkeyAuthentication=no", HOST, "true")
    assert refused(done)


@pytest.mark.parametrize("change", [{"state": State.STOPPING}, {"hard_end": 0}], ids=["stopping", "end"])
def test_after_the_end_nobody_gets_in(world: World, rank: Rank, change: dict[str, object]) -> None:
    """Invariant 13."""
    world.change("gd1", **change)
    assert refused(world.run("ssh", HOST, "true"))


def test_an_end_that_the_service_has_not_noticed(world: World, rank: Rank) -> None:
    """The line itself says how long it is good."""
    line = world.service
    keys = (world.home / ".ssh/gpudev/id_ed25519.pub").read_text().split()
    past = f'expiry-time="20200101000000Z" {keys[0]} {keys[1]}\n'
    line.override = (200, past.encode())
    assert refused(world.run("ssh", HOST, "true"))
    line.override = (200, past.replace("2020", "2999", 1).encode())
    assert world.run("ssh", HOST, "true").returncode == 0


@pytest.mark.parametrize("code", [500, 403, 404, 302, 204])
def test_an_answer_that_is_no_yes_is_a_no(world: World, rank: Rank, code: int) -> None:
    keys = (world.home / ".ssh/gpudev/id_ed25519.pub").read_text()
    world.service.override = (code, keys.encode())
    assert refused(world.run("ssh", HOST, "true"))


def test_half_an_answer_is_a_no(world: World, rank: Rank) -> None:
    """The stand-in hangs up in the middle of what it announced."""
    import socket
    import threading

    keys = (world.home / ".ssh/gpudev/id_ed25519.pub").read_text()
    world.service.stop()
    with socket.create_server(("127.0.0.1", world.service.port)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(keys) + 5}\r\n\r\n"
                    connection.sendall(head.encode() + keys.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            assert refused(world.run("ssh", HOST, "true"))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_slow_service_is_a_no_in_seconds(world: World, rank: Rank) -> None:
    world.service.delay = 7
    began = time.monotonic()
    assert refused(world.run("ssh", HOST, "true"))
    assert time.monotonic() - began < 15


def test_hosts_are_checked(world: World, rank: Rank, tmp_path: Path) -> None:
    other = HostCA(tmp_path / "ca")
    (tmp_path / "known").write_text(other.known_hosts + "\n")
    done = world.run("ssh", "-o", f"UserKnownHostsFile={tmp_path / 'known'}", HOST, "true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr
    done = world.run("ssh", "-o", "HostKeyAlias=gd2", HOST, "true")
    assert "Host key verification failed" in done.stderr


def test_token_and_keys_are_in_no_command_line(world: World, rank: Rank) -> None:
    world.service.delay = 1
    token = (rank.folder / "token").read_text().strip()
    with subprocess.Popen(
        ["ssh", "-F", str(world.config), HOST, "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        seen: list[str] = []

        def asked() -> bool:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_text(errors="replace"))
                except OSError:
                    continue
            return any(str(rank.folder / "keys") in line for line in seen)

        eventually(asked)
        assert not any(token in line for line in seen)
        process.wait()


def test_the_agent_outlives_the_service(world: World, rank: Rank) -> None:
    """Reported at the start; what changes while the service is away is reported when it is back."""
    reports = world.service.reports
    eventually(lambda: any(one["sshd"] and one["jupyter"] for one in reports))
    assert {"attempt": 1, "rank": 0, "jupyter": True, "sshd": True, "detail": ""} in reports
    world.service.stop()
    assert rank.jupyter is not None
    rank.jupyter.stop()
    eventually(lambda: "the report failed, will retry" in rank.agent_log.read_text(), timeout=30)
    count = len(reports)
    world.service.start()
    # The first report may tell what was so before it looked again.
    eventually(lambda: any(not one["jupyter"] for one in reports[count:]), timeout=30)
    assert (reports[-1]["jupyter"], reports[-1]["sshd"]) == (False, True)
    assert "no answer from Jupyter" in reports[-1]["detail"]
    world.service.tell("still here")
    eventually(lambda: "still here" in rank.agent_log.read_text(), timeout=40)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_agent_rests(world: World) -> None:
    (rank,) = world.start("grest")
    try:
        eventually(lambda: "all parts answer" in rank.agent_log.read_text())
        # It may still be about its first reports; one that never rests uses as much in every stretch.
        used = []
        for _ in range(4):
            before, began = cpu(rank.agent.pid), time.monotonic()
            eventually(lambda began=began: time.monotonic() - began > 6)  # type: ignore[misc]
            used.append(cpu(rank.agent.pid) - before)
            if used[-1] <= 0.03:
                break
        assert min(used) <= 0.03, used
    finally:
        world.stop("grest")


def test_the_end_is_kept_current_for_the_banner(world: World, rank: Rank) -> None:
    later = now() + 7_200_000 + 30_000
    world.change("gd1", hard_end=later)
    world.service.tell("more time")
    eventually(lambda: (rank.folder / "ends").read_text().strip() == str((later - 30_000) // 1000))


def test_a_rested_service_is_told_again(world: World, rank: Rank) -> None:
    """A service that was started again has forgotten what it was told."""
    reports = world.service.reports
    world.service.stop()
    count, told = len(reports), rank.agent_log.read_text().count("no notices received, will retry")
    eventually(lambda: rank.agent_log.read_text().count("no notices received, will retry") > told)
    world.service.start()
    eventually(lambda: len(reports) > count, timeout=30)


def test_sshd_is_greeted_once_while_jupyter_starts(world: World) -> None:
    """A connection costs it a process; the kernel's table of listeners costs nothing."""
    (rank,) = world.start("gslow", jupyter=False)
    try:
        eventually(lambda: "Connection from" in rank.log.read_text())
        greeted = time.monotonic()
        eventually(lambda: time.monotonic() - greeted > 1.5)
        assert rank.log.read_text().count("Connection from") == 1
    finally:
        world.stop("gslow")
