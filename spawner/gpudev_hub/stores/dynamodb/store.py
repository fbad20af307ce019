"""The store in one DynamoDB table (``docs/dynamodb.md``): every commit is one transaction.

A commit adds an entry to the history. The live state is folded from a checkpoint and the history after it.

boto3 blocks, so calls are made in threads: one that writes, and a few for reading what has ended and the
history, which never wait for a commit.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from gpudev_hub.core.commit import Commit, HistoryEntry, Snapshot
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.core.ports import (
    LastCommit,
    OutcomeUnknown,
    SlotTaken,
    StaleEpoch,
    StoreUnavailable,
)
from gpudev_hub.core.usage import SavedUsage, UsageDay, UsageHead
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_COMMIT, Failpoint, nothing

from . import items, usage, writes
from .calls import Calls, Patience, Unmet
from .checkpoint import Checkpoints, NotWhole
from .folded import Folded, Recent, owners_of
from .items import Head, Item, n_of, s_of
from .reads import Reader
from .upgrade import remove_layout_1, upgrade
from .whole import read_whole

_T = TypeVar("_T")
_READERS: Final = 4

log = logging.getLogger(__name__)


class DynamoStore:
    """A ``Store`` in the table ``table``, which must be there: a service may not make tables.

    There is no lock: who opens the store last takes it over, and every earlier one can write no more.
    """

    def __init__(
        self, table: str, client: Any, failpoint: Failpoint = nothing, patience: Patience | None = None
    ) -> None:
        """``client``: from ``calls.connect``."""
        self._table = table
        self._client = client
        self._failpoint = failpoint
        self._calls = Calls(table, patience or Patience())
        self._read = Reader(table, client, self._calls)
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._reader = ThreadPoolExecutor(_READERS, "store-read")
        self._checkpoints = Checkpoints(table, client, self._calls, self._read)
        self._head: Head | None = None
        """As of our last write or read."""
        self._folded = Folded(Recent(0))
        """The state after the commit of that head."""
        self._closed = False

    async def peek(self) -> LastCommit:
        """The last commit, read and not taken over: a service that runs goes on."""
        return await self._in(self._reader, self._peek)

    async def open(self) -> Snapshot:
        """Take the next epoch and return the live state.

        Raises ``StoreUnavailable`` also where there is no such table, or it is of another schema.
        """
        return await self._in(self._writer, self._open)

    async def reload(self) -> Snapshot:
        """The live state again, under the epoch already taken.

        A commit sent before and not made by then is never made: its outcome is known from now on.
        """
        return await self._in(self._writer, self._reload)

    async def check(self) -> None:
        """Raises ``StaleEpoch`` if another service has taken over."""
        await self._in(self._reader, self._check)

    async def commit(self, commit: Commit) -> None:
        """Make the commit in one transaction: durable in several zones when this returns."""
        await self._in(self._writer, lambda: self._commit(commit))
        if not self._closed and self._checkpoints.is_due(self._folded):
            # Nobody waits for it, except for the next commit.
            self._writer.submit(self._save)

    async def ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        """Ended reservations, latest first.

        Those of all are read consistently; those of one subject from an index, which is mostly less than a
        second behind.
        """
        return await self._in(self._reader, lambda: self._read.ended(self._folded, subject, before, limit))

    async def find(self, reservation: str) -> Reservation | None:
        """The last record of a reservation, live or ended."""
        return await self._in(self._reader, lambda: self._read.find(self._folded, reservation))

    async def history(
        self, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        """History in commit order."""
        return await self._in(
            self._reader, lambda: self._read.history(self._folded, reservation, after, limit)
        )

    async def seek(self, at: Millis) -> int:
        """The cursor before the first commit at ``at`` or later."""
        return await self._in(self._reader, lambda: self._read.seek(at))

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        """Replace the sums of these days and then the head, in the thread that writes: the transactions
        check the head of the table, and must not run into a commit's.
        """
        transactions = usage.transactions(head, days, self._ours().epoch)
        await self._in(self._writer, lambda: self._save_usage(transactions))

    async def load_usage(self) -> SavedUsage | None:
        """The saved usage sums."""
        return await self._in(self._reader, lambda: usage.load(self._read))

    async def close(self) -> None:
        """Finish the call under way; once more does nothing."""
        if not self._closed:
            self._closed = True
            self._calls.stop()
            await asyncio.to_thread(self._reader.shutdown)
            await asyncio.to_thread(self._writer.shutdown)

    async def _in(self, executor: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        if self._closed:
            raise StoreUnavailable(f"the store in table {self._table} is closed")
        return await asyncio.get_running_loop().run_in_executor(executor, work)

    # In the writing thread.

    def _open(self) -> Snapshot:
        guard = secrets.token_hex(8)
        head = self._take_over(guard)
        if head.schema != items.SCHEMA:
            log.warning("table %s has schema %d: it is converted", self._table, head.schema)
            layout_1 = head
            head = self._whole(layout_1, lambda: upgrade(layout_1, self._read, self._checkpoints))
        self._head = head
        snapshot = self._snapshot(head)
        self._checkpoints.remove_older(head)
        self._whole(head, lambda: remove_layout_1(head, self._read, self._checkpoints))
        return snapshot

    def _whole(self, head: Head, read: Callable[[], _T]) -> _T:
        """What ``read`` returns once what it reads belongs together.

        It reads one page after the other: they are of one state because only we may write, which the head
        read afterwards proves, and because nothing of the last commit is still on its way. Raises
        ``StaleEpoch`` if another service takes over meanwhile.
        """
        amiss: NotWhole | None = None
        for _ in self._calls.tries():
            try:
                return read()
            except NotWhole as error:
                amiss = error
                self._check_head(head)
            except Unmet:
                self._check_head(head)
                raise
        raise StoreUnavailable(
            f"table {self._table} is not consistent: {amiss}. "
            "If it was restored to a time in the middle of a commit, restore it to another time"
        )

    def _check_head(self, head: Head) -> None:
        now = self._read.head()
        if now is None or Head.read(now) != head:
            raise self._stale(0 if now is None else items.number(now, "epoch"), head.epoch)

    def _peek(self) -> LastCommit:
        found = self._read.head()
        if found is None:
            return LastCommit(0, 0)
        self._check_schema(found)
        head = Head.read(found)
        return LastCommit(head.n, head.at)

    def _take_over(self, guard: str) -> Head:
        """Take the next epoch; ``guard`` tells our own take-over from another's, if an answer is lost."""
        while True:
            found = self._read.head()
            if found is not None:
                self._check_schema(found)
            head = None if found is None else Head.read(found)
            if head is not None and head.guard == guard:
                return head
            if found is None or head is None:
                self._change_head(
                    self._client.put_item,
                    Item=items.first_head(guard),
                    ConditionExpression="attribute_not_exists(pk)",
                )
            else:
                self._change_head(
                    self._client.update_item,
                    Key=items.HEAD,
                    UpdateExpression="SET epoch = :next, guard = :guard",
                    ConditionExpression="epoch = :epoch",
                    ExpressionAttributeValues={
                        ":next": n_of(head.epoch + 1),
                        ":epoch": n_of(head.epoch),
                        ":guard": s_of(guard),
                    },
                )

    def _change_head(self, call: Callable[..., Any], **arguments: Any) -> None:
        try:
            self._calls.write(partial(call, TableName=self._table, **arguments))
        except Unmet:
            pass  # another service was quicker, or an answer of ours was lost: the head tells which

    def _check_schema(self, head: Item) -> None:
        schema = items.number(head, "schema")
        if schema not in (1, items.SCHEMA):
            raise StoreUnavailable(
                f"table {self._table} has schema {schema}; this version of gpudev knows schema "
                f"{items.SCHEMA}: run the version that made it, or a later one"
            )

    def _reload(self) -> Snapshot:
        ours, known, guard = self._ours().epoch, self._ours().guard, secrets.token_hex(8)
        while True:
            try:
                head = self._set_guard(ours, known, guard)
            except Unmet as unmet:
                there = Head.read(unmet.items[0][1])
                if there.epoch != ours:
                    raise self._stale(there.epoch, ours) from unmet
                known = there.guard  # of an earlier try to read again, whose answer was lost
            else:
                self._head = head
                return self._snapshot(head)

    def _set_guard(self, epoch: int, known: str, guard: str) -> Head:
        """From one that is known: an older request that arrives late must not bring an older one back."""
        answer = self._calls.write(
            lambda: self._client.update_item(
                TableName=self._table,
                Key=items.HEAD,
                UpdateExpression="SET guard = :guard",
                ConditionExpression="epoch = :epoch AND guard IN (:known, :guard)",
                ExpressionAttributeValues={
                    ":epoch": n_of(epoch),
                    ":known": s_of(known),
                    ":guard": s_of(guard),
                },
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        )
        return Head.read(answer["Attributes"])

    def _snapshot(self, head: Head) -> Snapshot:
        self._folded = self._whole(head, lambda: read_whole(head, self._read, self._checkpoints))
        self._check_head(head)
        snapshot = Snapshot(head.epoch, head.n, head.at, head.next_seq)
        snapshot.take_tables(self._folded.state)
        return snapshot

    def _save(self) -> None:
        """Write a checkpoint. Every commit stands without it; a later one is tried."""
        try:
            self._head = self._checkpoints.write(self._ours(), self._folded)
            self._checkpoints.remove_older(self._head)
        except (StoreUnavailable, Unmet) as error:
            log.warning("table %s: no checkpoint was written: %s", self._table, error)
            self._folded.bytes = 0
        except Exception:
            log.exception("table %s: no checkpoint was written", self._table)
            self._folded.bytes = 0

    def _commit(self, commit: Commit) -> None:
        head = self._ours()
        if commit.n != head.n + 1:
            raise SlotTaken(f"commit {commit.n} does not follow commit {head.n}, the last one")
        data = items.encode_changes(commit.changes)
        owners = owners_of(self._folded.state) if commit.take or commit.free else {}
        transaction = writes.transaction(commit, head, data, self._folded.new_ids(commit.changes), owners)
        self._failpoint(BEFORE_COMMIT)
        try:
            self._transact(transaction, commit.id)
        except Unmet as unmet:
            self._explain(commit, head, transaction, unmet)
        except OutcomeUnknown:
            if not self._was_made(commit):
                raise
        self._head = replace(
            head, n=commit.n, commit_id=commit.id, at=commit.at, next_seq=commit.next_seq(head.next_seq)
        )
        self._folded.apply(commit.n, commit.changes, len(data))
        self._failpoint(AFTER_COMMIT)

    def _explain(self, commit: Commit, head: Head, transaction: list[Item], unmet: Unmet) -> None:
        """Raises what stands against the commit; returns if it was made before, and the answer was lost."""
        index, found = unmet.items[0]
        if index:
            raise writes.why_refused(transaction[index], found, commit) from unmet
        there = Head.read(found)
        if there.commit_id == commit.id:
            return
        if there.epoch != commit.epoch:
            raise self._stale(there.epoch, commit.epoch) from unmet
        if there.n != head.n:
            raise SlotTaken(f"commit {commit.n} does not follow commit {there.n}, the last one") from unmet
        raise SlotTaken(f"the state was read again after commit {commit.n} was decided") from unmet

    def _was_made(self, commit: Commit) -> bool:
        """Whether the head says so. If not, it may still be made, until the state is read again."""
        try:
            found = self._read.head()
        except StoreUnavailable:
            return False
        if found is None:
            return False
        head = Head.read(found)
        if head.commit_id == commit.id:
            return True
        if head.epoch != commit.epoch:
            raise self._stale(head.epoch, commit.epoch)
        return False

    def _check(self) -> None:
        ours, found = self._ours().epoch, self._read.head()
        epoch = 0 if found is None else Head.read(found).epoch
        if epoch != ours:
            raise self._stale(epoch, ours)

    def _save_usage(self, transactions: list[list[Item]]) -> None:
        for transaction in transactions:
            try:
                self._transact(transaction)
            except Unmet as unmet:
                there = Head.read(unmet.items[0][1])
                raise self._stale(there.epoch, self._ours().epoch) from unmet

    def _transact(self, transaction: list[Item], token: str | None = None) -> None:
        """``token``: the same transaction again under it changes nothing more."""
        arguments: Item = {"TransactItems": writes.table_of(self._table, transaction)}
        if token is not None:
            arguments["ClientRequestToken"] = token
        self._calls.write(lambda: self._client.transact_write_items(**arguments))

    def _ours(self) -> Head:
        if self._head is None:
            raise StoreUnavailable(f"the store in table {self._table} is not open")
        return self._head

    def _stale(self, found: int, ours: int) -> StaleEpoch:
        return StaleEpoch(
            f"another service has opened table {self._table}: its epoch is {found}, ours was {ours}; "
            "this one stops"
        )
