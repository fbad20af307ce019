"""The live state that the history leads to, and what is not in items of its own yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gpudev_hub.core.commit import Change, Slot
from gpudev_hub.core.live_state import ClaimKey, LiveState
from gpudev_hub.core.model import Reservation
from gpudev_hub.stores import records

from .items import STRIDE


@dataclass(frozen=True, slots=True)
class Log:
    """What is known of an id beside its live record."""

    commits: tuple[int, ...] = ()
    """That concern it."""
    ended: int | None = None
    """Position at which the reservation ended."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What has happened since the checkpoint. Replaced as a whole, since other threads read it."""

    n: int
    """Last commit in the checkpoint."""
    ended: tuple[tuple[int, Reservation], ...] = ()
    """Position and last record."""
    touched: frozenset[str] = frozenset()
    """Ids that commits concern."""


def owners_of(state: LiveState) -> dict[Slot, ClaimKey]:
    """Return the owners of all slots, as claims say."""
    return {
        Slot(part.node, index): claim.key
        for claim in state.claims.values()
        for part in claim.allocation
        for index in part.slots
    }


def by_node(owners: Mapping[Slot, ClaimKey]) -> dict[str, dict[Slot, ClaimKey]]:
    """Return owners of slots, node by node."""
    found: dict[str, dict[Slot, ClaimKey]] = {}
    for slot, owner in owners.items():
        found.setdefault(slot.node, {})[slot] = owner
    return found


@dataclass(slots=True)
class Folded:
    """The state after one commit. One thread follows commits; others may read."""

    recent: Recent
    state: LiveState = field(default_factory=LiveState)
    logs: dict[str, Log] = field(default_factory=dict)
    """Of ids that are live, hold slots, or were touched since the checkpoint."""
    bytes: int = 0
    """Of history since the checkpoint."""
    checkpoint_bytes: int = 0

    def new_ids(self, changes: Iterable[Change]) -> list[str]:
        """Reservations that these changes add."""
        return list(
            {
                change.record.id: None
                for change in changes
                if isinstance(change.record, Reservation) and change.record.id not in self.state.reservations
            }
        )

    def apply(self, n: int, changes: Iterable[Change], size: int) -> None:
        """Follow a commit; ``size``: bytes that it takes in the history."""
        ended, touched = [*self.recent.ended], set(self.recent.touched)
        changes = tuple(changes)
        for i, change in enumerate(changes):
            of = records.reservation_of(change.record)
            if of is None:
                continue
            log = self.logs.get(of, Log())
            if n not in log.commits[-1:]:
                log = replace(log, commits=(*log.commits, n))
            if change.gone and isinstance(change.record, Reservation):
                log = replace(log, ended=n * STRIDE + i)
                ended.append((n * STRIDE + i, change.record))
            self.logs[of] = log
            touched.add(of)
        # Whoever looks for a reservation that ends here finds it live, or among the ended ones.
        self.recent = Recent(self.recent.n, tuple(ended), frozenset(touched))
        for change in changes:
            self.state.apply(change.record, gone=change.gone)
        self.bytes += size

    def settled(self) -> list[str]:
        """Ids touched since the checkpoint that are not live."""
        live = self.state.reservations.keys() | self.state.minted.keys()
        return sorted(self.recent.touched - live)

    def kept_logs(self) -> dict[str, Log]:
        """Logs that a checkpoint keeps: commits may still be added to them."""
        claimed = {claim.reservation for claim in self.state.claims.values()}
        gone = set(self.settled()) - claimed
        return {of: log for of, log in self.logs.items() if of not in gone}

    def saved(self, n: int, logs: dict[str, Log], size: int) -> None:
        """All of it is in a checkpoint after commit ``n`` with these logs, or in items."""
        self.recent = Recent(n)
        self.logs, self.bytes, self.checkpoint_bytes = logs, 0, size
