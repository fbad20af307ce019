"""Paths of the gpudev files in ``~/.ssh``, and functions to write them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gpudev.config import home
from gpudev.config import path as configuration
from gpudev.files import replace_file


def folder() -> Path:
    """Return ``~/.ssh``."""
    return home() / ".ssh"


def config_path() -> Path:
    """Return the path of the user's SSH configuration."""
    return folder() / "config"


def our_folder() -> Path:
    """Return the folder of all gpudev files."""
    return folder() / "gpudev"


def include_path() -> Path:
    """Return the path of the included file. It is complete, so ``ssh -F`` can use it too."""
    return our_folder() / "config"


def hosts_folder() -> Path:
    """Return the folder with the files of each account."""
    return our_folder() / "hosts"


def key_of(account: Path | None) -> str:
    """Return KEY of a gpu-dev configuration file (None: the one in use)."""
    return hashlib.sha256(os.fsencode(account_path(account))).hexdigest()[:12]


def account_path(account: Path | None) -> Path:
    """Return the path of a gpu-dev configuration file (None: the one in use), with links resolved.

    ``/dev/stdin`` may be a link to a file, or a pipe without a path.
    """
    named = account or configuration()
    special = os.path.exists(named) and not os.path.isfile(named)  # noqa: PTH110, PTH113  (never raise)
    return named.absolute() if special else Path(os.path.realpath(named))


def file_of(account: Path | None, suffix: str) -> Path:
    """Return the path of a file of one account."""
    return hosts_folder() / (key_of(account) + suffix)


def read_record(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty if it cannot be read."""
    try:
        record = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def state() -> dict[str, Any]:
    """Return the state: changes to the user's SSH configuration, and the account that comes first."""
    return read_record(our_folder() / "state.json")


def set_state(**values: bool | str) -> None:
    """Change values of the state."""
    make_folder(our_folder())
    write(our_folder() / "state.json", json.dumps(state() | values) + "\n")


def make_folder(path: Path) -> None:
    """Create a folder and its parents, readable by the user only."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)  # regardless of the umask
    if os.geteuid() == 0:
        give(path, path.parent)


def give(path: Path, above: Path) -> None:
    """Give a new file of root to the owner of the folder: ssh fails if it cannot read an included file."""
    owner = above.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Write a file atomically, keeping its mode and owner. An unchanged file is not written."""
    data = content.encode() if isinstance(content, str) else content
    old = path.stat() if path.exists() else None
    if old is not None and path.read_bytes() == data:
        return
    owner = (old or path.parent.stat()) if os.geteuid() == 0 else None
    replace_file(path, data, mode=mode if old is None else old.st_mode & 0o7777, owner=owner)
