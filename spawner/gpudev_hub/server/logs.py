"""Log files that cannot fill a disk."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT = 1 << 20
"""Bytes per file; with the one before it that makes two."""


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
