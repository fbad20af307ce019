"""Files of ours in ``~/.ssh``: where they lie, and how they are written."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from gpudev.config import home
from gpudev.config import path as configuration


def folder() -> Path:
    """``~/.ssh``."""
    return home() / ".ssh"


def config_path() -> Path:
    """The user's own file."""
    return folder() / "config"


def our_folder() -> Path:
    """Where everything of ours lies."""
    return folder() / "gpudev"


def include_path() -> Path:
    """Ours; complete in itself, so ``ssh -F`` takes it too."""
    return our_folder() / "config"


def hosts_folder() -> Path:
    """Where the files of each account lie."""
    return our_folder() / "hosts"


def key_of(account: Path | None) -> str:
    """KEY of a gpu-dev configuration file (None: the one in use)."""
    return hashlib.sha256(os.fsencode(account_path(account))).hexdigest()[:12]


def account_path(account: Path | None) -> Path:
    """The one path of a gpu-dev configuration file (None: the one in use), whichever links lead to it.

    The target of ``/dev/stdin`` is a file too, or else a pipe, whose target has no path.
    """
    named = account or configuration()
    special = os.path.exists(named) and not os.path.isfile(named)  # noqa: PTH110, PTH113  (never raise)
    return named.absolute() if special else Path(os.path.realpath(named))


def file_of(account: Path | None, suffix: str) -> Path:
    """A file of one account."""
    return hosts_folder() / (key_of(account) + suffix)


def read_record(file: Path) -> dict[str, Any]:
    """A JSON object that we wrote; empty where there is none that can be read."""
    try:
        record = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def state() -> dict[str, Any]:
    """What was done to the user's own file, and whose servers come first."""
    return read_record(our_folder() / "state.json")


def set_state(**values: bool | str) -> None:
    """Change some of it."""
    make_folder(our_folder())
    write(our_folder() / "state.json", json.dumps(state() | values) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder with those above it, for us alone."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)  # whatever the umask takes away
    if os.geteuid() == 0:
        give(path, path.parent)


def give(path: Path, above: Path) -> None:
    """Give what root has just made to the owner of the folder: ssh ends at a file that it may not read."""
    owner = above.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """All or nothing, keeping the mode and owner of a file that is there; untouched where nothing changes."""
    data = content.encode() if isinstance(content, str) else content
    old = path.stat() if path.exists() else None
    if old is not None and path.read_bytes() == data:
        return
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if old is not None:
                mode = old.st_mode & 0o7777
            if os.geteuid() == 0:
                owner = old or path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
