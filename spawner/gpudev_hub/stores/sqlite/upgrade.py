"""Schema 1 of the file, and how it becomes schema 2.

Schema 1 had a table for each kind of live record, and one row in ``history`` for each change. Records were
encoded as they are now, so they are copied and not decoded.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Final

from msgspec import Raw

from gpudev_hub.core.commit import Slot
from gpudev_hub.stores import checkpoint, items, usage, writes
from gpudev_hub.stores.backend import Action, Write
from gpudev_hub.stores.items import HEAD, Head

_TABLES: Final = ("head", "reservations", "claims", "minted", "nodes", "slots", "ended", "history")
_LATER_TABLES: Final = ("others", "usage_head", "usage_days")
"""Files of the first versions lack these."""
_LIVE: Final = """
SELECT 'reservation', record FROM reservations UNION ALL SELECT 'claim', record FROM claims UNION ALL
SELECT 'minted', record FROM minted UNION ALL SELECT 'node', record FROM nodes
"""


def upgrade(connection: sqlite3.Connection) -> Iterator[Write]:
    """Yield everything that the tables of schema 1 hold as items, and then drop these tables."""
    later = _later_tables(connection)
    (last,) = connection.execute("SELECT n FROM head").fetchone()
    yield from live(connection)
    connection.execute("CREATE INDEX history_by_n ON history (n)")
    yield from _history(connection, last)
    if "usage_head" in later:
        for (data,) in connection.execute("SELECT data FROM usage_head"):
            yield usage.put_head(data)
        for day, n, data in connection.execute("SELECT day, n, data FROM usage_days"):
            yield usage.put_day(day, n, data)
    for table in (*_TABLES, *later):
        connection.execute(f"DROP TABLE {table}")


def live(connection: sqlite3.Connection) -> Iterator[Write]:
    """Yield the live state as items, without the history, which is large. Changes nothing."""
    row = connection.execute("SELECT epoch, n, commit_id, at, next_seq FROM head").fetchone()
    head = replace(Head(*row), guard=secrets.token_hex(8), checkpoint=checkpoint.new_name(row[1]))
    records = connection.execute(_LIVE).fetchall()
    if "others" in _later_tables(connection):
        records += connection.execute("SELECT kind, record FROM others")
    yield Write(Action.PUT, HEAD, asdict(head))
    yield from checkpoint.put(head.checkpoint, checkpoint.encode(records, {}))
    owners = connection.execute("SELECT node, slot, reservation, attempt FROM slots")
    yield from writes.put_owners({Slot(node, index): (of, attempt) for node, index, of, attempt in owners})


def _later_tables(connection: sqlite3.Connection) -> list[str]:
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    return [table for table in _LATER_TABLES if table in names]


def _history(connection: sqlite3.Connection, last: int) -> Iterator[Write]:
    """Yield the history, what has ended, and what is known of each id."""
    commits: dict[str, list[int]] = {}
    ended: dict[str, int] = {}
    at = 0
    for n in range(1, last + 1):
        rows = connection.execute(
            "SELECT at, reservation, kind, cause, actor, gone, record FROM history WHERE n = ? "
            "ORDER BY position",
            (n,),
        ).fetchall()
        entries = [
            items.Entry(kind, cause, actor, bool(gone), Raw(data))
            for *_, kind, cause, actor, gone, data in rows
        ]
        at = rows[0][0] if rows else at
        yield from items.put_history(n, at, items.compressed(entries))
        for position, (_, of, kind, _, _, gone, _) in enumerate(rows, n * items.STRIDE):
            if of is not None and n not in commits.setdefault(of, [])[-1:]:
                commits[of].append(n)
            if gone and kind == "reservation":
                ended[of] = position
    for of, subject, record in connection.execute("SELECT id, subject, record FROM ended"):
        yield items.put_ended(ended[of], subject, record)
    live = {of for (of,) in connection.execute("SELECT id FROM reservations")}
    for of, found in commits.items():
        known = {"ended": ended.get(of), "n": found[0] if of in live else None}
        yield Write(Action.PUT, items.log_key(of), {"commits": found, **known})
