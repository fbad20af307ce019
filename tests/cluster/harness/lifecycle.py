"""Works from outside the namespaces: builds what is missing, boots, enters, and cleans up after a cluster."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .binaries import ensure_binaries
from .cgroups import remove_cgroups
from .cluster import INSIDE
from .debian import PACKAGES, install
from .isolation import remove_empty_folders
from .layout import Layout, Node, load_nodes, save_nodes
from .waiting import wait_for

_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
_PACKAGE = Path(__file__).parents[1]
_BRIDGE_RULES = Path("/proc/sys/net/bridge")
BOOT = 600.0
"""Seconds for a boot. The first boot copies a gigabyte of images to each node."""


class HarnessError(Exception):
    """The request cannot be fulfilled; the message says why."""


def prepare(layout: Layout) -> None:
    """Prepare what a boot needs: packages, binaries, images. This takes seconds if nothing is missing."""
    if os.geteuid() != 0:
        raise HarnessError(
            "the test cluster needs root, because real kubelets make namespaces, mounts and cgroups; "
            "run it again as root, e.g. with sudo"
        )
    layout.root.mkdir(parents=True, exist_ok=True)
    with (layout.root / "prepare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install(*PACKAGES)
        _load_bridge_rules()
        with _images_made(layout):
            ensure_binaries(layout)


@contextmanager
def _images_made(layout: Layout) -> Iterator[None]:
    """Build images while the caller continues. They wait for the network; compilers need the processor."""
    # In a separate namespace, so that its mounts end with it.
    command = ["unshare", *_NAMESPACES, *_python("images")]
    with subprocess.Popen(command, env=environment(layout)) as making:
        try:
            yield
        except BaseException:
            making.terminate()
            raise
    if making.returncode != 0:
        raise HarnessError(f"`harness images` failed with {making.returncode}; why is said above")


def _load_bridge_rules() -> None:
    """Load a kernel module that shows bridges to netfilter. Services need it for pods of the same bridge."""
    if _BRIDGE_RULES.exists():
        return
    done = subprocess.run(["modprobe", "br_netfilter"], capture_output=True, text=True)
    if done.returncode != 0 or not _BRIDGE_RULES.exists():
        raise HarnessError(
            f"the test cluster needs the kernel's module br_netfilter, and {_BRIDGE_RULES} is not there: "
            f"{done.stderr.strip() or 'loading it did not help'}; load it outside this container"
        )


def up(layout: Layout, nodes: list[Node], *, keep: bool) -> None:
    """Boot a cluster. With ``keep``, it keeps running after this process; otherwise it ends with it."""
    began = time.monotonic()
    prepare(layout)
    lock = _take_lock(layout)
    if lock is None:
        raise HarnessError(f"a cluster of {layout.root} runs already: end it with `python -m harness down`")
    sweep(layout)
    layout.run.mkdir()
    layout.run.chmod(0o755)
    save_nodes(layout, nodes)
    prepared = time.monotonic()
    with (layout.root / "boot.log").open("w") as log:
        tie = () if keep else ("setpriv", "--pdeathsig", "KILL")
        leader = subprocess.Popen(
            [*tie, "unshare", "--net", *_NAMESPACES, *_python("lead", str(lock))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(layout),
            pass_fds=[lock],
            start_new_session=True,
            cwd="/",
        )
    os.close(lock)
    children = Path(f"/proc/{leader.pid}/task/{leader.pid}/children")

    def up_or_dead() -> bool:
        return layout.ready.exists() or leader.poll() is not None

    try:
        child = wait_for(
            "the namespaces are made", lambda: leader.poll() is not None or children.read_text().split()
        )
        if isinstance(child, list):
            layout.leader.write_text(child[0])
        wait_for("the cluster is up", up_or_dead, timeout=BOOT)
        if not layout.ready.exists():
            raise HarnessError(f"the cluster did not come up: {(layout.root / 'boot.log').read_text()}")
    except BaseException:
        leader.kill()
        leader.wait()
        raise
    now = time.monotonic()
    print(
        f"harness: {len(nodes)} nodes up in {now - prepared:.1f} s ({prepared - began:.1f} s before)",
        flush=True,
    )


def down(layout: Layout) -> None:
    """End the cluster if one runs, and remove its files."""
    if runs(layout):
        os.kill(leader_pid(layout), 9)
    with _dead(layout):
        remove_cgroups(layout)
        remove_empty_folders()


def sweep(layout: Layout) -> None:
    """Remove the cgroups and the run folder of an ended cluster. Images are kept."""
    remove_cgroups(layout)
    # Does not enter folders that are still mounted below.
    subprocess.run(["rm", "-rf", "--one-file-system", layout.run], check=True)


def runs(layout: Layout) -> bool:
    """Return whether a cluster of this state folder runs."""
    lock = _take_lock(layout)
    if lock is None:
        return True
    os.close(lock)
    return False


def leader_pid(layout: Layout) -> int:
    """Return the pid, outside of the namespaces, of process 1 of the cluster."""
    return int(layout.leader.read_text())


def check_nodes(layout: Layout, wanted: list[Node]) -> None:
    """Raise ``HarnessError`` if the nodes of the running cluster differ from the wanted nodes."""
    if load_nodes(layout) != wanted:
        raise HarnessError("the running cluster has other nodes; end it with `python -m harness down`")


def enter(layout: Layout, command: Sequence[str]) -> int:
    """Run a command inside, with this working directory and environment; return its exit code."""
    at = ("nsenter", "--target", str(leader_pid(layout)), "--net", "--mount", "--pid")
    admin = {"KUBECONFIG": str(layout.kubeconfigs / "admin.conf"), INSIDE: "1"}
    beside = {**environment(layout), **admin}
    beside["PATH"] = f"{layout.binaries}:{beside['PATH']}"
    # Entering the mount namespace changes the working directory to its root.
    process = subprocess.Popen([*at, "--", "env", f"--chdir={Path.cwd()}", *command], env=beside)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue  # the command got the signal, too, and decides
        return code if code >= 0 else 128 - code


def _take_lock(layout: Layout) -> int | None:
    layout.root.mkdir(parents=True, exist_ok=True)
    lock = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def _dead(layout: Layout) -> Iterator[None]:
    """Hold the lock of a cluster that has just ended, so that no cluster can start meanwhile."""
    lock = wait_for("the cluster has ended", lambda: _take_lock(layout), timeout=30)
    try:
        yield
    finally:
        os.close(lock)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def environment(layout: Layout) -> dict[str, str]:
    """Return the environment with which another process finds this package and this state folder."""
    path = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"GPUDEV_CLUSTER_STATE": str(layout.root), "PYTHONPATH": path}
