"""Files that only the owner of the server may read."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file atomically. Others can never read it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.replace(path)


def line(text: str) -> str:
    """Return ``text`` with a final newline, which OpenSSH requires for keys."""
    return text if text.endswith("\n") else text + "\n"


def trouble(folder: Path, name: str) -> Path:
    """Return the file in which the launcher records for the agent how a part ended last."""
    return folder / f"trouble-{name}"


def answered(folder: Path) -> Path:
    """Return the file that the agent creates for the launcher once JupyterLab has answered."""
    return folder / "answered"


def cut(folder: Path) -> Path:
    """Return the file that the agent changes for JupyterLab when somebody has lost access to the server."""
    return folder / "cut"


def notice(folder: Path) -> Path:
    """Return the file in which the launcher writes a notice to the user, for the agent and the banner."""
    return folder / "notice"
