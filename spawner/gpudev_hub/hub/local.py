"""Servers as processes of this machine, with one launcher per rank."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import ClassVar

import msgspec
from jupyterhub.spawner import Spawner

from gpudev_hub.cluster.servers import GRACE, HOST, LocalServers
from gpudev_hub.core.gate import Launch
from gpudev_hub.core.model import Presence
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.server import record
from gpudev_hub.server.private import write
from gpudev_hub.settings import Settings
from gpudev_hub.state import hold_port, listens

from .environments import ensure_environment
from .gated import Gated, NotStarted

PORTS = range(20_000, 32_000)
"""Below the kernel's range for outgoing connections, which could otherwise use these ports."""
LOOK = 0.05
"""Seconds between two checks whether JupyterLab listens."""
_PASSED_ON = (
    "CUDA_HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
)
_PASSED_ON_PREFIXES = ("LC_", "NCCL_", "PIP_", "UV_")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalGpuSpawner(Gated, Spawner):
    """Starts and ends launchers. The gate decides, the service watches, and launchers end processes."""

    local: ClassVar[Settings]

    @property
    def _servers(self) -> LocalServers:
        return LocalServers(self.local.servers)

    def _folder(self, rank: int = 0) -> Path:
        return self._servers.folder(self.name, self.attempt) / str(rank)

    async def start(self) -> str:
        """Ask the gate, then adopt a running server or start one launcher per rank."""
        launch = await self.admitted()
        self.attempt = launch.attempt
        held = ExitStack()
        try:
            sight = self._servers.look(launch.id, launch.attempt)
            if sight.presence is Presence.PRESENT and sight.complete and self._adopt(sight):
                self.log.info("server %s of attempt %d already runs: adopted", launch.id, launch.attempt)
            else:
                if sight.presence is not Presence.ABSENT and not await self._servers.end(
                    launch.id, launch.attempt
                ):
                    raise NotStarted(f"the remaining processes of server {launch.id} cannot be ended")
                await self._launch(launch, held)
            await self.gate.started(launch.id, launch.attempt)
            await self._listening(launch)
        except (OSError, ValueError) as error:
            raise NotStarted(f"server {launch.id} could not be started: {error}") from error
        finally:
            held.close()
        return f"http://{HOST}:{self.port}"

    async def _listening(self, launch: Launch) -> None:
        """Return once JupyterLab listens. The Hub itself would check with pauses of up to seconds."""
        while not await listens(HOST, self.port):
            if self._servers.look(launch.id, launch.attempt).jupyter is None:
                # Other ranks may still run: the Hub does not end them after a failed start.
                await self._servers.end(launch.id, launch.attempt)
                raise NotStarted(f"server {launch.id} ended while it started")
            await asyncio.sleep(LOOK)

    def _adopt(self, sight: ServerSight) -> bool:
        """Adopt a running server, with the port and the Hub token that it was started with."""
        if sight.jupyter is None:
            return False
        try:
            spec = json.loads((self._folder() / record.PRIVATE / "spec.json").read_text())
            token = spec["env"]["JUPYTERHUB_API_TOKEN"]
        except (FileNotFoundError, KeyError, ValueError):
            return False  # it is ending, or was started without a token, so JupyterLab lets nobody in
        self.ip, self.port = sight.jupyter
        self.api_token = token
        return True

    async def _launch(self, launch: Launch, held: ExitStack) -> None:
        ranks = len(launch.allocation)
        self.ip = HOST
        self.port, master_port, *sshd_ports = free_ports(2 + ranks, held)
        home = self.local.home_of(self.user.name)
        if not self.local.is_local(self.user.name):
            # A file in its place belongs to the user; SSH works without a home.
            with suppress(FileExistsError):
                home.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = self.local.environment_of(self.user.name)
        ensure_environment(environment, self.local.server_python)
        common = self._environment(launch, home, environment) | {"MASTER_PORT": str(master_port)}
        spec = {
            "launch": msgspec.to_builtins(launch),
            "peers": [{"host": HOST, "port": port} for port in sshd_ports],
            "jupyter_port": self.port,
            "home": str(home),
            "passwd_home": os.geteuid() == 0 and not self.local.is_local(self.user.name),
            "grace": GRACE,
        }
        for rank, place in enumerate(launch.allocation):
            folder = self._folder(rank)
            private = folder / record.PRIVATE
            shutil.rmtree(private, ignore_errors=True)
            (folder / "record.json").unlink(missing_ok=True)
            private.mkdir(mode=0o700, parents=True)
            env = common | {
                "CUDA_VISIBLE_DEVICES": ",".join(map(str, place.slots)),
                "GPUDEV_NODE": place.node,
                "NODE_RANK": str(rank),
                "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
                record.MARKER: record.marker(launch.id, launch.attempt, rank),
            }
            own = {
                "rank": rank,
                "sshd_port": sshd_ports[rank],
                "jupyter": [*self.cmd, *self.get_args()] if rank == 0 else None,
                "env": env,
            }
            write(private / "spec.json", json.dumps(spec | own))
        complaints = await asyncio.gather(
            *(self._start_launcher(self._folder(rank), launch, rank) for rank in range(ranks))
        )
        if any(complaints):
            await self._servers.end(launch.id, launch.attempt)
            raise NotStarted(
                f"server {launch.id} could not be started: {'; '.join(filter(None, complaints))}"
            )

    async def _start_launcher(self, folder: Path, launch: Launch, rank: int) -> str:
        """Return what failed once the launcher's record is on disk; empty if nothing did."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "gpudev_hub.server.launcher",
            str(folder),
            env={"PATH": _SYSTEM_PATH, record.MARKER: record.marker(launch.id, launch.attempt, rank)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        _, said = await process.communicate()
        return "" if process.returncode == 0 else said.decode(errors="replace").strip()[-500:]

    def _environment(self, launch: Launch, home: Path, environment: Path) -> dict[str, str]:
        env = inherited(os.environ)
        env.update({name: value for name, value in self.get_env().items() if value})
        base = self.local.server_python.parent
        system = os.environ.get("PATH", _SYSTEM_PATH).split(":")
        hidden = {str(Path(sys.executable).parent)}
        path = [str(environment / "bin"), str(base), *(entry for entry in system if entry not in hidden)]
        account = self.local.account_shell()
        env.update(
            HOME=str(home),
            USER=account[0],
            LOGNAME=account[0],
            SHELL=account[1],
            PATH=":".join(path),
            VIRTUAL_ENV=str(environment),
            JUPYTER_PATH=str(environment / "share" / "jupyter"),
            # With `user = true` in the user's pip.conf, pip fails in a virtual environment.
            PIP_USER="0",
            CUDA_DEVICE_ORDER="PCI_BUS_ID",
            NNODES=str(len(launch.allocation)),
            MASTER_ADDR=HOST,
            GPUDEV_RESERVATION=launch.id,
            GPUDEV_URL=self.local.url,
            # The hub that the server's token belongs to, wherever its user points GPUDEV_URL.
            JUPYTERHUB_PUBLIC_HUB_URL=f"{self.local.url}/hub/",
        )
        return env

    async def look(self) -> int | None:
        try:
            if not self.attempt:
                self._find()
            if not self.attempt:
                # The Hub calls ``stop`` only for running servers. The service must also record the stop of a
                # start that was interrupted before the gate had answered.
                return None if self._stop_future is not None else 0
            sight = self._servers.look(self.name, self.attempt)
            if sight.presence is not Presence.ABSENT:
                # Also while only other ranks are left, or a launcher starts: the Hub calls `stop` only for a
                # server that runs.
                if sight.jupyter is not None and not self.api_token:
                    self._adopt(sight)
                return None
            found = record.read(self._folder())
        except (OSError, ValueError):
            self.log.exception("the state of server %s is unknown now", self._log_name)
            return None
        return found.exit.code if found is not None and found.exit is not None else 1

    async def answers(self) -> bool | None:
        try:
            sight = self._servers.look(self.name, self.attempt)
        except ValueError:
            return True  # unknown, as for `look`
        except OSError:
            return False
        return None if sight.jupyter is None else await listens(*sight.jupyter)

    def _find(self) -> None:
        """Find the attempt of a start that a crash of the Hub interrupted, by its launcher's record."""
        for reservation, attempt in self._servers.attempts():
            if reservation == self.name:
                sight = self._servers.look(reservation, attempt)
                if sight.presence is Presence.PRESENT:
                    self.attempt = attempt

    async def get_url(self) -> str:
        """Return the address in the server's record; if it cannot be read, the address that the Hub knows."""
        told = str(self.server.url)
        try:
            sight = self._servers.look(self.name, self.attempt)
        except (OSError, ValueError):
            return told
        if sight.jupyter is None:
            return told
        host, port = sight.jupyter
        return f"http://{host}:{port}{self.server.base_url}"

    async def stop(self, now: bool = False) -> None:  # noqa: ARG002 (the launcher has its own grace)
        # Ask also if a start was interrupted before it knew its attempt: the service records the stop.
        if await self.may_stop() and self.attempt:
            await self._servers.end(self.name, self.attempt)

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Yield the only step for the spawn page's progress bar; it takes one or two seconds."""
        yield {"progress": 30, "message": "Starting JupyterLab and sshd …"}


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the hub's environment that servers get, always with a locale."""
    passed_on = {
        name: value
        for name, value in environment.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES) or name.lower() in _PROXIES
    }
    if not any(passed_on.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")):
        passed_on["LANG"] = "C.UTF-8"
    return passed_on


def free_ports(count: int, held: ExitStack) -> list[int]:
    """Return different ports that are free, and hold them for the server until ``held`` is closed."""
    free = (port for port in random.sample(PORTS, len(PORTS)) if hold_port(port, held))
    found = list(islice(free, count))
    if len(found) < count:
        raise OSError(f"fewer than {count} ports of {HOST} between {PORTS.start} and {PORTS.stop} are free")
    return found
