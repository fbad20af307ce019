"""Server containers without a kubelet, by ``unshare``: same first process, account, folders and limits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gpudev_hub.core.model import Presence
from gpudev_hub.core.ports import ServerSight
from hub_users import free_port
from ssh_world import World, eventually

ROOT = Path(__file__).resolve().parent.parent.parent
UID = 1000
PYTHON = "/opt/gpudev/bin/python"
NAMESPACES = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private")
PATH = "/usr/local/bin:/usr/bin:/bin"

# Answers as Jupyter does, writes down the environment it has, and ends as it is told to in the home.
JUPYTER = """
import http.server, json, os, pathlib, signal, sys, threading, time
port, home = int(sys.argv[1]), pathlib.Path.home()
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
(home / "jupyter-env").write_text(json.dumps(dict(os.environ)))
server = http.server.ThreadingHTTPServer(("", port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("Jupyter's stand-in serves", flush=True)
while not (home / "exit-code").exists():
    time.sleep(0.05)
code = (home / "exit-code").read_text()
(home / "exit-code").unlink()
if code == "asked":
    print("Shutting down on /api/shutdown request.", flush=True)
    os._exit(0)
print("the last words of Jupyter", flush=True)
code = int(code)
os.kill(os.getpid(), -code) if code < 0 else os._exit(code)
"""


def unusable() -> str:
    """Return why containers cannot run here; empty if they can."""
    if os.getuid() != 0:
        return "containers are made by root"
    done = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else ""


def peers_of(id: str, ranks: int) -> list[dict[str, Any]]:
    """Return the ranks as the cluster's DNS names them. Ports differ, since ranks share addresses here."""
    if ranks == 1:
        return [{"host": "127.0.0.1", "port": free_port()}]
    names = [id, *(f"{id}-{rank}" for rank in range(1, ranks))]
    return [{"host": f"{name}.{id}.gpudev-servers.svc.cluster.local", "port": free_port()} for name in names]


class Pod:
    """The container of one rank. Nothing runs before ``start``; tests may change ``files`` until then."""

    def __init__(
        self,
        world: World,
        id: str,
        launch: dict[str, Any],
        rank: int,
        peers: list[dict[str, Any]],
        home: Path,
    ) -> None:
        self.rank = rank
        self.home = home
        self.port = int(peers[rank]["port"])
        self.jupyter_port = free_port()
        self.hostname = id if rank == 0 else f"{id}-{rank}"
        # pytest's folders are root's alone, and OpenSSH's paths short.
        self.files = Path(tempfile.mkdtemp(prefix="gpudev-pod-"))
        (self.files / "root").mkdir()
        (self.files / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\ndev:x:{UID}:{UID}::/home/dev:/bin/bash\n"
        )
        (self.files / "group").write_text(f"root:x:0:\ntty:x:5:\ndev:x:{UID}:\n")
        hosts = " ".join(["localhost", *(peer["host"] for peer in peers)])
        (self.files / "hosts").write_text(f"127.0.0.1 {hosts}\n")
        (self.files / "termination-log").touch()
        (self.files / "termination-log").chmod(0o666)
        self.env = {
            "PATH": PATH,
            "GPUDEV_NODE": f"node-{rank + 1}",
            "NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-1",
            "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
            "TRICKY": 'it\'s "a b"; $(false) `x` \\',
        }
        self.spec: dict[str, Any] = {
            "launch": launch,
            "peers": peers,
            "jupyter": [PYTHON, "-c", JUPYTER, str(self.jupyter_port)],
            "jupyter_port": self.jupyter_port,
            "sshd_port": self.port,
            "env": {
                "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{self.jupyter_port}/user/me/{id}/",
                "GPUDEV_RESERVATION": id,
                "NNODES": str(len(peers)),
                "MASTER_ADDR": peers[0]["host"],
                "MASTER_PORT": "29500",
            },
            "grace": 30,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the container; do not wait for it."""
        if not (self.files / "spec.json").exists():
            self.write_spec(json.dumps(self.spec))
        (self.files / "env").write_text("\n".join(f"{name}={value}" for name, value in self.env.items()))
        command = [PYTHON, "-I", "-m", "gpudev_hub.server.pod", "/etc/gpudev/spec.json", str(self.rank)]
        script = [str(ROOT / "tests/support/container"), str(self.files / "root"), str(self.files), str(ROOT)]
        with (self.files / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*NAMESPACES, *script, str(self.home), self.hostname, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def write_spec(self, text: str, mode: int = 0o440) -> None:
        """Write the specification like a Secret's volume: owned by root, readable for the pod's group."""
        path = self.files / "spec.json"
        path.write_text(text)
        os.chown(path, 0, UID)
        path.chmod(mode)

    def log(self) -> str:
        """Return the container's output."""
        return (self.files / "log").read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until the output has this text."""
        eventually(lambda: text in self.log() or self.over())
        assert text in self.log(), self.log()

    def over(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def first(self) -> int:
        """Return the pid of the first process, as this machine counts."""
        (pid,) = self._children()
        return pid

    def _children(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def terminate(self) -> None:
        """Send SIGTERM, like a kubelet that ends a container."""
        os.kill(self.first(), signal.SIGTERM)

    def ended(self, timeout: float = 20) -> tuple[int, dict[str, Any]]:
        """Wait for the end; return the exit status and the termination log."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs still: {self.log()}") from None
        text = (self.files / "termination-log").read_text()
        assert text, self.log()
        return code, json.loads(text)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # All of it ends with its first process, which would outlive its parent: the kernel forgets the
            # signal of --kill-child when the account changes.
            for pid in self._children() or [self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()


class Pods:
    """The containers of one account, with one ``World``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.all: list[Pod] = []
        self._homes: list[Path] = []

    def home(self) -> Path:
        """Return an empty home volume."""
        home = Path(tempfile.mkdtemp(prefix="gpudev-home-"))
        os.chown(home, UID, UID)
        self._homes.append(home)
        return home

    def make(
        self, id: str, *, name: str | None = None, ranks: int = 1, home: Path | None = None
    ) -> list[Pod]:
        """Make the containers of a new reservation, not started, and update the user's ``~/.ssh``."""
        record = self.world.reserve(id, gpus=8 if ranks > 1 else 2, nodes=ranks, name=name)
        launch = msgspec.json.decode(msgspec.json.encode(asyncio.run(self.world.launches.make(record))))
        peers = peers_of(id, ranks)
        home = home or self.home()
        pods = [Pod(self.world, id, launch, rank, peers, home) for rank in range(ranks)]
        self.all += pods
        addresses = {rank: ("127.0.0.1", pod.port) for rank, pod in enumerate(pods)}
        self.world.live.sights[id] = ServerSight(id, 1, Presence.PRESENT, sshd=addresses)
        self.world.sync()
        return pods

    def up(self, id: str, **more: Any) -> list[Pod]:
        """Make and start the containers of a new reservation, and wait until all parts answer."""
        pods = self.make(id, **more)
        for pod in pods:
            pod.start()
        for pod in pods:
            pod.says("sshd| Server listening")
        pods[0].says("jupyter| Jupyter's stand-in serves")
        return pods

    def close(self) -> None:
        for pod in self.all:
            pod.kill()
        for folder in (*(pod.files for pod in self.all), *self._homes):
            subprocess.run(["rm", "-rf", str(folder)], check=True)


def within(seconds: float, what: Callable[[], Any]) -> Any:
    """Return the result of ``what``, or fail after this time."""
    started = time.monotonic()
    result = what()
    took = time.monotonic() - started
    assert took < seconds, f"it took {took:.1f} s, not {seconds} s"
    return result
