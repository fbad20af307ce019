"""The host name on the command line of ssh, for ``gpu-dev ssh-sync``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_DESTINATION = re.compile(r"(?:ssh://)?(?:.*@)?(gpu-[a-z0-9-]+)(?::\d+)?/?", re.IGNORECASE)
_MOST_ANCESTORS = 4


def typed_name() -> str | None:
    """Return the gpu-* name in the arguments of the ``ssh`` that started this process, if it connects.

    The name is read from the process's arguments, because ssh would pass it through a shell.
    """
    for argv in _ancestors():
        if Path(argv[0]).name == "ssh":
            if "-G" in argv:
                return None
            return next((found[1] for word in argv[1:] if (found := _DESTINATION.fullmatch(word))), None)
    return None


def _ancestors() -> Iterator[list[str]]:
    """Yield the arguments of this process's ancestors, nearest first, as far as they can be read."""
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
