"""Kernel calls that Python's standard library lacks."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_MS_BIND = 4096
_MS_REC = 16384
_MS_SLAVE = 1 << 19


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def die_with_parent() -> None:
    """Ask the kernel to send SIGKILL to this process when its parent dies. Call it between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of all descendants that lose their parent."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def overlay(folder: Path, home: Path | None) -> None:
    """Replace ``/etc/profile`` and ``/etc/passwd`` for this process and its descendants only.
    Login shells reset ``PATH`` in ``/etc/profile``, so its copy reads the server's ``profile`` at the end.
    With ``home``, the copy of ``/etc/passwd`` gives the account this home, for sshd, rsync and ``~root``. The
    real home stays in place, because Python may be installed in it.

    Needs root: copies in the private folder are mounted over the real files, in a separate mount namespace.
    Raises ``OSError`` if the kernel does not allow this.
    """
    copies = {Path("/etc/profile"): _profile(folder / "profile")}
    if home is not None:
        copies[Path("/etc/passwd")] = _passwd(home)
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount namespace")
    for path, text in copies.items():
        if path.exists():
            copy = folder / f"etc-{path.name}"
            copy.write_text(text)
            copy.chmod(0o644)
            _check(_libc.mount(bytes(copy), bytes(path), None, _MS_BIND, None), f"bind {path}")
            # Other accounts may read this file, and no other file in the folder.
            copy.unlink()


def _profile(more: Path) -> str:
    try:
        text = Path("/etc/profile").read_text()
    except FileNotFoundError:
        return ""
    quoted = shlex.quote(str(more))
    return f"{text}\n[ -r {quoted} ] && . {quoted}\n"


def _passwd(home: Path) -> str:
    account = str(os.getuid())
    lines = [
        ":".join([*fields[:5], str(home), *fields[6:]])
        if len(fields := line.split(":")) == 7 and fields[2] == account
        else line
        for line in Path("/etc/passwd").read_text().splitlines()
    ]
    return "\n".join(lines) + "\n"
