"""The live state that the history leads to, and checkpoints of it, from which it is folded at the next start.

A checkpoint is written without any condition, under a name of its own, and counts once the head has its name.
So a crash at any point leaves either the old one or the new one, and items that nothing refers to.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gpudev_hub.core.commit import Change, Slot
from gpudev_hub.core.live_state import ClaimKey, LiveState
from gpudev_hub.core.model import Reservation

from . import items, records
from .backend import FIRST, LAST, Action, Backend, Write, reading
from .items import HEAD, SCHEMA, STRIDE, Head, change_head
from .writes import batches

LEAST_BYTES: Final = 256_000
"""Bytes of history between two checkpoints. A start reads them, which takes some tens of milliseconds."""
_KEY: Final = "checkpoint"


class NotWhole(Exception):
    """What was read does not belong together; the message says why."""


@dataclass(frozen=True, slots=True)
class Log:
    """What is known of an id beside its live record."""

    commits: tuple[int, ...] = ()
    """Commits that concern it, at least those since the checkpoint."""
    ended: int | None = None
    """Position at which the reservation ended."""


def owners_of(state: LiveState, nodes: Collection[str] | None = None) -> dict[Slot, ClaimKey]:
    """Return the owners of all slots, or of those of some nodes, as claims say."""
    return {
        Slot(part.node, index): claim.key
        for claim in state.claims.values()
        for part in claim.allocation
        if nodes is None or part.node in nodes
        for index in part.slots
    }


def check_owners(state: LiveState, owners: Mapping[Slot, ClaimKey]) -> None:
    """Raise ``NotWhole`` if claims hold other slots than these."""
    held = owners_of(state)
    for slot in sorted(held.keys() | owners.keys(), key=lambda slot: (slot.node, slot.index)):
        if held.get(slot) != owners.get(slot):
            raise NotWhole(f"{slot} is owned by {owners.get(slot)}, and held by {held.get(slot)}")


@dataclass(slots=True)
class Folded:
    """The state after one commit. One thread follows commits; others may read."""

    saved: int = 0
    """Last commit in the checkpoint."""
    state: LiveState = field(default_factory=LiveState)
    logs: dict[str, Log] = field(default_factory=dict)
    """Of ids that are live, hold slots, or were touched since the checkpoint."""
    touched: set[str] = field(default_factory=set)
    """Ids that commits since the checkpoint concern."""
    bytes: int = 0
    """Bytes of history since the checkpoint."""
    checkpoint_bytes: int = 0
    ended: tuple[tuple[int, Reservation], ...] = ()
    """Positions and last records of the latest ended reservations: at least those since the checkpoint.

    Replaced as a whole, since other threads read it.
    """

    def new_ids(self, changes: Iterable[Change]) -> list[str]:
        """Return the reservations that these changes add."""
        ids = [change.record.id for change in changes if isinstance(change.record, Reservation)]
        return [of for of in dict.fromkeys(ids) if of not in self.state.reservations]

    def apply(self, n: int, changes: Iterable[Change], size: int) -> None:
        """Follow a commit; ``size``: its bytes in the history."""
        ended = [*self.ended]
        changes = tuple(changes)
        for position, change in enumerate(changes, n * STRIDE):
            of = records.reservation_of(change.record)
            if of is None:
                continue
            log = self.logs.get(of, Log())
            if n not in log.commits[-1:]:
                log = Log((*log.commits, n), log.ended)
            if change.gone and isinstance(change.record, Reservation):
                log = Log(log.commits, position)
                ended.append((position, change.record))
            self.logs[of] = log
            self.touched.add(of)
        # A reader finds a reservation that ends here among the live ones, or among the ended ones.
        self.ended = tuple(ended)
        for change in changes:
            self.state.apply(change.record, gone=change.gone)
        self.bytes += size

    def unsaved(self) -> tuple[tuple[int, Reservation], ...]:
        """Return the reservations that ended since the checkpoint, with their positions."""
        return tuple(one for one in self.ended if one[0] >= (self.saved + 1) * STRIDE)

    def settled(self) -> list[str]:
        """Return the ids touched since the checkpoint that are not live."""
        live = self.state.reservations.keys() | self.state.minted.keys()
        return sorted(self.touched - live)

    def kept_logs(self) -> dict[str, Log]:
        """Return the logs that a checkpoint keeps: commits may still be added to them."""
        claimed = {claim.reservation for claim in self.state.claims.values()}
        gone = set(self.settled()) - claimed
        return {of: log for of, log in self.logs.items() if of not in gone}

    def was_saved(self, n: int, logs: dict[str, Log], size: int) -> None:
        """Everything up to commit ``n`` is in a checkpoint with these logs, or in items.

        What ended since the checkpoint before stays in memory: the index of ended reservations may lag.
        """
        self.ended = self.unsaved()
        self.saved, self.logs, self.touched = n, logs, set()
        self.bytes, self.checkpoint_bytes = 0, size


class _Piece(msgspec.Struct):
    """An item of a checkpoint."""

    pieces: int
    data: bytes


class _Data(msgspec.Struct, array_like=True):
    records: list[tuple[str, msgspec.Raw]]
    logs: dict[str, Log]


_DECODER: Final = msgspec.json.Decoder(_Data)


def new_name(n: int) -> str:
    """Return the name of a checkpoint after commit ``n``, unlike that of any other."""
    return f"{n:012}-{secrets.token_hex(4)}"


def encode(live: Iterable[tuple[str, bytes]], logs: dict[str, Log]) -> bytes:
    """Return a checkpoint as items hold it; ``live``: encoded records with their kinds."""
    return items.compressed(_Data([(kind, msgspec.Raw(record)) for kind, record in live], logs))


def put(name: str, data: bytes) -> Iterator[Write]:
    """Yield the writes of a checkpoint's items."""
    pieces = items.in_pieces(data)
    for i, piece in enumerate(pieces):
        yield Write(Action.PUT, (_KEY, f"{name}#{i:04}"), {"pieces": len(pieces), "data": piece})


