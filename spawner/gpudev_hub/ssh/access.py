"""Who may enter which server: decided from live state at the moment of asking, closed when unsure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from gpudev_hub.core.aliases import aliases
from gpudev_hub.core.model import SECOND, Millis, Owner, Reservation, State
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.server.gang import alias as rank_alias

from .directory import KeyDirectory

_OPEN = (State.STARTING, State.READY)


class LiveState(Protocol):
    """What of the service's view is needed here."""

    @property
    def reservations(self) -> Mapping[str, Reservation]:
        """Live reservations by id."""
        ...

    def sight(self, id: str) -> ServerSight | None:
        """Where the server of the current attempt listens; ``None`` while it is not seen."""
        ...


@dataclass(frozen=True, slots=True)
class SshHost:
    """One sshd that its owner may enter."""

    id: str
    name: str | None
    alias: str
    """``gpu-NAME``, or ``gpu-ID`` where there is no name; with ``-RANK`` from rank 1 on."""
    rank: int
    host: str
    port: int
    user: str
    host_key_alias: str
    ends_at: Millis | None


@dataclass(frozen=True, slots=True)
class SshClosed:
    """A name of a live reservation that leads to no server now."""

    alias: str
    id: str


@dataclass(frozen=True, slots=True)
class SshAccess:
    """All that an owner's SSH client needs."""

    known_hosts: str
    hosts: tuple[SshHost, ...]
    closed: tuple[SshClosed, ...]
    identity_file: str | None
    accepted_keys: tuple[str, ...]


class Access:
    """Answers for the API and for sshd's key look-ups."""

    def __init__(
        self,
        state: LiveState,
        directory: KeyDirectory,
        *,
        known_hosts: str,
        user: str,
        now: Callable[[], Millis],
    ) -> None:
        """``user``: the account that servers run as."""
        self._state = state
        self._directory = directory
        self._known_hosts = known_hosts
        self._user = user
        self._now = now

    async def hosts(self, owner: Owner) -> SshAccess:
        """The servers that ``owner`` may enter now, and what his SSH client needs for it."""
        identity = await self._directory.identity_file(owner)
        keys = await self._directory.keys(owner)
        hosts, closed = self._names(owner)
        return SshAccess(
            known_hosts=self._known_hosts,
            hosts=tuple(hosts),
            closed=tuple(closed),
            identity_file=None if identity is None else str(identity),
            accepted_keys=tuple(key.fingerprint for key in keys),
        )

    async def authorized_keys(self, id: str, fingerprint: str) -> list[str]:
        """Lines for ``authorized_keys`` that let the key in to server ``id`` right now; none: closed."""
        record = self._open(id)
        if record is None:
            return []
        keys = await self._directory.keys(record.owner)
        # The directory may have taken its time: what counts is whether the server is open now.
        record = self._open(id)
        if record is None:
            return []
        options, comment = "", ""
        if record.ends_at is not None:
            end = datetime.fromtimestamp(record.ends_at // SECOND, UTC)
            options = f'expiry-time="{end:%Y%m%d%H%M%SZ}" '
            comment = f" ends={record.ends_at // SECOND}"
        return [f"{options}{key.line}{comment}" for key in keys if key.fingerprint == fingerprint]

    def _open(self, id: str) -> Reservation | None:
        record = self._state.reservations.get(id)
        if record is None or record.state not in _OPEN:
            return None
        if record.ends_at is not None and record.ends_at <= self._now():
            return None
        return record

    def _names(self, owner: Owner) -> tuple[list[SshHost], list[SshClosed]]:
        """The servers that can be entered, and the names that lead nowhere now."""
        records = [
            record for record in self._state.reservations.values() if record.owner.subject == owner.subject
        ]
        names = aliases(records)
        hosts, closed = [], []
        for record in sorted(records, key=lambda record: record.seq):
            sight = self._state.sight(record.id) if self._open(record.id) is not None else None
            for rank, alias in enumerate(names[record.id]):
                if sight is None or rank not in sight.sshd:
                    closed.append(SshClosed(alias, record.id))
                    continue
                host, port = sight.sshd[rank]
                hosts.append(
                    SshHost(
                        id=record.id,
                        name=record.request.name,
                        alias=alias,
                        rank=rank,
                        host=host,
                        port=port,
                        user=self._user,
                        host_key_alias=rank_alias(record.id, rank),
                        ends_at=record.ends_at,
                    )
                )
        return hosts, closed
