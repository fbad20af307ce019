"""Real ``ssh`` through a real bastion to real servers: all that people do, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from forwards import connects, greet, heard_as_vs_code
from gpudev import ssh as client
from gpudev_hub.core.model import Presence, State
from gpudev_hub.core.ports import ServerSight
from hub_users import free_port
from ssh_world import BASTION_CODE, OTHER, Door, Rank, World, eventually, used
from terminals import Terminal

pytestmark = pytest.mark.integration
HOST = "gpu-demo"
IN_TIME = 60.0
"""Seconds to wait for the end of a connection; on a machine that is not overloaded it takes 2."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ssh")
    with pytest.MonkeyPatch.context() as patch, World(folder, bastion=True) as world:
        patch.setenv("HOME", str(world.home))
        patch.setenv("GPUDEV_CONFIG", str(world.home / ".gpu-dev-config"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        (world.home / ".gpu-dev-config").write_text("{}")
        yield world


@pytest.fixture(scope="module")
def door(world: World) -> Door:
    return world.door()


@pytest.fixture(scope="module")
def rank(world: World, door: Door) -> Rank:
    return world.start("gdoor", name="demo")[0]


@pytest.fixture(scope="module")
def others(world: World, door: Door) -> Rank:
    """Another user's server."""
    return world.start("go1", name="theirs", owner=OTHER)[0]


@pytest.fixture(autouse=True)
def as_before(world: World) -> Iterator[None]:
    records = dict(world.live.reservations)
    yield
    for name in records.keys() & world.ranks.keys():
        world.live.reservations[name] = records[name]
    world.refused.clear()
    world.service.override = None
    world.service.delay = 0
    if world.service.server is None:
        world.service.start()


def gateway(world: World) -> str:
    """The name of the bastion in the settings."""
    hosts = next((world.home / ".ssh/gpudev/hosts").glob("*.conf")).read_text()
    return next(line.split()[1] for line in hosts.splitlines() if "ProxyJump" in line)


def jump(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An own ``ssh`` to the bastion with the user's key."""
    return world.run("ssh", *arguments, gateway(world))


def live(door: Door) -> list[str]:
    return [path.name for path in (door.run / "connections").iterdir()]


def background(world: World, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        world.argv(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def connected(world: World, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``ssh`` in the background, through a connection of its own that carries something already."""
    door = world.doors[0]
    before = used(door.run).keys()
    with background(world, *arguments) as process:
        try:
            eventually(lambda: used(door.run).keys() - before)
            yield process
        finally:
            process.kill()


def test_first_try_without_a_prompt(world: World, rank: Rank) -> None:
    done = world.run("ssh", HOST, "echo $CUDA_VISIBLE_DEVICES; pwd")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"0,1\n{world.home}\n", "")
    # Not because the settings lead there directly.
    assert eventually(lambda: any(event["event"] == "asked" for event in world.doors[0].events()))


def test_the_same_name_works_without_the_bastion_too(world: World, rank: Rank) -> None:
    access = world.wire_access()
    access.bastion = None
    client.sync(access)
    try:
        lookups = world.service.lookups
        assert world.run("ssh", HOST, "true").returncode == 0
        assert world.service.lookups - lookups == 2, "only the server asked"
    finally:
        world.sync()


def test_an_interactive_shell(world: World, rank: Rank) -> None:
    terminal = Terminal(world, "-tt", HOST)
    try:
        terminal.type("test -t 0 && echo termi''nal $NODE_RANK")
        terminal.read_until("terminal 0")
    finally:
        terminal.close()


def test_copies(world: World, rank: Rank, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "data").write_bytes(data)
    for mode in ("-s", "-O"):
        assert world.run("scp", mode, str(tmp_path / "data"), f"{HOST}:there").returncode == 0
        assert world.run("scp", mode, f"{HOST}:there", str(tmp_path / "back")).returncode == 0
        assert (tmp_path / "back").read_bytes() == data
    done = world.run("sftp", "-b", "-", HOST, input=f"get there {tmp_path}/again\n")
    assert (done.returncode, (tmp_path / "again").read_bytes()) == (0, data), done.stderr


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync(world: World, rank: Rank, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x" * 50_000)
    done = subprocess.run(
        ["rsync", "-a", "-e", f"ssh -F {world.config}", f"{tmp_path}/file", f"{HOST}:synced/"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (world.home / "synced/file").read_text() == "x" * 50_000


@pytest.mark.parametrize("kind", ["-L", "-R", "-D"])
def test_port_forwarding_to_the_server(world: World, rank: Rank, kind: str) -> None:
    port = free_port()
    forward = str(port) if kind == "-D" else f"127.0.0.1:{port}:127.0.0.1:{rank.port}"
    with background(world, "-N", "-o", "ExitOnForwardFailure=yes", kind, forward, HOST) as process:
        try:
            eventually(lambda: connects(port))
            assert greet(port, rank.port if kind == "-D" else None) == b"SSH-"
        finally:
            process.kill()


def test_the_way_of_vs_code(world: World, rank: Rank) -> None:
    assert heard_as_vs_code(world.argv, HOST) == b"CODE"


def test_shared_connections_reach_a_server_that_came_later(world: World, rank: Rank) -> None:
    """One to the bastion would keep its old targets; so only the servers' are shared."""
    short = Path("/tmp") / f"gpudev-mux-{os.getpid()}"
    shared = ["-o", "ControlMaster=auto", "-o", f"ControlPath={short}-%C", "-o", "ControlPersist=30"]
    later = None
    try:
        assert world.run("ssh", *shared, HOST, "echo one").stdout == "one\n"
        (master,) = short.parent.glob(f"{short.name}-*")
        lookups = world.service.lookups
        assert world.run("ssh", *shared, HOST, "echo two").stdout == "two\n"
        assert world.service.lookups == lookups, "nobody was asked: the connection is shared"
        later = world.start("glate", name="late")
        assert world.run("ssh", *shared, "gpu-late", "echo three").stdout == "three\n"
        assert master.is_socket()
    finally:
        for path in short.parent.glob(f"{short.name}-*"):
            subprocess.run(
                ["ssh", "-o", f"ControlPath={path}", "-O", "exit", "x"], check=False, capture_output=True
            )
        if later is not None:
            world.stop("glate")
            world.sync()


def test_the_users_own_settings_share_no_connection_to_the_bastion(world: World, rank: Rank) -> None:
    config = world.home / ".ssh" / "config"
    before = config.read_text()
    config.write_text(
        f"{before}Host *\n  ControlMaster auto\n  ControlPath /tmp/all-%C\n  ForwardAgent yes\n"
    )
    try:
        done = subprocess.run(
            ["ssh", "-G", "-F", str(config), gateway(world)], capture_output=True, text=True, check=True
        )
        found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    finally:
        config.write_text(before)
    assert found["controlmaster"] == "false"
    assert "controlpath" not in found
    assert found["forwardagent"] == "no"
    assert found["hostkeyalias"] == "gpudev-bastion"


def test_the_agent_is_forwarded_to_the_server_only(world: World, rank: Rank, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(agent.exists)
            argv = ["ssh", "-v", "-A", "-F", str(world.config), HOST, "test -S $SSH_AUTH_SOCK && echo there"]
            env = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
            assert done.stdout == "there\n", done.stderr
            assert done.stderr.count("Requesting authentication agent forwarding") == 1
        finally:
            process.kill()


@pytest.mark.timeout(300)
def test_sessions_by_the_dozen(world: World, rank: Rank) -> None:
    """50 at once, each with a connection to the bastion and one to the server's sshd."""
    argv = ["ssh", "-F", str(world.config), "-W", f"127.0.0.1:{rank.port}", gateway(world)]
    open_ones: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(5):
            group = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(10)]
            open_ones += group
            for process in group:
                assert process.stdout is not None
                assert process.stdout.read(8) == b"SSH-2.0-"
        assert all(process.poll() is None for process in open_ones)
        assert len(live(world.doors[0])) >= 50
    finally:
        for process in open_ones:
            process.kill()
            process.communicate()


def refused_target(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 255 and "administratively prohibited" in done.stderr


def test_no_other_target(world: World, rank: Rank, others: Rank) -> None:
    """Another user's server, other ports and addresses, and other spellings of the own one."""
    targets = [
        f"127.0.0.1:{others.port}",
        f"127.0.0.1:{world.service.port}",
        "169.254.169.254:80",
        "kubernetes.default.svc:443",
        f"localhost:{rank.port}",
        f"[::1]:{rank.port}",
        f"127.0.0.2:{rank.port}",
    ]
    for one in targets:
        assert refused_target(jump(world, "-W", one)), one
    with subprocess.Popen(
        ["ssh", "-F", str(world.config), "-W", f"127.0.0.1:{rank.port}", gateway(world)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"SSH-", "the own server answers"
        process.kill()
    # The bastion tells of them in batches.
    eventually(
        lambda: (
            {e["target"] for e in world.service.events if e["event"] == "denied"}
            >= {targets[0], "169.254.169.254:80"}
        )
    )


def test_each_lock_holds_alone(world: World, rank: Rank) -> None:
    """A service that permits too much is still bound by the bastion's own list of targets."""
    key = (world.home / ".ssh/gpudev/id_ed25519.pub").read_text()
    listener = socket.create_server(("127.0.0.1", 0))
    other = listener.getsockname()[1]
    tight = world.door(free_port(), GPUDEV_BASTION_TARGETS=f"127.0.0.1:{rank.port}")
    try:
        world.service.override = (200, f"restrict,port-forwarding {key}".encode())
        argv = ["-p", str(tight.port), "-W"]
        assert refused_target(jump(world, *argv, f"127.0.0.1:{other}"))
    finally:
        tight.stop()
        listener.close()


def test_no_shell_no_files_no_listening_no_sockets(world: World, rank: Rank, tmp_path: Path) -> None:
    name = gateway(world)
    for argv in (["ssh", name], ["ssh", name, "id"], ["ssh", "-tt", name], ["ssh", "-s", name, "sftp"]):
        done = world.run(*argv)
        assert done.returncode != 0, argv
        assert "uid=" not in done.stdout
    assert world.run("sftp", "-b", "-", name, input="ls\n").returncode != 0
    assert world.run("scp", "-O", "/etc/hostname", f"{name}:x").returncode != 0
    listening = free_port()
    remote = f"127.0.0.1:{listening}:127.0.0.1:{rank.port}"
    done = world.run("ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-R", remote, name)
    assert "remote port forwarding failed" in done.stderr
    assert not connects(listening)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        local = tmp_path / "local"
        with background(world, "-N", "-L", f"{local}:{path}", name) as process:
            try:
                eventually(local.exists)
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(str(local))
                    assert caller.recv(1) == b"", "closed without an answer"
            finally:
                process.kill()
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_wrong_keys_and_accounts(world: World, rank: Rank, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    own = world.home / ".ssh/gpudev/id_ed25519"

    def attempt(user: str, key: Path) -> str:
        options = ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]
        done = subprocess.run(
            [
                *("ssh", "-F", "/dev/null", *options, "-o", "UserKnownHostsFile=/dev/null", "-i", str(key)),
                *("-p", str(world.address.port), "-W", f"127.0.0.1:{rank.port}", f"{user}@127.0.0.1"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.stderr

    account = world.address.user
    assert "Permission denied (publickey)" in attempt(account, stranger)
    assert "Permission denied (publickey)" in attempt("daemon", own)
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", str(stranger)], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    refused = eventually(
        lambda: [e for e in world.service.events if e.get("fingerprint") == fingerprint], timeout=10
    )
    assert {(e["event"], e["address"]) for e in refused} == {("refused", "127.0.0.1")}


def test_after_revocation_nobody_enters_and_live_connections_end(world: World, rank: Rank) -> None:
    before = set(live(world.doors[0]))
    with background(world, "-N", gateway(world)) as idle, connected(world, "-N", HOST) as inner:
        try:
            eventually(lambda: len(set(live(world.doors[0])) - before) == 2)
            world.refused["local:me"] = "me is no longer a member of pytorch/metamates"
            for process in (inner, idle):
                process.wait(timeout=IN_TIME)
            done = world.run("ssh", HOST, "true")
            assert "Permission denied (publickey)" in done.stderr
        finally:
            idle.kill()
    cut = eventually(lambda: [e for e in world.service.events if e["event"] == "cut"])
    assert cut[0]["reason"] == "me is no longer a member of pytorch/metamates"


@pytest.mark.parametrize("change", [{"state": State.STOPPING}, {"hard_end": 0}], ids=["stopping", "end"])
def test_after_the_end_of_the_reservation(world: World, rank: Rank, change: dict[str, object]) -> None:
    """The server itself would still answer."""
    with connected(world, "-N", HOST) as process:
        world.change("gdoor", **change)
        process.wait(timeout=IN_TIME)
    assert "Permission denied (publickey)" in world.run("ssh", HOST, "true").stderr


def test_the_end_of_one_server_spares_the_sessions_of_another(
    world: World, rank: Rank, tmp_path: Path
) -> None:
    world.start("gsecond", name="second")
    try:
        waits = f"until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo alive"
        with connected(world, HOST, waits) as first, connected(world, "-N", "gpu-second") as second:
            world.change("gsecond", state=State.STOPPING)
            second.wait(timeout=IN_TIME)
            (tmp_path / "go").touch()
            out, _ = first.communicate(timeout=IN_TIME)
            assert out == "alive\n"
    finally:
        world.stop("gsecond")
        world.sync()


def test_a_connection_that_may_open_another_persons_new_server(world: World, rank: Rank) -> None:
    """It was used only for a server that lives; of another one that it could open, only the port is left."""
    (ended,) = world.start("gended", name="ended")
    with connected(world, "-N", HOST) as process:
        try:
            target = f"127.0.0.1:{ended.port}"
            assert any(target in permitted for permitted in used(world.doors[0].run).values())
            world.stop("gended")
            world.reserve("gheir", owner=OTHER)
            sshd = {0: ("127.0.0.1", ended.port)}
            world.live.sights["gheir"] = ServerSight("gheir", 1, Presence.PRESENT, sshd=sshd)
            process.wait(timeout=IN_TIME)
        finally:
            world.live.reservations.pop("gheir", None)
            world.sync()
    reason = "an address that it could open belongs to another reservation now"
    eventually(lambda: any(event.get("reason") == reason for event in world.service.events))


def test_a_connection_is_cut_with_all_its_processes(world: World, rank: Rank) -> None:
    """Of its two processes, the one that carries data does not go on without the one that is watched."""
    door = world.doors[0]
    before = set(live(door))
    with connected(world, "-N", HOST) as process:
        (one,) = set(live(door)) - before
        os.kill(int(one.partition("-")[0]), signal.SIGSTOP)
        world.refused["local:me"] = "me left"
        process.wait(timeout=IN_TIME)


def test_a_login_whose_connection_has_ended_is_recorded_for_nobody(world: World, rank: Rank) -> None:
    """An orphan's parent is process 1, or the hub: whoever is recorded can be ended."""
    door, key = world.doors[0], world.home / ".ssh/gpudev/id_ed25519.pub"
    said = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True).stdout
    look = ["timeout", "20", "/bin/bash", str(BASTION_CODE.with_name("keys")), str(door.run), said.split()[1]]
    before = set(live(door))
    orphan = ["bash", "-c", '"$@"; exit $?', "bash", *look]
    done = subprocess.run(orphan, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert set(live(door)) <= before
    # sshd starts a session for each connection.
    wait = ["bash", "-c", '"$@"; code=$?; echo "$code"; read -r', "bash", *look]
    with subprocess.Popen(
        wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as connection:
        assert connection.stdout is not None
        assert [connection.stdout.readline() for _ in range(2)][1] == "0\n"
        assert [one for one in live(door) if one.startswith(f"{connection.pid}-")]


def test_a_key_that_its_owner_removed_is_cut(world: World, rank: Rank) -> None:
    key = world.home / ".ssh/gpudev/id_ed25519.pub"
    with connected(world, "-N", HOST) as process:
        text = key.read_text()
        key.unlink()
        try:
            process.wait(timeout=IN_TIME)
        finally:
            key.write_text(text)
    # The service reads everybody's keys at most once a second.
    eventually(lambda: world.run("ssh", HOST, "true").returncode == 0)


def test_with_the_service_away_live_sessions_stay_and_none_begins(world: World, rank: Rank) -> None:
    terminal = Terminal(world, "-tt", HOST)
    try:
        terminal.type("echo re''ady")
        terminal.read_until("ready")
        world.service.stop()
        done = world.run("ssh", HOST, "true")
        assert "Permission denied (publickey)" in done.stderr
        # More than one look of the watcher goes unanswered meanwhile.
        terminal.type("sleep 4; echo st''ill")
        terminal.read_until("still")
    finally:
        terminal.close()
    count = len(world.service.events)
    world.service.start()
    eventually(lambda: len(world.service.events) > count, timeout=10)
    assert world.run("ssh", HOST, "true").returncode == 0


def test_answers_that_are_no_yes(world: World, rank: Rank) -> None:
    key = (world.home / ".ssh/gpudev/id_ed25519.pub").read_text()
    line = f'restrict,port-forwarding,permitopen="127.0.0.1:{rank.port}" {key}'
    for code in (500, 403, 302):
        world.service.override = (code, line.encode())
        assert "Permission denied (publickey)" in world.run("ssh", HOST, "true").stderr, code
    world.service.override = None
    world.service.delay = 7
    assert "Permission denied (publickey)" in jump(world, "-N").stderr


def test_what_the_owner_can_read_of_it(world: World, rank: Rank) -> None:
    assert world.run("ssh", HOST, "true").returncode == 0
    eventually(lambda: "closed" in world.bastion.lines_of("gdoor"))
    first, *_ = world.bastion.lines_of("gdoor").splitlines()
    assert " me connected from 127.0.0.1 with the key SHA256:" in first


def test_two_bastions_behind_one_address(world: World, rank: Rank) -> None:
    """Each has a key of its own, and the host CA signed both: clients notice nothing."""
    second = world.door(free_port())
    front = socket.create_server(("127.0.0.1", 0))
    ports = [world.address.port, second.port]

    def carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def balance() -> None:
        for port in ports:
            caller, _ = front.accept()
            with caller, socket.create_connection(("127.0.0.1", port)) as called:
                back = threading.Thread(target=carry, args=(called, caller))
                back.start()
                carry(caller, called)
                back.join()

    balancer = threading.Thread(target=balance)
    balancer.start()
    access = world.wire_access()
    assert access.bastion is not None
    access.bastion.port = front.getsockname()[1]
    client.sync(access)
    try:
        for _ in ports:
            done = world.run("ssh", HOST, "true")
            assert (done.returncode, done.stderr) == (0, "")
        balancer.join(timeout=20)
        assert any(event["event"] == "opened" for event in second.events())
    finally:
        front.close()
        world.sync()
        second.stop()


def test_an_impostor_is_refused(world: World, rank: Rank) -> None:
    """A server's certificate, of the same CA, does not make it a bastion."""
    access = world.wire_access()
    assert access.bastion is not None
    access.bastion.port = rank.port
    client.sync(access)
    try:
        assert "Host key verification failed" in world.run("ssh", HOST, "true").stderr
    finally:
        world.sync()