def read(backend: Backend, head: Head) -> Folded:
    """Return the state of the checkpoint that the head names. Raises ``NotWhole`` or ``Unreadable``."""
    folded = Folded(head.checkpoint_n)
    if not head.checkpoint:
        return folded
    stored = backend.query(_KEY, f"{head.checkpoint}#", f"{head.checkpoint}#{LAST}")
    found = [items.values_of(item, items.key_in(item), _Piece) for item in stored]
    if not found or found[0].pieces != len(found):
        raise NotWhole(f"checkpoint {head.checkpoint} has {len(found)} items")
    data = b"".join(piece.data for piece in found)
    with reading((_KEY, head.checkpoint)):
        there = _DECODER.decode(zlib.decompress(data))
        for kind, raw in there.records:
            folded.state.set_record(records.decode(kind, bytes(raw)))
    folded.logs, folded.checkpoint_bytes = there.logs, len(data)
    return folded


def is_due(folded: Folded) -> bool:
    """Return whether a start would have much to fold, at least twice what is in the checkpoint."""
    return folded.bytes >= max(LEAST_BYTES, 2 * folded.checkpoint_bytes)


def save(backend: Backend, head: Head, folded: Folded) -> Head:
    """Write items of what has ended, then a checkpoint of the rest; return the changed head.

    Raises ``Unmet`` if the state was read again meanwhile, by this service or another.
    """
    made = [
        items.put_ended(position, record.owner.subject, records.encode(record))
        for position, record in folded.unsaved()
    ]
    settled = folded.settled()
    stored = backend.get_all([items.log_key(of) for of in settled])
    before = {item["pk"]: items.log_in(item) for item in stored}
    for of in settled:
        key, log = items.log_key(of), folded.logs[of]
        known = before.get(key[0], items.Log())
        commits = sorted({*known.commits, *log.commits})
        ended = known.ended if log.ended is None else log.ended
        made.append(Write(Action.PUT, key, {"commits": commits, "ended": ended}))
    write_all(backend, head, made)
    logs = folded.kept_logs()
    data = encode(((records.kind_of(r), records.encode(r)) for r in folded.state.live_records()), logs)
    published = publish(backend, head, data)
    folded.was_saved(head.n, logs, len(data))
    return published


def publish(backend: Backend, head: Head, data: bytes) -> Head:
    """Write the items of a checkpoint, and from now on fold the live state from it. Raises ``Unmet``.

    The guard changes too, so no write of this checkpoint or an earlier one can arrive later.
    """
    name = new_name(head.n)
    for write in put(name, data):
        backend.write([write])
    return change_head(backend, head, checkpoint=name, schema=SCHEMA)


def write_all(backend: Backend, head: Head, writes: Iterable[Write]) -> None:
    """Make these writes while the guard is that of the head; each may have been made before."""
    for some in batches(writes):
        backend.write([Write(Action.CHECK, HEAD, where={"guard": head.guard}), *some])


def remove_older(backend: Backend, head: Head) -> None:
    """Remove checkpoints of earlier commits: no head will name them, whoever writes it."""
    for item in list(backend.query(_KEY, FIRST, f"{head.checkpoint_n:012}")):
        backend.write([Write(Action.DELETE, (_KEY, item["sk"]))])
