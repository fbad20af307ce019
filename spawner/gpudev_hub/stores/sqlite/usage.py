"""The tables of the SQLite store that keep the usage sums: one row per day, and a head."""

from __future__ import annotations

import sqlite3
from typing import Final

from gpudev_hub.core.usage import Day, SavedUsage
from gpudev_hub.stores import usage_records

#: Made where they are missing: files of earlier versions have none.
TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS usage_head (
        one INTEGER PRIMARY KEY CHECK (one = 1), data BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS usage_days (
        day INTEGER PRIMARY KEY, n INTEGER NOT NULL, data BLOB NOT NULL
    ) STRICT""",
)

EncodedDay = tuple[Day, int, bytes]


def save(connection: sqlite3.Connection, head: bytes, days: list[EncodedDay]) -> None:
    """Replace the head and these days."""
    connection.executemany("INSERT OR REPLACE INTO usage_days VALUES (?, ?, ?)", days)
    connection.execute("INSERT OR REPLACE INTO usage_head VALUES (1, ?)", (head,))


def load(connection: sqlite3.Connection) -> SavedUsage | None:
    """Return everything that was saved."""
    connection.execute("BEGIN")
    try:
        head = connection.execute("SELECT data FROM usage_head").fetchone()
        days = connection.execute("SELECT day, n, data FROM usage_days ORDER BY day").fetchall()
    finally:
        connection.execute("ROLLBACK")
    if head is None:
        return None
    return SavedUsage(
        usage_records.decode_head(head[0]), tuple(usage_records.decode_day(*found) for found in days)
    )
