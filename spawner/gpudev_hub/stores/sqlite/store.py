"""The store in one SQLite file: WAL, synced at every commit, one process, one thread that writes.

Reading of what has ended and of the history has a connection and a thread of its own, so that it never waits
for a commit nor holds one up.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import msgspec

from gpudev_hub.core.commit import Commit, HistoryEntry, Snapshot
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.core.ports import (
    LastCommit,
    OutcomeUnknown,
    SlotTaken,
    StaleEpoch,
    StoreLocked,
    StoreUnavailable,
)
from gpudev_hub.core.usage import SavedUsage, UsageDay, UsageHead
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_COMMIT, Failpoint, nothing
from gpudev_hub.stores import usage_records

from . import look, reads, tables, usage
from .commit_count import CommitCount

_T = TypeVar("_T")


CHECKPOINT_AFTER: Final = 100
"""Commits after which the log is written back into the database file at once."""
IDLE: Final = 1.0
"""Seconds without a commit after which it is written back: damage to the log then costs nothing."""

log = logging.getLogger(__name__)


class SqliteStore:
    """A ``Store`` in the file ``path`` (made with mode 0600).

    Beside it lie ``path`` + ``.lock``, held while the store is open, and ``path`` + ``.commits``
    (``CommitCount``).
    """

    def __init__(self, path: Path, failpoint: Failpoint = nothing) -> None:
        self._path = path
        self._failpoint = failpoint
        self._lock: int | None = None
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._reader = ThreadPoolExecutor(1, "store-read")
        self._count = CommitCount(path.with_name(f"{path.name}.commits"))
        self._epoch = 0
        self._closed = False
        self._uncopied = 0
        """Commits that are in the log only."""
        self._copying: asyncio.TimerHandle | None = None

    async def read(self) -> Snapshot:
        """The live state as it lies on the disk, locked from now on; nothing else is changed.

        Raises ``StoreLocked``, ``StoreUnavailable`` or ``StoreBehind``.
        """
        return await self._in(self._writer, self._read)

    async def peek(self) -> LastCommit:
        """The last commit; nothing is changed. Raises what ``read`` does."""
        snapshot = await self.read()
        return LastCommit(snapshot.n, snapshot.at)

    async def open(self) -> Snapshot:
        """Lock the file, make the tables if there are none, take the next epoch, return the live state."""
        return await self._in(self._writer, self._open)

    async def reload(self) -> Snapshot:
        """The live state again, under the epoch already taken."""
        return await self._in(self._writer, self._reload)

    async def check(self) -> None:
        """Raises ``StaleEpoch`` if another service has taken over."""
        await self._in(self._reader, self._check)

    async def commit(self, commit: Commit) -> None:
        """Make the commit durable: it is on the disk when this returns."""
        await self._in(self._writer, lambda: self._commit(commit))
        self._uncopied += 1
        if self._copying is not None:
            self._copying.cancel()
        pause = IDLE if self._uncopied < CHECKPOINT_AFTER else 0
        self._copying = asyncio.get_running_loop().call_later(pause, self._copy_soon)

    def _copy_soon(self) -> None:
        self._uncopied, self._copying = 0, None
        if not self._closed:
            self._writer.submit(self._checkpoint)

    async def ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        """Ended reservations, latest first."""
        return await self._in(
            self._reader, lambda: reads.ended(self._open_for_reading(), subject, before, limit)
        )

    async def find(self, reservation: str) -> Reservation | None:
        """The last record of a reservation, live or ended."""
        return await self._in(self._reader, lambda: reads.find(self._open_for_reading(), reservation))

    async def history(
        self, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        """History in commit order."""
        return await self._in(
            self._reader, lambda: reads.history(self._open_for_reading(), reservation, after, limit)
        )

    async def seek(self, at: Millis) -> int:
        """The cursor before the first change at ``at`` or later."""
        return await self._in(self._reader, lambda: reads.seek(self._open_for_reading(), at))

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        """Replace the sums of these days and the head, together."""
        encoded = [(saved.day, saved.n, usage_records.encode_day(saved)) for saved in days]
        encoded_head = usage_records.encode_head(head)
        await self._in(self._writer, lambda: self._save_usage(encoded_head, encoded))

    async def load_usage(self) -> SavedUsage | None:
        """The saved usage sums."""
        return await self._in(self._reader, lambda: usage.load(self._open_for_reading()))

    async def close(self) -> None:
        """Finish what is under way, close the file and let go of the lock; once more does nothing."""
        if self._closed:
            return
        if self._copying is not None:
            self._copying.cancel()
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
            except msgspec.MsgspecError as error:
                raise StoreUnavailable(f"{self._path} holds a record that cannot be read: {error}") from error

        if self._closed:
            raise StoreUnavailable(f"{self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(executor, guarded)

    def _unavailable(self, error: sqlite3.Error) -> NoReturn:
        if _code(error) == sqlite3.SQLITE_FULL:
            raise StoreUnavailable(
                f"the disk that holds {self._path} is full; nothing was changed. Free some space, try again"
            ) from error
        raise StoreUnavailable(f"{self._path}: {error} ({_name(error)}); nothing was changed") from error

    # In the writing thread.

    def _read(self) -> Snapshot:
        if look.size(self._path):
            self._take_lock()
        return look.look(self._path, self._count)

    def _checkpoint(self) -> None:
        """Write the log back and empty it: left in place and damaged, it could bring back older pages."""
        if self._writing is not None:
            try:
                self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                log.warning("%s: the log cannot be written back now: %s", self._path, error)

    def _open(self) -> Snapshot:
        self._take_lock()
        try:
            # Made here, so that nobody else can read it even for an instant.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writing = self._connect()
            self._prepare(self._writing)
            self._checkpoint()
            self._reading = self._connect()
            self._reading.execute("PRAGMA query_only = ON")
        except OSError as error:
            self._close_writing()
            raise StoreUnavailable(f"{self._path} cannot be opened: {error.strerror}") from error
        except (sqlite3.Error, StoreUnavailable):
            self._close_writing()
            raise
        snapshot = self._snapshot()
        self._count.write(snapshot.n)
        return snapshot

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        path = self._path.with_name(self._path.name + ".lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 32).decode(errors="replace").strip()
            os.close(lock)
            raise StoreLocked(
                f"{self._path} is in use by process {holder or '?'} (which holds {path}): "
                "stop that service first, or use another state folder"
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
            if look.is_new(self._path, connection):
                for statement in tables.TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {tables.SCHEMA}")
            connection.execute(tables.OTHERS)
            for statement in usage.TABLES:
                connection.execute(statement)
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
        return tables.snapshot(self._open_for_writing())

    def _commit(self, commit: Commit) -> None:
        connection = self._open_for_writing()
        connection.execute("BEGIN IMMEDIATE")
        try:
            epoch, n, next_seq = connection.execute("SELECT epoch, n, next_seq FROM head").fetchone()
            if epoch != commit.epoch:
                raise StaleEpoch(self._stale(epoch, commit.epoch))
            if commit.n != n + 1:
                raise SlotTaken(f"commit {commit.n} does not follow commit {n}, the last one")
            tables.free(connection, commit.free)
            tables.take(connection, commit.take)
            for change in commit.changes:
                tables.apply(connection, change)
            tables.append_history(connection, commit)
            connection.execute(
                "UPDATE head SET n = ?, commit_id = ?, at = ?, next_seq = ?",
                (commit.n, commit.id, commit.at, commit.next_seq(next_seq)),
            )
            self._failpoint(BEFORE_COMMIT)
        except sqlite3.IntegrityError as error:
            _roll_back(connection)
            raise SlotTaken(f"commit {commit.n} breaks a constraint of the store: {error}") from error
        except BaseException:
            _roll_back(connection)
            raise
        self._finish(connection, commit)
        self._count.write(commit.n)
        self._failpoint(AFTER_COMMIT)

    def _save_usage(self, head: bytes, days: list[usage.EncodedDay]) -> None:
        connection = self._open_for_writing()
        connection.execute("BEGIN IMMEDIATE")
        try:
            (epoch,) = connection.execute("SELECT epoch FROM head").fetchone()
            if epoch != self._epoch:
                raise StaleEpoch(self._stale(epoch, self._epoch))
            usage.save(connection, head, days)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

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
        self._count.close()
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


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
