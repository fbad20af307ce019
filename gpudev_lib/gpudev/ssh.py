"""Settings for plain ``ssh gpu-NAME``: a folder in ``~/.ssh`` and one line in the user's SSH configuration.

::

    ~/.ssh/config                   first line: Include gpudev/config
    ~/.ssh/gpudev/config            runs `gpu-dev ssh-sync` for gpu-* names, then includes hosts/
    ~/.ssh/gpudev/hosts/KEY.conf    a block for each server that you can connect to
    ~/.ssh/gpudev/hosts/KEY.closed  a block for each other reservation, so that ssh says why it fails
    ~/.ssh/gpudev/hosts/KEY.known   the host CA of the servers
    ~/.ssh/gpudev/id_ed25519        a key, if the user has no key that servers accept

KEY is the hash of the path of a gpu-dev configuration file, so that several of them (``GPUDEV_CONFIG``, users
of a demo) do not change each other's settings. The ``Include`` after ``ssh-sync`` reads what it wrote, so ssh
finds a new reservation made elsewhere at the first try.

Programs started by gpu-dev read only ``~/.ssh/gpudev/config``, so they do not need the line in the user's
file. If ``~/.ssh`` cannot be written, they read a file in a temporary folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpudev import clock, config, sshblocks, sshfiles, sshinclude, sshkeys
from gpudev.errors import ConfigError, NotLoggedIn, cause
from gpudev.wire import SshAccess, SshClosed

if TYPE_CHECKING:
    from gpudev.api import Api

FRESH = 2.0
"""Seconds before the service is asked again."""
REMEMBERED = timedelta(hours=24)
"""Time for which ssh reports that an ended reservation has ended."""
_MOST_REMEMBERED = 20


@dataclass(frozen=True)
class Written:
    """Result of writing the settings."""

    config: Path
    """A complete configuration file for ``ssh -F``."""
    problem: str = ""
    """Why plain ``ssh gpu-NAME`` does not work, and what to do; empty if it works."""


def known_accounts() -> list[Path]:
    """Return the configuration files with SSH settings here, including the one in use.

    Settings of files that no longer exist, or that are known by another path, are deleted.
    """
    found = {sshfiles.account_path(None): None}
    for record in sorted(sshfiles.hosts_folder().glob("*.json")):
        account = account_of(record.stem)
        if account is None:
            continue
        with suppress(OSError):
            known_by = sshfiles.account_path(account)
            if sshfiles.key_of(known_by) == record.stem and (known_by in found or account.is_file()):
                found[known_by] = None
            else:
                for suffix in (".conf", ".closed", ".known", ".tried", ".json"):
                    record.with_suffix(suffix).unlink(missing_ok=True)
    return list(found)


def account_of(key: str) -> Path | None:
    """Return the configuration file for KEY, or None if it is unknown."""
    try:
        return Path(sshfiles.read_record(sshfiles.hosts_folder() / f"{key}.json")["config"])
    except (KeyError, TypeError):
        return None


def api_of(account: Path, timeout: float) -> Api | None:
    """Return the service of a configuration file, without retries; None if none is configured."""
    from gpudev.api import Api  # a slow import; ssh-sync often needs none

    try:
        in_use = account == sshfiles.account_path(None)
        settings = config.resolve() if in_use else config.settings_of(account)
    except NotLoggedIn:
        if account.exists():
            raise
        settings = None
    if settings is None:
        return None
    return Api(settings.url, settings.token, patience=0.0, timeout=max(timeout, 0.05))


def names_of(account: Path) -> tuple[dict[str, str], list[str]]:
    """Return the live names of one account with their reservation ids, and the names that have ended."""
    record = sshfiles.read_record(sshfiles.file_of(account, ".json"))
    live: dict[str, str] = record.get("names", {})
    return live, [*record.get("past", {})]


@contextmanager
def asking(accounts: list[Path], wait: float) -> Iterator[list[Path]]:
    """Yield the accounts that were not updated in the last moments: the caller must update them with `sync`.

    Other processes wait until the caller has done so, for at most `wait` seconds.
    """
    try:
        sshfiles.make_folder(sshfiles.hosts_folder())
        lock = os.open(sshfiles.hosts_folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield []  # nothing can be written: the settings stay as they are
        return
    try:
        yield [one for one in accounts if not _fresh(one)] if _locked(lock, wait) else []
    finally:
        os.close(lock)


def _locked(lock: int, wait: float) -> bool:
    """Return whether the lock was acquired in time. Otherwise the settings stay as they are."""
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
    """Return whether an account was updated in the last `FRESH` seconds, and mark it as updated.

    Uses the time since boot, because the clock may be wrong and may be corrected.
    """
    tried, now = sshfiles.file_of(account, ".tried"), time.monotonic()
    try:
        if 0 <= now - float(tried.read_text()) < FRESH:
            return True
    except (OSError, ValueError):
        pass
    _mark_tried(account)
    return False


def _mark_tried(account: Path | None) -> None:
    with suppress(OSError):
        sshfiles.write(sshfiles.file_of(account, ".tried"), f"{time.monotonic()}\n")


def sync(access: SshAccess, account: Path | None = None) -> Written:
    """Write the SSH settings for the servers in `access`, and remove other servers.

    The first call also adds the line to ``~/.ssh/config``. Later only `enable` does so, because the user may
    have removed it. Without `account` (the one in use), the files go to another folder if ``~/.ssh`` cannot
    be written. Raises `UnexpectedAnswer` for values that are not safe in such a file, and `ConfigError` if a
    file cannot be written.
    """
    try:
        sshfiles.make_folder(sshfiles.hosts_folder())
        _write_servers(access, account)
        if account is None:  # for two servers with one name, the account last used by hand is first
            sshfiles.set_state(first=sshfiles.file_of(None, ".conf").name)
        sshfiles.write(sshfiles.include_path(), sshinclude.included_content())
        return Written(sshfiles.include_path(), sshinclude.ensure_line())
    except OSError as error:
        problem = f"The SSH settings in {sshfiles.folder() / 'gpudev'} cannot be written: {cause(error)}."
        if account is not None:
            raise ConfigError(problem) from error
        return Written(
            _write_elsewhere(access, problem),
            f"{problem}\nUntil this is fixed, connect with: gpu-dev ssh NAME",
        )


def _write_servers(access: SshAccess, account: Path | None) -> None:
    known, record_file = sshfiles.file_of(account, ".known"), sshfiles.file_of(account, ".json")
    keys, agent = _identity(access)
    names = _names(access)
    record = sshfiles.read_record(record_file)
    record["config"] = str(sshfiles.account_path(account))
    record["past"] = _past(record, names)
    record["names"] = names
    blocks = sshblocks.host_blocks(access, known, keys, agent, sshfiles.our_folder())
    ended = [SshClosed(alias=alias, id=entry["id"]) for alias, entry in record["past"].items()]
    command = sshinclude.program()
    closed = sshblocks.closed_blocks([*access.closed, *ended], f"{command} ssh-why {record_file.stem}")
    sshfiles.write(known, sshblocks.known_hosts(access))
    sshfiles.write(
        sshfiles.file_of(account, ".conf"), "\n".join(blocks) or "# You have no running server now.\n"
    )
    sshfiles.write(sshfiles.file_of(account, ".closed"), "\n".join(closed if command else []))
    sshfiles.write(record_file, json.dumps(record) + "\n")
    _mark_tried(account)


def _names(access: SshAccess) -> dict[str, str]:
    names = {one.alias: one.id for one in access.closed}
    for host in access.hosts:
        names[host.alias] = names[f"gpu-{host.host_key_alias}"] = host.id
    return names


def _past(record: dict[str, Any], names: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the names of reservations that ended recently, the latest last."""
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
    """Write the settings to a private temporary folder, and return the configuration file."""
    keys, agent = _identity(access)
    bases = [os.environ.get("XDG_RUNTIME_DIR")]
    with suppress(OSError):
        bases.append(tempfile.gettempdir())
    for base in bases:
        if not base:
            continue
        place = Path(base) / f"gpudev-ssh-{os.getuid()}-{sshfiles.key_of(None)}"
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                continue
            blocks = sshblocks.host_blocks(access, place / "known_hosts", keys, agent, place)
            sshfiles.write(place / "known_hosts", sshblocks.known_hosts(access))
            sshfiles.write(place / "config", "\n".join(blocks))
        except OSError:
            continue
        return place / "config"
    raise ConfigError(problem, hint="Make the folder writable, or free disk space.")


def _identity(access: SshAccess) -> tuple[list[Path], bool]:
    """Return the private keys to offer, and whether the first is only in the agent."""
    made = sshkeys.made_for(access)
    if made is not None:
        return [made], False
    keys = sshkeys.choose(sshfiles.folder(), access.accepted_keys)
    return keys, not sshkeys.usable(keys[0])
