"""The few kernel calls that Python's library lacks."""

from __future__ import annotations

import ctypes
import os
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
    """Between fork and exec: SIGKILL when the parent dies, however that happens."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def move_home(home: Path, folder: Path) -> None:
    """Make ``home`` the account's home for this process and all below it, for sshd, rsync and ``~root`` too.

    Needs root: in a mount namespace of our own a copy of ``/etc/passwd`` that says so lies over the real
    one. The account's real home stays where it is, since the Python we run on may well lie in it. Raises
    ``OSError`` where the kernel does not allow this.
    """
    account = str(os.getuid())
    lines = Path("/etc/passwd").read_text().splitlines()
    changed = [
        ":".join([*fields[:5], str(home), *fields[6:]])
        if len(fields := line.split(":")) == 7 and fields[2] == account
        else line
        for line in lines
    ]
    overlay = folder / "passwd"
    overlay.write_text("\n".join(changed) + "\n")
    overlay.chmod(0o644)
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount namespace")
    _check(_libc.mount(bytes(overlay), b"/etc/passwd", None, _MS_BIND, None), "bind /etc/passwd")
