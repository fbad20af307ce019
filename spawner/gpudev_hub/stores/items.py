"""The items of a log store: their keys, and what is read from them.

Keys are ``pk`` and ``sk`` (``docs/dynamodb.md`` has the access patterns):

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

import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Annotated, Any, Final, TypeVar

import msgspec

from gpudev_hub.core.commit import Change, HistoryEntry, Owned, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.model import Millis, Reservation

from . import records
from .backend import Action, Backend, Item, Key, Unmet, Write, reading

HEAD: Final[Key] = ("head", "head")
SCHEMA: Final = 2
"""Version of the layout, kept in the head."""
STRIDE: Final = 10_000
"""A change's position is its commit's number times this, and its index in the commit."""
ITEM_BYTES: Final = 390_000
"""Of the data in one item. DynamoDB takes 409,600 bytes, with keys and names of attributes."""
SLOT_ITEMS: Final = 16
"""Items that hold the owners of all slots, so that a transaction has room for any number of nodes."""

_T = TypeVar("_T")
Logged = tuple[int, int, Iterator[tuple[int, HistoryEntry]]]
"""A commit in the history: its number, its bytes, and its changes with their positions.

Changes are decoded when they are read.
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The item that every commit checks and advances: the last commit, and who may make the next one."""

    epoch: int
    n: int = 0
    commit_id: str = ""
    at: Millis = 0
    next_seq: int = 1
    guard: str = ""
    """Changed whenever the state is read again: a write sent before has no effect after that."""
    schema: int = SCHEMA
    checkpoint: Annotated[str, msgspec.Meta(pattern=r"^([0-9]+-|$)")] = ""
    """Name of the checkpoint from which the live state is folded; empty: there is none yet."""

    @classmethod
    def read(cls, item: Item) -> Head:
        """Return the head in this item. Raises ``Unreadable``."""
        return values_of(item, HEAD, cls)

    @property
    def checkpoint_n(self) -> int:
        """Number of the last commit in the checkpoint."""
        return int(self.checkpoint.partition("-")[0] or "0")


class Log(msgspec.Struct):
    """The item that stays of a reservation for ever."""

    commits: list[int] = []
    ended: int | None = None


class Ended(msgspec.Struct):
    """The item of the last record of an ended reservation."""

    position: int
    record: str


class Piece(msgspec.Struct):
    """An item of the history."""

    at: Millis
    changes: bytes
    pieces: int = 1
    """How many items the commit has; only in its first one."""


def key_in(item: Item) -> Key:
    """Return the key of this item."""
    return item["pk"], item["sk"]


def values_of(item: Item, key: Key, type_: type[_T]) -> _T:
    """Return the values of the item with this key. Raises ``Unreadable`` if they are not of this type."""
    with reading(key):
        return msgspec.convert(item, type_)


def log_in(item: Item) -> Log:
    """Return what is known of a reservation that is in this item. Raises ``Unreadable``."""
    return values_of(item, key_in(item), Log)


def read_head(backend: Backend) -> Head:
    """Return the head as it is; one with epoch 0 if no service ever opened the store."""
    found = backend.get(HEAD)
    return Head(0) if found is None else Head.read(found)


def change_head(backend: Backend, head: Head, **values: Any) -> Head:
    """Change the head and its guard; raise ``Unmet`` if the guard is no longer that of ``head``."""
    values["guard"] = secrets.token_hex(8)
    changed = replace(head, **values)
    if head.epoch:
        write = Write(Action.UPDATE, HEAD, values, {"epoch": head.epoch, "guard": head.guard})
    else:
        write = Write(Action.PUT, HEAD, asdict(changed), {"pk": None})
    try:
        backend.write([write])
    except Unmet as unmet:
        if unmet.found.get("guard") != changed.guard:
            raise
        # The answer to an earlier try was lost.
    return changed


class Entry(msgspec.Struct, array_like=True):
    """A change in a history item."""

    kind: str
    cause: str
    actor: str
    gone: bool
    record: msgspec.Raw


_ENTRIES: Final = msgspec.json.Decoder(list[Entry])


def compressed(value: object) -> bytes:
    """Return a value as compressed JSON."""
    return zlib.compress(msgspec.json.encode(value))


def slots_key(node: str) -> Key:
    """Return where the owners of a node's slots are."""
    return "slots", f"{zlib.crc32(node.encode()) % SLOT_ITEMS:02}"


def node_attribute(node: str) -> str:
    """Return the name of the attribute with the owners of a node's slots."""
    return f"node#{node}"


def owners_by_node(owners: Mapping[Slot, ClaimKey]) -> dict[str, str]:
    """Return the owners of each node's slots as its attribute holds them."""
    found: dict[str, list[str]] = {}
    for slot, (of, attempt) in sorted(owners.items(), key=lambda owned: owned[0].index):
        found.setdefault(slot.node, []).append(f"{slot.index}={of}/{attempt}")
    return {node: " ".join(texts) for node, texts in found.items()}


