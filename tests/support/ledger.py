"""Checks of a store after a crash. They need only its history, so they hold for every writer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import HistoryEntry, Snapshot
from gpudev_hub.core.live_state import KINDS, LiveState
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.stores.items import slots_in
from gpudev_hub.stores.sqlite.store import SqliteStore
from sqlite_items import items_of

MAY_MOVE_A_PROMISE = {
    Cause.NODE_LOST,
    Cause.NODE_CHANGED,
    Cause.NODE_DRAINED,
    Cause.STOP_OVERRAN,
    Cause.START_FAILED,
    Cause.OWNER_UNKNOWN,
    Cause.OWNER_KNOWN,
    Cause.OUTAGE,
    Cause.OPERATOR,
}
"""Invariant 4."""


@dataclass
class Ledger:
    """The content of a store. Creating it checks the content."""

    snapshot: Snapshot
    history: list[HistoryEntry]
    ended: dict[str, Reservation] = field(default_factory=dict)
    requested: dict[str, Reservation] = field(default_factory=dict)
    """Every reservation as it was when acknowledged, by id."""

    def record(self, id: str) -> Reservation | None:
        """Return the last record of a reservation."""
        return self.snapshot.reservations.get(id) or self.ended.get(id)

    def by_request(self) -> dict[tuple[str, str], str]:
        """Return the id of the reservation of each (subject, request id)."""
        made = [(r.owner.subject, r.request_id) for r in self.requested.values() if r.request_id]
        assert [key for key, count in Counter(made).items() if count > 1] == [], "made twice"
        return {(r.owner.subject, r.request_id): r.id for r in self.requested.values() if r.request_id}


async def read_ledger(database: Path) -> Ledger:
    """Open a store that no service has open, and check its content: invariants 1, 3, 4, 5 and 12."""
    store = SqliteStore(database)
    snapshot = await store.open()
    history, _ = await store.history(None, 0, 10_000_000)
    ended, _ = await store.ended(None, None, 10_000_000)
    await store.close()
    ledger = Ledger(snapshot, history, {record.id: record for record in ended})
    _numbers(ledger)
    _fold(ledger)
    _ids_and_promises(ledger)
    _slots(ledger, database)
    return ledger


def _numbers(ledger: Ledger) -> None:
    numbers = sorted({entry.n for entry in ledger.history})
    assert numbers == list(range(1, ledger.snapshot.n + 1)), "commit numbers have gaps"
    times = [entry.at for entry in ledger.history]
    assert times == sorted(times), "time ran backwards"


def _fold(ledger: Ledger) -> None:
    """Check 12: the history gives the live state."""
    folded = LiveState()
    ended: dict[str, Reservation] = {}
    for entry in ledger.history:
        record, gone = entry.change.record, entry.change.gone
        if isinstance(record, Reservation) and gone:
            assert record.id not in ended, f"{record.id} ended twice"
            assert record.outcome is not None, f"{record.id} ended without an outcome"
            ended[record.id] = record
        folded.apply(record, gone=gone)
    for kind in KINDS.values():
        assert getattr(folded, kind.table) == getattr(ledger.snapshot, kind.table), kind.table
    assert ended == ledger.ended


def _ids_and_promises(ledger: Ledger) -> None:
    seqs: set[int] = set()
    before: dict[str, tuple[Millis | None, int]] = {}
    for entry in ledger.history:
        record, cause = entry.change.record, entry.change.cause
        if not isinstance(record, Reservation):
            continue
        if record.id not in before:
            assert cause == Cause.REQUESTED, f"{record.id} begins with {cause}"
            assert record.seq not in seqs, f"number {record.seq} was given twice"
            seqs.add(record.seq)
            ledger.requested[record.id] = record
        else:
            promise, version = before[record.id]
            assert cause != Cause.REQUESTED, f"the id {record.id} is used a second time"
            assert record.version > version, f"{record.id}: version {version} then {record.version}"
            moved = promise is not None and record.promise is not None and record.promise != promise
            assert not moved or cause in MAY_MOVE_A_PROMISE, f"the promise of {record.id} moved: {cause}"
        if record.place is not None and record.promise is not None:
            assert record.place.start <= record.promise, f"{record.id} is planned after its promise"
        before[record.id] = (record.promise, record.version)
    assert ledger.snapshot.next_seq > max(seqs, default=0)


def _slots(ledger: Ledger, database: Path) -> None:
    """Check 1: the owners in the conditions of writes are those of the claims."""
    found = items_of(database, "slots").values()
    rows = [(slot.node, slot.index, *owner) for item in found for slot, owner in slots_in(item)]
    held = [
        (part.node, slot, *claim.key)
        for claim in ledger.snapshot.claims.values()
        for part in claim.allocation
        for slot in part.slots
    ]
    assert sorted(rows) == sorted(held)
