"""The number of commits, in a file next to a store that cannot notice by itself that it lost the last ones.

SQLite reads its log up to the first damaged page, and ignores everything after it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_WIDTH: Final = 20


class CommitCount:
    """A number in a file. Written after each commit and not synced: it may be too low, never too high."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def read(self) -> int:
        """Return the number; 0 if the file cannot be read."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return 0

    def write(self, n: int) -> None:
        """Write the number. If that fails, the store continues without it."""
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._file, f"{n:<{_WIDTH}}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the store itself says so

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
