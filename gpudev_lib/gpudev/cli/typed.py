"""The name that ssh was told, for ``gpu-dev ssh-sync``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_DESTINATION = re.compile(r"(?:ssh://)?(?:.*@)?(gpu-[a-z0-9-]+)(?::\d+)?/?", re.IGNORECASE)
_MOST_ANCESTORS = 4


def typed_name() -> str | None:
    """The gpu-* name that the ``ssh`` above us was told, if it is about to connect.

    By the arguments of that process: in the command that ssh hands to a shell, a name could do harm.
    """
    for argv in _ancestors():
        if Path(argv[0]).name == "ssh":
            if "-G" in argv:
                return None
            return next((found[1] for word in argv[1:] if (found := _DESTINATION.fullmatch(word))), None)
    return None


def _ancestors() -> Iterator[list[str]]:
    """Arguments of the processes above this one, nearest first; none where that can't be seen."""
    folder = Path("/proc/self")
    for _ in range(_MOST_ANCESTORS):
        try:
            parent = re.search(r"^PPid:\s*(\d+)$", (folder / "status").read_text(), re.MULTILINE)
            if parent is None or parent[1] in ("0", "1"):
                return
            folder = Path("/proc") / parent[1]
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return
        if argv:
            yield argv
