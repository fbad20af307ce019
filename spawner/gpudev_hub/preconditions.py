"""What keeps a hub on this machine from starting, found before anything is started, made or changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from .clock import Clock
from .cluster.gpus import Gpus, PretendedGpus
from .cluster.pools import find_gpus, local_policy
from .cluster.servers import LocalServers
from .core.model import Claim, Millis, Policy, Presence
from .core.ports import ServerSight
from .core.words import listing
from .service.reconcile import refuse_running
from .settings import Settings
from .ssh.keygen import KeygenFailed, public_of, ssh_keygen
from .state import StateUnusable
from .stores.sqlite import SqliteStore

SHORTEST: Final = {"password": 32, "demo-password": 8}
"""Characters that JupyterHub requires of passwords."""
_KEY_BYTES: Final = 32
_SQLITE: Final = b"SQLite format 3\0"


class GpusMissing(Exception):
    """Reservations hold GPUs that this machine would not offer."""


async def check(settings: Settings) -> None:
    """Return if a hub can go on from this state folder, which must be locked.

    Raises ``StateUnusable``, ``GpusUnavailable``, ``StoreLocked``, ``StoreUnavailable``, ``StoreEmpty``,
    ``StoreBehind``, ``ClockBehind`` or ``GpusMissing``; the message says what to do.
    """
    _check_secrets(settings.state / "secrets")
    _check_host_ca(settings.state / "ssh" / "host_ca")
    _check_hub(settings.hub)
    gpus = find_gpus(settings)
    policy = local_policy(gpus, settings)
    store = SqliteStore(settings.database)
    try:
        snapshot = await store.read()
    finally:
        await store.close()
    clock = Clock()
    clock.behind(snapshot.at)
    if not snapshot.n:
        refuse_running(running(LocalServers(settings.servers)))
    _check_gpus(snapshot.claims.values(), gpus, policy, clock.now())


def running(servers: LocalServers) -> Iterator[ServerSight]:
    """Every attempt of which anything runs, or may run."""
    for found in servers.attempts() if servers.root.exists() else []:
        try:
            sight = servers.look(*found)
        except (OSError, ValueError):
            sight = ServerSight(*found, presence=Presence.UNKNOWN)
        if sight.presence is not Presence.ABSENT:
            yield sight


def _check_secrets(folder: Path) -> None:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*")):
        content = _content(path)
        if path.name == "server-tokens":
            if len(content) != _KEY_BYTES:
                raise StateUnusable(
                    f"{path} should hold {_KEY_BYTES} bytes and holds {len(content)}: "
                    "put it back from a back-up, or end the servers and remove it"
                )
            continue
        try:
            text = content.decode().strip()
        except UnicodeDecodeError:
            raise StateUnusable(f"{path} is no text: remove it, and a new secret is made") from None
        if not text:
            raise StateUnusable(f"{path} is empty: remove it, and a new secret is made")
        if len(text) < SHORTEST.get(path.name, 1):
            raise StateUnusable(
                f"{path} holds {len(text)} characters: "
                f"write {SHORTEST[path.name]} or more into it, or remove it"
            )
        found[path.name] = text
    if "password" in found and found["password"] == found.get("demo-password"):
        raise StateUnusable(f"password and demo-password in {folder} are the same: change one of them")


def _check_host_ca(key: Path) -> None:
    """A new CA would lock everybody out of the servers that run."""
    public = public_of(key)
    if not key.exists():
        if public.exists():
            raise StateUnusable(
                f"{key} is gone: put it back from a back-up, or remove {public} to make a new one"
            )
        return
    try:
        derived = ssh_keygen("-y", "-P", "", "-f", str(key)).split()[:2]
    except KeygenFailed as error:
        raise StateUnusable(f"{key} can't be used ({error}): put it back from a back-up") from error
    if public.exists() and _content(public).decode(errors="replace").split()[:2] != derived:
        raise StateUnusable(f"{public} does not belong to {key}: remove it, and it is made again")


def _check_hub(folder: Path) -> None:
    database, secret = folder / "jupyterhub.sqlite", folder / "cookie_secret"
    if database.exists() and _content(database)[: len(_SQLITE)] not in (b"", _SQLITE):
        raise StateUnusable(f"{database} is no database: put it back from a back-up, or remove it")
    if secret.exists() and not re.fullmatch(rb"([0-9A-Fa-f]{2})*\s*", _content(secret)):
        raise StateUnusable(f"{secret} is no hexadecimal text: remove it, and a new one is made")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateUnusable(f"{path} can't be read ({error.strerror}): repair or remove it") from error


def _check_gpus(claims: Collection[Claim], gpus: Gpus, policy: Policy, now: Millis) -> None:
    """Nodes that are not offered any more count as lost, and so does what runs on them.

    A single real GPU that is gone is no setting: the service deals with that.
    """
    pools = {pool.name for pool in policy.pools}
    offered = gpus.count()
    pretended = isinstance(gpus, PretendedGpus)
    missing = {
        f"{claim.reservation} ({part.node}, {claim.pool})"
        for claim in claims
        if claim.hard_end > now
        for part in claim.allocation
        if claim.pool not in pools
        or part.node not in offered
        or (pretended and max(part.slots) >= offered[part.node])
    }
    if missing:
        nodes = listing([f"{count} on {node}" for node, count in sorted(offered.items())], "and")
        raise GpusMissing(
            f"reservations hold GPUs that would not be there: {listing(sorted(missing)[:5], 'and')}. "
            f"This start offers GPUs of {listing(sorted(pools), 'and')}: {nodes}. Start with the GPUs of "
            "before (GPUDEV_POOL, or the driver), or wait until these reservations have ended. "
            "Nothing was changed"
        )
