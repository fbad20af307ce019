"""Checkpoints of the live state in DynamoDB, and tables of the layout before them. Numbers: invariants."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from checkpoint_tables import all_ended, ended, item_of, layout_1, names, save
from dynamodb_local import DynamoDBLocal
from gpudev_hub.core.commit import Snapshot
from gpudev_hub.core.model import MintedId, Outcome
from gpudev_hub.core.ports import CommitTooLarge, SlotTaken, StaleEpoch, StoreUnavailable
from gpudev_hub.stores import checkpoint, items
from gpudev_hub.stores.dynamodb.store import DynamoStore
from gpudev_hub.stores.items import SCHEMA
from store_commits import (
    ACCESS_RECORDS,
    NODE,
    changed,
    claim,
    commit,
    everything,
    fold,
    hot,
    reservation,
    taken,
    usage_head,
)

pytestmark = pytest.mark.dynamodb

WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")


class Died(BaseException):
    """The process is no more."""


class Dying:
    """A client of a process that dies before its n-th write, which is never sent."""

    def __init__(self, client: Any, writes: int) -> None:
        self._client = client
        self.left = writes

    def __getattr__(self, name: str) -> Any:
        if name in WRITES:
            if self.left <= 0:
                raise Died
            self.left -= 1
        return getattr(self._client, name)


@pytest.fixture
def never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "is_due", lambda folded: False)


@pytest.mark.usefixtures("never_due")
async def test_a_service_that_dies_while_it_writes_a_checkpoint_loses_nothing(
    dynamodb: DynamoDBLocal,
) -> None:
    """3, 12"""
    table, client, n = dynamodb.table(), dynamodb.client(), 0
    gone: list[str] = []
    survived = False
    for writes in range(20):
        dying = Dying(client, 1_000)
        store = DynamoStore(table, dying)
        epoch = (await store.open()).epoch
        ids = [f"r{writes}-{i}" for i in range(3)]
        records = [reservation(ref, seq=4 * writes + i) for i, ref in enumerate(ids)]
        held = claim(ids[2], slots=(writes,))
        n += 1
        await store.commit(commit(n, *changed(*records, held), take=taken(held), epoch=epoch))
        n += 1
        await store.commit(commit(n, *changed(ended(records[0], n), gone=True), epoch=epoch))
        n += 1
        await store.commit(commit(n, *changed(ended(records[2], n), gone=True), epoch=epoch))
        gone += [ids[0], ids[2]]
        dying.left = writes
        try:
            save(store)
        except Died:
            pass
        else:
            survived = True
        await store.close()
        again = DynamoStore(table, client)
        snapshot = await again.open()
        assert snapshot.n == n
        assert fold(await everything(again)) == hot(snapshot)
        for subject in (None, "local:alice"):
            assert await all_ended(again, subject) == gone[::-1]
        for ref in (ids[0], ids[2]):
            found = await again.find(ref)
            assert found is not None
            assert found.outcome is Outcome.RELEASED
            entries, _ = await again.history(ref, 0, 10)
            assert len({entry.n for entry in entries}) == 2
            with pytest.raises(SlotTaken, match=ref):
                await again.commit(commit(n + 1, *changed(reservation(ref)), epoch=snapshot.epoch))
        await again.close()
        if survived:
            break
    assert survived
    assert writes >= 3, "items of what has ended, the checkpoint, the head"
    head = item_of(client, table, "head", "head")
    assert head is not None
    older = [name for name in names(client, table, "checkpoint") if name < head["checkpoint"]["S"][:12]]
    assert older == [], "what nothing refers to any more is removed"


@pytest.mark.usefixtures("never_due")
async def test_a_service_that_was_replaced_changes_no_checkpoint(dynamodb: DynamoDBLocal) -> None:
    """11"""
    table, client = dynamodb.table(), dynamodb.client()
    old, new = DynamoStore(table, client), DynamoStore(table, client)
    await old.open()
    await old.commit(commit(1, *changed(reservation("a1"))))
    await old.commit(commit(2, *changed(ended(reservation("a1"), 2), gone=True)))
    await new.open()
    await new.commit(commit(3, *changed(reservation("b1", seq=2)), epoch=2))
    save(new)
    head = item_of(client, table, "head", "head")
    save(old, fails=True)
    assert item_of(client, table, "head", "head") == head
    with pytest.raises(StaleEpoch):
        await old.commit(commit(3, *changed(reservation("c1"))))
    assert hot(await new.reload()) == fold(await everything(new))
    await old.close()
    await new.close()


async def test_a_start_has_little_history_to_read(
    dynamodb: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "LEAST_BYTES", 4_000)
    table, client = dynamodb.table(), dynamodb.client()
    store = DynamoStore(table, client)
    await store.open()
    for n in range(1, 61):
        await store.commit(commit(n, *changed(replace(reservation("a1"), version=n))))
    assert store._folded.bytes < 5_000
    await store.close()
    assert len(names(client, table, "checkpoint")) == 1
    again = DynamoStore(table, client)
    snapshot = await again.open()
    assert snapshot.reservations["a1"].version == 60
    assert snapshot.n - (await again._in(again._reader, lambda: again._ours())).checkpoint_n < 30
    entries, _ = await again.history("a1", 0, 100)
    assert [entry.n for entry in entries] == list(range(1, 61))
    await again.close()


async def test_half_of_a_checkpoint_is_refused(
    dynamodb: DynamoDBLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore to a point in time keeps no order."""
    monkeypatch.setattr(items, "ITEM_BYTES", 100)
    table, client = dynamodb.table(), dynamodb.client()
    store = DynamoStore(table, client)
    await store.open()
    await store.commit(commit(1, *changed(reservation("a1"))))
    save(store)
    await store.close()
    pieces = names(client, table, "checkpoint")
    assert len(pieces) > 2
    store = DynamoStore(table, client)
    assert list((await store.open()).reservations) == ["a1"]
    await store.close()
    client.delete_item(TableName=table, Key={"pk": {"S": "checkpoint"}, "sk": {"S": pieces[1]}})
    store = DynamoStore(table, client)
    with pytest.raises(StoreUnavailable, match=r"is not consistent: checkpoint .*restore it to another time"):
        await store.open()
    await store.close()


