"""Reading what has ended, and the history, from the tables of the SQLite store."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left

from gpudev_hub.core.commit import HistoryEntry
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.stores import records

from .tables import current


def ended(
    connection: sqlite3.Connection, subject: str | None, before: int | None, limit: int
) -> tuple[list[Reservation], int | None]:
    """Return ended reservations, latest first, and the next page's cursor."""
    latest = (1 << 62) if before is None else before
    query = "SELECT position, record FROM ended WHERE position < ?{} ORDER BY position DESC LIMIT ?"
    arguments: tuple[object, ...]
    if subject is None:
        query, arguments = query.format(""), (latest, limit + 1)
    else:
        query, arguments = query.format(" AND subject = ?"), (latest, subject, limit + 1)
    rows = connection.execute(query, arguments).fetchall()
    page = rows[:limit]
    return (
        [records.decode_reservation(current(data)) for _, data in page],
        page[-1][0] if len(rows) > limit else None,
    )


def find(connection: sqlite3.Connection, reservation: str) -> Reservation | None:
    """Return the last record of a reservation, live or ended."""
    query = "SELECT record FROM reservations WHERE id = ?1 UNION ALL SELECT record FROM ended WHERE id = ?1"
    row = connection.execute(query, (reservation,)).fetchone()
    return None if row is None else records.decode_reservation(current(row[0]))


def history(
    connection: sqlite3.Connection, reservation: str | None, after: int, limit: int
) -> tuple[list[HistoryEntry], int | None]:
    """Return changes in commit order, and the next page's cursor."""
    query = "SELECT position, n, at, kind, cause, actor, gone, record FROM history WHERE {} LIMIT ?"
    arguments: tuple[object, ...]
    if reservation is None:
        query, arguments = query.format("position > ? ORDER BY position"), (after, limit + 1)
    else:
        where = "reservation = ? AND position > ? ORDER BY position"
        query, arguments = query.format(where), (reservation, after, limit + 1)
    rows = connection.execute(query, arguments).fetchall()
    page = rows[:limit]
    entries = [
        HistoryEntry(n, at, records.decode_change(kind, current(record), cause, actor, bool(gone)))
        for _, n, at, kind, cause, actor, gone, record in page
    ]
    return entries, page[-1][0] if len(rows) > limit else None


def seek(connection: sqlite3.Connection, at: Millis) -> int:
    """Return the cursor before the first change at ``at`` or later.

    By halving: positions have no gaps, and time goes up with them.
    """
    (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM history").fetchone()

    def at_of(position: int) -> Millis:
        row = connection.execute("SELECT at FROM history WHERE position = ?", (position,)).fetchone()
        return int(row[0])

    return bisect_left(range(1, last + 1), at, key=at_of)
