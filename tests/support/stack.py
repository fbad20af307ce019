"""A whole hub for tests: ``gpudev-hub`` as users start it, on a free port and in a separate folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpudev_hub.local_bastion import PROGRAM
from gpudev_hub.server import processes
from gpudev_hub.settings import CHECKOUT, Settings
from hub_users import SLOW, HubUsers, free_port, wait_for

COMMANDS = {
    "proxy": "configurable-http-proxy",
    "hub": "jupyterhub_config.py",
    "service": "gpudev_hub.app\0service",
    "bastion": "bash\0" + str(PROGRAM),
}


ELSEWHERE = """
import sys
from pathlib import Path
from gpudev_hub import app, supervisor
supervisor.CHECKOUT = Path(sys.argv[1])
del sys.argv[1:]
app.main()
"""
"""Runs ``gpudev-hub`` with the Hub configuration below another folder."""


class Stack(HubUsers):
    """A hub with one state folder. A test can start and stop it repeatedly."""

    def __init__(self, folder: Path, pool: str = "2x8", environment: Mapping[str, str] | None = None) -> None:
        """Prepare a hub. ``folder`` also has the local user's home and settings; keep its path short."""
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.config = folder / "config.json"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("GPUDEV", "JUPYTER"))
        }
        self.environment = inherited | {
            "HOME": str(self.home),
            "GPUDEV_PORT": str(self.port),
            "GPUDEV_STATE": str(folder / "state"),
            "GPUDEV_POOL": pool,
            "GPUDEV_CONFIG": str(self.config),
            **(environment or {}),
        }
        self.settings = Settings.read(self.environment)
        super().__init__(folder, self.settings.url, self.settings.user)
        self.site = ""
        """Lines that the next start adds to the Hub's configuration."""
        self._process: subprocess.Popen[str] | None = None
        self._output = folder / "output"

    # Start and stop

    def start(self, *wrapper: str, timeout: float = SLOW) -> None:
        """Start the hub and wait until it prints that it is ready."""
        self.launch(*wrapper)
        try:
            wait_for("gpudev ready", self._ready_or_dead, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said: {self.output()}; {self.said()}") from None
        assert self.running, f"gpudev-hub ended: {self.output()}"

    def launch(self, *wrapper: str) -> None:
        """Start the hub and return at once. ``wrapper`` is a command that runs it with ``exec``."""
        command = [str(Path(sys.executable).parent / "gpudev-hub")]
        if self.site:
            config = self.folder / "hub-config" / "jupyterhub_config.py"
            config.parent.mkdir(exist_ok=True)
            config.write_text((CHECKOUT / "hub-config" / config.name).read_text() + self.site)
            command = [sys.executable, "-c", ELSEWHERE, str(self.folder)]
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [*wrapper, *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                # Tests that run under nohup ignore it, and so would what they start.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    def _ready_or_dead(self) -> bool:
        return "gpudev ready: " in self.output() or not self.running

    def output(self) -> str:
        """Return the output since the last start."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def running(self) -> bool:
        """Return whether the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the pid of the supervisor."""
        assert self._process is not None
        return self._process.pid

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop the hub with Ctrl-C or another signal; return the exit code."""
        assert self._process is not None
        if self.running:
            self._process.send_signal(number)
        return self._process.wait(SLOW)

    def close(self) -> None:
        """End all remaining processes, even after a failed test."""
        if self.running:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                assert self._process is not None
                self._process.kill()
                self._process.wait()
        left = set(self.server_processes())
        while left:
            processes.send(left, signal.SIGKILL)
            left = {pid for pid in left if processes.start_time(pid) is not None}

    # Parts

    def part(self, name: str) -> int:
        """Return the pid of ``proxy``, ``hub`` or ``service``. Fail if the part does not start in time."""
        return wait_for(f"a {name}", lambda: self.find(name))

    def find(self, name: str) -> int | None:
        """Return the pid of a part, or ``None`` while it does not run."""
        for child in processes.descendants(self.pid):
            try:
                command = Path(f"/proc/{child}/cmdline").read_text()
            except OSError:
                continue
            if COMMANDS[name] in command and processes.parent(child) == self.pid:
                return child
        return None

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a part or the ``supervisor``, and wait until the process is gone."""
        pid = self.pid if name == "supervisor" else self.part(name)
        os.kill(pid, number)
        if name == "supervisor":
            assert self._process is not None
            self._process.wait()
        else:
            wait_for(f"the end of the {name}", lambda: processes.start_time(pid) is None)

    def log(self, name: str) -> str:
        """Return the log of a part."""
        path = self.settings.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # Users

    def password(self, user: str) -> str:
        """Return the password that the hub prints when it starts."""
        pattern = "log in as .* password (.*)" if user == self.user else "demo user .* password (.*)"
        found = re.search(pattern, self.output())
        assert found is not None, self.output()
        return found[1]

    def token_for(self, user: str | None = None) -> str:
        """Return a Hub token: from the configuration for the local user, a new token for a demo user."""
        if user is None or user == self.user:
            return str(json.loads(self.config.read_text())["token"])
        return super().token_for(user)

    # Servers

    def server_processes(self, id: str | None = None) -> dict[int, str]:
        """Return the processes of all servers or of one server, by pid, with their markers."""
        if id is not None:
            return processes.marked(id)
        folder = self.settings.servers
        names = [entry.name.rpartition("-")[0] for entry in folder.iterdir()] if folder.exists() else []
        return {pid: marker for name in names for pid, marker in processes.marked(name).items()}

    def launcher(self, id: str, rank: int = 0) -> int:
        """Return the pid of a rank's launcher."""
        return int(self.record(id, rank)["pid"])

    def record(self, id: str, rank: int = 0) -> dict[str, Any]:
        """Return the record of a rank's launcher in the latest attempt. Raises ``FileNotFoundError``."""
        newest = max(
            self.settings.servers.glob(f"{id}-*"), key=lambda path: int(path.name.rpartition("-")[2])
        )
        found: dict[str, Any] = json.loads((newest / str(rank) / "record.json").read_text())
        return found


@contextmanager
def running_stack(
    folder: Path, pool: str = "2x8", environment: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Run a hub that is ready, and end it afterwards."""
    stack = Stack(folder, pool, environment)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()