async def test_a_commit_of_many_changes_is_one_transaction(dynamodb: DynamoDBLocal) -> None:
    """3: a queue of thousands that moves, in a history entry of several items."""
    table, client = dynamodb.table(), dynamodb.client(timeout=20)
    store = DynamoStore(table, client)
    await store.open()
    records = [reservation(f"r{i}", seq=i) for i in range(60)]
    await store.commit(commit(1, *changed(*records)))
    noise = random.Random(3)
    moved = [
        replace(record, version=v, detail=noise.randbytes(3_000).hex())
        for v in (1, 2, 3)
        for record in records
    ]
    await store.commit(commit(2, *changed(*moved)))
    assert len(names(client, table, "history")) > 2
    for record in (records[0], records[-1]):
        entries, _ = await store.history(record.id, 0, 10)
        assert [entry.n for entry in entries] == [1, 2, 2, 2]
    assert fold(await everything(store)) == hot(await store.reload())
    with pytest.raises(CommitTooLarge, match=r"commit 3 has 10001 changes"):
        await store.commit(commit(3, *changed(*records[:1]) * 10_001))
    page, cursor = await store.history(None, 0, 70)
    assert cursor is not None
    assert len(page + (await store.history(None, cursor, 1_000))[0]) == 240
    await store.close()


