"""Checkpoints: the live state after one commit, from which it is folded at the next start.

A checkpoint is written without any condition, under a name of its own, and counts once the head has its name.
So a crash at any point leaves either the old one or the new one, and items that nothing refers to.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec

from gpudev_hub.stores import records

from . import items, writes
from .calls import Calls
from .folded import Folded, Log, Recent
from .items import Head, Item, n_of, s_of
from .reads import Reader

LEAST_BYTES: Final = 256_000
"""Of history between two checkpoints. A start reads these, which takes some tens of milliseconds."""
_KEY: Final = "checkpoint"


class _Data(msgspec.Struct, array_like=True):
    records: list[tuple[str, msgspec.Raw]]
    logs: dict[str, Log]


_DECODER: Final = msgspec.json.Decoder(_Data)
_ENCODER: Final = msgspec.json.Encoder()


class NotWhole(Exception):
    """What was read does not belong together; the message says why."""


class Checkpoints:
    """Checkpoints of one table."""

    def __init__(self, table: str, client: Any, calls: Calls, read: Reader) -> None:
        self._table = table
        self._client = client
        self._calls = calls
        self._read = read

    def read(self, head: Head) -> Folded:
        """The state of the checkpoint that the head names. Raises ``NotWhole``."""
        folded = Folded(Recent(head.checkpoint_n))
        if not head.checkpoint:
            return folded
        found = list(
            self._read.query(
                "pk = :pk AND begins_with(sk, :name)",
                {":pk": s_of(_KEY), ":name": s_of(f"{head.checkpoint}#")},
            )
        )
        if not found or items.number(found[0], "pieces") != len(found):
            raise NotWhole(f"checkpoint {head.checkpoint} has {len(found)} items")
        data = b"".join(bytes(item["data"]["B"]) for item in found)
        there = _DECODER.decode(zlib.decompress(data))
        for kind, raw in there.records:
            folded.state.set_record(records.decode(kind, bytes(raw)))
        folded.logs, folded.checkpoint_bytes = there.logs, len(data)
        return folded

    @staticmethod
    def is_due(folded: Folded) -> bool:
        """Whether a start would have much to fold, at least twice what is in the checkpoint."""
        return folded.bytes >= max(LEAST_BYTES, 2 * folded.checkpoint_bytes)

    def write(self, head: Head, folded: Folded) -> Head:
        """Give what has ended its items, and write a checkpoint of the rest.

        Raises ``Unmet`` if the state was read again meanwhile, by this service or another.
        """
        puts = [items.ended_item(position, record) for position, record in folded.recent.ended]
        puts += [
            items.log_item(of, folded.logs[of].commits, folded.logs[of].ended) for of in folded.settled()
        ]
        self.write_all(head, [{"Put": {"Item": item}} for item in puts])
        logs = folded.kept_logs()
        name, size = self.store(head, folded, logs)
        published = self.publish(head, name)
        folded.saved(head.n, logs, size)
        return published

    def publish(self, head: Head, name: str) -> Head:
        """From now on the live state is folded from this checkpoint. Raises ``Unmet``.

        The guard changes too, so no write of this checkpoint or an earlier one can arrive later.
        """
        guard = secrets.token_hex(8)
        self._calls.write(
            lambda: self._client.update_item(
                TableName=self._table,
                Key=items.HEAD,
                UpdateExpression="SET checkpoint = :name, #schema = :schema, guard = :next",
                ConditionExpression="guard IN (:guard, :next)",
                ExpressionAttributeNames={"#schema": "schema"},
                ExpressionAttributeValues={
                    ":name": s_of(name),
                    ":schema": n_of(items.SCHEMA),
                    ":guard": s_of(head.guard),
                    ":next": s_of(guard),
                },
            )
        )
        return replace(head, checkpoint=name, schema=items.SCHEMA, guard=guard)

    def write_all(self, head: Head, changes: Sequence[Item]) -> None:
        """Put or delete items as long as the head is as this one; each may have been done before."""
        for start in range(0, len(changes), writes.MOST_ITEMS - 1):
            some = [items.check_guard(head), *changes[start : start + writes.MOST_ITEMS - 1]]
            self._calls.write(
                partial(self._client.transact_write_items, TransactItems=writes.table_of(self._table, some))
            )

    def store(self, head: Head, folded: Folded, logs: dict[str, Log]) -> tuple[str, int]:
        """Write the items of a checkpoint that nothing refers to yet; its name and size."""
        live = [(records.kind_of(r), msgspec.Raw(records.encode(r))) for r in folded.state.live_records()]
        data = zlib.compress(_ENCODER.encode(_Data(live, logs)))
        name, pieces = f"{head.n:012}-{secrets.token_hex(4)}", items.in_pieces(data)
        for i, piece in enumerate(pieces):
            item = {
                "pk": s_of(_KEY),
                "sk": s_of(f"{name}#{i:04}"),
                "pieces": n_of(len(pieces)),
                "data": {"B": piece},
            }
            self._calls.write(partial(self._client.put_item, TableName=self._table, Item=item))
        return name, len(data)

    def remove_older(self, head: Head) -> None:
        """Remove checkpoints of earlier commits: no head will name them, whoever writes it."""
        older = self._read.query(
            "pk = :pk AND sk < :name",
            {":pk": s_of(_KEY), ":name": s_of(f"{head.checkpoint_n:012}")},
            ProjectionExpression="pk, sk",
        )
        for key in older:
            self._calls.write(partial(self._client.delete_item, TableName=self._table, Key=key))
