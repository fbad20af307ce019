"""Writes of checkpoints and conversions that DynamoDB carries out late, or whose answers are lost."""

from __future__ import annotations

import asyncio

import pytest

from checkpoint_tables import all_ended, ended, item_of, layout_1, names, save
from dynamodb_local import DynamoDBLocal
from dynamodb_proxy import Fault, FaultProxy
from gpudev_hub.core.commit import Snapshot
from gpudev_hub.core.ports import SlotTaken, StaleEpoch
from gpudev_hub.stores import checkpoint
from gpudev_hub.stores.dynamodb.calls import Patience
from gpudev_hub.stores.dynamodb.store import DynamoStore
from store_commits import changed, claim, commit, everything, fold, hot, reservation, taken

pytestmark = pytest.mark.dynamodb
QUICK = Patience(tries=3, pause=0.01)


@pytest.fixture(autouse=True)
def never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests say when a checkpoint is written."""
    monkeypatch.setattr(checkpoint, "is_due", lambda folded: False)


def behind(proxy: FaultProxy, dynamodb: DynamoDBLocal, table: str) -> DynamoStore:
    return DynamoStore(table, dynamodb.client(proxy.url, timeout=20), patience=QUICK)


async def opened_again(dynamodb: DynamoDBLocal, table: str) -> Snapshot:
    """What the next service finds; it is what the history says."""
    store = DynamoStore(table, dynamodb.client(), patience=QUICK)
    snapshot = await store.open()
    assert hot(snapshot) == fold(await everything(store))
    await store.close()
    return snapshot


async def test_a_checkpoint_is_not_published_late(dynamodb: DynamoDBLocal, proxy: FaultProxy) -> None:
    """3: the head had named a checkpoint that was removed, and no service could open the table."""
    table = dynamodb.table()
    store = behind(proxy, dynamodb, table)
    await store.open()
    await store.commit(commit(1, *changed(reservation("a1"))))
    proxy.next(Fault.LANDS_LATE, operation="UpdateItem")
    await asyncio.to_thread(save, store)
    await store.commit(commit(2, *changed(reservation("b1", seq=2))))
    await asyncio.to_thread(save, store)
    proxy.release()
    proxy.wait_landed()
    await store.close()
    assert sorted((await opened_again(dynamodb, table)).reservations) == ["a1", "b1"]


async def test_owners_are_not_converted_late(dynamodb: DynamoDBLocal, proxy: FaultProxy) -> None:
    """1, 3: a late write had put back the owner of a slot that was free since."""
    table, _ = layout_1(dynamodb, dynamodb.client())
    store = behind(proxy, dynamodb, table)
    proxy.next(Fault.LANDS_LATE)
    epoch = (await store.open()).epoch
    freed = commit(10, *changed(claim("a0"), gone=True), free=taken(claim("a0")), epoch=epoch)
    await store.commit(freed)
    proxy.release()
    proxy.wait_landed()
    await store.close()
    await opened_again(dynamodb, table)


async def test_ids_are_not_converted_late(dynamodb: DynamoDBLocal, proxy: FaultProxy) -> None:
    """3: a late write had hidden a reservation that ended since."""
    table, _ = layout_1(dynamodb, dynamodb.client())
    store = behind(proxy, dynamodb, table)
    proxy.next(Fault.LANDS_LATE)
    epoch = (await store.open()).epoch
    await store.commit(commit(10, *changed(ended(reservation("a2"), 10), gone=True), epoch=epoch))
    await asyncio.to_thread(save, store)
    proxy.release()
    proxy.wait_landed()
    assert await store.find("a2") is not None
    await store.close()


async def test_a_log_is_not_written_late(dynamodb: DynamoDBLocal, proxy: FaultProxy) -> None:
    """12: a late write had cut off the history of a reservation."""
    store = behind(proxy, dynamodb, dynamodb.table())
    await store.open()
    held = claim("a1")
    await store.commit(commit(1, *changed(reservation("a1"), held), take=taken(held)))
    await store.commit(commit(2, *changed(ended(reservation("a1"), 2), gone=True)))
    proxy.next(Fault.LANDS_LATE)
    await asyncio.to_thread(save, store)
    await store.commit(commit(3, *changed(held, gone=True), free=taken(held)))
    await asyncio.to_thread(save, store)
    proxy.release()
    proxy.wait_landed()
    entries, _ = await store.history("a1", 0, 10)
    assert [entry.n for entry in entries] == [1, 1, 2, 3]
    await store.close()


@pytest.mark.parametrize("lost", ["UpdateItem", "TransactWriteItems", "PutItem", "DeleteItem"])
async def test_answers_of_a_checkpoint_may_be_lost(
    dynamodb: DynamoDBLocal, proxy: FaultProxy, lost: str
) -> None:
    """3: at most the next commit is refused, and decided again."""
    table = dynamodb.table()
    store = behind(proxy, dynamodb, table)
    await store.open()
    held = claim("a1")
    await store.commit(commit(1, *changed(reservation("a1"), reservation("b1"), held), take=taken(held)))
    await asyncio.to_thread(save, store)
    await store.commit(commit(2, *changed(ended(reservation("a1"), 2), gone=True)))
    proxy.next(Fault.ANSWER_LOST, times=3, operation=lost)
    await asyncio.to_thread(save, store, fails=lost != "DeleteItem")
    assert proxy.left == 0
    freed = commit(3, *changed(held, gone=True), free=taken(held))
    try:
        await store.commit(freed)
    except SlotTaken:
        assert (await store.reload()).n == 2
        await store.commit(freed)
    await asyncio.to_thread(save, store)
    assert await all_ended(store, None) == ["a1"]
    entries, _ = await store.history("a1", 0, 10)
    assert [entry.n for entry in entries] == [1, 1, 2, 3]
    await store.close()
    await opened_again(dynamodb, table)
    head = item_of(dynamodb.client(), table, "head", "head")
    assert head is not None
    assert names(dynamodb.client(), table, "checkpoint") == [head["checkpoint"]["S"] + "#0000"]


async def test_of_services_that_convert_at_once_one_goes_on(dynamodb: DynamoDBLocal) -> None:
    """11"""
    table, _ = layout_1(dynamodb, dynamodb.client())
    stores = [DynamoStore(table, dynamodb.client(), patience=QUICK) for _ in range(3)]
    results = await asyncio.gather(*(store.open() for store in stores), return_exceptions=True)
    for store in stores:
        await store.close()
    assert [type(one) for one in results if not isinstance(one, Snapshot)] in (
        [],
        [StaleEpoch],
        [StaleEpoch] * 2,
    )
    await opened_again(dynamodb, table)


async def test_a_commit_under_way_is_durable_when_the_store_closes(
    dynamodb: DynamoDBLocal, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3"""
    monkeypatch.setattr(checkpoint, "is_due", lambda folded: True)
    table = dynamodb.table()
    store = behind(proxy, dynamodb, table)
    await store.open()
    proxy.next(Fault.HELD)
    making = asyncio.create_task(store.commit(commit(1, *changed(reservation("a1")))))
    await asyncio.to_thread(proxy.arrived.wait, 20)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    proxy.release()
    await closing
    await making
    assert sorted((await opened_again(dynamodb, table)).reservations) == ["a1"]
