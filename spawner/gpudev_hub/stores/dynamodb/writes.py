"""What a commit writes into the DynamoDB table, as one transaction: pure functions."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gpudev_hub.core.commit import Change, Commit, Owned, Part
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.model import Node, Reservation
from gpudev_hub.core.ports import SlotTaken
from gpudev_hub.stores import records

from .items import (
    HEAD,
    STRIDE,
    Entry,
    Head,
    Item,
    ended_key,
    history_key,
    hot_key,
    log_key,
    n_of,
    s_of,
    slots_in,
    text,
)

MOST_ITEMS: Final = 100
"""What DynamoDB takes in one transaction."""
MOST_BYTES: Final = 380_000
"""JSON of all changes of one commit. The history item, the largest, stays below DynamoDB's 400 KB even where
nothing can be compressed, and the transaction below its 4 MB."""
_JSON: Final = msgspec.json.Encoder()


@dataclass(slots=True)
class _Touched:
    """A reservation that a commit concerns."""

    changed: bool = False
    """Its own record, not only a claim of it."""
    ended: tuple[int, Reservation] | None = None
    """Index of the change that ended it, and its last record."""


@dataclass(slots=True)
class _Sorted:
    """The changes of a commit by the item that they end up in; of each record the last one counts."""

    hot: dict[str, Change] = field(default_factory=dict)
    nodes: dict[str, Change | None] = field(default_factory=dict)
    """Also nodes of which only slots change hands."""
    logs: dict[str, _Touched] = field(default_factory=dict)

    @classmethod
    def of(cls, changes: Iterable[Change], slots: Iterable[Owned]) -> _Sorted:
        found = cls()
        for i, change in enumerate(changes):
            record = change.record
            if isinstance(record, Node):
                found.nodes[record.name] = change
            else:
                found.hot[text(hot_key(record), "sk")] = change
            owner = records.reservation_of(record)
            if owner is not None:
                log = found.logs.setdefault(owner, _Touched())
                if isinstance(record, Reservation):
                    log.changed = True
                    log.ended = (i, record) if change.gone else None
        for slot, _ in slots:
            found.nodes.setdefault(slot.node, None)
        return found

    def items(self) -> int:
        """How many items the commit writes, head and history too."""
        ended = sum(log.ended is not None for log in self.logs.values())
        return 2 + len(self.hot) + len(self.nodes) + len(self.logs) + ended


def size(changes: Iterable[Change], slots: Iterable[Owned]) -> tuple[int, int]:
    """(items, bytes of JSON) that a commit of these writes."""
    changes = tuple(changes)
    encoded = sum(
        len(records.encode(change.record))
        + len(records.encode_cause(change).encode())
        + len(change.actor.encode())
        + 40
        for change in changes
    )
    return _Sorted.of(changes, slots).items(), encoded


def fits(part: Part) -> bool:
    """Whether one transaction takes so much."""
    items, encoded = size(part.changes, (*part.take, *part.free))
    return items <= MOST_ITEMS and encoded <= MOST_BYTES


def transaction(commit: Commit, head: Head) -> list[Item]:
    """What the commit writes: the head first, so that what stands against it is told first."""
    found = _Sorted.of(commit.changes, (*commit.take, *commit.free))
    made = [_advance(commit, head), _history(commit)]
    made += [_hot(change) for change in found.hot.values()]
    made += [_node(name, change, commit) for name, change in found.nodes.items()]
    for reservation, log in found.logs.items():
        made += _log(reservation, log, commit.n)
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


def _history(commit: Commit) -> Item:
    entries = [
        Entry(
            records.kind_of(change.record),
            records.encode_cause(change),
            change.actor,
            change.gone,
            msgspec.Raw(records.encode(change.record)),
        )
        for change in commit.changes
    ]
    data = zlib.compress(_JSON.encode(entries))
    item = {**history_key(commit.n), "at": n_of(commit.at), "changes": {"B": data}}
    return {"Put": {"Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}


def _hot(change: Change) -> Item:
    key = hot_key(change.record)
    if change.gone:
        return {"Delete": {"Key": key}}
    return {"Put": {"Item": {**key, "record": s_of(records.encode(change.record).decode())}}}


def _node(name: str, change: Change | None, commit: Commit) -> Item:
    """Slots change hands on condition that each has the owner that the commit says, or none."""
    free = {slot.index: owner for slot, owner in commit.free if slot.node == name}
    take = {slot.index: owner for slot, owner in commit.take if slot.node == name}
    sets, removes, conditions = [], [], []
    values: Item = {}
    for index in sorted({*free, *take}):
        if index in free:
            conditions.append(f"s{index} = :free{index}")
            values[f":free{index}"] = s_of(_owner(free[index]))
        else:
            conditions.append(f"attribute_not_exists(s{index})")
        if index in take:
            sets.append(f"s{index} = :take{index}")
            values[f":take{index}"] = s_of(_owner(take[index]))
        else:
            removes.append(f"s{index}")
    names: dict[str, str] = {}
    if change is not None:
        names = {"#record": "record"}
        if change.gone:
            removes.append("#record")
        else:
            sets.append("#record = :record")
            values[":record"] = s_of(records.encode(change.record).decode())
    body: Item = {
        "Key": {"pk": s_of("hot"), "sk": s_of(f"node#{name}")},
        "UpdateExpression": " ".join(
            f"{word} {', '.join(parts)}" for word, parts in (("SET", sets), ("REMOVE", removes)) if parts
        ),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    for field_, value in (
        ("ConditionExpression", " AND ".join(conditions)),
        ("ExpressionAttributeNames", names),
        ("ExpressionAttributeValues", values),
    ):
        if value:
            body[field_] = value
    return {"Update": body}


def _log(reservation: str, log: _Touched, n: int) -> list[Item]:
    """An ended reservation's id is never used again: that is a condition on the item that stays of it."""
    update = "SET commits = list_append(if_not_exists(commits, :none), :n)"
    values: Item = {":none": {"L": []}, ":n": {"L": [n_of(n)]}}
    body: Item = {"Key": log_key(reservation), "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    if log.changed:
        body["ConditionExpression"] = "attribute_not_exists(ended)"
    made: list[Item] = [{"Update": body}]
    if log.ended is not None:
        index, record = log.ended
        position = n * STRIDE + index
        update += ", ended = :position"
        values[":position"] = n_of(position)
        ended = {
            **ended_key(position),
            "position": n_of(position),
            "subject": s_of(record.owner.subject),
            "record": s_of(records.encode(record).decode()),
        }
        made.append({"Put": {"Item": ended}})
    body["UpdateExpression"] = update
    body["ExpressionAttributeValues"] = values
    return made


def _owner(key: ClaimKey) -> str:
    return f"{key[0]}/{key[1]}"


def why_refused(write: Item, found: Item, commit: Commit) -> SlotTaken:
    """What stands against this write of a commit, in words; ``found``: the item as it is."""
    if "Put" in write:
        return SlotTaken(f"commit {commit.n} is in the history already")
    key = write["Update"]["Key"]
    kind, _, name = key["sk"]["S"].partition("#")
    if kind != "node":
        return SlotTaken(f"{key['pk']['S'].partition('#')[2]} has ended: its id is never used again")
    owners = dict(slots_in({**found, "sk": key["sk"]}))
    for slot, owner in commit.free:
        if slot.node == name and owners.get(slot) != owner:
            return SlotTaken(f"{slot} can't be freed for {owner}: its owner is {owners.get(slot)}")
    freed = {slot for slot, _ in commit.free}
    for slot, owner in commit.take:
        if slot.node == name and slot not in freed and slot in owners:
            return SlotTaken(f"{slot} can't be taken by {owner}: its owner is {owners[slot]}")
    return SlotTaken(f"commit {commit.n} does not fit slots of {name}, which are {found}")
