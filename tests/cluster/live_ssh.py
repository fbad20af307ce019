"""An SSH session that stays open while a test does something else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hub_users import SLOW, wait_for
from people import Person

_ECHO: Final = "while read -r word; do echo got $word; done"


class LiveSession:
    """A program on the server that repeats each word it reads."""

    def __init__(self, owner: Person, host: str) -> None:
        self._process = subprocess.Popen(
            owner.ssh_argv(host, _ECHO),
            env=owner.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def runs(self) -> bool:
        """Return whether ``ssh`` runs. It ends with its connection."""
        return self._process.poll() is None

    def answers(self) -> bool:
        """Return whether the program answers through this connection."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        word = str(time.monotonic_ns())
        try:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return False
        return self._process.stdout.readline() == f"got {word}\n"

    def wait_for_end(self) -> str:
        """Wait until the connection has ended; return the output of ``ssh``."""
        wait_for("the end of the connection", lambda: not self.runs, SLOW)
        return self._process.communicate()[1]

    def close(self) -> None:
        """End the session."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def live_session(owner: Person, host: str) -> Iterator[LiveSession]:
    """Open a session that answers, and end it afterwards."""
    session = LiveSession(owner, host)
    try:
        assert session.answers()
        yield session
    finally:
        session.close()
