"""Separate folders for the sockets and temporary files of each server.

Programs name such files after the account. Without separate folders, two servers of a user on one machine
would share a terminal multiplexer: a session opened in one server would run in the other, and end with it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

_PREFIX = "gpudev-"
_LONGEST = 40
"""Maximum characters of a folder: a socket's path may have 107, and some programs add more than 60."""


def environment(folder: Path, shared: bool) -> dict[str, str]:
    """Create the folders of the server with this private folder; return their environment variables.

    ``shared``: other servers use the same ``/tmp``.
    """
    place = _place(folder)
    run = place / "run"
    screen = run / "screen"
    for each in (run, screen):
        each.mkdir(mode=0o700, exist_ok=True)
    found = {"XDG_RUNTIME_DIR": str(run), "TMUX_TMPDIR": str(run), "SCREENDIR": str(screen)}
    if shared:
        (place / "tmp").mkdir(mode=0o700, exist_ok=True)
        found["TMPDIR"] = str(place / "tmp")
    return found


def remove(folder: Path) -> None:
    """Remove the folders outside the private folder."""
    link = folder / "place"
    if not link.is_symlink():
        return
    place = link.readlink()
    # The user may have replaced the link.
    if place.parent == Path(tempfile.gettempdir()) and place.name.startswith(_PREFIX):
        shutil.rmtree(place, ignore_errors=True)
    link.unlink(missing_ok=True)


def _place(folder: Path) -> Path:
    if len(str(folder)) + len("/run") <= _LONGEST:
        return folder
    link = folder / "place"
    if link.is_symlink() and link.readlink().is_dir() and link.readlink().stat().st_uid == os.getuid():
        return link.readlink()
    try:
        place = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        sys.stderr.write(f"the paths of sockets are too long for some programs: {error}\n")
        return folder
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return place
