"""What one decision changes: the unit that the store makes durable, all or nothing.

A ``Change`` carries whole new records (``after``), so that folding the history gives the hot state.
Slots are taken and freed by name, so that a store can refuse a second owner by constraint (invariant 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .model import Claim, Millis, MintedId, Node, Reservation

Record = Reservation | Claim | MintedId | Node


@dataclass(frozen=True, slots=True)
class Change:
    """One record replaced, with why and by whom."""

    record: Record
    cause: str
    """A word of ``events.Cause`` and, after a colon, details: ``start_failed: no answer in 60 s``."""
    actor: str
    """The subject who asked, or ``service``."""
    gone: bool = False
    """True: the record leaves the hot state (an ended reservation, a freed claim, a used id)."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One unit of a node's GPU capacity."""

    node: str
    index: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Changes that become durable together, or not at all."""

    epoch: int
    n: int
    """Number of the commit, one more than the last."""
    id: str
    """Random; settles whether a commit with unknown outcome was made."""
    at: Millis
    changes: tuple[Change, ...]
    take: tuple[tuple[Slot, tuple[str, int]], ...] = ()
    """Slots that get an owner (reservation, attempt); refused if one has an owner already."""
    free: tuple[tuple[Slot, tuple[str, int]], ...] = ()
    """Slots that lose the owner named; refused if the owner is another one."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change as the history keeps it."""

    n: int
    at: Millis
    change: Change


@dataclass(slots=True)
class Snapshot:
    """The hot state as a store gives it back after a start."""

    epoch: int
    n: int
    at: Millis
    """Time of the last commit."""
    next_seq: int
    """One more than the highest ``seq`` ever committed."""
    reservations: dict[str, Reservation] = field(default_factory=dict)
    claims: dict[tuple[str, int], Claim] = field(default_factory=dict)
    minted: dict[str, MintedId] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
