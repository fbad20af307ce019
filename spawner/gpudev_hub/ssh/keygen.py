"""Runs ``ssh-keygen``."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TIME_LIMIT = 30
"""Seconds; it usually needs 10 ms."""
_SCRATCH = ".new-"


class KeygenFailed(Exception):
    """``ssh-keygen`` failed; the message quotes it."""


def run(*arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run ``ssh-keygen``, with ``given`` on its standard input, and return how it ended.

    Raises ``KeygenFailed`` if it is not installed or takes too long.
    """
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=given or b"",
            capture_output=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except FileNotFoundError as error:
        raise KeygenFailed(
            "ssh-keygen is not installed (on Debian: apt-get install openssh-client)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KeygenFailed(f"ssh-keygen took more than {TIME_LIMIT} s") from error


def ssh_keygen(*arguments: str) -> str:
    """Run ``ssh-keygen`` and return its output. Raises ``KeygenFailed``."""
    done = run(*arguments)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise KeygenFailed(f"ssh-keygen {arguments[0]}: {words}")
    return done.stdout.decode()


def new_pair(comment: str, private: Path) -> tuple[str, str]:
    """Return a new Ed25519 key as (private, public) texts; nothing stays on disk.

    ``private``: a private folder. ``clear_scratch`` removes what is left there if the process is killed.
    """
    with _scratch(private) as folder:
        path = _make(Path(folder) / "key", comment)
        return path.read_text(), public_of(path).read_text().strip()


def keep_pair(path: Path, comment: str) -> None:
    """Create a key at ``path`` and ``path.pub`` unless it exists. If two callers do so at once, one wins."""
    if path.exists() and public_of(path).exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _scratch(path.parent) as folder:
        new = _make(Path(folder) / "key", comment)
        try:
            os.link(new, path)
        except FileExistsError:
            # The key of an attempt that was interrupted, or of another caller, is kept.
            public = Path(folder) / "public"
            public.write_text(ssh_keygen("-y", "-f", str(path)))
        else:
            public = public_of(new)
        public.chmod(0o600)
        public.replace(public_of(path))


def _make(path: Path, comment: str) -> Path:
    ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
    return path


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder)


def clear_scratch(folder: Path) -> None:
    """Remove what killed processes left in and below a folder. No key may be in the making there."""
    for left in folder.rglob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def public_of(path: Path) -> Path:
    """Return the path of the public part of a key."""
    return path.with_name(path.name + ".pub")
