"""One kill ends the whole cluster and leaves nothing on the machine; the next boot takes seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import cgroups, lifecycle
from harness.layout import Layout
from harness.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
WATCHED_FOLDERS = ("/run", "/var/log", "/var/lib", "/opt", "/etc/cni", "/usr/libexec")
WATCHED_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")


@pytest.fixture(scope="module")
def layout() -> Layout:
    found = Layout.default()
    if lifecycle.runs(found):
        pytest.skip("a cluster runs, and this test would end it: `python -m harness down` first")
    return found


def machine() -> dict[str, object]:
    """Return the current state of everything that a cluster might leave behind."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return {
        "mounts": sorted(line.split(maxsplit=2)[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "links": sorted(line.split(": ")[1] for line in said("ip", "-oneline", "link").splitlines()),
        "rules": said("nft", "list", "ruleset"),
        "routes": said("ip", "route"),
        "settings": {name: Path("/proc/sys", name).read_text() for name in WATCHED_SETTINGS},
        **{
            name: sorted(map(str, Path(name).iterdir())) if Path(name).exists() else None
            for name in WATCHED_FOLDERS
        },
    }


def namespaces_of(pid: str) -> set[str]:
    """Return the namespaces of a process; none if it has ended or hides them from root."""
    try:
        return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "mnt", "pid_for_children")}
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()


def members(namespaces: set[str]) -> list[str]:
    """Return the processes in any of these namespaces."""
    return [path.name for path in Path("/proc").glob("[0-9]*") if namespaces_of(path.name) & namespaces]


def harness(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=lifecycle.environment(layout))


def left_cgroups(layout: Layout) -> list[Path]:
    return [path for root in cgroups.hierarchies() if (path := root / layout.cgroup).exists()]


def test_kill_9_leaves_nothing_and_the_next_boot_takes_seconds(layout: Layout) -> None:
    lifecycle.prepare(layout)
    # A cluster that was killed earlier may have left empty folders, which the runs below would remove.
    lifecycle.down(layout)
    before = machine()
    done = harness(layout, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    leader = lifecycle.leader_pid(layout)
    own = namespaces_of(str(leader)) - namespaces_of("self")
    assert len(own) == 3
    assert len(members(own)) > 10
    os.kill(leader, signal.SIGKILL)
    wait_for("all processes are gone", lambda: not members(own), timeout=20)
    wait_for("the lock is free", lambda: not lifecycle.runs(layout), timeout=20)
    after = machine()
    # Cgroups and empty mount points stay until the next start or `down`.
    assert left_cgroups(layout)
    started = time.monotonic()
    done = harness(layout, "run", "--", "kubectl", "get", "nodes", "--output=name")
    took = time.monotonic() - started
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["node/node-1", "node/node-2"]), (
        done.stderr
    )
    assert took < 60
    assert not left_cgroups(layout)
    for name, was in before.items():
        if name not in WATCHED_FOLDERS:
            assert after[name] == was, name
    for name, now in machine().items():
        assert now == before[name], name


def test_the_cluster_ends_with_who_started_it(layout: Layout, tmp_path: Path) -> None:
    mark = tmp_path / "up"
    # Use a separate session, so that only the parent's death can end it.
    with subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "--", "sh", "-c", f"touch {mark}; sleep infinity"],
        start_new_session=True,
        env=lifecycle.environment(layout),
    ) as runner:
        wait_for("the command runs beside the cluster", mark.exists)
        own = namespaces_of(str(lifecycle.leader_pid(layout))) - namespaces_of("self")
        runner.kill()
    wait_for("all processes are gone", lambda: not members(own), timeout=20)
    assert harness(layout, "down").returncode == 0
    assert not left_cgroups(layout)


def test_the_exit_code_is_the_commands(layout: Layout) -> None:
    done = harness(layout, "run", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7, done.stderr
