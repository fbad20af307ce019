"""Locks on files that name the process which holds them."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Held(Exception):
    """Another process holds the lock."""

    def __init__(self, holder: str) -> None:
        """``holder``: its process number, if it is known."""
        super().__init__(f"process {holder or '?'} holds it")
        self.holder = holder


def take_lock(path: Path) -> int:
    """Make and lock a file, and write our process number into it; return its descriptor.

    Closing the descriptor releases the lock. Raises ``Held`` or ``OSError``.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 64).decode(errors="replace").strip()
        os.close(lock)
        raise Held(holder) from error
    with suppress(OSError):  # a full disk: the number helps users, the lock holds without it
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
