"""Which of the user's SSH keys to offer: one that servers accept without a question, or one of our own."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gpudev.errors import GpuDevError
from gpudev.sshfiles import give, make_folder

_AGENT_LIST, _AGENT_ANSWER = 11, 12
_PATIENCE = 5.0
"""Seconds for ssh-keygen."""


def choose(folder: Path, accepted: Iterable[str]) -> list[Path]:
    """Private keys to offer, best first, from ``~/.ssh`` (`folder`); `accepted` are SHA256 fingerprints.

    ssh asks for the passphrase of a key that no agent holds, and refuses a damaged key or one that others can
    read. So a key of our own in ``gpudev/`` comes before those, made if need be.
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


def any_accepted(folder: Path, accepted: Iterable[str]) -> bool:
    """Whether one of the keys in ``~/.ssh`` (`folder`) is among the fingerprints `accepted`."""
    return not {fingerprint_of(path) for path in _candidates(folder)}.isdisjoint(accepted)


def needs_agent(path: Path) -> bool:
    """Whether a key asks nothing only because the user's agent holds it."""
    return not usable(path)


def own_key(folder: Path) -> Path:
    """The key in ``gpudev/`` below `folder`; made if it is not there, made again if ssh cannot use it."""
    path = _own(folder)
    _make_private(path)
    try:
        if path.exists() and not usable(path):
            path.replace(path.with_name(path.name + ".unusable"))
        return path if path.exists() else _make(path)
    except OSError as error:
        raise GpuDevError(
            f"{path} cannot be made: {error}",
            hint="None of your other SSH keys is accepted. Make the folder writable, or free some space.",
            code="no_key",
        ) from error


def _make(path: Path) -> Path:
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as new:
        key = Path(new) / "key"
        comment = f"gpu-dev@{socket.gethostname()}"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise GpuDevError(
                "There is no ssh-keygen here.", hint="Install OpenSSH's client.", code="no_openssh"
            ) from error
        except subprocess.CalledProcessError as error:
            raise GpuDevError(f"No SSH key could be made: {error.stderr.strip()}", code="no_key") from error
        if os.geteuid() == 0:
            for part in (key, public(key)):
                give(part, path.parent)
        # Public part first: where the private one is, the pair is complete.
        public(key).replace(public(path))
        key.replace(path)
    return path


def public(path: Path) -> Path:
    """Where the public part of a key lies."""
    return path.with_name(path.name + ".pub")


def fingerprint_of(path: Path) -> str | None:
    """SHA256 fingerprint of a private key, by the public part beside it; ``None`` where that is no key."""
    try:
        # Opening a named pipe would wait for its writer.
        return _fingerprint_of_line(public(path).read_text("utf-8")) if public(path).is_file() else None
    except (OSError, UnicodeDecodeError):
        return None


def usable(path: Path) -> bool:
    """Whether ssh can use a private key without a question, and the public part beside it belongs to it.

    ``ssh-keygen`` decides: like ssh, it refuses a key that others can read, or that is damaged.
    """
    if not path.is_file():
        return False
    command = ["ssh-keygen", "-y", "-P", "", "-f", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return True  # nothing is known against it: ssh says what is wrong
    found = _fingerprint_of_line(done.stdout.decode("utf-8", "replace"))
    return found is not None and found == fingerprint_of(path)


def agent_keys() -> set[str]:
    """Fingerprints of the keys that the user's agent holds; empty where there is none."""
    address = os.environ.get("SSH_AUTH_SOCK")
    if not address:
        return set()
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(1)
            agent.connect(address)
            agent.sendall(struct.pack(">IB", 1, _AGENT_LIST))
            stream = agent.makefile("rb")
            (size,) = struct.unpack(">I", stream.read(4))
            answer = stream.read(size)
        kind, count = struct.unpack_from(">BI", answer)
        found, at = set[str](), 5
        for _ in range(count if kind == _AGENT_ANSWER else 0):
            (size,) = struct.unpack_from(">I", answer, at)
            found.add(_fingerprint(answer[at + 4 : at + 4 + size]))
            at += 4 + size
            at += 4 + struct.unpack_from(">I", answer, at)[0]  # its comment
    except (OSError, struct.error):
        return set()
    return found


def _candidates(folder: Path) -> list[Path]:
    """Our own key first: nothing else uses it, so nobody has put a passphrase on it."""
    found = [path.with_suffix("") for path in sorted(folder.glob("*.pub"))]
    return [_own(folder), *found]


def _own(folder: Path) -> Path:
    return folder / "gpudev" / "id_ed25519"


def _make_private(path: Path) -> None:
    """Take everyone else's access to a key away: a restored home can have other modes than the original."""
    with suppress(OSError):  # also where it is not there, or belongs to another account
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)


def _fingerprint_of_line(line: str) -> str | None:
    try:
        return _fingerprint(base64.b64decode(line.split()[1], validate=True))
    except (ValueError, IndexError):
        return None


def _fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
