"""The tables of the SQLite store, and what a commit does to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from gpudev_hub.core.commit import Change, Commit, Slot, Snapshot
from gpudev_hub.core.live_state import KINDS, Record, key_of
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.ports import SlotTaken
from gpudev_hub.stores import records

SCHEMA: Final = 1
"""Version of the tables, kept in the file as ``user_version``."""

TABLES: Final = """
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL, n INTEGER NOT NULL, commit_id TEXT NOT NULL, at INTEGER NOT NULL,
    next_seq INTEGER NOT NULL
) STRICT;
INSERT INTO head VALUES (1, 0, 0, '', 0, 1);
CREATE TABLE reservations (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE claims (
    reservation TEXT NOT NULL, attempt INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (reservation, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE minted (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE nodes (name TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE slots (
    node TEXT NOT NULL, slot INTEGER NOT NULL, reservation TEXT NOT NULL, attempt INTEGER NOT NULL,
    PRIMARY KEY (node, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE ended (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, subject TEXT NOT NULL, record BLOB NOT NULL
) STRICT;
CREATE INDEX ended_by_subject ON ended (subject, position);
CREATE TABLE history (
    position INTEGER PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL,
    kind TEXT NOT NULL, reservation TEXT, cause TEXT NOT NULL, actor TEXT NOT NULL, gone INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX history_by_reservation ON history (reservation, position) WHERE reservation IS NOT NULL;
"""

OTHERS: Final = """
CREATE TABLE IF NOT EXISTS others (
    kind TEXT NOT NULL, key TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID
"""
"""Records of every kind without a table of its own; files made before there were any lack it."""

_OWN_TABLES: Final[dict[str, tuple[str, ...]]] = {
    "reservations": ("id",),
    "claims": ("reservation", "attempt"),
    "minted": ("id",),
    "nodes": ("name",),
}
"""Key columns of the tables that hold one kind of record."""


def current(record: bytes) -> bytes:
    """Return a stored record with the pool name of today: ``simulated`` was once ``pretended``."""
    return record.replace(b'"pool":"pretended"', b'"pool":"simulated"')


def free(connection: sqlite3.Connection, free: Iterable[tuple[Slot, tuple[str, int]]]) -> None:
    """Slots lose their owners; ``SlotTaken`` if one has another."""
    for slot, (reservation, attempt) in free:
        done = connection.execute(
            "DELETE FROM slots WHERE node = ? AND slot = ? AND reservation = ? AND attempt = ?",
            (slot.node, slot.index, reservation, attempt),
        )
        if done.rowcount != 1:
            raise SlotTaken(f"{slot} can't be freed for {reservation}/{attempt}: it is not the owner")


def take(connection: sqlite3.Connection, take: Iterable[tuple[Slot, tuple[str, int]]]) -> None:
    """Slots get owners; ``SlotTaken`` if one has an owner already."""
    for slot, (reservation, attempt) in take:
        try:
            connection.execute(
                "INSERT INTO slots VALUES (?, ?, ?, ?)", (slot.node, slot.index, reservation, attempt)
            )
        except sqlite3.IntegrityError as error:
            raise SlotTaken(f"{slot} can't be taken by {reservation}/{attempt}: it has an owner") from error


def apply(connection: sqlite3.Connection, change: Change) -> None:
    """The live state after one change; ``SlotTaken`` if it uses the id of an ended reservation again."""
    record = change.record
    if isinstance(record, Reservation):
        if change.gone:
            connection.execute(
                "INSERT INTO ended (id, subject, record) VALUES (?, ?, ?)",
                (record.id, record.owner.subject, records.encode(record)),
            )
        elif connection.execute("SELECT 1 FROM ended WHERE id = ?", (record.id,)).fetchone() is not None:
            raise SlotTaken(f"{record.id} has ended: its id is never used again")
    table, columns, key = _row(record)
    if change.gone:
        where = " AND ".join(f"{column} = ?" for column in columns)
        connection.execute(f"DELETE FROM {table} WHERE {where}", key)  # noqa: S608
    else:
        marks = ", ?" * len(key)
        data = records.encode(record)
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?{marks})", (*key, data))  # noqa: S608


def _row(record: Record) -> tuple[str, tuple[str, ...], tuple[object, ...]]:
    """Return table, key columns and key of a live record."""
    kind = KINDS[type(record)]
    if kind.table in _OWN_TABLES:
        key = key_of(record)
        return kind.table, _OWN_TABLES[kind.table], key if isinstance(key, tuple) else (key,)
    return "others", ("kind", "key"), (kind.name, records.name_of(record))


def append_history(connection: sqlite3.Connection, commit: Commit) -> None:
    """Every change of the commit, as it is."""
    connection.executemany(
        "INSERT INTO history (n, at, kind, reservation, cause, actor, gone, record) VALUES (?,?,?,?,?,?,?,?)",
        (
            (
                commit.n,
                commit.at,
                records.kind_of(change.record),
                records.reservation_of(change.record),
                records.encode_cause(change),
                change.actor,
                int(change.gone),
                records.encode(change.record),
            )
            for change in commit.changes
        ),
    )


def snapshot(connection: sqlite3.Connection) -> Snapshot:
    """The live state, read within one transaction."""
    connection.execute("BEGIN")
    try:
        epoch, n, at, next_seq = connection.execute("SELECT epoch, n, at, next_seq FROM head").fetchone()
        found = Snapshot(epoch, n, at, next_seq)
        for kind in KINDS.values():
            if kind.table in _OWN_TABLES:
                for (data,) in connection.execute(f"SELECT record FROM {kind.table}"):  # noqa: S608
                    found.set_record(records.decode(kind.name, current(data)))
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'others'").fetchone() is not None:
            for kind_name, data in connection.execute("SELECT kind, record FROM others"):
                found.set_record(records.decode(kind_name, data))
    finally:
        connection.execute("ROLLBACK")
    return found
