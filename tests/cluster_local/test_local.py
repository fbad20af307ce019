"""Launchers and what is seen of them: real processes, with a stand-in for JupyterLab only."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gpudev_hub.cluster.gpus import SimulatedGpus, local_policy, pool_name
from gpudev_hub.cluster.local import LocalCluster
from gpudev_hub.cluster.servers import LocalServers
from gpudev_hub.core.model import (
    HOUR,
    Claim,
    NodeSlots,
    NodeStatus,
    Owner,
    Presence,
    Request,
    Reservation,
    Shape,
)
from gpudev_hub.server import processes, record
from gpudev_hub.server.private import write
from gpudev_hub.settings import Settings
from gpudev_hub.ssh.ca import HostCA
from gpudev_hub.ssh.launches import Launches, ServerTokens
from hub_users import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

GPUS = SimulatedGpus(2, 4)
# What a user leaves behind who hides: detached, deaf to hang-ups, without our environment.
STUBBORN = "trap '' HUP TERM; while :; do sleep 1; done"
JUPYTER = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
subprocess.Popen(["bash", "-c", {STUBBORN!r}], start_new_session=True, env={{}})
print("up", flush=True)
for _ in range(600):
    time.sleep(0.1)
    if os.path.exists(sys.argv[1]):
        code = int(open(sys.argv[1]).read())
        print("the end" if code else "Shutting down on /api/shutdown request.", flush=True)
        sys.exit(code)
"""


