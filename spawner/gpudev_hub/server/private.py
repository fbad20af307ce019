"""Files that nobody but the server's owner may read."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """All or nothing, and never readable by others, not even for a moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.replace(path)


def line(text: str) -> str:
    """``text`` with a newline at its end, as OpenSSH wants its keys."""
    return text if text.endswith("\n") else text + "\n"


def trouble(folder: Path, name: str) -> Path:
    """Where the launcher notes for the agent how a part of the server ended last."""
    return folder / f"trouble-{name}"


def answered(folder: Path) -> Path:
    """What the agent leaves for the launcher once the JupyterLab that runs now has answered."""
    return folder / "answered"


def notice(folder: Path) -> Path:
    """Where the launcher leaves for agent and banner what the user should know of the server."""
    return folder / "notice"
