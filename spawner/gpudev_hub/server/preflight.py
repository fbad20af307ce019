"""Checks before the start that this machine and this account can run sshd."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
from pathlib import Path

NEEDED = ("sshd", "ssh-keygen", "ssh-keyscan", "bash", "timeout")
_SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
)


def program(name: str) -> str | None:
    """Return the path of a system program. The user's PATH does not matter."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")


def sftp_server() -> str | None:
    """Return the path of the sftp server, which clients' sftp and scp need."""
    return next((path for path in _SFTP_SERVERS if os.access(path, os.X_OK)), None)


def missing() -> list[str]:
    """Return the missing programs that SSH needs."""
    return [name for name in NEEDED if program(name) is None]


def problems() -> list[str]:
    """Return warnings about features that will not work on this machine, with what to do."""
    found = []
    if sftp_server() is None:
        found.append(
            "sftp-server is not installed, so sftp and scp will not work"
            " (on Debian: apt-get install openssh-sftp-server)"
        )
    account = pwd.getpwuid(os.getuid())
    if account.pw_shell.endswith(("/nologin", "/false")):
        found.append(
            f"the account {account.pw_name} has no login shell ({account.pw_shell}), so sshd refuses logins"
        )
    if re.search(r'^[-\s]|["%]|\$\{|[\\\s]$', account.pw_name):
        found.append(
            f"OpenSSH does not support the account name {account.pw_name!r}, so nobody can connect over SSH:"
            " run the hub as another account"
        )
    if _locked(account.pw_name):
        found.append(
            f"the account {account.pw_name} is locked, so sshd refuses all logins"
            f" (usermod -p '*' {account.pw_name})"
        )
    terminal = terminal_problem()
    if terminal:
        found.append(terminal)
    return found


def account_pattern(name: str) -> str:
    """Return a pattern that matches this account, for ``AllowUsers`` of sshd.

    Special characters (``@`` precedes a host, a space ends the pattern) become ``?``, which matches any
    character. sshd compares bytes.
    """
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "?" * len(letter.encode())
        for letter in name
    )


def terminal_problem() -> str | None:
    """Return why sshd cannot open terminals under this account, or ``None`` if it can.

    sshd gives each terminal to group ``tty``. An ordinary user may do that only if the terminal already has
    it.
    """
    if os.getuid() == 0:
        return None
    try:
        tty = grp.getgrnam("tty").gr_gid
    except KeyError:
        return None
    if tty in os.getgroups():
        return None
    ours, terminal = os.openpty()
    try:
        group = os.fstat(terminal).st_gid
    finally:
        os.close(ours)
        os.close(terminal)
    if group == tty:
        return None
    return (
        "SSH sessions get no terminal, because /dev/pts is mounted without gid=5"
        " (as root: mount -o remount,gid=5,mode=620 /dev/pts)"
    )


def _locked(account: str) -> bool:
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False  # only root can read it, and only an sshd that runs as root checks it
    return any(entry.startswith(f"{account}:!") for entry in lines)
