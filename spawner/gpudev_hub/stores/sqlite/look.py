"""A SQLite store as it lies on the disk, read without changing anything of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from gpudev_hub.core.commit import Snapshot
from gpudev_hub.core.ports import StoreBehind, StoreUnavailable

from . import tables
from .commit_count import CommitCount


def look(path: Path, count: CommitCount) -> Snapshot:
    """Return the live state; an empty one where the store has not been made yet.

    Raises ``StoreBehind`` where it holds fewer commits than ``count`` says, ``StoreUnavailable`` for a file
    that is not ours, and ``sqlite3.Error``.
    """
    logged = size(path.with_name(f"{path.name}-wal"))
    if size(path):
        # Without a log, SQLite is told that there is none, so that it makes no files beside the store.
        address = f"file:{quote(str(path))}?{'mode=ro' if logged else 'mode=ro&immutable=1'}"
        connection = sqlite3.connect(address, uri=True, timeout=5, isolation_level=None)
        try:
            found = _empty() if is_new(path, connection) else tables.snapshot(connection)
        finally:
            connection.close()
    elif logged:
        # SQLite would remove it.
        raise StoreBehind(
            f"{path} is empty or missing, but its log {path.name}-wal exists: put back the previous file, "
            "or a backup. Nothing was changed"
        )
    else:
        found = _empty()
    made = count.read()
    if found.n < made:
        raise StoreBehind(
            f"{path} holds {found.n} commits, but {made} were made: the file or its log was damaged, or "
            f"replaced by an older one. Restore the latest backup. To continue with {found.n} commits, "
            f"without the reservations made since, remove {count.path}. Nothing was changed"
        )
    return found


def is_new(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether it has no tables yet. Raises ``StoreUnavailable`` for a file that is not ours."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise StoreUnavailable(f"{path} is a database of another program: use another file")
        return True
    if version != tables.SCHEMA:
        raise StoreUnavailable(
            f"{path} has schema {version}; this version of gpudev knows schema {tables.SCHEMA}: "
            "run the version that made it, or a later one"
        )
    return False


def size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _empty() -> Snapshot:
    return Snapshot(epoch=0, n=0, at=0, next_seq=1)
