"""Making plain ``ssh gpu-NAME`` work: a folder of our own in ``~/.ssh`` and one line in the user's file.

::

    ~/.ssh/config                   first line: Include gpudev/config
    ~/.ssh/gpudev/config            runs `gpu-dev ssh-sync` for gpu-* names, then includes hosts/*.conf
    ~/.ssh/gpudev/hosts/KEY.conf    one block for each server that can be entered
    ~/.ssh/gpudev/hosts/KEY.known   the host CA that vouches for them
    ~/.ssh/gpudev/id_ed25519        a key, where the user has none that servers accept

KEY stands for one gpu-dev configuration file, so that several of them (``GPUDEV_CONFIG``, users of a demo)
leave each other's servers alone. What ``ssh-sync`` writes is read by the ``Include`` after it, so a
reservation made elsewhere a moment ago is found at the first try.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpudev import sshkeys
from gpudev.config import path as configuration
from gpudev.errors import ConfigError, UnexpectedAnswer
from gpudev.wire import SshAccess, SshHost

FRESH = 2.0
"""Seconds for which nothing is asked again."""
_LOCK_WAIT = 4.0
"""Seconds that one ``ssh`` waits for what another one is asking already."""
_ALIAS = re.compile(r"gpu-[a-z0-9]+(-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_KNOWN_HOSTS = re.compile(r"@cert-authority [A-Za-z0-9*?.,!-]+ [a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UNTIL = "# until "
_held: int | None = None
"""The lock's descriptor between `fresh` and `sync` of one process."""


def folder() -> Path:
    """``~/.ssh``."""
    return Path.home() / ".ssh"


def config_path() -> Path:
    """The user's own file."""
    return folder() / "config"


def include_path() -> Path:
    """Ours; complete in itself, so ``ssh -F`` takes it too."""
    return folder() / "gpudev" / "config"


