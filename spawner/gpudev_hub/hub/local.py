"""Servers as processes of this machine: the gate's answer becomes one launcher per rank."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, suppress
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

from .environments import ensure_environment
from .gated import Gated, NotStarted, listens

PORTS = range(20_000, 32_000)
"""Below the range that the kernel gives to outgoing connections, which would otherwise take them."""
LOOK = 0.05
"""Seconds between two looks whether a JupyterLab listens."""
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
    """Thin: whether and where is the gate's business, watching is the service's, ending is the launcher's."""

    local: ClassVar[Settings]

    @property
    def _servers(self) -> LocalServers:
        return LocalServers(self.local.servers)

    def _folder(self, rank: int = 0) -> Path:
        return self._servers.folder(self.name, self.attempt) / str(rank)

    async def start(self) -> str:
        """Ask the gate, then adopt what runs already or start one launcher per rank."""
        launch = await self.admitted()
        self.attempt = launch.attempt
        try:
            sight = self._servers.look(launch.id, launch.attempt)
            if sight.presence is Presence.PRESENT and sight.complete and self._adopt(sight):
                self.log.info("server %s of attempt %d already runs: adopted", launch.id, launch.attempt)
            else:
                if sight.presence is not Presence.ABSENT and not await self._servers.end(
                    launch.id, launch.attempt
                ):
                    raise NotStarted(f"the remaining processes of server {launch.id} cannot be ended")
                await self._launch(launch)
            await self.gate.started(launch.id, launch.attempt)
            await self._listening(launch)
        except (OSError, ValueError) as error:
            raise NotStarted(f"server {launch.id} could not be started: {error}") from error
        return f"http://{HOST}:{self.port}"

    async def _listening(self, launch: Launch) -> None:
        """Return once JupyterLab listens: the Hub looks with ever longer pauses, of seconds in the end."""
        while not await listens(HOST, self.port):
            if self._servers.look(launch.id, launch.attempt).jupyter is None:
                # Other ranks may run on: the Hub would not end them for a start that failed.
                await self._servers.end(launch.id, launch.attempt)
                raise NotStarted(f"server {launch.id} ended while it started")
            await asyncio.sleep(LOOK)

    def _adopt(self, sight: ServerSight) -> bool:
        """Take over a server that runs, with the port and the Hub token it was started with."""
        if sight.jupyter is None:
            return False
        try:
            spec = json.loads((self._folder() / record.PRIVATE / "spec.json").read_text())
            token = spec["env"]["JUPYTERHUB_API_TOKEN"]
        except (FileNotFoundError, KeyError, ValueError):
            return False  # it is about to end, or was started without a token, so JupyterLab lets nobody in
        self.ip, self.port = sight.jupyter
        self.api_token = token
        return True

    async def _launch(self, launch: Launch) -> None:
        ranks = len(launch.allocation)
        self.ip = HOST
        self.port, master_port, *sshd_ports = free_ports(2 + ranks)
        home = self.local.home_of(self.user.name)
        if not self.local.is_local(self.user.name):
            # Whatever lies in its place is the user's own; SSH works without a home.
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
        """Returns once the launcher's record is on disk; what went wrong, or nothing."""
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
            # In a virtual environment `user = true` in the user's pip.conf makes every `pip install` fail.
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
        """``None`` while the server runs and whenever that can't be told; never raises."""
        try:
            if not self.attempt:
                self._find()
            if not self.attempt:
                # The Hub calls ``stop`` only for what runs, and the stop of a start that was broken off
                # before the gate had answered is to be recorded, too.
                return None if self._stop_future is not None else 0
            sight = self._servers.look(self.name, self.attempt)
            if sight.presence is not Presence.ABSENT:
                # Also while only other ranks are left, or a launcher comes up: the Hub calls `stop`, which
                # ends them all, only for a server that runs.
                if sight.jupyter is not None and not self.api_token:
                    self._adopt(sight)
                return None
            found = record.read(self._folder())
        except (OSError, ValueError):
            self.log.exception("the state of server %s is unknown now", self._log_name)
            return None
        return found.exit.code if found is not None and found.exit is not None else 1

    async def answers(self) -> bool | None:
        """Whether JupyterLab listens; ``None``: it is gone."""
        try:
            sight = self._servers.look(self.name, self.attempt)
        except ValueError:
            return True  # nothing can be told: as for `look`
        except OSError:
            return False
        return None if sight.jupyter is None else await listens(*sight.jupyter)

    def _find(self) -> None:
        """A start that a crash of the Hub cut in two left no state, but the launcher's record."""
        for reservation, attempt in self._servers.attempts():
            if reservation == self.name:
                sight = self._servers.look(reservation, attempt)
                if sight.presence is Presence.PRESENT:
                    self.attempt = attempt

    async def get_url(self) -> str:
        """Where the server listens, by its own record; what the Hub was told if that can't be learnt."""
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
        # Asked even when a start was given up before it knew its attempt: the wish is to be recorded.
        if await self.may_stop() and self.attempt:
            await self._servers.end(self.name, self.attempt)

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """The spawn page's bar: there is one step, and it takes a second or two."""
        yield {"progress": 30, "message": "Starting JupyterLab and sshd …"}


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What servers get of the environment that the hub was started in, and a locale in any case."""
    passed_on = {
        name: value
        for name, value in environment.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES) or name.lower() in _PROXIES
    }
    if not any(passed_on.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")):
        passed_on["LANG"] = "C.UTF-8"
    return passed_on


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. Held open together, so that they differ."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(PORTS, len(PORTS)):
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind((HOST, port))
            except OSError:
                candidate.close()
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"fewer than {count} ports of {HOST} between {PORTS.start} and {PORTS.stop} are free")
