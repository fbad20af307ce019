"""The folder with examples that each home gets once.

A home does not get the folder again, even if the user has deleted or changed it. An empty file below
``~/.local/share/gpudev`` records that.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDER = "gpu-dev-examples"
"""Name of the folder, in the home and next to this module."""
MARK = Path(".local/share/gpudev/.examples-given")
"""Path of the file that records it, below the home. Packages of images have folders next to it."""


def give(home: Path) -> None:
    """Copy the examples into ``home`` if it never had them.

    Servers that share the home may do this at the same time. An existing file or folder with the same name is
    not changed. Raises ``OSError`` if the home cannot be written; the next server tries again.
    """
    mark, target = home / MARK, home / FOLDER
    mark.parent.mkdir(parents=True, exist_ok=True)
    try:
        # First, so that no server brings back what was deleted after another one gave it.
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
    """Make the folder beside its place and move it there whole, so that nobody sees half of it."""
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", dir=target.parent) as temporary:
        copy = Path(temporary) / FOLDER
        copy.mkdir()
        for file in Path(__file__).with_name(FOLDER).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        copy.rename(target)
