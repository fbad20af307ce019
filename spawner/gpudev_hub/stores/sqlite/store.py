"""The store in one SQLite file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from gpudev_hub.core.commit import Commit, Snapshot
from gpudev_hub.core.ports import LastCommit, StoreBehind
from gpudev_hub.failpoints import Failpoint, nothing
from gpudev_hub.stores.log_store import LogStore

from .commit_count import CommitCount
from .file import SqliteFile

CHECKPOINT_AFTER: Final = 100
"""Commits after which the log is written back into the database file at once."""
IDLE: Final = 1.0
"""Seconds without a commit after which it is written back: damage to the log then costs nothing."""


class SqliteStore(LogStore):
    """A ``Store`` in the file ``path``. Beside it lies ``path`` + ``.commits`` (``CommitCount``)."""

    def __init__(self, path: Path, failpoint: Failpoint = nothing) -> None:
        self._file = SqliteFile(path)
        super().__init__(self._file, 1, failpoint)
        self._path = path
        self._count = CommitCount(path.with_name(f"{path.name}.commits"))
        self._uncopied = 0
        """Commits that are in the log only."""
        self._copying: asyncio.TimerHandle | None = None

    async def read(self) -> Snapshot:
        """Return the live state as it is on the disk; lock it, and change nothing else.

        Raises ``StoreLocked``, ``StoreUnavailable`` or ``StoreBehind``.
        """
        return await self._in(self._writer, self._look)

    async def peek(self) -> LastCommit:
        """Return the last commit; nothing is changed. Raises what ``read`` does."""
        snapshot = await self.read()
        return LastCommit(snapshot.n, snapshot.at)

    async def commit(self, commit: Commit) -> None:
        """Make the commit durable: it is on the disk when this returns."""
        await super().commit(commit)
        self._uncopied += 1
        if self._copying is not None:
            self._copying.cancel()
        pause = IDLE if self._uncopied < CHECKPOINT_AFTER else 0
        self._copying = asyncio.get_running_loop().call_later(pause, self._copy_soon)

    def _copy_soon(self) -> None:
        self._uncopied, self._copying = 0, None
        if not self._closed:
            self._writer.submit(self._file.copy_back)

    async def close(self) -> None:
        """Finish what is under way, close the file and release the lock; a second call does nothing."""
        if self._copying is not None:
            self._copying.cancel()
        await super().close()
        self._count.close()

    # In the writing thread.

    def _look(self) -> Snapshot:
        with self._file.looking():
            head = self._known_head()
            made = self._count.read()
            if head.n < made:
                raise StoreBehind(
                    f"{self._path} holds {head.n} commits, but {made} were made: the file or its log was "
                    f"damaged, or replaced by an older one. Restore the latest backup. To continue with "
                    f"{head.n} commits, without the reservations made since, remove {self._count.path}. "
                    "Nothing was changed"
                )
            return self._snapshot(head)

    def _open(self) -> Snapshot:
        self._file.open()
        self._file.copy_back()
        snapshot = super()._open()
        self._count.write(snapshot.n)
        return snapshot

    def _commit(self, commit: Commit) -> None:
        super()._commit(commit)
        self._count.write(commit.n)
