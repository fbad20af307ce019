"""The bastion: 1 GB through it and through a plain OpenSSH jump, and a flood of wrong keys.

Everything runs on this machine: hub, service, bastion, server, clients, and the sender of the wrong keys.
``python -m benchmarks.bastion [PAIRS [GIGABYTES [SECONDS]]]``
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from gpudev_hub.local_bastion import account
from hub_users import wait_for
from stack import Stack, running_stack

PAIRS = 5
GIGABYTES = 1.0
RATE = 200
SECONDS = 30.0
PLAIN = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
AuthorizedKeysFile {folder}/keys
"""


@contextmanager
def plain_jump(stack: Stack, folder: Path, port: int) -> Iterator[Path]:
    """An sshd with default settings; yields a configuration file that leads to servers through it."""
    key = stack.home / ".ssh" / "gpudev" / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")], check=True)
    (folder / "keys").write_text(key.with_name("id_ed25519.pub").read_text())
    (folder / "sshd_config").write_text(PLAIN.format(port=port, folder=folder))
    config = folder / "config"
    config.write_text(
        f"Host plain\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {key}\n  StrictHostKeyChecking no\n"
        f"  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  ProxyJump none\n"
        f"Host gpu-*\n  ProxyJump plain\nInclude {stack.home}/.ssh/gpudev/config\n"
    )
    sshd = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL
    )
    try:
        yield config
    finally:
        sshd.terminate()
        sshd.wait()


def send(stack: Stack, config: Path, size: int) -> float:
    """Seconds for ``size`` bytes into the server."""
    began = time.monotonic()
    with subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as source:
        subprocess.run(
            ["ssh", "-F", str(config), "gpu-bench", "cat > /dev/null"],
            stdin=source.stdout,
            env=stack.environment,
            check=True,
        )
    return time.monotonic() - began


class Good:
    """A user who logs in repeatedly, and a client of the API, in the background of a measurement."""

    def __init__(self, stack: Stack, config: Path) -> None:
        self.logins: list[tuple[bool, float]] = []
        self.answers: list[float] = []
        self._ending = threading.Event()
        self._stack = stack
        self._threads = [
            threading.Thread(target=self._log_in, args=(config,)),
            threading.Thread(target=self._ask),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _log_in(self, config: Path) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            done = subprocess.run(
                ["ssh", "-F", str(config), "gpu-bench", "true"],
                env=self._stack.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            self.logins.append((done.returncode == 0, time.monotonic() - began))
            self._ending.wait(0.5)

    def _ask(self) -> None:
        with self._stack.client() as client:
            while not self._ending.wait(0.05):
                began = time.monotonic()
                client.get("reservations").raise_for_status()
                self.answers.append((time.monotonic() - began) * 1000)

    def told(self, what: str) -> str:
        good = sum(fine for fine, _ in self.logins)
        took = [seconds for _, seconds in self.logins]
        ordered = sorted(self.answers)
        return (
            f"{what}: logins {good} of {len(self.logins)}, median {statistics.median(took):.1f} s, "
            f"longest {max(took):.1f} s; API median {statistics.median(ordered):.1f} ms, "
            f"p95 {ordered[int(len(ordered) * 0.95)]:.1f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.1f} ms"
        )


def flooded(port: int, source: str, seconds: float) -> str:
    """Send wrong keys; return how many ended in which way."""
    arguments = [str(port), source, account(), str(RATE), str(seconds)]
    command = [sys.executable, "-m", "benchmarks.wrong_keys", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Print the ratio of the throughputs, then logins and the API's answers without and with a flood."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    size = round(float(sys.argv[2] if len(sys.argv) > 2 else GIGABYTES) * 1e9)
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else SECONDS
    with (
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as name,
        running_stack(Path(name), environment={"GPUDEV_BASTION": "1"}) as stack,
    ):
        folder = Path(name) / "plain"
        folder.mkdir()
        made = stack.reserve(gpus=1, name="bench")
        stack.wait_state(made["id"], "ready")
        gpu_dev = str(Path(sys.executable).parent / "gpu-dev")
        subprocess.run([gpu_dev, "ssh", "bench", "--", "true"], env=stack.environment, check=True)
        ours = stack.home / ".ssh" / "gpudev" / "config"
        port = stack.settings.bastion_port(stack.settings.ports())
        with plain_jump(stack, folder, port + 1) as plain:
            wait_for("the plain jump", lambda: send(stack, plain, 1) > 0)
            rates: dict[Path, list[float]] = {ours: [], plain: []}
            for number in range(pairs):
                for config in (ours, plain) if number % 2 else (plain, ours):
                    rates[config].append(size / send(stack, config, size) / 1e6)
        ratios = sorted(a / b for a, b in zip(rates[ours], rates[plain], strict=True))
        through, jumped = statistics.median(rates[ours]), statistics.median(rates[plain])
        print(
            f"{size / 1e9:g} GB, {pairs} pairs: bastion {through:.0f} MB/s, plain jump {jumped:.0f} MB/s, "
            f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}); "
            f"load {os.getloadavg()[0]:.1f}"
        )
        with Good(stack, ours) as good:
            time.sleep(15)
        print(good.told("no flood"), flush=True)
        for source in ("127.0.0.2", "127.0.0.1"):
            with Good(stack, ours) as good:
                ended = flooded(port, source, seconds)
            print(good.told(f"{RATE} wrong keys/s for {seconds:g} s from {source}"))
            print(f"  {ended}")
        stack.api("DELETE", f"reservations/{made['id']}")


if __name__ == "__main__":
    main()
