"""The store that keeps a log of commits (``docs/dynamodb.md``), over any ``Backend``.

A commit adds an entry to the history. The live state is folded from a checkpoint and the history after it.

A backend blocks, so it is called in threads: one that writes, and others that read what has ended and the
history, which never wait for a commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ParamSpec, TypeVar

from gpudev_hub.core.commit import Commit, HistoryEntry, Snapshot
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.core.ports import LastCommit, OutcomeUnknown, Page, SlotTaken, StaleEpoch, StoreUnavailable
from gpudev_hub.core.usage import SavedUsage, UsageDay, UsageHead
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_COMMIT, Failpoint

from . import checkpoint, items, reads, usage, writes
from .backend import Backend, Unmet, Unreadable, Write
from .checkpoint import Folded, NotWhole, owners_of
from .items import SCHEMA, Head, change_head, read_head

_T = TypeVar("_T")
_P = ParamSpec("_P")

log = logging.getLogger(__name__)


class LogStore:
    """A ``Store`` over a backend: the base of the stores in DynamoDB and in SQLite.

    Methods without a description do what ``Store`` says.
    """

    def __init__(self, backend: Backend, readers: int, failpoint: Failpoint) -> None:
        """``readers``: threads that read at the same time."""
        self._backend = backend
        self._failpoint = failpoint
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._reader = ThreadPoolExecutor(readers, "store-read")
        self._head: Head | None = None
        """As of our last write or read."""
        self._folded = Folded()
        """The state after the commit of that head."""
        self._closed = False

    async def peek(self) -> LastCommit:
        return await self._in(self._reader, self._peek)

    async def open(self) -> Snapshot:
        """Take the next epoch and return the live state.

        Raises ``StoreUnavailable`` also if the store cannot be used, for example one of a later version.
        """
        return await self._in(self._writer, self._open)

    async def reload(self) -> Snapshot:
        """Return the live state again, under the epoch already taken.

        A commit sent before and not made by then is never made: its outcome is known from now on.
        """
        return await self._in(self._writer, self._reload)

    async def check(self) -> None:
        await self._in(self._reader, self._check)

    async def commit(self, commit: Commit) -> None:
        """Make the commit in one transaction: it is durable when this returns."""
        await self._in(self._writer, self._commit, commit)
        if not self._closed and checkpoint.is_due(self._folded):
            # Nobody waits for it, except for the next commit.
            self._writer.submit(self._save)

    async def ended(self, subject: str | None, before: int | None, limit: int) -> Page[Reservation]:
        return await self._in(self._reader, reads.ended, self._backend, self._folded, subject, before, limit)

    async def find(self, reservation: str) -> Reservation | None:
        return await self._in(self._reader, reads.find, self._backend, self._folded, reservation)

    async def history(self, reservation: str | None, after: int, limit: int) -> Page[HistoryEntry]:
        return await self._in(
            self._reader, reads.history, self._backend, self._folded, reservation, after, limit
        )

    async def seek(self, at: Millis) -> int:
        return await self._in(self._reader, reads.seek, self._backend, at)

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        """Replace the sums of these days and then the head, in the thread that writes.

        The transactions check the head of the log, so they must not run into a commit's.
        """
        transactions = usage.transactions(head, days, self._ours().epoch, self._backend.item_bytes)
        await self._in(self._writer, self._save_usage, transactions)

    async def load_usage(self) -> SavedUsage | None:
        return await self._in(self._reader, usage.load, self._backend)

    async def close(self) -> None:
        """Finish the call under way, and close the backend; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._backend.stop()
            for close in (self._reader.shutdown, self._writer.shutdown, self._backend.close):
                await asyncio.to_thread(close)

    async def _in(
        self, executor: ThreadPoolExecutor, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        def readable() -> _T:
            try:
                return work(*args, **kwargs)
            except Unreadable as error:
                raise StoreUnavailable(
                    f"{self._backend.name} holds a record that cannot be read: {error}. If a later version "
                    "of gpudev wrote it, run that version. If it is damaged, restore a backup"
                ) from error

        if self._closed:
            raise StoreUnavailable(f"{self._backend.name} is closed")
        return await asyncio.get_running_loop().run_in_executor(executor, readable)

    # In the writing thread.

    def _open(self) -> Snapshot:
        self._head = self._converted(self._take_over())
        snapshot = self._snapshot(self._head)
        checkpoint.remove_older(self._backend, self._head)
        return snapshot

    def _take_over(self) -> Head:
        while True:
            head = self._known_head()
            try:
                return self._head_of(change_head(self._backend, head, epoch=head.epoch + 1))
            except Unmet:
                pass  # another service was quicker

    def _converted(self, head: Head) -> Head:
        """Convert an earlier layout; return the head after that."""
        return head

    def _whole(self, head: Head, read: Callable[[], _T]) -> _T:
        """Return what ``read`` returns once what it reads belongs together.

        It reads one page after another. They are of one state because only we may write, which the head read
        afterwards proves, and because no part of the last commit is still on its way. Raises ``StaleEpoch``
        if another service takes over meanwhile.
        """
        amiss: NotWhole | None = None
        for _ in self._backend.tries():
            try:
                return read()
            except NotWhole as error:
                amiss = error
                self._head_of(head)
            except Unmet:
                self._head_of(head)
                raise
        raise StoreUnavailable(
            f"{self._backend.name} is not consistent: {amiss}. "
            "If it was restored to a time in the middle of a commit, restore it to another time"
        )

    def _known_head(self) -> Head:
        """Return the head. Raises ``StoreUnavailable`` if the layout is of another version."""
        head = read_head(self._backend)
        if head.schema not in (1, SCHEMA):
            raise StoreUnavailable(
                f"{self._backend.name} has schema {head.schema}; this version of gpudev knows schema "
                f"{SCHEMA}: run the version that made it, or a later one"
            )
        return head

    def _head_of(self, ours: Head) -> Head:
        """Return the head as it is. Raises ``StaleEpoch`` if another service took over after ``ours``."""
        head = read_head(self._backend)
        if (head.epoch, head.guard) != (ours.epoch, ours.guard):
            raise self._stale(head, ours.epoch)
        return head

    def _peek(self) -> LastCommit:
        head = self._known_head()
        return LastCommit(head.n, head.at)

    def _reload(self) -> Snapshot:
        while True:
            self._head = head = self._check()
            if not self._backend.delays_writes:
                return self._snapshot(head)
            try:
                self._head = head = self._head_of(change_head(self._backend, head))
                return self._snapshot(head)
            except Unmet:
                pass  # an earlier try, whose answer was lost, has arrived

    def _snapshot(self, head: Head) -> Snapshot:
        self._folded = self._whole(head, lambda: reads.read_whole(self._backend, head))
        self._head_of(head)
        snapshot = Snapshot(head.epoch, head.n, head.at, head.next_seq)
        snapshot.take_tables(self._folded.state)
        return snapshot

    def _save(self) -> None:
        """Write a checkpoint. Every commit is durable without it; if it fails, a later one is tried."""
        try:
            self._head = checkpoint.save(self._backend, self._ours(), self._folded)
            checkpoint.remove_older(self._backend, self._head)
        except (StoreUnavailable, Unmet, Unreadable) as error:
            log.warning("%s: no checkpoint was written: %s", self._backend.name, error)
            self._folded.bytes = 0
        except Exception:
            log.exception("%s: no checkpoint was written", self._backend.name)
            self._folded.bytes = 0

    def _commit(self, commit: Commit) -> None:
        head = self._ours()
        if commit.n != head.n + 1:
            raise SlotTaken(f"commit {commit.n} does not follow commit {head.n}, the last one")
        data = items.encode_changes(commit.changes)
        nodes = {slot.node for slot, _ in (*commit.take, *commit.free)}
        owners = owners_of(self._folded.state, nodes) if nodes else {}
        transaction = writes.transaction(commit, head, data, self._folded.new_ids(commit.changes), owners)
        self._failpoint(BEFORE_COMMIT)
        try:
            self._backend.write(transaction)
        except Unmet as unmet:
            self._explain(commit, head, transaction, unmet)
        except OutcomeUnknown as error:
            if not self._was_made(commit):
                raise OutcomeUnknown(f"{error} (commit {commit.n})") from error
        self._head = replace(head, **transaction[0].values)
        self._folded.apply(commit.n, commit.changes, len(data))
        self._failpoint(AFTER_COMMIT)

    def _explain(self, commit: Commit, head: Head, transaction: list[Write], unmet: Unmet) -> None:
        """Raise the reason why a commit was refused; return if it was made, and the answer was lost."""
        if unmet.index:
            raise writes.why_refused(transaction[unmet.index], unmet.found, commit) from unmet
        there = Head.read(unmet.found)
        if there.commit_id == commit.id:
            return
        if there.epoch != commit.epoch:
            raise self._stale(there, commit.epoch) from unmet
        if there.n != head.n:
            raise SlotTaken(f"commit {commit.n} does not follow commit {there.n}, the last one") from unmet
        raise SlotTaken(f"the state was read again after commit {commit.n} was decided") from unmet

    def _was_made(self, commit: Commit) -> bool:
        """Return whether the head says so. If not, it may still be made, until the state is read again."""
        try:
            head = read_head(self._backend)
        except (StoreUnavailable, Unreadable):
            return False
        if head.commit_id != commit.id and head.epoch != commit.epoch:
            raise self._stale(head, commit.epoch)
        return head.commit_id == commit.id

    def _check(self) -> Head:
        """Return the head as it is. Raises ``StaleEpoch`` if another service has taken over."""
        ours, head = self._ours().epoch, read_head(self._backend)
        if head.epoch != ours:
            raise self._stale(head, ours)
        return head

    def _save_usage(self, transactions: list[list[Write]]) -> None:
        for transaction in transactions:
            try:
                self._backend.write(transaction)
            except Unmet as unmet:
                raise self._stale(Head.read(unmet.found), self._ours().epoch) from unmet

    def _ours(self) -> Head:
        if self._head is None:
            raise StoreUnavailable(f"{self._backend.name} is not open")
        return self._head

    def _stale(self, found: Head, ours: int) -> StaleEpoch:
        return StaleEpoch(
            f"another service has opened {self._backend.name}: its epoch is {found.epoch}, ours was {ours}; "
            "this one stops"
        )
