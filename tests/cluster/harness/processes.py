"""The cluster's own processes: each has a name, a log file and a file with its process id.

They have no parent on purpose: a test may start a process that outlives the test, and process 1 reaps it.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from .layout import Layout
from .waiting import wait_for

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Processes:
    """Starts, signals and checks processes by name."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ids = layout.run / "pids"

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a process in its own session. Raises ``RuntimeError`` if one of this name already runs."""
        if self.runs(name):
            raise RuntimeError(f"{name} runs already, as process {self.pid(name)}")
        program = command[0] if "/" in command[0] else shutil.which(command[0], path=_PATH)
        if not program:
            raise FileNotFoundError(f"{command[0]}, which {name} is started with, is not in {_PATH}")
        self._ids.mkdir(parents=True, exist_ok=True)
        self._layout.logs.mkdir(parents=True, exist_ok=True)
        log = str(self._layout.logs / f"{name}.log")
        pid = os.posix_spawn(
            program,
            list(command),
            {"PATH": _PATH, "HOME": "/root", **(env or {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        )
        (self._ids / name).write_text(str(pid))

    def pid(self, name: str) -> int:
        """Return the pid in the cluster's namespace, even after the process ended.

        Raises ``FileNotFoundError`` if it was never started.
        """
        return int((self._ids / name).read_text())

    def runs(self, name: str) -> bool:
        """Return whether the process was started and has not ended. A suspended (SIGSTOP) process runs."""
        try:
            pid = self.pid(name)
        except FileNotFoundError:
            return False
        return _state(Path(f"/proc/{pid}/stat")) not in (None, "Z", "X")

    def stands_still(self, name: str) -> bool:
        """Return whether SIGSTOP has reached all threads of the process."""
        threads = Path(f"/proc/{self.pid(name)}/task").glob("*/stat")
        return all(_state(thread) in (None, "T") for thread in threads)

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process. Raises ``ProcessLookupError`` if it has ended."""
        if not self.runs(name):
            raise ProcessLookupError(f"{name} does not run: {self.last_words(name)}")
        os.kill(self.pid(name), number)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal and wait until the process is gone. Do nothing if it is already gone."""
        if self.runs(name):
            self.send(name, number)
            wait_for(f"{name} ends on {number.name}", lambda: not self.runs(name), pause=0.02)

    def last_words(self, name: str) -> str:
        """Return the end of the process's log."""
        log = self._layout.logs / f"{name}.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "it was never started"


def _state(stat: Path) -> str | None:
    """Return the state of a process or thread as the kernel's letter; ``None`` if it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
