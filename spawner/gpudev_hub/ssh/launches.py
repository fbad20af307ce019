"""What an engine needs to start an admitted attempt: the server's token, host keys, certificates."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import msgspec

from gpudev_hub.core.gate import Launch, SshMaterial
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.policy import Policy
from gpudev_hub.server.gang import alias
from gpudev_hub.server.private import write

from .ca import HostCA
from .keygen import clear_scratch, new_pair


def keep_secret(path: Path) -> bytes:
    """Return the 32 random bytes in a file, which is created if it does not exist."""
    try:
        value = path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        value = secrets.token_bytes(32)
        write(path, value, durable=True)
    if len(value) != 32:
        raise ValueError(f"{path} has {len(value)} bytes instead of 32")
    return value


class ServerTokens:
    """Tokens for one attempt of one reservation. They are keyed hashes, so none has to be stored."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, id: str, attempt: int) -> str:
        """Return the token of an attempt, always the same."""
        message = f"gpudev server token 1\n{id}\n{attempt}".encode()
        digest = hmac.new(self._key, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def verify(self, id: str, attempt: int, token: str) -> bool:
        """Return whether this is the token of an attempt, in constant time."""
        return hmac.compare_digest(self.make(id, attempt).encode(), token.encode())


@dataclass(slots=True)
class Launches:
    """Makes launches. Keys are created once per attempt and kept, so that a launch never changes."""

    folder: Path
    _: KW_ONLY
    ca: HostCA
    tokens: ServerTokens
    policy: Policy
    service_url: str
    """Where servers reach the service, ``…/services/gpudev/``."""
    devices: Callable[[str], dict[str, str]] = lambda _: {}
    """Returns devices of a node other than GPUs, for a server of several whole nodes."""
    _making: dict[tuple[str, int], asyncio.Lock] = field(default_factory=dict)
    _cleared: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def make(self, reservation: Reservation) -> Launch:
        """Return the launch of the current attempt, the same at each call."""
        if not reservation.allocation or reservation.ends_at is None:
            raise ValueError(f"{reservation.id} has no slots, so there is nothing to start")
        key = (reservation.id, reservation.attempt)
        lock = self._making.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                ssh = await asyncio.to_thread(self._material, *key, len(reservation.allocation))
        finally:
            if not lock.locked():
                self._making.pop(key, None)
        request = reservation.request
        return Launch(
            id=reservation.id,
            attempt=reservation.attempt,
            name=request.name,
            subject=reservation.owner.subject,
            hub_user=reservation.owner.hub_user,
            gpu_type=request.pool,
            gpus=request.shape.gpus,
            allocation=reservation.allocation,
            simulated=self.policy.pool(request.pool).simulated,
            image=request.image,
            ends_at=reservation.ends_at,
            token=self.tokens.make(*key),
            service_url=self.service_url,
            known_hosts=self.ca.known_hosts,
            ssh=ssh,
            devices=tuple(self.devices(part.node) for part in reservation.allocation)
            if request.shape.nodes > 1
            else (),
        )

    def _material(self, id: str, attempt: int, ranks: int) -> tuple[SshMaterial, ...]:
        path = self.folder / f"{id}-{attempt}.json"
        with suppress(FileNotFoundError):
            return msgspec.json.decode(path.read_bytes(), type=tuple[SshMaterial, ...])
        gang = new_pair(f"gpudev-gang-{id}", self.folder) if ranks > 1 else (None, None)
        material = []
        for rank in range(ranks):
            name = alias(id, rank)
            private, public = new_pair(name, self.folder)
            certificate = self.ca.sign(public, [name])
            material.append(SshMaterial(private, certificate, *gang))
        write(path, msgspec.json.encode(material), durable=True)
        return tuple(material)

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Remove the keys of attempts without slots: their servers are gone."""
        if not self._cleared:
            # Left by a service that was killed. This service creates no keys before its first pass.
            clear_scratch(self.folder.parent)
            self._cleared = True
        for path in self.folder.glob("*.json"):
            reservation, _, attempt = path.stem.rpartition("-")
            key = (reservation, int(attempt))
            if key not in held and key not in self._making:
                path.unlink(missing_ok=True)
