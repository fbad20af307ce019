"""Making plain ``ssh gpu-NAME`` work: a folder of our own in ``~/.ssh`` and one line in the user's file.

::

    ~/.ssh/config                   first line: Include gpudev/config
    ~/.ssh/gpudev/config            runs `gpu-dev ssh-sync` for gpu-* names, then includes what hosts/ has
    ~/.ssh/gpudev/hosts/KEY.conf    one block for each server that can be entered
    ~/.ssh/gpudev/hosts/KEY.closed  one for each reservation that can't, so that connecting says why
    ~/.ssh/gpudev/hosts/KEY.known   the host CA that vouches for them
    ~/.ssh/gpudev/id_ed25519        a key, where the user has none that servers accept

KEY stands for one gpu-dev configuration file, so that several of them (``GPUDEV_CONFIG``, users of a demo)
leave each other's servers alone. What ``ssh-sync`` writes is read by the ``Include`` after it, so a
reservation made elsewhere a moment ago is found at the first try.

The line in the user's file is a convenience: whatever gpu-dev starts itself reads our file alone, and where
``~/.ssh`` can't be written, one in a temporary folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gpudev import clock, sshblocks, sshkeys
from gpudev.config import home
from gpudev.errors import ConfigError, UnexpectedAnswer
from gpudev.processes import environment
from gpudev.sshblocks import quoted
from gpudev.sshfiles import (
    account_path,
    file_of,
    hosts_folder,
    key_of,
    make_folder,
    our_folder,
    read_record,
    set_state,
    state,
    write,
)
from gpudev.sshfiles import config_path as config_path
from gpudev.sshfiles import folder as folder
from gpudev.sshfiles import include_path as include_path
from gpudev.wire import SshAccess, SshClosed

FRESH = 2.0
"""Seconds for which nothing is asked again."""
REMEMBERED = timedelta(hours=24)
"""For how long connecting to a reservation that has ended says so."""
_MOST_REMEMBERED = 20
_CHECK_PATIENCE = 5.0
"""Seconds for ssh to read its configuration."""


@dataclass(frozen=True)
class Written:
    """What came of writing the settings."""

    config: Path
    """Complete in itself, for ``ssh -F``."""
    problem: str = ""
    """Why plain ``ssh`` doesn't know the names, and what to do; empty where it does."""


def known_accounts() -> list[Path]:
    """The configuration files for which servers are kept here, and the one in use now.

    Dropped, with their servers, are those that are no files (any more) and those kept by another path.
    """
    found = {account_path(None): None}
    for record in sorted(hosts_folder().glob("*.json")):
        account = account_of(record.stem)
        if account is None:
            continue
        with suppress(OSError):
            known_by = account_path(account)
            if key_of(known_by) == record.stem and (known_by in found or account.is_file()):
                found[known_by] = None
            else:
                for suffix in (".conf", ".closed", ".known", ".tried", ".json"):
                    record.with_suffix(suffix).unlink(missing_ok=True)
    return list(found)


def account_of(key: str) -> Path | None:
    """The configuration file that KEY stands for; None where that is not known."""
    try:
        return Path(read_record(hosts_folder() / f"{key}.json")["config"])
    except (KeyError, TypeError):
        return None


def names_of(account: Path) -> tuple[dict[str, str], list[str]]:
    """What ssh knows of one account: live names, each with its reservation's id, and names of the past."""
    record = read_record(file_of(account, ".json"))
    live: dict[str, str] = record.get("names", {})
    return live, [*record.get("past", {})]


