"""What the bastion may do: which key opens which targets, which connections must end, and what happened.

The bastion forwards connections to servers, and keeps no state of its own. It asks at each login, and lists
its connections every few seconds. Every answer comes from the current state.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from gpudev_hub.core.model import MINUTE, SECOND, Millis, Owner, Reservation
from gpudev_hub.times import rfc3339

from .access import LiveState, entrants, expiry, is_open
from .directory import KeyDirectory
from .keys import PublicKey

HOST_KEY_ALIAS = "gpudev-bastion"
"""The name in the certificate of every bastion; no reservation has this id."""
FRESH: Millis = SECOND
"""Age up to which a list of everybody's keys also shows that a key is unknown."""
REMEMBERED = 4096
"""Most connections, targets and keys remembered for the audit log."""
LINES = 200
"""Most lines remembered for one reservation."""

Value = TypeVar("Value")

AUDIT = logging.getLogger("gpudev.audit")
log = logging.getLogger(__name__)


_Fingerprint = Annotated[str, msgspec.Meta(pattern="^SHA256:[A-Za-z0-9+/]{43}$")]
_NoFingerprint = Annotated[str, msgspec.Meta(pattern="^(SHA256:[A-Za-z0-9+/]{43})?$")]
_Id = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}-[0-9]{1,20}$")]
_NoId = Annotated[str, msgspec.Meta(pattern="^([0-9]{1,20}-[0-9]{1,20})?$")]
_Target = Annotated[str, msgspec.Meta(max_length=300)]
Instance = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9-]{1,128}$")]
"""Name of one bastion."""
LONGEST_REASON = 200
"""Most characters of a reason."""


class BastionConnection(msgspec.Struct, forbid_unknown_fields=True):
    """A connection that a bastion carries."""

    id: _Id
    """Number and start time of the process that carries it."""
    fingerprint: _Fingerprint
    targets: Sequence[_Target]
    """Targets that were asked for through it, ``HOST:PORT``."""
    permitted: Sequence[_Target] = ()
    """Targets that it may open."""


class BastionEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Something that a bastion logged."""

    at: Annotated[int, msgspec.Meta(ge=0)]
    """Seconds since 1970."""
    instance: Instance
    event: Literal["opened", "asked", "denied", "refused", "closed", "cut"]
    """``asked`` and ``denied`` are about a target."""
    connection: _NoId = ""
    fingerprint: _NoFingerprint = ""
    address: Annotated[str, msgspec.Meta(max_length=64)] = ""
    port: int = 0
    target: _Target = ""
    reason: Annotated[str, msgspec.Meta(max_length=LONGEST_REASON)] = ""
    count: int = 1


@dataclass(slots=True)
class _Known:
    """What is known of a connection from its events."""

    fingerprint: str
    address: str
    port: int
    reservations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Index:
    """Everybody's keys at one moment."""

    built_at: Millis
    owners: Mapping[str, Owner]
    holders: Mapping[str, tuple[str, ...]]
    """Subjects by fingerprint."""
    complete: bool
    """Whether every owner's keys could be read."""


