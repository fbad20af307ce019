"""The live state of the table: of the checkpoint and the history after it, if they belong together.

A Query promises that of each item, not of all: while a transaction is being applied it may show some items
from before and some from after it. A table that was restored to a point in time may stay so for ever.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation
"""

from __future__ import annotations

from collections.abc import Mapping

from gpudev_hub.core.commit import Slot
from gpudev_hub.core.live_state import ClaimKey, LiveState

from .checkpoint import Checkpoints, NotWhole
from .folded import Folded, owners_of
from .items import Head
from .reads import Reader


def read_whole(head: Head, read: Reader, checkpoints: Checkpoints) -> Folded:
    """The state after the last commit of this head. Raises ``NotWhole``."""
    folded, last = checkpoints.read(head), head.checkpoint_n
    for n, size, entries in read.commits_from(last + 1):
        if n > head.n:
            raise NotWhole(f"commit {n} is in the history, and the head says that {head.n} was the last")
        if n != last + 1:
            break
        folded.apply(n, [entry.change for _, entry in entries], size)
        last = n
    if last != head.n:
        raise NotWhole(f"the head says that commit {head.n} was the last, and the history lacks it")
    check_owners(folded.state, read.owners())
    return folded


def check_owners(state: LiveState, owners: Mapping[Slot, ClaimKey]) -> None:
    """Raises ``NotWhole`` if claims hold other slots than these."""
    held = owners_of(state)
    for slot in sorted(held.keys() | owners.keys(), key=lambda slot: (slot.node, slot.index)):
        if held.get(slot) != owners.get(slot):
            raise NotWhole(f"{slot} is owned by {owners.get(slot)}, and held by {held.get(slot)}")