@contextmanager
def asking(accounts: list[Path], wait: float) -> Iterator[list[Path]]:
    """Those of `accounts` whose servers were not asked for just now: the caller is to ask, and `sync`.

    Until then others who come here wait for it, for `wait` seconds at most.
    """
    try:
        make_folder(hosts_folder())
        lock = os.open(hosts_folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield []  # what is known has to do: nothing can be written
        return
    try:
        yield [one for one in accounts if not _fresh(one)] if _locked(lock, wait) else []
    finally:
        os.close(lock)


def _locked(lock: int, wait: float) -> bool:
    """Whether the lock was got in time; whoever keeps it longer is stuck, and what is known has to do."""
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _fresh(account: Path) -> bool:
    """Whether an account was asked for just now; from here on it was.

    By the time since the machine was started, which nobody sets: the clock may be wrong, and be set right.
    """
    tried, now = file_of(account, ".tried"), time.monotonic()
    try:
        if 0 <= now - float(tried.read_text()) < FRESH:
            return True
    except (OSError, ValueError):
        pass
    _mark_tried(account)
    return False


def _mark_tried(account: Path | None) -> None:
    with suppress(OSError):
        write(file_of(account, ".tried"), f"{time.monotonic()}\n")


def sync(access: SshAccess, account: Path | None = None) -> Written:
    """Write how to reach the servers in `access`, and nothing of those that are gone.

    The first time, also adds the line to ``~/.ssh/config``; later only `enable` does, so that whoever takes
    it away is left in peace. Without `account` (the user is here, with the one in use) files go elsewhere
    where ``~/.ssh`` can't be written. Raises `UnexpectedAnswer` for what must not get into such a file,
    `ConfigError` where a file can't be written.
    """
    try:
        make_folder(hosts_folder())
        _write_servers(access, account)
        if account is None:  # of two servers of one name, that of the account last used by hand
            set_state(first=file_of(None, ".conf").name)
        write(include_path(), _include())
        return Written(include_path(), _see_to_line())
    except OSError as error:
        problem = f"{folder() / 'gpudev'} cannot be written: {error}"
        if account is not None:
            raise ConfigError(problem) from error
        return Written(_write_elsewhere(access, problem), f"{problem}\nUse: gpu-dev ssh NAME")


def _write_servers(access: SshAccess, account: Path | None) -> None:
    known, record_file = file_of(account, ".known"), file_of(account, ".json")
    keys, agent = _identity(access)
    names = _names(access)
    record = read_record(record_file)
    record["config"] = str(account_path(account))
    record["past"] = _past(record, names)
    record["names"] = names
    blocks = sshblocks.host_blocks(access, known, keys, agent, our_folder())
    ended = [SshClosed(alias=alias, id=entry["id"]) for alias, entry in record["past"].items()]
    program = _program()
    closed = sshblocks.closed_blocks([*access.closed, *ended], f"{program} ssh-why {record_file.stem}")
    write(known, sshblocks.known_hosts(access))
    write(file_of(account, ".conf"), "\n".join(blocks) or "# There is no server to enter at the moment.\n")
    write(file_of(account, ".closed"), "\n".join(closed if program else []))
    write(record_file, json.dumps(record) + "\n")
    _mark_tried(account)


def _names(access: SshAccess) -> dict[str, str]:
    names = {one.alias: one.id for one in access.closed}
    for host in access.hosts:
        names[host.alias] = names[f"gpu-{host.host_key_alias}"] = host.id
    return names


def _past(record: dict[str, Any], names: dict[str, str]) -> dict[str, dict[str, str]]:
    """Names that led to a reservation until a while ago, the latest last."""
    now = clock.now()
    past: dict[str, dict[str, str]] = record.get("past", {})
    gone = {alias: {"id": at, "since": now.isoformat()} for alias, at in record.get("names", {}).items()}
    kept = {
        alias: entry
        for alias, entry in {**past, **gone}.items()
        if alias not in names and now - datetime.fromisoformat(entry["since"]) < REMEMBERED
    }
    return dict(list(kept.items())[-_MOST_REMEMBERED:])


def _write_elsewhere(access: SshAccess, problem: str) -> Path:
    """The same for the user who is here, in a folder that nobody else can have made ready."""
    keys, agent = _identity(access)
    bases = [os.environ.get("XDG_RUNTIME_DIR")]
    with suppress(OSError):
        bases.append(tempfile.gettempdir())
    for base in bases:
        if not base:
            continue
        place = Path(base) / f"gpudev-ssh-{os.getuid()}-{key_of(None)}"
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                continue
            blocks = sshblocks.host_blocks(access, place / "known_hosts", keys, agent, place)
            write(place / "known_hosts", sshblocks.known_hosts(access))
            write(place / "config", "\n".join(blocks))
        except OSError:
            continue
        return place / "config"
    raise ConfigError(problem, hint="Make it writable, or free some space.")


def enable() -> None:
    """Put our line before everything else in ``~/.ssh/config``."""
    if not include_path().exists():
        make_folder(include_path().parent)
        write(include_path(), _include())
    created = bool(state().get("created"))
    try:
        file = _config_file()
        before = file.read_bytes() if file.exists() else None
        if before is None:
            created = True
        write(file, _with_line_first(before or b""), 0o600)
    except OSError as error:
        raise ConfigError(
            f"ssh gpu-NAME does not work yet: {config_path()} cannot be changed: {error}",
            hint=f"Add the line `{_lines()[0].decode().strip()}` at its top, or use: gpu-dev ssh NAME",
        ) from error
    set_state(include=True, created=created)


def check() -> None:
    """Raise `ConfigError` if ssh refuses its configuration, whichever line of it."""
    file = [] if _home_is_the_accounts() else ["-F", str(config_path())]
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
            f"ssh gpu-NAME does not work yet: ssh refuses its configuration: {said}",
            hint="Repair the file that ssh names, or use: gpu-dev ssh NAME",
        )