class Engine:
    """Starts servers without a Hub."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = LocalServers(folder / "servers")
        self.servers.root.mkdir()
        self.cluster = LocalCluster(self.servers, GPUS, "simulated")
        self.launches = Launches(
            folder / "launches",
            ca=HostCA(folder),
            tokens=ServerTokens(b"k" * 32),
            policy=local_policy(GPUS, Settings.read({"GPUDEV_STATE": str(folder / "state")})),
            service_url="http://127.0.0.1:9/services/gpudev/",
        )
        self.word = folder / "exit-code"
        self.home = folder

    async def start(self, id: str, ranks: int = 1, grace: float = 0.5) -> Claim:
        allocation = tuple(NodeSlots(f"node-{rank + 1}", (0, 1)) for rank in range(ranks))
        reservation = Reservation(
            id=id,
            seq=1,
            owner=Owner("local:a", "a", "a"),
            request=Request(Shape(2, ranks), "simulated", HOUR, "default"),
            request_id=None,
            created_at=0,
            startup=0,
            teardown=0,
            cap=16,
            attempt=1,
            hard_end=2_000_000_000_000,
            allocation=allocation,
        )
        launch = await self.launches.make(reservation)
        ports = [free_port() for _ in range(1 + ranks)]
        for rank in range(ranks):
            folder = self.servers.folder(id, 1) / str(rank)
            private = folder / record.PRIVATE
            private.mkdir(mode=0o700, parents=True)
            env = {
                "HOME": str(self.home),
                "PATH": "/usr/bin:/bin",
                "USER": pwd.getpwuid(os.getuid()).pw_name,
                record.MARKER: record.marker(id, 1, rank),
            }
            spec = {
                "launch": msgspec.to_builtins(launch),
                "peers": [{"host": "127.0.0.1", "port": port} for port in ports[1:]],
                "rank": rank,
                "jupyter_port": ports[0],
                "sshd_port": ports[1 + rank],
                "jupyter": [sys.executable, "-c", JUPYTER, str(self.word)] if rank == 0 else None,
                "home": str(self.home),
                "passwd_home": False,
                "grace": grace,
                "env": env,
            }
            write(private / "spec.json", json.dumps(spec))
            started = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "gpudev_hub.server.launcher", str(folder)),
                env={record.MARKER: env[record.MARKER], "PATH": "/usr/bin:/bin"},
            )
            assert await started.wait() == 0
        return Claim(id, 1, "local:a", "simulated", allocation, 0)

    def launcher(self, id: str, rank: int = 0) -> int:
        found = self.servers.records(id, 1)[rank]
        assert found is not None
        return found.pid

    def log(self, id: str, part: str = "jupyter") -> str:
        path = self.servers.folder(id, 1) / "0" / "logs" / f"{part}.log"
        return path.read_text() if path.exists() else ""


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""  # gone


async def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        running = Engine(Path(folder))
        yield running
        for attempt in running.servers.attempts():
            await running.servers.end(*attempt)
        running.cluster.close()


async def test_there_then_gone_with_everything_below(engine: Engine) -> None:
    claim = await engine.start("there")
    sight = await engine.cluster.look(claim)
    assert (sight.presence, sight.complete) == (Presence.PRESENT, True)
    assert sight.jupyter is not None
    assert len(sight.sshd) == 1
    await until(lambda: "up" in engine.log("there"), "Jupyter's stand-in")
    launcher = engine.launcher("there")
    below = processes.descendants(launcher)
    assert any("bash" in command(pid) for pid in below), "the stubborn one"
    await engine.cluster.remove("there", 1)
    assert not any(map(processes.start_time, below | {launcher}))
    sight = await engine.cluster.look(claim)
    assert (sight.presence, sight.user_stopped, sight.outage) == (Presence.ABSENT, False, False)
    assert not (engine.servers.folder("there", 1) / "0" / "private").exists()


async def test_a_launcher_that_its_user_stopped_ends_what_is_below_it(engine: Engine) -> None:
    """Killed, it would leave what has no marker to run on."""
    await engine.start("stopped")
    await until(lambda: "up" in engine.log("stopped"), "Jupyter's stand-in")
    launcher = engine.launcher("stopped")
    below = processes.descendants(launcher)
    os.kill(launcher, signal.SIGSTOP)
    await engine.cluster.remove("stopped", 1)
    assert not any(map(processes.start_time, below | {launcher}))


async def test_the_end_is_seen_at_once_and_says_why(engine: Engine) -> None:
    claim = await engine.start("ends", grace=0.1)
    watch = engine.cluster.watch()
    engine.cluster.hint("ends", 1)
    assert (await anext(watch)).presence is Presence.PRESENT
    await until(lambda: "up" in engine.log("ends"), "Jupyter's stand-in")
    engine.word.write_text("3")
    sight = await asyncio.wait_for(anext(watch), 20)
    assert sight.presence is Presence.ABSENT
    assert "exit code 3" in sight.detail
    assert not sight.user_stopped
    assert (await engine.cluster.look(claim)).presence is Presence.ABSENT


async def test_a_shut_down_from_inside_is_its_users_wish(engine: Engine) -> None:
    claim = await engine.start("quits", grace=0.1)
    await until(lambda: "up" in engine.log("quits"), "Jupyter's stand-in")
    engine.word.write_text("0")
    launcher = engine.launcher("quits")
    await until(lambda: processes.start_time(launcher) is None, "its end")
    assert (await engine.cluster.look(claim)).user_stopped


async def test_the_end_of_everything_is_no_failure(engine: Engine) -> None:
    claim = await engine.start("down", grace=0.1)
    await engine.servers.end("down", 1, with_hub=True)
    assert (await engine.cluster.look(claim)).outage


async def test_a_killed_launcher_takes_all_along(engine: Engine) -> None:
    """Invariant 8: absent only when nothing that carries the marker is left."""
    claim = await engine.start("killed")
    watch = engine.cluster.watch()
    engine.cluster.hint("killed", 1)
    await anext(watch)
    orphan = await asyncio.create_subprocess_exec(
        "sleep", "600", env={record.MARKER: record.marker("killed", 1, 0)}
    )
    private = engine.servers.folder("killed", 1) / "0" / record.PRIVATE
    assert private.exists()
    os.kill(engine.launcher("killed"), signal.SIGKILL)
    assert (await asyncio.wait_for(anext(watch), 20)).presence is Presence.ABSENT
    assert await orphan.wait() == -signal.SIGKILL
    assert not private.exists(), "its keys outlive it"
    sight = await engine.cluster.look(claim)
    assert (sight.presence, sight.user_stopped, sight.outage) == (Presence.ABSENT, False, False)


@pytest.mark.parametrize("gone", [0, 1])
async def test_of_a_pair_one_rank_gone_is_an_incomplete_server(engine: Engine, gone: int) -> None:
    claim = await engine.start("pair", ranks=2)
    whole = await engine.cluster.look(claim)
    assert (whole.complete, len(whole.sshd)) == (True, 2)
    pid = engine.launcher("pair", gone)
    os.kill(pid, signal.SIGTERM)
    await until(lambda: processes.start_time(pid) is None, "the end of that rank")
    half = await engine.cluster.look(claim)
    assert (half.presence, half.complete) == (Presence.PRESENT, False)
    assert half.sshd == {1 - gone: whole.sshd[1 - gone]}
    assert half.jupyter == (None if gone == 0 else whole.jupyter)
    await engine.cluster.remove("pair", 1)
    assert (await engine.cluster.look(claim)).presence is Presence.ABSENT


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_end_of_rank_1_is_not_the_end_of_rank_10(engine: Engine, how: signal.Signals) -> None:
    """Nor of a server whose id only begins with the same letters."""
    claim = await engine.start("wide", ranks=2)
    markers = [record.marker("wide", 1, 1), record.marker("wide", 1, 10), record.marker("wider", 1, 1)]
    own, tenth, wider = [
        await asyncio.create_subprocess_exec("sleep", "600", env={record.MARKER: marker})
        for marker in markers
    ]
    try:
        pid = engine.launcher("wide", 1)
        os.kill(pid, how)
        await until(lambda: processes.start_time(pid) is None, "the end of rank 1")
        await engine.servers.sweep("wide", 1)
        await asyncio.wait_for(own.wait(), 10)
        assert processes.start_time(tenth.pid) is not None
        await engine.cluster.remove("wide", 1)
        await asyncio.wait_for(tenth.wait(), 10)
        assert (await engine.cluster.look(claim)).presence is Presence.ABSENT
        assert processes.start_time(wider.pid) is not None
    finally:
        wider.kill()
        await wider.wait()


async def test_what_was_prepared_for_a_server_that_never_came_is_removed(engine: Engine) -> None:
    """Its Hub was killed before it had started a launcher."""
    for name in ("never", "held"):
        private = engine.servers.folder(name, 1) / "0" / record.PRIVATE
        private.mkdir(parents=True)
        (private / "spec.json").write_text("{}")
    await engine.cluster.forget_ended([("held", 1)])
    left = sorted(path.parent.parent.parent.name for path in engine.servers.root.rglob("spec.json"))
    assert left == ["held-1"]
    await engine.cluster.remove("held", 1)
    assert list(engine.servers.root.rglob("spec.json")) == []


async def test_what_cannot_be_read_is_unknown(engine: Engine) -> None:
    """Invariant 8."""
    claim = await engine.start("odd")
    path = engine.servers.folder("odd", 1) / "0" / "record.json"
    good = path.read_text()
    path.write_text("{")
    assert (await engine.cluster.look(claim)).presence is Presence.UNKNOWN
    path.write_text(good)
    assert (await engine.cluster.look(claim)).presence is Presence.PRESENT


@pytest.mark.parametrize(
    ("id", "text"), [("cut", "{"), ("list", "[]"), ("newer", '{"exit": null, "slots": [], "more": 1}')]
)
async def test_a_server_whose_record_makes_no_sense_is_ended_all_the_same(
    engine: Engine, id: str, text: str
) -> None:
    """And keeps nobody from seeing the others."""
    other = await engine.start(f"beside-{id}")
    claim = await engine.start(id)
    pid = engine.launcher(id)
    (engine.servers.folder(id, 1) / "0" / "record.json").write_text(text)
    seen = {sight.id: sight.presence for sight in await engine.cluster.servers()}
    assert seen == {other.reservation: Presence.PRESENT, claim.reservation: Presence.UNKNOWN}
    await engine.cluster.remove(id, 1)
    assert processes.start_time(pid) is None
    assert (await engine.cluster.look(claim)).presence is Presence.ABSENT
    assert [sight.id for sight in await engine.cluster.servers()] == [other.reservation]


async def test_what_somebody_left_among_the_servers_hides_none_and_ends_none(engine: Engine) -> None:
    """A file, a folder in place of a record, a copy of a server's folder."""
    await engine.start("beside")
    root, pid = engine.servers.root, engine.launcher("beside")
    (root / "backup-2026").write_text("tar")
    (root / "link-1").symlink_to(root / "beside-1")
    (root / "x-\N{SUPERSCRIPT TWO}").mkdir()
    (root / "spoilt-1" / "0" / "record.json").mkdir(parents=True)
    # The launcher may be writing a hidden temporary file just now, which is gone before it is copied.
    shutil.copytree(root / "beside-1", root / "beside-1-20", ignore=shutil.ignore_patterns(".*"))
    seen = {(sight.id, sight.attempt): sight.presence for sight in await engine.cluster.servers()}
    assert seen == {("beside", 1): Presence.PRESENT}
    await engine.cluster.forget_ended([("beside", 1)])
    await engine.cluster.remove("beside-1", 20)
    assert processes.start_time(pid) is not None


