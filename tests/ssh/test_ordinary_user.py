"""sshd run by an ordinary user, with ``/dev/pts`` mounted well and not so well, and with unusual names.

The account, and the terminals, exist in a mount namespace of the test's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

import gpudev_hub
from gpudev.sshblocks import quoted
from hub_users import free_port
from ssh_world import World, eventually

UID = 54321
PYTHON = "/usr/bin/python3"
SCRIPT = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount -t devpts -o "newinstance,ptmxmode=666,$2" devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
exec setpriv --reuid "$3" --regid "$3" --clear-groups "$4" "$1/start.py"
"""
START = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {source!r})
from gpudev_hub.server import sshd
task = json.loads(Path({task!r}).read_text())
argv = sshd.prepare(Path(task["folder"]), task["launch"], 0, task["port"], task["env"])
os.execv(argv[0], argv)
"""


def system_python() -> bool:
    """Whether there is a Python that any user can run: ours may lie in root's home."""
    try:
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        return subprocess.run([PYTHON, "-c", check], check=False).returncode == 0
    except OSError:
        return False


pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="becomes another user"),
    pytest.mark.skipif(not system_python(), reason=f"{PYTHON} is too old or not there"),
]


@dataclass
class Ordinary:
    config: Path
    log: Path

    def run(self, *arguments: str, tty: bool = False) -> subprocess.CompletedProcess[str]:
        command = ["ssh", *(["-tt"] if tty else []), "-F", str(self.config), "gpu-gu1", *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        )


MOUNTS = [("gid=5,mode=620", "tester"), ("mode=600", "tester")]
NAMES = ["Jane.Doe@corp.example", "1001", "jané", "CORP\\jane", "jane doe"]


@pytest.fixture(params=MOUNTS, ids=["gid=5", "no-gid"])
def ordinary(request: pytest.FixtureRequest, world: World) -> Iterator[Ordinary]:
    # pytest's own folders are root's alone.
    mount, name = request.param
    root = Path(tempfile.mkdtemp(prefix="gpudev-test-"))
    try:
        root.chmod(0o755)
        source = root / "source"
        shutil.copytree(Path(gpudev_hub.__file__).parent / "server", source / "gpudev_hub" / "server")
        shutil.copy(gpudev_hub.__file__, source / "gpudev_hub")
        for folder in ("home", "server"):
            (root / folder).mkdir(mode=0o700)
            os.chown(root / folder, UID, UID)
        passwd = Path("/etc/passwd").read_text()
        (root / "passwd").write_text(f"{passwd}{name}:x:{UID}:{UID}::{root}/home:/bin/bash\n")
        record = world.reserve("gu1")
        port = free_port()
        env = {
            "HOME": f"{root}/home",
            "PATH": "/usr/bin:/bin",
            "SHELL": "/bin/bash",
            "CUDA_VISIBLE_DEVICES": "0,1",
            "GPUDEV_SERVER": "gu1/1/0",
        }
        launch = json.loads(msgspec.json.encode(asyncio.run(world.launches.make(record))))
        task = {"folder": f"{root}/server", "launch": launch, "port": port, "env": env}
        (root / "task").write_text(json.dumps(task))
        (root / "start.py").write_text(START.format(source=str(source), task=f"{root}/task"))
        world.sync()
        key = world.home / ".ssh" / "gpudev" / "id_ed25519"
        if not key.exists():
            from gpudev import sshkeys

            sshkeys.own_key(world.home / ".ssh")
        (root / "known").write_text(world.ca.known_hosts + "\n")
        (root / "config").write_text(
            f"Host gpu-gu1\n  HostName 127.0.0.1\n  Port {port}\n  User {quoted(name)}\n  HostKeyAlias gu1\n"
            f"  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {root}/known\n"
            "  StrictHostKeyChecking yes\n"
        )
        log = root / "log"
        with log.open("wb") as output:
            argv = ["unshare", "-m", "--propagation", "private", "bash", "-c", SCRIPT, "script", str(root)]
            process = subprocess.Popen(
                [*argv, mount, str(UID), PYTHON],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
        try:
            eventually(lambda: "listening" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Ordinary(root / "config", log)
        finally:
            process.kill()
            process.wait()
            world.live.reservations.pop("gu1", None)
    finally:
        shutil.rmtree(root)


def test_an_ordinary_users_server(ordinary: Ordinary, request: pytest.FixtureRequest) -> None:
    done = ordinary.run("id -u; echo $CUDA_VISIBLE_DEVICES; pwd")
    assert (done.returncode, done.stderr) == (0, ""), ordinary.log.read_text()
    uid, gpus, home = done.stdout.split()
    assert (uid, gpus) == (str(UID), "0,1")
    assert home.endswith("/home")
    with_terminal = ordinary.run("test -t 1 && echo terminal", tty=True)
    if "no-gid" in request.node.name:
        assert "PTY allocation request failed" in with_terminal.stderr
        shell = ordinary.run()
        assert "SSH sessions get no terminal, because /dev/pts is mounted without gid=5" in shell.stderr
    else:
        assert with_terminal.stdout.strip() == "terminal"


@pytest.mark.parametrize("ordinary", [(MOUNTS[0][0], name) for name in NAMES], ids=NAMES, indirect=True)
def test_an_account_may_be_called_as_directories_call_theirs(ordinary: Ordinary) -> None:
    """What means something to sshd in ``AllowUsers`` (``@`` before a host, blanks) stands for itself."""
    done = ordinary.run("id -u")
    assert (done.returncode, done.stdout) == (0, f"{UID}\n"), done.stderr + ordinary.log.read_text()
    other = ordinary.run("-l", "root", "true")
    assert other.returncode == 255
