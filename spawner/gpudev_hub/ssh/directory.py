"""Which SSH keys belong to whom."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from gpudev_hub.core.model import Owner

from .keygen import keep_pair, public_of
from .keys import PublicKey, RefusedKey, judge

OWN_FOLDER = "gpudev"
"""Folder in ``~/.ssh`` with the key that ``gpu-dev`` creates for users without one."""

_LARGEST = 1 << 16
"""Most characters read from a file: a large file must not fill the service's memory."""


class KeyDirectory(Protocol):
    """Knows the keys of owners."""

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """Return the owner's current keys; an empty list opens nothing."""

    def known(self, owner: Owner) -> bool:
        """Return whether an empty list means that there are no keys, not that they are unknown now."""

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        """Return the owner's keys that open nothing, with reasons. Looks for keys added a moment ago."""

    async def identity_file(self, owner: Owner) -> Path | None:
        """Return the private key that was created for the owner here; ``None``: they have their own."""


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """The keys on one machine: those in the local user's ``~/.ssh``, and a created key per demo user."""

    local_subject: str
    ssh_folder: Path
    demo_folder: Path
    """Private, in the state folder."""

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """Read the files each time: a key created a moment ago must work at once."""
        return (await asyncio.to_thread(self._read, owner))[0]

    def known(self, owner: Owner) -> bool:  # noqa: ARG002
        """Return true: files of this machine can always be read."""
        return True

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        """Return the keys in the local user's files that sshd would not accept, for example weak keys."""
        return (await asyncio.to_thread(self._read, owner))[1]

    async def identity_file(self, owner: Owner) -> Path | None:
        """Return a demo user's key, created at the first call."""
        if owner.subject == self.local_subject:
            return None
        return await asyncio.to_thread(self._demo_key, owner)

    def _read(self, owner: Owner) -> tuple[list[PublicKey], list[RefusedKey]]:
        if owner.subject != self.local_subject:
            return judge(public_of(self._demo_key(owner)).read_text())
        found: dict[PublicKey, None] = {}
        refused: dict[RefusedKey, None] = {}
        for folder in (self.ssh_folder / OWN_FOLDER, self.ssh_folder):
            for path in sorted(folder.glob("*.pub")):
                # A public key without its private key may belong to somebody else.
                # Opening a named pipe would wait for its writer.
                if not path.with_suffix("").exists() or not path.is_file():
                    continue
                try:
                    with path.open(encoding="utf-8") as file:
                        text = file.read(_LARGEST)
                except (OSError, UnicodeDecodeError):
                    continue
                good, bad = judge(text)
                found.update(dict.fromkeys(good))
                refused.update({RefusedKey(f"{path.name}: {key.summary}", key.reason): None for key in bad})
        return list(found), list(refused)

    def _demo_key(self, owner: Owner) -> Path:
        path = self.demo_folder / quote(owner.hub_user, safe="") / "id_ed25519"
        keep_pair(path, f"gpudev-demo-{quote(owner.hub_user, safe='')}")
        return path