async def test_a_marker_that_users_made_up_is_of_the_server_and_no_rank(engine: Engine) -> None:
    claim = await engine.start("made-up")
    pid = engine.launcher("made-up")
    async with asyncio.TaskGroup() as group:
        for value in ("made-up/1/", "made-up/1/x/y"):
            odd = await asyncio.create_subprocess_exec("sleep", "600", env={record.MARKER: value})
            group.create_task(odd.wait())
        os.kill(pid, signal.SIGTERM)
        await until(lambda: processes.start_time(pid) is None, "the launcher's end")
        half = await engine.cluster.look(claim)
        assert (half.presence, half.complete) == (Presence.PRESENT, False)
        await engine.cluster.remove("made-up", 1)
    assert (await engine.cluster.look(claim)).presence is Presence.ABSENT


async def test_a_record_of_another_boot_names_nobody(engine: Engine) -> None:
    claim = await engine.start("old")
    found = engine.servers.records("old", 1)[0]
    assert found is not None
    await engine.servers.end("old", 1)
    me = os.getpid()
    start = processes.start_time(me)
    assert start is not None
    before = replace(found, boot="another", pid=me, start_time=start)
    record.write(engine.servers.folder("old", 1) / "0", before)
    sight = await engine.cluster.look(claim)
    assert (sight.presence, sight.outage) == (Presence.ABSENT, True)
    await engine.servers.sweep("old", 1)