def known_accounts() -> list[Path]:
    """The configuration files for which servers are kept here, and the one in use now.

    Those that no longer exist are dropped, with their servers; so is every server whose time was up when last
    heard of, should nobody answer now.
    """
    found = {configuration().absolute(): None}
    for record in sorted(_hosts_folder().glob("*.json")):
        try:
            account = Path(json.loads(record.read_text("utf-8"))["config"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if account in found or account.exists():
            found[account] = None
            _drop_ended(record.with_suffix(".conf"))
        else:
            for suffix in (".conf", ".known", ".tried", ".json"):
                record.with_suffix(suffix).unlink(missing_ok=True)
    return list(found)


def fresh(account: Path | None = None) -> bool:
    """Whether the servers of a configuration file (default: the one in use) were asked for just now.

    Where not, the caller is to ask and `sync`; until then others who come here wait for it.
    """
    global _held
    tried = _file(account, ".tried")
    _make_folder(tried.parent)
    _release()
    _held = os.open(_hosts_folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                _release()
                return True  # whoever holds it is stuck; what is known has to do
            time.sleep(0.02)
    try:
        age = time.time() - tried.stat().st_mtime
    except FileNotFoundError:
        age = FRESH
    if 0 <= age < FRESH:
        _release()
        return True
    tried.touch(mode=0o600)
    return False


def sync(access: SshAccess, account: Path | None = None) -> None:
    """Write how to reach the servers in `access`, and nothing of those that are gone.

    The first time, also adds the line to ``~/.ssh/config``; later only `enable` does, so that whoever takes
    it away is left in peace. Raises `UnexpectedAnswer` for what must not get into such a file, `ConfigError`
    where a file can't be written.
    """
    try:
        _make_folder(_hosts_folder())
        known = _file(account, ".known")
        text = _blocks(access, known)
        try:
            _write(known, _known_hosts(access))
            _write(_file(account, ".conf"), text)
            record = {"config": str((account or configuration()).absolute())}
            _write(_file(account, ".json"), json.dumps(record) + "\n")
            _file(account, ".tried").touch(mode=0o600)
            if account is None:  # of two servers of one name, that of the account last used by hand
                _set_state(first=_file(None, ".conf").name)
            _write(include_path(), _include())
        except OSError as error:
            raise ConfigError(f"{folder() / 'gpudev'} cannot be written: {error}") from error
    finally:
        _release()
    if "include" not in _state():
        enable()


def enable() -> None:
    """Add our line before everything else in ``~/.ssh/config``."""
    if not include_path().exists():
        _make_folder(include_path().parent)
        _write(include_path(), _include())
    created = bool(_state().get("created"))
    file = _config_file()
    try:
        before = file.read_bytes() if file.exists() else None
        if before is None:
            created = True
        if not any(line in _lines() for line in (before or b"").splitlines(keepends=True)):
            _write(file, _lines()[0] + (before or b""), 0o600)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be changed: {error}",
            hint=f"Add the line `{_lines()[0].decode().strip()}` at its top, or use: gpu-dev ssh NAME",
        ) from error
    _set_state(include=True, created=created)


def disable() -> None:
    """Take our line away again; every other byte of ``~/.ssh/config`` stays."""
    file = _config_file()
    try:
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        ours = next((number for number, line in enumerate(lines) if line in _lines()), None)
        if ours is not None:
            del lines[ours]
            if not lines and _state().get("created"):
                file.unlink()
            else:
                _write(file, b"".join(lines))
    except OSError as error:
        raise ConfigError(f"{file} cannot be changed: {error}", hint="Take the line out by hand.") from error
    _set_state(include=False, created=False)


def _lines() -> list[bytes]:
    """Our line, in the form that fits here first; ssh takes a relative one from the account's own home."""
    short, long = b"Include gpudev/config\n", f"Include {_quoted(include_path())}\n".encode()
    return [short, long] if Path(pwd.getpwuid(os.getuid()).pw_dir) == Path.home() else [long, short]


def _config_file() -> Path:
    """The user's file itself, should a link lead to it."""
    _make_folder(folder())
    return Path(os.path.realpath(config_path()))


def _hosts_folder() -> Path:
    return folder() / "gpudev" / "hosts"


def _file(account: Path | None, suffix: str) -> Path:
    name = os.fsencode((account or configuration()).absolute())
    return _hosts_folder() / (hashlib.sha256(name).hexdigest()[:12] + suffix)


def _include() -> str:
    """Contents of our file. No ssh token stands in the command: what a user types never reaches a shell."""
    lines = ["# Written by gpu-dev; `gpu-dev ssh-config disable` takes it out of use."]
    program = Path(sys.executable).parent / "gpu-dev"
    found = str(program) if program.exists() else shutil.which("gpu-dev")
    if found and not re.search(r"['\"\\]", found):  # ssh's own quoting has no way to write those
        word = shlex.quote(found).replace("%", "%%")
        # Where gpu-dev is no longer installed, ssh goes on without a word.
        lines.append(f'Match originalhost gpu-* exec "test ! -x {word} || {word} ssh-sync"')
    lines.append("Match all")
    first = _state().get("first")
    lines += [f"Include {_quoted(_hosts_folder() / name)}" for name in (first, "*.conf") if name]
    return "\n".join(lines) + "\n"


def _known_hosts(access: SshAccess) -> str:
    line = access.known_hosts.strip()
    if not _KNOWN_HOSTS.fullmatch(line):
        raise UnexpectedAnswer(f"The service sent no host CA but {line[:80]!r}.")
    return line + "\n"


def _blocks(access: SshAccess, known_hosts: Path) -> str:
    if not access.hosts:
        return "# There is no server to enter at the moment.\n"
    keys = _identity(access)
    blocks = []
    for host in access.hosts:
        _check(host)
        # The id always works, whatever the name.
        short = f"gpu-{host.host_key_alias}"
        names = host.alias if host.alias == short else f"{host.alias} {short}"
        lines = [
            *([_UNTIL + host.ends_at] if host.ends_at else []),
            f"Host {names}",
            f"  HostName {host.host}",
            f"  Port {host.port}",
            f"  HostKeyAlias {host.host_key_alias}",
            f"  User {host.user}",
            *(f"  IdentityFile {_quoted(key)}" for key in keys),
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {_quoted(known_hosts)}",
            "  GlobalKnownHostsFile /dev/null",
            "  StrictHostKeyChecking yes",
            "  UpdateHostKeys no",
            "  ServerAliveInterval 30",
            "  ServerAliveCountMax 6",
            "  ConnectTimeout 20",
        ]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _drop_ended(file: Path) -> None:
    """Leave out the blocks of servers whose end is past; RFC 3339 in UTC sorts by time."""
    try:
        text = file.read_text("utf-8")
    except OSError:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    blocks = text.split("\n\n")
    live = [
        block
        for block in blocks
        if not block.startswith(_UNTIL) or block.partition("\n")[0].removeprefix(_UNTIL) > now
    ]
    if live != blocks:
        _write(file, "\n\n".join(live))


def _identity(access: SshAccess) -> list[Path]:
    if access.identity_file is None:
        return sshkeys.choose(folder(), access.accepted_keys)
    path = Path(access.identity_file)
    if not path.is_absolute() or any(not letter.isprintable() or letter == '"' for letter in str(path)):
        raise UnexpectedAnswer(f"The service named no key file but {access.identity_file[:80]!r}.")
    return [path]


def _check(host: SshHost) -> None:
    """What the service sends goes into a file that can run programs: let nothing in but names and numbers."""
    fields: list[tuple[str, str, re.Pattern[str]]] = [
        ("alias", host.alias, _ALIAS),
        ("host key alias", host.host_key_alias, _NAME),
        ("host", host.host, _HOST),
        ("user", host.user, _USER),
    ]
    for what, value, pattern in fields:
        if len(value) > 255 or not pattern.fullmatch(value):
            raise UnexpectedAnswer(f"The service sent a server whose {what} is {value[:80]!r}.")
    if host.ends_at is not None and not _INSTANT.fullmatch(host.ends_at):
        raise UnexpectedAnswer(f"The service sent a server that ends at {host.ends_at[:80]!r}.")
    if not 0 < host.port < 65536:
        raise UnexpectedAnswer(f"The service sent a server at port {host.port}.")


def _quoted(path: Path) -> str:
    """A path as ssh's configuration takes it."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s']", text) else text


def _state() -> dict[str, Any]:
    try:
        state = json.loads((folder() / "gpudev" / "state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _set_state(**values: bool | str) -> None:
    _make_folder(folder() / "gpudev")
    _write(folder() / "gpudev" / "state.json", json.dumps(_state() | values) + "\n")


def _make_folder(path: Path) -> None:
    for one in (folder(), folder() / "gpudev", path):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)


def _release() -> None:
    global _held
    if _held is not None:
        os.close(_held)
        _held = None


def _write(path: Path, content: str | bytes, mode: int = 0o600) -> None:
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
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
