"""What a commit writes into the DynamoDB table, as one transaction: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from gpudev_hub.core.commit import Commit, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.ports import CommitTooLarge, SlotTaken

from .items import (
    HEAD,
    STRIDE,
    Head,
    Item,
    history_items,
    log_key,
    n_of,
    owner_of,
    s_of,
    slot_name,
    slots_in,
    slots_key,
    text,
)

MOST_ITEMS: Final = 100
"""What DynamoDB takes in one transaction."""
MOST_BYTES: Final = 3_800_000
"""Changes of one commit, compressed: ten items. DynamoDB takes 4 MB in one transaction."""


def transaction(commit: Commit, head: Head, data: bytes, new_ids: Sequence[str]) -> list[Item]:
    """What the commit writes: the head first, so that what stands against it is told first.

    ``data``: its changes, encoded. Raises ``CommitTooLarge``.
    """
    made = [_advance(commit, head)]
    made += [
        {"Put": {"Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}
        for item in history_items(commit.n, commit.at, data)
    ]
    made += _slots(commit)
    made += [_used(of, commit.n) for of in new_ids]
    if len(made) > MOST_ITEMS or len(data) > MOST_BYTES or len(commit.changes) > STRIDE:
        raise CommitTooLarge(
            f"commit {commit.n} has {len(commit.changes)} changes, {len(data)} bytes compressed, in "
            f"{len(made)} items. A commit has at most {STRIDE} changes, "
            f"{MOST_BYTES} bytes and {MOST_ITEMS} items"
        )
    return made


def table_of(table: str, transaction: Iterable[Item]) -> list[Item]:
    """The same with the table's name in every action."""
    return [{action: {**body, "TableName": table} for action, body in write.items()} for write in transaction]


def _advance(commit: Commit, head: Head) -> Item:
    return {
        "Update": {
            "Key": HEAD,
            "UpdateExpression": "SET n = :n, commit_id = :id, #at = :at, next_seq = :seq",
            "ConditionExpression": "epoch = :epoch AND n = :last AND guard = :guard",
            "ExpressionAttributeNames": {"#at": "at"},
            "ExpressionAttributeValues": {
                ":n": n_of(commit.n),
                ":id": s_of(commit.id),
                ":at": n_of(commit.at),
                ":seq": n_of(commit.next_seq(head.next_seq)),
                ":epoch": n_of(commit.epoch),
                ":last": n_of(commit.n - 1),
                ":guard": s_of(head.guard),
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def _slots(commit: Commit) -> list[Item]:
    """Slots change hands on condition that each has the owner that the commit says, or none."""
    free, take = dict(commit.free), dict(commit.take)
    changed = sorted({*free, *take}, key=lambda slot: (text(slots_key(slot.node), "sk"), slot_name(slot)))
    return [
        _owners(key, list(slots), free, take)
        for key, slots in groupby(changed, key=lambda slot: text(slots_key(slot.node), "sk"))
    ]


def _owners(
    key: str, slots: Sequence[Slot], free: Mapping[Slot, ClaimKey], take: Mapping[Slot, ClaimKey]
) -> Item:
    sets, removes, conditions = [], [], []
    values: Item = {}
    for i, slot in enumerate(slots):
        if slot in free:
            conditions.append(f"#s{i} = :free{i}")
            values[f":free{i}"] = owner_of(free[slot])
        else:
            conditions.append(f"attribute_not_exists(#s{i})")
        if slot in take:
            sets.append(f"#s{i} = :take{i}")
            values[f":take{i}"] = owner_of(take[slot])
        else:
            removes.append(f"#s{i}")
    return {
        "Update": {
            "Key": {**slots_key(slots[0].node), "sk": s_of(key)},
            "UpdateExpression": " ".join(
                f"{word} {', '.join(names)}" for word, names in (("SET", sets), ("REMOVE", removes)) if names
            ),
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {f"#s{i}": slot_name(slot) for i, slot in enumerate(slots)},
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def _used(reservation: str, n: int) -> Item:
    """The id of a new reservation, which was never used before."""
    item = {**log_key(reservation), "n": n_of(n)}
    return {
        "Put": {
            "Item": item,
            "ConditionExpression": "attribute_not_exists(n) AND attribute_not_exists(ended)",
        }
    }


def why_refused(write: Item, found: Item, commit: Commit) -> SlotTaken:
    """What stands against this write of a commit, in words; ``found``: the item as it is."""
    if "Put" in write:
        key = text(write["Put"]["Item"], "pk")
        if key == "history":
            return SlotTaken(f"commit {commit.n} is in the history already")
        return SlotTaken(f"the id {key.partition('#')[2]} was used before: no id is used again")
    owners, concerned = dict(slots_in(found)), set(write["Update"]["ExpressionAttributeNames"].values())
    for slot, owner in commit.free:
        if slot_name(slot) in concerned and owners.get(slot) != owner:
            return SlotTaken(f"{slot} can't be freed for {owner}: its owner is {owners.get(slot)}")
    freed = {slot for slot, _ in commit.free}
    for slot, owner in commit.take:
        if slot_name(slot) in concerned and slot not in freed and slot in owners:
            return SlotTaken(f"{slot} can't be taken by {owner}: its owner is {owners[slot]}")
    return SlotTaken(f"commit {commit.n} does not fit the owners of slots, which are {owners}")
