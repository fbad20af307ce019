"""Terminals of users in tests."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time

from ssh_world import World


class Terminal:
    """A real terminal with ``ssh`` in it."""

    def __init__(self, world: World, *arguments: str) -> None:
        argv = ["ssh", "-F", str(world.config), *arguments]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # ssh may run gpu-dev, which must not use the home of the account.
            environment = {"PATH": os.environ["PATH"], "HOME": str(world.home), "TERM": "xterm"}
            os.execvpe("ssh", argv, environment)
        self.text = ""

    def read_until(self, wanted: str, timeout: float = 30) -> str:
        """Wait until the output matches the pattern ``wanted``; return all output so far."""
        deadline = time.monotonic() + timeout
        while not re.search(wanted, self.text):
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted!r} in {self.text!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    data = b""
                assert data, f"ended without {wanted!r}: {self.text!r}"
                self.text += data.decode(errors="replace")
        return self.text

    def type(self, line: str) -> None:
        os.write(self.fd, f"{line}\n".encode())

    def close(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.fd)
