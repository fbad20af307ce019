"""The bastion run by an ordinary user without capabilities, as in its pod."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev import ssh as client
from gpudev_hub.ssh.bastion import HOST_KEY_ALIAS
from gpudev_hub.ssh.keygen import keep_pair, public_of
from hub_users import free_port
from ssh_world import BASTION_CODE, World, eventually, used

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="becomes another user"),
]
UID = 54322
SCRIPT = """
set -e
mount --bind "$1/passwd" /etc/passwd
exec setpriv --reuid "$2" --regid "$2" --clear-groups --no-new-privs --bounding-set -all --inh-caps -all \
    /bin/bash "$1/code/bastion"
"""


@pytest.fixture
def root(world: World) -> Iterator[Path]:
    """Its files, where an ordinary user can read them; and the bastion that runs on them."""
    root = Path(tempfile.mkdtemp(prefix="gpudev-test-"))
    port = free_port()
    try:
        root.chmod(0o755)
        shutil.copytree(BASTION_CODE.parent, root / "code")
        (root / "passwd").write_text(Path("/etc/passwd").read_text() + f"jump:x:{UID}:{UID}::/:/bin/sh\n")
        keep_pair(root / "secrets" / "host_ed25519", "bastion")
        signed = world.ca.sign(
            public_of(root / "secrets" / "host_ed25519").read_text().strip(), [HOST_KEY_ALIAS]
        )
        (root / "secrets" / "host_ed25519-cert.pub").write_text(signed + "\n")
        (root / "secrets" / "token").write_text(world.bastion_token)
        # As a Secret's files are in a pod: root's, and the group's to read.
        (root / "secrets").chmod(0o755)
        for path in (root / "secrets").iterdir():
            path.chmod(0o440)
            os.chown(path, 0, UID)
        (root / "run").mkdir(mode=0o700)
        os.chown(root / "run", UID, UID)
        env = {
            "PATH": os.environ["PATH"],
            "GPUDEV_GATE": f"http://127.0.0.1:{world.service.port}",
            "GPUDEV_BASTION_SECRETS": str(root / "secrets"),
            "GPUDEV_BASTION_RUN": str(root / "run"),
            "GPUDEV_BASTION_PORT": str(port),
            "GPUDEV_BASTION_ADDRESS": "127.0.0.1",
            "GPUDEV_BASTION_TARGETS": "127.0.0.1:*",
        }
        argv = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "bash",
            "-c",
            SCRIPT,
            "script",
            str(root),
            str(UID),
        ]
        with (root / "log").open("wb") as output:
            process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            log = root / "log"
            eventually(lambda: "Server listening" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield root
        finally:
            process.terminate()
            process.wait(20)
    finally:
        shutil.rmtree(root)


def test_an_ordinary_users_bastion_forwards_records_and_cuts(world: World, root: Path) -> None:
    world.start("gone1", name="ord")
    access = world.wire_access()
    access.bastion = world.wire_bastion(int(_port(root)), "jump")
    client.sync(access)
    try:
        done = world.run("ssh", "gpu-ord", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr + (root / "log").read_text()
        # The bastion sends what it has seen so far, which may be the first of them alone.
        eventually(lambda: {"opened", "asked"} <= {event["event"] for event in world.service.events})
        before = used(root / "run").keys()
        with subprocess.Popen(
            ["ssh", "-F", str(world.config), "-N", "gpu-ord"], stdin=subprocess.DEVNULL
        ) as process:
            eventually(lambda: used(root / "run").keys() - before)
            world.refused["local:me"] = "left"
            process.wait(60)
    finally:
        world.refused.clear()
        world.stop("gone1")


def _port(root: Path) -> str:
    return (root / "run" / "sshd_config").read_text().partition("Port ")[2].partition("\n")[0]
