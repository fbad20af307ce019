"""Reads and changes files of the SQLite store without the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from gpudev_hub.stores.sqlite.store import SqliteStore

SCHEMA_1 = Path(__file__).parent / "schema_1.sql"
"""Nine commits as a file of schema 1 held them: a0 and a1 have ended, a0 still holds slots."""


def schema_1(path: Path) -> None:
    """Create a file of schema 1."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA_1.read_text())
        connection.execute("PRAGMA user_version = 1")


def items_of(path: Path, pk: str) -> dict[str, dict[str, Any]]:
    """Return all items with this key, by ``sk``."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT sk, item FROM items WHERE pk = ?", (pk,)).fetchall()
    return {sk: msgspec.msgpack.decode(item) for sk, item in rows}


def change(path: Path, pk: str, sk: str, **values: Any) -> None:
    """Change some values of an item."""
    item = msgspec.msgpack.encode({**items_of(path, pk)[sk], **values})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE items SET item = ? WHERE pk = ? AND sk = ?", (item, pk, sk))


def writing(store: SqliteStore) -> sqlite3.Connection:
    """Return the connection of the thread that writes. This thread opens the first connection."""
    return next(iter(store._file._connections.values()))
