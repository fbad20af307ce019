"""The items of the DynamoDB table: their keys, and what is read from them.

Keys are ``pk`` and ``sk`` (``infra/dynamodb-table.json``; ``docs/dynamodb.md`` has the access patterns):

| pk | sk | what |
|---|---|---|
| ``head`` | ``head`` | epoch, number, id and time of the last commit, guard, next sequence number, schema |
| ``hot`` | ``reservation#ID``, ``claim#ID#ATTEMPT``, ``minted#ID``, ``person#SUBJECT``, ``limit#SCOPE#POOL``,
``spending#SUBJECT#POOL``, ``sweep#`` | a live record |
| ``hot`` | ``node#NAME`` | a node's record, and the owner of slot 3 as attribute ``s3`` |
| ``ended`` | position | the last record of an ended reservation, in the order they ended |
| ``reservation#ID`` | ``log`` | numbers of the commits that concern it; ``ended``: its position |
| ``history`` | number of the commit | all changes of that commit, compressed |
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gpudev_hub.core.commit import HistoryEntry, Owned, Slot, Snapshot
from gpudev_hub.core.live_state import Record
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.stores import records

Item = dict[str, Any]
"""An item as the API has it: ``{"n": {"N": "7"}}``."""

SCHEMA: Final = 1
"""Version of the layout, kept in the head."""
BY_SUBJECT: Final = "ended-by-subject"
"""The index of ended reservations by owner."""
STRIDE: Final = 10_000
"""A change's position is its commit's number times this, and its index in the commit."""

HEAD: Final[Item] = {"pk": {"S": "head"}, "sk": {"S": "head"}}


class Entry(msgspec.Struct, array_like=True):
    """A change in a history item."""

    kind: str
    cause: str
    actor: str
    gone: bool
    record: msgspec.Raw


_ENTRIES: Final = msgspec.json.Decoder(list[Entry])


@dataclass(frozen=True, slots=True)
class Head:
    """The item that every commit conditions on and advances."""

    epoch: int
    n: int
    commit_id: str
    at: Millis
    next_seq: int
    guard: str
    """Changed whenever the state is read again: what was sent before that can't be made any more."""

    @classmethod
    def read(cls, item: Item) -> Head:
        """The head in this item."""
        return cls(
            epoch=number(item, "epoch"),
            n=number(item, "n"),
            commit_id=text(item, "commit_id"),
            at=number(item, "at"),
            next_seq=number(item, "next_seq"),
            guard=text(item, "guard"),
        )


def number(item: Item, name: str) -> int:
    """A number of an item."""
    return int(item[name]["N"])


def text(item: Item, name: str) -> str:
    """A string of an item."""
    return str(item[name]["S"])


def n_of(value: int) -> Item:
    """A number as an attribute."""
    return {"N": str(value)}


def s_of(value: str) -> Item:
    """A string as an attribute."""
    return {"S": value}


def first_head(guard: str) -> Item:
    """The head of a table that a service opens for the first time."""
    return {
        **HEAD,
        "schema": n_of(SCHEMA),
        "epoch": n_of(1),
        "n": n_of(0),
        "commit_id": s_of(""),
        "at": n_of(0),
        "next_seq": n_of(1),
        "guard": s_of(guard),
    }


def hot_key(record: Record) -> Item:
    """Where a live record is."""
    return {"pk": s_of("hot"), "sk": s_of(f"{records.kind_of(record)}#{records.name_of(record)}")}


def live_key(reservation: str) -> Item:
    """Where a reservation is as long as it lives."""
    return {"pk": s_of("hot"), "sk": s_of(f"reservation#{reservation}")}


def log_key(reservation: str) -> Item:
    """The item that stays of a reservation for ever."""
    return {"pk": s_of(f"reservation#{reservation}"), "sk": s_of("log")}


def ended_key(position: int) -> Item:
    """The last record of the reservation that ended there."""
    return {"pk": s_of("ended"), "sk": s_of(f"{position:018}")}


def history_key(n: int) -> Item:
    """The changes of one commit."""
    return {"pk": s_of("history"), "sk": s_of(f"{n:012}")}


def put_hot(snapshot: Snapshot, item: Item) -> None:
    """Add a live record to a snapshot; a node's item may hold owners of slots only."""
    if "record" not in item:
        return
    kind = text(item, "sk").partition("#")[0]
    snapshot.set_record(records.decode(kind, text(item, "record").encode()))


def is_left_over(item: Item) -> bool:
    """Whether this is the item of a node that is gone, and all of whose slots are free."""
    return item.keys() == {"pk", "sk"}


def slots_in(item: Item) -> Iterable[Owned]:
    """The owners of the slots of a node's item."""
    node = text(item, "sk").partition("#")[2]
    for name, value in item.items():
        if name[0] == "s" and name[1:].isdigit():
            reservation, _, attempt = value["S"].rpartition("/")
            yield Slot(node, int(name[1:])), (reservation, int(attempt))


def entries_in(item: Item) -> list[tuple[int, HistoryEntry]]:
    """Positions and changes of a history item."""
    n, at = int(text(item, "sk")), number(item, "at")
    found = _ENTRIES.decode(zlib.decompress(bytes(item["changes"]["B"])))
    return [
        (
            n * STRIDE + i,
            HistoryEntry(n, at, records.decode_change(e.kind, bytes(e.record), e.cause, e.actor, e.gone)),
        )
        for i, e in enumerate(found)
    ]


def reservation_in(item: Item) -> Reservation:
    """The record of an ended or live reservation's item."""
    return records.decode_reservation(text(item, "record").encode())


def commits_in(log: Mapping[str, Any]) -> list[int]:
    """Numbers of the commits that concern a reservation."""
    return [int(n["N"]) for n in log["commits"]["L"]]
