"""Copies the folder with examples into each home, once.

An empty file below ``~/.local/share/gpudev`` records that the home got the folder. A home does not get it
again, even if the user deletes or changes it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDER = "gpu-dev-examples"
"""Name of the folder, in the home and next to this module."""
MARK = Path(".local/share/gpudev/.examples-given")
"""Path, below the home, of the file that records the copy. Packages of images have folders next to it."""


def give(home: Path) -> None:
    """Copy the examples into ``home`` if it never had them.

    Servers that share the home may call this at the same time. An existing file or folder with the same name
    is not changed. Raises ``OSError`` if the home cannot be written; the next server tries again.
    """
    mark, target = home / MARK, home / FOLDER
    mark.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Record the copy first. Otherwise a second server could restore examples that the user just deleted.
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    try:
        if not os.path.lexists(target):
            _copy(target)
    except OSError:
        mark.unlink(missing_ok=True)
        raise


def _copy(target: Path) -> None:
    """Create the folder under a temporary name, then rename it, so that nobody sees an incomplete folder."""
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", dir=target.parent) as temporary:
        copy = Path(temporary) / FOLDER
        copy.mkdir()
        for file in Path(__file__).with_name(FOLDER).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        copy.rename(target)
