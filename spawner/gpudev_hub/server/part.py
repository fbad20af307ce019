"""One process of a server: how it is started, what it says, and when it is started again."""

from __future__ import annotations

import os
import subprocess
import time

from . import isolation
from .logs import Sink

RESTART_FIRST = 0.2
RESTART_MOST = 10.0
SETTLED = 30.0
"""A part that lived this many seconds is started again at once when it ends."""
_KEPT = 16384
"""Bytes of its output kept to say why it ended."""
_LAST_READS = 16
"""At most so many reads: something it started may go on writing into the same pipe."""
_SHOWN = 300
"""Characters of its last line that are shown."""


class Part:
    """A process of the server: its command, its log and, while it runs, its pid."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], cwd: str, log: Sink) -> None:
        self.name = name
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.log = log
        self.pid: int | None = None
        self.output: int | None = None
        """End of the pipe that its output, and that of whatever it starts, comes from."""
        self.started = 0.0
        self.delay = RESTART_FIRST
        self.due: float | None = None
        """When to start it again (monotonic)."""
        self._said = b""

    def start(self) -> int:
        """Start it; returns the end of the pipe its output comes from. Raises ``OSError``."""
        self.started = time.monotonic()
        output, write_end = os.pipe()
        try:
            process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.cwd,
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
        process.returncode = 0  # we reap it ourselves, with all the others
        self.pid = process.pid
        self.output = output
        self.due = None
        self._said = b""
        os.set_blocking(output, False)
        return output

    def take(self, data: bytes) -> None:
        """Log what it said."""
        self.log.write(data)
        self._said = (self._said + data)[-_KEPT:]

    def drain(self) -> None:
        """Log what is left in its pipe: the last words of a part that has ended."""
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
        """Note its end, and when it is to be started again."""
        self.pid = None
        now = time.monotonic()
        if now - self.started > SETTLED:
            self.delay = RESTART_FIRST
        self.due = now + self.delay
        self.delay = min(2 * self.delay, RESTART_MOST)

    def said(self) -> str:
        """The end of what it said."""
        return self._said.decode(errors="replace")

    def last_line(self) -> str:
        """The last line it printed that says something, fit to be shown; empty if there is none."""
        for line in reversed(self.said().splitlines()):
            text = "".join(letter for letter in line if letter.isprintable()).strip()
            if text:
                return text[:_SHOWN]
        return ""
