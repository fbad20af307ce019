"""The store in memory: for tests, and as the shortest description of what a store does."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpudev_hub.core.commit import Commit, HistoryEntry, Slot, Snapshot
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.core.ports import (
    LastCommit,
    Page,
    SlotTaken,
    StaleEpoch,
    StoreLocked,
    StoreUnavailable,
)
from gpudev_hub.core.usage import Day, SavedUsage, UsageDay, UsageHead
from gpudev_hub.stores import usage
from gpudev_hub.stores.records import reservation_of


@dataclass
class Disk:
    """The state that outlives a ``MemoryStore``."""

    state: Snapshot = field(default_factory=lambda: Snapshot(epoch=0, n=0, at=0, next_seq=1))
    slots: dict[Slot, tuple[str, int]] = field(default_factory=dict)
    ended: dict[str, Reservation] = field(default_factory=dict)
    """In the order they ended."""
    history: list[HistoryEntry] = field(default_factory=list)
    usage_head: bytes | None = None
    usage_days: dict[Day, tuple[int, bytes]] = field(default_factory=dict)
    locked: bool = False


class MemoryStore:
    """A ``Store`` over a ``Disk``."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = disk or Disk()
        self._epoch: int | None = None

    async def peek(self) -> LastCommit:
        """Return the last commit; change nothing."""
        self._check_lock()
        return LastCommit(self._disk.state.n, self._disk.state.at)

    async def open(self) -> Snapshot:
        """Take the next epoch and return the live state."""
        self._check_lock()
        self._disk.locked = True
        self._disk.state.epoch += 1
        self._epoch = self._disk.state.epoch
        return self._copy()

    async def reload(self) -> Snapshot:
        """Return the live state again, under the epoch already taken."""
        self._check_epoch()
        return self._copy()

    async def check(self) -> None:
        """Raise ``StaleEpoch`` if another service has taken over."""
        self._check_epoch()

    async def commit(self, commit: Commit) -> None:
        """Make the commit, all or nothing."""
        self._check_epoch(commit.epoch)
        state = self._disk.state
        if commit.n != state.n + 1:
            raise SlotTaken(f"commit {commit.n} does not follow commit {state.n}, the last one")
        slots = dict(self._disk.slots)
        for slot, owner in commit.free:
            if slots.get(slot) != owner:
                raise SlotTaken(f"{slot} can't be freed for {owner}: its owner is {slots.get(slot)}")
            del slots[slot]
        for slot, owner in commit.take:
            if slot in slots:
                raise SlotTaken(f"{slot} can't be taken by {owner}: its owner is {slots[slot]}")
            slots[slot] = owner
        for change in commit.changes:
            if isinstance(change.record, Reservation) and change.record.id in self._disk.ended:
                raise SlotTaken(f"{change.record.id} has ended: its id is never used again")
        self._disk.slots = slots
        for change in commit.changes:
            self._disk.history.append(HistoryEntry(commit.n, commit.at, change))
            if isinstance(change.record, Reservation) and change.gone:
                self._disk.ended[change.record.id] = change.record
            state.apply(change.record, gone=change.gone)
        state.n, state.at, state.next_seq = commit.n, commit.at, commit.next_seq(state.next_seq)

    async def ended(self, subject: str | None, before: int | None, limit: int) -> Page[Reservation]:
        """Return ended reservations, latest first."""
        found = [
            (position, reservation)
            for position, reservation in enumerate(self._disk.ended.values(), 1)
            if (subject is None or reservation.owner.subject == subject)
            and (before is None or position < before)
        ]
        found.reverse()
        page = found[:limit]
        return [reservation for _, reservation in page], page[-1][0] if len(found) > limit else None

    async def find(self, reservation: str) -> Reservation | None:
        """Return the last record of a reservation, live or ended."""
        return self._disk.state.reservations.get(reservation) or self._disk.ended.get(reservation)

    async def history(self, reservation: str | None, after: int, limit: int) -> Page[HistoryEntry]:
        """Return the history in commit order."""
        found = [
            (position, entry)
            for position, entry in enumerate(self._disk.history, 1)
            if position > after
            and (reservation is None or reservation_of(entry.change.record) == reservation)
        ]
        page = found[:limit]
        return [entry for _, entry in page], page[-1][0] if len(found) > limit else None

    async def seek(self, at: Millis) -> int:
        """Return the cursor before the first change at ``at`` or later."""
        return bisect_left(self._disk.history, at, key=lambda entry: entry.at)

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        """Replace the sums of these days and the head."""
        self._check_epoch()
        for saved in days:
            self._disk.usage_days[saved.day] = (saved.n, usage.encode_day(saved))
        self._disk.usage_head = usage.encode_head(head)

    async def load_usage(self) -> SavedUsage | None:
        """Return the saved usage sums."""
        self._check_epoch()
        if self._disk.usage_head is None:
            return None
        days = [usage.decode_day(day, *saved) for day, saved in self._disk.usage_days.items()]
        return SavedUsage(usage.decode_head(self._disk.usage_head), tuple(days))

    async def close(self) -> None:
        """Release the disk."""
        if self._epoch is not None:
            self._epoch = None
            self._disk.locked = False

    def _check_lock(self) -> None:
        if self._disk.locked:
            raise StoreLocked("the store in memory is open already: close it first")

    def _check_epoch(self, epoch: int | None = None) -> None:
        if self._epoch is None:
            raise StoreUnavailable("the store is closed")
        if self._disk.state.epoch != (self._epoch if epoch is None else epoch):
            raise StaleEpoch(
                f"another service has opened the store: its epoch is {self._disk.state.epoch}, "
                f"ours was {self._epoch if epoch is None else epoch}"
            )

    def _copy(self) -> Snapshot:
        state = self._disk.state
        found = Snapshot(state.epoch, state.n, state.at, state.next_seq)
        found.take_tables(state)
        return found
