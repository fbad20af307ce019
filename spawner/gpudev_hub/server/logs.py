"""Writes the logs of the parts of a server: to files of limited size, or to the log of the container."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Protocol

LIMIT = 1 << 20
"""Maximum bytes per file. A log has at most two files: the current one and the one before it."""
_LINE = 4000
"""Maximum bytes of a line on a pipe: what the kernel writes atomically (4096) less the prefix."""


class Sink(Protocol):
    """Receives the output of a part."""

    def write(self, data: bytes) -> None:
        """Append data. Never raises and never blocks."""


class Lines:
    """Writes whole lines as ``NAME| line`` to a descriptor that parts share: the log of a container.

    The descriptor should not block: if its reader hangs, log lines are lost but the server keeps running.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self._prefix = f"{name}| ".encode()
        self._descriptor = descriptor
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Write all complete lines. Very long lines are split."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LINE:
            lines.append(rest[:_LINE])
            rest = rest[_LINE:]
        self._rest = rest
        for line in lines:
            for start in range(0, max(1, len(line)), _LINE):
                piece = line[start : start + _LINE].rstrip(b"\r")
                try:
                    os.write(self._descriptor, self._prefix + piece + b"\n")
                except OSError:
                    return


class Log:
    """A log file of limited size. The file before it is ``NAME.1``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()
        self._size = os.fstat(self._file).st_size

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append data. On a full disk, log lines are lost but the server keeps running."""
        with contextlib.suppress(OSError):
            if self._size + len(data) > LIMIT:
                self._rotate()
            self._size += os.write(self._file, data[-LIMIT:])

    def _rotate(self) -> None:
        """Continue in a new file. If none can be created, empty the current file and continue there.

        The current file is closed only after the new one is open. Otherwise its descriptor could soon belong
        to another file, and a write or a second close would damage that file.
        """
        self._size = 0
        try:
            with contextlib.suppress(FileNotFoundError):
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            fresh = self._open()
        except OSError:
            os.ftruncate(self._file, 0)
            return
        os.close(self._file)
        self._file = fresh


def tail(path: Path, lines: int) -> str:
    """Return the last ``lines`` lines; empty if the log does not exist or cannot be read.

    The user of a server can replace its logs with anything. So links are not followed, and a named pipe does
    not block the caller.
    """
    text = b""
    for name in (f"{path.name}.1", path.name):
        with contextlib.suppress(OSError):
            text += _end(path.with_name(name), 400 * lines)
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])


def _end(path: Path, size: int) -> bytes:
    """Return the last ``size`` bytes of a regular file; empty for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        start = max(0, about.st_size - size)
        return os.pread(descriptor, about.st_size - start, start) if stat.S_ISREG(about.st_mode) else b""
    finally:
        os.close(descriptor)


def printable(line: str) -> str:
    """Return a line without control characters, and without spaces around it."""
    return "".join(letter for letter in line if letter.isprintable()).strip()
