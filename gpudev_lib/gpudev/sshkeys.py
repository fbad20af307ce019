"""Choice of the SSH key to offer: a key of the user that works without a prompt, or a new key."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gpudev.errors import GpuDevError, UnexpectedAnswer, cause
from gpudev.sshfiles import give, make_folder
from gpudev.wire import SshAccess

_AGENT_PATIENCE = 2.0
"""Timeout of ssh-add in seconds."""
_PATIENCE = 5.0
"""Timeout of ssh-keygen in seconds."""


def choose(folder: Path, accepted: Iterable[str]) -> list[Path]:
    """Return private keys in ``~/.ssh`` (`folder`) to offer, best first. `accepted`: SHA256 fingerprints.

    ssh asks for the passphrase of a key that no agent holds, and refuses a damaged key or one that others can
    read. So the key in ``gpudev/`` comes before such keys. It is created if needed.
    """
    _make_private(_own(folder))
    wanted = set(accepted)
    ready: list[Path] = []
    asking: list[Path] = []
    held = agent_keys()
    for path in _candidates(folder):
        print_ = fingerprint_of(path)
        if print_ not in wanted:
            continue
        (ready if print_ in held or usable(path) else asking).append(path)
    if ready:
        return ready[:1]
    try:
        own = own_key(folder)
        return [own, *(path for path in asking if path != own)]
    except GpuDevError:
        if asking:
            return asking
        raise


def paths(folder: Path) -> dict[str, Path]:
    """Return the keys in ``~/.ssh`` (`folder`) by fingerprint."""
    found = {fingerprint_of(path): path for path in reversed(_candidates(folder))}
    return {key: path for key, path in found.items() if key is not None}


def made_for(access: SshAccess) -> Path | None:
    """Return the private key that the hub made for a demo user, on its own machine; None for other users."""
    if access.identity_file is None:
        return None
    path = Path(access.identity_file)
    if not path.is_absolute() or any(not letter.isprintable() or letter == '"' for letter in str(path)):
        raise UnexpectedAnswer(
            f"The service sent an invalid path of a key file: {access.identity_file[:80]!r}."
        )
    return path


def check_made_for(access: SshAccess) -> None:
    """Raise `GpuDevError` if the hub made a key for the user that cannot be read on this machine."""
    made = made_for(access)
    if made is not None and not os.access(made, os.R_OK):
        raise GpuDevError(
            f"Your only SSH key for this hub is {made} on the machine of the hub, and cannot be read here.",
            hint="Use SSH on the machine of the hub, with the account that runs it.",
            code="no_key",
        )


def own_key(folder: Path) -> Path:
    """Return the key in ``gpudev/`` below `folder`. It is created if it is missing or unusable."""
    path = _own(folder)
    _make_private(path)
    try:
        if path.exists() and not usable(path):
            path.replace(path.with_name(path.name + ".unusable"))
        return path if path.exists() else _make(path)
    except OSError as error:
        raise GpuDevError(
            f"The SSH key {path} cannot be created: {cause(error)}.",
            hint="The hub accepts none of your other SSH keys. Make the folder writable, or free disk space.",
            code="no_key",
        ) from error


def _make(path: Path) -> Path:
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as new:
        key = Path(new) / "key"
        comment = f"gpu-dev@{socket.gethostname()}"
        done = ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key))
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise GpuDevError(f"ssh-keygen could not create an SSH key: {said}", code="no_key")
        if os.geteuid() == 0:
            for part in (key, public(key)):
                give(part, path.parent)
        # The public key goes first: if the private key exists, the pair is complete.
        public(key).replace(public(path))
        key.replace(path)
    return path


def ssh_keygen(
    *arguments: str, given: bytes = b"", timeout: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``ssh-keygen`` with `given` as its input.

    Raises `GpuDevError` if it is not installed, and `subprocess.TimeoutExpired` after `timeout` seconds.
    """
    command = ["ssh-keygen", *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise GpuDevError(
            "ssh-keygen is not installed on this machine.",
            hint="Install the OpenSSH client.",
            code="no_openssh",
        ) from error


def public(path: Path) -> Path:
    """Return the path of the public key for a private key."""
    return path.with_name(path.name + ".pub")


def fingerprint_of(path: Path) -> str | None:
    """Return the SHA256 fingerprint of a key, from its public key file; None if that is not a key."""
    try:
        # Opening a named pipe would block until a writer opens it.
        return _fingerprint_of_line(public(path).read_text("utf-8")) if public(path).is_file() else None
    except (OSError, UnicodeDecodeError):
        return None


def usable(path: Path) -> bool:
    """Return whether ssh can use a private key without a prompt, and its public key file belongs to it.

    The check uses ``ssh-keygen``: like ssh, it refuses a damaged key or one that others can read.
    """
    if not path.is_file():
        return False
    try:
        done = ssh_keygen("-y", "-P", "", "-f", str(path), timeout=_PATIENCE)
    except (GpuDevError, OSError, subprocess.TimeoutExpired):
        return True  # unknown: ssh reports any problem
    found = _fingerprint_of_line(done.stdout.decode("utf-8", "replace"))
    return found is not None and found == fingerprint_of(path)


def agent_keys() -> set[str]:
    """Return the fingerprints of the keys in the user's agent; empty without an agent that answers."""
    if not os.environ.get("SSH_AUTH_SOCK"):
        return set()
    command = ["ssh-add", "-l", "-E", "sha256"]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_AGENT_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return set(re.findall(r"^\d+ (SHA256:\S+)", done.stdout.decode("utf-8", "replace"), re.MULTILINE))


def _candidates(folder: Path) -> list[Path]:
    """Return the keys to consider. The gpudev key comes first, because it has no passphrase."""
    found = [path.with_suffix("") for path in sorted(folder.glob("*.pub"))]
    return [_own(folder), *found]


def _own(folder: Path) -> Path:
    return folder / "gpudev" / "id_ed25519"


def _make_private(path: Path) -> None:
    """Remove other users' access to a key: a restored home can have changed modes."""
    with suppress(OSError):  # the key may not exist, or belong to another account
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)


def _fingerprint_of_line(line: str) -> str | None:
    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except (ValueError, IndexError):
        return None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