def owner_in(text: str) -> ClaimKey:
    """Return the owner in a text like ``ID/1``."""
    reservation, _, attempt = text.rpartition("/")
    return reservation, int(attempt)


def slots_in(item: Item) -> list[Owned]:
    """Return the owners of slots in one of their items. Raises ``Unreadable``."""
    found: list[Owned] = []
    for name, text in item.items():
        kind, _, node = name.partition("#")
        if kind == "node":
            with reading(key_in(item)):
                for owned in msgspec.convert(text, str).split():
                    index, _, owner = owned.partition("=")
                    found.append((Slot(node, int(index)), owner_in(owner)))
    return found


def log_key(reservation: str) -> Key:
    """Return the key of the item that stays of a reservation for ever."""
    return f"reservation#{reservation}", "log"


def ended_key(position: int) -> Key:
    """Return the key of the last record of the reservation that ended at this position."""
    return "ended", f"{position:018}"


def put_ended(position: int, subject: str, record: bytes) -> Write:
    """Return the write of the last record of a reservation."""
    values = {"position": position, "subject": subject, "record": record.decode()}
    return Write(Action.PUT, ended_key(position), values)


def history_key(n: int, piece: int = 0) -> Key:
    """Return the key of the changes of one commit."""
    return "history", f"{n:012}" + (f"#{piece}" if piece else "")


def in_pieces(data: bytes) -> list[bytes]:
    """Divide data into pieces that fit into items."""
    return [data[start : start + ITEM_BYTES] for start in range(0, len(data), ITEM_BYTES)]


def encode_changes(changes: Iterable[Change]) -> bytes:
    """Return changes as the history holds them."""
    return compressed(
        [
            Entry(
                records.kind_of(change.record),
                records.encode_cause(change),
                change.actor,
                change.gone,
                msgspec.Raw(records.encode(change.record)),
            )
            for change in changes
        ]
    )


def put_history(n: int, at: Millis, data: bytes) -> Iterator[Write]:
    """Yield the writes of the changes of one commit, which must be new."""
    pieces = in_pieces(data)
    for i, piece in enumerate(pieces):
        count = len(pieces) if len(pieces) > 1 and i == 0 else None
        values = {"at": at, "changes": piece, "pieces": count}
        yield Write(Action.PUT, history_key(n, i), values, {"pk": None})


def more_pieces(item: Item) -> list[Key]:
    """Return the keys of the items that belong to this first one of a commit. Raises ``Unreadable``."""
    key = key_in(item)
    with reading(key):
        return [history_key(int(key[1]), i) for i in range(1, msgspec.convert(item, Piece).pieces)]


def commits_in(found: Iterable[Item], naming: str = "") -> Iterator[Logged]:
    """Yield the commits in history items, which are in order; leave out incomplete ones.

    ``naming``: leave out changes of records that do not have this text, without decoding them. Raises
    ``Unreadable``, also while the changes are read.
    """
    text = msgspec.json.encode(naming) if naming else b""
    for sk, group in groupby(found, key=lambda item: item["sk"].partition("#")[0]):
        pieces = list(group)
        # While a transaction is being applied, the first item may be the one that is not visible yet.
        if pieces[0]["sk"] == sk and len(more_pieces(pieces[0])) == len(pieces) - 1:
            yield _commit_in(pieces, text)


def _commit_in(items: list[Item], text: bytes) -> Logged:
    with reading(key_in(items[0])):
        n, pieces = int(items[0]["sk"]), [msgspec.convert(item, Piece) for item in items]
        data = b"".join(piece.changes for piece in pieces)
        changes = _ENTRIES.decode(zlib.decompress(data))
    return n, len(data), _entries_of(n, pieces[0].at, changes, text)


def _entries_of(n: int, at: Millis, changes: list[Entry], text: bytes) -> Iterator[tuple[int, HistoryEntry]]:
    with reading(history_key(n)):
        for position, change in enumerate(changes, n * STRIDE):
            if text in bytes(change.record):
                yield position, _entry_of(n, at, change)


def _entry_of(n: int, at: Millis, change: Entry) -> HistoryEntry:
    record = bytes(change.record)
    return HistoryEntry(
        n, at, records.decode_change(change.kind, record, change.cause, change.actor, change.gone)
    )


def ended_in(item: Item) -> tuple[int, Reservation]:
    """Return the position and the last record of an ended reservation's item. Raises ``Unreadable``."""
    found = values_of(item, key_in(item), Ended)
    with reading(key_in(item)):
        return found.position, records.decode_reservation(found.record.encode())
