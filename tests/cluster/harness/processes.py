"""The cluster's own processes: each has a name, a log file and a file with its process id.

They are nobody's children on purpose: a test may start one that outlives it, and process 1 reaps it then.
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
    """Started, signalled and looked after by name."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ids = layout.run / "pids"

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start it in a session of its own; RuntimeError when one of this name runs already."""
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
        """Its process id in the cluster's namespace, alive or dead; FileNotFoundError if never started."""
        return int((self._ids / name).read_text())

    def runs(self, name: str) -> bool:
        """Whether it was started and has not ended; a stopped (SIGSTOP) process runs."""
        try:
            pid = self.pid(name)
        except FileNotFoundError:
            return False
        return _state(Path(f"/proc/{pid}/stat")) not in (None, "Z", "X")

    def stands_still(self, name: str) -> bool:
        """Whether SIGSTOP has reached all of its threads."""
        threads = Path(f"/proc/{self.pid(name)}/task").glob("*/stat")
        return all(_state(thread) in (None, "T") for thread in threads)

    def send(self, name: str, number: signal.Signals) -> None:
        """Send it a signal; ProcessLookupError when it has ended."""
        if not self.runs(name):
            raise ProcessLookupError(f"{name} does not run: {self.last_words(name)}")
        os.kill(self.pid(name), number)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal it and wait until it is gone; nothing when it is gone already."""
        if self.runs(name):
            self.send(name, number)
            wait_for(f"{name} ends on {number.name}", lambda: not self.runs(name), pause=0.02)

    def last_words(self, name: str) -> str:
        """The end of its log."""
        log = self._layout.logs / f"{name}.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "it was never started"


def _state(stat: Path) -> str | None:
    """Of a process or a thread, by the kernel's letter; ``None`` if there is no such any more."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
