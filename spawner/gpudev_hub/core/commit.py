"""What one or more decisions change: the unit that the store makes durable, all or nothing.

A ``Change`` carries a whole new record, so that folding the history gives the live state. Slots are taken and
freed by name, so that a store can refuse a second owner by constraint (invariant 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .causes import Cause
from .live_state import ClaimKey, LiveState, Record
from .model import Millis, Reservation
from .sentences import Text


@dataclass(frozen=True, slots=True)
class Change:
    """One replaced record, with cause and actor."""

    record: Record
    cause: Cause
    actor: str
    """The subject who asked, or ``service``."""
    gone: bool = False
    """Whether the record leaves the live state (an ended reservation, a freed claim, a used id)."""
    detail: Text = ""
    """Details of the cause: ``no answer in 60 s``."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One unit of a node's GPU capacity."""

    node: str
    index: int


Owned = tuple[Slot, ClaimKey]
"""A slot and its present or former owner."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What was decided since the last commit. It becomes durable together, or not at all."""

    records: tuple[Change, ...] = ()
    """In the order in which they were made."""
    slots: Mapping[Slot, tuple[ClaimKey | None, ClaimKey | None]] = field(default_factory=dict)
    """Slots that change hands: their owners before and after, which differ."""

    @property
    def take(self) -> tuple[Owned, ...]:
        """Slots that get an owner; a former owner is in ``free``."""
        return tuple((slot, after) for slot, (_, after) in self.slots.items() if after is not None)

    @property
    def free(self) -> tuple[Owned, ...]:
        """Slots that lose their owner."""
        return tuple((slot, before) for slot, (before, _) in self.slots.items() if before is not None)


@dataclass(frozen=True, slots=True)
class Commit:
    """Changes that become durable together, or not at all."""

    epoch: int
    """Number of the takeover of the store. A store accepts commits of the latest epoch only."""
    n: int
    """Number of the commit, one more than the last."""
    id: str
    """Random; shows whether a commit with unknown outcome was made."""
    at: Millis
    changes: tuple[Change, ...]
    take: tuple[Owned, ...] = ()
    """Slots that get an owner; refused if a slot has an owner already."""
    free: tuple[Owned, ...] = ()
    """Slots that lose the named owner; refused if a slot has another owner."""

    def next_seq(self, before: int) -> int:
        """Return the next sequence number after the commit; ``before``: the number before it."""
        seqs = [change.record.seq for change in self.changes if isinstance(change.record, Reservation)]
        return max([before, *(seq + 1 for seq in seqs)])


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change as the history keeps it."""

    n: int
    at: Millis
    change: Change


@dataclass(slots=True)
class Snapshot(LiveState):
    """The live state as a store returns it after a start."""

    epoch: int
    n: int
    at: Millis
    """Time of the last commit."""
    next_seq: int
    """One more than the highest ``seq`` ever committed."""
