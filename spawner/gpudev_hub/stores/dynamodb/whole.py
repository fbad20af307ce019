"""Whether what was read of the DynamoDB table is the state after one commit. Pure.

A Query promises that of each item, not of all: while a transaction is being applied it may show some items
from before and some from after it. A table that was restored to a point in time may stay so for ever.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpudev_hub.core.commit import Change, Slot, Snapshot
from gpudev_hub.core.live_state import ClaimKey, key_of
from gpudev_hub.stores import records


def why_not_whole(
    snapshot: Snapshot, owners: Mapping[Slot, ClaimKey], commits: Mapping[int, Sequence[Change]]
) -> str | None:
    """What doesn't belong together, in words; ``None`` if all does.

    ``owners``: of slots, as nodes' items name them. ``commits``: of the history, from the last one on.
    """
    n = snapshot.n
    if n + 1 in commits:
        return f"commit {n + 1} is in the history, and the head says that {n} was the last"
    if n and n not in commits:
        return f"the head says that commit {n} was the last, and the history lacks it"
    last = {(records.kind_of(change.record), key_of(change.record)): change for change in commits.get(n, ())}
    hot = {(records.kind_of(record), key_of(record)): record for record in snapshot.live_records()}
    for (kind, key), change in last.items():
        there = hot.get((kind, key))
        if there != (None if change.gone else change.record):
            return f"{kind} {key} is not as commit {n} left it"
    held = {
        Slot(part.node, index): claim.key
        for claim in snapshot.claims.values()
        for part in claim.allocation
        for index in part.slots
    }
    for slot in sorted(held.keys() | owners.keys(), key=lambda slot: (slot.node, slot.index)):
        if held.get(slot) != owners.get(slot):
            return f"{slot} is owned by {owners.get(slot)}, and held by {held.get(slot)}"
    return None
