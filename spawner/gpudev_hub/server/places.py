"""Folders of a server's own for sockets and temporary files.

Programs key them by the account: two servers of one person on one machine would share a terminal
multiplexer, and a session opened in one would run in the other and die with it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

_PREFIX = "gpudev-"
_LONGEST = 40
"""Characters: the path of a socket may have 107, and some programs need more than 60 of them."""


def environment(folder: Path, shared: bool) -> dict[str, str]:
    """Make the folders of the server with this private folder; returns what leads programs to them.

    ``shared``: ``/tmp`` is the machine's, not the server's own.
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
    """Remove what lies outside the private folder."""
    link = folder / "place"
    if not link.is_symlink():
        return
    place = link.readlink()
    # The link is its user's to change.
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
        sys.stderr.write(f"sockets have long paths, which some programs refuse: {error}\n")
        return folder
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return place
