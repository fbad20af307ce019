"""Which of the user's SSH keys to offer: one that servers accept without a question, or one of our own."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gpudev.errors import GpuDevError
from gpudev.sshfiles import give, make_folder

_MAGIC = b"openssh-key-v1\0"
_AGENT_LIST, _AGENT_ANSWER = 11, 12


def choose(folder: Path, accepted: Iterable[str]) -> list[Path]:
    """Private keys to offer, best first, from ``~/.ssh`` (`folder`); `accepted` are SHA256 fingerprints.

    A key with a passphrase that no agent holds would ask for it, so before those comes a key of our own in
    ``gpudev/``, made if need be.
    """
    wanted = set(accepted)
    ready: list[Path] = []
    asking: list[Path] = []
    held = agent_keys()
    for path in _candidates(folder):
        print_ = fingerprint_of(path)
        if print_ not in wanted:
            continue
        (ready if print_ in held or (path.exists() and not locked(path)) else asking).append(path)
    if ready:
        return ready[:1]
    try:
        return [own_key(folder), *asking]
    except GpuDevError:
        if asking:
            return asking
        raise


def needs_agent(path: Path) -> bool:
    """Whether a key asks nothing only because the user's agent holds it."""
    return not path.exists() or locked(path)


def own_key(folder: Path) -> Path:
    """The key in ``gpudev/`` below `folder`; made if it is not there."""
    path = folder / "gpudev" / "id_ed25519"
    if path.exists():
        return path
    try:
        return _make(path)
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
        words = public(path).read_text("utf-8").split()
        return _fingerprint(base64.b64decode(words[1], validate=True))
    except (OSError, ValueError, IndexError, binascii.Error):
        return None


def locked(path: Path) -> bool:
    """Whether a private key has a passphrase (or can't be read, which is no better)."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return True
    if "BEGIN OPENSSH PRIVATE KEY" not in text:
        return "ENCRYPTED" in text
    body = "".join(line for line in text.split("\n") if line and not line.startswith("-----"))
    try:
        data = base64.b64decode(body)
    except binascii.Error:
        return True
    return not data.startswith(_MAGIC + struct.pack(">I", 4) + b"none")


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
    return [folder / "gpudev" / "id_ed25519", *found]


def _fingerprint(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
