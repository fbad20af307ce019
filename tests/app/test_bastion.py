"""A whole hub with a bastion: the client's own commands and plain ssh go through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpudev_hub.local_bastion import PROGRAM
from hub_users import wait_for
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
GPU_DEV = str(Path(sys.executable).parent / "gpu-dev")


@pytest.fixture(scope="module")
def bastion() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="gpudev-") as folder:
        stack = Stack(Path(folder), environment={"GPUDEV_BASTION": "1"})
        try:
            stack.start()
            yield stack
        finally:
            stack.close()


def gpu_dev(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GPU_DEV, *arguments],
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def events(stack: Stack, kind: str) -> list[dict[str, object]]:
    lines = (stack.settings.logs / "bastion.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in found if event["event"] == kind]


def test_everything_goes_through_the_bastion(bastion: Stack) -> None:
    assert f"SSH goes through the bastion at 127.0.0.1:{bastion.settings.ports().bastion}" in bastion.output()
    asked = bastion.reserve(gpus=1, name="way")
    bastion.wait_state(asked["id"], "ready")
    done = gpu_dev(bastion, "ssh", "way", "--", "echo $GPUDEV_SERVER")
    assert (done.returncode, done.stdout) == (0, f"{asked['id']}/1/0\n"), done.stderr
    wait_for("its event", lambda: len(events(bastion, "asked")) == 1)
    plain = ["ssh", "-F", str(bastion.home / ".ssh" / "config"), "gpu-way", "echo plain"]
    said = subprocess.run(
        plain, env=bastion.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (said.returncode, said.stdout) == (0, "plain\n"), said.stderr
    wait_for("its event", lambda: len(events(bastion, "asked")) == 2)
    (bastion.folder / "sent").write_text("sent")
    script = (
        "import gpudev\n"
        "server = gpudev.get('way')\n"
        f"server.upload({str(bastion.folder / 'sent')!r}, 'sent')\n"
        "print(server.run(['cat', 'sent']).stdout)\n"
    )
    used = subprocess.run(
        [sys.executable, "-c", script],
        env=bastion.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert used.returncode == 0, used.stderr
    wait_for("its event", lambda: len(events(bastion, "asked")) > 2)

    def told() -> bool:
        return "connected from 127.0.0.1 with the key SHA256:" in gpu_dev(bastion, "logs", "way").stdout

    wait_for("the record of the connections", told)
    audit = (bastion.settings.logs / "service.log").read_text()
    assert '"logger": "gpudev.audit"' in audit
    assert (
        bastion.settings.secret("bastion") not in audit + (bastion.settings.logs / "bastion.log").read_text()
    )


def test_it_is_restarted_alone_and_leaves_nothing_behind(bastion: Stack) -> None:
    run = str(bastion.settings.bastion_folder / "run")

    def parts() -> set[int]:
        return _running(run)

    before = parts()
    assert len(before) >= 3
    (main,) = {_parent(pid) for pid in before} & _running(str(PROGRAM))
    os.kill(main, 9)
    wait_for("a new bastion", lambda: len(parts()) >= 3 and not parts() & before)
    wait_for("its answer", lambda: gpu_dev(bastion, "ssh", "way", "--", "true").returncode == 0)
    bastion.stop()
    wait_for("its end", lambda: not parts())


def _running(words: str) -> set[int]:
    """Processes with this in their command line."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in path.read_text(errors="replace").replace("\0", " "):
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
