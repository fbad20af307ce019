"""Who may enter which server: decided from the live state at each request, and refused when in doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote

from gpudev.wire import RefusedKey, SshAccess, SshBastion, SshClosed, SshHost
from gpudev_hub.core.model import SECOND, Millis, Owner, Reservation, State
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.core.views.ssh_aliases import aliases
from gpudev_hub.server.gang import alias as rank_alias
from gpudev_hub.times import instant

from .directory import KeyDirectory
from .keys import PublicKey

_OPEN = (State.STARTING, State.READY)


class LiveState(Protocol):
    """The part of the service's view that is needed here."""

    @property
    def reservations(self) -> Mapping[str, Reservation]:
        """Live reservations by id."""

    def sight(self, id: str) -> ServerSight | None:
        """Return where the server of the current attempt listens; ``None`` while it is not observed."""


def entrants(record: Reservation) -> tuple[Owner, ...]:
    """Return who may enter the server of a reservation, the owner first."""
    return (record.owner, *(Owner(guest.subject, guest.hub_user, guest.login) for guest in record.guests))


def is_open(record: Reservation, now: Millis) -> bool:
    """Return whether anybody may enter the server of a reservation now."""
    return record.state in _OPEN and (record.ends_at is None or now < record.ends_at)


def expiry(seconds: int) -> str:
    """Return the option of ``authorized_keys`` that ends a line, by the clock of the machine of sshd."""
    return f'expiry-time="{datetime.fromtimestamp(seconds, UTC):%Y%m%d%H%M%SZ}"'


@dataclass(frozen=True, slots=True)
class Access:
    """Answers the API, and the key look-ups of the servers' sshd."""

    state: LiveState
    directory: KeyDirectory
    _: KW_ONLY
    known_hosts: str
    user: str
    """The account that servers run as."""
    now: Callable[[], Millis]
    on_machine: Callable[[Millis], Millis]
    """Returns what the clock of the servers shows at an instant."""
    allowed: Callable[[str], bool] = lambda _: True
    """Returns whether a subject may use the service now."""
    let_in: Callable[[str, str], None] = lambda _, __: None
    """Called with subject and fingerprint for each key that opens a connection."""
    bastion: SshBastion | None = None
    """How clients reach servers."""

    async def hosts(self, owner: Owner) -> SshAccess:
        """Return the servers that ``owner`` may enter now, and what their SSH client needs."""
        identity = await self.directory.identity_file(owner)
        # Before ``keys``, because this looks for new keys.
        refused = await self.directory.rejected(owner)
        keys = await self.directory.keys(owner)
        hosts, closed = self._names(owner)
        return SshAccess(
            known_hosts=self.known_hosts,
            hosts=hosts,
            closed=closed,
            identity_file=None if identity is None else str(identity),
            accepted_keys=[key.fingerprint for key in keys],
            refused_keys=[RefusedKey(key=key.summary, reason=key.reason) for key in refused],
            bastion=self.bastion,
        )

    async def authorized_keys(self, id: str, fingerprint: str) -> list[str]:
        """Return the lines for ``authorized_keys`` that let the key into server ``id`` now; none: refused.

        The comment of each line says whose key it is, for the server's record of its connections.
        """
        found: list[tuple[str, PublicKey]] = []
        for person in self._people(id):
            keys = await self.directory.keys(person)
            found += [(person.subject, key) for key in keys if key.fingerprint == fingerprint]
        # Check again: access may have changed while the keys were read.
        record, may = self._open(id), {person.subject for person in self._people(id)}
        lines = []
        for subject, key in found:
            if record is None or subject not in may:
                continue
            options, comment = "", f" subject={quote(subject, safe=':@')}"
            if record.ends_at is not None:
                # sshd and the banner compare with the clock of their machine.
                seconds = self.on_machine(record.ends_at) // SECOND
                options = f"{expiry(seconds)} "
                comment += f" ends={seconds}"
            self.let_in(subject, fingerprint)
            lines.append(f"{options}{key.line}{comment}")
        return lines

    def _people(self, id: str) -> list[Owner]:
        record = self._open(id)
        if record is None:
            return []
        return [person for person in entrants(record) if self.allowed(person.subject)]

    def _open(self, id: str) -> Reservation | None:
        record = self.state.reservations.get(id)
        return record if record is not None and is_open(record, self.now()) else None

    def _names(self, owner: Owner) -> tuple[list[SshHost], list[SshClosed]]:
        """Return the servers that can be entered, and the names without a server now."""
        live = self.state.reservations.values() if self.allowed(owner.subject) else ()
        own = [record for record in live if record.owner.subject == owner.subject]
        shared = [record for record in live if record.guest(owner.subject) is not None]
        names = aliases(own, shared)
        hosts, closed = [], []
        for record in sorted([*own, *shared], key=lambda record: record.seq):
            sight = self.state.sight(record.id) if self._open(record.id) is not None else None
            for rank, alias in enumerate(names[record.id]):
                if sight is None or rank not in sight.sshd:
                    closed.append(SshClosed(alias=alias, id=record.id))
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
                        user=self.user,
                        host_key_alias=rank_alias(record.id, rank),
                        ends_at=instant(record.ends_at),
                        owner="" if record.owner.subject == owner.subject else record.owner.login,
                    )
                )
        return hosts, closed
