"""Checks whether a hub can start on this machine, before anything is started or changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from .clock import Clock
from .cluster.gpus import Gpus, SimulatedGpus, find_gpus, local_policy
from .cluster.servers import LocalServers
from .core.model import Claim, Millis, Presence
from .core.policy import Policy
from .core.ports import ServerSight, StoreBehind
from .core.words import counted, listing
from .service.reconcile import refuse_running
from .settings import Settings
from .ssh.keygen import KeygenFailed, public_of, ssh_keygen
from .state import StateUnusable
from .stores.sqlite.store import SqliteStore

SHORTEST: Final = {"password": 32, "demo-password": 8}
"""Minimum number of characters that JupyterHub accepts for passwords."""
_KEY_BYTES: Final = 32
_SQLITE: Final = b"SQLite format 3\0"


class GpusMissing(Exception):
    """Reservations hold GPUs that this machine would no longer offer."""


async def check(settings: Settings) -> None:
    """Check that a hub can start from this state folder, which must be locked.

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
    _check_age(snapshot.claims.values(), LocalServers(settings.servers))
    _check_gpus(snapshot.claims.values(), gpus, policy, clock.now())


def _check_age(claims: Collection[Claim], servers: LocalServers) -> None:
    """Raise ``StoreBehind`` if servers run that the state folder does not know: their GPUs look free."""
    known = {(claim.reservation, claim.attempt) for claim in claims}
    strange = {key: pid for key, pid in servers.unrecorded().items() if key not in known}
    if strange:
        names = listing([f"{server}/{attempt}" for server, attempt in sorted(strange)[:5]], "and")
        pids = " ".join(str(pid) for pid in sorted(strange.values()))
        raise StoreBehind(
            f"Servers started from {servers.root} still run ({len(strange)}: {names}), but the state folder "
            "does not know them: it is an older copy. Restore the latest copy. If it is lost, end these "
            f"servers (kill {pids}) and start again. Nothing was changed"
        )


def running(servers: LocalServers) -> Iterator[ServerSight]:
    """Yield every attempt that runs or may run."""
    for found in servers.attempts() if servers.root.exists() else []:
        try:
            sight = servers.look(*found)
        except (OSError, ValueError):
            sight = ServerSight(*found, presence=Presence.UNKNOWN)
        if sight.presence is not Presence.ABSENT:
            yield sight


NEW_SECRET = "remove it to get a new secret"


def _check_secrets(folder: Path) -> None:
    found: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*")):
        content = _content(path)
        if path.name == "server-tokens":
            if len(content) != _KEY_BYTES:
                raise StateUnusable(
                    f"{path} has {counted(len(content), 'byte')} instead of {_KEY_BYTES}: "
                    "restore it from a backup, or end the servers and remove it"
                )
            continue
        try:
            text = content.decode().strip()
        except UnicodeDecodeError:
            raise StateUnusable(f"{path} is not a text file: {NEW_SECRET}") from None
        if not text:
            raise StateUnusable(f"{path} is empty: {NEW_SECRET}")
        if len(text) < SHORTEST.get(path.name, 1):
            raise StateUnusable(
                f"{path} has {counted(len(text), 'character')}; the minimum is {SHORTEST[path.name]}: "
                "write a longer secret into it, or remove it to get a new secret"
            )
        found[path.name] = text
    if "password" in found and found["password"] == found.get("demo-password"):
        raise StateUnusable(f"password and demo-password in {folder} are the same: change one of them")


def _check_host_ca(key: Path) -> None:
    """Raise ``StateUnusable`` if the CA is damaged. A new CA would lock users out of their servers."""
    public = public_of(key)
    if not key.exists():
        if public.exists():
            raise StateUnusable(
                f"{key} does not exist: restore it from a backup, or remove {public} to get a new key"
            )
        return
    try:
        derived = ssh_keygen("-y", "-P", "", "-f", str(key)).split()[:2]
    except KeygenFailed as error:
        raise StateUnusable(f"{key} cannot be used ({error}): restore it from a backup") from error
    if public.exists() and _content(public).decode(errors="replace").split()[:2] != derived:
        raise StateUnusable(f"{public} does not belong to {key}: remove {public}, and it is made again")


def _check_hub(folder: Path) -> None:
    database, secret = folder / "jupyterhub.sqlite", folder / "cookie_secret"
    if database.exists() and _content(database)[: len(_SQLITE)] not in (b"", _SQLITE):
        raise StateUnusable(f"{database} is not a database: restore it from a backup, or remove it")
    if secret.exists() and not re.fullmatch(rb"([0-9A-Fa-f]{2})*\s*", _content(secret)):
        raise StateUnusable(f"{secret} is not hexadecimal text: {NEW_SECRET}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateUnusable(f"{path} cannot be read ({error.strerror}): repair or remove it") from error


def _check_gpus(claims: Collection[Claim], gpus: Gpus, policy: Policy, now: Millis) -> None:
    """Raise ``GpusMissing`` if nodes in use are no longer offered, because they would count as lost.

    The failure of a single real GPU is left to the service.
    """
    pools = {pool.name for pool in policy.pools}
    offered = gpus.count()
    simulated = isinstance(gpus, SimulatedGpus)
    missing = {
        f"{claim.reservation} ({part.node}, {claim.pool})"
        for claim in claims
        if claim.hard_end > now
        for part in claim.allocation
        if claim.pool not in pools
        or part.node not in offered
        or (simulated and max(part.slots) >= offered[part.node])
    }
    if missing:
        nodes = listing([f"{count} on {node}" for node, count in sorted(offered.items())], "and")
        raise GpusMissing(
            "reservations hold GPUs that are not available in this start: "
            f"{listing(sorted(missing)[:5], 'and')}. Available are GPUs of "
            f"{listing(sorted(pools), 'and')}: {nodes}. Start with the same GPUs as before "
            "(GPUDEV_POOL, or the driver), or wait until these reservations have ended. Nothing was changed"
        )
