"""One SQLite file with a table of items: WAL, synced at every commit, used by one process."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from gpudev_hub.core.ports import OutcomeUnknown, StoreBehind, StoreLocked, StoreUnavailable
from gpudev_hub.locks import Held, take_lock
from gpudev_hub.stores.backend import FIRST, LAST, Action, Backend, Item, Key, Unmet, Write, reading
from gpudev_hub.stores.items import ended_key

from .upgrade import live, upgrade

SCHEMA: Final = 2
"""Version of the tables, kept in the file as ``user_version``."""
_TABLES: Final = (
    """CREATE TABLE items (
        pk TEXT NOT NULL, sk TEXT NOT NULL, subject TEXT, item BLOB NOT NULL, PRIMARY KEY (pk, sk)
    ) STRICT""",
    "CREATE INDEX items_by_subject ON items (subject, sk) WHERE subject IS NOT NULL",
)
_PAGE: Final = 200
"""Most items that are read at once."""
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Item)

log = logging.getLogger(__name__)


class SqliteFile(Backend):
    """A ``Backend`` in the file ``path`` (made with mode 0600). Each thread has a connection of its own.

    ``path`` + ``.lock`` is locked while the file is open.
    """

    item_bytes = 1 << 29
    """SQLite takes one gigabyte."""
    delays_writes = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock: int | None = None
        self._opened = False
        self._connections: dict[int, sqlite3.Connection] = {}

    def open(self) -> None:
        """Lock the file, and make or convert its tables. Raises ``StoreLocked``."""
        self._take_lock()
        try:
            with self._told():
                # Made here, so that nobody else can read it even for an instant.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._opened = True
            with self._transaction() as connection:
                self._prepare(connection)
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        path = self._path.with_name(self._path.name + ".lock")
        try:
            with self._told():
                self._lock = take_lock(path)
        except Held as held:
            raise StoreLocked(
                f"{self._path} is in use by process {held.holder or '?'} (which holds {path}): "
                "stop that service first, or use another state folder"
            ) from held

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let this thread read the file as it is, without changing anything; no file is an empty one.

        Locks the file if it exists. Raises ``StoreLocked`` or ``StoreBehind``.
        """
        if self._opened:
            yield
            return
        with self._told(), closing(self._look()) as connection:
            self._connections = {threading.get_ident(): connection}
            self._opened = True
            try:
                yield
            finally:
                self._opened, self._connections = False, {}

    def copy_back(self) -> None:
        """Write the log back and empty it: left in place and damaged, it could bring back older pages."""
        try:
            self._here().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.warning("%s: the log cannot be written back now: %s", self._path, error)

    def get(self, key: Key) -> Item | None:
        return next(iter(self._items("pk = ? AND sk = ?", *key)), None)

    def query(
        self, pk: str, first: str = FIRST, last: str = LAST, *, page: int | None = None, latest: bool = False
    ) -> Iterator[Item]:
        order = "DESC" if latest else "ASC"
        above, below = ">=", "<="
        most = min(page or _PAGE, _PAGE)
        while True:
            where = f"pk = ? AND sk {above} ? AND sk {below} ? ORDER BY sk {order} LIMIT ?"
            found = self._items(where, pk, first, last, most)
            yield from found
            if len(found) < most:
                return
            if latest:
                below, last = "<", found[-1]["sk"]
            else:
                above, first = ">", found[-1]["sk"]

    def ended_of(self, subject: str, before: int, page: int) -> Iterator[Item]:
        end, most = ended_key(before)[1], min(page, _PAGE)
        while True:
            found = self._items("subject = ? AND sk < ? ORDER BY sk DESC LIMIT ?", subject, end, most)
            yield from found
            if len(found) < most:
                return
            end = found[-1]["sk"]

    def _items(self, where: str, *arguments: str | int) -> list[Item]:
        """Return items, read at once: ``copy_back`` waits for an open read, and commits for ``copy_back``."""
        select = f"SELECT pk, sk, item FROM items WHERE {where}"  # noqa: S608
        with self._told():
            found = self._here().execute(select, arguments).fetchall()
        return [_decoded(*row) for row in found]

    def write(self, writes: Sequence[Write]) -> None:
        with self._transaction() as connection:
            for index, write in enumerate(writes):
                found = self.get(write.key) or {}
                if any(found.get(name) != value for name, value in write.where.items()):
                    raise Unmet(index, found)
                _apply(connection, write, found)

    def close(self) -> None:
        """Close the file and release its lock."""
        self._opened = False
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _here(self) -> sqlite3.Connection:
        """Return the connection of this thread."""
        if not self._opened:
            raise StoreUnavailable(f"{self._path} is closed")
        found = self._connections.get(threading.get_ident())
        if found is None:
            found = sqlite3.connect(self._path, timeout=5, isolation_level=None, check_same_thread=False)
            found.execute("PRAGMA journal_mode = WAL")
            found.execute("PRAGMA synchronous = FULL")
            self._connections[threading.get_ident()] = found
        return found

    def _look(self) -> sqlite3.Connection:
        logged = _size(self._path.with_name(f"{self._path.name}-wal"))
        memory = sqlite3.connect(":memory:", isolation_level=None)
        if _size(self._path):
            self._take_lock()
            # Without a log, SQLite is told that there is none, so that it makes no files beside the store.
            address = f"file:{quote(self.name)}?{'mode=ro' if logged else 'mode=ro&immutable=1'}"
            there = sqlite3.connect(address, uri=True, timeout=5, isolation_level=None)
            version = self._version(there)
            if version == SCHEMA:
                return there
            self._prepare(memory)
            with closing(there):
                for write in live(there) if version else ():
                    _apply(memory, write, {})
            return memory
        if logged:
            # SQLite would remove it.
            raise StoreBehind(
                f"{self._path} is empty or missing, but its log {self._path.name}-wal exists: put back the "
                "previous file, or a backup. Nothing was changed"
            )
        self._prepare(memory)
        return memory

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the tables, 0 without any. Raises ``StoreUnavailable`` for other files."""
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise StoreUnavailable(f"{self._path} is a database of another program: use another file")
        if not 0 <= version <= SCHEMA:
            raise StoreUnavailable(
                f"{self._path} has schema {version}; this version of gpudev knows schema {SCHEMA}: "
                "run the version that made it, or a later one"
            )
        return version

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = self._version(connection)
        if version == SCHEMA:
            return
        for statement in _TABLES:
            connection.execute(statement)
        if version == 1:
            for write in upgrade(connection):
                _apply(connection, write, {})
        connection.execute(f"PRAGMA user_version = {SCHEMA}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            connection = self._here()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                connection.rollback()
                if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                    raise
                # The last page may have reached the disk all the same: only reading tells.
                raise OutcomeUnknown(f"{self._path}: {_said(error)}") from error

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be opened: {error.strerror}") from error
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_FULL:
                raise StoreUnavailable(
                    f"the disk that holds {self._path} is full: free some space"
                ) from error
            raise StoreUnavailable(f"the database {self._path} cannot be used: {_said(error)}") from error


def _decoded(pk: str, sk: str, data: bytes) -> Item:
    with reading((pk, sk)):
        return {**_DECODER.decode(data), "pk": pk, "sk": sk}


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def _apply(connection: sqlite3.Connection, write: Write, found: Item) -> None:
    """Make one write; ``found``: the item before it."""
    if write.action is Action.DELETE:
        connection.execute("DELETE FROM items WHERE pk = ? AND sk = ?", write.key)
    elif write.action is not Action.CHECK:
        kept = found if write.action is Action.UPDATE else {}
        values = {**kept, **write.values, "pk": write.key[0], "sk": write.key[1]}
        item = {name: value for name, value in values.items() if value is not None}
        connection.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET subject = excluded.subject, item = excluded.item",
            (*write.key, item.get("subject"), _ENCODER.encode(item)),
        )


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _said(error: sqlite3.Error) -> str:
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
