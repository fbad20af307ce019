"""Whose keys are whose."""

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
"""Folder in ``~/.ssh`` where ``gpu-dev`` keeps the key that it made for a user who had none."""


_LARGEST = 1 << 16
"""Most characters read of a file: whatever its user left there must not fill the service's memory."""


class KeyDirectory(Protocol):
    """Knows the keys of an owner. An owner without any gets an empty list, which opens nothing."""

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """His keys as of now."""

    def known(self, owner: Owner) -> bool:
        """Return whether an empty list means that there are no keys, not that nobody knows them now."""

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        """Return the owner's keys that open nothing, each with the reason.

        The owner asks for this, so keys added a moment ago are looked for.
        """

    async def identity_file(self, owner: Owner) -> Path | None:
        """A private key on this machine that was made for him; ``None``: he has his own."""


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """One machine: the local user's keys are those in his ``~/.ssh``, each demo user has one made for him."""

    local_subject: str
    ssh_folder: Path
    demo_folder: Path
    """Private, in the state folder."""

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """Read anew each time: a key made a moment ago must work at the first try."""
        return (await asyncio.to_thread(self._read, owner))[0]

    def known(self, owner: Owner) -> bool:  # noqa: ARG002
        """Files of this machine say it."""
        return True

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        """Those of the local user's files that sshd would not accept, too weak ones for example."""
        return (await asyncio.to_thread(self._read, owner))[1]

    async def identity_file(self, owner: Owner) -> Path | None:
        """Demo users' keys; made when first asked for."""
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
                # A public key alone may be anybody's; he who has the private part beside it is its owner.
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