async def test_sshd_and_agent_are_started_again(engine: Engine) -> None:
    await engine.start("again")
    launcher = engine.launcher("again")

    def listener() -> int | None:
        found = processes.descendants(launcher)
        return next((pid for pid in found if "[listener]" in command(pid)), None)

    await until(listener, "sshd")
    first = listener()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: listener() not in (None, first), "another sshd")


async def test_sshd_comes_back_though_the_home_is_gone(engine: Engine) -> None:
    """Otherwise nobody gets in to make another one."""
    home = engine.folder / "home"
    home.mkdir()
    engine.home = home
    await engine.start("homeless")
    await until(lambda: "listening" in engine.log("homeless", "sshd"), "sshd")
    home.rename(engine.folder / "moved")
    home.touch()
    found = processes.descendants(engine.launcher("homeless"))
    os.kill(next(pid for pid in found if "[listener]" in command(pid)), signal.SIGKILL)
    await until(lambda: engine.log("homeless", "sshd").count("listening") > 1, "another sshd")


async def test_nodes_and_logs(engine: Engine) -> None:
    nodes = await engine.cluster.nodes()
    assert [(node.name, node.gpus, node.status) for node in nodes] == [
        ("node-1", 4, NodeStatus.UP),
        ("node-2", 4, NodeStatus.UP),
    ]
    await engine.start("logs")
    for part, said in (("jupyter", "up"), ("sshd", "listening")):
        await until(lambda part=part, said=said: said in engine.log("logs", part), part)  # type: ignore[misc]
    logs = await engine.cluster.logs("logs", 1, 5)
    assert logs["jupyter"] == "up"
    assert "listening" in logs["sshd"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "gpu"),
    ],
)
def test_names_of_pools(model: str, name: str) -> None:
    assert pool_name(model) == name
