"""How many commits were made, kept beside a store that can't tell by itself when it has lost the last ones.

SQLite reads its log up to the first damaged page and takes what follows for never written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_WIDTH: Final = 20


class CommitCount:
    """A number in a file of its own. Written after each commit and not synced: it may lag, never lead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def read(self) -> int:
        """The number; 0 where there is none that can be read."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return 0

    def write(self, n: int) -> None:
        """Keep the number. Where that fails, the store works on without."""
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
