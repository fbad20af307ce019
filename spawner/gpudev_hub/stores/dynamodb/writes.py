"""What a commit writes into the DynamoDB table, as one transaction: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from gpudev_hub.core.commit import Commit, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.ports import CommitTooLarge, SlotTaken

from .folded import by_node
from .items import (
    HEAD,
    STRIDE,
    Head,
    Item,
    history_items,
    log_key,
    n_of,
    node_attribute,
    owners_text,
    s_of,
    slots_in,
    slots_key,
    text,
)

MOST_ITEMS: Final = 100
"""What DynamoDB takes in one transaction."""
MOST_BYTES: Final = 3_800_000
"""Changes of one commit, compressed: ten items. DynamoDB takes 4 MB in one transaction."""


def transaction(
    commit: Commit, head: Head, data: bytes, new_ids: Sequence[str], owners: Mapping[Slot, ClaimKey]
) -> list[Item]:
    """What the commit writes: the head first, so that what stands against it is told first.

    ``data``: its changes, encoded; ``owners``: of all slots, before it. Raises ``CommitTooLarge``.
    """
    made = [_advance(commit, head)]
    made += [
        {"Put": {"Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}
        for item in history_items(commit.n, commit.at, data)
    ]
    made += _slots(commit, owners)
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


def _slots(commit: Commit, owners: Mapping[Slot, ClaimKey]) -> list[Item]:
    """Slots change hands on condition that each slot of their nodes has the owner that is known, or none."""
    free, take = dict(commit.free), dict(commit.take)
    nodes = {slot.node for slot in (*free, *take)}
    before = {slot: owner for slot, owner in owners.items() if slot.node in nodes and slot not in take} | free
    after = {slot: owner for slot, owner in before.items() if slot not in free} | take
    old, new = by_node(before), by_node(after)
    ordered = sorted(nodes, key=lambda node: (text(slots_key(node), "sk"), node))
    return [
        _owners(
            key, [(node, owners_text(old.get(node, {})), owners_text(new.get(node, {}))) for node in some]
        )
        for key, some in groupby(ordered, key=lambda node: text(slots_key(node), "sk"))
    ]


def _owners(key: str, changes: Sequence[tuple[str, str, str]]) -> Item:
    """``changes``: nodes with the owners of their slots before and after; empty: no slot has an owner."""
    sets, removes, conditions = [], [], []
    values: Item = {}
    for i, (_, before, after) in enumerate(changes):
        if before:
            conditions.append(f"#n{i} = :b{i}")
            values[f":b{i}"] = s_of(before)
        else:
            conditions.append(f"attribute_not_exists(#n{i})")
        if after:
            sets.append(f"#n{i} = :a{i}")
            values[f":a{i}"] = s_of(after)
        else:
            removes.append(f"#n{i}")
    return {
        "Update": {
            "Key": {**slots_key(changes[0][0]), "sk": s_of(key)},
            "UpdateExpression": " ".join(
                f"{word} {', '.join(names)}" for word, names in (("SET", sets), ("REMOVE", removes)) if names
            ),
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {
                f"#n{i}": node_attribute(node) for i, (node, *_) in enumerate(changes)
            },
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
        if node_attribute(slot.node) in concerned and owners.get(slot) != owner:
            return SlotTaken(f"{slot} can't be freed for {owner}: its owner is {owners.get(slot)}")
    freed = {slot for slot, _ in commit.free}
    for slot, owner in commit.take:
        if node_attribute(slot.node) in concerned and slot not in freed and slot in owners:
            return SlotTaken(f"{slot} can't be taken by {owner}: its owner is {owners[slot]}")
    return SlotTaken(f"commit {commit.n} does not fit the owners of slots, which are {owners}")
