"""The items of the DynamoDB table: their keys, and what is read from them.

Keys are ``pk`` and ``sk`` (``infra/dynamodb-table.json``; ``docs/dynamodb.md`` has the access patterns):

| pk | sk | what |
|---|---|---|
| ``head`` | ``head`` | epoch, last commit, guard, next sequence number, name of the checkpoint, schema |
| ``history`` | number of the commit | its changes, compressed; a large one is in ``NUMBER#1`` … too |
| ``checkpoint`` | ``NAME#0000`` … | the live state after one commit, compressed |
| ``slots`` | a number | owners of the slots of some nodes: ``node#node-1`` is ``3=ID/1`` … |
| ``reservation#ID`` | ``log`` | the id is used; once it has ended: its commits, and ``ended``, its position |
| ``ended`` | position | the last record of an ended reservation, in the order they ended |
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import msgspec

from gpudev_hub.core.commit import Change, HistoryEntry, Owned, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.stores import records

Item = dict[str, Any]
"""An item as the API has it: ``{"n": {"N": "7"}}``."""

SCHEMA: Final = 2
"""Version of the layout, kept in the head. ``upgrade`` converts version 1."""
BY_SUBJECT: Final = "ended-by-subject"
"""The index of ended reservations by owner."""
STRIDE: Final = 10_000
"""A change's position is its commit's number times this, and its index in the commit."""
ITEM_BYTES: Final = 390_000
"""Of the data in one item. DynamoDB takes 409,600 bytes, with keys and names of attributes."""
SLOT_ITEMS: Final = 16
"""Items that hold the owners of all slots, so that a transaction has room for any number of nodes."""

HEAD: Final[Item] = {"pk": {"S": "head"}, "sk": {"S": "head"}}


class Entry(msgspec.Struct, array_like=True):
    """A change in a history item."""

    kind: str
    cause: str
    actor: str
    gone: bool
    record: msgspec.Raw


_ENTRIES: Final = msgspec.json.Decoder(list[Entry])
_JSON: Final = msgspec.json.Encoder()


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
    schema: int = SCHEMA
    checkpoint: str = ""
    """Name of the checkpoint from which the live state is folded; empty: there is none yet."""

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
            schema=number(item, "schema"),
            checkpoint=text(item, "checkpoint") if "checkpoint" in item else "",
        )

    @property
    def checkpoint_n(self) -> int:
        """Number of the last commit in the checkpoint."""
        return int(self.checkpoint.partition("-")[0] or "0")


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


def check_guard(head: Head) -> Item:
    """In a transaction: refuse it once the state was read again, by this service or another."""
    return {
        "ConditionCheck": {
            "Key": HEAD,
            "ConditionExpression": "guard = :guard",
            "ExpressionAttributeValues": {":guard": s_of(head.guard)},
        }
    }


def slots_key(node: str) -> Item:
    """Where the owners of a node's slots are."""
    return {"pk": s_of("slots"), "sk": s_of(f"{zlib.crc32(node.encode()) % SLOT_ITEMS:02}")}


def node_attribute(node: str) -> str:
    """Return the name of the attribute with the owners of a node's slots."""
    return f"node#{node}"


def owners_text(owners: Mapping[Slot, ClaimKey]) -> str:
    """Return the owners of one node's slots as an attribute holds them."""
    ordered = sorted(owners.items(), key=lambda owned: owned[0].index)
    return " ".join(f"{slot.index}={of}/{attempt}" for slot, (of, attempt) in ordered)


def owner_in(text: str) -> ClaimKey:
    """Return the owner in a text like ``ID/1``."""
    reservation, _, attempt = text.rpartition("/")
    return reservation, int(attempt)


def slots_in(item: Item) -> Iterable[Owned]:
    """Return the owners of slots in one of their items."""
    for name in item:
        kind, _, node = name.partition("#")
        if kind == "node":
            for owned in text(item, name).split():
                index, _, owner = owned.partition("=")
                yield Slot(node, int(index)), owner_in(owner)


def log_key(reservation: str) -> Item:
    """The item that stays of a reservation for ever."""
    return {"pk": s_of(f"reservation#{reservation}"), "sk": s_of("log")}


def ended_key(position: int) -> Item:
    """The last record of the reservation that ended there."""
    return {"pk": s_of("ended"), "sk": s_of(f"{position:018}")}


def ended_item(position: int, record: Reservation) -> Item:
    """The item of a reservation that ended there."""
    return {
        **ended_key(position),
        "position": n_of(position),
        "subject": s_of(record.owner.subject),
        "record": s_of(records.encode(record).decode()),
    }


def log_item(reservation: str, commits: Iterable[int], ended: int | None) -> Item:
    """The item of a reservation that is not live any more."""
    item = {**log_key(reservation), "commits": {"L": [n_of(n) for n in commits]}}
    return item if ended is None else {**item, "ended": n_of(ended)}


def history_key(n: int, piece: int = 0) -> Item:
    """The changes of one commit."""
    return {"pk": s_of("history"), "sk": s_of(f"{n:012}" + (f"#{piece}" if piece else ""))}


def in_pieces(data: bytes) -> list[bytes]:
    """Data as items can hold it."""
    return [data[start : start + ITEM_BYTES] for start in range(0, len(data), ITEM_BYTES)]


def encode_changes(changes: Iterable[Change]) -> bytes:
    """Changes as the history holds them."""
    entries = [
        Entry(
            records.kind_of(change.record),
            records.encode_cause(change),
            change.actor,
            change.gone,
            msgspec.Raw(records.encode(change.record)),
        )
        for change in changes
    ]
    return zlib.compress(_JSON.encode(entries))


def history_items(n: int, at: Millis, data: bytes) -> list[Item]:
    """The items of one commit."""
    pieces = in_pieces(data)
    made = [{**history_key(n, i), "at": n_of(at), "changes": {"B": piece}} for i, piece in enumerate(pieces)]
    if len(pieces) > 1:
        made[0]["pieces"] = n_of(len(pieces))
    return made


def more_pieces(item: Item) -> list[Item]:
    """Keys of the items that belong to this first one of a commit."""
    count = number(item, "pieces") if "pieces" in item else 1
    return [history_key(int(text(item, "sk")), piece) for piece in range(1, count)]


def entries_in(found: Iterable[Item]) -> Iterator[tuple[int, int, list[tuple[int, HistoryEntry]]]]:
    """Number, bytes, and changes with their positions of each commit, of history items in order.

    A commit of which an item is missing is left out.
    """
    for sk, group in groupby(found, key=lambda item: text(item, "sk").partition("#")[0]):
        pieces = list(group)
        n, at = int(sk), number(pieces[0], "at")
        if len(more_pieces(pieces[0])) != len(pieces) - 1:
            continue
        data = b"".join(bytes(piece["changes"]["B"]) for piece in pieces)
        entries = _ENTRIES.decode(zlib.decompress(data))
        yield (
            n,
            len(data),
            [
                (
                    n * STRIDE + i,
                    HistoryEntry(
                        n, at, records.decode_change(e.kind, bytes(e.record), e.cause, e.actor, e.gone)
                    ),
                )
                for i, e in enumerate(entries)
            ],
        )


def reservation_in(item: Item) -> Reservation:
    """The record of an ended reservation's item."""
    return records.decode_reservation(text(item, "record").encode())


def commits_in(log: Mapping[str, Any]) -> list[int]:
    """Numbers of the commits that concern a reservation."""
    return [int(n["N"]) for n in log["commits"]["L"]] if "commits" in log else []
