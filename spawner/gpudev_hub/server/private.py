"""Files that only the owner of the server may read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ANSWERED = "answered"
"""File that the agent creates for the launcher once JupyterLab has answered."""
CUT = "cut"
"""File in which the agent tells JupyterLab who has lost access to the server."""
NOTICE = "notice"
"""File in which the launcher writes a notice to the user, for the agent and the banner."""


def write(path: Path, data: str | bytes, mode: int = 0o600, *, durable: bool = False) -> None:
    """Replace a file atomically; others can never read it, unless ``mode`` allows it.

    With ``durable``, the file has the old or the new data even after a crash of the machine. Raises
    ``OSError``.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w" if isinstance(data, str) else "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def line(text: str) -> str:
    """Return ``text`` with a final newline, which OpenSSH requires for keys."""
    return text if text.endswith("\n") else text + "\n"


def trouble(folder: Path, name: str) -> Path:
    """Return the file in which the launcher tells the agent how a part last ended."""
    return folder / f"trouble-{name}"
