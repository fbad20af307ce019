"""The tables of the SQLite store, and what a commit does to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from gpudev_hub.core.commit import Change, Commit, Slot, Snapshot
from gpudev_hub.core.model import Claim, MintedId, Node, Reservation
from gpudev_hub.core.ports import SlotTaken

from . import records

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
    """The hot state after one change; ``SlotTaken`` if it uses the id of an ended reservation again."""
    match change.record:
        case Reservation() as reservation:
            if change.gone:
                connection.execute("DELETE FROM reservations WHERE id = ?", (reservation.id,))
                connection.execute(
                    "INSERT INTO ended (id, subject, record) VALUES (?, ?, ?)",
                    (reservation.id, reservation.owner.subject, records.encode(reservation)),
                )
            else:
                ended = connection.execute("SELECT 1 FROM ended WHERE id = ?", (reservation.id,)).fetchone()
                if ended is not None:
                    raise SlotTaken(f"{reservation.id} has ended: its id is never used again")
                _put(connection, "reservations", (reservation.id,), records.encode(reservation))
        case Claim() as claim:
            if change.gone:
                connection.execute("DELETE FROM claims WHERE reservation = ? AND attempt = ?", claim.key)
            else:
                _put(connection, "claims", claim.key, records.encode(claim))
        case MintedId() as minted:
            if change.gone:
                connection.execute("DELETE FROM minted WHERE id = ?", (minted.id,))
            else:
                _put(connection, "minted", (minted.id,), records.encode(minted))
        case Node() as node:
            if change.gone:
                connection.execute("DELETE FROM nodes WHERE name = ?", (node.name,))
            else:
                _put(connection, "nodes", (node.name,), records.encode(node))


def _put(connection: sqlite3.Connection, table: str, key: tuple[object, ...], data: bytes) -> None:
    marks = ", ?" * len(key)
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?{marks})", (*key, data))  # noqa: S608


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
                change.cause,
                change.actor,
                int(change.gone),
                records.encode(change.record),
            )
            for change in commit.changes
        ),
    )


def snapshot(connection: sqlite3.Connection) -> Snapshot:
    """The hot state, read within one transaction."""
    connection.execute("BEGIN")
    try:
        epoch, n, at, next_seq = connection.execute("SELECT epoch, n, at, next_seq FROM head").fetchone()
        found = Snapshot(epoch, n, at, next_seq)
        for (data,) in connection.execute("SELECT record FROM reservations"):
            reservation = records.decode_reservation(data)
            found.reservations[reservation.id] = reservation
        for (data,) in connection.execute("SELECT record FROM claims"):
            claim = records.decode_claim(data)
            found.claims[claim.key] = claim
        for (data,) in connection.execute("SELECT record FROM minted"):
            minted = records.decode_minted(data)
            found.minted[minted.id] = minted
        for (data,) in connection.execute("SELECT record FROM nodes"):
            node = records.decode_node(data)
            found.nodes[node.name] = node
    finally:
        connection.execute("ROLLBACK")
    return found
