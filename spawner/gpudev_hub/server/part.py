"""A part of a server: one process, its output, and its restarts."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

from . import isolation
from .logs import Sink, printable

RESTART_FIRST = 0.2
RESTART_MOST = 10.0
SETTLED = 30.0
"""A part that ran for this many seconds is restarted at once."""
_KEPT = 16384
"""Bytes of output kept, to explain why a part ended."""
_LAST_READS = 16
"""Maximum reads after a part ended, because a child process may still write to the same pipe."""
_SHOWN = 300
"""Maximum characters shown of the last line of output."""


def or_root(folder: str) -> str:
    """Return ``folder``, or ``/`` if it cannot be entered: users must get in even if their home is gone."""
    return folder if os.access(f"{folder}/.", os.X_OK) else "/"


@dataclass(slots=True, eq=False)
class Part:
    """A process of the server: its command, its log, and its pid while it runs."""

    name: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: Sink
    pid: int | None = None
    output: int | None = None
    """Read end of the pipe for the output of the process and of its children."""
    started: float = 0.0
    delay: float = RESTART_FIRST
    due: float | None = None
    """When to restart the process (monotonic)."""
    _said: bytes = b""

    def start(self) -> int:
        """Start the process. Returns the read end of its output pipe. Raises ``OSError``."""
        self.started = time.monotonic()
        output, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=or_root(self.cwd),
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                preexec_fn=isolation.die_with_parent,
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(write_end)
        process.returncode = 0  # the launcher reaps all children itself
        self.pid = process.pid
        self.output = output
        self.due = None
        self._said = b""
        os.set_blocking(output, False)
        return output

    def take(self, data: bytes) -> None:
        self.log.write(data)
        self._said = (self._said + data)[-_KEPT:]

    def drain(self) -> None:
        """Log the output left in the pipe of a process that has ended."""
        output = self.output
        if output is None:
            return
        for _ in range(_LAST_READS):
            try:
                data = os.read(output, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self.take(data)
        if self._said and not self._said.endswith(b"\n"):
            self.log.write(b"\n")

    def ended(self) -> None:
        self.pid = None
        now = time.monotonic()
        if now - self.started > SETTLED:
            self.delay = RESTART_FIRST
        self.due = now + self.delay
        self.delay = min(2 * self.delay, RESTART_MOST)

    def said(self) -> str:
        return self._said.decode(errors="replace")

    def last_line(self) -> str:
        """Return the last non-empty line of its output, without control characters; or an empty string."""
        for line in reversed(self.said().splitlines()):
            if text := printable(line):
                return text[:_SHOWN]
        return ""