def target(host: str, port: int) -> str:
    """Return a target as ``permitopen`` and ``ssh -W`` write it: sshd compares the strings."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Memory(OrderedDict[str, Value]):
    """Keeps the latest entries."""

    def __setitem__(self, name: str, value: Value) -> None:
        super().__setitem__(name, value)
        self.move_to_end(name)
        if len(self) > REMEMBERED:
            self.popitem(last=False)


@dataclass(slots=True)
class Bastion:
    """Answers bastions."""

    state: LiveState
    directory: KeyDirectory
    _: KW_ONLY
    now: Callable[[], Millis]
    on_machine: Callable[[Millis], Millis]
    refusal: Callable[[Owner], str] = lambda _: ""
    """Returns why a person may not enter; empty if they may."""
    let_in: Callable[[str, str], None] = lambda _subject, _fingerprint: None
    """Called with subject and fingerprint for each key that is let in."""
    _index: _Index | None = None
    _indexing: asyncio.Task[_Index] | None = None
    _targets: _Memory[str] = field(default_factory=_Memory)
    """The latest reservation at each target, also if its server has ended."""
    _refused: _Memory[str] = field(default_factory=_Memory)
    """Why each key was last refused."""
    _people: _Memory[tuple[Owner, ...]] = field(default_factory=_Memory)
    """Who was let in with each key: several people may have the same key."""
    _known: _Memory[_Known] = field(default_factory=_Memory)
    _by_address: _Memory[str] = field(default_factory=_Memory)
    _lines: dict[str, deque[str]] = field(default_factory=dict)
    _asked: dict[str, Millis] = field(default_factory=dict)
    """When each bastion last asked for connections to end."""

    async def authorized_keys(self, fingerprint: str) -> list[str]:
        """Return the lines for ``authorized_keys`` that let the key open its owner's servers; none: refused.

        A key of several people opens the servers of all of them; each server checks the key again.
        """
        holders = await self._holders(fingerprint)
        if not holders:
            self._refused[fingerprint] = "no running server's owner has this key"
            return []
        permitted: dict[str, Reservation] = {}
        people: dict[str, Owner] = {}
        for owner, _ in holders:
            reason = self.refusal(owner)
            open_to = [] if reason else self._open_to(owner)
            found = {one: record for record in open_to for one in self._note_targets(record)}
            if found:
                permitted |= found
                people[owner.subject] = owner
            else:
                self._refused[fingerprint] = reason or "no server of this person answers now"
        if not permitted:
            return []
        options = ["restrict", "port-forwarding"]
        options += [f'permitopen="{one}"' for one in permitted]
        known = [record.ends_at for record in permitted.values() if record.ends_at is not None]
        if len(known) == len(permitted):
            options.append(expiry(self.on_machine(max(known)) // SECOND))
        self._people[fingerprint] = tuple(people.values())
        for subject in people:
            self.let_in(subject, fingerprint)
        # One line for all: sshd uses only the first one of a key.
        return [f"{','.join(options)} {holders[0][1].line}"]

    def asked(self, instance: str) -> None:
        self._asked[instance] = self.now()
        self.working()

    def working(self) -> int:
        """Return how many bastions have asked within a minute; the others are forgotten."""
        since = self.now() - MINUTE
        self._asked = {instance: at for instance, at in self._asked.items() if at > since}
        return len(self._asked)

    async def to_end(self, connections: Sequence[BastionConnection]) -> list[tuple[BastionConnection, str]]:
        """Return the connections that must end now, with reasons; none if the keys cannot be read."""
        if not connections:
            return []
        index = await self._fresh_index()
        open_to: dict[str, set[str]] = {}
        for record in self._open():
            self._note_targets(record)
            for entrant in entrants(record):
                open_to.setdefault(entrant.subject, set()).add(record.id)
        found = []
        for connection in connections:
            owners = [index.owners[subject] for subject in index.holders.get(connection.fingerprint, ())]
            if not owners and not index.complete:
                continue
            if reason := self._why_end(connection, owners, open_to):
                found.append((connection, reason))
        return found

    def _why_end(
        self, connection: BastionConnection, owners: Sequence[Owner], open_to: Mapping[str, set[str]]
    ) -> str:
        allowed = {
            one for owner in owners if not self.refusal(owner) for one in open_to.get(owner.subject, ())
        }
        if not allowed:
            return next(filter(None, map(self.refusal, owners)), "no live reservation is left for this key")
        # Clients can ask for any target. Targets that never had a server must not keep a connection.
        used = [known for one in connection.targets if (known := self._targets.get(one)) is not None]
        if used and allowed.isdisjoint(used):
            return "the reservation that it was used for has ended or is no longer shared"
        lost = {
            known
            for one in connection.permitted
            if (known := self._targets.get(one)) is not None and known not in allowed
        }
        if lost and not used:
            return "a reservation that it could open has ended or is no longer shared"
        # sshd does not revoke permissions, and addresses are used again.
        if any(lost & ids for ids in open_to.values()):
            return "an address that it could open belongs to another reservation now"
        return ""

    def record(self, events: Iterable[BastionEvent]) -> None:
        """Write events of a bastion to the audit log, and to the lines of the reservations concerned."""
        for event in events:
            self._record(event)

    def lines_of(self, reservation: str) -> str:
        """Return what happened to a live reservation at the bastion since the service started."""
        for ended in self._lines.keys() - self.state.reservations.keys():
            del self._lines[ended]
        return "".join(f"{line}\n" for line in self._lines.get(reservation, ()))

    def _record(self, event: BastionEvent) -> None:
        # Processes of different bastions may have the same number.
        connection = f"{event.instance}-{event.connection}" if event.connection else ""
        if event.event == "opened":
            self._known[connection] = _Known(event.fingerprint, event.address, event.port)
            self._by_address[f"{event.address} {event.port}"] = connection
        elif event.event == "denied":
            connection = connection or self._by_address.get(f"{event.address} {event.port}", "")
        known = self._known.get(connection)
        fingerprint = event.fingerprint or (known.fingerprint if known else "")
        reservation = self._targets.get(event.target) if event.target else None
        person = self._who(fingerprint, reservation) if event.event != "refused" else None
        reason = event.reason or (self._refused.get(fingerprint, "") if event.event == "refused" else "")
        fields: dict[str, Any] = {
            "event": event.event,
            "connection": connection,
            "fingerprint": fingerprint,
            "address": event.address or (known.address if known else ""),
            "port": event.port or (known.port if known else 0),
            "subject": person.subject if person else "",
            "login": person.login if person else "",
            "target": event.target,
            "reservation": reservation or "",
            "reason": reason,
            "count": event.count if event.count != 1 else 0,
        }
        kept = {name: value for name, value in fields.items() if value}
        AUDIT.info("bastion: a connection was %s", _SAID[event.event], extra={"fields": kept})
        self._tell_owners(event, known, person, reservation)

    def _tell_owners(
        self, event: BastionEvent, known: _Known | None, person: Owner | None, reservation: str | None
    ) -> None:
        who = person.login if person else "somebody"
        if event.event == "asked" and known is not None and reservation is not None:
            if person is None or reservation not in {record.id for record in self._open_to(person)}:
                return
            if reservation in known.reservations:
                return  # only the first use is told
            known.reservations = (*known.reservations, reservation)
            text = f"connected from {known.address} with the key {known.fingerprint}"
            self._line(event, reservation, f"{who} {text}")
        elif event.event in ("closed", "cut") and known is not None:
            about = f": {event.reason}" if event.reason else ""
            for one in known.reservations:
                self._line(event, one, f"{who} from {known.address}: {_SAID[event.event]}{about}")

    def _line(self, event: BastionEvent, reservation: str, text: str) -> None:
        lines = self._lines.setdefault(reservation, deque(maxlen=LINES))
        lines.append(f"{rfc3339(event.at * SECOND)} {text}")

    def _open(self) -> list[Reservation]:
        now = self.now()
        return [record for record in self.state.reservations.values() if is_open(record, now)]

    def _open_to(self, owner: Owner) -> list[Reservation]:
        return [
            record
            for record in self._open()
            if any(entrant.subject == owner.subject for entrant in entrants(record))
        ]

    def _who(self, fingerprint: str, reservation: str | None) -> Owner | None:
        """Return the person with a key; of several, the first who may enter the reservation."""
        people = self._people.get(fingerprint, ())
        able = (one for one in people if any(record.id == reservation for record in self._open_to(one)))
        return next(able, people[0] if people else None)

    def _note_targets(self, record: Reservation) -> dict[str, int]:
        sight = self.state.sight(record.id)
        if sight is None:
            return {}
        found = {target(*sight.sshd[rank]): rank for rank in sorted(sight.sshd)}
        for one in found:
            self._targets[one] = record.id
        return found

    async def _holders(self, fingerprint: str) -> list[tuple[Owner, PublicKey]]:
        """Return the people with a running server who have the key now."""
        index = self._index
        if index is not None:
            found = await self._confirmed(index, fingerprint)
            if found:
                return found
        return await self._confirmed(await self._fresh_index(), fingerprint)

    async def _confirmed(self, index: _Index, fingerprint: str) -> list[tuple[Owner, PublicKey]]:
        found = []
        for subject in index.holders.get(fingerprint, ()):
            owner = index.owners[subject]
            if self._open_to(owner):
                keys = await self.directory.keys(owner)
                found += [(owner, key) for key in keys if key.fingerprint == fingerprint]
        return found

    async def _fresh_index(self) -> _Index:
        """Return everybody's keys, read at most once in ``FRESH``: wrong keys must cost little."""
        if self._indexing is not None:
            await asyncio.shield(self._indexing)
        index = self._index
        if (
            index is not None
            and 0 <= self.now() - index.built_at < FRESH
            and index.owners.keys() == self._owners().keys()
        ):
            return index
        if self._indexing is None:
            self._indexing = asyncio.create_task(self._build())
        return await asyncio.shield(self._indexing)

    def _owners(self) -> dict[str, Owner]:
        return {owner.subject: owner for record in self._open() for owner in entrants(record)}

    async def _build(self) -> _Index:
        try:
            built_at, owners = self.now(), self._owners()
            holders: dict[str, tuple[str, ...]] = {}
            complete = True
            for subject, owner in owners.items():
                try:
                    keys = await self.directory.keys(owner)
                except Exception:
                    # Unreadable keys of one person must not lock out others.
                    log.exception("the keys of %s cannot be read", subject)
                    complete = False
                    continue
                complete = complete and self.directory.known(owner)
                for key in keys:
                    holders[key.fingerprint] = (*holders.get(key.fingerprint, ()), subject)
            self._index = _Index(built_at, owners, holders, complete)
            return self._index
        finally:
            self._indexing = None


_SAID = {
    "opened": "opened",
    "asked": "used",
    "denied": "denied a target",
    "refused": "refused",
    "closed": "closed",
    "cut": "ended by the service",
}
