"""Lock files, each of which contains the pid of its holder."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Held(Exception):
    """Another process holds the lock."""

    def __init__(self, holder: str) -> None:
        """``holder`` is the pid of that process, or empty if it is not known."""
        super().__init__(f"process {holder or '?'} holds it")
        self.holder = holder


def take_lock(path: Path) -> int:
    """Create and lock a file, and write the pid of this process into it; return its descriptor.

    Closing the descriptor releases the lock. Raises ``Held`` or ``OSError``.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 64).decode(errors="replace").strip()
        os.close(lock)
        raise Held(holder) from error
    with suppress(OSError):  # disk full: the lock holds without the pid, which only helps users
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
