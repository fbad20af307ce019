"""The store in one SQLite file: WAL, synced at every commit, one process, one thread that writes.

Reading of what has ended and of the history has a connection and a thread of its own, so that it never waits
for a commit nor holds one up.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

from gpudev_hub.core.commit import Change, Commit, HistoryEntry, Part, Snapshot
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.core.ports import OutcomeUnknown, SlotTaken, StaleEpoch, StoreLocked, StoreUnavailable
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_COMMIT, Failpoint, nothing

from . import records, tables

_T = TypeVar("_T")


class SqliteStore:
    """A ``Store`` in the file ``path`` (made with mode 0600), locked by ``path`` + ``.lock``."""

    def __init__(self, path: Path, failpoint: Failpoint = nothing) -> None:
        self._path = path
        self._failpoint = failpoint
        self._lock: int | None = None
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._reader = ThreadPoolExecutor(1, "store-read")
        self._epoch = 0
        self._closed = False

    async def open(self) -> Snapshot:
        """Lock the file, make the tables if there are none, take the next epoch, return the hot state."""
        return await self._in(self._writer, self._open)

    async def reload(self) -> Snapshot:
        """The hot state again, under the epoch already taken."""
        return await self._in(self._writer, self._reload)

    async def check(self) -> None:
        """Raises ``StaleEpoch`` if another service has taken over."""
        await self._in(self._reader, self._check)

    def fits(self, part: Part) -> bool:  # noqa: ARG002 (no part is too large)
        """Whatever the size: the disk is the limit."""
        return True

    async def commit(self, commit: Commit) -> None:
        """Make the commit durable: it is on the disk when this returns."""
        await self._in(self._writer, lambda: self._commit(commit))

    async def ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        """Ended reservations, latest first."""
        return await self._in(self._reader, lambda: self._ended(subject, before, limit))

    async def find(self, reservation: str) -> Reservation | None:
        """The last record of a reservation, live or ended."""
        return await self._in(self._reader, lambda: self._find(reservation))

    async def history(
        self, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        """History in commit order."""
        return await self._in(self._reader, lambda: self._history(reservation, after, limit))

    async def seek(self, at: Millis) -> int:
        """The cursor before the first change at ``at`` or later."""
        return await self._in(self._reader, lambda: self._seek(at))

    async def close(self) -> None:
        """Finish what is under way, close the file and let go of the lock; once more does nothing."""
        if self._closed:
            return
        await self._in(self._reader, self._close_reading)
        await self._in(self._writer, self._close_writing)
        self._closed = True
        self._reader.shutdown()
        self._writer.shutdown()

    async def _in(self, executor: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        def guarded() -> _T:
            try:
                return work()
            except sqlite3.Error as error:
                self._unavailable(error)

        if self._closed:
            raise StoreUnavailable(f"{self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(executor, guarded)

    def _unavailable(self, error: sqlite3.Error) -> NoReturn:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise StoreUnavailable(
                f"the disk that holds {self._path} is full; nothing was changed: free some space, try again"
            ) from error
        raise StoreUnavailable(f"{self._path}: {error} ({_name(error)}); nothing was changed") from error

    # In the writing thread.

    def _open(self) -> Snapshot:
        self._take_lock()
        try:
            # Made here, so that nobody else can read it even for an instant.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writing = self._connect()
            self._prepare(self._writing)
            self._reading = self._connect()
            self._reading.execute("PRAGMA query_only = ON")
        except OSError as error:
            self._close_writing()
            raise StoreUnavailable(f"{self._path} can't be opened: {error.strerror}") from error
        except (sqlite3.Error, StoreUnavailable):
            self._close_writing()
            raise
        return self._snapshot()

    def _take_lock(self) -> None:
        path = self._path.with_name(self._path.name + ".lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{path} can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 32).decode(errors="replace").strip()
            os.close(lock)
            raise StoreLocked(
                f"{self._path} is in use by process {holder or '?'} (it holds {path}): "
                "stop that service first, or give this one another state folder"
            ) from error
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the number is a courtesy, the lock holds without it
        self._lock = lock

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                    raise StoreUnavailable(f"{self._path} is a database of something else: give another file")
                for statement in tables.TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {tables.SCHEMA}")
            elif version != tables.SCHEMA:
                raise StoreUnavailable(
                    f"{self._path} has schema {version}, this version of gpudev knows {tables.SCHEMA}: "
                    "run the version that made it, or a later one"
                )
            connection.execute("UPDATE head SET epoch = epoch + 1")
            (self._epoch,) = connection.execute("SELECT epoch FROM head").fetchone()
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _reload(self) -> Snapshot:
        snapshot = self._snapshot()
        if snapshot.epoch != self._epoch:
            raise StaleEpoch(self._stale(snapshot.epoch, self._epoch))
        return snapshot

    def _snapshot(self) -> Snapshot:
        connection = self._open_for_writing()
        connection.execute("BEGIN")
        try:
            epoch, n, at, next_seq = connection.execute("SELECT epoch, n, at, next_seq FROM head").fetchone()
            snapshot = Snapshot(epoch, n, at, next_seq)
            for (data,) in connection.execute("SELECT record FROM reservations"):
                reservation = records.decode_reservation(data)
                snapshot.reservations[reservation.id] = reservation
            for (data,) in connection.execute("SELECT record FROM claims"):
                claim = records.decode_claim(data)
                snapshot.claims[claim.key] = claim
            for (data,) in connection.execute("SELECT record FROM minted"):
                minted = records.decode_minted(data)
                snapshot.minted[minted.id] = minted
            for (data,) in connection.execute("SELECT record FROM nodes"):
                node = records.decode_node(data)
                snapshot.nodes[node.name] = node
        finally:
            connection.execute("ROLLBACK")
        return snapshot

    def _commit(self, commit: Commit) -> None:
        connection = self._open_for_writing()
        connection.execute("BEGIN IMMEDIATE")
        try:
            epoch, n = connection.execute("SELECT epoch, n FROM head").fetchone()
            if epoch != commit.epoch:
                raise StaleEpoch(self._stale(epoch, commit.epoch))
            if commit.n != n + 1:
                raise SlotTaken(f"commit {commit.n} does not follow commit {n}, the last one")
            tables.free(connection, commit.free)
            tables.take(connection, commit.take)
            for change in commit.changes:
                tables.apply(connection, change)
            tables.append_history(connection, commit)
            seqs = [change.record.seq for change in commit.changes if isinstance(change.record, Reservation)]
            connection.execute(
                "UPDATE head SET n = ?, commit_id = ?, at = ?, next_seq = max(next_seq, ?)",
                (commit.n, commit.id, commit.at, max(seqs, default=0) + 1),
            )
            self._failpoint(BEFORE_COMMIT)
        except sqlite3.IntegrityError as error:
            _roll_back(connection)
            raise SlotTaken(f"commit {commit.n} breaks a constraint of the store: {error}") from error
        except BaseException:
            _roll_back(connection)
            raise
        self._finish(connection, commit)
        self._failpoint(AFTER_COMMIT)

    def _finish(self, connection: sqlite3.Connection, commit: Commit) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(connection)
            if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
                raise
            # The last page may have reached the disk all the same: only reading tells.
            raise OutcomeUnknown(f"{self._path}: {error} ({_name(error)}) at commit {commit.n}") from error

    def _close_writing(self) -> None:
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open_for_writing(self) -> sqlite3.Connection:
        if self._writing is None:
            raise StoreUnavailable(f"{self._path} is closed")
        return self._writing

    def _stale(self, found: int, ours: int) -> str:
        return (
            f"another service has opened {self._path}: its epoch is {found}, ours was {ours}; this one stops"
        )

    # In the reading thread.

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _open_for_reading(self) -> sqlite3.Connection:
        if self._reading is None:
            raise StoreUnavailable(f"{self._path} is closed")
        return self._reading

    def _check(self) -> None:
        (epoch,) = self._open_for_reading().execute("SELECT epoch FROM head").fetchone()
        if epoch != self._epoch:
            raise StaleEpoch(self._stale(epoch, self._epoch))

    def _ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        latest = (1 << 62) if before is None else before
        query = "SELECT position, record FROM ended WHERE position < ?{} ORDER BY position DESC LIMIT ?"
        arguments: tuple[object, ...]
        if subject is None:
            query, arguments = query.format(""), (latest, limit + 1)
        else:
            query, arguments = query.format(" AND subject = ?"), (latest, subject, limit + 1)
        rows = self._open_for_reading().execute(query, arguments).fetchall()
        page = rows[:limit]
        return (
            [records.decode_reservation(data) for _, data in page],
            page[-1][0] if len(rows) > limit else None,
        )

    def _find(self, reservation: str) -> Reservation | None:
        query = (
            "SELECT record FROM reservations WHERE id = ?1 UNION ALL SELECT record FROM ended WHERE id = ?1"
        )
        row = self._open_for_reading().execute(query, (reservation,)).fetchone()
        return None if row is None else records.decode_reservation(row[0])

    def _history(
        self, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        query = "SELECT position, n, at, kind, cause, actor, gone, record FROM history WHERE {} LIMIT ?"
        arguments: tuple[object, ...]
        if reservation is None:
            query, arguments = query.format("position > ? ORDER BY position"), (after, limit + 1)
        else:
            where = "reservation = ? AND position > ? ORDER BY position"
            query, arguments = query.format(where), (reservation, after, limit + 1)
        rows = self._open_for_reading().execute(query, arguments).fetchall()
        page = rows[:limit]
        entries = [
            HistoryEntry(n, at, Change(records.decode(kind, record), cause, actor, bool(gone)))
            for _, n, at, kind, cause, actor, gone, record in page
        ]
        return entries, page[-1][0] if len(rows) > limit else None

    def _seek(self, at: Millis) -> int:
        """By halving: positions have no gaps, and time goes up with them."""
        connection = self._open_for_reading()
        (last,) = connection.execute("SELECT coalesce(max(position), 0) FROM history").fetchone()

        def at_of(position: int) -> Millis:
            row = connection.execute("SELECT at FROM history WHERE position = ?", (position,)).fetchone()
            return int(row[0])

        return bisect_left(range(1, last + 1), at, key=at_of)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
