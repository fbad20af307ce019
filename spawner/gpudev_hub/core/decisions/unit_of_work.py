"""The records of the working state, their indices and alarms, and what was changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gpudev_hub.core.causes import Cause, Why
from gpudev_hub.core.commit import Change, Changes, Slot, Snapshot
from gpudev_hub.core.errors import IllegalMove
from gpudev_hub.core.live_state import ClaimKey, LiveState, Record
from gpudev_hub.core.model import Claim, MintedId, Node, Reservation, State
from gpudev_hub.core.policy import Policy

from .timers import Alarms, claim_due, minted_due, reservation_due

SERVICE = "service"
"""The actor of changes that no person asked for."""

BREAKING = frozenset(
    {
        Cause.NODE_CHANGED,
        Cause.NODE_LOST,
        Cause.NODE_DRAINED,
        Cause.STOP_OVERRAN,
        Cause.START_FAILED,
        Cause.OWNER_UNKNOWN,
        Cause.OWNER_KNOWN,
        Cause.OUTAGE,
        Cause.OPERATOR,
    }
)
"""Causes for which a promise may be broken (invariant 4)."""


class Records(LiveState):
    """Live records. All changes go through ``put`` or ``drop``, which bump versions and record them."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.next_seq = 1
        self.alarms = Alarms()
        """What is due, apart from planned starts."""
        self.starts = Alarms()
        """Planned starts."""
        self._slots: dict[Slot, ClaimKey] = {}
        self._claims_of: dict[str, dict[int, None]] = {}
        self._of_owner: dict[str, dict[str, None]] = {}
        self._by_request: dict[tuple[str, str], str] = {}
        self._by_name: dict[tuple[str, str], str] = {}
        self._changes: list[Change] = []
        self.last_ended: Reservation | None = None
        """The reservation that ended last. It is no longer live, but is still returned to its request."""
        self._touched: dict[Slot, ClaimKey | None] = {}
        """The slots touched since the last drain, with their owners at that time."""

    # Reading

    def of_owner(self, subject: str) -> list[Reservation]:
        """Return the owner's live reservations, in the order in which they were requested."""
        return [self.reservations[ref] for ref in self._of_owner.get(subject, ())]

    def by_request(self, subject: str, request_id: str | None) -> Reservation | None:
        """Return the owner's live reservation with this request id."""
        ref = self._by_request.get((subject, request_id)) if request_id is not None else None
        return None if ref is None else self.reservations[ref]

    def by_name(self, subject: str, name: str | None) -> Reservation | None:
        """Return the owner's reservation with this name or id.

        A reservation that is being stopped no longer has its name.
        """
        if name is None:
            return None
        ref = self._by_name.get((subject, name))
        if ref is not None:
            return self.reservations[ref]
        found = self.reservations.get(name)
        return found if found is not None and found.owner.subject == subject else None

    def claims_of(self, id: str) -> list[Claim]:
        """Return all claims of a reservation, live or not, oldest attempt first."""
        return [self.claims[id, attempt] for attempt in sorted(self._claims_of.get(id, ()))]

    def claim_of(self, reservation: Reservation) -> Claim:
        """Return the claim of the current attempt of a reservation that holds slots."""
        return self.claims[reservation.id, reservation.attempt]

    def queued(self, pool: str | None = None) -> list[Reservation]:
        waiting = (r for r in self.reservations.values() if r.state is State.QUEUED)
        return sorted((r for r in waiting if pool in (None, r.request.pool)), key=lambda r: r.seq)

    def free_slots(self, node: str) -> list[int]:
        """Return the slots of a node that no claim owns."""
        return [i for i in range(self.nodes[node].gpus) if Slot(node, i) not in self._slots]

    # Changing

    def put(self, record: Record, cause: Why, actor: str = SERVICE) -> None:
        """Replace or add a record. An unchanged record is not recorded."""
        if isinstance(record, Reservation):
            old = self.reservations.get(record.id)
            if record == old:
                return
            if record.version != (0 if old is None else old.version):
                raise IllegalMove(f"{record.id} is changed from version {record.version}, not from {old}")
            # A first promise breaks no other.
            changed = old is not None and old.promise not in (None, record.promise)
            if changed and cause.cause not in BREAKING:
                raise IllegalMove(f"the promise of {record.id} may not change from {old} because of {cause}")
            record = replace(record, version=1 if old is None else old.version + 1)
        elif self.known(record) == record:
            return
        self.load(record)
        self._changes.append(Change(record, cause.cause, actor, detail=cause.detail))

    def drop(self, record: Record, cause: Why, actor: str = SERVICE) -> None:
        """Remove a record from the live state, with these last values."""
        if isinstance(record, Reservation):
            record = replace(record, version=self.reservations[record.id].version + 1)
            self.last_ended = record
        self.unload(record)
        self._changes.append(Change(record, cause.cause, actor, True, cause.detail))

    def drain(self) -> Changes:
        """Return what was changed since the last call."""
        changes, touched = self._changes, self._touched
        self._changes, self._touched = [], {}
        hands = {slot: (before, self._slots.get(slot)) for slot, before in touched.items()}
        return Changes(tuple(changes), {slot: (old, new) for slot, (old, new) in hands.items() if old != new})

    def take_over(self, snapshot: Snapshot) -> None:
        """Load the records of a store, which is not a change."""
        self.next_seq = snapshot.next_seq
        for record in snapshot.live_records():
            self.load(record)
        self._touched.clear()

    def load(self, record: Record) -> None:
        """Put a record into state, indices and alarms, without recording a change."""
        known = self.known(record)
        if isinstance(known, Reservation):
            self._unindex(known)
        self.set_record(record)
        match record:
            case Reservation():
                self._index(record)
            case Claim():
                if known is None:
                    for slot in slots_of(record):
                        self._own(slot, record.key)
                    self._claims_of.setdefault(record.reservation, {})[record.attempt] = None
                self.alarms.set(("claim", *record.key), claim_due(record, self.policy))
            case MintedId():
                self.alarms.set(("minted", record.id, 0), minted_due(record))
            case Node():
                self.alarms.set(("node", record.name, 0), record.grace_until)

    def unload(self, record: Record) -> None:
        """Take a record out of state, indices and alarms, without recording a change."""
        known = self.known(record)
        self.remove_record(record)
        match known:
            case Reservation():
                self._unindex(known)
                self.alarms.set(("reservation", known.id, 0), None)
                self.starts.set(("reservation", known.id, 0), None)
            case Claim():
                for slot in slots_of(known):
                    self._own(slot, None)
                attempts = self._claims_of[known.reservation]
                del attempts[known.attempt]
                if not attempts:
                    del self._claims_of[known.reservation]
                self.alarms.set(("claim", *known.key), None)
            case MintedId():
                self.alarms.set(("minted", known.id, 0), None)
            case Node():
                self.alarms.set(("node", known.name, 0), None)

    def _own(self, slot: Slot, key: ClaimKey | None) -> None:
        owner = self._slots.get(slot)
        if key is not None and owner is not None:
            raise IllegalMove(
                f"slot {slot.index} of {slot.node} is owned by {owner}, so {key} cannot have it"
            )
        self._touched.setdefault(slot, owner)
        if key is None:
            del self._slots[slot]
        else:
            self._slots[slot] = key

    def _index(self, record: Reservation) -> None:
        subject = record.owner.subject
        self._of_owner.setdefault(subject, {})[record.id] = None
        if record.request_id is not None:
            self._by_request[subject, record.request_id] = record.id
        if record.request.name is not None and record.state is not State.STOPPING:
            self._by_name[subject, record.request.name] = record.id
        key = ("reservation", record.id, 0)
        self.alarms.set(key, reservation_due(record, self.policy))
        waits = record.state is State.QUEUED and record.place is not None
        self.starts.set(key, record.place.start if waits and record.place else None)

    def _unindex(self, record: Reservation) -> None:
        subject = record.owner.subject
        if record.request_id is not None:
            self._by_request.pop((subject, record.request_id), None)
        named = (subject, record.request.name or "")
        if self._by_name.get(named) == record.id:
            del self._by_name[named]
        if record.id not in self.reservations:
            owned = self._of_owner[subject]
            del owned[record.id]
            if not owned:
                del self._of_owner[subject]


def slots_of(claim: Claim) -> Iterator[Slot]:
    """Yield the slots of a claim."""
    for part in claim.allocation:
        for index in part.slots:
            yield Slot(part.node, index)
