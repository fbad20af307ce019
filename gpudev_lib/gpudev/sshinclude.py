"""The line in the user's SSH configuration, and the file that it includes."""

from __future__ import annotations

import errno
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from gpudev import sshfiles
from gpudev.config import home
from gpudev.errors import ConfigError, cause
from gpudev.processes import environment
from gpudev.sshblocks import quoted

_CHECK_PATIENCE = 5.0
"""Timeout in seconds for ssh to read its configuration."""


def enable() -> None:
    """Add the line at the top of ``~/.ssh/config``."""
    if not sshfiles.include_path().exists():
        sshfiles.make_folder(sshfiles.include_path().parent)
        sshfiles.write(sshfiles.include_path(), included_content())
    created = bool(sshfiles.state().get("created"))
    try:
        file = _config_file()
        before = _content(file)
        if before is None:
            created = True
        sshfiles.write(file, _with_line_first(before or b""), 0o600)
    except OSError as error:
        raise ConfigError(
            f"`ssh gpu-NAME` does not work yet: {sshfiles.config_path()} cannot be changed: {cause(error)}.",
            hint=f"Add the line `{_lines()[0].decode().strip()}` at the top of the file, or connect with:"
            " gpu-dev ssh NAME",
        ) from error
    sshfiles.set_state(include=True, created=created)


def check() -> None:
    """Raise `ConfigError` if ssh refuses its configuration."""
    file = [] if _home_is_the_accounts() else ["-F", str(sshfiles.config_path())]
    # For a name that starts with gpu-, ssh would run `gpu-dev ssh-sync`.
    command = ["ssh", *file, "-G", "localhost"]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_CHECK_PATIENCE, env=environment()
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(
            f"`ssh gpu-NAME` does not work yet: ssh refuses its configuration: {said.rstrip('.')}.",
            hint="Repair the file named in the message, or connect with: gpu-dev ssh NAME",
        )


def disable() -> None:
    """Remove the line from ``~/.ssh/config``. Every other byte stays."""
    try:
        file = _config_file()
        lines = (_content(file) or b"").splitlines(keepends=True)
        ours = next((number for number, line in enumerate(lines) if line in _lines()), None)
        if ours is not None:
            del lines[ours]
            if not lines and sshfiles.state().get("created"):
                file.unlink()
            else:
                sshfiles.write(file, b"".join(lines))
    except OSError as error:
        raise ConfigError(
            f"{sshfiles.config_path()} cannot be changed: {cause(error)}.",
            hint=f"Remove the line `{_lines()[0].decode().strip()}` yourself.",
        ) from error
    sshfiles.set_state(include=False, created=False)


def ensure_line() -> str:
    """Add or move the line to the top if needed. Return what to do if the file cannot be changed, else ""."""
    included = sshfiles.state().get("include")
    try:
        if included is None or (included and _line_stands_too_low()):
            enable()
    except (ConfigError, OSError) as error:
        return str(error)
    return ""


def _line_stands_too_low() -> bool:
    """Return whether options come before the line: ssh uses the first value of an option."""
    before = _content(sshfiles.config_path()) or b""
    return any(line in _lines() for line in before.splitlines(keepends=True)) and (
        _with_line_first(before) != before
    )


def _content(file: Path) -> bytes | None:
    """Return the content of a configuration file; None if there is no such file. Raise ``OSError``."""
    if file.is_fifo():  # reading it would wait for a writer, and a change would replace it
        raise OSError(errno.EINVAL, "it is a named pipe")
    return file.read_bytes() if file.exists() else None


def _with_line_first(before: bytes) -> bytes:
    """Return the content with the line as its first directive."""
    lines = before.splitlines(keepends=True)
    for line in lines:
        if line in _lines():
            return before
        if line.strip() and not line.lstrip().startswith(b"#"):
            break
    return _lines()[0] + b"".join(line for line in lines if line not in _lines())


def _lines() -> list[bytes]:
    """Return both forms of the line, the one to add first. The short one needs the home of the account."""
    short, long = b"Include gpudev/config\n", f"Include {quoted(sshfiles.include_path())}\n".encode()
    return [short, long] if _home_is_the_accounts() else [long, short]


def _home_is_the_accounts() -> bool:
    """Return whether ssh, which ignores ``HOME``, reads the same ``~/.ssh/config``."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir) == home()
    except KeyError:
        return False


def _config_file() -> Path:
    """Return ``~/.ssh/config``, with links resolved."""
    sshfiles.make_folder(sshfiles.folder())
    return Path(os.path.realpath(sshfiles.config_path()))


def program() -> str | None:
    """Return the ``gpu-dev`` command for the SSH configuration; None if its path cannot be quoted there."""
    program = Path(sys.executable).parent / "gpu-dev"
    found = str(program) if program.exists() else shutil.which("gpu-dev")
    if not found or re.search(r"['\"\\]", found):  # ssh cannot quote these characters
        return None
    return shlex.quote(found).replace("%", "%%")


def included_content() -> str:
    """Return the content of the included file. No ssh token is used, so user input never reaches a shell."""
    lines = ["# Written by gpu-dev. To stop using this file: gpu-dev ssh-config disable"]
    word = program()
    if word is not None:
        # If gpu-dev is no longer installed, ssh continues without a message.
        lines.append(f'Match originalhost gpu-* exec "test ! -x {word} || {word} ssh-sync"')
    lines.append("Match all")
    first = sshfiles.state().get("first")
    # The .closed files come last: a name with a server in another file is not closed.
    lines += [
        f"Include {quoted(sshfiles.hosts_folder() / name)}" for name in (first, "*.conf", "*.closed") if name
    ]
    return "\n".join(lines) + "\n"
