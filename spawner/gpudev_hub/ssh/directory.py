"""Whose keys are whose."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from gpudev_hub.core.model import Owner

from .keygen import keep_pair, public_of
from .keys import PublicKey, parse

OWN_FOLDER = "gpudev"
"""Folder in ``~/.ssh`` where ``gpu-dev`` keeps the key that it made for a user who had none."""


class KeyDirectory(Protocol):
    """Knows the keys of an owner. An owner without any gets an empty list, which opens nothing."""

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """His keys as of now."""
        ...

    async def identity_file(self, owner: Owner) -> Path | None:
        """A private key on this machine that was made for him; ``None``: he has his own."""
        ...


class LocalDirectory:
    """One machine: the local user's keys are those in his ``~/.ssh``, each demo user has one made for him."""

    def __init__(self, local_subject: str, ssh_folder: Path, demo_folder: Path) -> None:
        """``demo_folder``: private, in the state folder."""
        self._local = local_subject
        self._ssh = ssh_folder
        self._demo = demo_folder

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """Read anew each time: a key made a moment ago must work at the first try."""
        return await asyncio.to_thread(self._read, owner)

    async def identity_file(self, owner: Owner) -> Path | None:
        """Demo users' keys; made when first asked for."""
        if owner.subject == self._local:
            return None
        return await asyncio.to_thread(self._demo_key, owner)

    def _read(self, owner: Owner) -> list[PublicKey]:
        if owner.subject != self._local:
            return parse(public_of(self._demo_key(owner)).read_text())
        found: dict[PublicKey, None] = {}
        for folder in (self._ssh / OWN_FOLDER, self._ssh):
            for path in sorted(folder.glob("*.pub")):
                # A public key alone may be anybody's; he who has the private part beside it is its owner.
                # Opening a named pipe would wait for its writer.
                if not path.with_suffix("").exists() or not path.is_file():
                    continue
                try:
                    text = path.read_text()
                except (OSError, UnicodeDecodeError):
                    continue
                found.update(dict.fromkeys(parse(text)))
        return list(found)

    def _demo_key(self, owner: Owner) -> Path:
        path = self._demo / quote(owner.hub_user, safe="") / "id_ed25519"
        keep_pair(path, f"gpudev-demo-{quote(owner.hub_user, safe='')}")
        return path


class KeyFolder:
    """A folder with one file per user of the Hub, in ``authorized_keys`` format, without options."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """Read anew each time; a user without a file has no keys."""
        return await asyncio.to_thread(self._read, owner)

    async def identity_file(self, owner: Owner) -> Path | None:  # noqa: ARG002
        """Everybody has his own."""
        return None

    def _read(self, owner: Owner) -> list[PublicKey]:
        try:
            return parse((self._folder / quote(owner.hub_user, safe="@")).read_text())
        except (FileNotFoundError, UnicodeDecodeError):
            return []