async def is_as_it_was(store: DynamoStore, snapshot: Snapshot) -> None:
    """12"""
    assert snapshot.n == 9
    assert snapshot.next_seq == 11
    assert hot(snapshot) == fold(await everything(store))
    assert sorted(snapshot.reservations) == ["a2", "a3", "b1", "m2"]
    assert list(snapshot.claims) == [("a0", 1), ("b1", 2)]
    assert snapshot.minted == {"m1": MintedId("m1", "local:bob", 5)}
    assert snapshot.nodes == {"node-1": NODE}
    assert set(snapshot.people.values()) == set(ACCESS_RECORDS[:2])
    assert await all_ended(store, None) == await all_ended(store, "local:alice") == ["a1", "a0"]
    for ref, commits in (
        ("a0", [1, 4, 4, 6]),
        ("a1", [1, 7]),
        ("a2", [1, 9]),
        ("m1", [3]),
        ("m2", [3, 8, 8]),
    ):
        entries, _ = await store.history(ref, 0, 10)
        assert [entry.n for entry in entries] == commits
    usage = await store.load_usage()
    assert usage is not None
    assert usage.head == usage_head(3, 20_800, 20_801)


async def test_a_table_of_layout_1_is_converted_whenever_the_service_dies(
    dynamodb: DynamoDBLocal,
) -> None:
    """3: until it is converted, the version before can go on from it."""
    client, survived, table = dynamodb.client(), False, ""
    for writes in range(1, 20):
        table, before = layout_1(dynamodb, client)
        store = DynamoStore(table, Dying(client, writes))
        try:
            await is_as_it_was(store, await store.open())
        except Died:
            pass
        else:
            survived = True
        await store.close()
        head = item_of(client, table, "head", "head")
        assert head is not None
        if head["schema"] == {"N": "1"}:
            there = {key_of(item): item for item in client.scan(TableName=table)["Items"]}
            for item in before:
                if item["pk"]["S"] != "head":
                    assert {**there[key_of(item)], **item} == there[key_of(item)]
        again = DynamoStore(table, client)
        await is_as_it_was(again, await again.open())
        await again.close()
        if survived:
            break
    assert survived
    assert writes > 4
    assert names(client, table, "hot") == []


def key_of(item: dict[str, Any]) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]


async def test_a_converted_table_holds_what_the_layout_before_held(dynamodb: DynamoDBLocal) -> None:
    """1, 3"""
    client = dynamodb.client()
    table, _ = layout_1(dynamodb, client)
    store = DynamoStore(table, client)
    epoch = (await store.open()).epoch
    assert epoch == 2
    used = [commit(10, *changed(reservation(ref, seq=20)), epoch=epoch) for ref in ("a0", "a1")]
    for refused in used:
        with pytest.raises(SlotTaken, match=r"the id a[01] was used before"):
            await store.commit(refused)
    for slot in (0, 4):
        other = taken(claim("zz", slots=(slot,)))
        with pytest.raises(SlotTaken, match=r"can't be taken by \('zz', 1\): its owner is"):
            await store.commit(commit(10, take=other, epoch=epoch))
    await store.commit(
        commit(
            10,
            *changed(claim("a0"), MintedId("m1", "local:bob", 5), gone=True),
            *changed(reservation("m1", seq=11)),
            free=taken(claim("a0")),
            epoch=epoch,
        )
    )
    await store.commit(commit(11, *changed(ended(reservation("a2"), 11), gone=True), epoch=epoch))
    save(store)
    await store.close()
    again = DynamoStore(table, client)
    snapshot = await again.open()
    assert hot(snapshot) == fold(await everything(again))
    assert sorted(snapshot.reservations) == ["a3", "b1", "m1", "m2"]
    assert await all_ended(again, None) == ["a2", "a1", "a0"]
    for ref, commits in (("a0", [1, 4, 4, 6, 10]), ("a2", [1, 9, 11]), ("m1", [3, 10, 10])):
        entries, _ = await again.history(ref, 0, 10)
        assert [entry.n for entry in entries] == commits
    head = item_of(client, table, "head", "head")
    assert head is not None
    assert head["schema"] == {"N": str(SCHEMA)}
    await again.close()
