"""Where the parts of a server put what they say: files that cannot fill a disk, or the container's log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

LIMIT = 1 << 20
"""Bytes per file; with the one before it that makes two."""


_LINE = 4000
"""Bytes of a line on a pipe: what the kernel takes whole (4096) less the name in front."""


class Sink(Protocol):
    """Takes what a part says, as it comes."""

    def write(self, data: bytes) -> None:
        """Append; never raises, never waits."""


class Lines:
    """Whole lines as ``NAME| line`` on a descriptor that is shared with other parts: a container's log.

    The descriptor should not block: a reader that hangs costs log lines, never the server.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self._prefix = f"{name}| ".encode()
        self._descriptor = descriptor
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Pass on the lines that are whole now; a line without end goes in pieces."""
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
    """A file and the one before it (``NAME.1``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Append; a full disk loses log lines, never the server."""
        try:
            if self._size + len(data) > LIMIT:
                os.close(self._file)
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                self._open()
            self._size += os.write(self._file, data[-LIMIT:])
        except OSError:
            pass


def tail(path: Path, lines: int) -> str:
    """The last ``lines`` lines; empty when there is no such log."""
    text = b""
    for name in (f"{path.name}.1", path.name):
        try:
            with path.with_name(name).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 400 * lines))
                text += file.read()
        except FileNotFoundError:
            continue
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])
