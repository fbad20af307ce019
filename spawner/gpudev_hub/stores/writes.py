"""What a commit writes, as one transaction: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec

from gpudev_hub.core.commit import Commit, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.ports import CommitTooLarge, SlotTaken

from .backend import Action, Item, Key, Write
from .items import (
    HEAD,
    SLOT_ITEMS,
    STRIDE,
    Head,
    log_key,
    node_attribute,
    owners_by_node,
    put_history,
    slots_in,
    slots_key,
)

MOST_ITEMS: Final = 100
"""What DynamoDB takes in one transaction."""
MOST_BYTES: Final = 3_800_000
"""Of data in one transaction: ten items of history. DynamoDB takes 4 MB."""


def transaction(
    commit: Commit, head: Head, data: bytes, new_ids: Sequence[str], owners: Mapping[Slot, ClaimKey]
) -> list[Write]:
    """Return what the commit writes: the head first, so that its condition is reported first.

    ``data``: its changes, encoded; ``owners``: of all slots of its nodes, before it. Raises
    ``CommitTooLarge``.
    """
    made = [
        Write(
            Action.UPDATE,
            HEAD,
            {
                "n": commit.n,
                "commit_id": commit.id,
                "at": commit.at,
                "next_seq": commit.next_seq(head.next_seq),
            },
            {"epoch": commit.epoch, "n": commit.n - 1, "guard": head.guard},
        ),
        *put_history(commit.n, commit.at, data),
        *_slots(commit, owners),
        # Ids of new reservations, which were never used before.
        *(Write(Action.UPDATE, log_key(of), {"n": commit.n}, {"n": None, "ended": None}) for of in new_ids),
    ]
    if len(made) > MOST_ITEMS or len(data) > MOST_BYTES or len(commit.changes) > STRIDE:
        raise CommitTooLarge(
            f"commit {commit.n} has {len(commit.changes)} changes, {len(data)} bytes compressed, in "
            f"{len(made)} items. A commit has at most {STRIDE} changes, "
            f"{MOST_BYTES} bytes and {MOST_ITEMS} items"
        )
    return made


def batches(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """Divide writes into transactions, each with room for one check more."""
    some: list[Write] = []
    size = 0
    for write in writes:
        added = len(msgspec.msgpack.encode(write.values))
        if some and (len(some) == MOST_ITEMS - 1 or size + added > MOST_BYTES):
            yield some
            some, size = [], 0
        some.append(write)
        size += added
    if some:
        yield some


def _slots(commit: Commit, owners: Mapping[Slot, ClaimKey]) -> Iterator[Write]:
    """Yield the changed owners of slots, if all slots of their nodes have the owners that are known."""
    free, take = dict(commit.free), dict(commit.take)
    nodes = {slot.node for slot in (*free, *take)}
    before = {slot: owner for slot, owner in owners.items() if slot not in take} | free
    after = {slot: owner for slot, owner in before.items() if slot not in free} | take
    old, new = owners_by_node(before), owners_by_node(after)
    for key, some in groupby(sorted(nodes, key=lambda node: (slots_key(node), node)), key=slots_key):
        names = {node_attribute(node): node for node in some}
        yield Write(
            Action.UPDATE,
            key,
            {name: new.get(node) for name, node in names.items()},
            {name: old.get(node) for name, node in names.items()},
        )


def put_owners(owners: Mapping[Slot, ClaimKey]) -> list[Write]:
    """Return the writes of all items of slots, also those without an owner.

    An earlier try may have left other owners there.
    """
    found: dict[Key, Item] = {("slots", f"{i:02}"): {} for i in range(SLOT_ITEMS)}
    for node, text in owners_by_node(owners).items():
        found[slots_key(node)][node_attribute(node)] = text
    return [Write(Action.PUT, key, values) for key, values in found.items()]


def why_refused(write: Write, found: Item, commit: Commit) -> SlotTaken:
    """Return the reason why this write of a commit fails, in words; ``found``: the item as it is."""
    kind, _, of = write.key[0].partition("#")
    if kind == "history":
        return SlotTaken(f"commit {commit.n} is in the history already")
    if kind == "reservation":
        return SlotTaken(f"the id {of} was used before: no id is used again")
    owners = dict(slots_in(found))
    for slot, owner in commit.free:
        if node_attribute(slot.node) in write.values and owners.get(slot) != owner:
            return SlotTaken(f"{slot} can't be freed for {owner}: its owner is {owners.get(slot)}")
    freed = {slot for slot, _ in commit.free}
    for slot, owner in commit.take:
        if node_attribute(slot.node) in write.values and slot not in freed and slot in owners:
            return SlotTaken(f"{slot} can't be taken by {owner}: its owner is {owners[slot]}")
    return SlotTaken(f"commit {commit.n} does not fit the owners of slots, which are {owners}")