def disable() -> None:
    """Take our line away again; every other byte of ``~/.ssh/config`` stays."""
    try:
        file = _config_file()
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        ours = next((number for number, line in enumerate(lines) if line in _lines()), None)
        if ours is not None:
            del lines[ours]
            if not lines and state().get("created"):
                file.unlink()
            else:
                write(file, b"".join(lines))
    except OSError as error:
        raise ConfigError(
            f"{config_path()} cannot be changed: {error}", hint="Take the line out by hand."
        ) from error
    set_state(include=False, created=False)


def _see_to_line() -> str:
    """Our line is there if it should be, and comes first; says what to do where the file can't be changed."""
    included = state().get("include")
    try:
        if included is None or (included and _line_stands_too_low()):
            enable()
    except (ConfigError, OSError) as error:
        return str(error)
    return ""


def _line_stands_too_low() -> bool:
    """Whether options before our line could lead elsewhere: ssh keeps the first value that it finds."""
    file = config_path()
    before = file.read_bytes() if file.exists() else b""
    return any(line in _lines() for line in before.splitlines(keepends=True)) and (
        _with_line_first(before) != before
    )


def _with_line_first(before: bytes) -> bytes:
    """A file with our line as its first directive; as it is where that is so already."""
    lines = before.splitlines(keepends=True)
    for line in lines:
        if line in _lines():
            return before
        if line.strip() and not line.lstrip().startswith(b"#"):
            break
    return _lines()[0] + b"".join(line for line in lines if line not in _lines())


def _lines() -> list[bytes]:
    """Our line, in the form that fits here first; ssh takes a relative one from the account's own home."""
    short, long = b"Include gpudev/config\n", f"Include {quoted(include_path())}\n".encode()
    return [short, long] if _home_is_the_accounts() else [long, short]


def _home_is_the_accounts() -> bool:
    """Whether ssh, which ignores ``HOME``, reads the same ``~/.ssh/config``."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir) == home()
    except KeyError:
        return False


def _config_file() -> Path:
    """The user's file itself, should a link lead to it."""
    make_folder(folder())
    return Path(os.path.realpath(config_path()))


def _program() -> str | None:
    """``gpu-dev`` as a word of a command in ssh's configuration; None where it can't be written so."""
    program = Path(sys.executable).parent / "gpu-dev"
    found = str(program) if program.exists() else shutil.which("gpu-dev")
    if not found or re.search(r"['\"\\]", found):  # ssh's own quoting has no way to write those
        return None
    return shlex.quote(found).replace("%", "%%")


def _include() -> str:
    """Contents of our file. No ssh token stands in the command: what a user types never reaches a shell."""
    lines = ["# Written by gpu-dev; `gpu-dev ssh-config disable` takes it out of use."]
    word = _program()
    if word is not None:
        # Where gpu-dev is no longer installed, ssh goes on without a word.
        lines.append(f'Match originalhost gpu-* exec "test ! -x {word} || {word} ssh-sync"')
    lines.append("Match all")
    first = state().get("first")
    # Reasons last: a name that leads somewhere in any of the files is not closed.
    lines += [f"Include {quoted(hosts_folder() / name)}" for name in (first, "*.conf", "*.closed") if name]
    return "\n".join(lines) + "\n"


def _identity(access: SshAccess) -> tuple[list[Path], bool]:
    """The private keys to offer, and whether the first is in the agent alone."""
    if access.identity_file is None:
        keys = sshkeys.choose(folder(), access.accepted_keys)
        return keys, sshkeys.needs_agent(keys[0])
    path = Path(access.identity_file)
    if not path.is_absolute() or any(not letter.isprintable() or letter == '"' for letter in str(path)):
        raise UnexpectedAnswer(f"The service named no key file but {access.identity_file[:80]!r}.")
    return [path], False
